//! The forward pass against a second one, in f64 (`common/oracle.rs`): every shape and format, on every backend that runs
//! here; and that nothing but what is said to changes a bit (`common/reference_bits.rs`).

use crate::common::gguf::{Gguf, Tiny, Val};
use crate::common::oracle::{MISTAKES, Oracle, Vector};
use crate::common::reference_bits::{BOUND, Crowd, PROMPT, ReferenceBits, bits};
use crate::common::run::{
    Reader, backends, error, prompt, tiny, uses_f16_products, with_linear_scaling, with_model, with_session,
    with_tensor_scales,
};
use crate::common::{cases, deep, some_formats};
use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Engine, EngineError, Pattern, Plan, Session};
use armlet::host::{Pool, memory};
use armlet::model::Model;
use armlet::quant::{DType, Layout};
use armlet::storage::{Executor, Serial};
use proptest::prelude::*;

/// armlet's largest error at any position of `tokens`: scored in passes of 16, and read at once to lengths of 1, 5 and
/// all, in passes of 32.
fn worst_error(gguf: &Gguf, kernels: Kernels, kv: KvType, tokens: &[u32], want: &[Vector]) -> f64 {
    let config = Config { context: 256, chunk: 32, logit_rows: 16, kv, pattern: Pattern::Full, ..Config::default() };
    let run = |session: &mut Reader<'_>| {
        let mut worst = 0.0f64;
        for (tokens, want) in tokens.chunks(16).zip(want.chunks(16)) {
            let logits = session.score(&Serial, tokens).unwrap();
            for (got, want) in logits.chunks(want[0].len()).zip(want) {
                worst = worst.max(error(got, want));
            }
        }
        for n in [1, 5, tokens.len()].map(|n| n.min(tokens.len())) {
            session.rewind(0);
            worst = worst.max(error(session.eval(&Serial, &tokens[..n]).unwrap(), &want[n - 1]));
        }
        worst
    };
    with_model(gguf, |model| with_session(model, kernels, config, run))
}

/// The worst of all backends.
fn worst_of_backends(gguf: &Gguf, kv: KvType, tokens: &[u32]) -> f64 {
    let want = Oracle::new(gguf).logits(tokens);
    backends().into_iter().map(|kernels| worst_error(gguf, kernels, kv, tokens, &want)).fold(0.0, f64::max)
}

/// Group sizes 1 to 9, head sizes 8 to 96, widths that are no multiple of 8, tied and untied, biases, every kind of
/// rotation.
fn models() -> Vec<(&'static str, Gguf)> {
    let (llama, qwen2) = ("llama", "qwen2");
    let scaled = |t: Tiny, factor| with_linear_scaling(t.gguf(), t.arch, factor);
    vec![
        ("group 1", tiny(llama, (4, 4, 16, 16), (64, 96), 1).gguf()),
        ("group 1, one head, n_embd 1", tiny(llama, (1, 1, 8, 2), (1, 1), 2).gguf()),
        ("group 2, untied", Tiny { tied: false, ..tiny(llama, (4, 2, 8, 8), (36, 57), 3) }.gguf()),
        ("group 3, like SmolLM2", Tiny { rope_base: 1e5, ..tiny(llama, (9, 3, 64, 64), (64, 160), 4) }.gguf()),
        ("group 4, odd sizes", tiny(llama, (4, 1, 80, 80), (20, 33), 5).gguf()),
        ("group 6, part of a head turns", tiny(llama, (6, 1, 96, 32), (40, 7), 6).gguf()),
        (
            "group 7, like Qwen2",
            Tiny { bias: true, rope_base: 1e6, ..tiny(qwen2, (14, 2, 64, 64), (64, 96), 7) }.gguf(),
        ),
        ("group 8, part of a head turns", tiny(qwen2, (8, 1, 16, 8), (36, 31), 8).gguf()),
        ("group 9", tiny(llama, (9, 1, 8, 8), (72, 65), 9).gguf()),
        ("group 9, 80 wide", Tiny { tied: false, ..tiny(qwen2, (18, 2, 80, 80), (33, 40), 10) }.gguf()),
        ("factors", Tiny { rope_factors: true, rope_base: 5e5, ..tiny(llama, (6, 2, 64, 64), (64, 96), 11) }.gguf()),
        ("linear scaling", scaled(tiny(llama, (4, 2, 16, 16), (64, 96), 12), 4.0)),
        ("llama with biases", Tiny { bias: true, ..tiny(llama, (8, 4, 16, 16), (64, 96), 13) }.gguf()),
        (
            "everything",
            scaled(
                Tiny { bias: true, tied: false, rope_factors: true, ..tiny(qwen2, (12, 4, 96, 80), (52, 99), 14) },
                2.5,
            ),
        ),
        (
            "scales",
            with_tensor_scales(Tiny { bias: true, tied: false, ..tiny(llama, (6, 2, 16, 16), (64, 96), 16) }.gguf()),
        ),
        ("five layers", Tiny { n_layers: 5, ..tiny(llama, (6, 3, 16, 16), (48, 80), 15) }.gguf()),
    ]
}

