//! What tests run on one board and on several: steps of a conversation, whose bits are those of one board.

use std::convert::Infallible;
use std::ops::RangeInclusive;

use crate::common::boards::on_boards;
use crate::common::gguf::{Gguf, Tiny};
use crate::common::run::{Reader, prompt, with_model, with_session};
use armlet::arch::Kernels;
use armlet::boards::Comm;
use armlet::engine::{Config, Engine, EngineError, Plan, Session};
use armlet::host::{Pool, memory};
use armlet::model::{Model, Share, ShareError, Shares, Split};
use armlet::quant::DType;

/// What a conversation is made of.
#[derive(Clone, Debug)]
pub(crate) enum Step {
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
pub(crate) const EXTRA: &[u8] = b"what the caller adds";

/// The bits of all logits, and of what fails.
pub(crate) type Bits = Vec<Result<Vec<u32>, EngineError>>;

pub(crate) fn run(engine: &mut Engine<'_>, session: &mut Session<'_>, steps: &[Step]) -> Bits {
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
pub(crate) fn save(engine: &mut Engine<'_>, session: &Session<'_>) -> Result<Vec<u8>, EngineError> {
    let mut bytes = Vec::new();
    let written = engine.save(session, EXTRA, |part| -> Result<(), Infallible> {
        bytes.extend_from_slice(part);
        Ok(())
    });
    written.map(|Ok(())| bytes)
}

/// On one board.
pub(crate) fn alone(model: &Model<'_>, config: Config, steps: &[Step]) -> Bits {
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

    pub(crate) fn share(self, model: &Model<'_>, config: &Config, rank: usize) -> Result<Share, ShareError> {
        Share::uneven(&model.hparams, self.split, 1, config.context, rank, self.shares)
    }
}

/// On one of several, in memory full of NaNs: what the first gives, and what the others end with.
pub(crate) fn on_board(
    comm: &dyn Comm,
    model: &Model<'_>,
    config: Config,
    way: Way,
    steps: &[Step],
) -> Result<Bits, EngineError> {
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
pub(crate) fn same_bits(
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
pub(crate) fn same_bits_by(
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
pub(crate) fn conversation(vocab: usize) -> Vec<Step> {
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

pub(crate) const SPLITS: [Split; 2] = [Split::Layers, Split::Rows];

/// A model of more positions than a block has.
pub(crate) fn long_model() -> Gguf {
    let heads = Tiny { n_heads: 2, n_kv_heads: 1, head_dim: 32, rope_dims: 16, n_layers: 1, ..Tiny::default() };
    Tiny { n_embd: 32, n_ff: 32, context: 30_000, dtype: DType::Q8_0, ..heads }.gguf()
}
