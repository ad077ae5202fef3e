//! What the boards that share a model exchange in a pass: finished numbers, never sums that are to be added up.
//!
//! ```text
//! layers   x goes from each board to the one with the next layers, and back to the first, which has the logits
//! rows     what each board has computed of a row's columns goes to all others: attention, x, the FFN's gate, x
//! tokens   in `ring_attention` and `shared_attention`
//! ```
//!
//! One board exchanges nothing: each step here begins with a test of what the share is, which a build without the feature
//! `boards` does not have either.

use core::ops::Range;

use super::batch::Batch;
use super::buffers::{Buffers, Inputs};
use super::norm;
use super::pass::Pass;
use super::share::{Share, Split};
use super::shares::MAX_BOARDS;
use crate::arch::{Activations, Quants, QuantsMut};
use crate::boards::{Comm, CommError};
use crate::quant::{BLOCK, Matrix};
use crate::storage::{bytes_of_mut, for_each_tile};
use crate::util::SliceExt;

/// Which columns of a row a board has computed.
type Columns<'c> = &'c dyn Fn(&Share) -> Range<usize>;

/// What this board has computed of the input of a matrix.
pub(super) struct Computed<'x, 'c> {
    /// (tokens, columns(share).len()), in room for all columns
    pub(super) x: &'x mut [f32],
    pub(super) tokens: usize,
    pub(super) columns: Columns<'c>,
}

