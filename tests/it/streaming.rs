//! The cache against StreamingLLM done the slow way in f64: keys are stored before RoPE, and rotated anew for each
//! token to their positions in its view (`common/oracle.rs`).

use crate::common::gguf::{Gguf, Tiny, Val};
use crate::common::oracle::{Oracle, VIEW_MISTAKES, Vector, View};
use crate::common::run::{backends, error, prompt, tiny, with_model, with_session};
use crate::common::{cases, deep};
use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Engine, EngineError, Pattern, Plan, Session};
use armlet::host::{Pool, memory};
use armlet::quant::DType;
use armlet::storage::{Executor, Serial};
use proptest::prelude::*;

/// The largest error of F32 weights and an F32 cache, relative to the largest logit.
const BOUND: f64 = 1e-5;

/// A model of one layer, whose scores have a standard deviation of about one, so that its errors are those of a cache.
fn model(heads: (usize, usize, usize, usize), seed: u64) -> Gguf {
    Tiny { n_layers: 1, context: 1024, ..tiny("llama", heads, (32, 40), seed) }.gguf()
}

/// A configuration and what it lets a token attend to.
fn config(sinks: usize, window: usize, chunk: usize, kv: KvType) -> (Config, View) {
    let config = Config { context: sinks + window, sinks, chunk, logit_rows: chunk, kv, ..Config::default() };
    (config, View::new(sinks, window))
}

/// The worst error after any of `tokens`, read in passes of `chunk`.
fn worst_error(
    gguf: &Gguf,
    kernels: Kernels,
    config: Config,
    exec: &dyn Executor,
    tokens: &[u32],
    want: &[Vector],
) -> f64 {
    with_model(gguf, |model| {
        with_session(model, kernels, config, |reader| {
            let mut worst = 0.0f64;
            for (tokens, want) in tokens.chunks(config.chunk).zip(want.chunks(config.chunk)) {
                let logits = reader.score(exec, tokens).unwrap();
                for (got, want) in logits.chunks(want[0].len()).zip(want) {
                    worst = worst.max(error(got, want));
                }
            }
            worst
        })
    })
}

fn logits(gguf: &Gguf, view: View, tokens: &[u32]) -> Vec<Vector> {
    Oracle { view: Some(view), ..Oracle::new(gguf) }.logits(tokens)
}

prop_compose! {
    /// Heads, groups of 1 to 8, head sizes, part of a head rotated.
    fn any_heads()(kv in 1usize..4, group in 1usize..9, head_blocks in 1usize..6, rope_pairs in 1usize..=20) -> (usize, usize, usize, usize) {
        (kv * group, kv, 8 * head_blocks, (2 * rope_pairs).min(8 * head_blocks))
    }
}

proptest! {
    #![proptest_config(cases(24, 8))]
    /// Any shape, sinks, window and chunk, through several wraps.
    #[test]
    fn any_cache_is_streaming_llm(
        heads in any_heads(), sinks in 0usize..40, window in 1usize..90, chunk in 1usize..70, n in 1usize..260, seed in 1u64..1000,
    ) {
        let gguf = model(heads, seed);
        let tokens = prompt(seed, n, 67);
        let (config, view) = config(sinks, window, chunk, KvType::F32);
        let want = logits(&gguf, view, &tokens);
        for kernels in backends() {
            let e = worst_error(&gguf, kernels, config, &Serial, &tokens, &want);
            prop_assert!(e <= BOUND, "{:?}: {e:.1e}", kernels.backend());
        }
    }

    /// With old tiles kept, too.
    #[test]
    fn any_strided_cache_is_what_it_says(
        heads in any_heads(), sinks in 0usize..40, rest in 64usize..300, every in 2usize..4, chunk in 1usize..70, seed in 1u64..1000,
    ) {
        let gguf = model(heads, seed);
        let tokens = prompt(seed, 400, 67);
        let (context, pattern) = (sinks + rest, Pattern::Strided { every });
        let config =
            Config { context, pattern, sinks, chunk, logit_rows: chunk, kv: KvType::F32, ..Config::default() };
        let window = rest.div_ceil(2).next_multiple_of(32).min(rest - 32);
        let view = View { strided: (every, (rest - window) / 32), ..View::new(sinks, window) };
        let want = logits(&gguf, view, &tokens);
        let e = worst_error(&gguf, Kernels::detect(), config, &Serial, &tokens, &want);
        prop_assert!(e <= BOUND, "{e:.1e}");
    }
}

