//! Float weights.
//!
//! For a few tokens a GEMV reads the weights in place: lanes along the row, eight partial sums in a fixed order.
//!
//! For many tokens a GEMM widens eight or sixteen rows at a time to `f32` and transposes them once, in pieces that stay in
//! the first-level cache, and multiplies each piece with all tokens, eight at a time. Lanes are rows there, so that an
//! activation is a factor for a whole vector, which NEON takes from a lane: four columns of a token are one load and eight
//! multiplications. 16 NEON accumulators, four columns of weights in 8 registers and a token's in one fill the register
//! file without spilling. AVX-512 has sixteen rows in a vector and multiplies with an activation in memory.
//!
//! In the GEMM each sum goes along the row from its start, however it is cut into pieces and tiles. So the two round
//! differently: by no more than 2·n·2⁻²⁴·Σ|w·x| for rows of n, since each is within half of that of the exact sum (Higham,
//! Accuracy and Stability of Numerical Algorithms, 2002, §3.1).

use core::marker::PhantomData;

use super::accumulators::{Accumulators, MAX_TOKENS};
use super::activations::Activations;
use super::cursor::{RowCursor, RowQuad, Zip};
use super::gemv::RowKernel;
use super::job::Job;
use super::padded::{padded, padded_block};
use crate::arch::isa::{FloatIsa, Int8Isa, Isa};
use crate::arch::types::{BlockQuad, ROWS};
use crate::arch::unroll::{unroll, unroll_array};
use crate::quant::{Block, DType};
use crate::util::SliceExt;

/// A float format.
pub(super) trait Format {
    /// Sixteen weights.
    type Sixteen: Block;
    /// Sixteen weights of each of four rows.
    fn load<I: Isa>(isa: I, step: BlockQuad<'_, '_, Self::Sixteen>) -> [[I::F32x8; 2]; ROWS];
}

/// Defines a float format: the bytes of sixteen weights, and the load.
macro_rules! float {
    ($name:ident, $bytes:literal, $load:ident) => {
        pub(super) struct $name;
        impl Format for $name {
            type Sixteen = [u8; $bytes];
            #[inline(always)]
            fn load<I: Isa>(isa: I, step: BlockQuad<'_, '_, [u8; $bytes]>) -> [[I::F32x8; 2]; ROWS] {
                isa.$load(step)
            }
        }
    };
}
float!(F32, 64, f32x16);
float!(F16, 32, f16x16);
float!(Bf16, 32, bf16x16);

/// Partial sums of four rows for one token.
type Sums<I> = [<I as Isa>::F32x8; ROWS];

/// Weights of a piece: 20 KiB, of the 32 that a small core has next to it; on the stack of firmware 8. At the start of a line
/// of the cache, so that no vector is in two.
#[repr(align(64))]
struct Piece([f32; if cfg!(target_os = "none") { 2048 } else { 5120 }]);

/// Rows of a format, as a [`RowKernel`].
pub(super) struct Lanes<F>(PhantomData<F>);

impl<F: Format> RowKernel for Lanes<F> {
    type Tokens<'a, const T: usize> = [&'a [f32]; T];
    type Sums<I: Int8Isa> = [f32; ROWS];

    #[inline(always)]
    fn tokens<'a, const T: usize>(x: &Activations<'a>, token: usize) -> [&'a [f32]; T] {
        columns(x, token, 0)
    }

    #[inline(always)]
    fn tile<I: FloatIsa + Int8Isa, const T: usize>(isa: I, rows: RowQuad<'_>, x: [&[f32]; T]) -> [[f32; ROWS]; T] {
        let mut acc = [[isa.splat8(0.0); ROWS]; T];
        walk::<F, I, T>(isa, rows, x, &mut acc);
        // The columns after the last whole sixteen, padded with zeros, in the same lanes.
        let whole = rows.row_bytes() / size_of::<F::Sixteen>();
        if whole * size_of::<F::Sixteen>() < rows.row_bytes() {
            let tails = tails::<F>(rows, whole);
            let x: [[f32; 16]; T] = core::array::from_fn(|t| padded(x[t].get(whole * 16..).unwrap_or(&[])));
            walk::<F, I, T>(isa, RowQuad::of_blocks(&tails), x.each_ref().map(<[f32; 16]>::as_slice), &mut acc);
        }
        let mut sums = [[0.0; ROWS]; T];
        unroll!(t in 0..T => { unroll!(r in 0..ROWS => { sums[t][r] = isa.sum8(acc[t][r]) }) });
        sums
    }
    #[inline(always)]
    fn tile_of_one<I: FloatIsa + Int8Isa>(isa: I, rows: RowQuad<'_>, x: [&[f32]; 1]) -> [f32; ROWS] {
        let [sums] = Self::tile::<I, 1>(isa, rows, x);
        sums
    }
}

