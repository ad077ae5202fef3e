//! Several boards give the bits of one: every family, every way to share a model, prompts cut anyhow.

use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use crate::common::boards::{Board, Failing, on_boards};
use crate::common::deep;
use crate::common::family_models::cases;
use crate::common::gguf::{Gguf, Tiny, Val};
use crate::common::run::{Reader, prompt, with_model, with_session};
use armlet::arch::{Kernels, KvType};
use armlet::boards::{Comm, CommError};
use armlet::engine::{Config, Engine, EngineError, Pattern, Plan, Session};
use armlet::host::{Pool, memory};
use armlet::model::{Model, Share, ShareError, Shares, Split};
use armlet::quant::DType;

/// The first word of a command about a session.
const SESSION: u32 = 2;

/// What a conversation is made of.
#[derive(Clone, Debug)]
enum Step {
    /// Reads tokens; the logits behind the last.
    Eval(Vec<u32>),
    /// Reads tokens; the logits behind each.
    Score(Vec<u32>),
    /// Goes back by so many tokens, as far as can be.
    Rewind(usize),
    /// Saves the session: the bytes of its file.
    Save,
    /// Restores what was saved last, where its header or its content is damaged at this byte; else as it is.
    Restore(Option<usize>),
}

/// What whoever saves a session adds.
const EXTRA: &[u8] = b"what the caller adds";

/// The bits of all logits, and of what fails.
type Bits = Vec<Result<Vec<u32>, EngineError>>;

fn run(engine: &mut Engine<'_>, session: &mut Session<'_>, steps: &[Step]) -> Bits {
    let exec = Pool::new(2);
    let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect();
    let mut saved = Vec::new();
    let step = |step: &Step| match step {
        Step::Eval(tokens) => engine.eval(&exec, session, tokens).map(bits),
        Step::Score(tokens) => engine.score(&exec, session, tokens).map(bits),
        Step::Rewind(n) => session.rewind(session.position().saturating_sub(*n as u64)).map(|()| Vec::new()),
        Step::Save => {
            saved = save(engine, session)?;
            Ok(saved.iter().map(|byte| u32::from(*byte)).collect())
        }
        Step::Restore(_) if saved.is_empty() => Ok(Vec::new()),
        Step::Restore(damaged) => {
            let mut bytes = saved.clone();
            if let Some(at) = damaged {
                let at = at % bytes.len();
                bytes[at] ^= 1;
            }
            let extra = engine.restore(session, &bytes)?;
            assert!(extra == EXTRA && damaged.is_none());
            Ok(vec![session.position() as u32])
        }
    };
    steps.iter().map(step).collect()
}

/// The file of a session.
fn save(engine: &mut Engine<'_>, session: &Session<'_>) -> Result<Vec<u8>, EngineError> {
    let mut bytes = Vec::new();
    let written = engine.save(session, EXTRA, |part| -> Result<(), Infallible> {
        bytes.extend_from_slice(part);
        Ok(())
    });
    written.map(|Ok(())| bytes)
}

/// On one board.
fn alone(model: &Model<'_>, config: Config, steps: &[Step]) -> Bits {
    with_session(model, Kernels::detect(), config, |Reader { engine, session }| run(engine, session, steps))
}

/// How a model is shared, and in which proportion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) split: Split,
    pub(crate) shares: Shares,
}

impl Way {
    pub(crate) fn even(split: Split, size: usize) -> Self {
        Way { split, shares: Shares::even(size) }
    }

    fn share(self, model: &Model<'_>, config: &Config, rank: usize) -> Result<Share, ShareError> {
        Share::uneven(&model.hparams, self.split, 1, config.context, rank, self.shares)
    }
}

/// On one of several, in memory full of NaNs: what the first gives, and what the others end with.
fn on_board(comm: &dyn Comm, model: &Model<'_>, config: Config, way: Way, steps: &[Step]) -> Result<Bits, EngineError> {
    of_board(comm, model, config, way, |engine, session| run(engine, session, steps))
}