// Comparisons ---------------------------------------------------------------------------------------------------------

#[test]
fn logits_match_f64() {
    let mut worst = 0.0f64;
    for (name, gguf) in models() {
        let e = worst_of_backends(&gguf, KvType::F32, &prompt(1, PROMPT, 67));
        assert!(e <= BOUND, "{name}: {e:.1e}");
        worst = worst.max(e);
    }
    println!("F32 weights, F32 cache: worst error {worst:.1e}");
}

prop_compose! {
    /// A model of any shape that the format allows, some of them absurd.
    fn any_model()(
        qwen2: bool, tied: bool, bias: bool, rope_factors: bool,
        n_kv_heads in 1usize..4, group in 1usize..10, head_blocks in 1usize..9, rope_pairs in 1usize..=32,
        n_embd in 1usize..70, n_ff in 1usize..70, n_layers in 1usize..4, vocab in 2usize..70,
        rope_base in 100f32..1e6, factor in 0.5f32..8.0, seed in 1u64..1000,
    ) -> Gguf {
        let (n_heads, head_dim) = (n_kv_heads * group, head_blocks * 8);
        let t = tiny(
            if qwen2 { "qwen2" } else { "llama" },
            (n_heads, n_kv_heads, head_dim, (rope_pairs * 2).min(head_dim)),
            (n_embd, n_ff),
            seed,
        );
        with_linear_scaling(Tiny { tied, bias, rope_factors, n_layers, vocab, rope_base, ..t }.gguf(), t.arch, factor)
    }
}

proptest! {
    #![proptest_config(cases(32, 8))]
    #[test]
    fn any_shape_matches_f64(gguf in any_model(), n in 1usize..50, seed: u64) {
        let Some(Val::Strs(vocab)) = Oracle::new(&gguf).value("tokenizer.ggml.tokens").cloned() else { panic!() };
        let e = worst_of_backends(&gguf, KvType::F32, &prompt(seed, n, vocab.len()));
        // One absurd shape in a thousand, of a few columns, magnifies rounding to twice the bound.
        prop_assert!(e <= 10.0 * BOUND, "{e:.1e}");
    }
}

/// A model whose every width is a whole number of blocks.
fn blocky(dtype: DType, seed: u64) -> Tiny {
    Tiny { dtype, tied: false, bias: true, ..tiny("llama", (6, 2, 32, 32), (96, 160), seed) }
}

/// A model whose matrices alternate between F16, Q8_0, Q4_0 and Q4_1, so that those with the same input differ.
fn mixed(seed: u64) -> Gguf {
    let sources = [DType::F16, DType::Q8_0, DType::Q4_0, DType::Q4_1].map(|dtype| blocky(dtype, seed).gguf());
    let mut gguf = sources[0].clone();
    for (i, t) in gguf.tensors.iter_mut().enumerate() {
        *t = sources[(i / 2 + i) % 4].tensors[i].clone();
    }
    gguf
}

