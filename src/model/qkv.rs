//! From the projections of a layer to the queries, keys and values of attention.

use super::batch::Batch;
use super::buffers::Buffers;
use super::pass::Pass;
use super::{Hparams, Layer, QkNorm, Temperature, hadamard, kv_buffer::Kv, norm, rope};
use crate::arch::KvType;
use crate::quant::BLOCK;
use crate::storage::{Grid, for_each_tile};
use crate::util::SliceExt;

impl Pass<'_> {
    /// Adds biases, normalises and rotates queries and keys, and makes the queries for the sinks, and int8 queries for int8
    /// keys.
    ///
    /// One parallel region: a row is in the cache of the core that works on it.
    pub(super) fn prepare_qkv(
        &self,
        layer: usize,
        weights: &Layer<'_>,
        buffers: &mut Buffers<'_>,
        batch: &Batch<'_, '_>,
    ) {
        let h = self.own;
        let head = h.head_of(layer);
        let (q_dim, kv_dim) = (h.n_heads * head.dim, h.n_kv_heads * head.dim);
        let (tokens, width) = (batch.rows(), q_dim + 2 * kv_dim);
        let blocks = 2 * h.n_heads * head.dim.div_ceil(BLOCK);
        let (table, base) = (&*buffers.rope, h.rope_base_of(layer));
        // No angles, no rotation.
        let rotated = if h.no_rope.contains(layer) { 0 } else { head.rope_dims };
        let (_, rope_dims) = h.widest_head();
        let floats = [
            Grid::rows(buffers.qkv.first_n_mut(tokens * width), width),
            Grid::rows(buffers.sink_q.first_n_mut(tokens * q_dim), q_dim),
        ];
        let blocks = [Grid::rows(buffers.query_blocks.first_n_mut(tokens * blocks), blocks)];
        for_each_tile(self.executor_for(tokens), (floats, blocks), |t, ([mut qkv, mut sink_q], [mut blocks])| {
            let (qkv, sink_q, blocks) = (qkv.row(0), sink_q.row(0), blocks.row(0));
            let Some(token) = batch.locate(t) else { return };
            let (q, kv) = qkv.split_at_mut_checked(q_dim).unwrap_or_default();
            let (k, v) = kv.split_at_mut_checked(kv_dim).unwrap_or_default();
            norm::add(q, weights.q.bias, 0);
            norm::add(k, weights.k.bias, 0);
            norm::add(v, weights.v.bias, 0);
            norm::copy(q, sink_q);
            let angles = table.row(t * h.rope_bases() + base, 2 * rope_dims);
            let [own, shifted] = [0, 1].map(|position| angles.row(position, rope_dims).first_n(rotated));
            let hadamard = token.cache.hadamard();
            let by = temperature(h, token.position);
            prepare_heads(h, head.dim, q, weights.q_norm, own, hadamard, by);
            prepare_heads(h, head.dim, k, weights.k_norm, own, hadamard, 1.0);
            prepare_heads(h, head.dim, sink_q, weights.q_norm, shifted, hadamard, by);
            if token.cache.kv_type() == KvType::Int8 {
                let (own, sinks) = blocks.split_at_mut_checked(blocks.len() / 2).unwrap_or_default();
                self.kernels.quantise_query(q, head.dim, own);
                self.kernels.quantise_query(sink_q, head.dim, sinks);
            }
        });
    }

    /// Converts the new keys and values to the format of the caches, on the calling thread: a barrier would cost more.
    pub(super) fn write_new_kv(&self, layer: usize, buffers: &mut Buffers<'_>, batch: &Batch<'_, '_>) {
        let h = self.own;
        let head_dim = h.head_of(layer).dim;
        let (q_dim, kv_dim) = (h.n_heads * head_dim, h.n_kv_heads * head_dim);
        let width = q_dim + 2 * kv_dim;
        let mut tokens = buffers.qkv.first_n(batch.rows() * width).rows(width);
        for (session, cache) in batch.caches().enumerate() {
            let Some(mut new) = batch.new_kv_mut(h, layer, &mut buffers.new_kv, session) else { return };
            for (row, qkv) in tokens.by_ref().take(new.shape().slots).enumerate() {
                let slot = batch.stripe().token(row);
                for (kv, x) in [Kv::Key, Kv::Value].into_iter().zip(qkv.part(q_dim..width).rows(kv_dim)) {
                    for (head, x) in x.rows(head_dim).enumerate() {
                        let to = new.row_mut(kv, 0, head, slot);
                        self.kernels.encode_kv(cache.kv_type(), x, to.row, to.scale);
                    }
                }
            }
        }
    }
}

/// Normalises and rotates each head, transforms it if the cache stores keys so, and multiplies it.
#[inline(never)]
fn prepare_heads(
    h: &Hparams,
    head_dim: usize,
    heads: &mut [f32],
    weight: &[u8],
    angles: &[f32],
    hadamard: bool,
    by: f32,
) {
    let late = h.family.qk_norm == QkNorm::HeadAfterRope;
    if late {
        rotate(h, head_dim, heads, angles);
    }
    // Of each head, or of all together; the same weights for all heads, or each its own.
    let width = if h.family.qk_norm == QkNorm::Whole { heads.len() } else { head_dim };
    if !weight.is_empty() {
        for (x, weight) in heads.rows_mut(width).zip(weight.rows(4 * width).cycle()) {
            norm::normalise(x, h.family.norm, h.eps, weight, &[]);
        }
    }
    if !late {
        rotate(h, head_dim, heads, angles);
    }
    if hadamard {
        heads.rows_mut(head_dim).for_each(hadamard::transform);
    }
    norm::multiply(heads, by);
}

/// Applies RoPE to each head.
#[inline(never)]
fn rotate(h: &Hparams, head_dim: usize, heads: &mut [f32], angles: &[f32]) {
    heads.rows_mut(head_dim).for_each(|head| rope::apply(head, angles, h.family.rope));
}

/// What queries at a position are multiplied by.
#[inline(never)]
fn temperature(h: &Hparams, position: u64) -> f32 {
    let Temperature { scale, interval } = h.temperature;
    if scale == 0.0 {
        return 1.0;
    }
    let steps = position.checked_div(interval.get() as u64).unwrap_or(0);
    1.0 + scale * libm::logf(steps as f32 + 1.0)
}
