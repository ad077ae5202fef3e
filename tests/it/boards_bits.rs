//! Several boards give the bits of one: every family, every way to share a model, prompts cut anyhow.

use proptest::prelude::*;

use crate::boards_run::{SPLITS, Step, Way, conversation, long_model, on_board, same_bits, same_bits_by};
use crate::common::boards::{Board, Failing, on_boards};
use crate::common::deep;
use crate::common::family_models::{Case, cases};
use crate::common::gguf::{Gguf, Tiny, Val};
use crate::common::run::{prompt, with_model};
use armlet::arch::KvType;
use armlet::boards::{Comm, CommError};
use armlet::engine::{Config, EngineError, Pattern};
use armlet::model::{Shares, Split};
use armlet::quant::DType;

/// Every family, with all that it may have.
#[test]
fn every_family_on_boards() {
    for case in cases() {
        let config = Config { context: case.context, sinks: 0, chunk: 8, logit_rows: 5, ..Config::default() };
        let (vocab, whole) = with_model(&case.gguf, |model| {
            (model.hparams.vocab, model.hparams.family.qk_norm == armlet::model::QkNorm::Whole)
        });
        let steps = conversation(vocab);
        same_bits(&case.gguf, config, &steps, &SPLITS[..1], 2..=3).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let rows = same_bits(&case.gguf, config, &steps, &SPLITS[1..], 2..=3);
        match rows {
            Err(e) if whole => assert!(e.contains("norms over all heads"), "{}: {e}", case.name),
            rows => rows.unwrap_or_else(|e| panic!("{}: {e}", case.name)),
        }
    }
}

/// Prompts have `lengths`.
fn any_steps(vocab: usize, lengths: impl Strategy<Value = usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (lengths, any::<u64>()).prop_map(move |(n, seed)| Step::Eval(prompt(seed, n, vocab))),
        3 => (0..vocab as u32).prop_map(|token| Step::Eval(vec![token])),
        2 => (1usize..6, any::<u64>()).prop_map(move |(n, seed)| Step::Score(prompt(seed, n, vocab))),
        1 => prop_oneof![0usize..40, 0usize..300].prop_map(Step::Rewind),
        2 => Just(Step::Save),
        1 => prop::option::weighted(0.3, 0usize..9000).prop_map(Step::Restore),
    ];
    prop::collection::vec(step, 1..9)
}

/// Query heads, and heads of keys and values.
const HEADS: [(usize, usize); 5] = [(4, 1), (4, 2), (5, 5), (9, 3), (8, 8)];

/// Of at most so many layers, of so many positions, and with one of these numbers of heads.
fn any_model(layers: usize, context: usize, heads: &[(usize, usize)]) -> impl Strategy<Value = Gguf> {
    let heads = prop::sample::select(heads.to_vec());
    let dtype = prop::sample::select(vec![DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::F16, DType::F32]);
    (heads, dtype, 1..=layers, prop::sample::select(vec![32usize, 96, 160, 224]), 1usize..3, any::<bool>(), 0u64..1000)
        .prop_map(move |((n_heads, n_kv_heads), dtype, n_layers, n_ff, wide, packed, seed)| {
            let (head_dim, vocab) = (32 * wide, 67 + seed as usize % 70);
            let tiny = Tiny {
                n_heads,
                n_kv_heads,
                dtype,
                n_layers,
                n_ff,
                head_dim,
                rope_dims: 16,
                seed,
                vocab,
                context,
                ..Tiny::default()
            };
            let gguf = Tiny { n_embd: 32 * (1 + seed as usize % 5), tied: seed % 2 == 0, ..tiny }.gguf();
            if packed && matches!(dtype, DType::Q8_0 | DType::Q4_0 | DType::Q4_1) { gguf.packed() } else { gguf }
        })
}

