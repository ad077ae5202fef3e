//! Matrix times activations, for one token or many.
//!
//! ```text
//!              one token, or a few              a prompt
//! quantised    rows    in place                 panel   16 rows interleaved, once for 64 tokens
//! float        float   in place                 float   4 rows widened, once for 64 tokens
//! packed file  panel   in place                 panel   in place
//! ```
//!
//! Every path computes, for each row and token, one sum in one order:
//!
//! 1. The 32 products of a block of quants are added exactly, in integers, so how a backend does it cannot show.
//! 2. A row has one `f32` for each token, to which blocks are added in order, each scaled by the product of the
//!    weight's and the activation's scale. How many tokens or rows share a vector does not show either.
//! 3. Float weights have eight partial sums along the row, folded in a fixed order.
//!
//! So one token at a time and a whole prompt give the same bits, in any chunks.

use core::ops::Range;

use super::activations::Activations;
use super::walk::{Four, ROWS};
use super::{float, panel, rows};
use crate::arch::isa::{Isa, PanelIsa};
use crate::quant::{DType, Layout, Matrix, PANEL_ROWS};
use crate::storage::Tile;

/// What to do with a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Overwrite what was there.
    Set,
    /// Add to what was there: the residual.
    Add,
}

/// Fewest tokens for which interleaving or widening weights pays.
const MANY: usize = 8;
/// Tokens that one interleaved piece of a panel serves.
const TOKENS: usize = 64;
/// Blocks of such a piece: 512 columns, at most 8.5 KiB.
const PIECE: usize = 16;

/// A product to compute: rows of a matrix times all tokens, to the columns of `out`.
struct Job<'a, 'o, 'w> {
    w: Matrix<'w>,
    rows: Range<usize>,
    /// By value, like the matrix: what the results are written to cannot be either, and the compiler sees it.
    x: Activations<'a>,
    tokens: usize,
    out: &'a mut Tile<'o, f32>,
    write: Write,
}

/// See [`Kernels::matmul`](crate::arch::Kernels::matmul).
#[inline(always)]
pub(in crate::arch) fn matmul<S: PanelIsa>(
    isa: S,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Activations<'_>,
    out: &mut Tile<'_, f32>,
    write: Write,
) {
    let rows = rows.start.min(w.rows())..rows.end.min(w.rows());
    let tokens = x.tokens.min(out.rows());
    let job = Job { w: *w, rows, x: *x, tokens, out, write };
    match w.dtype() {
        DType::Q8_0 => job.quantised::<rows::Q8_0, panel::Q8_0, S, 544, 34>(isa),
        DType::Q4_0 => job.quantised::<rows::Q4_0, panel::Q4_0, S, 288, 18>(isa),
        DType::Q4_1 => job.quantised::<rows::Q4_1, panel::Q4_1, S, 320, 20>(isa),
        DType::F32 => job.float::<float::F32, S, 64>(isa),
        DType::F16 => job.float::<float::F16, S, 32>(isa),
        DType::Bf16 => job.float::<float::Bf16, S, 32>(isa),
    }
}