/// Every format, and a bound with its reason. The oracle has the decoded weights, so the weights' own quantisation is
/// no error here. Each bound is some three times the worst of four models.
#[test]
fn formats_match_f64() {
    // Keys and values are rounded to 11 bits, 2.4e-4 of each; scores of standard deviation 4 magnify it.
    let half_cache = 8e-3;
    // Activations are rounded to int8 in blocks of 32, 0.4 % of a block's largest off, before every matrix of every
    // layer, and scores of standard deviation 4 magnify it. `rounding_is_all_that_differs` is the sharper test.
    let int8 = 0.3;
    let formats = [
        // The same f32 arithmetic as F32 weights; or a few tokens' products in binary16, rounded to 11 bits seven times.
        (DType::F16, KvType::F32, if uses_f16_products() { 0.03 } else { BOUND }),
        (DType::Bf16, KvType::F32, BOUND),
        (DType::F32, KvType::F16, half_cache),
        (DType::F16, KvType::F16, if uses_f16_products() { 0.03 } else { half_cache }),
        (DType::Bf16, KvType::F16, half_cache),
        (DType::Q8_0, KvType::F32, int8),
        (DType::Q8_0, KvType::F16, int8),
        (DType::Q4_0, KvType::F32, int8),
        (DType::Q4_0, KvType::F16, int8),
        (DType::Q4_1, KvType::F32, int8),
        (DType::Q4_1, KvType::F16, int8),
    ];
    let tokens = prompt(2, PROMPT, 67);
    for (dtype, kv, bound) in formats {
        let errors = (1..=deep(4, 2)).map(|seed| worst_of_backends(&blocky(dtype, seed as u64).gguf(), kv, &tokens));
        let e = errors.fold(0.0, f64::max);
        println!("{dtype} weights, {kv:?} cache: worst error {e:.1e}, bound {bound:.0e}");
        assert!(e <= bound, "{dtype} weights, {kv:?} cache: {e:.1e}");
    }
}

/// Errors after each of many short prompts, sorted, against an oracle that rounds activations and the cache as armlet
/// does.
fn errors_beside_rounding(gguf: &Gguf, kernels: Kernels, kv: KvType) -> Vector {
    let oracle = Oracle { int8: true, half: kv == KvType::F16, ..Oracle::new(gguf) };
    let config = Config { context: 16, chunk: 16, logit_rows: 1, kv, pattern: Pattern::Full, ..Config::default() };
    let run = |session: &mut Reader<'_>| {
        let one = |i: u64| {
            let tokens = prompt(100 + i, 1 + i as usize % 4, 67);
            session.rewind(0);
            let want = oracle.logits(&tokens).remove(tokens.len() - 1);
            error(session.eval(&Serial, &tokens).unwrap(), &want)
        };
        let mut errors: Vector = (0..60).map(one).collect();
        errors.sort_by(f64::total_cmp);
        errors
    };
    with_model(gguf, |model| with_session(model, kernels, config, run))
}

/// What quantised weights and an F16 cache add to F32's error is the rounding that they are meant to do.
///
/// A number at the middle of two int8 or F16 may round differently in f32 and f64, after which the two agree only
/// roughly; that happens in a few short prompts of a hundred, so the median is to be as good as with F32, and the
/// larger half within `formats_match_f64`'s bounds.
#[test]
fn rounding_is_all_that_differs() {
    let named = |dtype: DType| (dtype.name(), blocky(dtype, 5).gguf());
    let nvfp4 = Tiny { dtype: DType::Nvfp4, tied: false, ..tiny("llama", (2, 1, 64, 64), (64, 128), 5) };
    let more = [("mixed", mixed(5)), ("NVFP4 with scales", with_tensor_scales(nvfp4.gguf()))];
    for (name, gguf) in some_formats().map(named).chain(more) {
        for kv in [KvType::F32, KvType::F16] {
            for kernels in backends() {
                let errors = errors_beside_rounding(&gguf, kernels, kv);
                let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
                let name = format!("{name} weights, {kv:?} cache, {}", kernels.backend().name());
                println!("{name}: median {median:.1e}, worst {worst:.1e}");
                // Products in binary16 are rounded as the oracle's are not.
                let halves = kernels.uses_f16_products(1) && name.starts_with(['F', 'm']) && !name.starts_with("F32");
                let bound = if halves { 0.03 } else { 2e-5 };
                assert!(median <= bound && worst <= 0.3, "{name}: {median:.1e}, {worst:.1e}");
            }
        }
    }
}

/// Each mistake, made by the oracle, shows far beyond the bound: the comparison can fail.
#[test]
fn mistakes_show() {
    let t = Tiny { bias: true, tied: false, rope_factors: true, ..tiny("qwen2", (6, 2, 32, 24), (48, 80), 21) };
    for arch in ["llama", "qwen2"] {
        let mut gguf = with_tensor_scales(with_linear_scaling(Tiny { arch, ..t.clone() }.gguf(), arch, 1.5));
        // As large as the mean square that it is added to; 1e-5 in another place would hardly show.
        gguf.set(&format!("{arch}.attention.layer_norm_rms_epsilon"), Val::F32(0.02));
        let tokens = prompt(3, PROMPT, t.vocab);
        let compare = |mistake| {
            let want = Oracle { mistake, ..Oracle::new(&gguf) }.logits(&tokens);
            worst_error(&gguf, Kernels::detect(), KvType::F32, &tokens, &want)
        };
        assert!(compare(None) <= BOUND);
        for mistake in MISTAKES {
            let e = compare(Some(mistake));
            println!("{arch}, {mistake:?}: {e:.1e}");
            assert!(e > 500.0 * BOUND, "{arch}: {mistake:?} shows as only {e:.1e}");
        }
    }
}