/// Layers with a window and a base of their own beside some that see all, as in Gemma 3; a window as in Mistral.
#[test]
fn windows_of_layers() {
    for (every, base) in [(0, None), (3, None), (3, Some(500.0f32)), (2, Some(1e6))] {
        let mut gguf = Tiny { n_layers: 4, context: 1024, ..tiny("llama", (6, 2, 16, 16), (32, 40), 5) }.gguf();
        gguf.set("llama.attention.sliding_window", Val::U32(24));
        gguf.set("llama.attention.sliding_window_pattern", Val::U32(every));
        if let Some(base) = base {
            gguf.set("llama.rope.freq_base_swa", Val::F32(base));
        }
        let tokens = prompt(6, 150, 67);
        for (sinks, window) in [(4, 60), (0, 200), (2, 18)] {
            for chunk in [1, 16, 64] {
                let (config, view) = config(sinks, window, chunk, KvType::F32);
                // A window that is no narrower than the context is the context.
                let layers = (24 < sinks + window).then_some((24, every as usize));
                let own = View { layers, ..view };
                if layers.is_none() && base.is_some() {
                    continue;
                }
                let want = logits(&gguf, own, &tokens);
                let e = worst_error(&gguf, Kernels::detect(), config, &Serial, &tokens, &want);
                assert!(e <= 10.0 * BOUND, "every {every}, base {base:?}, {sinks} + {window}, chunk {chunk}: {e:.1e}");
            }
        }
    }
}

/// fp16 and int8 caches, and keys in another basis, stay as near as their rounding lets them: a bound for each is three
/// times the worst that was found.
#[test]
fn rounded_caches_are_near() {
    let tokens = prompt(9, 200, 67);
    for (kv, hadamard, bound) in [
        (KvType::F16, false, 2e-3),
        (KvType::F16, true, 2e-3),
        (KvType::Int8, false, 0.3),
        (KvType::Int8, true, 0.3),
        (KvType::F32, true, BOUND),
    ] {
        for (i, heads) in [(6, 2, 16, 16), (4, 4, 64, 64), (7, 1, 80, 40), (16, 2, 24, 24)].into_iter().enumerate() {
            let gguf = model(heads, 60 + i as u64);
            let (config, view) = config(4, 60, 32, kv);
            let want = logits(&gguf, view, &tokens);
            for kernels in backends() {
                let e = worst_error(&gguf, kernels, Config { hadamard, ..config }, &Serial, &tokens, &want);
                assert!(e <= bound, "{kv:?}, {hadamard}, {heads:?}, {:?}: {e:.1e}", kernels.backend());
            }
        }
    }
}

/// The mistakes that other systems made, made by the oracle, show far beyond the bound.
#[test]
fn mistakes_of_caches_show() {
    let gguf = model((6, 2, 32, 32), 77);
    let tokens = prompt(8, 220, 67);
    let (config, view) = config(4, 44, 32, KvType::F32);
    let compare = |mistake| {
        let want = logits(&gguf, View { mistake, ..view.clone() }, &tokens);
        worst_error(&gguf, Kernels::detect(), config, &Serial, &tokens, &want)
    };
    assert!(compare(None) <= BOUND);
    for mistake in VIEW_MISTAKES {
        let e = compare(Some(mistake));
        println!("{mistake:?}: {e:.1e}");
        assert!(e > 100.0 * BOUND, "{mistake:?} shows as only {e:.1e}");
    }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    assert!(logits.iter().all(|x| x.is_finite()));
    logits.iter().map(|x| x.to_bits()).collect()
}

const ELEMENTS: [KvType; 3] = [KvType::F16, KvType::Int8, KvType::F32];

/// Before the ring is full it is as if there were none: the bits of full attention.
#[test]
fn a_ring_that_is_not_full_shows_in_no_bit() {
    let gguf = Tiny { dtype: DType::Q8_0, context: 1024, ..tiny("llama", (6, 2, 32, 32), (32, 64), 3) }.gguf();
    let tokens = prompt(3, 150, 67);
    with_model(&gguf, |model| {
        for kernels in backends() {
            for kv in ELEMENTS {
                let run = |pattern, sinks, context, chunk| {
                    let config = Config { context, pattern, sinks, chunk, kv, ..Config::default() };
                    with_session(model, kernels, config, |r| {
                        tokens.chunks(chunk).map(|t| bits(r.eval(&Serial, t).unwrap())).collect::<Vec<_>>()
                    })
                };
                for chunk in [1, 50] {
                    let full = run(Pattern::Full, 0, 1000, chunk);
                    assert!(run(Pattern::Window, 0, 150, chunk) == full);
                    for sinks in [1, 4, 33, 100] {
                        assert!(run(Pattern::Sinks, sinks, 150, chunk) == full, "{kv:?} {sinks} {chunk}");
                        assert!(
                            run(Pattern::Strided { every: 2 }, sinks, 500, chunk) == full,
                            "{kv:?} {sinks} {chunk}"
                        );
                    }
                }
            }
        }
    });
}

