//! Matrix times activations, for one token or many.
//!
//! ```text
//!              one token, or a few              a prompt
//! quantised    rows    in place                 panel   16 or 32 rows interleaved, once for 128 tokens
//! binary16     halves  in place, in binary16, where the CPU can; else as other floats
//! float        float   in place                 float   8 or 16 rows widened, once for 128 tokens
//! packed file  panel   in place                 panel   in place
//! ```
//!
//! Each path of quantised weights computes, for each row and token, one sum in one order:
//!
//! 1. The 32 products of a block of quants are added exactly, in integers, so how a backend does it cannot show.
//! 2. A row has one `f32` for each token, to which blocks are added in order, each scaled by the product of the
//!    weight's and the activation's scale. How many tokens or rows share a vector does not show either.
//!
//! So one token at a time and a whole prompt give the same bits, in any chunks. Float weights have one order for up to
//! eight tokens, and another for more, see [`float`]; and where the CPU computes with binary16 some meet it, see
//! [`gemv_f16`].

use core::ops::Range;

use super::accumulators::{Accumulators, TOKENS};
use super::activations::Activations;
use super::cursor::PanelCursor;
use super::{float, gemm, gemv, gemv_f16, gemv_quantised};
use crate::arch::isa::{FloatIsa, PanelIsa};
use crate::arch::unroll::unroll;
use crate::quant::{DType, Layout, Matrix, PANEL_ROWS};
use crate::storage::Tile;
use crate::util::SliceExt;

/// What to do with a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Overwrite what was there.
    Set,
    /// Add to what was there: the residual.
    Add,
}

/// Fewest tokens for which interleaving weights pays.
pub(in crate::arch) const MIN_TOKENS_TO_PACK: usize = 8;
/// Fewest tokens for which widening weights pays: more than a batch of sessions, which has the bits of each alone.
const MIN_TOKENS_TO_WIDEN: usize = 9;

/// A product to compute: rows of a matrix times all tokens, to the columns of `out`.
pub(super) struct Job<'a, 'o, 'w> {
    pub(super) w: Matrix<'w>,
    pub(super) rows: Range<usize>,
    /// By value, like the matrix: what the results are written to cannot be either, and the compiler sees it.
    pub(super) x: Activations<'a>,
    pub(super) out: &'a mut Tile<'o, f32>,
    pub(super) write: Write,
}

/// See [`Kernels::matmul`](crate::arch::Kernels::matmul).
#[inline(always)]
pub(in crate::arch) fn matmul<S: PanelIsa + FloatIsa>(
    isa: S,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Activations<'_>,
    out: &mut Tile<'_, f32>,
    write: Write,
) {
    let rows = rows.start.min(w.rows())..rows.end.min(w.rows());
    // All of a pass decide, not those of a tile: so what shares a tile with a token does not show.
    let many = x.tokens >= MIN_TOKENS_TO_WIDEN;
    let x = x.part(out.rows());
    let job = Job { w: *w, rows, x, out, write };
    match w.dtype() {
        DType::Q8_0 => job.quantised::<gemv_quantised::Q8_0, gemm::Q8_0, S, 544, 34>(isa),
        DType::Q4_0 => job.quantised::<gemv_quantised::Q4_0, gemm::Q4_0, S, 288, 18>(isa),
        DType::Q4_1 => job.quantised::<gemv_quantised::Q4_1, gemm::Q4_1, S, 320, 20>(isa),
        // Firmware has room for one way to multiply what it hardly ever meets.
        kind if many || (cfg!(target_os = "none") && kind != DType::F16) => {
            float::multiply(isa, &mut { job });
        }
        // A token at a time where that is rare: each tile of two is another two kilobytes of code.
        DType::F32 => gemv::multiply::<float::Lanes<float::F32, 64>, S, 1>(isa, &mut { job }),
        DType::F16 if S::F16_PRODUCTS && !job.x.halves.is_empty() => {
            gemv::multiply::<gemv_f16::F16Rows<float::F16>, S, 2>(isa, &mut { job });
        }
        DType::F16 if S::F16_PRODUCTS => gemv::multiply::<float::Lanes<float::F16, 32>, S, 1>(isa, &mut { job }),
        DType::F16 => gemv::multiply::<float::Lanes<float::F16, 32>, S, 2>(isa, &mut { job }),
        DType::Bf16 => gemv::multiply::<float::Lanes<float::Bf16, 32>, S, 1>(isa, &mut { job }),
    }
}

impl<'w> Job<'_, '_, 'w> {
    /// Quantised weights. A block has `B` bytes, 16 interleaved ones `P`.
    #[inline(always)]
    fn quantised<R, F, S, const P: usize, const B: usize>(mut self, isa: S)
    where
        R: gemv_quantised::Format<B>,
        F: gemm::Format<P, B>,
        S: PanelIsa + FloatIsa,
    {
        match self.w.layout() {
            Layout::Rows if self.x.tokens < MIN_TOKENS_TO_PACK => {
                gemv::multiply::<gemv_quantised::Quantised<R, B>, S, 4>(isa, &mut self);
            }
            Layout::Rows => self.interleaved::<F, S, P, B>(isa),
            Layout::Panels if self.x.tokens == 1 => self.packed_one::<F, S, P, B>(isa),
            Layout::Panels => self.packed::<F, S, P, B>(isa),
        }
    }

