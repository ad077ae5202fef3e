//! From a budget to a plan: every byte of a session, before the session exists.

use super::EngineError;
use crate::arch::Element;
use crate::model::{Hparams, Shape, State};
use crate::storage::{Arena, Region};

/// Most tokens of one pass: enough for the weights to cross memory seldom, little enough for small caches.
const MAX_CHUNK: usize = 4096;

/// What a user chooses of a session's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Tokens that the context holds.
    pub context: usize,
    /// Most tokens of a prompt that are run in one pass.
    pub chunk: usize,
    /// Most tokens of one pass that can be scored; 1 for generation.
    pub logit_rows: usize,
    /// How the cache stores numbers.
    pub kv: Element,
}

impl Default for Config {
    fn default() -> Self {
        Self { context: 4096, chunk: 64, logit_rows: 1, kv: Element::F16 }
    }
}

/// The exact memory of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    shape: Shape,
    bytes: usize,
}

impl Plan {
    /// The plan of a session over a model of these sizes. Allocates nothing; runs on a PC for a board just as well.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a value out of range; [`EngineError::Arena`] where the sum overflows.
    pub fn new(h: &Hparams, config: &Config) -> Result<Self, EngineError> {
        check("context", config.context, h.context_length)?;
        check("chunk", config.chunk, MAX_CHUNK)?;
        // No pass is longer than the context.
        let chunk = config.chunk.min(config.context);
        check("logit_rows", config.logit_rows, chunk)?;
        let shape = Shape { capacity: config.context, chunk, logit_rows: config.logit_rows, element: config.kv };
        let mut arena = Arena::dry_run();
        State::new(h, &shape, &mut arena)?;
        Ok(Self { shape, bytes: arena.used() })
    }

    /// The largest context, at most the trained one, whose cache fits `budget` bytes. Grows with the budget.
    ///
    /// # Errors
    /// [`EngineError::Budget`] when not even one token fits.
    pub fn context_for_budget(h: &Hparams, kv: Element, budget: usize) -> Result<usize, EngineError> {
        let per_position = State::bytes_per_position(h, kv);
        match (budget / per_position.max(1)).min(h.context_length) {
            0 => Err(EngineError::Budget { budget, least: 1, needed: per_position }),
            context => Ok(context),
        }
    }

    /// Bytes of memory that the session takes, all of it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The session's sizes.
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Reports every buffer, in order.
    ///
    /// # Errors
    /// None: the plan exists, so its sizes do not overflow.
    pub fn regions(&self, h: &Hparams, observer: &mut dyn FnMut(Region)) -> Result<(), EngineError> {
        State::new(h, &self.shape, &mut Arena::dry_run_with(observer))?;
        Ok(())
    }
}

fn check(name: &'static str, value: usize, max: usize) -> Result<(), EngineError> {
    if (1..=max).contains(&value) { Ok(()) } else { Err(EngineError::Config { name, value, min: 1, max }) }
}