/// How a file can ask for scaling, and the factor that it means: what `load_hparams` of llama.cpp makes of it.
#[test]
fn rope_factors_as_in_llama_cpp() {
    // (rope.scaling.type, rope.scaling.factor, rope.scale_linear, what they mean)
    let cases = [
        (None, None, None, 1.0),
        (None, Some(4.0), None, 4.0),
        (None, None, Some(2.0), 2.0),
        (None, Some(4.0), Some(2.0), 4.0),
        (Some("linear"), None, Some(2.0), 2.0),
        (Some("linear"), Some(4.0), Some(2.0), 4.0),
        (Some("none"), Some(4.0), None, 1.0),
        (Some("none"), None, Some(2.0), 1.0),
        (Some("linear"), None, None, 1.0),
        (Some("linear"), Some(0.0), None, 1.0),
        (None, Some(0.0), Some(2.0), 1.0),
        (None, None, Some(0.0), 1.0),
    ];
    for (kind, factor, old, want) in cases {
        let mut gguf = Tiny::default().gguf();
        let values = [
            ("rope.scaling.type", kind.map(|k: &str| Val::Str(k.into()))),
            ("rope.scaling.factor", factor.map(Val::F32)),
            ("rope.scale_linear", old.map(Val::F32)),
        ];
        for (key, value) in values {
            value.map(|value| gguf.set(&format!("llama.{key}"), value));
        }
        with_model(&gguf, |model| assert_eq!(model.hparams.rope_scaling.factor, want, "{kind:?}, {factor:?}, {old:?}"));
    }
}

// Bits ----------------------------------------------------------------------------------------------------------------

/// Chunks, calls, threads, `score` and rewinding do not change a bit of the logits, for any format; of float weights
/// among passes of up to eight tokens, and among longer ones.
#[test]
fn same_bits() {
    for dtype in some_formats() {
        // Rows that are no multiple of eight where they may be, more heads in a group than one pass of attention takes.
        let blocks = tiny("qwen2", (6, 1, 16, 16), (64, 96), 31);
        let odd = tiny("llama", (10, 2, 24, 24), (36, 49), 31);
        let shape = if dtype.is_quantised() { blocks } else { odd };
        with_model(&Tiny { dtype, bias: true, ..shape }.gguf(), |model| {
            // In the gate the scalar backend, which is slow, has floats and one format of quants.
            let scalar = deep(1, 0) == 1 || !dtype.is_quantised() || dtype == DType::Q8_0;
            for kernels in backends().into_iter().skip(usize::from(!scalar)) {
                // The cache does not know the weights' format: each with one is enough.
                let kv = if dtype == DType::F32 { KvType::F32 } else { KvType::F16 };
                println!("{dtype} weights, {kv:?} cache, {}", kernels.backend().name());
                let reference = ReferenceBits::new(model, kernels, kv);
                if dtype.is_quantised() {
                    reference.check(64);
                } else {
                    reference.check(8);
                    reference.check_long_passes();
                }
            }
        });
    }
}

/// Nor does it show that threads share the tokens of a long pass, where of a shorter one they share the columns.
#[test]
fn same_bits_shared_by_tokens() {
    const LONG: usize = 400;
    let config = Config { context: LONG, logit_rows: 1, pattern: Pattern::Full, ..Config::default() };
    for dtype in some_formats() {
        with_model(&Tiny { dtype, context: LONG, ..tiny("llama", (6, 2, 16, 16), (64, 96), 61) }.gguf(), |model| {
            let tokens = prompt(8, LONG, model.hparams.vocab);
            let read = |chunk: usize, exec: &dyn Executor| {
                let config = Config { chunk, ..config };
                with_session(model, Kernels::detect(), config, |s| bits(s.eval(exec, &tokens).unwrap()))
            };
            let want = read(64, &Serial);
            for exec in [&Pool::new(2) as &dyn Executor, &Crowd] {
                assert!(read(LONG, exec) == want, "{dtype}");
            }
        });
    }
}

