//! Matrix times activations, for one token or many.
//!
//! ```text
//! for each 4 rows of weights, for each T tokens:
//!     acc[t] = 0                                  four rows in the lanes of a vector
//!     for each block of 32:
//!         w = unpack(4 rows)                      once for T tokens
//!         for t in 0..T: acc[t] += (w · x[t]) · (d_w · d_x[t])
//! ```
//!
//! 1. The 32 products of a block are summed exactly in integers, so how a backend does it cannot show.
//! 2. Each row and token has one accumulator, to which blocks are added in order. A result therefore does not depend
//!    on T, nor on which rows share the vector: one token at a time and a whole prompt give the same bits.
//! 3. Float weights have their lanes along the row instead: eight partial sums, folded in a fixed order. Again T and
//!    the neighbouring rows do not show.
//!
//! T is 4 where there are as many tokens, else 1; the last rows of a matrix that has no multiple of 4 are computed
//! together with copies of the last one, and the copies dropped.

use core::ops::Range;

use super::activations::{Activations, Block};
use crate::arch::isa::Isa;
use crate::quant::{DType, Matrix};
use crate::storage::Tile;

/// What to do with a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Overwrite what was there.
    Set,
    /// Add to what was there: the residual.
    Add,
}

/// Rows computed together.
const ROWS: usize = 4;

/// See [`Kernels::matmul`](crate::arch::Kernels::matmul).
#[inline(always)]
pub(in crate::arch) fn matmul<I: Isa>(
    isa: I,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Activations<'_>,
    out: &mut Tile<'_, f32>,
    write: Write,
) {
    match w.dtype() {
        DType::Q8_0 => each_tile::<I, Q8_0, 4>(isa, w, rows, x, out, write),
        DType::Q4_0 => each_tile::<I, Q4_0, 4>(isa, w, rows, x, out, write),
        DType::Q4_1 => each_tile::<I, Q4_1, 4>(isa, w, rows, x, out, write),
        DType::F32 => each_tile::<I, F32, 2>(isa, w, rows, x, out, write),
        DType::F16 => each_tile::<I, F16, 2>(isa, w, rows, x, out, write),
        DType::Bf16 => each_tile::<I, Bf16, 2>(isa, w, rows, x, out, write),
    }
}

/// A weight format that has a tile kernel.
trait Format {
    /// Four rows times tokens `token..token + T` of `x`.
    fn tile<I: Isa, const T: usize>(isa: I, rows: [&[u8]; ROWS], x: &Activations<'_>, token: usize)
    -> [[f32; ROWS]; T];
}

/// Covers rows × tokens with tiles of `ROWS` × `T` and `ROWS` × 1.
#[inline(always)]
fn each_tile<I: Isa, F: Format, const T: usize>(
    isa: I,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Activations<'_>,
    out: &mut Tile<'_, f32>,
    write: Write,
) {
    let rows = rows.start.min(w.rows())..rows.end.min(w.rows());
    let tokens = x.tokens.min(out.rows());
    let mut first = rows.start;
    while first < rows.end {
        let group: [&[u8]; ROWS] = core::array::from_fn(|i| w.row((first + i).min(rows.end - 1)));
        let valid = ROWS.min(rows.end - first);
        let column = first - rows.start;
        let mut token = 0;
        while token + T <= tokens {
            for (t, sums) in F::tile::<I, T>(isa, group, x, token).iter().enumerate() {
                put(out.row(token + t), column, &sums[..valid], write);
            }
            token += T;
        }
        while token < tokens {
            put(out.row(token), column, &F::tile::<I, 1>(isa, group, x, token)[0][..valid], write);
            token += 1;
        }
        first += ROWS;
    }
}

#[inline(always)]
fn put(out: &mut [f32], column: usize, sums: &[f32], write: Write) {
    for (out, sum) in out.iter_mut().skip(column).zip(sums) {
        *out = if write == Write::Add { *out + sum } else { *sum };
    }
}

/// A quantised format: `w = d·(q − OFFSET)`, or `d·q + m` where there is a minimum. Blocks have `B` bytes.
trait Quantised<const B: usize> {
    /// Subtracted from every quant.
    const OFFSET: f32 = 0.0;
    /// Whether there is a minimum, the second f16 of a block.
    const MINIMUM: bool = false;
    /// The quants of a block.
    fn unpack<I: Isa>(isa: I, block: &[u8; B]) -> I::I8x32;
    /// Exact dot products of four blocks.
    fn dot<I: Isa>(isa: I, w: &[I::I8x32; ROWS], x: I::I8x32) -> I::F32x4;
}

#[inline(always)]
fn quantised_tile<F: Quantised<B>, I: Isa, const T: usize, const B: usize>(
    isa: I,
    rows: [&[u8]; ROWS],
    x: &Activations<'_>,
    token: usize,
) -> [[f32; ROWS]; T] {
    let w = rows.map(|r| r.as_chunks::<B>().0);
    let blocks = w[0].len();
    let x: [&[Block]; T] = core::array::from_fn(|t| x.blocks.get((token + t) * blocks..).unwrap_or(&[]));
    // The same length for all, so that the loop has no bounds checks.
    let blocks = x.iter().map(|x| x.len()).chain(w.iter().map(|w| w.len())).fold(blocks, usize::min);
    let (w, x) = (w.map(|w| &w[..blocks]), x.map(|x| &x[..blocks]));

    let mut acc = [isa.splat4(0.0); T];
    for b in 0..blocks {
        let group: [&[u8; B]; ROWS] = core::array::from_fn(|r| &w[r][b]);
        let weights = group.map(|block| F::unpack(isa, block));
        let scales = isa.gather4_f16(group.map(|block| pair(block, 0)));
        for t in 0..T {
            let x = &x[t][b];
            let mut dots = F::dot(isa, &weights, isa.load_i8(&x.q));
            if F::OFFSET != 0.0 {
                dots = isa.fma4(isa.splat4(-F::OFFSET), isa.splat4(x.sum), dots); // exact: integers below 2²⁴
            }
            acc[t] = isa.fma4(dots, isa.mul4(scales, isa.splat4(x.d)), acc[t]);
        }
        if F::MINIMUM {
            let minima = isa.gather4_f16(group.map(|block| pair(block, 2)));
            for t in 0..T {
                let x = &x[t][b];
                acc[t] = isa.fma4(minima, isa.splat4(x.d * x.sum), acc[t]);
            }
        }
    }
    acc.map(|a| isa.store4(a))
}

/// The formats whose quants are nibbles, and the others: their blocks' size, and what differs.
macro_rules! quantised {
    ($name:ident, $bytes:literal, $unpack:ident, $dot:ident $(, $constant:ident: $kind:ty = $value:expr)?) => {
        struct $name;
        impl Quantised<$bytes> for $name {
            $(const $constant: $kind = $value;)?
            #[inline(always)]
            fn unpack<I: Isa>(isa: I, block: &[u8; $bytes]) -> I::I8x32 {
                isa.$unpack(tail(block))
            }
            #[inline(always)]
            fn dot<I: Isa>(isa: I, w: &[I::I8x32; ROWS], x: I::I8x32) -> I::F32x4 {
                isa.$dot(w, x)
            }
        }
        impl Format for $name {
            #[inline(always)]
            fn tile<I: Isa, const T: usize>(
                isa: I,
                rows: [&[u8]; ROWS],
                x: &Activations<'_>,
                token: usize,
            ) -> [[f32; ROWS]; T] {
                quantised_tile::<Self, I, T, $bytes>(isa, rows, x, token)
            }
        }
    };
}
quantised!(Q8_0, 34, load_u8, dot4_i8);
quantised!(Q4_0, 18, nibbles, dot4_nibbles, OFFSET: f32 = 8.0);
quantised!(Q4_1, 20, nibbles, dot4_nibbles, MINIMUM: bool = true);

/// The two bytes at `at`: a scale or a minimum.
#[inline(always)]
fn pair<const B: usize>(block: &[u8; B], at: usize) -> &[u8; 2] {
    block.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 2])
}

