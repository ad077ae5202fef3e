//! The C API, called as C calls it: what it gives, what it refuses, what it leaves alone.

#![allow(unsafe_code, reason = "that is how C calls")]

use std::collections::BTreeSet;
use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::common::c_context::{CContext, Reentry, config, count_down, note, plan, refuse, requirements, threads};
use crate::common::c_context::{go_on_again, log_again, save_again, work_again};
use crate::common::gguf::{Gguf, Tiny, Val};
use armlet::arch::Kernels;
use armlet::capi::armlet_status::*;
use armlet::capi::*;
use armlet::engine::{Config, Engine, Plan, Session};
use armlet::gguf::File;
use armlet::host::memory;
use armlet::model::Model;
use armlet::storage::Serial;

/// Every status that a test has seen.
#[derive(Default)]
struct Seen(BTreeSet<i32>);

impl Seen {
    fn expect(&mut self, got: armlet_status, want: armlet_status) {
        assert_eq!(got, want);
        self.0.insert(got as i32);
    }
}

/// With an end of turn, and what ChatML is told by.
pub(crate) fn chatty() -> Gguf {
    let tiny = Tiny { dtype: armlet::quant::DType::Q8_0, ..Tiny::default() };
    let mut gguf = tiny.gguf();
    let token = |i: usize| match i {
        65 => "<|im_start|>".to_string(),
        66 => "<|im_end|>".to_string(),
        _ => char::from(33 + i as u8).to_string(),
    };
    gguf.set("tokenizer.ggml.tokens", Val::Strs((0..tiny.vocab).map(token).collect()));
    gguf.set("tokenizer.ggml.token_type", Val::I32s((0..67).map(|i| if i < 65 { 1 } else { 3 }).collect()));
    gguf.set("tokenizer.ggml.eos_token_id", Val::U32(66));
    gguf
}

#[test]
fn a_plan_is_exact_and_nothing_outside_it_changes() {
    let model = chatty().build();
    let before = model.clone();
    for kv_type in [0, 1, 2] {
        let config = armlet_config { kv_type, ..config() };
        let needs = plan(&model, &config).unwrap();
        assert_eq!(needs.arena_bytes, needs.kv_bytes + needs.table_bytes + needs.workspace_bytes + needs.text_bytes);
        assert_eq!((needs.context, needs.vocab, needs.arena_align), (64, 67, 64));
        let one_fewer = CContext::with_len(&model, &config, needs.arena_bytes as usize - 1);
        assert_eq!(one_fewer.err(), Some(ARMLET_ERR_ARENA));
        let context = CContext::new(&model, &config).unwrap();
        assert_eq!(context.prefill(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), ARMLET_OK);
        // Beyond the ring's first turn.
        for _ in 0..100 {
            let (status, _) = context.step();
            assert!([ARMLET_OK, ARMLET_END].contains(&status));
        }
        context.restore(&context.saved());
    }
    assert_eq!(model, before);
}

#[test]
fn a_budget_becomes_a_context() {
    let model = chatty().build();
    let budget = plan(&model, &config()).unwrap().kv_bytes;
    let by_budget = |kv_budget| plan(&model, &armlet_config { context: 0, kv_budget, ..config() }).unwrap();
    let with = |context| plan(&model, &armlet_config { context, ..config() }).unwrap();
    for budget in [budget - 1, budget, budget + 1, 2 * budget] {
        let needs = by_budget(budget);
        assert!(needs.kv_bytes <= budget && with(needs.context + 1).kv_bytes > budget);
    }
}