/// Nor does packing: the reference is that of the file in rows.
#[test]
fn same_bits_packed() {
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.packs()) {
        let narrow = dtype.block_len() == 32;
        // Last panels of 3 and of 8 rows, a head of its own, and matrices that are whole panels.
        let shape = tiny("llama", (12, 3, 8, 8), (32, 96), 51);
        let wide = Tiny { n_layers: 1, ..tiny("llama", (8, 2, 32, 32), (256, 256), 51) };
        let shape = if narrow { shape } else { wide };
        let rows = Tiny { dtype, tied: dtype == DType::Q4_0, ..shape }.gguf();
        with_model(&rows, |model| {
            with_model(&rows.packed(), |packed| {
                assert_eq!(packed.weights.output.weight.layout(), Layout::Panels);
                // The kernels' tests compare every format on all backends.
                let all = matches!(dtype, DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q5_0);
                for kernels in backends().into_iter().filter(|k| all || k.backend() == Kernels::detect().backend()) {
                    println!("{dtype}, {}", kernels.backend().name());
                    let check = ReferenceBits { model: packed, ..ReferenceBits::new(model, kernels, KvType::F16) };
                    if narrow { check.check(64) } else { check.check_split(64, &Serial, &[1, 2, PROMPT]) }
                }
            });
        });
    }
}

/// Two conversations over one model, a few tokens of each in turn, give what each gives alone; so they do on two
/// threads that share a pool.
#[test]
fn sessions_share_a_model() {
    let config =
        Config { context: 128, chunk: 8, logit_rows: 1, kv: KvType::F16, pattern: Pattern::Full, ..Config::default() };
    let prompts = [6, 7].map(|seed| prompt(seed, PROMPT, 67));
    let pool = Pool::new(2);
    for dtype in [DType::F32, DType::Q4_0] {
        with_model(&blocky(dtype, 41).gguf(), |model| {
            let read = |s: &mut Reader<'_>, tokens: &[u32]| bits(s.eval(&pool, tokens).unwrap());
            let kernels = Kernels::detect();
            let alone = prompts.each_ref().map(|p| with_session(model, kernels, config, |s| read(s, p)));
            let together = with_session(model, kernels, config, |a| {
                with_session(model, kernels, config, |b| {
                    let turns = prompts[0].chunks(5).zip(prompts[1].chunks(5));
                    turns.map(|(p, q)| [read(a, p), read(b, q)]).last().unwrap()
                })
            });
            assert!(together == alone, "{dtype}, in turn");
            let at_once = std::thread::scope(|scope| {
                let one = |p: &[u32]| with_session(model, kernels, config, |s| read(s, p));
                let threads = prompts.each_ref().map(|p| scope.spawn(move || one(p)));
                threads.map(|thread| thread.join().unwrap())
            });
            assert!(at_once == alone, "{dtype}, at once");
        });
    }
}

/// Sessions of one model that hold more and more, and an engine for them all.
fn with_batch<R>(
    model: &Model<'_>,
    kernels: Kernels,
    contexts: &[usize],
    f: impl FnOnce(&mut Engine<'_>, &mut [Session<'_>]) -> R,
) -> R {
    let plan = |context| {
        // Another store for every other session: a batch may mix them.
        let kv = if context % 2 == 0 { KvType::F16 } else { KvType::F32 };
        Plan::new(
            &model.hparams,
            &Config { context, chunk: 16, logit_rows: 8, kv, pattern: Pattern::Full, ..Config::default() },
        )
        .unwrap()
    };
    let mut rooms: Vec<_> = contexts.iter().map(|c| memory(plan(*c).session_bytes()).unwrap()).collect();
    let mut work = memory(plan(contexts[0]).engine_bytes()).unwrap();
    rooms.iter_mut().for_each(|room| room.fill(0xff));
    work.fill(0xff);
    let mut engine = Engine::new(model, kernels, &plan(contexts[0]), &mut work).unwrap();
    let sessions = rooms.iter_mut().zip(contexts).map(|(room, c)| Session::new(model, &plan(*c), room).unwrap());
    f(&mut engine, &mut sessions.collect::<Vec<_>>())
}