/// What four rows have after their first `whole` × 16 columns, less than sixteen, padded with zeros.
#[inline(always)]
fn tails<F: Format>(rows: RowQuad<'_>, whole: usize) -> [F::Sixteen; ROWS] {
    core::array::from_fn(|r| padded_block(rows.row(r).get(whole * size_of::<F::Sixteen>()..).unwrap_or(&[])))
}

/// Columns `first..` of tokens `token..token + T`.
#[inline(always)]
fn columns<'a, const T: usize>(x: &Activations<'a>, token: usize, first: usize) -> [&'a [f32]; T] {
    let cols = x.floats.len() / x.tokens.max(1);
    core::array::from_fn(|t| x.floats.get((token + t) * cols..).and_then(|x| x.get(first..cols)).unwrap_or(&[]))
}

/// Adds the products of four rows and `T` tokens, sixteen columns at a time, as far as they are whole.
#[inline(always)]
fn walk<F: Format, I: Isa, const T: usize>(isa: I, rows: RowQuad<'_>, x: [&[f32]; T], sums: &mut [Sums<I>; T]) {
    let mut x = Zip::new(x.map(|x| x.as_chunks::<16>().0));
    let mut rows = RowCursor::<F::Sixteen>::new(rows, x.left());
    let mut acc = *sums;
    while let Some(step) = rows.next() {
        let w = F::load(isa, step);
        rows.prefetch(isa);
        // SAFETY: there are at most `x.left()` steps.
        let x = unsafe { x.next() };
        unroll!(half in 0..2 => {
            unroll!(t in 0..T => {
                let x = isa.load8(&x[t].as_chunks().0[half]);
                unroll!(r in 0..ROWS => { acc[t][r] = isa.fma8(w[r][half], x, acc[t][r]) });
            });
        });
    }
    *sums = acc;
}

/// Many tokens.
#[inline(always)]
pub(super) fn multiply<I: FloatIsa>(isa: I, job: &mut Job<'_, '_, '_>) {
    if I::ROWS == 16 { multiply_by::<I, 16>(isa, job) } else { multiply_by::<I, 8>(isa, job) }
}

/// Many tokens, by pieces of `R` rows. All formats share one loop over tokens, as `f32`.
#[inline(always)]
fn multiply_by<I: FloatIsa, const R: usize>(isa: I, job: &mut Job<'_, '_, '_>) {
    let mut piece = Piece([0.0; _]);
    let piece = piece.0.as_chunks_mut::<R>().0;
    let mut accumulators = Accumulators::<[f32; R]>::new();
    let stride = job.w.row_bytes();
    let rows = job.w.rows_bytes(job.rows.clone());
    for (first, rows) in job.rows.clone().step_by(R).zip(rows.chunks_of(R * stride)) {
        for token in (0..job.x.tokens).step_by(MAX_TOKENS) {
            let sums = accumulators.zeroed(job.x.tokens - token);
            for column in (0..job.w.cols()).step_by(piece.len()) {
                let columns = (job.w.cols() - column).min(piece.len());
                let piece = piece.first_n_mut(columns);
                let blocks = column / 16;
                match job.w.dtype() {
                    DType::F32 => widen::<F32, I, R>(isa, rows, stride, blocks, piece),
                    DType::F16 => widen::<F16, I, R>(isa, rows, stride, blocks, piece),
                    _ => widen::<Bf16, I, R>(isa, rows, stride, blocks, piece),
                }
                add(isa, piece, &job.x, token, column, sums);
            }
            for (t, sums) in sums.iter().enumerate() {
                job.write_sums(first, token + t, sums);
            }
        }
    }
}