#[test]
fn tokens_and_bits_are_those_of_the_engine_however_many_cores_work() {
    let bytes = chatty().build();
    let file = File::new_checked(&bytes).unwrap();
    let mut tables = memory(Model::required_bytes(&file).unwrap()).unwrap();
    let model = Model::new(&file, &mut tables).unwrap();
    let prompt: Vec<u32> = (0..21).map(|i| i * 7 % 65).collect();
    let plan = Plan::new(&model.hparams, &Config { context: 64, chunk: 8, ..Config::default() }).unwrap();
    let (mut work, mut cache) = (memory(plan.engine_bytes()).unwrap(), memory(plan.session_bytes()).unwrap());
    let mut engine = Engine::new(&model, Kernels::detect(), &plan, &mut work).unwrap();
    let mut session = Session::new(&model, &plan, &mut cache).unwrap();
    let want: Vec<u32> = engine.eval(&Serial, &mut session, &prompt).unwrap().iter().map(|l| l.to_bits()).collect();
    for workers in [0, 1, 2, 3, 4, 16] {
        let config = armlet_config { workers, parallel_for: Some(threads), ..config() };
        let context = CContext::new(&bytes, &config).unwrap();
        assert_eq!(context.prefill(&prompt), ARMLET_OK);
        assert_eq!(context.logits(), want, "{workers} workers");
        let info = context.info();
        assert_eq!((info.position, info.vocab, info.eos), (21, 67, 66));
        if workers > 1 {
            // Shares differ by one tile at most, and everyone has one.
            assert!(info.imbalance <= 1, "{info:?}");
            assert!(info.tiles[..workers as usize].iter().all(|t| *t > 0) || workers > 4, "{info:?}");
        }
    }
}

#[test]
fn a_stop_leaves_a_context_that_goes_on() {
    let model = chatty().build();
    let prompt: Vec<u32> = (0..30).collect();
    let plain = CContext::new(&model, &config()).unwrap();
    assert_eq!(plain.prefill(&prompt), ARMLET_OK);
    let want = plain.logits();

    let passes = AtomicU32::new(2);
    let stopping =
        armlet_config { keep_going: Some(count_down), user: (&raw const passes).cast_mut().cast(), ..config() };
    let context = CContext::new(&model, &stopping).unwrap();
    assert_eq!(context.prefill(&prompt), ARMLET_ERR_STOPPED);
    assert_eq!((context.info().position, context.step().0), (16, ARMLET_ERR_ORDER));
    passes.store(100, Relaxed);
    assert_eq!(context.prefill(&prompt[16..]), ARMLET_OK);
    assert_eq!(context.logits(), want);
    // A step that is stopped has not begun.
    passes.store(0, Relaxed);
    assert_eq!(context.step(), (ARMLET_ERR_STOPPED, ARMLET_NO_TOKEN));
    assert_eq!(context.info().position, 30);
    passes.store(100, Relaxed);
    assert_eq!(context.step(), plain.step());
    assert_eq!(context.logits(), plain.logits());
}

/// Every callback calls back: that is refused, and what it is part of goes on as if nothing had been.
#[test]
fn a_call_from_a_callback_is_refused() {
    let model = chatty().build();
    let alone = CContext::new(&model, &config()).unwrap();
    assert_eq!(alone.prefill(&[3, 4, 5]), ARMLET_OK);
    let want = (alone.steps(3), alone.logits());

    let mut again = Reentry { ctx: std::ptr::null_mut(), seen: Vec::new() };
    let user = (&raw mut again).cast();
    let callbacks = armlet_config {
        user,
        log: Some(log_again),
        keep_going: Some(go_on_again),
        parallel_for: Some(work_again),
        workers: 2,
        ..config()
    };
    let context = CContext::new(&model, &callbacks).unwrap();
    again.ctx = context.ctx;
    assert_eq!(context.prefill(&[3, 4, 5]), ARMLET_OK);
    assert_eq!((context.steps(3), context.logits()), want);
    let before = again.seen.len();
    // The log, for a token that is none; then a state's bytes.
    assert_eq!(context.prefill(&[u32::MAX]), ARMLET_ERR_TOKEN);
    let logged = again.seen.len();
    // SAFETY: the context is this one's, and `save_again` takes a `Reentry`.
    assert_eq!(unsafe { armlet_save(context.ctx, Some(save_again), user) }, ARMLET_OK);
    assert!(0 < before && before < logged && logged < again.seen.len());
    assert!(again.seen.iter().all(|status| *status == ARMLET_ERR_BUSY), "{:?}", again.seen);
    assert_eq!(context.info().position, alone.info().position);
}

