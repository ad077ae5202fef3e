//! Several boards give the bits of one: every family, every way to share a model, prompts cut anyhow.

use proptest::prelude::*;

use crate::common::boards::{Board, Failing, on_boards};
use crate::common::deep;
use crate::common::family_models::cases;
use crate::common::gguf::{Gguf, Tiny};
use crate::common::run::{Reader, prompt, with_model, with_session};
use armlet::arch::{Kernels, KvType};
use armlet::boards::{Comm, CommError};
use armlet::engine::{Config, Engine, EngineError, Pattern, Plan, Session};
use armlet::host::{Pool, memory};
use armlet::model::{Model, Share, Split};
use armlet::quant::DType;

/// What a conversation is made of.
#[derive(Clone, Debug)]
enum Step {
    /// Reads tokens; the logits behind the last.
    Eval(Vec<u32>),
    /// Reads tokens; the logits behind each.
    Score(Vec<u32>),
    /// Goes back by so many tokens, as far as can be.
    Rewind(usize),
}

/// The bits of all logits, and of what fails.
type Bits = Vec<Result<Vec<u32>, EngineError>>;

fn run(engine: &mut Engine<'_>, session: &mut Session<'_>, steps: &[Step]) -> Bits {
    let exec = Pool::new(2);
    let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect();
    let step = |step: &Step| match step {
        Step::Eval(tokens) => engine.eval(&exec, session, tokens).map(bits),
        Step::Score(tokens) => engine.score(&exec, session, tokens).map(bits),
        Step::Rewind(n) => session.rewind(session.position().saturating_sub(*n as u64)).map(|()| Vec::new()),
    };
    steps.iter().map(step).collect()
}

/// On one board.
fn alone(model: &Model<'_>, config: Config, steps: &[Step]) -> Bits {
    with_session(model, Kernels::detect(), config, |Reader { engine, session }| run(engine, session, steps))
}

/// On one of several, in memory full of NaNs: what the first gives, and what the others end with.
fn on_board(
    comm: &dyn Comm,
    model: &Model<'_>,
    config: Config,
    split: Split,
    steps: &[Step],
) -> Result<Bits, EngineError> {
    let share = Share::new(&model.hparams, split, 1, config.context, comm.rank(), comm.size()).unwrap();
    let plan = Plan::shared(&model.hparams, &config, &share)?;
    let mut room = memory(plan.bytes()).unwrap();
    room.fill(0xff);
    let (work, cache) = room.split_at_mut(plan.engine_bytes());
    let mut engine = Engine::on_boards(model, Kernels::detect(), &plan, work, comm)?;
    let mut session = Session::new(model, &plan, cache)?;
    assert_eq!((engine.used_bytes(), session.used_bytes()), (plan.engine_bytes(), plan.session_bytes()));
    if comm.rank() == 0 {
        let bits = run(&mut engine, &mut session, steps);
        return engine.dismiss().map(|()| bits);
    }
    engine.follow(&Pool::new(1), &mut session).map(|()| Vec::new())
}

/// Boards of all numbers that the model can have, up to `most`, give the bits of one.
fn same_bits(gguf: &Gguf, config: Config, steps: &[Step], splits: &[Split], most: usize) -> Result<(), String> {
    with_model(gguf, |model| {
        let expected = alone(model, config, steps);
        for (split, size) in splits.iter().flat_map(|split| (2..=most).map(move |size| (*split, size))) {
            if Share::new(&model.hparams, split, 1, config.context, 0, size).is_err() {
                continue;
            }
            let got = on_boards(size, |board| on_board(&board, model, config, split, steps));
            let first = got[0].clone().map_err(|e| format!("{size} boards by {split:?}: {e}"))?;
            for (i, (got, expected)) in first.iter().zip(&expected).enumerate() {
                if got != expected {
                    return Err(format!("{size} boards by {split:?}: step {i}, {:?}", got.as_ref().err()));
                }
            }
            assert!(got[1..].iter().all(|rest| *rest == Ok(Vec::new())), "{:?}", &got[1..]);
        }
        Ok(())
    })
}

/// A prompt in more than one pass, an answer, a draft of which some is forgotten, and an answer.
fn conversation(vocab: usize) -> Vec<Step> {
    let tokens = prompt(7, 60, vocab);
    vec![
        Step::Eval(tokens[..21].to_vec()),
        Step::Eval(tokens[21..22].to_vec()),
        Step::Score(tokens[22..27].to_vec()),
        Step::Rewind(3),
        Step::Eval(tokens[30..31].to_vec()),
        Step::Eval(tokens[31..44].to_vec()),
        Step::Rewind(usize::MAX),
        Step::Eval(tokens[44..60].to_vec()),
    ]
}

const SPLITS: [Split; 2] = [Split::Layers, Split::Rows];

/// Every family, with all that it may have.
#[test]
fn every_family_on_boards() {
    for case in cases() {
        let config = Config { context: case.context, sinks: 0, chunk: 8, logit_rows: 5, ..Config::default() };
        let (vocab, whole) = with_model(&case.gguf, |model| {
            (model.hparams.vocab, model.hparams.family.qk_norm == armlet::model::QkNorm::Whole)
        });
        let steps = conversation(vocab);
        same_bits(&case.gguf, config, &steps, &SPLITS[..1], 3).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let rows = same_bits(&case.gguf, config, &steps, &SPLITS[1..], 3);
        match rows {
            Err(e) if whole => assert!(e.contains("norms over all heads"), "{}: {e}", case.name),
            rows => rows.unwrap_or_else(|e| panic!("{}: {e}", case.name)),
        }
    }
}

fn any_steps(vocab: u32) -> impl Strategy<Value = Vec<Step>> {
    let tokens = |most| prop::collection::vec(0..vocab, 1..most);
    let step = prop_oneof![
        3 => tokens(70).prop_map(Step::Eval),
        3 => tokens(2).prop_map(Step::Eval),
        2 => tokens(6).prop_map(Step::Score),
        1 => (0usize..40).prop_map(Step::Rewind),
    ];
    prop::collection::vec(step, 1..7)
}

fn any_model() -> impl Strategy<Value = Gguf> {
    let heads = prop::sample::select(vec![(4usize, 1usize), (4, 2), (9, 3), (5, 5), (8, 8)]);
    let dtype = prop::sample::select(vec![DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::F16, DType::F32]);
    (heads, dtype, 1usize..6, prop::sample::select(vec![32usize, 96, 160, 224]), 1usize..3, any::<bool>(), 0u64..1000)
        .prop_map(|((n_heads, n_kv_heads), dtype, n_layers, n_ff, wide, packed, seed)| {
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

    /// Whatever the sizes, formats, patterns and cuts.
    #[test]
    fn any_model_on_boards(gguf in any_model(), config in any_config(), steps in any_steps(67)) {
        prop_assert_eq!(same_bits(&gguf, config, &steps, &SPLITS, 5), Ok(()));
    }
}

/// A board that fails in any of its exchanges: an error for all, at once or in the next pass, and nothing hangs.
#[test]
fn a_board_that_fails_in_a_pass() {
    let gguf = Tiny { dtype: DType::Q8_0, ..Tiny::default() }.gguf();
    let steps = [Step::Eval(vec![1, 2, 3]), Step::Eval(vec![4]), Step::Eval(vec![5])];
    let config = Config { context: 64, sinks: 0, chunk: 8, ..Config::default() };
    with_model(&gguf, |model| {
        for (split, exchanges) in SPLITS.into_iter().flat_map(|split| (0..24).map(move |k| (split, k))) {
            let run = |comm: &dyn Comm| on_board(comm, model, config, split, &steps);
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
