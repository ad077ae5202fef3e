//! Attention of a layer: which work items there are, and what each of them computes.
//!
//! A token attends to tiles of 32 positions. Up to 16 tiles, from one multiple of 512 positions to the next, are a part,
//! which is summed by itself; [`MergeTree`] says how the sums of the parts are merged, and why so. Where a few rows' heads
//! are too few for all threads, each part is a work item; else each row and KV head is, with all its parts. Both are the
//! same sums in the same order, so the bits are the same.

use core::num::NonZeroUsize;

#[cfg(feature = "boards")]
use super::Split;
use super::batch::Batch;
use super::buffers::{Buffers, MAX_SERIAL_ROWS, NewKvBuffers};
use super::cache::KvSpans;
#[cfg(feature = "boards")]
use super::cache::{HeldPiece, NewKv};
use super::merge_tree::MergeTree;
use super::pass::Pass;
use super::{Head, Hparams};
use crate::arch::{GroupQueries, Queries, QueryBlock, SoftmaxState};
use crate::boards::CommError;
use crate::quant::BLOCK;
use crate::storage::{Attended, Grid, Part, for_each_row, for_each_tile_with_scratch};
use crate::util::SliceExt;

/// Work items per thread from which on whole rows and heads are items: fewer would not be divided evenly.
const MIN_ITEMS_PER_THREAD: usize = 8;

impl Pass<'_> {
    /// Attention of each token, a group of query heads at a time: from the queries and the caches to
    /// `buffers.attended`.
    ///
    /// # Errors
    /// [`CommError`].
    pub(super) fn attend(
        &self,
        layer: usize,
        buffers: &mut Buffers<'_>,
        batch: &Batch<'_, '_>,
    ) -> Result<(), CommError> {
        let h = self.own;
        let n = batch.rows();
        let Buffers { qkv, sink_q, query_blocks, new_kv, partials, attended, .. } = buffers;
        let head = h.head_of(layer);
        let pass = AttentionPass {
            pass: self,
            batch,
            layer,
            head,
            heads: h.kv_heads(),
            qkv,
            sink_q,
            query_blocks,
            new_kv,
            #[cfg(feature = "boards")]
            old: None,
        };
        let out = attended.first_n_mut(n * h.n_heads * head.dim);
        #[cfg(feature = "boards")]
        if self.share.is(Split::Tokens) {
            return match batch.stripe().is_part() {
                true => pass.attend_by_relay(partials, &mut buffers.relay, out),
                false => pass.attend_by_boards(partials, buffers.exchange, out),
            };
        }
        // The parts of the longest row, and those of all rows in units of these.
        let of_row = |row| pass.attended(row).map_or(0, |attended| attended.parts());
        let parts = (0..n).map(of_row).max().unwrap_or(0);
        let rows = (0..n).map(of_row).sum::<usize>() / parts.max(1);
        let whole_rows = n > MAX_SERIAL_ROWS || rows * h.n_kv_heads / MIN_ITEMS_PER_THREAD >= self.exec.workers();
        // The plan has memory for all parts of a few rows; where a session has more, whole rows need less.
        match partials.get_mut(..n * h.n_kv_heads * parts * pass.state_len()).filter(|_| !whole_rows) {
            Some(states) => pass.attend_by_parts(states, parts, out),
            None => pass.attend_by_rows(partials, parts, out),
        }
        Ok(())
    }
}

/// The inputs of a layer's attention.
#[derive(Clone, Copy)]
pub(super) struct AttentionPass<'l, 'b, 'c> {
    pub(super) pass: &'l Pass<'l>,
    pub(super) batch: &'l Batch<'b, 'c>,
    pub(super) layer: usize,
    /// The layer's heads.
    pub(super) head: &'l Head,
    /// KV heads.
    pub(super) heads: NonZeroUsize,
    qkv: &'l [f32],
    sink_q: &'l [f32],
    query_blocks: &'l [QueryBlock],
    new_kv: &'l NewKvBuffers<'l>,
    /// The piece of the positions before the pass that goes round, where boards divide it.
    #[cfg(feature = "boards")]
    old: Option<HeldPiece<'l>>,
}

#[cfg(feature = "boards")]
impl<'l, 'b, 'c> AttentionPass<'l, 'b, 'c> {
    /// The same, with what another board has of a part.
    pub(super) fn with_old<'o>(&'o self, old: Option<HeldPiece<'o>>) -> AttentionPass<'o, 'b, 'c>
    where
        'l: 'o,
    {
        AttentionPass { old, ..*self }
    }
}

