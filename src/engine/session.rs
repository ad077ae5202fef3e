//! One conversation.

use super::{EngineError, Plan, SnapshotError};
use crate::model::{KvCache, Model};
use crate::storage::Arena;

/// A conversation over a shared model: what has been read so far. An [`Engine`](super::Engine) of the same model reads
/// more.
pub struct Session<'s> {
    pub(super) model: &'s Model<'s>,
    pub(super) cache: KvCache<'s>,
    /// Tokens that it can read, if there is an end.
    pub(super) limit: Option<u64>,
    /// Which prefix it starts with; 0 for none.
    pub(super) shared: u64,
    used: usize,
}

impl<'s> Session<'s> {
    /// An empty session in `memory`, which starts at a multiple of [`ALIGN`](crate::storage::ALIGN) and has
    /// [`Plan::session_bytes`].
    ///
    /// # Errors
    /// [`EngineError::Arena`] when the memory is misaligned or too small; [`EngineError::Snapshot`] when the plan is for
    /// sessions [with a prefix](Session::with_prefix).
    pub fn new(model: &'s Model<'s>, plan: &Plan, memory: &'s mut [u8]) -> Result<Self, EngineError> {
        if plan.cache().shared {
            return Err(SnapshotError::OtherShape("prefix in the plan").into());
        }
        Self::carve(model, plan, memory)
    }

    /// A session whose prefix is still to be given, if it is to have one.
    pub(super) fn carve(model: &'s Model<'s>, plan: &Plan, memory: &'s mut [u8]) -> Result<Self, EngineError> {
        let mut arena = Arena::new(memory)?;
        let cache = KvCache::new(&model.hparams, plan.cache(), &mut arena)?;
        Ok(Self { model, cache, limit: plan.limit(), shared: 0, used: arena.used() })
    }

    /// Tokens read so far.
    pub fn position(&self) -> u64 {
        self.cache.position()
    }

    /// The least position that it can be taken back to: 0, or the end of its prefix.
    pub fn start(&self) -> u64 {
        self.cache.shared()
    }

    /// Tokens that still fit: with most patterns there is no end.
    pub fn remaining(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX).saturating_sub(self.position())
    }

    /// Bytes of the memory that are used: exactly the plan.
    pub fn used_bytes(&self) -> usize {
        self.used
    }

    /// Forgets all but the first `position` tokens; a later position changes nothing. The start can always be gone back
    /// to, and any position as long as nothing has been given up; after that the plan's slack.
    ///
    /// # Errors
    /// [`EngineError::Gone`]; the session is then as it was.
    pub fn rewind(&mut self, position: u64) -> Result<(), EngineError> {
        if self.cache.rewind(position) { Ok(()) } else { Err(EngineError::Gone { position }) }
    }

    /// Whether `tokens` can be read: there are some, all in the vocabulary, and no more than fit.
    ///
    /// # Errors
    /// [`EngineError`]: what [`Engine::eval`](super::Engine::eval) would say.
    pub fn fits(&self, tokens: &[u32]) -> Result<(), EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::NoTokens);
        }
        if tokens.len() as u64 > self.remaining() {
            let (used, capacity) = (self.position(), self.limit.unwrap_or(u64::MAX));
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