    /// Rows as they lie in a GGUF file: blocks of 16 rows, or of 32, are interleaved and meet [`TOKENS`].
    #[inline(always)]
    fn interleaved<F: gemm::Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(&mut self, isa: S) {
        let rows = self.rows.clone();
        let twos = if S::PANELS == 2 { rows.len() / (2 * PANEL_ROWS) * (2 * PANEL_ROWS) } else { 0 };
        if S::PANELS == 2 {
            self.panels::<F, S, P, B, 2>(isa, rows.start..rows.start + twos);
        }
        self.panels::<F, S, P, B, 1>(isa, rows.start + twos..rows.end);
    }

    /// Some of the rows, those of `N` panels at a time.
    #[inline(always)]
    fn panels<F: gemm::Format<P, B>, S: PanelIsa, const P: usize, const B: usize, const N: usize>(
        &mut self,
        isa: S,
        rows: Range<usize>,
    ) {
        let mut room = Accumulators::<[[f32; PANEL_ROWS]; N]>::new();
        let (all, stride) = (self.w.rows_bytes(rows.clone()), self.w.row_bytes());
        for (first, rows) in rows.step_by(N * PANEL_ROWS).zip(all.chunks_of(N * PANEL_ROWS * stride)) {
            for token in (0..self.x.tokens).step_by(TOKENS) {
                let sums = room.zeroed(self.x.tokens - token);
                let mut rows = PanelCursor::new(rows, stride);
                let mut b = 0;
                while let Some(rows) = rows.next::<S, N>(isa) {
                    let mut blocks = [[0; P]; N];
                    unroll!(n in 0..N => { blocks[n] = gemm::interleave::<F, S, P, B>(isa, rows[n]) });
                    gemm::add::<F, S, P, B, N>(isa, &blocks, b, &self.x, token, sums);
                    b += 1;
                }
                gemm::finish(isa, sums);
                for (t, sums) in sums.iter().enumerate() {
                    unroll!(n in 0..N => { self.put(first + n * PANEL_ROWS, token + t, &sums[n]) });
                }
            }
        }
    }

    /// Panels where they lie, and one token.
    #[inline(always)]
    fn packed_one<F: gemm::Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(&mut self, isa: S) {
        let mut row = self.rows.start;
        while let Some((blocks, skip)) = self.panel(row) {
            let sums = gemm::one::<F, S::Single, P, B>(isa.single(), blocks, &self.x, 0);
            self.put(row, 0, sums.get(skip..).unwrap_or(&[]));
            row += PANEL_ROWS - skip;
        }
    }

    /// Panels where they lie.
    #[inline(always)]
    fn packed<F: gemm::Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(&mut self, isa: S) {
        let mut room = Accumulators::<[[f32; PANEL_ROWS]; 1]>::new();
        let mut row = self.rows.start;
        while let Some((blocks, skip)) = self.panel::<P>(row) {
            for token in (0..self.x.tokens).step_by(TOKENS) {
                let sums = room.zeroed(self.x.tokens - token);
                for (b, block) in blocks.iter().enumerate() {
                    gemm::add::<F, S, P, B, 1>(isa, core::array::from_ref(block), b, &self.x, token, sums);
                }
                gemm::finish(isa, sums);
                for (t, [sums]) in sums.iter().enumerate() {
                    self.put(row, token + t, sums.get(skip..).unwrap_or(&[]));
                }
            }
            row += PANEL_ROWS - skip;
        }
    }

    /// The blocks of the panel that `row` is in, and its place there; none behind the last row.
    #[inline(always)]
    fn panel<const P: usize>(&self, row: usize) -> Option<(&'w [[u8; P]], usize)> {
        (row < self.rows.end).then(|| (self.w.panel(row / PANEL_ROWS).as_chunks().0, row % PANEL_ROWS))
    }

    /// Writes the sums of the rows from `row` on, as far as they are asked for.
    #[inline(always)]
    pub(super) fn put(&mut self, row: usize, token: usize, sums: &[f32]) {
        let valid = sums.len().min(self.rows.end - row);
        let out = self.out.row(token).get_mut(row - self.rows.start..).unwrap_or(&mut []);
        write_to(out, sums.first_n(valid), self.write);
    }
}

/// Writes `sums` as far as `out` goes: a panel's rows at once, else by fours, because a copy of unknown length is a call.
#[inline(always)]
pub(super) fn write_to(out: &mut [f32], sums: &[f32], write: Write) {
    if let (Some(out), Ok(sums)) = (out.first_chunk_mut(), <&[f32; PANEL_ROWS]>::try_from(sums)) {
        match write {
            Write::Set => *out = *sums,
            Write::Add => (0..PANEL_ROWS).for_each(|i| out[i] += sums[i]),
        }
        return;
    }
    let n = sums.len().min(out.len());
    let ((out, rest), (sums, last)) = (out.first_n_mut(n).as_chunks_mut::<4>(), sums.first_n(n).as_chunks::<4>());
    let fours = out.iter_mut().zip(sums);
    let ones = rest.iter_mut().zip(last);
    match write {
        Write::Set => {
            fours.for_each(|(out, sums)| *out = *sums);
            ones.for_each(|(out, sum)| *out = *sum);
        }
        Write::Add => {
            fours.for_each(|(out, sums)| (0..4).for_each(|i| out[i] += sums[i]));
            ones.for_each(|(out, sum)| *out += sum);
        }
    }
}
