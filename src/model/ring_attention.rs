//! Ring Attention (Liu et al. 2023, arXiv 2310.01889): a prompt that several boards read together, each of which has some of the
//! positions in its cache.
//!
//! A board computes every so many-th token of a pass, with all weights. Its tokens attend to all positions: those of the pass,
//! whose keys and values all boards give each other; and older ones, which go round as pieces of 512 positions:
//!
//! ```text
//! board   0            1            2                     a piece at a time, in order of positions
//! cache   a b · · g h  · · c d · ·  · · · · e f
//!         a →          a →          a                     each board gets a piece from the one before it, and while it attends
//!         b →          b →          b                     to that it sends it on and gets the next: the network works while
//!         c            c →          c → (to board 0)      the CPU does
//! ```
//!
//! In order of positions, since [`MergeTree`] adds up parts in that order: a token's attention has the bits of one board's. The
//! ring of the paper, in which each board begins with what it has and adds up what comes, has other bits for each number of
//! boards. What a token has added up so far waits in the tree's states until the next piece comes.

use super::attention::AttentionPass;
use super::batch::Batch;
use super::buffers::{Buffers, Progress, RelayBuffers};
use super::cache::{HeldPiece, LayerGroup};
use super::kv_buffer::{Kv, KvBuffer, KvShape};
use super::merge_tree::MergeTree;
use super::pass::Pass;
use super::shares::MAX_BOARDS;
use crate::boards::{Comm, CommError};
use crate::storage::{Blocks, Grid, Piece, bytes_of_mut, for_each_tile};
use crate::util::SliceExt;

/// How often a board turns to the network while it attends to a piece.
const POLLS: usize = 10;

impl Pass<'_> {
    /// Gives the other boards the new keys and values of this board's tokens, and has theirs.
    ///
    /// # Errors
    /// [`CommError`].
    #[inline(never)]
    pub(super) fn gather_stripes(
        &self,
        layer: usize,
        buffers: &mut Buffers<'_>,
        batch: &Batch<'_, '_>,
    ) -> Result<(), CommError> {
        let (stripe, tokens, size) = (batch.stripe(), batch.tokens(), self.share.size());
        let Some(mut new) = batch.new_kv_mut(self.own, layer, &mut buffers.new_kv, 0) else { return Ok(()) };
        let token_bytes = KvShape { slots: 1, ..*new.shape() }.bytes();
        let token_bytes = token_bytes.rows + token_bytes.scales;
        let stripe_of = |board| self.share.of_board(board).stripe(tokens, 0);
        // (boards, a board's tokens, token_bytes)
        let mut ends = [0; MAX_BOARDS];
        let mut end = 0;
        for (board, to) in ends.first_n_mut(size).iter_mut().enumerate() {
            end += stripe_of(board).len(tokens) * token_bytes;
            *to = end;
        }
        let start = |board: usize| board.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
        let all = bytes_of_mut(buffers.exchange).first_n_mut(end);
        let own = all.part_mut(start(self.share.rank())..end);
        for (i, bytes) in own.rows_mut(token_bytes).take(stripe.len(tokens)).enumerate() {
            pack(&mut new, stripe.token(i), |kept, packed| packed.copy_from_slice(kept), bytes);
        }
        self.comm().all_gather(all, ends.first_n(size))?;
        for board in (0..size).filter(|board| *board != self.share.rank()) {
            let (stripe, others) = (stripe_of(board), all.part_mut(start(board)..end));
            for (i, bytes) in others.rows_mut(token_bytes).take(stripe.len(tokens)).enumerate() {
                pack(&mut new, stripe.token(i), |kept, packed| kept.copy_from_slice(packed), bytes);
            }
        }
        Ok(())
    }
}

