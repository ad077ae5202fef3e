//! Attention where each of several boards has some of the positions.
//!
//! Each board sums up its blocks of positions, and each block is a whole subtree of [`MergeTree`]; so what it sends is one sum for
//! each of its blocks and no more, and when all boards have all blocks' sums, each of them merges these by the upper part of the
//! same tree. That is one exchange a layer for up to eight rows. A sum of each board over all that it has would be one less to send, and have other
//! bits (Tree Attention, arXiv 2408.04093, and flash-decoding send those).

use core::ops::Range;

use super::attention::AttentionPass;
use super::buffers::MAX_SERIAL_ROWS;
use super::merge_tree::MergeTree;
use crate::arch::SoftmaxState;
use crate::boards::CommError;
use crate::storage::{Attended, Blocks, Grid, bytes_of_mut, for_each_tile_with_scratch};
use crate::util::SliceExt;

impl AttentionPass<'_, '_, '_> {
    /// Attention of all rows: `states` is scratch, `exchange` `(boards, rows, n_kv_heads, roots, state_len)` for a few rows at a
    /// time, `out` `(tokens, n_kv_heads, group · head_dim)`.
    pub(super) fn attend_by_boards(
        &self,
        states: &mut [f32],
        exchange: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), CommError> {
        let n = self.batch.rows();
        (0..n).step_by(MAX_SERIAL_ROWS).try_for_each(|first| {
            let rows = first..n.min(first + MAX_SERIAL_ROWS);
            self.attend_rows_by_boards(rows, states, exchange, out)
        })
    }

    fn attend_rows_by_boards(
        &self,
        rows: Range<usize>,
        states: &mut [f32],
        exchange: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), CommError> {
        let (share, len) = (self.pass.share, self.state_len());
        let most = |f: &dyn Fn(&Attended) -> usize| {
            rows.clone().filter_map(|row| self.attended(row)).map(|a| f(&a)).max().unwrap_or(0)
        };
        // The same on every board: as many sums as the board with most blocks has.
        let roots = (0..share.size()).map(|rank| most(&|a| own_blocks(a, &share.of_board(rank).blocks()))).max();
        let (roots, parts) = (roots.unwrap_or(0).max(1), most(&Attended::parts));
        let (items, width) = (rows.len() * self.heads.get(), MergeTree::most_states(parts) * len);
        let of_board = items * roots * len;
        let exchange = exchange.first_n_mut(share.size() * of_board);

        let own = exchange.part_mut(share.rank() * of_board..(share.rank() + 1) * of_board);
        let first = rows.start * self.heads.get();
        for_each_tile_with_scratch(
            self.pass.exec,
            [Grid::rows(own, roots * len)],
            states,
            width,
            |item, [mut out], states| self.sum_own_blocks(first + item, states, out.row(0)),
        );
        let mut ends = [0; super::MAX_BOARDS];
        ends.iter_mut().enumerate().for_each(|(board, end)| *end = (board + 1) * of_board * size_of::<f32>());
        self.pass.comm().all_gather(bytes_of_mut(exchange), ends.first_n(share.size()))?;
        let wide = self.hparams().group() * self.head.dim;
        let out = out.part_mut(first * wide..(first + items) * wide);
        let all = Sums { all: exchange, of_board, of_item: roots * len, len };
        for_each_tile_with_scratch(
            self.pass.exec,
            [Grid::rows(out, wide)],
            states,
            width,
            |item, [mut out], states| self.merge_blocks(first + item, item, &all, states, out.row(0)),
        );
        Ok(())
    }

    /// The sum of each of this board's blocks, `(roots, state_len)`, for row and KV head `item`.
    fn sum_own_blocks(&self, item: usize, states: &mut [f32], out: &mut [f32]) {
        let (blocks, len, group) = (self.pass.share.blocks(), self.state_len(), self.hparams().group());
        let Some(attended) = self.attended(item / self.heads) else { return };
        let of = |leaf| blocks.of_leaf(leaf);
        let mut parts = attended.parts_from(0).filter(|part| blocks.owner(of(part.leaf)) == blocks.rank).peekable();
        for out in out.rows_mut(len) {
            let Some(block) = parts.peek().map(|part| of(part.leaf)) else { return };
            let mut tree = MergeTree::new(&mut *states, len, group);
            while let Some(part) = parts.next_if(|part| of(part.leaf) == block) {
                self.attend_part(item, &part, &mut tree.next());
                tree.add_next(part.leaf);
            }
            tree.copy_root(out);
        }
    }

    /// Merges the sums of all blocks, of row and KV head `item`, which is item `index` of the exchange.
    fn merge_blocks(&self, item: usize, index: usize, all: &Sums<'_>, states: &mut [f32], out: &mut [f32]) {
        let (blocks, group) = (self.pass.share.blocks(), self.hparams().group());
        let Some(attended) = self.attended(item / self.heads) else { return };
        let mut tree = MergeTree::new(states, all.len, group);
        let (mut before, mut last) = ([0; super::MAX_BOARDS], None);
        for part in attended.parts_from(0) {
            let block = blocks.of_leaf(part.leaf);
            if last.replace(block) == Some(block) {
                continue;
            }
            let owner = blocks.owner(block);
            if let Some(before) = before.get_mut(owner) {
                tree.add_copy(block * blocks.leaves as u64, all.get(owner, index, *before));
                *before += 1;
            }
        }
        let root: SoftmaxState<'_> = tree.root();
        root.finish(out);
    }
}

/// How many blocks of a board a token attends to.
fn own_blocks(attended: &Attended, blocks: &Blocks) -> usize {
    let mut last = None;
    let parts = attended.parts_from(0).map(|part| blocks.of_leaf(part.leaf));
    parts.filter(|block| last.replace(*block) != Some(*block) && blocks.owner(*block) == blocks.rank).count()
}

/// The sums of all boards: `(boards, items, roots, state_len)`.
struct Sums<'s> {
    all: &'s [f32],
    /// Numbers of a board.
    of_board: usize,
    /// Numbers of a row and KV head.
    of_item: usize,
    /// Numbers of a sum.
    len: usize,
}

impl Sums<'_> {
    fn get(&self, board: usize, item: usize, i: usize) -> &[f32] {
        let at = board * self.of_board + item * self.of_item + i * self.len;
        self.all.part(at..at + self.len)
    }
}
