//! Answers of the C API: their tokens, their text, and what ends them.

#![allow(unsafe_code, reason = "that is how C calls")]

use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use armlet::capi::armlet_event_kind::*;
use armlet::capi::armlet_status::*;
use armlet::capi::*;

use crate::capi::chatty;
use crate::common::c_context::{CContext, answer, config, count_down, event, text};

const PROMPT: [u32; 5] = [3, 1, 4, 1, 5];

/// A context that has read [`PROMPT`].
fn context(model: &[u8]) -> CContext<'_> {
    let context = CContext::new(model, &config()).unwrap();
    assert_eq!(context.prefill(&PROMPT), ARMLET_OK);
    context
}

/// Tokens, text and last event of an answer.
fn whole(context: &CContext<'_>, asked: &armlet_answer) -> (Vec<u32>, String, armlet_event) {
    let (mut tokens, mut shown) = (Vec::new(), String::new());
    loop {
        let (status, event, text) = context.generate(Some(asked));
        shown.push_str(&text);
        if status != ARMLET_OK {
            assert_eq!(status, ARMLET_END);
            return (tokens, shown, event);
        }
        tokens.push(event.token);
        assert_eq!((event.kind, event.generated), (ARMLET_TOKEN as u32, tokens.len() as u32));
    }
}

/// Text of tokens of [`chatty`], which are characters.
fn spelled(tokens: &[u32]) -> String {
    tokens.iter().filter(|t| **t < 65).map(|t| char::from(33 + *t as u8)).collect()
}

#[test]
fn an_answer_has_the_tokens_of_steps_and_their_text() {
    let model = chatty().build();
    let stepped = context(&model);
    let want = stepped.steps(12);
    let (tokens, shown, end) = whole(&context(&model), &answer(12, &[], &[]));
    assert_eq!((&tokens, shown), (&want, spelled(&want)));
    assert_eq!((end.kind, end.token, end.generated), (ARMLET_MOST_TOKENS as u32, ARMLET_NO_TOKEN, 12));

    // One after the other, and where nothing is asked for, both are one.
    let mixed = context(&model);
    let tokens: Vec<u32> =
        (0..12).map(|i| if i % 3 == 0 { mixed.step().1 } else { mixed.generate(None).1.token }).collect();
    assert_eq!((tokens, mixed.logits()), (want, stepped.logits()));
}

#[test]
fn a_stop_string_ends_an_answer_and_is_no_part_of_it() {
    let model = chatty().build();
    let want = context(&model).steps(12);
    let all = spelled(&want);
    // Of which the beginning comes before, if there is one.
    let (stop, at) = (3..10)
        .map(|at| (&all[at..at + 2], at))
        .find(|(stop, at)| all.find(*stop) == Some(*at))
        .expect("two characters that come once");
    let stops = [text("never"), text(stop)];
    let stopped = context(&model);
    let (tokens, shown, end) = whole(&stopped, &answer(0, &stops, &[]));
    assert_eq!((shown.as_str(), end.kind, end.stop), (&all[..at], ARMLET_STOP_FOUND as u32, 1));
    // The token that completes it was not read.
    assert_eq!((tokens.len(), stopped.info().position), (at + 1, (PROMPT.len() + at + 1) as u64));

    // What may be its beginning is held, until the answer is left.
    let left = context(&model);
    let stops = [text(stop)];
    let shown: String = (0..=at).map(|_| left.generate(Some(&answer(0, &stops, &[]))).2).collect();
    assert_eq!((shown.as_str(), left.finish()), (&all[..at], all[at..=at].to_string()));
    assert_eq!(left.finish(), "");
}

#[test]
fn biases_change_what_is_chosen_and_nothing_else() {
    let model = chatty().build();
    let first = context(&model).step().1;
    let forbid = [armlet_bias { token: first, bias: f32::NEG_INFINITY }];
    let (_, other, _) = context(&model).generate(Some(&answer(0, &[], &forbid)));
    assert_ne!(other.token, first);
    // The same sum in two parts, and one too small.
    let raise = |bias| armlet_bias { token: 40, bias };
    assert_eq!(context(&model).generate(Some(&answer(0, &[], &[raise(5e3), raise(5e3)]))).1.token, 40);
    assert_eq!(context(&model).generate(Some(&answer(0, &[], &[raise(5e3), raise(-5e3)]))).1.token, first);

    let logits: Vec<f64> = context(&model).logits().into_iter().map(|bits| f32::from_bits(bits).into()).collect();
    let raised = [raise(1e4)];
    let asked = armlet_answer { log_probabilities: 1, ..answer(0, &[], &raised) };
    let (_, event, _) = context(&model).generate(Some(&asked));
    let want = logits[40] - logits.iter().map(|l| l.exp()).sum::<f64>().ln();
    assert!((f64::from(event.log_probability) - want).abs() < 1e-5, "{} for {want}", event.log_probability);
}