impl Pass<'_> {
    /// The other boards.
    pub(super) fn comm(&self) -> &dyn Comm {
        #[cfg(feature = "boards")]
        return self.comm;
        #[cfg(not(feature = "boards"))]
        return &crate::boards::Alone;
    }

    /// The residual stream behind the layers of the boards before this one: of the first, the embedding of `tokens`.
    #[inline(always)]
    pub(super) fn enter(
        &self,
        buffers: &mut Buffers<'_>,
        batch: &Batch<'_, '_>,
        tokens: &[u32],
    ) -> Result<(), CommError> {
        match self.share.is(Split::Layers) && self.share.rank() > 0 {
            true => self.receive(self.share.rank() - 1, buffers.x.first_n_mut(tokens.len() * self.own.n_embd)),
            false => {
                self.embed(buffers, batch, tokens);
                Ok(())
            }
        }
    }

    /// Passes the residual stream `x`, `(tokens, n_embd)`, on to the board with the next layers; the first board gets the last
    /// `outputs` rows of it as they are behind all layers.
    #[inline(always)]
    pub(super) fn leave(&self, x: &mut [f32], outputs: usize) -> Result<(), CommError> {
        if self.share.is(Split::Layers) { self.pass_on(x, outputs) } else { Ok(()) }
    }

    #[inline(never)]
    fn pass_on(&self, x: &mut [f32], outputs: usize) -> Result<(), CommError> {
        let (rank, last) = (self.share.rank(), self.share.size() - 1);
        let kept = x.len() - outputs * self.own.n_embd;
        if rank < last {
            self.send(rank + 1, x)?;
        } else if outputs > 0 {
            self.send(0, x.part_mut(kept..x.len()))?;
        }
        if rank == 0 && outputs > 0 { self.receive(last, x.part_mut(kept..x.len())) } else { Ok(()) }
    }

    fn send(&self, to: usize, x: &mut [f32]) -> Result<(), CommError> {
        self.comm().shift(Some((to, bytes_of_mut(x))), None, &mut |_| ())
    }

    #[inline(never)]
    fn receive(&self, from: usize, x: &mut [f32]) -> Result<(), CommError> {
        self.comm().shift(None, Some((from, bytes_of_mut(x))), &mut |_| ())
    }

    /// The new keys and values of all tokens of a pass, where boards divide it.
    #[inline(always)]
    pub(super) fn gather_new_kv(
        &self,
        layer: usize,
        buffers: &mut Buffers<'_>,
        batch: &Batch<'_, '_>,
    ) -> Result<(), CommError> {
        #[cfg(feature = "boards")]
        if batch.stripe().is_part() {
            return self.gather_stripes(layer, buffers, batch);
        }
        let _ = (layer, buffers, batch);
        Ok(())
    }

    /// From `x`, `(tokens, columns(share).len())`, what this board has computed, to `(tokens, cols)`, what all have. `exchange` has
    /// room for as much.
    #[inline(always)]
    pub(super) fn gather(
        &self,
        x: &mut [f32],
        tokens: usize,
        cols: usize,
        columns: Columns<'_>,
        exchange: &mut [f32],
    ) -> Result<(), CommError> {
        match self.share.is(Split::Rows) {
            true if tokens == 1 => self.gather_row(x.first_n_mut(cols), columns),
            true => self.gather_columns(x.first_n_mut(tokens * cols), cols, columns, exchange),
            false => Ok(()),
        }
    }

    /// What all boards have computed of `x`, `(tokens, cols)`, with its norm if there is one, as the input of `matrix`.
    ///
    /// What is quantised for the matrix anyway travels so: int8 and a scale for 32, 9/32 of what the floats would be, and no bit
    /// is lost.
    #[inline(always)]
    pub(super) fn gather_input<'x>(
        &self,
        Computed { x, tokens, columns }: Computed<'x, '_>,
        norm: &[u8],
        inputs: &'x mut Inputs<'_>,
        exchange: &mut [f32],
        matrix: &Matrix<'_>,
    ) -> Result<Activations<'x>, CommError> {
        let cols = matrix.cols();
        if self.share.is(Split::Rows) && norm.is_empty() && self.travels_quantised(columns, matrix) {
            let quants = self.gather_quants(x, tokens, columns, &mut inputs.quants, exchange)?;
            return Ok(Activations { tokens, floats: &[], quants, f16: &[] });
        }
        self.gather(x, tokens, cols, columns, exchange)?;
        let x = x.first_n_mut(tokens * cols);
        if !norm.is_empty() {
            x.rows_mut(cols).for_each(|row| self.norm_in_place(row, norm));
        }
        Ok(self.prepare_input(x, tokens, inputs, &[matrix]))
    }

    /// Whether all columns of a board are whole blocks of an input that only int8 kernels read.
    fn travels_quantised(&self, columns: Columns<'_>, matrix: &Matrix<'_>) -> bool {
        let whole = |board| columns(&self.share.of_board(board)).end.is_multiple_of(BLOCK);
        matrix.dtype().is_quantised() && (0..self.share.size()).all(whole)
    }

    /// Quantises this board's columns, `(tokens, columns(share).len())`, and gathers those of all.
    #[inline(never)]
    fn gather_quants<'q>(
        &self,
        x: &[f32],
        tokens: usize,
        columns: Columns<'_>,
        quants: &'q mut QuantsMut<'_>,
        exchange: &mut [f32],
    ) -> Result<Quants<'q>, CommError> {
        let blocks = |board| {
            let columns = columns(&self.share.of_board(board));
            columns.start / BLOCK..columns.end / BLOCK
        };
        let packed =
            |blocks: &Range<usize>| blocks.start * tokens * QuantsMut::PACKED..blocks.end * tokens * QuantsMut::PACKED;
        let (own, cols) = (blocks(self.share.rank()), columns(&self.share).len());
        for_each_tile(self.executor_for(tokens), quants.columns(own.clone(), tokens), |token, mut tile| {
            self.kernels.quantise(x.row(token, cols), &mut tile);
        });
        let bytes = bytes_of_mut(exchange);
        quants.pack(own.clone(), tokens, bytes.part_mut(packed(&own)));
        let ends = self.ends(columns, tokens * QuantsMut::PACKED).map(|end| end / BLOCK);
        let last = blocks(self.share.size() - 1).end;
        self.comm().all_gather(bytes.part_mut(0..packed(&(0..last)).end), ends.first_n(self.share.size()))?;
        for board in (0..self.share.size()).filter(|board| *board != self.share.rank()) {
            quants.unpack(blocks(board), tokens, bytes.part(packed(&blocks(board))));
        }
        Ok(quants.view(last, tokens))
    }

    /// From what this board has computed of `logits`, `(rows, its part of the vocabulary)`, to `(rows, vocab)`, with all that the
    /// model does to them: of the first board all that are needed. `exchange` may have room for the best of all boards.
    pub(super) fn gather_logits(&self, logits: &mut [f32], exchange: &mut [f32]) -> Result<(), CommError> {
        let vocab = self.model.hparams.vocab;
        #[cfg(feature = "boards")]
        if let Some(best) = self.best_of_each(logits.len() / vocab.max(1), exchange.len()) {
            return self.gather_best(logits, best, exchange);
        }
        let _ = exchange;
        if self.share.is(Split::Rows) {
            self.gather_rows(logits, vocab, &|share| share.rows(vocab))?;
        }
        self.finish_logits(logits, vocab, 0);
        Ok(())
    }

    /// As [`gather`](Pass::gather), a row after another, where `exchange` would have no room for all.
    #[inline(never)]
    fn gather_rows(&self, x: &mut [f32], cols: usize, columns: Columns<'_>) -> Result<(), CommError> {
        let own = columns(&self.share).len();
        let rows = x.len() / cols.max(1);
        // Rows of this board's columns are apart from now on: the last one first, so that none is overwritten.
        for row in (1..rows).rev() {
            move_within(x, row * own..(row + 1) * own, row * cols);
        }
        x.rows_mut(cols).try_for_each(|row| self.gather_row(row, columns))
    }

    /// The columns of all boards in one row, of which this board's are at its start.
    #[inline(never)]
    fn gather_row(&self, row: &mut [f32], columns: Columns<'_>) -> Result<(), CommError> {
        let own = columns(&self.share);
        move_within(row, 0..own.len(), own.start);
        let ends = self.ends(columns, size_of::<f32>());
        self.comm().all_gather(bytes_of_mut(row), ends.first_n(self.share.size()))
    }

    /// Through `exchange`, where the columns of a board are together: `(boards, tokens, a board's columns)`.
    #[inline(never)]
    fn gather_columns(
        &self,
        x: &mut [f32],
        cols: usize,
        columns: Columns<'_>,
        exchange: &mut [f32],
    ) -> Result<(), CommError> {
        let tokens = x.len() / cols.max(1);
        let exchange = exchange.first_n_mut(x.len());
        let own = columns(&self.share);
        norm::copy(x.first_n(tokens * own.len()), exchange.part_mut(tokens * own.start..tokens * own.end));
        let ends = self.ends(columns, tokens * size_of::<f32>());
        self.comm().all_gather(bytes_of_mut(exchange), ends.first_n(self.share.size()))?;
        for board in 0..self.share.size() {
            let columns = columns(&self.share.of_board(board));
            let part = exchange.part(tokens * columns.start..tokens * columns.end);
            for (row, part) in x.rows_mut(cols).zip(part.rows(columns.len())) {
                norm::copy(part, row.part_mut(columns.clone()));
            }
        }
        Ok(())
    }

    /// Where the columns of each board end, of `bytes` bytes each.
    fn ends(&self, columns: Columns<'_>, bytes: usize) -> [usize; MAX_BOARDS] {
        let mut ends = [0; MAX_BOARDS];
        for (board, end) in ends.first_n_mut(self.share.size()).iter_mut().enumerate() {
            *end = columns(&self.share.of_board(board)).end * bytes;
        }
        ends
    }
}

/// Copies the numbers in `from` to where `to` is, if both are there.
fn move_within(x: &mut [f32], from: Range<usize>, to: usize) {
    if from.start <= from.end && from.end.max(to + from.len()) <= x.len() {
        x.copy_within(from, to);
    }
}
