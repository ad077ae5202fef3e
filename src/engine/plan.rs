//! From a budget to a plan: every byte of an engine and a session, before either exists.

use super::EngineError;
use crate::arch::Element;
use crate::model::{Hparams, KvCache, Shape, Work};
use crate::storage::{Arena, Region};

/// Most tokens of one pass: enough for the weights to cross memory seldom, little enough for small caches.
const MAX_CHUNK: usize = 4096;

/// What a user chooses of the sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Tokens that the context of a session holds.
    pub context: usize,
    /// Most tokens of a prompt that an engine runs in one pass.
    pub chunk: usize,
    /// Most tokens of one pass that have logits: 1 for one conversation, or as many as are decoded or scored together.
    pub logit_rows: usize,
    /// How the cache stores numbers.
    pub kv: Element,
}

impl Default for Config {
    fn default() -> Self {
        Self { context: 4096, chunk: 128, logit_rows: 1, kv: Element::F16 }
    }
}

/// The exact memory of an engine, and of each of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    shape: Shape,
    engine: usize,
    session: usize,
}

impl Plan {
    /// The plan for a model of these sizes. Allocates nothing; runs on a PC for a board just as well.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a value out of range; [`EngineError::Arena`] where the sum overflows.
    pub fn new(h: &Hparams, config: &Config) -> Result<Self, EngineError> {
        check("context", config.context, h.context_length)?;
        check("chunk", config.chunk, MAX_CHUNK)?;
        check("logit_rows", config.logit_rows, config.chunk)?;
        // No pass is longer than the context, if it is not one over many sessions.
        let chunk = config.chunk.min(config.context.max(config.logit_rows));
        let shape = Shape { capacity: config.context, chunk, logit_rows: config.logit_rows, element: config.kv };
        let (engine, session) = carve(h, &shape, &mut Arena::dry_run())?;
        Ok(Self { shape, engine, session })
    }

    /// The largest context, at most the trained one, whose cache fits `budget` bytes. Grows with the budget.
    ///
    /// # Errors
    /// [`EngineError::Budget`] when not even one token fits.
    pub fn context_for_budget(h: &Hparams, kv: Element, budget: usize) -> Result<usize, EngineError> {
        let per_position = KvCache::bytes_per_position(h, kv);
        match (budget / per_position.max(1)).min(h.context_length) {
            0 => Err(EngineError::Budget { budget, least: 1, needed: per_position }),
            context => Ok(context),
        }
    }

    /// Bytes of memory that an engine and one session take, all of them.
    pub fn bytes(&self) -> usize {
        self.engine + self.session
    }

    /// Bytes that an engine takes; a multiple of [`ALIGN`](crate::storage::ALIGN).
    pub fn engine_bytes(&self) -> usize {
        self.engine
    }

    /// Bytes that each session takes; a multiple of [`ALIGN`](crate::storage::ALIGN).
    pub fn session_bytes(&self) -> usize {
        self.session
    }

    /// The sizes.
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Reports every buffer of an engine and one session behind it, in order.
    ///
    /// # Errors
    /// None: the plan exists, so its sizes do not overflow.
    pub fn regions(&self, h: &Hparams, observer: &mut dyn FnMut(Region)) -> Result<(), EngineError> {
        carve(h, &self.shape, &mut Arena::dry_run_with(observer))?;
        Ok(())
    }
}

/// Bytes of an engine, and of a session, carved from an arena.
fn carve<'a>(h: &Hparams, shape: &Shape, arena: &mut Arena<'a>) -> Result<(usize, usize), EngineError> {
    Work::new(h, shape, arena)?;
    let engine = arena.used();
    KvCache::new(h, shape, arena)?;
    Ok((engine, arena.used() - engine))
}

fn check(name: &'static str, value: usize, max: usize) -> Result<(), EngineError> {
    if (1..=max).contains(&value) { Ok(()) } else { Err(EngineError::Config { name, value, min: 1, max }) }
}