/// Calls `copy` with each row and scale of a token, and with its place in `packed`: (2, n_kv_heads) rows, each with its scale.
fn pack(new: &mut KvBuffer<&mut [u8]>, slot: usize, copy: impl Fn(&mut [u8], &mut [u8]), mut packed: &mut [u8]) {
    let heads = new.shape().kv_heads;
    for (kv, head) in [Kv::Key, Kv::Value].into_iter().flat_map(|kv| (0..heads).map(move |head| (kv, head))) {
        let kept = new.row_mut(kv, 0, head, slot);
        for kept in [kept.row, kept.scale] {
            let Some((first, rest)) = core::mem::take(&mut packed).split_at_mut_checked(kept.len()) else { return };
            copy(kept, first);
            packed = rest;
        }
    }
}

impl AttentionPass<'_, '_, '_> {
    /// Attention of this board's rows: `states` is `(rows, n_kv_heads, states, state_len)`, `out` `(rows, n_kv_heads, group ·
    /// head_dim)`.
    ///
    /// # Errors
    /// [`CommError`].
    pub(super) fn attend_by_relay(
        &self,
        states: &mut [f32],
        relay: &mut RelayBuffers<'_>,
        out: &mut [f32],
    ) -> Result<(), CommError> {
        let Some(first) = self.batch.caches().next() else { return Ok(()) };
        let (group, layer) = first.group(self.hparams(), self.layer);
        let rows = self.batch.rows();
        let width = relay.states * self.state_len();
        let items = rows * self.heads.get();
        let states = states.first_n_mut(items * width);
        let RelayBuffers { pieces: [held, next], progress, .. } = relay;
        let progress = progress.first_n_mut(items);
        progress.fill(Progress::default());

        let mut items = Items { states, width, progress };
        let mut ring = Relay { comm: self.pass.comm(), blocks: self.pass.share.blocks(), group, layer, sent: false };
        let mut pieces = group.ring().pieces(first.position(), self.batch.tokens()).peekable();
        ring.step(None, pieces.peek().map(|piece| (piece, &mut **next)), &mut |_| ())?;
        while let Some(piece) = pieces.next() {
            core::mem::swap(held, next);
            let (shape, held) = (ring.shape(&piece), held.first_n(ring.bytes(&piece)));
            let (rows, scales) = held.split_at_checked(shape.bytes().rows).unwrap_or_default();
            let old = KvBuffer::over(shape, rows, scales).map(|buffer| HeldPiece { piece, buffer });
            let pass = self.with_old(old);
            let mut work = |poll: &dyn Fn()| pass.attend_rows(piece.part, &mut items, poll);
            ring.step(Some((&piece, held)), pieces.peek().map(|piece| (piece, &mut **next)), &mut work)?;
        }
        self.finish_rows(&mut items, out);
        Ok(())
    }

    /// Attention of all rows to part `number`, where they attend to it, with a look at the network now and then.
    fn attend_rows(&self, number: u64, items: &mut Items<'_>, poll: &dyn Fn()) {
        let (len, group, width) = (self.state_len(), self.hparams().group(), items.width);
        let all = items.progress.len();
        let slice = all.div_ceil(POLLS).max(1);
        for first in (0..all).step_by(slice) {
            let range = first..all.min(first + slice);
            let states = items.states.part_mut(range.start * width..range.end * width);
            let outputs = ([Grid::rows(states, width)], [Grid::rows(items.progress.part_mut(range), 1)]);
            for_each_tile(self.pass.exec, outputs, |i, ([mut states], [mut progress])| {
                let ([progress, ..], item) = (progress.row(0), first + i) else { return };
                let [next, of_tree @ ..] = *progress;
                let Some(attended) = self.attended(item / self.heads) else { return };
                let Some(part) = attended.part(next as usize).filter(|part| part.number() == number) else { return };
                let mut tree = MergeTree::resume(states.row(0), len, group, of_tree);
                self.attend_part(item, &part, &mut tree.next());
                tree.add_next(part.leaf);
                let [waiting, leaf, forks] = tree.progress();
                *progress = [next + 1, waiting, leaf, forks];
            });
            poll();
        }
    }

    /// The attention of rows that have attended to all parts.
    fn finish_rows(&self, items: &mut Items<'_>, out: &mut [f32]) {
        let (len, group) = (self.state_len(), self.hparams().group());
        let Items { states, width, progress } = items;
        let outputs = [Grid::rows(out, group * self.head.dim), Grid::rows(states, *width)];
        for_each_tile(self.pass.exec, outputs, |item, [mut out, mut states]| {
            let Some([_, of_tree @ ..]) = progress.get(item) else { return };
            MergeTree::resume(states.row(0), len, group, *of_tree).root().finish(out.row(0));
        });
    }
}

