//! The activations of a pass, which all sessions of an engine share.

use core::ops::Range;

use super::kv_buffer::{KvBuffer, KvShape};
use super::merge_tree::MergeTree;
use super::{Hparams, Share, Split};
use crate::arch::{F16Block, Kernels, KvType, QuantsMut, QueryBlock};
use crate::quant::BLOCK;
#[cfg(feature = "boards")]
use crate::storage::Piece;
use crate::storage::{Arena, ArenaError, TILE};
use crate::util::SliceExt;

/// Up to this many rows, element-wise work stays on the calling thread and attention may be split over positions.
pub(super) const MAX_SERIAL_ROWS: usize = 8;

/// Sizes of the buffers that do not follow from the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferSizes {
    /// Most tokens of one pass that a board computes.
    pub(crate) chunk: usize,
    /// Most tokens of one pass.
    pub(crate) pass: usize,
    /// Most tokens of one pass whose logits are kept.
    pub(crate) logit_rows: usize,
    /// Most parts in which the attention of a token is summed.
    pub(crate) parts: usize,
    /// What of the model a board computes.
    pub(crate) share: Share,
    /// Most sums of attention that a board has of a token, where boards share positions; else 0.
    pub(crate) roots: usize,
    /// Most sums that wait of a token, where boards divide a prompt; else 0.
    pub(crate) states: usize,
    /// How keys and values travel there.
    pub(crate) kv_type: KvType,
}

/// The input of a matrix in the number formats of its kernels.
pub(crate) struct Inputs<'a> {
    /// (widest input / 32, chunk): int8
    pub(super) quants: QuantsMut<'a>,
    /// (most tokens of a binary16 product, widest input / 32): binary16
    pub(super) f16: &'a mut [F16Block],
}

impl<'a> Inputs<'a> {
    fn carve(arena: &mut Arena<'a>, chunk: usize, widest: usize) -> Result<Self, ArenaError> {
        let tokens = chunk.min(Kernels::MAX_F16_TOKENS);
        Ok(Self {
            quants: QuantsMut::new(arena, chunk, widest)?,
            f16: arena.alloc("binary16 activations", &[tokens, widest.div_ceil(BLOCK)])?,
        })
    }
}

/// Keys and values of all tokens of a pass for one layer, as the caches store them: one [`KvBuffer`] after another, for
/// each session of the batch.
pub(crate) struct NewKvBuffers<'a> {
    /// (pass, 2, kv_dim) elements of up to four bytes
    rows: &'a mut [u8],
    /// (pass, 2, n_kv_heads) binary16
    scales: &'a mut [u8],
}

impl<'a> NewKvBuffers<'a> {
    fn carve(h: &Hparams, pass: usize, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        Ok(Self {
            rows: arena.alloc("new K, V", &[pass, 2, h.n_kv_heads * h.widest_head().0, size_of::<f32>()])?,
            scales: arena.alloc("new scales", &[pass, 2, h.n_kv_heads, 2])?,
        })
    }

    /// Bytes of the rows and of the scales of a session behind `before` tokens of others, whose new keys and values have `shape`.
    fn ranges(shape: &KvShape, before: usize) -> (Range<usize>, Range<usize>) {
        let of_token = 2 * shape.kv_heads;
        let range = |bytes: usize| before * of_token * bytes..(before + shape.slots) * of_token * bytes;
        (range(shape.head_dim * size_of::<f32>()), range(2))
    }

    /// Those of a session of a batch, behind `before` tokens of others.
    pub(super) fn session(&self, before: usize, shape: KvShape) -> Option<KvBuffer<&[u8]>> {
        let (rows, scales) = Self::ranges(&shape, before);
        KvBuffer::over(shape, self.rows.part(rows), self.scales.part(scales))
    }

    /// As [`session`](NewKvBuffers::session), to write.
    pub(super) fn session_mut(&mut self, before: usize, shape: KvShape) -> Option<KvBuffer<&mut [u8]>> {
        let (rows, scales) = Self::ranges(&shape, before);
        KvBuffer::over(shape, self.rows.part_mut(rows), self.scales.part_mut(scales))
    }
}

/// Bytes of the keys and values of a position in the layers with the larger heads.
pub(super) fn kv_bytes(h: &Hparams, kv_type: KvType) -> usize {
    let shape = KvShape { layers: 1, kv_heads: h.n_kv_heads, slots: 1, head_dim: h.widest_head().0, kv_type };
    shape.bytes().rows + shape.bytes().scales
}

/// How far a row and KV head has come: its next part, and [`MergeTree::progress`].
#[cfg(feature = "boards")]
pub(super) type Progress = [u64; 4];

/// What goes from board to board while a prompt is read; nothing where boards do not divide a pass.
#[cfg(feature = "boards")]
pub(crate) struct RelayBuffers<'a> {
    /// Sums of a row and KV head that may wait.
    pub(super) states: usize,
    /// (512, kv_bytes) each: the piece that is attended to, and the next one
    pub(super) pieces: [&'a mut [u8]; 2],
    /// (chunk, n_kv_heads)
    pub(super) progress: &'a mut [Progress],
}

#[cfg(feature = "boards")]
impl<'a> RelayBuffers<'a> {
    fn carve(h: &Hparams, sizes: &BufferSizes, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        if !sizes.share.divides(sizes.chunk) {
            return Ok(RelayBuffers { states: 0, pieces: [&mut [], &mut []], progress: &mut [] });
        }
        let piece = [Piece::MAX_SLOTS, kv_bytes(h, sizes.kv_type)];
        Ok(RelayBuffers {
            states: sizes.states,
            pieces: [arena.alloc("piece of K, V", &piece)?, arena.alloc("next piece", &piece)?],
            progress: arena.alloc("progress", &[sizes.chunk, h.n_kv_heads])?,
        })
    }
}