/// Whether a token was read or chosen makes no difference to how little it is repeated.
#[test]
fn what_was_read_is_repeated_less() {
    let model = chatty().build();
    let prompt: Vec<u32> = (0..30).collect();
    let (whole, parts) = (CContext::new(&model, &config()).unwrap(), CContext::new(&model, &config()).unwrap());
    assert_eq!((whole.repeat_less(3.0), parts.repeat_less(3.0)), (ARMLET_OK, ARMLET_OK));
    assert_eq!(whole.prefill(&prompt), ARMLET_OK);
    let said = whole.steps(12);
    assert_eq!(parts.prefill(&[&prompt[..], &said[..4]].concat()), ARMLET_OK);
    assert_eq!(parts.steps(8), said[4..]);
}

/// The copy refers to the parts of the arena that it is of.
#[test]
fn a_copy_of_a_context_is_none() {
    let model = chatty().build();
    let context = CContext::new(&model, &config()).unwrap();
    let mut copy = memory(context.arena_bytes()).unwrap();
    copy.copy_from_slice(&context.copy());
    // SAFETY: as many bytes as a context has.
    assert_eq!(unsafe { armlet_reset(copy.as_mut_ptr().cast()) }, ARMLET_ERR_HANDLE);
    assert_eq!(context.prefill(&[1, 2]), ARMLET_OK);
}

#[test]
fn what_was_saved_goes_on_alike() {
    let model = chatty().build();
    let context = CContext::new(&model, &config()).unwrap();
    assert_eq!(context.prefill(&[3, 1, 4, 1, 5, 9, 2, 6]), ARMLET_OK);
    let state = context.saved();
    assert_eq!(context.prefill(&[5]), ARMLET_OK);
    let want = (context.logits(), context.steps(5));
    let other = CContext::new(&model, &config()).unwrap();
    assert_eq!(other.restore(&state), ARMLET_OK);
    assert_eq!(other.step().0, ARMLET_ERR_ORDER);
    assert_eq!(other.prefill(&[5]), ARMLET_OK);
    assert_eq!((other.logits(), other.steps(5)), want);
    // Back to where it was saved, and then to the start.
    assert_eq!((other.rewind(8), other.rewind(1000)), (ARMLET_OK, ARMLET_OK));
    assert_eq!(other.prefill(&[5]), ARMLET_OK);
    assert_eq!(other.logits(), want.0);
    // SAFETY: its context.
    assert_eq!(unsafe { armlet_reset(other.ctx) }, ARMLET_OK);
    assert_eq!(other.prefill(&[3, 1, 4, 1, 5, 9, 2, 6, 5]), ARMLET_OK);
    assert_eq!(other.logits(), want.0);
}

/// The tokens of a turn.
fn turn(context: &CContext<'_>, role: u32, text: &str, flags: u32) -> Result<Vec<u32>, armlet_status> {
    let (mut tokens, mut n) = (vec![0; 600], 0);
    // SAFETY: all are the test's.
    let status = unsafe {
        armlet_chat_turn(context.ctx, role, text.as_ptr().cast(), text.len(), flags, tokens.as_mut_ptr(), 600, &mut n)
    };
    tokens.truncate(n);
    if status == ARMLET_OK { Ok(tokens) } else { Err(status) }
}

fn detokenize(context: &CContext<'_>, tokens: &[u32], flags: u32) -> String {
    let (mut text, mut len) = (vec![0u8; 1000], 0);
    // SAFETY: all are the test's.
    let status = unsafe {
        let out = text.as_mut_ptr().cast();
        armlet_detokenize(context.ctx, tokens.as_ptr(), tokens.len(), flags, out, text.len(), &mut len)
    };
    assert_eq!(status, ARMLET_OK);
    String::from_utf8(text[..len].to_vec()).unwrap()
}

#[test]
fn a_turn_is_the_models_format_and_a_users_text_stays_text() {
    let mapped = crate::common::map_smollm2();
    let context = CContext::new(&mapped, &armlet_config { context: 128, ..config() }).unwrap();
    let open = turn(&context, 1, "Hi <|im_end|>", ARMLET_OPEN_ANSWER).unwrap();
    let shown = detokenize(&context, &open, ARMLET_SHOW_SPECIAL);
    assert_eq!(shown, "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n");
    // The written one is eight tokens of text; the control tokens are those of the format.
    let control = |t: &&u32| **t < 17;
    assert_eq!(open.iter().filter(control).count(), 3, "{open:?}");
    assert_eq!(detokenize(&context, &open, 0), "user\nHi <|im_end|>\nassistant\n");
    let closing = turn(&context, 1, "Yes.", ARMLET_CLOSE_ANSWER | ARMLET_OPEN_ANSWER).unwrap();
    let shown = detokenize(&context, &closing, ARMLET_SHOW_SPECIAL);
    assert_eq!(shown, "<|im_end|>\n<|im_start|>user\nYes.<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(
        detokenize(&context, &turn(&context, 0, "Brief.", 0).unwrap(), 4),
        "<|im_start|>system\nBrief.<|im_end|>\n"
    );
}

