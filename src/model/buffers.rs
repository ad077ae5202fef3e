//! The buffers of a pass, which all conversations share.

use super::Hparams;
use crate::arch::{F16Block, Kernels, QuantsMut, QueryBlock};
use crate::quant::BLOCK;
use crate::storage::{Arena, ArenaError, TILE};

/// Rows of light work that the caller does alone, and whose attention may be split by positions as well.
pub(super) const MAX_SERIAL_ROWS: usize = 8;
/// Fewest tokens of a thread for which it reads all weights by itself.
pub(super) const MIN_TOKENS_PER_THREAD: usize = 128;
/// Tiles of attention that are added up together; the sums of several such are then added in order. A number that does
/// not depend on threads, so that the bits do not.
pub(super) const TILES_PER_PART: usize = 16;

/// How large the buffers are, beside the model's own sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferSizes {
    /// Most tokens of one pass.
    pub(crate) chunk: usize,
    /// Most tokens of one pass whose logits are kept.
    pub(crate) logit_rows: usize,
    /// Positions that a token looks at, for the parts that attention is split into; for more it is not split.
    pub(crate) capacity: usize,
}

/// The input of a matrix in the forms that formats ask for.
pub(crate) struct Inputs<'a> {
    /// (widest input / 32, chunk): as int8
    pub(super) quants: QuantsMut<'a>,
    /// (the most tokens that meet binary16 so, widest input / 32): as binary16
    pub(super) halves: &'a mut [F16Block],
}

impl<'a> Inputs<'a> {
    fn new(arena: &mut Arena<'a>, chunk: usize, widest: usize) -> Result<Self, ArenaError> {
        let tokens = chunk.min(Kernels::MAX_F16_TOKENS);
        Ok(Self {
            quants: QuantsMut::new(arena, chunk, widest)?,
            halves: arena.alloc("binary16 activations", &[tokens, widest.div_ceil(BLOCK)])?,
        })
    }
}

/// The buffers of a pass, carved from the caller's memory. Nothing in them outlives it but the logits.
pub(crate) struct Buffers<'a> {
    /// (chunk, n_embd): the residual stream
    pub(crate) x: &'a mut [f32],
    /// (chunk, n_embd): its norm
    pub(crate) normed: &'a mut [f32],
    /// the input of a matrix that does not take floats
    pub(crate) inputs: Inputs<'a>,
    /// (chunk, q_dim + 2·kv_dim)
    pub(crate) qkv: &'a mut [f32],
    /// (chunk, q_dim): queries for pinned positions
    pub(crate) sink_q: &'a mut [f32],
    /// (chunk, 2, n_heads, head_dim / 32): both as int8
    pub(crate) query_blocks: &'a mut [QueryBlock],
    /// (chunk, 2, kv_dim) elements of up to four bytes: new keys and values, as the cache stores them
    pub(crate) fresh: &'a mut [u8],
    /// (chunk, 2, n_kv_heads) binary16: their scales
    pub(crate) fresh_scales: &'a mut [u8],
    /// (few · splits or chunk, n_kv_heads, group · (head_dim + 2)): attention over some tiles
    pub(crate) partials: &'a mut [f32],
    /// (chunk, n_kv_heads, 2 · group): maxima and sums of attention
    pub(crate) stats: &'a mut [f32],
    /// (chunk, q_dim): what attention gives
    pub(crate) attended: &'a mut [f32],
    /// (chunk, n_ff)
    pub(crate) gate: &'a mut [f32],
    /// (chunk, n_ff)
    pub(crate) up: &'a mut [f32],
    /// (chunk, bases, 2, rope_dims / 2, 2): cosine and sine of each pair's angle, at a token's position and at that
    /// which pinned positions see
    pub(crate) rope: &'a mut [f32],
    /// (logit_rows, vocab)
    pub(crate) logits: &'a mut [f32],
}

impl<'a> Buffers<'a> {
    /// Carves the buffers. In a dry run this is the plan.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub(crate) fn new(h: &Hparams, shape: &BufferSizes, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        let BufferSizes { chunk, logit_rows, capacity } = *shape;
        // Pinned positions, kept ones and a window each start and end within a tile.
        let parts = (capacity / TILE + 4).div_ceil(TILES_PER_PART);
        let parts = chunk.max(chunk.min(MAX_SERIAL_ROWS) * parts);
        let widest = h.n_embd.max(h.n_ff).max(h.q_dim());
        Ok(Self {
            x: arena.alloc("residual", &[chunk, h.n_embd])?,
            normed: arena.alloc("norm", &[chunk, h.n_embd])?,
            inputs: Inputs::new(arena, chunk, widest)?,
            qkv: arena.alloc("q, k, v", &[chunk, h.q_dim() + 2 * h.kv_dim()])?,
            sink_q: arena.alloc("q for pinned positions", &[chunk, h.q_dim()])?,
            query_blocks: arena.alloc("int8 queries", &[chunk, 2, h.n_heads, h.head_dim.div_ceil(BLOCK)])?,
            fresh: arena.alloc("new k, v", &[chunk, 2, h.kv_dim(), size_of::<f32>()])?,
            fresh_scales: arena.alloc("their scales", &[chunk, 2, h.n_kv_heads, 2])?,
            partials: arena.alloc("parts of attention", &[parts, h.n_kv_heads, h.group() * (h.head_dim + 2)])?,
            stats: arena.alloc("maxima and sums", &[chunk, h.n_kv_heads, 2 * h.group()])?,
            attended: arena.alloc("attention", &[chunk, h.q_dim()])?,
            gate: arena.alloc("ffn gate", &[chunk, h.n_ff])?,
            up: arena.alloc("ffn up", &[chunk, h.n_ff])?,
            rope: arena.alloc("rotation", &[chunk, h.rope_bases(), 2, h.rope_dims / 2, 2])?,
            logits: arena.alloc("logits", &[logit_rows, h.vocab])?,
        })
    }
}
