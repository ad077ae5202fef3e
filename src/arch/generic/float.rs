//! Float weights: lanes along the row, eight partial sums in a fixed order.
//!
//! One token meets the weights where they lie. For many, four rows at a time are widened to `f32` once, in pieces that
//! stay in the first-level cache, and all tokens meet the piece three at a time: 4 rows × 3 tokens × 8 lanes are 24
//! NEON accumulators, which is what 32 registers hold beside a row's and a token's vector. The partial sums are kept
//! between pieces, so either way each is the same sum in the same order.

use super::activations::Activations;
use super::walk::{Floats, Four, ROWS, Rows, Step};
use crate::arch::isa::Isa;

/// A float format. Sixteen weights have `B` bytes.
pub(super) trait Format<const B: usize> {
    /// Sixteen weights of each of four rows.
    fn load<I: Isa>(isa: I, step: Step<'_, B>) -> [[I::F32x8; 2]; ROWS];
}

/// The float formats: bytes of sixteen weights, and the load.
macro_rules! float {
    ($name:ident, $bytes:literal, $load:ident) => {
        pub(super) struct $name;
        impl Format<$bytes> for $name {
            #[inline(always)]
            fn load<I: Isa>(isa: I, step: Step<'_, $bytes>) -> [[I::F32x8; 2]; ROWS] {
                isa.$load(step)
            }
        }
    };
}
float!(F32, 64, f32x16);
float!(F16, 32, f16x16);
float!(Bf16, 32, bf16x16);

/// Partial sums of four rows for one token.
pub(super) type Sums<I> = [<I as Isa>::F32x8; ROWS];
/// The same in memory.
pub(super) type Stored = [[f32; 8]; ROWS];

/// Columns of a piece.
const PIECE: usize = 512;
/// Tokens whose partial sums are kept between pieces.
pub(super) const TOKENS: usize = 64;

/// Adds four rows times the columns `first..` of tokens `token..token + T` to `acc`, as far as the rows go.
#[inline(always)]
fn tile<F: Format<B>, I: Isa, const T: usize, const B: usize>(
    isa: I,
    rows: Four<'_>,
    x: &Activations<'_>,
    token: usize,
    first: usize,
    acc: &mut [Sums<I>; T],
) {
    let stride = x.floats.len() / x.tokens.max(1);
    let x: [&[f32]; T] = core::array::from_fn(|t| {
        x.floats.get((token + t) * stride..).and_then(|x| x.get(first..stride)).unwrap_or(&[])
    });
    walk::<F, I, T, B>(isa, rows, x, acc);
    // Columns beyond a multiple of sixteen: padded with zeros, through the same lanes.
    let whole = rows.row_bytes() / B;
    if whole * B < rows.row_bytes() {
        let tails: [[u8; B]; ROWS] = core::array::from_fn(|r| padded(&rows.row(r)[whole * B..]));
        let x: [[f32; 16]; T] = core::array::from_fn(|t| padded(x[t].get(whole * 16..).unwrap_or(&[])));
        walk::<F, I, T, B>(isa, Four::new(tails.as_flattened(), B), x.each_ref().map(<[f32; 16]>::as_slice), acc);
    }
}

/// The whole sixteens of columns.
#[inline(always)]
fn walk<F: Format<B>, I: Isa, const T: usize, const B: usize>(
    isa: I,
    rows: Four<'_>,
    x: [&[f32]; T],
    sums: &mut [Sums<I>; T],
) {
    let mut x = Floats::new(x);
    let mut rows = Rows::<B>::new(rows, x.left());
    let mut acc = *sums;
    while let Some(step) = rows.next() {
        let w = F::load(isa, step);
        // SAFETY: there are at most `x.left()` steps.
        let x = unsafe { x.next() };
        each!(half in 0..2 => {
            each!(t in 0..T => {
                let x = isa.load8(&x[t][half]);
                each!(r in 0..ROWS => { acc[t][r] = isa.fma8(w[r][half], x, acc[t][r]) });
            });
        });
    }
    *sums = acc;
}

/// `tail`, then zeros.
#[inline(always)]
fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [T; N] {
    let mut out = [T::default(); N];
    for (slot, x) in out.iter_mut().zip(tail) {
        *slot = *x;
    }
    out
}

/// Four rows times tokens `token..token + T`, in place.
#[inline(always)]
pub(super) fn in_place<F: Format<B>, I: Isa, const T: usize, const B: usize>(
    isa: I,
    rows: Four<'_>,
    x: &Activations<'_>,
    token: usize,
) -> [[f32; ROWS]; T] {
    let mut acc = [[isa.splat8(0.0); ROWS]; T];
    tile::<F, I, T, B>(isa, rows, x, token, 0, &mut acc);
    acc.map(|rows| rows.map(|a| isa.sum8(a)))
}

/// Four rows times tokens `token..token + sums.len()`, at most [`TOKENS`], by pieces.
#[inline(always)]
pub(super) fn pieces<F: Format<B>, I: Isa, const B: usize>(
    isa: I,
    rows: Four<'_>,
    x: &Activations<'_>,
    token: usize,
    sums: &mut [Stored],
) {
    sums.fill([[0.0; 8]; ROWS]);
    let mut piece = [[[0; 64]; PIECE / 16]; ROWS];
    let bytes = PIECE / 16 * B;
    for p in 0..rows.row_bytes().div_ceil(bytes) {
        let part: [&[u8]; ROWS] = core::array::from_fn(|r| {
            let row = &rows.row(r)[p * bytes..];
            &row[..row.len().min(bytes)]
        });
        widen::<F, I, B>(isa, part, &mut piece);
        // Zeros fill the last sixteen columns, as they do in place.
        let wide = part[0].len().div_ceil(B) * 64;
        let mut done = 0;
        while done + 3 <= sums.len() {
            resume::<I, 3>(isa, &piece, wide, x, token + done, p * PIECE, &mut sums[done..]);
            done += 3;
        }
        while done < sums.len() {
            resume::<I, 1>(isa, &piece, wide, x, token + done, p * PIECE, &mut sums[done..]);
            done += 1;
        }
    }
}

/// A piece of four rows as little-endian f32.
type Piece = [[[u8; 64]; PIECE / 16]; ROWS];

/// Four rows' part as f32, the last sixteen filled up with zeros.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "a step is a place in four rows at once")]
fn widen<F: Format<B>, I: Isa, const B: usize>(isa: I, part: [&[u8]; ROWS], out: &mut Piece) {
    let steps = part[0].len().div_ceil(B).min(PIECE / 16);
    for step in 0..steps {
        let four: [[u8; B]; ROWS] =
            core::array::from_fn(|r| padded(part[r].get(step * B..).map_or(&[], |p| &p[..p.len().min(B)])));
        let mut rows = Rows::<B>::new(Four::new(four.as_flattened(), B), 1);
        if let Some(next) = rows.next() {
            let w = F::load(isa, next);
            for r in 0..ROWS {
                for (half, bytes) in out[r][step].as_chunks_mut::<32>().0.iter_mut().enumerate() {
                    isa.store8_bytes(w[r][half], bytes);
                }
            }
        }
    }
}

/// A tile that goes on from stored partial sums.
#[inline(always)]
fn resume<I: Isa, const T: usize>(
    isa: I,
    piece: &Piece,
    wide: usize,
    x: &Activations<'_>,
    token: usize,
    first: usize,
    sums: &mut [Stored],
) {
    let Some(sums) = sums.first_chunk_mut::<T>() else { return };
    let mut acc: [Sums<I>; T] = core::array::from_fn(|t| core::array::from_fn(|r| isa.load8(&sums[t][r])));
    // The piece's rows lie apart; those of its used part are what the walk is to see.
    let rows = Four::apart(piece.as_flattened().as_flattened(), PIECE * 4, wide);
    resume_tile::<I, T>(isa, rows, x, token, first, &mut acc);
    for t in 0..T {
        for r in 0..ROWS {
            isa.store8(acc[t][r], &mut sums[t][r]);
        }
    }
}

/// Columns `first..` of the tokens against a piece that zeros fill up to a multiple of sixteen.
#[inline(always)]
fn resume_tile<I: Isa, const T: usize>(
    isa: I,
    rows: Four<'_>,
    x: &Activations<'_>,
    token: usize,
    first: usize,
    acc: &mut [Sums<I>; T],
) {
    let stride = x.floats.len() / x.tokens.max(1);
    let x: [&[f32]; T] = core::array::from_fn(|t| {
        x.floats.get((token + t) * stride..).and_then(|x| x.get(first..stride)).unwrap_or(&[])
    });
    walk::<F32, I, T, 64>(isa, rows, x, acc);
    // The last columns of the activations, if they are no multiple of sixteen, have zeros beside them as well.
    let whole = x[0].len() / 16;
    if whole * 64 < rows.row_bytes() && whole < PIECE / 16 {
        let tails: [[u8; 64]; ROWS] = core::array::from_fn(|r| padded(&rows.row(r)[whole * 64..]));
        let x: [[f32; 16]; T] = core::array::from_fn(|t| padded(&x[t][whole * 16..]));
        walk::<F32, I, T, 64>(isa, Four::new(tails.as_flattened(), 64), x.each_ref().map(<[f32; 16]>::as_slice), acc);
    }
}

/// The sums that partial sums stand for.
#[inline(always)]
pub(super) fn finish<I: Isa>(isa: I, sums: &Stored) -> [f32; ROWS] {
    core::array::from_fn(|r| isa.sum8(isa.load8(&sums[r])))
}
