//! Float weights.
//!
//! A few tokens meet the weights where they lie: lanes along the row, eight partial sums in a fixed order.
//!
//! For many, eight or sixteen rows at a time are widened to `f32` and transposed once, in pieces that stay in the
//! first-level cache; all tokens meet the piece eight at a time. Lanes are rows there, so that an activation is a factor
//! for a whole vector, which NEON takes from a lane: four columns of a token are one load and eight multiplications. 16
//! NEON accumulators, four columns of weights in 8 registers and a token's in one leave none idle for long, and none
//! spilt. x86 has to broadcast each activation, which is why it has sixteen rows where there are registers for them.
//!
//! There each sum goes along the row from its start, in whatever pieces and tiles. So the two ways round differently:
//! by no more than 2·n·2⁻²⁴·Σ|w·x| for rows of n, the bound of either from the exact sum being half of that (Higham,
//! Accuracy and Stability of Numerical Algorithms, 2002, §3.1).

use core::marker::PhantomData;

use super::activations::Activations;
use super::in_place::InPlace;
use super::matmul::Job;
use super::walk::{Floats, Four, ROWS, Rows, Step};
use crate::arch::isa::Isa;
use crate::arch::unroll::{array, each};

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

/// Rows in a vector.
const EIGHT: usize = 2 * ROWS;
/// A column of `8·G` rows.
type Column<const G: usize> = [[f32; EIGHT]; G];
/// Vectors of a piece: 20 KiB, of the 32 that a small core has next to it.
const PIECE: usize = 640;
/// Tokens whose sums are kept between pieces.
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
        let mut sums = [[0.0; ROWS]; T];
        each!(t in 0..T => { each!(r in 0..ROWS => { sums[t][r] = isa.sum8(acc[t][r]) }) });
        sums
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
        rows.prefetch(isa);
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

/// Many tokens, by pieces of `8·G` rows.
#[inline(always)]
pub(super) fn multiply<F: Format<B>, I: Isa, const B: usize, const G: usize>(isa: I, job: &mut Job<'_, '_, '_>) {
    let mut piece = [[0.0; EIGHT]; PIECE];
    let piece = piece.as_chunks_mut::<G>().0;
    let mut sums = [[[0.0; EIGHT]; G]; TOKENS];
    let stride = job.w.row_bytes();
    let rows = job.w.rows_bytes(job.rows.clone());
    for (first, rows) in job.rows.clone().step_by(G * EIGHT).zip(rows.chunks(G * EIGHT * stride.max(1))) {
        for token in (0..job.tokens).step_by(TOKENS) {
            let sums = &mut sums[..(job.tokens - token).min(TOKENS)];
            sums.fill([[0.0; EIGHT]; G]);
            for column in (0..job.w.cols()).step_by(piece.len()) {
                let columns = (job.w.cols() - column).min(piece.len());
                let piece = &mut piece[..columns];
                widen::<F, I, B, G>(isa, rows, stride, column / 16 * B, piece);
                add(isa, piece, &job.x, token, column, sums);
            }
            for (t, sums) in sums.iter().enumerate() {
                job.put(first, token + t, sums.as_flattened());
            }
        }
    }
}

/// Columns of a piece as `f32`, transposed: those from byte `skip` of `rows` on. Beyond the last row, that one again.
#[inline(always)]
fn widen<F: Format<B>, I: Isa, const B: usize, const G: usize>(
    isa: I,
    rows: &[u8],
    stride: usize,
    skip: usize,
    out: &mut [Column<G>],
) {
    for h in 0..2 * G {
        let rows =
            Four::new(rows.get(h * ROWS * stride..).filter(|r| !r.is_empty()).unwrap_or(rows), stride).skip(skip);
        let (whole, tail) = out.as_chunks_mut::<16>();
        let n = whole.len();
        let mut walk = Rows::<B>::new(rows, n);
        for out in whole {
            widen_sixteen::<F, I, B, G>(isa, &mut walk, h, out);
        }
        if !tail.is_empty() {
            let tails: [[u8; B]; ROWS] = core::array::from_fn(|r| padded(rows.row(r).get(n * B..).unwrap_or(&[])));
            let mut last = [[[0.0; EIGHT]; G]; 16];
            widen_sixteen::<F, I, B, G>(isa, &mut Rows::new(Four::new(tails.as_flattened(), B), 1), h, &mut last);
            for (out, last) in tail.iter_mut().zip(last) {
                out.as_flattened_mut().as_chunks_mut::<ROWS>().0[h] = last.as_flattened().as_chunks().0[h];
            }
        }
    }
}

/// The next sixteen columns of the four rows at `4·h`; nothing when there are none.
#[inline(always)]
fn widen_sixteen<F: Format<B>, I: Isa, const B: usize, const G: usize>(
    isa: I,
    rows: &mut Rows<'_, B>,
    h: usize,
    out: &mut [Column<G>; 16],
) {
    let Some(step) = rows.next() else { return };
    let w = F::load(isa, step);
    each!(half in 0..2 => {
        let columns = isa.transpose8x4(array!(r in 0..4 => w[r][half]));
        each!(c in 0..8 => {
            out[8 * half + c].as_flattened_mut().as_chunks_mut().0[h % (2 * G)] = isa.store4(columns[c]);
        });
    });
}

/// Adds a piece, which starts at column `first`, times tokens `token..token + sums.len()`.
#[inline(always)]
fn add<I: Isa, const G: usize>(
    isa: I,
    piece: &[Column<G>],
    x: &Activations<'_>,
    token: usize,
    first: usize,
    sums: &mut [[[f32; EIGHT]; G]],
) {
    let (eights, rest) = sums.as_chunks_mut::<8>();
    let done = token + 8 * eights.len();
    for (t, sums) in eights.iter_mut().enumerate() {
        add_tile::<I, 8, G>(isa, piece, columns(x, token + 8 * t, first), sums);
    }
    for (t, sums) in rest.iter_mut().enumerate() {
        add_tile::<I, 1, G>(isa, piece, columns(x, done + t, first), core::array::from_mut(sums));
    }
}

/// A piece times `T` tokens, four columns at a time.
#[inline(always)]
fn add_tile<I: Isa, const T: usize, const G: usize>(
    isa: I,
    piece: &[Column<G>],
    x: [&[f32]; T],
    sums: &mut [[[f32; EIGHT]; G]; T],
) {
    let mut acc = [[isa.splat8(0.0); G]; T];
    each!(t in 0..T => { each!(g in 0..G => { acc[t][g] = isa.load8(&sums[t][g]) }) });
    let fours = x.map(|x| x.as_chunks::<4>().0);
    let n = fours.iter().map(|x| x.len()).fold(piece.len() / 4, usize::min);
    let (piece, rest) = piece.split_at(4 * n);
    let fours = fours.map(|x| &x[..n]);
    for (i, w) in piece.as_chunks::<4>().0[..n].iter().enumerate() {
        let x = fours.map(|x| &x[i]);
        isa.fma_columns(w, x, &mut acc);
    }
    for (c, w) in (4 * n..).zip(rest) {
        each!(t in 0..T => {
            let x = isa.splat8(x[t].get(c).copied().unwrap_or(0.0));
            each!(g in 0..G => { acc[t][g] = isa.fma8(isa.load8(&w[g]), x, acc[t][g]) });
        });
    }
    each!(t in 0..T => { each!(g in 0..G => { isa.store8(acc[t][g], &mut sums[t][g]) }) });
}
