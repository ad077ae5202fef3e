//! One conversation.

use super::{EngineError, Plan};
use crate::model::{KvCache, Model};
use crate::storage::Arena;

/// A conversation over a shared model: what has been read so far. An [`Engine`](super::Engine) of the same model reads
/// more.
pub struct Session<'s> {
    model: &'s Model<'s>,
    cache: KvCache<'s>,
    used: usize,
}

impl<'s> Session<'s> {
    /// An empty session in `memory`, which starts at a multiple of [`ALIGN`](crate::storage::ALIGN) and has
    /// [`Plan::session_bytes`].
    ///
    /// # Errors
    /// [`EngineError::Arena`] when the memory is misaligned or too small.
    pub fn new(model: &'s Model<'s>, plan: &Plan, memory: &'s mut [u8]) -> Result<Self, EngineError> {
        let mut arena = Arena::new(memory)?;
        let cache = KvCache::new(&model.hparams, plan.shape(), &mut arena)?;
        Ok(Self { model, cache, used: arena.used() })
    }

    /// Tokens read so far.
    pub fn position(&self) -> usize {
        self.cache.position()
    }

    /// Tokens that still fit.
    pub fn remaining(&self) -> usize {
        self.cache.capacity() - self.cache.position()
    }

    /// Bytes of the memory that are used: exactly the plan.
    pub fn used_bytes(&self) -> usize {
        self.used
    }

    /// Forgets all but the first `position` tokens; a later position changes nothing.
    pub fn rewind(&mut self, position: usize) {
        self.cache.rewind(position);
    }

    /// Whether `tokens` can be read: there are some, all in the vocabulary, and no more than fit.
    ///
    /// # Errors
    /// [`EngineError`]: what [`Engine::eval`](super::Engine::eval) would say.
    pub fn fits(&self, tokens: &[u32]) -> Result<(), EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::NoTokens);
        }
        if tokens.len() > self.remaining() {
            let (used, capacity) = (self.position(), self.cache.capacity());
            return Err(EngineError::ContextFull { used, more: tokens.len(), capacity });
        }
        match tokens.iter().find(|t| **t as usize >= self.model.hparams.vocab) {
            Some(token) => Err(EngineError::UnknownToken(*token)),
            None => Ok(()),
        }
    }

    /// Whether its model is `model`, or a copy of it: then their tables are the same memory.
    pub(super) fn is_of(&self, model: &Model<'_>) -> bool {
        self.model.weights.layers.as_ptr().addr() == model.weights.layers.as_ptr().addr()
    }
}

impl<'s> AsRef<KvCache<'s>> for Session<'s> {
    fn as_ref(&self) -> &KvCache<'s> {
        &self.cache
    }
}

impl<'s> AsMut<KvCache<'s>> for Session<'s> {
    fn as_mut(&mut self) -> &mut KvCache<'s> {
        &mut self.cache
    }
}