/// One token for each of several sessions at different positions, in one pass, gives what each gives alone, and leaves
/// in each what it would have left alone.
#[test]
fn a_batch_gives_the_bits_of_each_session_alone() {
    const STEPS: usize = 3;
    let contexts: Vec<usize> = (0..8).map(|i| 40 + i * 3).collect();
    let prompts: Vec<Vec<u32>> = (0..8).map(|i| prompt(50 + i, 1 + i as usize * 5, 67)).collect();
    let next: Vec<Vec<u32>> = (0..8).map(|i| prompt(70 + i, STEPS, 67)).collect();
    let pool = Pool::new(2);
    for dtype in some_formats() {
        with_model(&blocky(dtype, 43).gguf(), |model| {
            for kernels in backends() {
                // For each session the bits after each step.
                let alone: Vec<Vec<_>> = with_batch(model, kernels, &contexts, |engine, sessions| {
                    let mut one = |(i, s): (usize, &mut Session<'_>)| {
                        engine.eval(&Serial, s, &prompts[i]).unwrap();
                        next[i].iter().map(|t| bits(engine.eval(&Serial, s, &[*t]).unwrap())).collect()
                    };
                    sessions.iter_mut().enumerate().map(&mut one).collect()
                });
                for (size, exec) in [(1, &Serial as &dyn Executor), (2, &pool), (3, &Serial), (8, &Serial), (8, &pool)]
                {
                    with_batch(model, kernels, &contexts, |engine, sessions| {
                        for (session, prompt) in sessions.iter_mut().zip(&prompts) {
                            engine.eval(exec, session, prompt).unwrap();
                        }
                        let mut sessions: Vec<&mut Session<'_>> = sessions.iter_mut().collect();
                        for step in 0..STEPS {
                            for (b, batch) in sessions.chunks_mut(size).enumerate() {
                                let members = b * size..b * size + batch.len();
                                let tokens: Vec<u32> = next[members.clone()].iter().map(|n| n[step]).collect();
                                let want: Vec<_> = alone[members].iter().flat_map(|a| a[step].clone()).collect();
                                let got = bits(engine.step(exec, batch, &tokens).unwrap());
                                assert!(got == want, "{dtype}, {size} of {:?}, step {step}", kernels.backend());
                            }
                        }
                    });
                }
            }
        });
    }
}

/// A batch with a fault in one place reads nothing anywhere.
#[test]
fn a_faulty_batch_reads_nothing() {
    let gguf = blocky(DType::Q8_0, 44).gguf();
    with_model(&gguf, |model| {
        with_batch(model, Kernels::detect(), &[20, 5, 20], |engine, sessions| {
            let [a, b, c] = sessions else { panic!() };
            engine.eval(&Serial, a, &[1, 2, 3]).unwrap();
            engine.eval(&Serial, b, &[1, 2, 3, 4, 5]).unwrap();
            let mut refused = |sessions: &mut [&mut Session<'_>], tokens: &[u32]| {
                let before: Vec<u64> = sessions.iter().map(|s| s.position()).collect();
                let error = engine.step(&Serial, sessions, tokens).unwrap_err();
                assert_eq!(before, sessions.iter().map(|s| s.position()).collect::<Vec<_>>(), "{error}");
                error
            };
            let full = EngineError::ContextFull { used: 5, more: 1, capacity: 5 };
            assert_eq!(refused(&mut [a, b, c], &[1, 2, 3]), full);
            assert_eq!(refused(&mut [a, c], &[1, 67]), EngineError::UnknownToken(67));
            assert_eq!(refused(&mut [a, c], &[1]), EngineError::Batch { sessions: 2, tokens: 1 });
            assert_eq!(refused(&mut [], &[]), EngineError::NoTokens);
            with_model(&gguf, |other| {
                with_batch(other, Kernels::detect(), &[20], |_, others| {
                    let [d] = others else { panic!() };
                    assert_eq!(engine.eval(&Serial, d, &[1]), Err(EngineError::OtherModel));
                    assert_eq!(engine.step(&Serial, &mut [d], &[1]), Err(EngineError::OtherModel));
                    assert_eq!(d.position(), 0);
                });
            });
            // A copy of the model is the same model.
            let copy = *model;
            let plan = Plan::new(&copy.hparams, &Config { context: 20, ..Config::default() }).unwrap();
            let mut room = memory(plan.session_bytes()).unwrap();
            let mut session = Session::new(&copy, &plan, &mut room).unwrap();
            assert!(engine.eval(&Serial, &mut session, &[1]).is_ok());
        });
        with_batch(model, Kernels::detect(), &[8; 9], |engine, sessions| {
            let mut all: Vec<&mut Session<'_>> = sessions.iter_mut().collect();
            let refusal = engine.step(&Serial, &mut all, &[1; 9]).err();
            assert_eq!(refusal, Some(EngineError::LogitRows { asked: 9, planned: 8 }));
        });
    });
}