#[test]
fn pieces_are_whole_characters() {
    let mapped = crate::common::map_smollm2();
    let context = CContext::new(&mapped, &config()).unwrap();
    let text = "naïve 漢字 😀";
    let (mut tokens, mut n) = ([0; 64], 0);
    // SAFETY: all are the test's.
    unsafe {
        let status = armlet_tokenize(context.ctx, text.as_ptr().cast(), text.len(), 0, tokens.as_mut_ptr(), 64, &mut n);
        assert_eq!(status, ARMLET_OK);
        let (mut shown, mut piece, mut len) = (String::new(), [0u8; 32], 0);
        for token in tokens[..n].iter().copied().chain([ARMLET_NO_TOKEN]) {
            // With too little room nothing is lost.
            let first = armlet_piece(context.ctx, token, null_mut(), 0, &mut len);
            assert_eq!(first, if len == 0 { ARMLET_OK } else { ARMLET_ERR_BUFFER });
            if len > 0 {
                assert_eq!(armlet_piece(context.ctx, token, piece.as_mut_ptr().cast(), 32, &mut len), ARMLET_OK);
            }
            shown.push_str(std::str::from_utf8(&piece[..len]).unwrap());
        }
        assert_eq!(shown, text);
    }
}

#[test]
fn the_log_says_what_a_status_cannot() {
    let mut said = String::new();
    let mut gguf = chatty();
    gguf.set("general.architecture", Val::Str("mamba".into()));
    let config = armlet_config { log: Some(note), user: (&raw mut said).cast(), ..config() };
    assert_eq!(plan(&gguf.build(), &config).err(), Some(ARMLET_ERR_UNSUPPORTED));
    assert_eq!(said, "architecture \"mamba\" is not supported; README.md lists those that are");
}

#[test]
fn every_status_is_reached() {
    let mut seen = Seen::default();
    let gguf = chatty();
    let model = gguf.build();
    plans(&mut seen, &model);
    conversations(&mut seen, &model);
    models(&mut seen, &gguf);
    pointers(&mut seen, &model);
    // SAFETY: the strings are constant.
    let text = |s: i32| unsafe { CStr::from_ptr(armlet_status_str(s)) };
    let all: BTreeSet<i32> = (-100..100).filter(|s| text(*s) != text(-100)).collect();
    assert_eq!(all, seen.0, "statuses that no test reaches, or that have no text");
}

/// Configurations, files and arenas.
fn plans(seen: &mut Seen, model: &[u8]) {
    let refused = |config: armlet_config| plan(model, &config).err().unwrap_or(ARMLET_OK);

    seen.expect(refused(config()), ARMLET_OK);
    seen.expect(refused(armlet_config { struct_size: 8, ..config() }), ARMLET_ERR_STRUCT);
    seen.expect(refused(armlet_config { abi_version: 2, ..config() }), ARMLET_ERR_ABI);
    let wrong = [
        armlet_config { pattern: 3, ..config() },
        armlet_config { kv_type: 3, ..config() },
        armlet_config { hadamard: 2, ..config() },
        armlet_config { workers: 17, parallel_for: Some(threads), ..config() },
        armlet_config { workers: 2, ..config() },
        armlet_config { kv_budget: 1 << 20, ..config() },
        armlet_config { reserved: [0, 0, 0, 1], ..config() },
        armlet_config { sinks: 64, ..config() },
        armlet_config { context: 100_000, ..config() },
        armlet_config { chunk: 100_000, ..config() },
    ];
    wrong.into_iter().for_each(|config| seen.expect(refused(config), ARMLET_ERR_CONFIG));
    seen.expect(refused(armlet_config { kv_budget: 9, context: 0, ..config() }), ARMLET_ERR_BUDGET);
    seen.expect(plan(b"GGUF", &config()).err().unwrap(), ARMLET_ERR_MODEL);
    let mut old = model.to_vec();
    old[4] = 1;
    seen.expect(plan(&old, &config()).err().unwrap(), ARMLET_ERR_UNSUPPORTED);
    for backend in [armlet_config { backend: 99, ..config() }, armlet_config { backend: 4, ..config() }] {
        let context = CContext::new(model, &backend);
        if !(cfg!(target_arch = "aarch64") && backend.backend == 4) {
            seen.expect(context.err().unwrap(), ARMLET_ERR_BACKEND);
        }
    }
    let len = plan(model, &config()).unwrap().arena_bytes as usize;
    seen.expect(CContext::with_len(model, &config(), len - 64).err().unwrap(), ARMLET_ERR_ARENA);
}

