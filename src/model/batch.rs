//! The sessions of one pass, and which rows of the buffers are whose.

use core::num::NonZeroUsize;

use super::cache::{KvCache, NewKv};
use super::kv_buffer::{KvBuffer, KvShape};
use super::{Hparams, buffers::NewKvBuffers, share::Stripe};

/// The KV caches of several sessions; all that a pass needs to know of them.
pub(crate) trait Caches<'c>: Sync {
    /// How many there are.
    fn len(&self) -> usize;
    /// The `i`-th.
    fn get(&self, i: usize) -> Option<&KvCache<'c>>;
    /// The `i`-th, to write.
    fn get_mut(&mut self, i: usize) -> Option<&mut KvCache<'c>>;
}

/// The tokens of one pass: some of the first session, one of each other, in this order. Row `r` of every buffer of the pass is
/// token `r`; of one of several boards, the `r`-th of those that it computes.
pub(crate) struct Batch<'b, 'c> {
    caches: &'b mut dyn Caches<'c>,
    /// Tokens of the first session.
    of_first: NonZeroUsize,
    /// Which of them this board computes.
    stripe: Stripe,
}

/// A token of a [`Batch`].
pub(super) struct Token<'t, 'c> {
    pub(super) cache: &'t KvCache<'c>,
    /// Number of its session in the batch.
    pub(super) session: usize,
    /// Position in its session.
    pub(super) position: u64,
}

impl<'b, 'c> Batch<'b, 'c> {
    /// A batch of `tokens` tokens; `None` if there are no sessions, or not enough tokens for one of each.
    pub(crate) fn new(caches: &'b mut dyn Caches<'c>, tokens: usize) -> Option<Self> {
        let others = caches.len().checked_sub(1)?;
        let of_first = tokens.checked_sub(others).and_then(NonZeroUsize::new)?;
        Some(Batch { caches, of_first, stripe: Stripe::ALL })
    }

    /// The same, of which this board computes some tokens; the caller has made sure that it is of one session.
    pub(crate) fn striped(self, stripe: Stripe) -> Self {
        Batch { stripe, ..self }
    }

    /// Tokens that this board computes: rows of the buffers.
    pub(super) fn rows(&self) -> usize {
        self.stripe.len(self.tokens())
    }

    /// Tokens in it.
    pub(super) fn tokens(&self) -> usize {
        self.of_first.get() + self.caches.len().saturating_sub(1)
    }

    /// Which of them this board computes.
    pub(super) fn stripe(&self) -> Stripe {
        self.stripe
    }

    /// Tokens of session `i`.
    fn tokens_of(&self, i: usize) -> usize {
        if i == 0 { self.of_first.get() } else { 1 }
    }

    /// Tokens of the sessions before session `i`.
    fn tokens_before(&self, i: usize) -> usize {
        i.checked_sub(1).map_or(0, |others| self.of_first.get() + others)
    }

    /// The session and position of the token in row `row`.
    #[inline(never)]
    pub(super) fn locate(&self, row: usize) -> Option<Token<'_, 'c>> {
        let token = self.stripe.token(row);
        let others = (token + 1).saturating_sub(self.of_first.get());
        let (session, index) = if others == 0 { (0, token) } else { (others, 0) };
        let cache = self.caches.get(session)?;
        Some(Token { cache, session, position: cache.position() + index as u64 })
    }

    /// The caches, in order.
    pub(super) fn caches(&self) -> impl Iterator<Item = &KvCache<'c>> {
        (0..self.caches.len()).filter_map(|i| self.caches.get(i))
    }

    /// Shape of session `i`'s new keys and values of a layer.
    fn new_kv_shape(&self, h: &Hparams, layer: usize, i: usize, cache: &KvCache<'_>) -> KvShape {
        let (slots, kv_type, head_dim) = (self.tokens_of(i), cache.kv_type(), h.head_of(layer).dim);
        KvShape { layers: 1, kv_heads: h.n_kv_heads, slots, head_dim, kv_type }
    }

    /// The new keys and values of a layer and session `i`.
    #[inline(never)]
    pub(super) fn new_kv<'n>(
        &self,
        h: &Hparams,
        layer: usize,
        buffers: &'n NewKvBuffers<'_>,
        i: usize,
    ) -> Option<NewKv<'n>> {
        let cache = self.caches.get(i)?;
        let buffer = buffers.session(self.tokens_before(i), self.new_kv_shape(h, layer, i, cache))?;
        Some(NewKv {
            buffer,
            start: cache.position(),
            #[cfg(feature = "boards")]
            old: None,
        })
    }

    /// Where to write the new keys and values of a layer and session `i`.
    #[inline(never)]
    pub(super) fn new_kv_mut<'n>(
        &self,
        h: &Hparams,
        layer: usize,
        buffers: &'n mut NewKvBuffers<'_>,
        i: usize,
    ) -> Option<KvBuffer<&'n mut [u8]>> {
        buffers.session_mut(self.tokens_before(i), self.new_kv_shape(h, layer, i, self.caches.get(i)?))
    }

    /// Copies the new keys and values of all sessions to their caches.
    #[inline(never)]
    pub(super) fn commit(&mut self, h: &Hparams, buffers: &NewKvBuffers<'_>, layer: usize) {
        for i in 0..self.caches.len() {
            let Some(new) = self.new_kv(h, layer, buffers, i) else { return };
            let Some(cache) = self.caches.get_mut(i) else { return };
            let (group, index) = cache.group_mut(h, layer);
            group.commit(index, &new);
        }
    }

    /// Counts the tokens as read.
    pub(super) fn advance(&mut self) {
        for i in 0..self.caches.len() {
            let tokens = self.tokens_of(i);
            if let Some(cache) = self.caches.get_mut(i) {
                cache.advance(tokens);
            }
        }
    }
}
