//! One conversation.

use super::{EngineError, Plan};
use crate::arch::Kernels;
use crate::model::{Forward, Model, Shape, State, forward};
use crate::storage::{Arena, Executor};

/// A conversation over a shared model: what has been read so far, and the memory to go on.
///
/// Results do not depend on how tokens are split into calls or passes (for quantised weights to the bit; float
/// weights as well, as each row is summed in one order), nor on the threads.
pub struct Session<'s> {
    model: &'s Model<'s>,
    kernels: Kernels,
    shape: Shape,
    state: State<'s>,
    position: usize,
    used: usize,
}

impl<'s> Session<'s> {
    /// An empty session in `memory`, which starts at a multiple of [`ALIGN`](crate::storage::ALIGN) and has
    /// [`Plan::bytes`].
    ///
    /// # Errors
    /// [`EngineError::Arena`] when the memory is misaligned or too small.
    pub fn new(model: &'s Model<'s>, kernels: Kernels, plan: &Plan, memory: &'s mut [u8]) -> Result<Self, EngineError> {
        let mut arena = Arena::new(memory)?;
        let shape = *plan.shape();
        let state = State::new(&model.hparams, &shape, &mut arena)?;
        Ok(Self { model, kernels, shape, state, position: 0, used: arena.used() })
    }

    /// Reads `tokens` and gives the logits of the token to follow the last: `(vocab)`.
    ///
    /// # Errors
    /// [`EngineError`]; nothing has then been read.
    pub fn eval(&mut self, exec: &dyn Executor, tokens: &[u32]) -> Result<&[f32], EngineError> {
        self.fits(tokens)?;
        let last = tokens.len().div_ceil(self.shape.chunk) - 1;
        for (i, chunk) in tokens.chunks(self.shape.chunk).enumerate() {
            self.pass(exec, chunk, usize::from(i == last));
        }
        Ok(self.logits())
    }

    /// Reads `tokens`, at most [`Config::logit_rows`](super::Config), and gives the logits after each:
    /// `(tokens, vocab)`.
    ///
    /// # Errors
    /// [`EngineError`]; nothing has then been read.
    pub fn score(&mut self, exec: &dyn Executor, tokens: &[u32]) -> Result<&[f32], EngineError> {
        self.fits(tokens)?;
        if tokens.len() > self.shape.logit_rows {
            return Err(EngineError::LogitRows { asked: tokens.len(), planned: self.shape.logit_rows });
        }
        self.pass(exec, tokens, tokens.len());
        Ok(self.rows(tokens.len()))
    }

    /// Tokens read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Tokens that still fit.
    pub fn remaining(&self) -> usize {
        self.shape.capacity - self.position
    }

    /// Tokens of one pass, at most.
    pub fn chunk(&self) -> usize {
        self.shape.chunk
    }

    /// Bytes of the memory that are used: exactly the plan.
    pub fn used_bytes(&self) -> usize {
        self.used
    }

    /// Forgets all but the first `position` tokens; a later position changes nothing.
    pub fn rewind(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Whether `tokens` can be read: there are some, all in the vocabulary, and no more than fit.
    ///
    /// # Errors
    /// [`EngineError`]: what [`eval`](Session::eval) would say.
    pub fn fits(&self, tokens: &[u32]) -> Result<(), EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::NoTokens);
        }
        if tokens.len() > self.remaining() {
            let (used, capacity) = (self.position, self.shape.capacity);
            return Err(EngineError::ContextFull { used, more: tokens.len(), capacity });
        }
        match tokens.iter().find(|t| **t as usize >= self.model.hparams.vocab) {
            Some(token) => Err(EngineError::UnknownToken(*token)),
            None => Ok(()),
        }
    }

    fn pass(&mut self, exec: &dyn Executor, tokens: &[u32], outputs: usize) {
        let run = Forward { model: self.model, kernels: &self.kernels, exec };
        forward(run, &mut self.state, &self.shape, self.position as u64, tokens, outputs);
        self.position += tokens.len();
    }

    /// The logits after the last token read by [`eval`](Session::eval): `(vocab)`.
    pub fn logits(&self) -> &[f32] {
        self.rows(1)
    }

    fn rows(&self, rows: usize) -> &[f32] {
        self.state.logits.get(..rows * self.model.hparams.vocab).unwrap_or(&[])
    }
}
