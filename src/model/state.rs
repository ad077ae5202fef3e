//! What one conversation owns: its K/V cache and the buffers of the forward pass.

use super::Hparams;
use crate::arch::{Element, QuantsMut};
use crate::storage::{Arena, ArenaError};

/// How large a state is, beside the model's own sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Positions that the cache holds.
    pub(crate) capacity: usize,
    /// Most tokens of one pass.
    pub(crate) chunk: usize,
    /// Most tokens of one pass whose logits are kept.
    pub(crate) logit_rows: usize,
    /// How the cache stores numbers.
    pub(crate) element: Element,
}

/// Cache and buffers, carved from the caller's memory.
pub(crate) struct State<'a> {
    /// (n_layers, n_kv_heads, capacity, head_dim) elements
    pub(crate) k: &'a mut [u8],
    /// (n_layers, n_kv_heads, capacity, head_dim) elements
    pub(crate) v: &'a mut [u8],
    /// (chunk, n_embd): the residual stream
    pub(crate) x: &'a mut [f32],
    /// (chunk, n_embd): its norm
    pub(crate) normed: &'a mut [f32],
    /// (widest input / 32, chunk): the input of a quantised matrix
    pub(crate) quants: QuantsMut<'a>,
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

impl<'a> State<'a> {
    /// Carves a state. In a dry run this is the plan.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub(crate) fn new(h: &Hparams, shape: &Shape, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        let Shape { capacity, chunk, logit_rows, element } = *shape;
        let widest = h.n_embd.max(h.n_ff).max(h.q_dim());
        let cache = [h.n_layers, h.n_kv_heads, capacity, h.head_dim * element.bytes()];
        Ok(Self {
            k: arena.alloc("K cache", &cache)?,
            v: arena.alloc("V cache", &cache)?,
            x: arena.alloc("residual", &[chunk, h.n_embd])?,
            normed: arena.alloc("norm", &[chunk, h.n_embd])?,
            quants: QuantsMut::new(arena, chunk, widest)?,
            qkv: arena.alloc("q, k, v", &[chunk, h.q_dim() + 2 * h.kv_dim()])?,
            attended: arena.alloc("attention", &[chunk, h.q_dim()])?,
            gate: arena.alloc("ffn gate", &[chunk, h.n_ff])?,
            up: arena.alloc("ffn up", &[chunk, h.n_ff])?,
            rope: arena.alloc("rotation", &[chunk, h.rope_dims / 2, 2])?,
            logits: arena.alloc("logits", &[logit_rows, h.vocab])?,
        })
    }

    /// Bytes of cache that one position takes, all layers together.
    pub(crate) fn bytes_per_position(h: &Hparams, element: Element) -> usize {
        // Saturates only for sizes that no file on a 32-bit machine has weights for.
        [h.n_layers, h.n_kv_heads, h.head_dim, element.bytes()].into_iter().fold(2, usize::saturating_mul)
    }
}
