//! From the projections of a layer to the queries, keys and values of attention.

use super::batch::Batch;
use super::buffers::Buffers;
use super::pass::Pass;
use super::{Hparams, hadamard, kv_buffer::Kv, rope};
use crate::arch::KvType;
use crate::quant::BLOCK;
use crate::storage::{Grid, for_each_tile};
use crate::util::SliceExt;

impl Pass<'_> {
    /// Adds biases, rotates queries and keys, and makes the queries for the sinks, and int8 queries for int8 keys.
    ///
    /// One parallel region: a row is in the cache of the core that works on it.
    pub(super) fn prepare_qkv(&self, layer: usize, buffers: &mut Buffers<'_>, batch: &Batch<'_, '_>) {
        let h = &self.model.hparams;
        let (tokens, q_dim, width) = (batch.tokens(), h.q_dim(), h.q_dim() + 2 * h.kv_dim());
        let blocks = 2 * h.n_heads * h.head_dim.div_ceil(BLOCK);
        let Some(biases) = self.model.weights.layers.get(layer).map(|l| l.qkv_bias) else { return };
        let (table, base) = (&*buffers.rope, h.rope_base_of(layer));
        let floats = [
            Grid::rows(buffers.qkv.first_n_mut(tokens * width), width),
            Grid::rows(buffers.sink_q.first_n_mut(tokens * q_dim), q_dim),
        ];
        let blocks = [Grid::rows(buffers.query_blocks.first_n_mut(tokens * blocks), blocks)];
        for_each_tile(self.executor_for(tokens), (floats, blocks), |t, ([mut qkv, mut sink_q], [mut blocks])| {
            let (qkv, sink_q, blocks) = (qkv.row(0), sink_q.row(0), blocks.row(0));
            add_biases(h, qkv, biases);
            copy(qkv.first_n(q_dim), sink_q);
            let Some(token) = batch.locate(t) else { return };
            let angles = table.row(t * h.rope_bases() + base, 2 * h.rope_dims);
            rotate(h, qkv.first_n_mut(q_dim + h.kv_dim()), angles.row(0, h.rope_dims), token.cache.hadamard());
            rotate(h, sink_q, angles.row(1, h.rope_dims), token.cache.hadamard());
            if token.cache.kv_type() == KvType::Int8 {
                let (own, sinks) = blocks.split_at_mut_checked(blocks.len() / 2).unwrap_or_default();
                self.kernels.quantise_query(qkv.first_n(q_dim), h.head_dim, own);
                self.kernels.quantise_query(sink_q, h.head_dim, sinks);
            }
        });
    }

    /// Converts the new keys and values to the format of the caches, on the calling thread: a barrier would cost more.
    pub(super) fn write_new_kv(&self, buffers: &mut Buffers<'_>, batch: &Batch<'_, '_>) {
        let h = &self.model.hparams;
        let (q_dim, width) = (h.q_dim(), h.q_dim() + 2 * h.kv_dim());
        let mut tokens = buffers.qkv.rows(width);
        for (session, cache) in batch.caches().enumerate() {
            let Some(mut new) = batch.new_kv_mut(h, &mut buffers.new_kv, session) else { return };
            for (slot, qkv) in tokens.by_ref().take(new.shape().slots).enumerate() {
                for (kv, x) in [Kv::Key, Kv::Value].into_iter().zip(qkv.part(q_dim..width).rows(h.kv_dim())) {
                    for (head, x) in x.rows(h.head_dim).enumerate() {
                        let to = new.row_mut(kv, 0, head, slot);
                        self.kernels.encode_kv(cache.kv_type(), x, to.row, to.scale);
                    }
                }
            }
        }
    }
}

/// Adds the biases of q, k and v, little-endian f32, as far as there are any.
fn add_biases(h: &Hparams, qkv: &mut [f32], biases: [&[u8]; 3]) {
    for (bias, first) in biases.iter().zip([0, h.q_dim(), h.q_dim() + h.kv_dim()]) {
        for (x, b) in qkv.iter_mut().skip(first).zip(bias.as_chunks::<4>().0) {
            *x += f32::from_le_bytes(*b);
        }
    }
}

fn copy(from: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// Applies RoPE to each head, and the Hadamard transform if the cache stores keys so.
fn rotate(h: &Hparams, heads: &mut [f32], angles: &[f32], hadamard: bool) {
    for head in heads.rows_mut(h.head_dim) {
        rope::apply(head, angles, h.family.rope);
        if hadamard {
            hadamard::transform(head);
        }
    }
}
