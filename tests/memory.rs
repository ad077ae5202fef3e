//! Memory: an engine and a session take exactly their plan, write nothing outside it, and allocate nothing.
//!
//! On its own because of the allocator, which counts.

#![allow(unsafe_code, reason = "a global allocator is unsafe to write")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Engine, EngineError, Pattern, Plan, Session};
use armlet::gguf::File;
use armlet::host::{Pool, memory};
use armlet::model::{Model, ModelError};
use armlet::quant::DType;
use armlet::sample::{Sampler, SamplerConfig};
use armlet::storage::{ALIGN, ArenaError, Executor, Region, Serial};
use armlet::tokenizer::TokenizerError;
use common::gguf::Tiny;
use common::some_formats;

thread_local! {
    /// Whether allocations of this thread are counted: those of the test harness's other threads are not its own.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and a count.
struct Counting;

fn count() {
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes on to the system's allocator as it is; counting touches an atomic and a thread-local that
// needs no allocation itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Held while counting: the count is one for the whole program.
static COUNTING: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Calls `f` once on each of `exec`'s threads, whose work waits until all have come.
fn on_each(exec: &dyn Executor, f: impl Fn() + Sync) {
    let come = AtomicUsize::new(0);
    exec.run(&|_| {
        f();
        come.fetch_add(1, Ordering::AcqRel);
        while come.load(Ordering::Acquire) < exec.workers() {
            std::thread::yield_now();
        }
        1
    });
}

/// How often `f` allocates on this thread or on one of `exec`'s.
fn allocations(exec: &dyn Executor, f: impl FnOnce()) -> usize {
    let _one = COUNTING.lock().unwrap();
    on_each(exec, || COUNTED.set(true));
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    f();
    let after = ALLOCATIONS.load(Ordering::SeqCst);
    on_each(exec, || COUNTED.set(false));
    after - before
}

fn with_model<R>(tiny: &Tiny, f: impl FnOnce(&Model<'_>) -> R) -> R {
    let bytes = tiny.gguf().build();
    let file = File::new_checked(&bytes).unwrap();
    let mut tables = memory(Model::required_bytes(&file).unwrap()).unwrap();
    f(&Model::new(&file, &mut tables).unwrap())
}

/// Models and configurations whose buffers end at, before and behind multiples of 64.
fn plans() -> Vec<(Tiny, Config)> {
    let odd = Tiny { n_embd: 36, n_ff: 97, vocab: 67, head_dim: 24, rope_dims: 22, ..Tiny::default() };
    let one =
        Tiny { n_embd: 1, n_ff: 1, n_heads: 1, n_kv_heads: 1, head_dim: 8, rope_dims: 2, n_layers: 1, ..odd.clone() };
    let blocks = Tiny { dtype: DType::Q8_0, ..Tiny::default() };
    let config = |context, chunk, logit_rows, kv| Config {
        context,
        chunk,
        logit_rows,
        kv,
        pattern: Pattern::Full,
        ..Config::default()
    };
    vec![
        (blocks, config(256, 64, 1, KvType::F16)),
        (odd.clone(), config(101, 7, 3, KvType::F16)),
        (odd.clone(), config(33, 33, 33, KvType::F32)),
        (one, config(1, 64, 1, KvType::F16)),
        (odd.clone(), config(50, 8, 1, KvType::Int8)),
        (odd, Config { pattern: Pattern::Sinks, ..config(70, 8, 1, KvType::Int8) }),
    ]
}

#[test]
fn decode_allocates_nothing() {
    let full = Config { context: 128, chunk: 16, pattern: Pattern::Full, ..Config::default() };
    // Tokens are evicted.
    let ring = Config { context: 64, pattern: Pattern::Sinks, kv: KvType::Int8, ..full };
    let pool = Pool::new(2);
    for (dtype, config) in some_formats().flat_map(|dtype| [(dtype, full), (dtype, ring)]) {
        with_model(&Tiny { dtype, ..Tiny::default() }, |model| {
            let plan = Plan::new(&model.hparams, &config).unwrap();
            for exec in [&Serial as &dyn Executor, &pool] {
                let mut room = memory(plan.bytes()).unwrap();
                let (work, cache) = room.split_at_mut(plan.engine_bytes());
                let mut engine = Engine::new(model, Kernels::detect(), &plan, work).unwrap();
                let mut session = Session::new(model, &plan, cache).unwrap();
                let mut sampler = Sampler::new(SamplerConfig { repeat_penalty: 1.1, ..SamplerConfig::default() });
                let n = allocations(exec, || {
                    let mut logits = engine.eval(exec, &mut session, &[1; 20]).unwrap();
                    for _ in 0..100 {
                        let token = sampler.sample(logits).unwrap();
                        sampler.accept(token);
                        logits = engine.eval(exec, &mut session, &[token]).unwrap();
                    }
                });
                assert_eq!(n, 0, "{dtype}, {} threads", exec.workers());
                assert_eq!(session.position(), 120);
            }
        });
    }
}

/// The count counts, on this thread and on a pool's; so that a zero above means something.
#[test]
fn the_count_is_no_constant() {
    let allocate = || drop(std::hint::black_box(Vec::<u8>::with_capacity(1)));
    assert_eq!(allocations(&Serial, || (0..3).for_each(|_| allocate())), 3);
    let pool = Pool::new(2);
    assert_eq!(allocations(&pool, || on_each(&pool, allocate)), pool.workers());
}

/// Nor do batches, whose list of sessions the caller has.
#[test]
fn a_batch_allocates_nothing() {
    let config =
        Config { context: 40, chunk: 16, logit_rows: 4, kv: KvType::F16, pattern: Pattern::Full, ..Config::default() };
    let pool = Pool::new(2);
    with_model(&Tiny { dtype: DType::Q4_1, ..Tiny::default() }, |model| {
        let plan = Plan::new(&model.hparams, &config).unwrap();
        let mut work = memory(plan.engine_bytes()).unwrap();
        let mut rooms = [(); 4].map(|()| memory(plan.session_bytes()).unwrap());
        let mut engine = Engine::new(model, Kernels::detect(), &plan, &mut work).unwrap();
        let mut sessions = rooms.each_mut().map(|room| Session::new(model, &plan, room).unwrap());
        let mut batch = sessions.each_mut();
        let n = allocations(&pool, || {
            (0..40).for_each(|i| assert!(engine.step(&pool, &mut batch, &[i; 4]).is_ok()));
        });
        assert_eq!((n, batch.map(|s| s.remaining())), (0, [0; 4]));
    });
}

/// Engine and session use their plan's bytes and no others: not one fewer will do, and what is around them stays as
/// it was.
#[test]
fn engine_and_session_are_their_plan() {
    const GUARD: usize = 4096;
    for (tiny, config) in plans() {
        with_model(&tiny, |model| {
            let plan = Plan::new(&model.hparams, &config).unwrap();
            let mut all = memory(GUARD + plan.bytes() + GUARD).unwrap();
            all.fill(0xa5);
            let inside = GUARD..GUARD + plan.bytes();
            let (work, cache) = all[inside.clone()].split_at_mut(plan.engine_bytes());
            let mut engine = Engine::new(model, Kernels::detect(), &plan, work).unwrap();
            let mut session = Session::new(model, &plan, cache).unwrap();
            assert_eq!((engine.used_bytes(), session.used_bytes()), (plan.engine_bytes(), plan.session_bytes()));
            assert_eq!(engine.used_bytes() + session.used_bytes(), plan.bytes());
            let tokens: Vec<u32> = (0..config.context).map(|i| (i * 7) as u32 % tiny.vocab as u32).collect();
            let scored = config.logit_rows;
            engine.score(&Pool::new(2), &mut session, &tokens[..scored]).unwrap();
            if scored < tokens.len() {
                engine.eval(&Pool::new(2), &mut session, &tokens[scored..]).unwrap();
            }
            if config.pattern != Pattern::Full {
                // There is no end.
                assert_eq!(session.remaining(), u64::MAX - config.context as u64);
                engine.eval(&Serial, &mut session, &tokens).unwrap();
                assert!(all[..GUARD].iter().chain(&all[inside.end..]).all(|b| *b == 0xa5), "{config:?}");
                return;
            }
            assert_eq!(session.remaining(), 0);
            let full =
                EngineError::ContextFull { used: config.context as u64, more: 1, capacity: config.context as u64 };
            assert_eq!(engine.eval(&Serial, &mut session, &[0]).err(), Some(full));
            assert!(all[..GUARD].iter().chain(&all[inside.end..]).all(|b| *b == 0xa5), "{config:?}");
        });
    }
}

/// The last buffer of a session.
fn cache_end(config: &Config) -> &'static str {
    if config.kv == KvType::Int8 { "ring scales" } else { "K, V ring" }
}

#[test]
fn less_or_misaligned_memory_is_refused() {
    for (tiny, config) in plans() {
        with_model(&tiny, |model| {
            let plan = Plan::new(&model.hparams, &config).unwrap();
            let mut room = memory(plan.bytes() + ALIGN).unwrap();
            let mut refusal = |session: bool, range| match session {
                false => Engine::new(model, Kernels::detect(), &plan, &mut room[range]).err(),
                true => Session::new(model, &plan, &mut room[range]).err(),
            };
            for (session, last, needed) in
                [(false, "logits", plan.engine_bytes()), (true, cache_end(&config), plan.session_bytes())]
            {
                let short = ArenaError::TooSmall { name: last, needed, len: needed - 1 };
                assert_eq!(refusal(session, 0..needed - 1), Some(EngineError::Arena(short)));
                assert_eq!(refusal(session, 1..needed + 1), Some(EngineError::Arena(ArenaError::Misaligned)));
                assert_eq!(refusal(session, ALIGN..needed + ALIGN), None);
            }
        });
    }
}

/// The same of a model's tables.
#[test]
fn a_model_is_its_plan() {
    for (tiny, _) in plans() {
        let bytes = tiny.gguf().build();
        let file = File::new_checked(&bytes).unwrap();
        let needed = Model::required_bytes(&file).unwrap();
        let mut regions = Vec::new();
        Model::regions(&file, &mut |r| regions.push(r)).unwrap();
        assert_eq!(end_of(&regions), needed);

        let mut all = memory(needed + 4096).unwrap();
        all.fill(0xa5);
        assert!(Model::new(&file, &mut all[..needed]).is_ok());
        assert!(all[needed..].iter().all(|b| *b == 0xa5));
        // The vocabulary's tables are the last.
        let refusal = Model::new(&file, &mut all[..needed - 1]).err();
        let Some(ModelError::Tokenizer(TokenizerError::Scratch(error))) = refusal else { panic!("{refusal:?}") };
        assert!(matches!(error, ArenaError::TooSmall { needed: n, len, .. } if n == needed && len == needed - 1));
    }
}

/// Where regions that follow each other, each at the next multiple of 64, end.
fn end_of(regions: &[Region]) -> usize {
    regions.iter().fold(0, |end, r| {
        assert_eq!(r.offset, end, "{} does not follow the region before it", r.name);
        end + r.bytes.next_multiple_of(64)
    })
}

/// The regions that a plan reports are the plan, and their sizes follow from the model's.
#[test]
fn regions_sum_to_the_plan() {
    for (tiny, config) in plans() {
        with_model(&tiny, |model| {
            let plan = Plan::new(&model.hparams, &config).unwrap();
            let mut regions = Vec::new();
            plan.regions(&model.hparams, &mut |r| regions.push(r)).unwrap();
            assert_eq!(end_of(&regions), plan.bytes());
            let bytes = |name: &str| regions.iter().find(|r| r.name == name).map(|r| r.bytes);
            let sinks = if config.pattern == Pattern::Full { 0 } else { config.sinks };
            // Whole tiles of what is no sink.
            let slots = (config.context - sinks).next_multiple_of(32);
            let of = |slots: usize, bytes: usize| {
                Some(2 * tiny.n_layers * tiny.n_kv_heads * slots * bytes).filter(|b| *b > 0)
            };
            let (row, scale) = (tiny.head_dim * config.kv.bytes(), config.kv.scale_bytes());
            assert_eq!((bytes("sink K, V"), bytes("K, V ring")), (of(sinks, row), of(slots, row)));
            assert_eq!((bytes("sink scales"), bytes("ring scales")), (of(sinks, scale), of(slots, scale)));
            let first = if sinks > 0 { "sink K, V" } else { "K, V ring" };
            assert_eq!(regions.iter().find(|r| r.name == first).unwrap().offset, plan.engine_bytes());
            assert_eq!(bytes("logits"), Some(config.logit_rows * tiny.vocab * 4));
            assert_eq!(bytes("residual"), Some(config.chunk.min(config.context) * tiny.n_embd * 4));
        });
    }
}

/// With a ring of whole tiles a budget is used up to a tile; `tests/it/streaming.rs` goes through all patterns.
#[test]
fn a_budget_gives_the_largest_context_that_fits() {
    for (tiny, base) in plans() {
        for kv in [KvType::F16, KvType::Int8, KvType::F32] {
            with_model(&tiny, |model| {
                let h = &model.hparams;
                let config = Config { kv, pattern: Pattern::Full, ..base };
                let context = |budget| Plan::context_for_budget(h, &config, budget, 1);
                let row = h.head.dim * kv.bytes() + kv.scale_bytes();
                let tile = 32 * 2 * h.n_layers * h.n_kv_heads * row;
                for n in 1..=tiny.context / 32 {
                    assert_eq!(context(n * tile + 128), Ok(n * 32), "a tile of 32 more");
                }
                let all = (0..=tile * 3).step_by(tile / 50).map(|budget| context(budget).unwrap_or(0));
                assert!(all.is_sorted());
                assert_eq!(context(usize::MAX), Ok(tiny.context), "never more than the model was trained for");
                assert!(
                    matches!(context(tile - 1), Err(EngineError::Budget { least: 1, needed, .. }) if needed >= tile)
                );
                assert!(context(0).is_err());
            });
        }
    }
}

/// Contexts, chunks and rows of logits that cannot be are refused with their range; a chunk longer than the context is
/// cut to it.
#[test]
fn impossible_configurations_are_refused() {
    with_model(&Tiny::default(), |model| {
        let base = Config {
            context: 100,
            chunk: 10,
            logit_rows: 10,
            kv: KvType::F16,
            pattern: Pattern::Full,
            ..Config::default()
        };
        let refusal = |config: Config| match Plan::new(&model.hparams, &config) {
            Err(EngineError::Config { name, value, min, max }) => Some((name, value, min, max)),
            _ => None,
        };
        assert_eq!(refusal(base), None);
        assert_eq!(refusal(Config { context: 0, ..base }), Some(("context", 0, 1, 256)));
        assert_eq!(refusal(Config { context: 257, ..base }), Some(("context", 257, 1, 256)));
        assert_eq!(refusal(Config { chunk: 0, ..base }), Some(("chunk", 0, 1, 4096)));
        assert_eq!(refusal(Config { chunk: 4097, ..base }), Some(("chunk", 4097, 1, 4096)));
        assert_eq!(refusal(Config { logit_rows: 11, ..base }), Some(("logit_rows", 11, 1, 10)));
        assert_eq!(refusal(Config { logit_rows: 0, ..base }), Some(("logit_rows", 0, 1, 10)));
        let plan = |chunk| Plan::new(&model.hparams, &Config { context: 12, chunk, ..base });
        assert_eq!(plan(64), plan(12), "no pass is longer than the context");
        // Unless it is one over many sessions.
        let batch = Config { context: 2, chunk: 64, logit_rows: 30, ..base };
        let rows = |logits: usize| logits / (model.hparams.vocab * 4);
        let mut planned = (0, 0);
        Plan::new(&model.hparams, &batch)
            .unwrap()
            .regions(&model.hparams, &mut |r| match r.name {
                "logits" => planned.0 = rows(r.bytes),
                "residual" => planned.1 = r.bytes / (model.hparams.n_embd * 4),
                _ => (),
            })
            .unwrap();
        assert_eq!(planned, (30, 30));
    });
}