/// The buffers of a pass, in the caller's memory, as large as the layers with the larger heads need. Only the logits are used
/// after it.
pub(crate) struct Buffers<'a> {
    /// (chunk, n_embd): the residual stream
    pub(super) x: &'a mut [f32],
    /// (chunk, n_embd): its norm
    pub(super) normed: &'a mut [f32],
    /// the input of a matrix whose kernel does not take floats
    pub(super) inputs: Inputs<'a>,
    /// (chunk, q_dim + 2·kv_dim): of this board's heads, as the next two
    pub(super) qkv: &'a mut [f32],
    /// (chunk, q_dim): queries for the sinks
    pub(super) sink_q: &'a mut [f32],
    /// (chunk, 2, n_heads, head_dim / 32): queries and queries for the sinks as int8
    pub(super) query_blocks: &'a mut [QueryBlock],
    /// new keys and values of a layer
    pub(super) new_kv: NewKvBuffers<'a>,
    /// (max_serial_rows · parts or chunk, n_kv_heads, group · (head_dim + 2)): softmax states of parts of attention
    pub(super) partials: &'a mut [f32],
    /// (chunk, q_dim): output of attention; between passes, what boards exchange of a session
    pub(crate) attended: &'a mut [f32],
    /// (chunk, n_ff)
    pub(super) gate: &'a mut [f32],
    /// (chunk, n_ff): of this board's rows
    pub(super) up: &'a mut [f32],
    /// (chunk, bases, 2, rope_dims / 2, 2): cosine and sine of each pair's angle, for the token's position and for the
    /// shifted position used against the sinks
    pub(super) rope: &'a mut [f32],
    /// (logit_rows, vocab); empty on a board that has no logits
    pub(crate) logits: &'a mut [f32],
    /// (boards, chunk, columns of a board), or (boards, max_serial_rows, n_kv_heads, roots, group · (head_dim + 2)), or the new keys
    /// and values of a layer: results of all boards; empty where none has results of others
    pub(super) exchange: &'a mut [f32],
    /// pieces of keys and values that go round
    #[cfg(feature = "boards")]
    pub(super) relay: RelayBuffers<'a>,
    /// (pass): what boards are told to run; empty for one board
    #[cfg(feature = "boards")]
    pub(crate) tokens: &'a mut [u32],
}

impl<'a> Buffers<'a> {
    /// Carves the buffers. In a dry run this is the plan.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub(crate) fn new(h: &Hparams, sizes: &BufferSizes, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        let BufferSizes { chunk, pass, logit_rows, parts, share, roots, .. } = *sizes;
        let own = share.hparams(h);
        // A row and KV head of any session that the model can have: of a tile a part, three of them cut at both ends.
        let row = MergeTree::most_states(h.context_length / TILE + 6).div_ceil(own.n_kv_heads.max(1));
        let partials = chunk.max(chunk.min(MAX_SERIAL_ROWS) * parts).max(row);
        // Where boards divide a pass, all its rows wait for the next piece.
        let partials = partials.max(chunk.saturating_mul(sizes.states));
        let (head_dim, rope_dims) = h.widest_head();
        let (q_dim, own_q_dim, own_kv_dim) = (h.n_heads * head_dim, own.n_heads * head_dim, own.n_kv_heads * head_dim);
        let widest = h.n_embd.max(h.n_ff).max(q_dim);
        Ok(Self {
            x: arena.alloc("residual", &[chunk, h.n_embd])?,
            normed: arena.alloc("norm", &[chunk, h.n_embd])?,
            inputs: Inputs::carve(arena, chunk, widest)?,
            qkv: arena.alloc("q, k, v", &[chunk, own_q_dim + 2 * own_kv_dim])?,
            sink_q: arena.alloc("q for sinks", &[chunk, own_q_dim])?,
            query_blocks: arena.alloc("int8 queries", &[chunk, 2, own.n_heads, head_dim.div_ceil(BLOCK)])?,
            new_kv: NewKvBuffers::carve(&own, pass, arena)?,
            partials: arena.alloc("parts of attention", &[partials, own.n_kv_heads, h.group() * (head_dim + 2)])?,
            attended: arena.alloc("attention", &[chunk, q_dim])?,
            gate: arena.alloc("ffn gate", &[chunk, h.n_ff])?,
            up: arena.alloc("ffn up", &[chunk, own.n_ff])?,
            rope: arena.alloc("RoPE table", &[chunk, h.rope_bases(), 2, rope_dims / 2, 2])?,
            logits: match share.has_head() {
                true => arena.alloc("logits", &[logit_rows, h.vocab])?,
                false => &mut [],
            },
            exchange: match () {
                () if share.is(Split::Rows) => arena.alloc("exchange", &[chunk, widest])?,
                () if share.is(Split::Tokens) => {
                    let sums = [share.size(), chunk.min(MAX_SERIAL_ROWS), h.n_kv_heads, roots];
                    let sums = sums.into_iter().fold(h.group() * (head_dim + 2), usize::saturating_mul);
                    let new_kv = pass.saturating_mul(kv_bytes(h, sizes.kv_type)).div_ceil(size_of::<f32>());
                    arena.alloc("exchange", &[if share.divides(chunk) { sums.max(new_kv) } else { sums }])?
                }
                () => &mut [],
            },
            #[cfg(feature = "boards")]
            relay: RelayBuffers::carve(h, sizes, arena)?,
            #[cfg(feature = "boards")]
            tokens: match share.is_whole() {
                true => &mut [],
                false => arena.alloc("tokens of all boards", &[pass])?,
            },
        })
    }
}