/// The same of what `f` does on the first.
pub(crate) fn of_board<R: Default>(
    comm: &dyn Comm,
    model: &Model<'_>,
    config: Config,
    way: Way,
    f: impl FnOnce(&mut Engine<'_>, &mut Session<'_>) -> R,
) -> Result<R, EngineError> {
    let share = way.share(model, &config, comm.rank()).unwrap();
    let plan = Plan::shared(&model.hparams, &config, &share)?;
    let mut room = memory(plan.bytes()).unwrap();
    room.fill(0xff);
    let (work, cache) = room.split_at_mut(plan.engine_bytes());
    let mut engine = Engine::on_boards(model, Kernels::detect(), &plan, work, comm)?;
    let mut session = Session::new(model, &plan, cache)?;
    assert_eq!((engine.used_bytes(), session.used_bytes()), (plan.engine_bytes(), plan.session_bytes()));
    if comm.rank() == 0 {
        let done = f(&mut engine, &mut session);
        return engine.dismiss().map(|()| done);
    }
    engine.follow(&Pool::new(1), &mut session).map(|()| R::default())
}

/// Boards of these numbers, as far as the model can have them, give the bits of one.
fn same_bits(
    gguf: &Gguf,
    config: Config,
    steps: &[Step],
    splits: &[Split],
    sizes: RangeInclusive<usize>,
) -> Result<(), String> {
    let ways = splits.iter().flat_map(|split| sizes.clone().map(|size| Way::even(*split, size)));
    same_bits_by(gguf, config, steps, ways)
}