/// Positions, saved states and texts.
fn conversations(seen: &mut Seen, model: &[u8]) {
    let full = CContext::new(model, &armlet_config { pattern: 2, context: 8, ..config() }).unwrap();
    seen.expect(full.step().0, ARMLET_ERR_ORDER);
    seen.expect(full.prefill(&[]), ARMLET_ERR_EMPTY);
    seen.expect(full.prefill(&[67]), ARMLET_ERR_TOKEN);
    seen.expect(full.prefill(&[1; 9]), ARMLET_ERR_FULL);
    seen.expect(full.prefill(&[1; 8]), ARMLET_OK);
    seen.expect(full.step().0, ARMLET_ERR_FULL);

    let small = CContext::new(model, &armlet_config { context: 8, ..config() }).unwrap();
    seen.expect(small.prefill(&[1; 100]), ARMLET_OK);
    seen.expect(small.rewind(20), ARMLET_ERR_GONE);
    assert_eq!(small.info().position, 100);
    let state = small.saved();
    seen.expect(full.restore(&state), ARMLET_ERR_OTHER_STATE);
    seen.expect(small.restore(&state[..state.len() - 1]), ARMLET_ERR_STATE);
    // SAFETY: its context.
    let refused = unsafe { armlet_save(small.ctx, Some(refuse), null_mut()) };
    seen.expect(refused, ARMLET_ERR_STOPPED);
    let mut again = Reentry { ctx: small.ctx, seen: Vec::new() };
    // SAFETY: its context, and `save_again` takes a `Reentry`.
    seen.expect(unsafe { armlet_save(small.ctx, Some(save_again), (&raw mut again).cast()) }, ARMLET_OK);
    again.seen.into_iter().for_each(|status| seen.expect(status, ARMLET_ERR_BUSY));
    seen.expect(turn(&small, 3, "", 0).unwrap_err(), ARMLET_ERR_CONFIG);
    seen.expect(turn(&small, 1, "", 64).unwrap_err(), ARMLET_ERR_CONFIG);
    seen.expect(turn(&small, 1, &"a".repeat(257), 0).unwrap_err(), ARMLET_ERR_TEXT);
    assert!(turn(&small, 1, &"a".repeat(256), 24).is_ok());
    let mut n = 0;
    // SAFETY: all are the test's.
    let tokenize = |text: &[u8], n| unsafe {
        armlet_tokenize(small.ctx, text.as_ptr().cast(), text.len(), 0, [0; 4].as_mut_ptr(), 4, n)
    };
    seen.expect(tokenize(b"\xff", &mut n), ARMLET_ERR_TEXT);
    seen.expect(tokenize(b"ABCDEFGH", &mut n), ARMLET_ERR_BUFFER);
    assert!(n >= 8);
    seen.expect(small.sample_at(f32::NAN), ARMLET_ERR_CONFIG);
    seen.expect(small.sample_at(0.5), ARMLET_OK);
}