fn any_config() -> impl Strategy<Value = Config> {
    let pattern =
        prop::sample::select(vec![Pattern::Full, Pattern::Window, Pattern::Sinks, Pattern::Strided { every: 2 }]);
    let kv = prop::sample::select(vec![
        (KvType::F32, false),
        (KvType::F16, false),
        (KvType::Int8, false),
        (KvType::Int8, true),
    ]);
    (pattern, kv, 70usize..256, 5usize..40, 0usize..8).prop_map(|(pattern, (kv, hadamard), context, chunk, slack)| {
        Config { context, pattern, chunk, slack, kv, hadamard, logit_rows: 5, ..Config::default() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(deep(400, 24) as u32))]

    /// Whatever the sizes, formats, patterns and cuts, and whatever the boards have in proportion to each other.
    #[test]
    fn any_model_on_boards(
        gguf in any_model(5, 256, &HEADS),
        config in any_config(),
        steps in any_steps(67, 1usize..70),
        numbers in prop::collection::vec(1u8..=50, 2..=5),
    ) {
        prop_assert_eq!(same_bits(&gguf, config, &steps, &SPLITS, 2..=5), Ok(()));
        let shares = Shares::new(&numbers).unwrap();
        let ways = SPLITS.map(|split| Way { split, shares });
        prop_assert_eq!(same_bits_by(&gguf, config, &steps, ways), Ok(()));
    }
}

/// Boards that have each taken the shares from what they measured themselves do not go on: no bit is wrong.
#[test]
fn boards_with_other_shares_notice_it() {
    let gguf = Tiny { dtype: DType::Q8_0, n_ff: 96, ..Tiny::default() }.gguf();
    let config = Config { context: 64, sinks: 0, chunk: 8, ..Config::default() };
    with_model(&gguf, |model| {
        let measured = [[2, 1], [1, 2]].map(|numbers| Shares::new(&numbers).unwrap());
        let ends = on_boards(2, |board| {
            let way = Way { split: Split::Rows, shares: measured[board.rank()] };
            on_board(&board, model, config, way, &[Step::Eval(vec![1, 2, 3])])
        });
        let noticed = |e: &EngineError| matches!(e, EngineError::Boards(CommError::Mismatch { .. }));
        let first = ends[0].as_ref().unwrap();
        assert!(first[0].as_ref().is_err_and(noticed), "{first:?}");
    });
}

/// Positions on several boards, of all patterns, evicted and not, rewound, saved and restored.
#[test]
fn positions_on_boards() {
    let tokens = prompt(3, 6300, 67);
    let step = |range: std::ops::Range<usize>| Step::Eval(tokens[range].to_vec());
    let steps = [
        step(0..4500),
        step(4500..4501),
        Step::Score(tokens[4501..4506].to_vec()),
        Step::Rewind(3),
        step(4510..4511),
        Step::Save,
        step(4511..6100),
        step(6100..6101),
        Step::Rewind(1500),
        step(6101..6102),
        Step::Save,
        step(5000..5200),
        Step::Restore(None),
        step(6102..6103),
        step(5200..5300),
        Step::Save,
        Step::Rewind(usize::MAX),
        step(6200..6300),
        Step::Save,
        Step::Restore(Some(5000)),
        step(0..40),
        Step::Save,
    ];
    let base = Config { chunk: 512, logit_rows: 5, ..Config::default() };
    let int8 = Config { kv: KvType::Int8, hadamard: true, ..base };
    let configs = [
        Config { context: 4300, pattern: Pattern::Strided { every: 3 }, ..int8 },
        Config { context: 4200, pattern: Pattern::Window, ..base },
        // Blocks of two leaves.
        Config { context: 26_000, pattern: Pattern::Full, ..base },
        Config { context: 4200, sinks: 40, slack: 1600, ..int8 },
        Config { context: 4400, pattern: Pattern::Strided { every: 70 }, kv: KvType::F32, ..base },
    ];
    for config in configs.into_iter().skip(deep(0, 1)) {
        let gguf = long_model();
        same_bits(&gguf, config, &steps, &[Split::Tokens], deep(2, 3)..=deep(5, 3))
            .unwrap_or_else(|e| panic!("{config:?}: {e}"));
    }
}

/// Every family, by positions: prompts that boards divide, and what follows.
#[test]
fn every_family_divides_a_prompt() {
    for case in cases() {
        divides_a_prompt(case, Config { chunk: 17, ..Config::default() }, &[70, 1, 40]);
    }
}

/// Some families, or with `--deep` all: what they attend to is of two boards.
#[test]
fn every_family_has_positions_of_several_boards() {
    let some = ["phi3, long", "gemma2"];
    for case in cases().into_iter().filter(|case| deep(1, 0) == 1 || some.contains(&case.name)) {
        let config = Config { chunk: 128, kv: KvType::Int8, ..Config::default() };
        divides_a_prompt(case, config, &[2100, 1, 70]);
    }
}

/// A family's model gives the bits of one board on two that read prompts of these lengths.
fn divides_a_prompt(case: Case, config: Config, lengths: &[usize]) {
    let (mut gguf, config) = (case.gguf, Config { context: 4100, ..config });
    let key = gguf.metadata.iter().map(|(key, _)| key.clone()).find(|key| key.ends_with(".context_length"));
    gguf.set(&key.unwrap(), Val::U32(20_000));
    let vocab = with_model(&gguf, |model| model.hparams.vocab);
    let steps: Vec<Step> = (9..).zip(lengths).map(|(seed, n)| Step::Eval(prompt(seed, *n, vocab))).collect();
    same_bits(&gguf, config, &steps, &[Split::Tokens], 2..=2).unwrap_or_else(|e| panic!("{}: {e}", case.name));
}

/// A context no longer than a pass.
#[test]
fn a_pass_as_long_as_the_context() {
    let config = Config { context: 2100, chunk: 4096, pattern: Pattern::Full, ..Config::default() };
    let steps = [Step::Eval(prompt(4, 1200, 67)), Step::Eval(prompt(5, 900, 67))];
    assert_eq!(same_bits(&long_model(), config, &steps, &[Split::Tokens], 2..=2), Ok(()));
}

/// Float weights, whose order of sums is another for a few rows, and windows shorter than a pass with heads of another size; saved
/// and restored.
#[test]
fn windows_on_boards_that_divide_a_prompt() {
    let case = cases().into_iter().find(|case| case.name == "gemma3 with smaller heads in windows").unwrap();
    let mut gguf = case.gguf;
    let arch = "gemma3.attention.sliding_window";
    gguf.set(arch, Val::U32(50)).set("gemma3.context_length", Val::U32(20_000));
    let tokens = prompt(5, 2600, 67);
    // In chunks of 40 the last pass of one board has 5 tokens, and three boards have 85 left behind passes of 120.
    let steps = [
        Step::Eval(tokens[..2245].to_vec()),
        Step::Save,
        Step::Eval(tokens[2245..2365].to_vec()),
        Step::Restore(None),
        Step::Eval(tokens[2245..2365].to_vec()),
        Step::Eval(vec![7]),
        Step::Save,
    ];
    let config = Config { context: 4200, chunk: 40, pattern: Pattern::Full, ..Config::default() };
    assert_eq!(same_bits(&gguf, config, &steps, &[Split::Tokens], 3..=3), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(deep(200, 8) as u32))]

    /// Whatever the sizes, formats, patterns and cuts, and whatever is done beside reading: within the first board's first
    /// block, or behind it, where boards evict what they have.
    #[test]
    fn any_prompt_that_boards_divide(
        gguf in any_model(2, 20_000, &HEADS[..deep(5, 2)]), config in any_config(),
        size in 2usize..6, chunk in 16usize..200,
        first in prop_oneof![3 => 1usize..600, 1 => 2000usize..2600], seed in any::<u64>(),
        steps in any_steps(67, prop_oneof![20 => 1usize..300, 1 => 2000usize..2200]),
    ) {
        let config = Config { context: 2048 * (size - 1) + config.context, chunk, ..config };
        let steps = [vec![Step::Eval(prompt(seed, first, 67))], steps].concat();
        prop_assert_eq!(same_bits(&gguf, config, &steps, &[Split::Tokens], size..=size), Ok(()));
    }
}