/// So do boards that share it in any of these ways.
fn same_bits_by(
    gguf: &Gguf,
    config: Config,
    steps: &[Step],
    ways: impl IntoIterator<Item = Way>,
) -> Result<(), String> {
    with_model(gguf, |model| {
        let expected = alone(model, config, steps);
        for way in ways {
            if way.share(model, &config, 0).is_err() {
                continue;
            }
            let Way { split, shares } = way;
            let got = on_boards(shares.size(), |board| on_board(&board, model, config, way, steps));
            let first = got[0].clone().map_err(|e| format!("boards by {split:?}, {shares}: {e}"))?;
            for (i, (got, expected)) in first.iter().zip(&expected).enumerate() {
                if got != expected {
                    return Err(format!("boards by {split:?}, {shares}: step {i}, {:?}", got.as_ref().err()));
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
        Step::Save,
        Step::Score(tokens[22..27].to_vec()),
        Step::Rewind(3),
        Step::Eval(tokens[30..31].to_vec()),
        Step::Save,
        Step::Eval(tokens[31..44].to_vec()),
        Step::Restore(None),
        Step::Eval(tokens[31..44].to_vec()),
        Step::Rewind(usize::MAX),
        Step::Eval(tokens[44..60].to_vec()),
        Step::Save,
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
        same_bits(&case.gguf, config, &steps, &SPLITS[..1], 2..=3).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let rows = same_bits(&case.gguf, config, &steps, &SPLITS[1..], 2..=3);
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
        1 => prop_oneof![0usize..40, 0usize..300].prop_map(Step::Rewind),
        2 => Just(Step::Save),
        1 => prop::option::weighted(0.3, 0usize..9000).prop_map(Step::Restore),
    ];
    prop::collection::vec(step, 1..9)
}

/// Of at most so many layers, and of so many positions.
fn any_model(layers: usize, context: usize) -> impl Strategy<Value = Gguf> {
    let heads = prop::sample::select(vec![(4usize, 1usize), (4, 2), (9, 3), (5, 5), (8, 8)]);
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
        gguf in any_model(5, 256),
        config in any_config(),
        steps in any_steps(67),
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

/// A model of more positions than a block has.
fn long_model() -> Gguf {
    let heads = Tiny { n_heads: 2, n_kv_heads: 1, head_dim: 32, rope_dims: 16, n_layers: 1, ..Tiny::default() };
    Tiny { n_embd: 32, n_ff: 32, context: 30_000, dtype: DType::Q8_0, ..heads }.gguf()
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
        Config { context: 4200, pattern: Pattern::Window, ..base },
        Config { context: 4300, pattern: Pattern::Strided { every: 3 }, ..int8 },
        // Blocks of two leaves.
        Config { context: 26_000, pattern: Pattern::Full, ..base },
        Config { context: 4200, sinks: 40, slack: 1600, ..int8 },
        Config { context: 4400, pattern: Pattern::Strided { every: 70 }, kv: KvType::F32, ..base },
    ];
    for config in configs.into_iter().skip(deep(0, 2)) {
        let gguf = long_model();
        same_bits(&gguf, config, &steps, &[Split::Tokens], deep(2, 3)..=deep(5, 3))
            .unwrap_or_else(|e| panic!("{config:?}: {e}"));
    }
}

/// Every family, by positions: prompts that boards divide, and what follows.
#[test]
fn every_family_divides_a_prompt() {
    for case in cases() {
        let (mut gguf, config) = (case.gguf, Config { context: 4100, chunk: 17, ..Config::default() });
        let key = gguf.metadata.iter().map(|(key, _)| key.clone()).find(|key| key.ends_with(".context_length"));
        gguf.set(&key.unwrap(), Val::U32(20_000));
        let tokens = prompt(9, 90, with_model(&gguf, |model| model.hparams.vocab));
        let steps = [Step::Eval(tokens[..70].to_vec()), Step::Eval(vec![3]), Step::Eval(tokens[50..].to_vec())];
        same_bits(&gguf, config, &steps, &[Split::Tokens], 2..=2).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
}

/// A context no longer than a pass.
#[test]
fn a_pass_as_long_as_the_context() {
    let config = Config { context: 2100, chunk: 4096, pattern: Pattern::Full, ..Config::default() };
    let steps = [Step::Eval(prompt(4, 1200, 67)), Step::Eval(prompt(5, 900, 67))];
    assert_eq!(same_bits(&long_model(), config, &steps, &[Split::Tokens], 2..=2), Ok(()));
}

/// Float weights, whose order of sums is another for a few rows, and windows shorter than a pass with heads of another size.
#[test]
fn windows_on_boards_that_divide_a_prompt() {
    let case = cases().into_iter().find(|case| case.name == "gemma3 with smaller heads in windows").unwrap();
    let mut gguf = case.gguf;
    let arch = "gemma3.attention.sliding_window";
    gguf.set(arch, Val::U32(50)).set("gemma3.context_length", Val::U32(20_000));
    let tokens = prompt(5, 2600, 67);
    // In chunks of 40 the last pass of one board has 5 tokens, and three boards have 85 left behind passes of 120.
    let steps = [Step::Eval(tokens[..2245].to_vec()), Step::Eval(tokens[2245..2365].to_vec()), Step::Eval(vec![7])];
    let config = Config { context: 4200, chunk: 40, pattern: Pattern::Full, ..Config::default() };
    assert_eq!(same_bits(&gguf, config, &steps, &[Split::Tokens], 3..=3), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(deep(200, 3) as u32))]

    /// Whatever the sizes, formats, patterns and cuts.
    #[test]
    fn any_prompt_that_boards_divide(
        gguf in any_model(2, 20_000), config in any_config(), size in 2usize..6, chunk in 16usize..200,
        lengths in prop::collection::vec(prop_oneof![1usize..600, 1usize..3, 2000usize..2200], 1..3), back in 0usize..40,
    ) {
        let config = Config { context: 2048 * (size - 1) + config.context, chunk, ..config };
        let tokens = prompt(lengths[0] as u64, 3000, 67);
        let mut steps: Vec<Step> = lengths.iter().map(|n| Step::Eval(tokens[..*n].to_vec())).collect();
        steps.insert(1, Step::Rewind(back));
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

/// What a board exchanges: how often, and how many bytes it sends to others.
pub(crate) struct Counting<'c> {
    comm: &'c dyn Comm,
    exchanges: AtomicUsize,
    bytes: AtomicUsize,
    /// Whether the parts of the first two boards are taken for each other's.
    mistaken: bool,
}

impl<'c> Counting<'c> {
    pub(crate) fn new(comm: &'c dyn Comm) -> Self {
        Counting { comm, exchanges: AtomicUsize::new(0), bytes: AtomicUsize::new(0), mistaken: false }
    }

    fn count(&self, bytes: usize) {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.exchanges.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Comm for Counting<'_> {
    fn rank(&self) -> usize {
        self.comm.rank()
    }

    fn size(&self) -> usize {
        self.comm.size()
    }

    fn all_gather(&self, all: &mut [u8], ends: &[usize]) -> Result<(), CommError> {
        let own = ends[self.rank()] - self.rank().checked_sub(1).map_or(0, |before| ends[before]);
        self.count((self.size() - 1) * own);
        self.comm.all_gather(all, ends)?;
        if self.mistaken && ends[1] == 2 * ends[0] {
            all[..ends[1]].rotate_left(ends[0]);
        }
        Ok(())
    }

    fn broadcast(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        self.count(if root == self.rank() { (self.size() - 1) * data.len() } else { 0 });
        self.comm.broadcast(root, data)
    }

    fn shift(
        &self,
        to: Option<(usize, &[u8])>,
        from: Option<(usize, &mut [u8])>,
        work: &mut dyn FnMut(&dyn Fn()),
    ) -> Result<(), CommError> {
        self.count(to.map_or(0, |(_, data)| data.len()));
        self.comm.shift(to, from, work)
    }
}

/// Layers: the residual stream goes on once. Rows: four gathers a layer, of int8 with a scale for 32 where a matrix takes it so,
/// of floats else; and the logits. Beside that, what the first board tells the others.
#[test]
fn exchanges_of_a_token_are_those_of_the_formula() {
    // On three boards: a KV head with two query heads each; 32 of n_embd, 32 or 64 of n_ff, and 32, 32 and 3 of the vocabulary.
    let shape = Tiny {
        n_heads: 6,
        n_kv_heads: 3,
        head_dim: 32,
        rope_dims: 16,
        n_layers: 3,
        n_embd: 96,
        n_ff: 160,
        ..Tiny::default()
    };
    let gguf = Tiny { dtype: DType::Q8_0, ..shape }.gguf();
    let config = Config { context: 64, sinks: 0, chunk: 8, ..Config::default() };
    let counts = |split: Split, tokens: &[u32]| {
        let steps = [Step::Eval(tokens.to_vec())];
        with_model(&gguf, |model| {
            on_boards(3, |board| {
                let counting = Counting::new(&board);
                on_board(&counting, model, config, Way::even(split, 3), &steps).unwrap();
                counting.counts()
            })
        })
    };
    // The command and the end: 56 bytes to two boards each.
    let (told, command) = (2, 2 * 2 * 56);
    assert_eq!(counts(Split::Layers, &[5]), [(told + 2, command + 4 * 96), (told + 2, 4 * 96), (told + 2, 4 * 96)]);
    let rows = |q: usize, ff: usize, vocab: usize| 2 * (3 * (36 * q + 36 * ff + 2 * 4 * 32) + 4 * vocab);
    let expected = [rows(2, 1, 32), rows(2, 2, 32), rows(2, 2, 3)];
    let got = counts(Split::Rows, &[5]);
    assert_eq!(got.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [told + 4 * 3 + 1; 3]);
    assert_eq!(
        got.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(),
        [command + expected[0], expected[1], expected[2]]
    );
    // Seven tokens in one pass are no more exchanges.
    assert_eq!(counts(Split::Rows, &[1, 2, 3, 4, 5, 6, 7])[1].0, told + 4 * 3 + 1);
}

/// By positions, a prompt: the keys and values of a pass in one exchange, and what was read before in pieces of 512 positions,
/// which the board that has them sends.
#[test]
fn exchanges_of_a_prompt_are_those_of_the_formula() {
    let config = Config { context: 6200, pattern: Pattern::Full, chunk: 512, kv: KvType::Int8, ..Config::default() };
    let steps = [Step::Eval(prompt(3, 3072, 67))];
    let got = with_model(&long_model(), |model| {
        on_boards(3, |board| {
            let counting = Counting::new(&board);
            on_board(&counting, model, config, Way::even(Split::Tokens, 3), &steps).unwrap();
            counting.counts()
        })
    });
    // Two passes of 1,536 tokens: a command and the tokens, and at last the end; 32 numbers and a scale for each key and value.
    let (told, commands) = (2 * 2 + 1, 2 * (2 * (56 + 4 * 1536) + 56));
    let (new, piece) = (2 * 512 * 2 * (32 + 2), 512 * 2 * (32 + 2));
    // The first board has the three pieces that the second pass attends to, and the last board passes none on.
    let exchanges = told + 2;
    assert_eq!(
        got,
        [
            (exchanges + 3, commands + 2 * new + 3 * piece),
            (exchanges + 4, 2 * new + 3 * piece),
            (exchanges + 3, 2 * new)
        ]
    );
}

/// Parts of boards that are taken for each other's show.
#[test]
fn parts_in_another_order_show() {
    let gguf = Tiny { dtype: DType::Q8_0, n_ff: 64, context: 8192, ..Tiny::default() }.gguf();
    let short = Config { context: 64, sinks: 0, chunk: 8, ..Config::default() };
    let long = Config { context: 4200, sinks: 0, chunk: 16, ..Config::default() };
    // A prompt of which each board reads every other token.
    let prompt = Step::Eval(prompt(1, 32, 67));
    let cases = [
        (Split::Rows, short, [Step::Eval(vec![1, 2, 3]), Step::Eval(vec![4])]),
        (Split::Tokens, long, [prompt, Step::Eval(vec![4])]),
    ];
    with_model(&gguf, |model| {
        for ((split, config, steps), mistaken) in cases.iter().flat_map(|case| [(case, false), (case, true)]) {
            let expected = alone(model, *config, steps);
            let got = on_boards(2, |board| {
                let counting = Counting { mistaken, ..Counting::new(&board) };
                on_board(&counting, model, *config, Way::even(*split, 2), steps)
            });
            assert_eq!(got[0] == Ok(expected), !mistaken, "{split:?}");
        }
    });
}

/// A conversation goes on elsewhere: what any number of boards has saved, any other number restores, with the bits of one.
#[test]
fn a_conversation_moves_between_boards() {
    let tokens = prompt(5, 2200, 67);
    let shape = Tiny { n_heads: 2, n_kv_heads: 2, head_dim: 32, rope_dims: 16, n_layers: 2, ..Tiny::default() };
    let gguf = Tiny { n_embd: 32, n_ff: 64, context: 9000, dtype: DType::Q8_0, ..shape }.gguf();
    let config = Config { context: 4100, chunk: 64, logit_rows: 5, kv: KvType::Int8, ..Config::default() };
    let first = [Step::Eval(tokens[..2100].to_vec()), Step::Save];
    with_model(&gguf, |model| {
        let all = [first.to_vec(), vec![Step::Eval(tokens[2100..].to_vec()), Step::Save]].concat();
        let expected = alone(model, config, &all);
        let bytes = |bits: &Result<Vec<u32>, EngineError>| -> Vec<u8> {
            bits.as_ref().unwrap().iter().map(|byte| *byte as u8).collect()
        };
        let goes_on = |saved: &[u8], engine: &mut Engine<'_>, session: &mut Session<'_>| {
            assert_eq!(engine.restore(session, saved), Ok(EXTRA));
            run(engine, session, &all[2..])
        };
        let moves = [(2, Split::Layers), (2, Split::Rows), (3, Split::Tokens), (2, Split::Layers)];
        for ((boards, from), (others, to)) in moves.into_iter().zip(moves.into_iter().skip(1)) {
            let saved = on_boards(boards, |board| on_board(&board, model, config, Way::even(from, boards), &first));
            let saved = bytes(&saved[0].as_ref().unwrap()[1]);
            assert!(saved == bytes(&expected[1]), "{from:?}");
            let got = on_boards(others, |board| {
                of_board(&board, model, config, Way::even(to, others), |engine, session| goes_on(&saved, engine, session))
            });
            assert!(got[0].as_ref().unwrap()[..] == expected[2..], "{from:?} {to:?}");
            with_session(model, Kernels::detect(), config, |Reader { engine, session }| {
                assert!(goes_on(&saved, engine, session)[..] == expected[2..], "{from:?}");
            });
        }
    });
}

/// A file that cannot be written to its end is no trouble of the other boards, which go on.
#[test]
fn a_file_that_is_not_written_stops_nothing() {
    let gguf = Tiny { dtype: DType::Q8_0, ..Tiny::default() }.gguf();
    let config = Config { context: 64, sinks: 3, chunk: 8, ..Config::default() };
    let steps = [Step::Eval(vec![1, 2, 3, 4, 5])];
    with_model(&gguf, |model| {
        let expected = alone(model, config, &[&steps[..], &steps, &[Step::Save]].concat());
        for (split, parts) in SPLITS.into_iter().flat_map(|split| [0, 1, 3, 6, 12].map(|parts| (split, parts))) {
            let got = on_boards(2, |board| {
                of_board(&board, model, config, Way::even(split, 2), |engine, session| {
                    run(engine, session, &steps);
                    let mut left = parts;
                    let written = engine.save(session, EXTRA, |_| {
                        left = i32::checked_sub(left, 1).filter(|left| *left >= 0).ok_or("no room")?;
                        Ok(())
                    });
                    assert_eq!(written, Ok(Err("no room")));
                    run(engine, session, &[&steps[..], &[Step::Save]].concat())
                })
            });
            assert!(got[0].as_ref().unwrap()[..] == expected[1..], "{split:?} {parts}");
            assert_eq!(got[1], Ok(Vec::new()));
        }
    });
}

/// A board that fails while a session is saved or restored: an error for all, and nothing hangs.
#[test]
fn a_board_that_fails_beside_a_file() {
    let gguf = Tiny { dtype: DType::Q8_0, ..Tiny::default() }.gguf();
    let steps = [Step::Eval(vec![1, 2, 3]), Step::Save, Step::Restore(None), Step::Eval(vec![4])];
    let config = Config { context: 64, sinks: 0, chunk: 8, ..Config::default() };
    with_model(&gguf, |model| {
        let expected = alone(model, config, &steps);
        for (split, exchanges) in SPLITS.into_iter().flat_map(|split| (0..60).step_by(3).map(move |k| (split, k))) {
            let run = |comm: &dyn Comm| on_board(comm, model, config, Way::even(split, 2), &steps);
            let ends = on_boards(2, |board: Board| match board.rank() {
                1 => run(&Failing::new(board, exchanges)),
                _ => run(&board),
            });
            let Ok(first) = &ends[0] else { continue };
            let failed = |result: &Result<Vec<u32>, EngineError>| matches!(result, Err(EngineError::Boards(_)));
            let from = first.iter().position(failed).unwrap_or(first.len());
            // What was never saved is not restored.
            assert!(first[..from] == expected[..from], "{split:?} {exchanges}");
            let mut rest = first[from..].iter().zip(&steps[from..]);
            assert!(rest.all(|(end, step)| failed(end) || matches!(step, Step::Restore(_))));
            assert!(ends[1].is_err() || from == first.len());
        }
    });
}

/// A board that gives other positions than it is asked for.
struct Misplaced<'c>(&'c dyn Comm);

impl Comm for Misplaced<'_> {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn all_gather(&self, all: &mut [u8], ends: &[usize]) -> Result<(), CommError> {
        self.0.all_gather(all, ends)
    }

    fn broadcast(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        self.0.broadcast(root, data)
    }

    fn listen(&self, root: usize, data: &mut [u8]) -> Result<(), CommError> {
        self.0.listen(root, data)?;
        let mut words: Vec<u32> = data.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
        if words[0] == SESSION && self.rank() > 0 {
            // The tile behind them.
            words[8] += 32;
            data.chunks_exact_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_ne_bytes()));
        }
        Ok(())
    }

    fn shift(
        &self,
        to: Option<(usize, &[u8])>,
        from: Option<(usize, &mut [u8])>,
        work: &mut dyn FnMut(&dyn Fn()),
    ) -> Result<(), CommError> {
        self.0.shift(to, from, work)
    }
}

/// Positions that are taken for others show.
#[test]
fn positions_in_other_places_show() {
    let tokens = prompt(3, 4000, 67);
    let steps = [Step::Eval(tokens), Step::Save];
    let config = Config { context: 4096, pattern: Pattern::Window, chunk: 512, ..Config::default() };
    with_model(&long_model(), |model| {
        let expected = alone(model, config, &steps);
        for (mistaken, same) in [(false, true), (true, false)] {
            let got = on_boards(2, |board| match mistaken {
                true => on_board(&Misplaced(&board), model, config, Way::even(Split::Tokens, 2), &steps),
                false => on_board(&board, model, config, Way::even(Split::Tokens, 2), &steps),
            });
            assert_eq!(got[0].as_ref().unwrap() == &expected, same);
        }
    });
}