/// Threads, chunks, batch mates and going back change no bit when tokens have been evicted, either.
#[test]
fn nothing_shows_in_a_full_ring() {
    let gguf = Tiny { dtype: DType::Q8_0, context: 2048, ..tiny("llama", (6, 2, 32, 32), (32, 64), 4) }.gguf();
    let tokens = prompt(4, 700, 67);
    let pool = Pool::new(2);
    with_model(&gguf, |model| {
        // In the gate the best one here: kernels do not know what is evicted, and the hashes of logits are of rings on all.
        for kernels in backends().into_iter().rev().take(deep(usize::MAX, 1)) {
            for (kv, pattern, context) in [
                (KvType::F16, Pattern::Sinks, 600),
                (KvType::Int8, Pattern::Sinks, 100),
                (KvType::Int8, Pattern::Strided { every: 3 }, 260),
                (KvType::F32, Pattern::Window, 77),
            ] {
                let config = Config {
                    context,
                    pattern,
                    chunk: 96,
                    logit_rows: 8,
                    kv,
                    hadamard: true,
                    slack: 64,
                    ..Config::default()
                };
                let want = with_session(model, kernels, config, |r| {
                    tokens.iter().map(|t| bits(r.eval(&Serial, &[*t]).unwrap())).collect::<Vec<_>>()
                });
                for (chunk, exec) in [(3, &pool as &dyn Executor), (96, &Serial), (96, &pool)] {
                    with_session(model, kernels, config, |r| {
                        let mut read = 0;
                        for tokens in tokens.chunks(chunk) {
                            read += tokens.len();
                            assert!(
                                bits(r.eval(exec, tokens).unwrap()) == want[read - 1],
                                "{pattern:?} {chunk} {read}"
                            );
                        }
                        // Back as far as the slack, and on again.
                        r.rewind(650);
                        assert!(bits(r.eval(exec, &tokens[650..]).unwrap()) == want[699], "{pattern:?} back");
                        if !matches!(pattern, Pattern::Strided { .. }) && context < 300 {
                            let gone = EngineError::Gone { position: 400 };
                            assert_eq!(r.session.rewind(400), Err(gone));
                            assert_eq!(r.position(), 700);
                        }
                        r.rewind(0);
                        assert!(bits(r.eval(exec, &tokens[..5]).unwrap()) == want[4], "{pattern:?} anew");
                    });
                }
                // Beside sessions that are elsewhere.
                let plans = [config, Config { kv: KvType::F16, ..config }];
                let plans = plans.map(|config| Plan::new(&model.hparams, &config).unwrap());
                let mut rooms = plans.map(|plan| memory(plan.session_bytes()).unwrap());
                let mut work = memory(plans[0].engine_bytes()).unwrap();
                let mut engine = Engine::new(model, kernels, &plans[0], &mut work).unwrap();
                let [a, b] = rooms.each_mut();
                let mut one = Session::new(model, &plans[0], a).unwrap();
                let mut other = Session::new(model, &plans[1], b).unwrap();
                engine.eval(&Serial, &mut one, &tokens[..640]).unwrap();
                engine.eval(&Serial, &mut other, &tokens[5..10]).unwrap();
                for n in 640..645 {
                    let logits = engine.step(&pool, &mut [&mut other, &mut one], &[3, tokens[n]]).unwrap();
                    assert!(bits(&logits[67..]) == want[n], "{pattern:?} in a batch");
                }
            }
        }
    });
}

/// A conversation that is far beyond 24, 31 and 32 bits gives what it would from the start: a saved session is told that it
/// is there, and goes on past the boundary.
#[test]
fn far_positions_are_as_near_ones() {
    const SINKS: usize = 4;
    const WINDOW: usize = 60;
    // Of one layer, keys and values are of their token alone, whatever it saw.
    let gguf = model((6, 2, 32, 32), 21);
    let (config, view) = config(SINKS, WINDOW, 32, KvType::F32);
    let text = prompt(12, SINKS + WINDOW + 50, 67);
    let want = logits(&gguf, view, &text);
    with_model(&gguf, |model| {
        for kernels in backends() {
            for boundary in [1u64 << 24, 1 << 31, 1 << 32, 1 << 40] {
                with_session(model, kernels, config, |r| {
                    // The sinks, and as much as fills the ring.
                    r.eval(&Serial, &text[..SINKS]).unwrap();
                    r.eval(&Serial, &prompt(13, 90, 67)).unwrap();
                    let mut saved = Vec::new();
                    let sink = |part: &[u8]| -> Result<(), ()> {
                        saved.extend_from_slice(part);
                        Ok(())
                    };
                    r.session.save(b"", sink).unwrap();
                    // As if there had been more: position and count of written positions, and the checksum over them.
                    let position = (boundary - WINDOW as u64 - 20).to_le_bytes();
                    saved[56..64].copy_from_slice(&position);
                    saved[64..72].copy_from_slice(&position);
                    let checksum = crc32(&saved[..252]).to_le_bytes();
                    saved[252..256].copy_from_slice(&checksum);
                    r.session.restore(&saved).unwrap();
                    for (i, token) in text.iter().enumerate().skip(SINKS) {
                        let got = r.eval(&Serial, &[*token]).unwrap();
                        if i >= SINKS + WINDOW {
                            let e = error(got, &want[i]);
                            assert!(e <= BOUND, "{:?}, {boundary}, {i}: {e:.1e}", kernels.backend());
                        }
                    }
                    assert!(r.session.position() > boundary);
                });
            }
        }
    });
}