/// The last `N` bytes of a block: its quants.
#[inline(always)]
fn tail<const B: usize, const N: usize>(block: &[u8; B]) -> &[u8; N] {
    const { assert!(N < B) };
    block.last_chunk().unwrap_or(&[0; N])
}

/// A float format. Eight weights have `B` bytes.
trait Float<const B: usize> {
    /// Eight weights.
    fn load<I: Isa>(isa: I, x: &[u8; B]) -> I::F32x8;
}

#[inline(always)]
fn float_tile<F: Float<B>, I: Isa, const T: usize, const B: usize>(
    isa: I,
    rows: [&[u8]; ROWS],
    x: &Activations<'_>,
    token: usize,
) -> [[f32; ROWS]; T] {
    let cols = rows[0].len() / (B / 8);
    let x: [&[f32]; T] =
        core::array::from_fn(|t| x.floats.get((token + t) * cols..).and_then(|x| x.get(..cols)).unwrap_or(&[]));
    let tails = rows.map(|r| r.as_chunks::<B>().1);
    let w = rows.map(|r| r.as_chunks::<B>().0);
    let x_tails = x.map(|x| x.as_chunks::<8>().1);
    let x = x.map(|x| x.as_chunks::<8>().0);
    let chunks = x.iter().map(|x| x.len()).chain(w.iter().map(|w| w.len())).fold(w[0].len(), usize::min);
    let (w, x) = (w.map(|w| &w[..chunks]), x.map(|x| &x[..chunks]));

    let mut acc = [[isa.splat8(0.0); ROWS]; T];
    for c in 0..chunks {
        let weights: [I::F32x8; ROWS] = core::array::from_fn(|r| F::load(isa, &w[r][c]));
        for t in 0..T {
            let x = isa.load8(&x[t][c]);
            for r in 0..ROWS {
                acc[t][r] = isa.fma8(weights[r], x, acc[t][r]);
            }
        }
    }
    // Columns beyond a multiple of eight: padded with zeros, through the same lanes.
    if !tails[0].is_empty() {
        for t in 0..T {
            let mut padded = [0.0; 8];
            for (slot, x) in padded.iter_mut().zip(x_tails[t]) {
                *slot = *x;
            }
            for r in 0..ROWS {
                let mut bytes = [0; B];
                for (slot, b) in bytes.iter_mut().zip(tails[r]) {
                    *slot = *b;
                }
                acc[t][r] = isa.fma8(F::load(isa, &bytes), isa.load8(&padded), acc[t][r]);
            }
        }
    }
    acc.map(|rows| rows.map(|a| isa.sum8(a)))
}

/// The float formats: bytes of eight weights, and the load.
macro_rules! float {
    ($name:ident, $bytes:literal, $load:ident) => {
        struct $name;
        impl Float<$bytes> for $name {
            #[inline(always)]
            fn load<I: Isa>(isa: I, x: &[u8; $bytes]) -> I::F32x8 {
                isa.$load(x)
            }
        }
        impl Format for $name {
            #[inline(always)]
            fn tile<I: Isa, const T: usize>(
                isa: I,
                rows: [&[u8]; ROWS],
                x: &Activations<'_>,
                token: usize,
            ) -> [[f32; ROWS]; T] {
                float_tile::<Self, I, T, $bytes>(isa, rows, x, token)
            }
        }
    };
}
float!(F32, 32, load8_f32);
float!(F16, 16, load8_f16);
float!(Bf16, 16, load8_bf16);