impl<'a, 'w> Job<'a, '_, 'w> {
    /// Quantised weights. A block has `B` bytes, 16 interleaved ones `P`.
    #[inline(always)]
    fn quantised<R, F, S, const P: usize, const B: usize>(mut self, isa: S)
    where
        R: rows::Format<B>,
        F: panel::Format<P, B>,
        S: PanelIsa,
    {
        match self.w.layout() {
            Layout::Panels if self.tokens == 1 => self.packed::<F, S, P, B, 1>(isa),
            Layout::Panels => self.packed::<F, S, P, B, TOKENS>(isa),
            Layout::Rows if self.tokens >= MANY => self.interleaved::<F, S, P, B>(isa),
            Layout::Rows => self.few(
                |rows, x, token| rows::tile::<R, S, 4, B>(isa, rows, x, token),
                |rows, x, token| rows::tile::<R, S, 1, B>(isa, rows, x, token),
            ),
        }
    }

    /// Float weights. Sixteen have `B` bytes.
    #[inline(always)]
    fn float<F: float::Format<B>, S: Isa, const B: usize>(mut self, isa: S) {
        if self.tokens < MANY {
            return self.few(
                |rows, x, token| float::in_place::<F, S, 2, B>(isa, rows, x, token),
                |rows, x, token| float::in_place::<F, S, 1, B>(isa, rows, x, token),
            );
        }
        let mut sums = [[[0.0; 8]; ROWS]; float::TOKENS];
        for first in self.rows.clone().step_by(ROWS) {
            let rows = self.rows_from(first);
            for token in (0..self.tokens).step_by(float::TOKENS) {
                let sums = &mut sums[..(self.tokens - token).min(float::TOKENS)];
                float::pieces::<F, S, B>(isa, rows, &self.x, token, sums);
                for (t, sums) in sums.iter().enumerate() {
                    self.put(first, token + t, &float::finish(isa, sums));
                }
            }
        }
    }

    /// Four rows at a time where they lie, `T` tokens at a time while there are as many.
    #[inline(always)]
    fn few<const T: usize>(
        &mut self,
        tile: impl Fn(Four<'w>, &Activations<'a>, usize) -> [[f32; ROWS]; T],
        one: impl Fn(Four<'w>, &Activations<'a>, usize) -> [[f32; ROWS]; 1],
    ) {
        for first in self.rows.clone().step_by(ROWS) {
            let rows = self.rows_from(first);
            let mut token = 0;
            while token + T <= self.tokens {
                for (t, sums) in tile(rows, &self.x, token).iter().enumerate() {
                    self.put(first, token + t, sums);
                }
                token += T;
            }
            while token < self.tokens {
                self.put(first, token, &one(rows, &self.x, token)[0]);
                token += 1;
            }
        }
    }

    /// Rows as they lie in a GGUF file: piece by piece, 16 rows are interleaved and meet 64 tokens.
    #[inline(always)]
    fn interleaved<F: panel::Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(&mut self, isa: S) {
        let mut piece = [[0; P]; PIECE];
        let mut sums = [[0.0; PANEL_ROWS]; TOKENS];
        for first in self.rows.clone().step_by(PANEL_ROWS) {
            let rows: [&'w [u8]; PANEL_ROWS] = core::array::from_fn(|r| self.w.row((first + r).min(self.rows.end - 1)));
            let blocks = rows[0].len() / B;
            for token in (0..self.tokens).step_by(TOKENS) {
                let sums = &mut sums[..(self.tokens - token).min(TOKENS)];
                sums.fill([0.0; PANEL_ROWS]);
                for done in (0..blocks).step_by(PIECE) {
                    let piece = &mut piece[..(blocks - done).min(PIECE)];
                    panel::interleave::<F, S, P, B>(isa, &rows.map(|r| r.get(done * B..).unwrap_or(&[])), piece);
                    panel::multiply::<F, S, P, B>(isa, piece, &self.x, token, done, sums);
                }
                for (t, sums) in sums.iter().enumerate() {
                    self.put(first, token + t, sums);
                }
            }
        }
    }

    /// Panels where they lie, for `T` tokens at a time.
    #[inline(always)]
    fn packed<F: panel::Format<P, B>, S: PanelIsa, const P: usize, const B: usize, const T: usize>(&mut self, isa: S) {
        let mut sums = [[0.0; PANEL_ROWS]; T];
        let mut row = self.rows.start;
        while row < self.rows.end {
            let (p, skip) = (row / PANEL_ROWS, row % PANEL_ROWS);
            let blocks = self.w.panel(p).as_chunks::<P>().0;
            for token in (0..self.tokens).step_by(T) {
                let sums = &mut sums[..(self.tokens - token).min(T)];
                sums.fill([0.0; PANEL_ROWS]);
                panel::multiply::<F, S, P, B>(isa, blocks, &self.x, token, 0, sums);
                for (t, sums) in sums.iter().enumerate() {
                    self.put(row, token + t, &sums[skip..]);
                }
            }
            row += PANEL_ROWS - skip;
        }
    }

    /// Four rows from `first` on.
    #[inline(always)]
    fn rows_from(&self, first: usize) -> Four<'w> {
        let last = (first + ROWS).min(self.rows.end);
        Four::new(self.w.rows_bytes(first..last), self.w.row_bytes())
    }

    /// Writes the sums of the rows from `row` on, as far as they are asked for.
    #[inline(always)]
    fn put(&mut self, row: usize, token: usize, sums: &[f32]) {
        let valid = sums.len().min(self.rows.end - row);
        let out = self.out.row(token).get_mut(row - self.rows.start..).unwrap_or(&mut []);
        match (out.first_chunk_mut::<ROWS>(), sums.first_chunk::<ROWS>()) {
            (Some(out), Some(sums)) if valid == ROWS => write_to(out, sums, self.write),
            _ => write_to(out, &sums[..valid], self.write),
        }
    }
}

#[inline(always)]
fn write_to(out: &mut [f32], sums: &[f32], write: Write) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = if write == Write::Add { *out + sum } else { *sum };
    }
}
