//! Float weights: lanes along the row, eight partial sums in a fixed order.
//!
//! A few tokens meet the weights where they lie. For many, four rows at a time are widened to `f32` once, in pieces
//! that stay in the first-level cache, with the rows' eights side by side, so that one pointer walks them; all tokens
//! meet the piece three at a time. 4 rows × 3 tokens × 8 lanes are 24 NEON accumulators, which is what 32 registers
//! hold beside a row's and a token's vectors. The partial sums are kept between pieces, so either way each is the same
//! sum in the same order.

use core::marker::PhantomData;

use super::activations::Activations;
use super::in_place::InPlace;
use super::matmul::Job;
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
type Sums<I> = [<I as Isa>::F32x8; ROWS];
/// The same in memory, and an eight of columns of four rows.
type Stored = [[f32; 8]; ROWS];

/// Columns of a piece.
const PIECE: usize = 512;
/// Tokens whose partial sums are kept between pieces.
const TOKENS: usize = 64;

/// Rows of a format, as an [`InPlace`].
pub(super) struct Lanes<F, const B: usize>(PhantomData<F>);

impl<F: Format<B>, const B: usize> InPlace for Lanes<F, B> {
    type Tokens<'a, const T: usize> = [&'a [f32]; T];

    #[inline(always)]
    fn tokens<'a, const T: usize>(x: &Activations<'a>, token: usize) -> [&'a [f32]; T] {
        columns(x, token, 0)
    }

    #[inline(always)]
    fn tile<I: Isa, const T: usize>(isa: I, rows: Four<'_>, x: [&[f32]; T]) -> [[f32; ROWS]; T] {
        let mut acc = [[isa.splat8(0.0); ROWS]; T];
        walk::<F, I, T, B>(isa, rows, x, &mut acc);
        // Columns beyond a multiple of sixteen: padded with zeros, through the same lanes.
        let whole = rows.row_bytes() / B;
        if whole * B < rows.row_bytes() {
            let tails: [[u8; B]; ROWS] = core::array::from_fn(|r| padded(&rows.row(r)[whole * B..]));
            let x: [[f32; 16]; T] = core::array::from_fn(|t| padded(x[t].get(whole * 16..).unwrap_or(&[])));
            let rows = Four::new(tails.as_flattened(), B);
            walk::<F, I, T, B>(isa, rows, x.each_ref().map(<[f32; 16]>::as_slice), &mut acc);
        }
        acc.map(|rows| rows.map(|a| isa.sum8(a)))
    }
}

/// Columns `first..` of tokens `token..token + T`.
#[inline(always)]
fn columns<'a, const T: usize>(x: &Activations<'a>, token: usize, first: usize) -> [&'a [f32]; T] {
    let cols = x.floats.len() / x.tokens.max(1);
    core::array::from_fn(|t| x.floats.get((token + t) * cols..).and_then(|x| x.get(first..cols)).unwrap_or(&[]))
}

/// Adds the whole sixteens of columns of four rows times `T` tokens.
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

/// Many tokens, by pieces.
#[inline(always)]
pub(super) fn multiply<F: Format<B>, I: Isa, const B: usize>(isa: I, job: &mut Job<'_, '_, '_>) {
    let mut piece = [[[[0.0; 8]; ROWS]; 2]; PIECE / 16];
    let mut sums = [[[0.0; 8]; ROWS]; TOKENS];
    let stride = job.w.row_bytes();
    let rows = job.w.rows_bytes(job.rows.clone());
    for (first, rows) in job.rows.clone().step_by(ROWS).zip(rows.chunks(ROWS * stride.max(1))) {
        let rows = Four::new(rows, stride);
        for token in (0..job.tokens).step_by(TOKENS) {
            let sums = &mut sums[..(job.tokens - token).min(TOKENS)];
            sums.fill([[0.0; 8]; ROWS]);
            for column in (0..job.w.cols()).step_by(PIECE) {
                let steps = widen::<F, I, B>(isa, rows, column, &mut piece);
                add(isa, &piece[..steps], &job.x, token, column, sums);
            }
            for (t, sums) in sums.iter().enumerate() {
                job.put(first, token + t, &sums.map(|s| isa.sum8(isa.load8(&s))));
            }
        }
    }
}

