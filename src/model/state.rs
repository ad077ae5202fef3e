//! What a pass works on: the cache that a conversation owns, and the buffers that all conversations share.

use super::Hparams;
use crate::arch::{Cache, Element, HalfBlock, Kernels, QuantsMut};
use crate::quant::BLOCK;
use crate::storage::{Arena, ArenaError};

/// How large caches and buffers are, beside the model's own sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Positions that a cache holds.
    pub(crate) capacity: usize,
    /// Most tokens of one pass.
    pub(crate) chunk: usize,
    /// Most tokens of one pass whose logits are kept.
    pub(crate) logit_rows: usize,
    /// How a cache stores numbers.
    pub(crate) element: Element,
}

/// Keys and values of what a conversation has read, carved from the caller's memory.
pub(crate) struct KvCache<'a> {
    /// (n_layers, n_kv_heads, capacity, head_dim) elements
    k: &'a mut [u8],
    /// (n_layers, n_kv_heads, capacity, head_dim) elements
    v: &'a mut [u8],
    element: Element,
    n_kv_heads: usize,
    capacity: usize,
    /// Bytes of one head's key.
    row: usize,
    /// Positions in use.
    position: usize,
}

impl<'a> KvCache<'a> {
    /// Carves an empty cache. In a dry run this is the plan.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub(crate) fn new(h: &Hparams, shape: &Shape, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        let Shape { capacity, element, .. } = *shape;
        let row = h.head_dim * element.bytes();
        let sizes = [h.n_layers, h.n_kv_heads, capacity, row];
        let (k, v) = (arena.alloc("K cache", &sizes)?, arena.alloc("V cache", &sizes)?);
        Ok(Self { k, v, element, n_kv_heads: h.n_kv_heads, capacity, row, position: 0 })
    }

    /// Bytes of cache that one position takes, all layers together.
    pub(crate) fn bytes_per_position(h: &Hparams, element: Element) -> usize {
        // Saturates only for sizes that no file on a 32-bit machine has weights for.
        [h.n_layers, h.n_kv_heads, h.head_dim, element.bytes()].into_iter().fold(2, usize::saturating_mul)
    }

    /// Positions in use.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Positions that it holds.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Counts `n` more positions as in use; the pass has written them.
    pub(crate) fn advance(&mut self, n: usize) {
        self.position += n;
    }

    /// Forgets all but the first `position` positions.
    pub(crate) fn rewind(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// How it stores numbers.
    pub(super) fn element(&self) -> Element {
        self.element
    }

    /// Byte at which the key, and in its own buffer the value, of a head at a position starts.
    fn offset(&self, layer: usize, head: usize, position: usize) -> usize {
        ((layer * self.n_kv_heads + head) * self.capacity + position) * self.row
    }

    /// Keys and values of one head at positions 0 to `end`.
    pub(super) fn rows(&self, layer: usize, head: usize, end: usize) -> [Cache<'_>; 2] {
        let rows = self.offset(layer, head, 0)..self.offset(layer, head, end);
        [&*self.k, &*self.v].map(|cache| Cache { element: self.element, rows: &cache[rows.clone()] })
    }

    /// Where the key and the value of one head at a position lie.
    pub(super) fn slots(&mut self, layer: usize, head: usize, position: usize) -> [&mut [u8]; 2] {
        let (start, row) = (self.offset(layer, head, position), self.row);
        [&mut self.k[start..][..row], &mut self.v[start..][..row]]
    }
}

/// The input of a matrix in the forms that formats ask for.
pub(crate) struct Inputs<'a> {
    /// (widest input / 32, chunk): as int8
    pub(super) quants: QuantsMut<'a>,
    /// (the most tokens that meet binary16 so, widest input / 32): as binary16
    pub(super) halves: &'a mut [HalfBlock],
}

impl<'a> Inputs<'a> {
    fn new(arena: &mut Arena<'a>, chunk: usize, widest: usize) -> Result<Self, ArenaError> {
        let tokens = chunk.min(Kernels::MOST_HALVES);
        Ok(Self {
            quants: QuantsMut::new(arena, chunk, widest)?,
            halves: arena.alloc("binary16 activations", &[tokens, widest.div_ceil(BLOCK)])?,
        })
    }
}

/// The buffers of a pass, carved from the caller's memory. Nothing in them outlives it but the logits.
pub(crate) struct Work<'a> {
    /// (chunk, n_embd): the residual stream
    pub(crate) x: &'a mut [f32],
    /// (chunk, n_embd): its norm
    pub(crate) normed: &'a mut [f32],
    /// the input of a matrix that does not take floats
    pub(crate) inputs: Inputs<'a>,
    /// (chunk, q_dim + 2·kv_dim)
    pub(crate) qkv: &'a mut [f32],
    /// (chunk, q_dim): what attention gives
    pub(crate) attended: &'a mut [f32],
    /// (chunk, n_ff)
    pub(crate) gate: &'a mut [f32],
    /// (chunk, n_ff)
    pub(crate) up: &'a mut [f32],
    /// (chunk, rope_dims / 2, 2): cosine and sine of each pair's angle
    pub(crate) rope: &'a mut [f32],
    /// (logit_rows, vocab)
    pub(crate) logits: &'a mut [f32],
}

impl<'a> Work<'a> {
    /// Carves the buffers. In a dry run this is the plan.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub(crate) fn new(h: &Hparams, shape: &Shape, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        let Shape { chunk, logit_rows, .. } = *shape;
        let widest = h.n_embd.max(h.n_ff).max(h.q_dim());
        Ok(Self {
            x: arena.alloc("residual", &[chunk, h.n_embd])?,
            normed: arena.alloc("norm", &[chunk, h.n_embd])?,
            inputs: Inputs::new(arena, chunk, widest)?,
            qkv: arena.alloc("q, k, v", &[chunk, h.q_dim() + 2 * h.kv_dim()])?,
            attended: arena.alloc("attention", &[chunk, h.q_dim()])?,
            gate: arena.alloc("ffn gate", &[chunk, h.n_ff])?,
            up: arena.alloc("ffn up", &[chunk, h.n_ff])?,
            rope: arena.alloc("rotation", &[chunk, h.rope_dims / 2, 2])?,
            logits: arena.alloc("logits", &[logit_rows, h.vocab])?,
        })
    }
}