/// What rows and KV heads have added up so far.
struct Items<'i> {
    /// (rows, n_kv_heads, states, state_len)
    states: &'i mut [f32],
    /// Numbers of the states of a row and KV head.
    width: usize,
    /// (rows, n_kv_heads)
    progress: &'i mut [Progress],
}

/// How a layer's pieces go round.
struct Relay<'r, 'c> {
    comm: &'r dyn Comm,
    blocks: Blocks,
    group: &'r LayerGroup<'c>,
    /// Number of the layer in its group.
    layer: usize,
    /// Whether the board behind this one has the next piece.
    sent: bool,
}

impl Relay<'_, '_> {
    fn shape(&self, piece: &Piece) -> KvShape {
        KvShape { layers: 1, slots: piece.slots(), ..*self.group.buffer.shape() }
    }

    fn bytes(&self, piece: &Piece) -> usize {
        let bytes = self.shape(piece).bytes();
        bytes.rows + bytes.scales
    }

    /// The board that has it in its cache.
    fn owner(&self, piece: &Piece) -> usize {
        self.blocks.owner(self.blocks.of_leaf(piece.leaf()))
    }

    /// While `work` attends to `piece`, sends it on unless all boards have it then, and has the next one behind that: from the
    /// board before this one, or from this board's cache. A piece of the latter is sent a step ahead, where nothing else is to be
    /// sent: two boards never wait for each other's pieces, and more of them once where the owner changes.
    ///
    /// No two boards wait for each other: a piece's hop from board to board needs its hop before that, and earlier pieces.
    fn step(
        &mut self,
        piece: Option<(&Piece, &[u8])>,
        next: Option<(&Piece, &mut [u8])>,
        work: &mut dyn FnMut(&dyn Fn()),
    ) -> Result<(), CommError> {
        let Blocks { rank, size, .. } = self.blocks;
        let (before, behind) = ((rank + size - 1) % size, (rank + 1) % size);
        let sent = core::mem::take(&mut self.sent);
        let to = piece.filter(|(piece, bytes)| !bytes.is_empty() && self.owner(piece) != behind && !sent);
        let mut to = to.map(|(_, bytes)| (behind, bytes));
        let mut from = None;
        if let Some((piece, bytes)) = next.filter(|(piece, _)| piece.slots() > 0) {
            let bytes = bytes.first_n_mut(self.bytes(piece));
            if self.owner(piece) != rank {
                from = Some((before, bytes));
            } else {
                self.fetch(piece, bytes);
                self.sent = to.is_none();
                to = to.or(Some((behind, bytes)));
            }
        }
        if to.is_none() && from.is_none() {
            work(&|| ());
            return Ok(());
        }
        self.comm.shift(to, from, work)
    }

    /// Copies a piece of this board's from its cache.
    fn fetch(&self, piece: &Piece, bytes: &mut [u8]) {
        let shape = self.shape(piece);
        let (rows, scales) = bytes.split_at_mut_checked(shape.bytes().rows).unwrap_or_default();
        if let Some(mut held) = KvBuffer::over(shape, rows, scales) {
            self.group.copy_piece(self.layer, piece, &mut held);
        }
    }
}