/// Columns `first..` of four rows as `f32`, the last sixteen filled up with zeros; how many sixteens there are.
#[inline(always)]
fn widen<F: Format<B>, I: Isa, const B: usize>(
    isa: I,
    rows: Four<'_>,
    first: usize,
    out: &mut [[Stored; 2]; PIECE / 16],
) -> usize {
    let parts: [&[u8]; ROWS] = core::array::from_fn(|r| rows.row(r).get(first / 16 * B..).unwrap_or(&[]));
    let steps = parts[0].len().div_ceil(B).min(PIECE / 16);
    for (step, out) in out[..steps].iter_mut().enumerate() {
        let four: [[u8; B]; ROWS] = parts.map(|p| {
            let rest = &p[(step * B).min(p.len())..];
            rest.first_chunk().copied().unwrap_or_else(|| padded(rest))
        });
        let mut rows = Rows::<B>::new(Four::new(four.as_flattened(), B), 1);
        let Some(next) = rows.next() else { break };
        let w = F::load(isa, next);
        each!(half in 0..2 => {
            each!(r in 0..ROWS => { isa.store8(w[r][half], &mut out[half][r]) });
        });
    }
    steps
}

/// Adds a piece, which starts at column `first`, times tokens `token..token + sums.len()`.
#[inline(always)]
fn add<I: Isa>(isa: I, piece: &[[Stored; 2]], x: &Activations<'_>, token: usize, first: usize, sums: &mut [Stored]) {
    let (threes, rest) = sums.as_chunks_mut::<3>();
    let done = token + 3 * threes.len();
    for (t, sums) in threes.iter_mut().enumerate() {
        add_tile::<I, 3>(isa, piece, columns(x, token + 3 * t, first), sums);
    }
    for (t, sums) in rest.iter_mut().enumerate() {
        add_tile::<I, 1>(isa, piece, columns(x, done + t, first), core::array::from_mut(sums));
    }
}

/// Four rows' piece times `T` tokens.
#[inline(always)]
fn add_tile<I: Isa, const T: usize>(isa: I, piece: &[[Stored; 2]], x: [&[f32]; T], sums: &mut [Stored; T]) {
    let mut acc: [Sums<I>; T] = core::array::from_fn(|t| core::array::from_fn(|r| isa.load8(&sums[t][r])));
    let whole = x[0].len() / 16;
    let (piece, last) = piece.split_at(whole.min(piece.len()));
    sixteens(isa, piece, x, &mut acc);
    if !last.is_empty() {
        let x: [[f32; 16]; T] = core::array::from_fn(|t| padded(&x[t][whole * 16..]));
        sixteens(isa, last, x.each_ref().map(<[f32; 16]>::as_slice), &mut acc);
    }
    each!(t in 0..T => {
        each!(r in 0..ROWS => { isa.store8(acc[t][r], &mut sums[t][r]) });
    });
}

/// The sixteens of a piece that `x` has as well.
#[inline(always)]
fn sixteens<I: Isa, const T: usize>(isa: I, piece: &[[Stored; 2]], x: [&[f32]; T], sums: &mut [Sums<I>; T]) {
    let mut acc = *sums;
    let x = x.map(|x| x.as_chunks::<8>().0);
    let mut eights = piece.as_flattened().len();
    for x in x {
        eights = eights.min(x.len());
    }
    let (piece, x) = (&piece.as_flattened()[..eights], x.map(|x| &x[..eights]));
    for (i, w) in piece.iter().enumerate() {
        let x = x.map(|x| isa.load8(&x[i]));
        each!(r in 0..ROWS => {
            let w = isa.load8(&w[r]);
            each!(t in 0..T => { acc[t][r] = isa.fma8(w, x[t], acc[t][r]) });
        });
    }
    *sums = acc;
}