/// Columns of a piece as `f32`, transposed: of `rows`, after the first `blocks` × 16 columns. Beyond the last row it is
/// repeated.
#[inline(always)]
fn widen<F: Format, I: Isa, const R: usize>(isa: I, rows: &[u8], stride: usize, blocks: usize, out: &mut [[f32; R]]) {
    let skip = blocks * size_of::<F::Sixteen>();
    for h in 0..R / ROWS {
        let rows =
            RowQuad::new(rows.get(h * ROWS * stride..).filter(|r| !r.is_empty()).unwrap_or(rows), stride).skip(skip);
        let (whole, tail) = out.as_chunks_mut::<16>();
        let n = whole.len();
        let mut walk = RowCursor::<F::Sixteen>::new(rows, n).prefetch_from(R * stride);
        for out in whole {
            walk.prefetch_near(isa);
            widen_sixteen::<F, I, R>(isa, &mut walk, h, out);
        }
        if !tail.is_empty() {
            let tails = tails::<F>(rows, n);
            let mut last = [[0.0; R]; 16];
            widen_sixteen::<F, I, R>(isa, &mut RowCursor::new(RowQuad::of_blocks(&tails), 1), h, &mut last);
            for (out, last) in tail.iter_mut().zip(last) {
                out.as_chunks_mut::<ROWS>().0[h] = last.as_chunks().0[h];
            }
        }
    }
}

/// The next sixteen columns of the four rows at `4·h`; nothing when there are none.
#[inline(always)]
fn widen_sixteen<F: Format, I: Isa, const R: usize>(
    isa: I,
    rows: &mut RowCursor<'_, F::Sixteen>,
    h: usize,
    out: &mut [[f32; R]; 16],
) {
    let Some(step) = rows.next() else { return };
    let w = F::load(isa, step);
    unroll!(half in 0..2 => {
        let columns = isa.transpose8x4(unroll_array!(r in 0..4 => w[r][half]));
        unroll!(c in 0..8 => { out[8 * half + c].as_chunks_mut().0[h % (R / ROWS)] = isa.store4(columns[c]) });
    });
}

/// Adds a piece, which starts at column `first`, times tokens `token..token + sums.len()`.
#[inline(always)]
fn add<I: FloatIsa, const R: usize>(
    isa: I,
    piece: &[[f32; R]],
    x: &Activations<'_>,
    token: usize,
    first: usize,
    sums: &mut [[f32; R]],
) {
    let (tiles, tail) = sums.as_chunks_mut::<8>();
    let done = token + 8 * tiles.len();
    for (t, sums) in tiles.iter_mut().enumerate() {
        add_tile::<I, 8, R>(isa, piece, columns(x, token + 8 * t, first), sums);
    }
    for (t, sums) in tail.iter_mut().enumerate() {
        add_tile::<I, 1, R>(isa, piece, columns(x, done + t, first), core::array::from_mut(sums));
    }
}

/// A piece times `T` tokens, four columns at a time.
#[inline(always)]
fn add_tile<I: FloatIsa, const T: usize, const R: usize>(
    isa: I,
    piece: &[[f32; R]],
    x: [&[f32]; T],
    sums: &mut [[f32; R]; T],
) {
    let mut acc = [isa.load_column(&sums[0]); T];
    unroll!(t in 0..T => { acc[t] = isa.load_column(&sums[t]) });
    let mut x4 = Zip::new(x.map(|x| x.as_chunks::<4>().0));
    let n = x4.left().min(piece.len() / 4);
    let (piece, tail) = piece.split_at_checked(4 * n).unwrap_or_default();
    for w in piece.as_chunks::<4>().0 {
        let w = unroll_array!(c in 0..4 => isa.load_column(&w[c]));
        // SAFETY: there are `n` turns.
        let x = unsafe { x4.next() };
        unroll!(t in 0..T => { acc[t] = isa.fma_columns(&w, x[t], acc[t]) });
    }
    if !tail.is_empty() {
        let w = unroll_array!(c in 0..4 => isa.load_column(tail.get(c).unwrap_or(&[0.0; R])));
        unroll!(t in 0..T => {
            let x = padded(x[t].get(4 * n..).unwrap_or(&[]));
            acc[t] = isa.fma_columns(&w, &x, acc[t]);
        });
    }
    unroll!(t in 0..T => { isa.store_column(acc[t], &mut sums[t]) });
}