/// Models without a chat format, whose every token ends its turn, and that are all NaN.
fn models(seen: &mut Seen, gguf: &Gguf) {
    let plain = Tiny::default().gguf().build();
    seen.expect(turn(&CContext::new(&plain, &config()).unwrap(), 1, "", 0).unwrap_err(), ARMLET_ERR_CHAT);
    let mut ending = gguf.clone();
    ending.set("tokenizer.ggml.eos_token_id", Val::U32(0));
    let model = gguf.build();
    let probe = CContext::new(&model, &config()).unwrap();
    assert_eq!(probe.prefill(&[1]), ARMLET_OK);
    ending.set("tokenizer.ggml.eos_token_id", Val::U32(probe.step().1));
    let ending = ending.build();
    let ending = CContext::new(&ending, &config()).unwrap();
    assert_eq!(ending.prefill(&[1]), ARMLET_OK);
    seen.expect(ending.step().0, ARMLET_END);
    assert_eq!(ending.info().position, 1);
    let mut broken = gguf.clone();
    broken.tensors.iter_mut().filter(|t| t.kind == 0).for_each(|t| t.data.fill(0xff));
    let broken = broken.build();
    let broken = CContext::new(&broken, &config()).unwrap();
    assert_eq!(broken.prefill(&[1]), ARMLET_OK);
    seen.expect(broken.step().0, ARMLET_ERR_NUMBER);
}

