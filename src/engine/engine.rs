//! What reads tokens for sessions.

use super::{EngineError, Plan, Session};
use crate::arch::Kernels;
use crate::model::{BufferSizes, Buffers, Model, Pass, forward};
use crate::storage::{Arena, Executor};

/// A model, the CPU's kernels, and the buffers of a pass: all that sessions share.
///
/// Results do not depend on which sessions are decoded together (up to eight), nor on the threads, to the bit; with
/// quantised weights neither on how tokens are split into calls or passes. Float weights have one order of sums for up
/// to eight tokens of a pass and one for more.
pub struct Engine<'e> {
    model: &'e Model<'e>,
    kernels: Kernels,
    shape: BufferSizes,
    buffers: Buffers<'e>,
    used: usize,
}

impl<'e> Engine<'e> {
    /// An engine in `memory`, which starts at a multiple of [`ALIGN`](crate::storage::ALIGN) and has
    /// [`Plan::engine_bytes`].
    ///
    /// # Errors
    /// [`EngineError::Arena`] when the memory is misaligned or too small.
    pub fn new(model: &'e Model<'e>, kernels: Kernels, plan: &Plan, memory: &'e mut [u8]) -> Result<Self, EngineError> {
        let mut arena = Arena::new(memory)?;
        let shape = *plan.shape();
        let buffers = Buffers::new(&model.hparams, &shape, &mut arena)?;
        Ok(Self { model, kernels, shape, buffers, used: arena.used() })
    }

    /// Reads `tokens` and gives the logits of the token to follow the last: `(vocab)`.
    ///
    /// # Errors
    /// [`EngineError`]; nothing has then been read.
    pub fn eval(
        &mut self,
        exec: &dyn Executor,
        session: &mut Session<'_>,
        tokens: &[u32],
    ) -> Result<&[f32], EngineError> {
        self.eval_while(exec, session, tokens, &mut || true)
    }

    /// Like [`eval`](Engine::eval), and asks before each pass of at most [`chunk`](Engine::chunk) tokens whether to go on.
    ///
    /// # Errors
    /// As there; [`EngineError::Stopped`] if not: then the passes before have been read, and there are no logits.
    pub fn eval_while(
        &mut self,
        exec: &dyn Executor,
        session: &mut Session<'_>,
        tokens: &[u32],
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<&[f32], EngineError> {
        self.can_read(session, tokens)?;
        let mut chunks = tokens.chunks(self.shape.chunk.max(1)).peekable();
        while let Some(chunk) = chunks.next() {
            if !keep_going() {
                return Err(EngineError::Stopped);
            }
            self.pass(exec, &mut [&mut *session], chunk, usize::from(chunks.peek().is_none()));
        }
        Ok(self.logits())
    }

    /// Reads `tokens`, at most [`Config::logit_rows`](super::Config), and gives the logits after each:
    /// `(tokens, vocab)`.
    ///
    /// # Errors
    /// [`EngineError`]; nothing has then been read.
    pub fn score(
        &mut self,
        exec: &dyn Executor,
        session: &mut Session<'_>,
        tokens: &[u32],
    ) -> Result<&[f32], EngineError> {
        self.can_read(session, tokens)?;
        self.can_keep(tokens.len())?;
        self.pass(exec, &mut [session], tokens, tokens.len());
        Ok(self.rows(tokens.len()))
    }

    /// Reads `tokens[i]` in `sessions[i]`, all in one pass over the weights, and gives the logits after each:
    /// `(sessions, vocab)`. At most [`Config::logit_rows`](super::Config) sessions, of any plans of the same model.
    ///
    /// # Errors
    /// [`EngineError`]; nothing has then been read in any session.
    pub fn step(
        &mut self,
        exec: &dyn Executor,
        sessions: &mut [&mut Session<'_>],
        tokens: &[u32],
    ) -> Result<&[f32], EngineError> {
        if sessions.len() != tokens.len() {
            return Err(EngineError::Batch { sessions: sessions.len(), tokens: tokens.len() });
        }
        if tokens.is_empty() {
            return Err(EngineError::NoTokens);
        }
        self.can_keep(tokens.len())?;
        for (session, token) in sessions.iter().zip(tokens) {
            self.can_read(session, core::slice::from_ref(token))?;
        }
        self.pass(exec, sessions, tokens, tokens.len());
        Ok(self.rows(tokens.len()))
    }

    /// The logits after the last token read by [`eval`](Engine::eval): `(vocab)`.
    pub fn logits(&self) -> &[f32] {
        self.rows(1)
    }

    /// Tokens of one pass, at most.
    pub fn chunk(&self) -> usize {
        self.shape.chunk
    }

    /// Bytes of the memory that are used: exactly the plan.
    pub fn used_bytes(&self) -> usize {
        self.used
    }

    fn can_read(&self, session: &Session<'_>, tokens: &[u32]) -> Result<(), EngineError> {
        if session.is_of(self.model) { session.fits(tokens) } else { Err(EngineError::OtherModel) }
    }

    fn can_keep(&self, rows: usize) -> Result<(), EngineError> {
        let planned = self.shape.logit_rows;
        if rows > planned { Err(EngineError::LogitRows { asked: rows, planned }) } else { Ok(()) }
    }

    fn pass(&mut self, exec: &dyn Executor, sessions: &mut [&mut Session<'_>], tokens: &[u32], outputs: usize) {
        let pass = Pass { model: self.model, kernels: &self.kernels, exec };
        forward(pass, &mut self.buffers, sessions, tokens, outputs);
    }

    fn rows(&self, rows: usize) -> &[f32] {
        self.buffers.logits.get(..rows * self.model.hparams.vocab).unwrap_or(&[])
    }
}