impl AttentionPass<'_, '_, '_> {
    pub(super) fn hparams(&self) -> &Hparams {
        self.pass.own
    }

    /// Numbers of a softmax state: `group · (head_dim + 2)`.
    pub(super) fn state_len(&self) -> usize {
        self.hparams().group() * (self.head.dim + 2)
    }

    /// What a row attends to.
    pub(super) fn attended(&self, row: usize) -> Option<Attended> {
        let token = self.batch.locate(row)?;
        Some(token.cache.group(self.hparams(), self.layer).0.ring().attended(token.position))
    }

    /// A work item for each part of each row and KV head; `states` is `(tokens, n_kv_heads, parts, state_len)` and `out`
    /// `(tokens, n_kv_heads, group · head_dim)`.
    fn attend_by_parts(&self, states: &mut [f32], parts: usize, out: &mut [f32]) {
        let (h, len) = (self.hparams(), self.state_len());
        // There is a part at least: the token attends to itself.
        let (group, each) = (h.group(), NonZeroUsize::new(parts).unwrap_or(NonZeroUsize::MIN));
        for_each_row(self.pass.exec, states, len, |i, state| {
            let item = i / each;
            let Some(attended) = self.attended(item / self.heads) else { return };
            if let Some(part) = attended.part(i % each) {
                self.attend_part(item, &part, &mut SoftmaxState::new(state, group));
            }
        });
        for ((item, out), states) in out.rows_mut(group * self.head.dim).enumerate().zip(states.rows_mut(parts * len)) {
            let Some(attended) = self.attended(item / self.heads) else { return };
            let mut tree = MergeTree::new(states, len, group);
            attended.parts_from(0).enumerate().for_each(|(i, part)| tree.add(part.leaf, i));
            tree.root().finish(out);
        }
    }

    /// A work item for each row and KV head, none of more than `parts` parts, with some of `states` for each thread; `out` is
    /// `(tokens, n_kv_heads, group · head_dim)`.
    fn attend_by_rows(&self, states: &mut [f32], parts: usize, out: &mut [f32]) {
        let (group, len) = (self.hparams().group(), self.state_len());
        let outputs = [Grid::rows(out, group * self.head.dim)];
        let width = MergeTree::most_states(parts) * len;
        for_each_tile_with_scratch(self.pass.exec, outputs, states, width, |item, [mut out], states| {
            let Some(attended) = self.attended(item / self.heads) else { return };
            let mut tree = MergeTree::new(states, len, group);
            for part in attended.parts_from(0) {
                self.attend_part(item, &part, &mut tree.next());
                tree.add_next(part.leaf);
            }
            tree.root().finish(out.row(0));
        });
    }

    /// The queries of a group of heads, for one KV head of one row.
    fn queries(&self, row: usize, head: usize) -> Queries<'_> {
        let h = self.hparams();
        let Head { dim, scale, .. } = *self.head;
        let (wide, q_dim) = (h.group() * dim, h.n_heads * dim);
        let width = q_dim + 2 * h.n_kv_heads * dim;
        let blocks_per_group = h.group() * dim.div_ceil(BLOCK);
        let blocks = |set: usize| self.query_blocks.row((2 * row + set) * h.n_kv_heads + head, blocks_per_group);
        Queries {
            ring: GroupQueries { floats: self.qkv.row(row, width).row(head, wide), blocks: blocks(0) },
            sinks: GroupQueries { floats: self.sink_q.row(row, q_dim).row(head, wide), blocks: blocks(1) },
            head_dim: dim,
            scale,
            cap: h.caps.attention,
        }
    }

    /// Adds a part of the attention of `item`: row `item / heads`, KV head `item % heads`.
    #[inline(never)]
    pub(super) fn attend_part(&self, item: usize, part: &Part<'_>, out: &mut SoftmaxState<'_>) {
        let (row, head) = (item / self.heads, item % self.heads);
        let Some(token) = self.batch.locate(row) else { return };
        let Some(new) = self.batch.new_kv(self.hparams(), self.layer, self.new_kv, token.session) else { return };
        #[cfg(feature = "boards")]
        let new = NewKv { old: self.old, ..new };
        let (group, layer) = token.cache.group(self.hparams(), self.layer);
        let queries = self.queries(row, head);
        for tile in part.tiles() {
            let mut spans = KvSpans::new();
            group.spans(layer, head, token.position, tile, &new, &mut spans);
            self.pass.kernels.attend(token.cache.kv_type(), &queries, spans.as_slice(), out);
        }
    }
}
