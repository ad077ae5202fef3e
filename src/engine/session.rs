//! A session: one conversation over a shared model.

use super::Plan;
#[cfg(feature = "boards")]
use super::boards::At;
use super::error::{EngineError, SnapshotError};
use crate::model::{KvCache, Model};
use crate::storage::Arena;

/// One conversation over a shared model: the KV cache of the tokens read so far. An [`Engine`](super::Engine) of the
/// same model runs more.
pub struct Session<'s> {
    pub(super) model: &'s Model<'s>,
    pub(super) cache: KvCache<'s>,
    /// Most tokens that it can read; `None` with a pattern that evicts.
    pub(super) limit: Option<u64>,
    /// Id of its shared prefix; 0 for none.
    pub(super) shared: u64,
    used: usize,
}

impl<'s> Session<'s> {
    /// An empty session in `memory`, which must start at a multiple of [`ALIGN`](crate::storage::ALIGN) and have
    /// [`Plan::session_bytes`].
    ///
    /// # Errors
    /// [`EngineError::Arena`] when the memory is misaligned or too small; [`EngineError::Snapshot`] when the plan is
    /// for sessions [with a prefix](Session::with_prefix).
    pub fn new(model: &'s Model<'s>, plan: &Plan, memory: &'s mut [u8]) -> Result<Self, EngineError> {
        if plan.cache().shared {
            return Err(SnapshotError::OtherShape("prefix in the plan").into());
        }
        Self::carve(model, plan, memory)
    }

    /// A session whose prefix, if it is to have one, is given later.
    pub(super) fn carve(model: &'s Model<'s>, plan: &Plan, memory: &'s mut [u8]) -> Result<Self, EngineError> {
        let mut arena = Arena::new(memory)?;
        let cache = KvCache::new(&model.hparams, plan.cache(), &mut arena)?;
        Ok(Self { model, cache, limit: plan.limit(), shared: 0, used: arena.used() })
    }

    /// Tokens read so far.
    pub fn position(&self) -> u64 {
        self.cache.position()
    }

    /// The smallest position that it can be rewound to: 0, or the end of its prefix.
    pub fn start(&self) -> u64 {
        self.cache.shared()
    }

    /// Tokens that still fit; without a limit, as good as any number.
    pub fn remaining(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX).saturating_sub(self.position())
    }

    /// Bytes of the memory in use: exactly the plan.
    pub fn used_bytes(&self) -> usize {
        self.used
    }

    /// Forgets all but the first `position` tokens; a later position changes nothing. Possible for any position while
    /// nothing has been evicted, then for those within the plan's slack, and always for the start.
    ///
    /// # Errors
    /// [`EngineError::Gone`]; the session is then unchanged.
    pub fn rewind(&mut self, position: u64) -> Result<(), EngineError> {
        if self.cache.rewind(position) { Ok(()) } else { Err(EngineError::Gone { position }) }
    }

    /// Forgets all but the first `position` tokens, of which it [can](Session::can_forget) forget the others; they can be
    /// [taken again](Session::take_again).
    pub(super) fn take_back(&mut self, position: u64) -> Result<(), EngineError> {
        if self.cache.take_back(position) { Ok(()) } else { Err(EngineError::Gone { position }) }
    }

    /// Whether it can read a token and `n` more, and forget these.
    pub(crate) fn can_forget(&self, n: usize) -> bool {
        self.cache.can_forget(n)
    }

    /// Takes the next token as read, which has been read before and whose keys and values are still there.
    pub(crate) fn take_again(&mut self) {
        self.cache.advance(1);
    }

    /// Goes to where the first board's session is: back, or on over tokens that were read before.
    #[cfg(feature = "boards")]
    pub(super) fn go_to(&mut self, at: At) -> Result<(), EngineError> {
        let At { position, written } = at;
        if position > self.cache.written() {
            return Err(EngineError::Gone { position });
        }
        // It has forgotten that more was written only if it went back to its start.
        if written == self.cache.written() {
            self.cache.advance(position.saturating_sub(self.position()) as usize);
            return self.take_back(position);
        }
        self.rewind(position)?;
        if self.cache.written() == written { Ok(()) } else { Err(EngineError::Gone { position }) }
    }

    /// Checks that `tokens` can be run: at least one, all in the vocabulary, and no more than fit.
    ///
    /// # Errors
    /// [`EngineError`], as [`Engine::eval`](super::Engine::eval).
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

    /// Its keys and values.
    pub(crate) fn cache(&self) -> &KvCache<'s> {
        &self.cache
    }

    /// Its keys and values, to write.
    pub(crate) fn cache_mut(&mut self) -> &mut KvCache<'s> {
        &mut self.cache
    }

    /// Whether its model is `model`, or a copy of it with the same tables.
    pub(crate) fn is_of(&self, model: &Model<'_>) -> bool {
        self.model.weights.layers.as_ptr().addr() == model.weights.layers.as_ptr().addr()
    }
}