/// Distances at every place where something begins or ends: the first, the last sink, a full ring, whole turns of it.
#[test]
fn distances_where_something_ends() {
    let (sinks, window) = (5, 59);
    let gguf = model((3, 1, 16, 16), 22);
    let (config, view) = config(sinks, window, 1, KvType::F32);
    let tokens = prompt(14, 4 * 64 + 3, 67);
    let want = logits(&gguf, view, &tokens);
    with_model(&gguf, |model| {
        with_session(model, Kernels::detect(), config, |r| {
            let (s, c) = (sinks, sinks + window);
            let turns = (1..=4).flat_map(|k| [k * 64 - 1, k * 64, k * 64 + 1]);
            let probes: Vec<usize> = [0, s - 1, s, s + 1, c - 1, c, c + 1].into_iter().chain(turns).collect();
            for (n, token) in tokens.iter().enumerate() {
                let e = error(r.eval(&Serial, &[*token]).unwrap(), &want[n]);
                assert!(!probes.contains(&n) || e <= BOUND, "{n}: {e:.1e}");
            }
        });
    });
}

/// CRC-32, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut c = u32::MAX;
    for byte in bytes {
        c ^= u32::from(*byte);
        (0..8).for_each(|_| c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 });
    }
    !c
}

/// Budgets, sinks and windows that cannot be are refused, with what would do.
#[test]
fn impossible_caches_are_refused() {
    let gguf = model((6, 2, 32, 32), 1);
    with_model(&gguf, |model| {
        let h = &model.hparams;
        let refusal = |config: Config| Plan::new(h, &config).unwrap_err().to_string();
        let base = Config { context: 64, ..Config::default() };
        assert!(refusal(Config { sinks: 64, ..base }).contains("sinks must be from 0 to 63"));
        assert!(refusal(Config { prefix: 70, ..base }).contains("prefix must be from 0 to 63"));
        let strided = Config { pattern: Pattern::Strided { every: 1 }, context: 100, ..base };
        assert!(refusal(strided).contains("every must be from 2"));
        assert!(refusal(Config { context: 64, ..strided }).contains("sinks must be from 0 to 0"));
        for context in 1..100 {
            for sinks in [0, 3] {
                let plan = Plan::new(h, &Config { context, sinks, pattern: Pattern::Strided { every: 2 }, ..base });
                assert_eq!(plan.is_ok(), context >= 64 + sinks, "{context} {sinks}");
            }
        }
        assert!(refusal(Config { slack: 2000, ..base }).contains("slack must be from 0 to 1024"));
        let budget = |config: &Config, bytes, sessions| Plan::context_for_budget(h, config, bytes, sessions);
        for pattern in [Pattern::Full, Pattern::Window, Pattern::Sinks, Pattern::Strided { every: 2 }] {
            for kv in ELEMENTS {
                let config = Config { pattern, kv, ..Config::default() };
                let Err(EngineError::Budget { least, needed, .. }) = budget(&config, 0, 3) else { panic!() };
                assert_eq!(
                    budget(&config, needed - 1, 3).unwrap_err().to_string(),
                    EngineError::Budget { budget: needed - 1, least, needed }.to_string()
                );
                assert!(budget(&config, needed, 3).unwrap() >= least);
                let mut last = 0;
                for bytes in (needed..needed * 40).step_by(1 + needed / 7) {
                    let context = budget(&config, bytes, 3).unwrap();
                    let fits = |context| {
                        let plan = Plan::new(h, &Config { context, ..config });
                        plan.is_ok_and(|plan| 3 * plan.session_bytes() <= bytes)
                    };
                    assert!(context >= last && fits(context) && !fits(context + 1), "{pattern:?} {kv:?} {bytes}");
                    last = context;
                }
            }
        }
    });
}