/// A board that fails in any of its exchanges: an error for all, at once or in the next pass, and nothing hangs.
#[test]
fn a_board_that_fails_in_a_pass() {
    let gguf = Tiny { dtype: DType::Q8_0, context: 8192, ..Tiny::default() }.gguf();
    let steps = [Step::Eval(vec![1, 2, 3]), Step::Eval(vec![4]), Step::Eval(vec![5])];
    let short = Config { context: 64, sinks: 0, chunk: 8, ..Config::default() };
    // By positions, prompts that boards divide.
    let prompts = [Step::Eval(prompt(1, 40, 67)), Step::Eval(prompt(2, 33, 67)), Step::Eval(vec![5])];
    let long = Config { context: 4200, chunk: 20, ..short };
    let cases = [(Split::Layers, short, &steps), (Split::Rows, short, &steps), (Split::Tokens, long, &prompts)];
    with_model(&gguf, |model| {
        for ((split, config, steps), exchanges) in cases.into_iter().flat_map(|case| (0..24).map(move |k| (case, k))) {
            let run = |comm: &dyn Comm| on_board(comm, model, config, Way::even(split, 2), steps);
            let ends = on_boards(2, |board: Board| match board.rank() {
                1 => run(&Failing::new(board, exchanges)),
                _ => run(&board),
            });
            let failed = |result: &Result<Vec<u32>, EngineError>| {
                matches!(result, Err(EngineError::Boards(CommError::Gone { .. } | CommError::Silent { .. })))
            };
            // Either all passes were done before it failed, or the first board knows, and tries no more.
            let Ok(first) = &ends[0] else { continue };
            let from = first.iter().position(failed).unwrap_or(first.len());
            assert!(first[from..].iter().all(failed), "{split:?} {exchanges}: {first:?}");
            assert!(ends[1].is_err() || from == first.len());
        }
    });
}
