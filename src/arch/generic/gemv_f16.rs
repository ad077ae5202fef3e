//! binary16 weights and a few tokens, where the CPU computes with binary16: twice the products of `f32` in an
//! instruction, and an eighth of the widening.
//!
//! ```text
//! for each block of 32 columns:
//!     x = x̂·d, d a power of two                                           once for all matrices
//!     for each of four rows, in eight lanes:
//!         p = w₀x̂₀ + w₁x̂₁ + w₂x̂₂ + w₃x̂₃                                  binary16, each sum rounded
//!     s = pairs of lanes of each row's p added, twice                     binary16: two lanes a row are left
//!     acc += d·s                                                          f32
//! ```
//!
//! The largest of a block's |x̂| is within 2⁻⁵..2⁻⁴, so that sixteen products with any finite weight stay finite. On the
//! way there are seven roundings, of x̂ and of six sums, each by at most 2⁻¹¹ of what is rounded, or by 2⁻²⁵ where that
//! is more. So a block is at most
//!
//! ```text
//! 7.02·2⁻¹¹·Σ|w·x| + 2⁻²⁵·d·(Σ|w| + 96)
//! ```
//!
//! from its exact value: 96 are its six sums in each of two lanes and eight before. Errors of different products are
//! independent, so the error of a row is mostly a hundredth of that; int8 activations are coarser.

use core::marker::PhantomData;

use super::activations::Activations;
use super::cursor::{RowCursor, RowQuad};
use super::gemv::RowKernel;
use super::padded::padded;
use crate::arch::isa::{FloatIsa, Int8Isa, Isa};
use crate::arch::types::{F16Block, ROWS};
use crate::arch::unroll::{unroll, unroll_array};
use crate::quant::BLOCK;

/// Most tokens of a pass that multiplies so: as many as a batch of sessions.
pub(in crate::arch) const MAX_TOKENS: usize = 8;

/// The activations `x` of a token as blocks, the last one with zeros to its end; as far as `out` goes.
#[inline(always)]
pub(in crate::arch) fn to_f16<I: Isa>(isa: I, x: &[f32], out: &mut [F16Block]) {
    let (whole, tail) = x.as_chunks::<BLOCK>();
    for (x, out) in whole.iter().zip(&mut *out) {
        *out = block(isa, x);
    }
    if let (false, Some(out)) = (tail.is_empty(), out.get_mut(whole.len())) {
        *out = block(isa, &padded(tail));
    }
}

#[inline(always)]
fn block<I: Isa>(isa: I, x: &[f32; BLOCK]) -> F16Block {
    let (parts, _) = x.as_chunks::<8>();
    let v = unroll_array!(i in 0..4 => isa.load8(&parts[i]));
    let a = unroll_array!(i in 0..4 => isa.abs8(v[i]));
    let largest = isa.hmax8(isa.max8(isa.max8(a[0], a[1]), isa.max8(a[2], a[3])));
    let mut out = F16Block { x: [[0; 16]; 4], d: f32::NAN };
    // 0·x is 0, or NaN where x is not finite; `max` would drop a NaN.
    let zero = isa.splat8(0.0);
    let zeros = unroll_array!(i in 0..4 => isa.mul8(a[i], zero));
    if isa.sum8(isa.add8(isa.add8(zeros[0], zeros[1]), isa.add8(zeros[2], zeros[3]))).is_nan() {
        return out;
    }
    // The exponent field, with its bias of 127: largest = 2ᵉ⁻¹²⁷·1.m. Both powers are normal numbers.
    let e = (largest.to_bits() >> 23).clamp(1, 248);
    out.d = f32::from_bits((e + 5) << 23);
    let inverse = isa.splat8(f32::from_bits((254 - 5 - e) << 23));
    unroll!(i in 0..4 => { isa.store8_f16(isa.mul8(v[i], inverse), &mut out.x[i]) });
    out
}

/// Rows of a format whose weights are binary16, as a [`RowKernel`].
pub(super) struct F16Rows<F>(PhantomData<F>);

impl<F> RowKernel for F16Rows<F> {
    type Tokens<'a, const T: usize> = [&'a [F16Block]; T];
    type Sums<I: Int8Isa> = [f32; ROWS];

    #[inline(always)]
    fn tokens<'a, const T: usize>(x: &Activations<'a>, token: usize) -> [&'a [F16Block]; T] {
        let blocks = x.f16.len() / x.tokens.max(1);
        core::array::from_fn(|t| x.f16.get((token + t) * blocks..).and_then(|x| x.get(..blocks)).unwrap_or(&[]))
    }

    #[inline(always)]
    fn tile<I: FloatIsa + Int8Isa, const T: usize>(isa: I, rows: RowQuad<'_>, x: [&[F16Block]; T]) -> [[f32; ROWS]; T] {
        let mut acc = [[isa.splat4(0.0); 2]; T];
        let whole = walk(PhantomData::<F>, isa, rows, x, &mut acc);
        // Columns beyond a multiple of 32, padded with zeros.
        if whole < rows.row_bytes().div_ceil(64) {
            let tails: [[u8; 64]; ROWS] =
                core::array::from_fn(|r| padded(rows.row(r).get(64 * whole..).unwrap_or(&[])));
            walk(
                PhantomData::<F>,
                isa,
                RowQuad::new(tails.as_flattened(), 64),
                x.map(|x| x.get(whole..).unwrap_or(&[])),
                &mut acc,
            );
        }
        let mut sums = [[0.0; ROWS]; T];
        unroll!(t in 0..T => { sums[t] = isa.fold_f16(acc[t]) });
        sums
    }
    #[inline(always)]
    fn tile_of_one<I: FloatIsa + Int8Isa>(isa: I, rows: RowQuad<'_>, x: [&[F16Block]; 1]) -> [f32; ROWS] {
        let [sums] = Self::tile::<I, 1>(isa, rows, x);
        sums
    }
}

/// Adds the products of four rows and `T` tokens, block by block as far as they are whole, and returns how many were. The
/// type of the format is in the name of the instance, by which `cargo xtask mca` finds the loop.
#[inline(always)]
fn walk<F, I: FloatIsa, const T: usize>(
    _format: PhantomData<F>,
    isa: I,
    rows: RowQuad<'_>,
    mut x: [&[F16Block]; T],
    sums: &mut [[I::F32x4; 2]; T],
) -> usize {
    let n = x.iter().map(|x| x.len()).min().unwrap_or(0);
    let (n, mut rows) = RowCursor::<[u8; 64]>::new(rows, n).uncounted();
    unroll!(t in 0..T => { x[t] = x[t].get(..n).unwrap_or(&[]) });
    // They all have `n`; that is said so that no index below can fail.
    unroll!(t in 0..T => {
        if x[t].len() != n {
            return 0;
        }
    });
    let mut acc = *sums;
    for b in 0..n {
        // SAFETY: each row has `n` blocks.
        let step = unsafe { rows.next() };
        isa.fma_f16(step, x.each_ref().map(|x| &x[b]), &mut acc);
    }
    *sums = acc;
    n
}
