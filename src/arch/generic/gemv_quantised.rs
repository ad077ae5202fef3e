//! Quantised weights as GGUF lays them out, read in place: for one token, or a few.
//!
//! ```text
//! for each block:
//!     for each unit of 32 columns:
//!         w, d = unit(4 rows)                   once for T tokens
//!         for t in 0..T: acc[t] += (w · x[t]) · (d · d_x[t])
//! ```
//!
//! Four rows fill the lanes of a vector of `f32`, so that scaling and adding cost one instruction for all of them.

use core::marker::PhantomData;

use super::activations::Activations;
use super::cursor::{RowCursor, RowQuad, TokenCursor};
use super::gemv::RowKernel;
use crate::arch::formats::{Format, Quants, Unit};
use crate::arch::isa::{FloatIsa, Int8Isa, Isa, UnitIsa};
use crate::arch::types::{ROWS, TokenBlock};
use crate::arch::unroll::unroll;
use crate::quant::BLOCK;

/// Rows of a format, as a [`RowKernel`].
pub(super) struct Quantised<F>(PhantomData<F>);

impl<F: Format> RowKernel for Quantised<F> {
    type Tokens<'a, const T: usize> = TokenCursor<'a, T>;
    type Sums<I: Int8Isa> = <I::Decode as UnitIsa>::Stored;

    #[inline(always)]
    fn tokens<'a, const T: usize>(x: &Activations<'a>, token: usize) -> TokenCursor<'a, T> {
        TokenCursor::new(x, token, 0)
    }

    #[inline(always)]
    fn only_token<'a>(x: &Activations<'a>) -> TokenCursor<'a, 1> {
        TokenCursor::of_one(x)
    }

    #[inline(always)]
    fn tile<I: FloatIsa + Int8Isa, const T: usize>(
        isa: I,
        rows: RowQuad<'_>,
        x: TokenCursor<'_, T>,
    ) -> [[f32; ROWS]; T] {
        let acc = walk::<F, I, I, T>(isa, isa, rows, x);
        let mut sums = [[0.0; ROWS]; T];
        unroll!(t in 0..T => { sums[t] = isa.store4(acc[t]) });
        sums
    }
    #[inline(always)]
    fn tile_of_one<I: FloatIsa + Int8Isa>(isa: I, rows: RowQuad<'_>, x: TokenCursor<'_, 1>) -> Self::Sums<I> {
        let [acc] = walk::<F, I, I::Decode, 1>(isa, isa.decode(), rows, x);
        isa.decode().stored(acc)
    }
}

/// The products of rows, as many as `isa` takes at once, and `T` tokens; `plain` prefetches.
#[inline(always)]
fn walk<F: Format, P: Isa, I: UnitIsa, const T: usize>(
    plain: P,
    isa: I,
    rows: RowQuad<'_>,
    mut x: TokenCursor<'_, T>,
) -> [I::F32x4; T] {
    let units = F::LEN / BLOCK;
    let mut rows = RowCursor::<F::Block, I::Places>::new(rows, x.left() / units);
    let mut acc = [isa.splat4(0.0); T];
    while let Some(blocks) = rows.next() {
        let mut head = F::head(isa, blocks);
        rows.prefetch(plain);
        if I::UNROLL_UNITS {
            unroll!(u in 0..units => {
                // SAFETY: there are at most `x.left() / units` blocks.
                let x = unsafe { x.next() };
                acc = add::<F, I, T>(isa, &F::unit(isa, &head, u), &x, acc);
                if (u + 1).is_multiple_of(F::UNITS_TOGETHER) {
                    F::after(isa, &mut head, acc[T - 1]);
                }
            });
        } else {
            for u in 0..units {
                // SAFETY: as above.
                let x = unsafe { x.next() };
                acc = add::<F, I, T>(isa, &F::unit(isa, &head, u), &x, acc);
            }
        }
    }
    acc
}

/// Adds the products of a unit and `T` tokens.
#[inline(always)]
fn add<F: Format, I: UnitIsa, const T: usize>(
    isa: I,
    w: &Unit<I>,
    x: &TokenBlock<'_, T>,
    mut acc: [I::F32x4; T],
) -> [I::F32x4; T] {
    unroll!(t in 0..T => {
        let q = isa.load_i8(&x.q[t]);
        if matches!(F::QUANTS, Quants::Halves) {
            let dots = isa.dot4_scaled_halves(&w.q, w.form, q, &x.halves[t], F::OFFSET, w.s[0]);
            let mut sum = isa.mul4(dots, w.d[0]);
            if F::MINIMUM {
                sum = isa.fma4(isa.scaled_sums(w.s[1], &x.halves[t]), w.d[1], sum);
            }
            acc[t] = isa.fma4(sum, isa.splat4(x.d[t]), acc[t]);
        } else if matches!(F::QUANTS, Quants::FloatHalves) {
            let dots = isa.dot4_halves(&w.q, w.form, q, &x.halves[t], F::OFFSET);
            unroll!(h in 0..2 => { acc[t] = isa.fma4(dots[h], isa.mul4(w.d[h], isa.splat4(x.d[t])), acc[t]) });
        } else {
            let dots = match F::QUANTS {
                Quants::Nibbles => isa.dot4_small(&w.q, w.form, q, x.bias[t], F::OFFSET),
                Quants::Five => isa.dot4_five(&w.q, w.form, q, x.bias[t], F::OFFSET),
                _ => isa.dot4_levels(&w.q, w.form, q, x.bias[t]),
            };
            acc[t] = isa.fma4(dots, isa.mul4(w.d[0], isa.splat4(x.d[t])), acc[t]);
            if F::MINIMUM {
                acc[t] = isa.fma4(w.d[1], isa.splat4(x.dsum[t]), acc[t]);
            }
        }
    });
    acc
}