/// NULL, misaligned, overlapping, and lengths that no memory has.
fn pointers(seen: &mut Seen, model: &[u8]) {
    let context = CContext::new(model, &config()).unwrap();
    assert_eq!(context.prefill(&[1, 2]), ARMLET_OK);
    let (ctx, inside) = (context.ctx, context.ctx.wrapping_byte_add(4096));
    let (bytes, len) = (context.model.as_ptr(), context.model.len());
    let mut tokens = [0u32; 8];
    let mut n = 0usize;
    let mut junk = [[0u64; 8]; 2000];
    let junk = junk.as_mut_ptr().map_addr(|at| at.next_multiple_of(64)).cast::<armlet_ctx>();
    let (mut out, c) = (requirements(), config());
    // SAFETY: what is said to be there is there, or refused before it is touched: that is what is tested.
    unsafe {
        // Of a context, by a function that takes nothing else, and of all the others.
        seen.expect(armlet_reset(null_mut()), ARMLET_ERR_NULL);
        seen.expect(armlet_reset(ctx.wrapping_byte_add(8)), ARMLET_ERR_ALIGN);
        seen.expect(armlet_reset(junk), ARMLET_ERR_HANDLE);
        assert_eq!(context.prefill(&[1, 2]), ARMLET_OK);

        seen.expect(armlet_plan(null(), 9, &c, &mut out), ARMLET_ERR_NULL);
        seen.expect(armlet_plan(bytes.cast(), len, null(), &mut out), ARMLET_ERR_NULL);
        seen.expect(armlet_plan(bytes.cast(), len, &c, null_mut()), ARMLET_ERR_NULL);
        seen.expect(armlet_plan(bytes.cast(), usize::MAX, &c, &mut out), ARMLET_ERR_LENGTH);
        seen.expect(armlet_plan(bytes.cast(), len, (&raw const c).byte_add(1), &mut out), ARMLET_ERR_ALIGN);
        seen.expect(armlet_plan((&raw const out).cast(), 8, &c, &mut out), ARMLET_ERR_OVERLAP);
        out.struct_size = 1;
        seen.expect(armlet_plan(bytes.cast(), len, &c, &mut out), ARMLET_ERR_STRUCT);

        let mut made = null_mut();
        let arena = ctx.cast::<c_void>();
        seen.expect(armlet_init(null_mut(), 9, bytes.cast(), len, &c, &mut made), ARMLET_ERR_NULL);
        seen.expect(armlet_init(arena, context.arena_bytes(), null(), 9, &c, &mut made), ARMLET_ERR_NULL);
        seen.expect(armlet_init(arena, context.arena_bytes(), bytes.cast(), len, null(), &mut made), ARMLET_ERR_NULL);
        seen.expect(armlet_init(arena, context.arena_bytes(), bytes.cast(), len, &c, null_mut()), ARMLET_ERR_NULL);
        // Up to the end of the address space, where other memory may be, or none.
        let endless = armlet_init(arena, usize::MAX, bytes.cast(), len, &c, &mut made);
        assert!([ARMLET_ERR_OVERLAP, ARMLET_ERR_LENGTH].contains(&endless));
        seen.expect(armlet_init(arena.byte_add(8), 64, bytes.cast(), len, &c, &mut made), ARMLET_ERR_ALIGN);
        seen.expect(armlet_init(arena, context.arena_bytes(), arena, 64, &c, &mut made), ARMLET_ERR_OVERLAP);
        seen.expect(armlet_init(arena, context.arena_bytes(), bytes.cast(), len, &c, arena.cast()), ARMLET_ERR_OVERLAP);

        seen.expect(armlet_prefill(ctx, null(), 1), ARMLET_ERR_NULL);
        seen.expect(armlet_prefill(ctx, tokens.as_ptr().byte_add(1), 1), ARMLET_ERR_ALIGN);
        seen.expect(armlet_prefill(ctx, tokens.as_ptr(), usize::MAX / 2), ARMLET_ERR_LENGTH);
        seen.expect(armlet_prefill(ctx, inside.cast(), 1), ARMLET_ERR_OVERLAP);
        seen.expect(armlet_step(ctx, null_mut()), ARMLET_ERR_NULL);
        seen.expect(armlet_step(ctx, inside.cast()), ARMLET_ERR_OVERLAP);
        seen.expect(armlet_step(ctx, bytes.cast_mut().cast()), ARMLET_ERR_OVERLAP);

        let text = c"AB".as_ptr();
        let t = tokens.as_mut_ptr();
        seen.expect(armlet_tokenize(ctx, null(), 2, 0, t, 8, &mut n), ARMLET_ERR_NULL);
        seen.expect(armlet_tokenize(ctx, text, 2, 0, null_mut(), 8, &mut n), ARMLET_ERR_NULL);
        seen.expect(armlet_tokenize(ctx, text, 2, 0, t, 8, null_mut()), ARMLET_ERR_NULL);
        seen.expect(armlet_tokenize(ctx, t.cast(), 2, 0, t, 8, &mut n), ARMLET_ERR_OVERLAP);
        seen.expect(armlet_tokenize(ctx, text, 2, 8, t, 8, &mut n), ARMLET_ERR_CONFIG);
        seen.expect(armlet_chat_turn(ctx, 1, null(), 2, 0, t, 8, &mut n), ARMLET_ERR_NULL);
        seen.expect(armlet_detokenize(ctx, null(), 2, 0, inside.cast(), 8, &mut n), ARMLET_ERR_NULL);
        seen.expect(armlet_detokenize(ctx, t, 8, 0, inside.cast(), 8, &mut n), ARMLET_ERR_OVERLAP);
        seen.expect(armlet_detokenize(ctx, t, 8, 0, t.cast(), 8, &mut n), ARMLET_ERR_OVERLAP);
        seen.expect(armlet_piece(ctx, 1, null_mut(), 8, &mut n), ARMLET_ERR_NULL);
        seen.expect(armlet_piece(ctx, 67, null_mut(), 0, &mut n), ARMLET_ERR_TOKEN);
        seen.expect(armlet_logits(ctx, null_mut(), &mut n), ARMLET_ERR_NULL);
        seen.expect(armlet_get_info(ctx, null_mut()), ARMLET_ERR_NULL);
        seen.expect(armlet_saved_bytes(ctx, null_mut()), ARMLET_ERR_NULL);
        seen.expect(armlet_save(ctx, None, null_mut()), ARMLET_ERR_NULL);
        seen.expect(armlet_restore(ctx, null(), 5), ARMLET_ERR_NULL);
        seen.expect(armlet_restore(ctx, inside.cast(), 64), ARMLET_ERR_OVERLAP);
    }
    // After all that it is as it was.
    assert!([ARMLET_OK, ARMLET_END].contains(&context.step().0));
}

#[test]
fn a_file_that_was_cut_off_or_changed_is_refused_or_runs() {
    let model = chatty().build();
    for len in (0..model.len()).step_by(61) {
        assert!(plan(&model[..len], &config()).is_err(), "{len} bytes");
    }
    let mut ran = 0;
    for at in (0..3000.min(model.len())).step_by(7) {
        let mut changed = model.clone();
        changed[at] ^= 0x41;
        if let Ok(context) = CContext::new(&changed, &config()) {
            ran += 1;
            let _ = context.prefill(&[1, 2, 3]);
            let _ = context.step();
        }
    }
    assert!(ran > 0);
}