#[test]
fn turns_and_contexts_end_answers() {
    let mut ending = chatty();
    let probe = chatty().build();
    ending.set("tokenizer.ggml.eos_token_id", crate::common::gguf::Val::U32(context(&probe).step().1));
    let ending = ending.build();
    let ended = context(&ending);
    let (status, event, _) = ended.generate(None);
    assert_eq!((status, event.kind, event.generated), (ARMLET_END, ARMLET_TURN_ENDED as u32, 1));
    assert_eq!(ended.info().position, PROMPT.len() as u64);
    // That was one answer; the next one starts where it ended.
    assert_eq!(ended.generate(None).1, event);

    let full = CContext::new(&probe, &armlet_config { pattern: 2, context: 8, ..config() }).unwrap();
    assert_eq!(full.prefill(&PROMPT), ARMLET_OK);
    let (tokens, shown, end) = whole(&full, &answer(0, &[], &[]));
    assert_eq!((tokens.len(), end.kind), (3, ARMLET_CONTEXT_FULL as u32));
    assert_eq!((shown, full.info().remaining), (spelled(&tokens), 0));
}

#[test]
fn a_stop_by_the_caller_changes_nothing() {
    let model = chatty().build();
    let want = context(&model).steps(6);
    let passes = AtomicU32::new(100);
    let stopping =
        armlet_config { keep_going: Some(count_down), user: (&raw const passes).cast_mut().cast(), ..config() };
    let stopped = CContext::new(&model, &stopping).unwrap();
    assert_eq!(stopped.prefill(&PROMPT), ARMLET_OK);
    let asked = answer(6, &[], &[]);
    assert_eq!(stopped.generate(Some(&asked)).1.token, want[0]);
    passes.store(0, Relaxed);
    let (status, untouched, text) = stopped.generate(Some(&asked));
    assert_eq!((status, untouched, text), (ARMLET_ERR_STOPPED, event(), String::new()));
    passes.store(100, Relaxed);
    let others: Vec<u32> = (1..6).map(|_| stopped.generate(Some(&asked)).1.token).collect();
    assert_eq!(others, want[1..]);
    assert_eq!(stopped.generate(Some(&asked)).1.kind, ARMLET_MOST_TOKENS as u32);
}

#[test]
fn what_is_wrong_with_an_answer_is_said_and_changes_nothing() {
    let model = chatty().build();
    let context = context(&model);
    let (fine, long) = (text("a"), "x".repeat(257));
    let bias = |token, bias| [armlet_bias { token, bias }];
    let refuses = |asked: armlet_answer, want: armlet_status| {
        let (status, untouched, text) = context.generate(Some(&asked));
        assert_eq!((status, untouched, text), (want, event(), String::new()));
    };
    refuses(answer(0, &[text("")], &[]), ARMLET_ERR_CONFIG);
    refuses(answer(0, &[text(&long)], &[]), ARMLET_ERR_CONFIG);
    refuses(answer(0, &[fine; 5], &[]), ARMLET_ERR_CONFIG);
    refuses(answer(0, &[armlet_text { bytes: b"\xff".as_ptr().cast(), len: 1 }], &[]), ARMLET_ERR_TEXT);
    refuses(answer(0, &[armlet_text { bytes: null(), len: 1 }], &[]), ARMLET_ERR_NULL);
    refuses(answer(0, &[], &bias(3, f32::NAN)), ARMLET_ERR_CONFIG);
    refuses(answer(0, &[], &bias(3, f32::INFINITY)), ARMLET_ERR_CONFIG);
    refuses(answer(0, &[], &bias(67, 1.0)), ARMLET_ERR_TOKEN);
    refuses(armlet_answer { log_probabilities: 2, ..answer(0, &[], &[]) }, ARMLET_ERR_CONFIG);
    refuses(armlet_answer { reserved: 1, ..answer(0, &[], &[]) }, ARMLET_ERR_CONFIG);
    refuses(armlet_answer { struct_size: 8, ..answer(0, &[], &[]) }, ARMLET_ERR_STRUCT);
    refuses(armlet_answer { n_stops: 1, stops: null(), ..answer(0, &[], &[]) }, ARMLET_ERR_NULL);
    let inside = context.ctx.wrapping_byte_add(4096).cast::<armlet_event>();
    let mut short = armlet_event { struct_size: 4, ..event() };
    let asked = answer(0, &[], &[]);
    // SAFETY: what is said to be there is there, or refused before it is touched: that is what is tested.
    unsafe {
        let ctx = context.ctx;
        assert_eq!(armlet_generate(ctx, &asked, None, null_mut(), null_mut()), ARMLET_ERR_NULL);
        assert_eq!(armlet_generate(ctx, &asked, None, null_mut(), &mut short), ARMLET_ERR_STRUCT);
        assert_eq!(armlet_generate(ctx, &asked, None, null_mut(), inside), ARMLET_ERR_OVERLAP);
        let over = (&raw const asked).cast_mut().cast();
        assert_eq!(armlet_generate(ctx, &asked, None, null_mut(), over), ARMLET_ERR_OVERLAP);
        assert_eq!(armlet_finish(null_mut(), None, null_mut()), ARMLET_ERR_NULL);
        // Without a text, and with every one of them.
        let (mut out, stops, none) = (event(), [fine; 4], bias(0, 0.0));
        let all = answer(1, &stops, &none);
        assert_eq!(armlet_generate(ctx, &all, None, null_mut(), &mut out), ARMLET_OK);
        assert_eq!(out.generated, 1);
    }
}
