//! Quantised weights as GGUF lays them out, read in place: for one token, or a few.
//!
//! ```text
//! for each block of 32:
//!     w, d = load(4 rows)                   once for T tokens
//!     for t in 0..T: acc[t] += (w · x[t]) · (d · d_x[t])
//! ```
//!
//! Four rows fill the lanes of a vector of `f32`, so that scaling and adding cost one instruction for all of them.

use core::marker::PhantomData;

use super::activations::Activations;
use super::cursor::{RowCursor, RowQuad, TokenCursor};
use super::gemv::RowKernel;
use crate::arch::isa::{FloatIsa, Isa};
use crate::arch::types::{BlockQuad, ROWS};
use crate::arch::unroll::unroll;

/// A quantised format: `w = d·(q + OFFSET)`, or `d·q + m` where there is a minimum. Blocks have `B` bytes.
pub(super) trait Format<const B: usize> {
    /// Whether quants are nibbles; else they are int8.
    const NIBBLES: bool;
    /// Whether −8 is to be added to every quant.
    const OFFSET: bool = false;
    /// Whether there is a minimum.
    const MINIMUM: bool = false;
    /// Four blocks: quants, scales, minima.
    fn load<I: Isa>(isa: I, step: BlockQuad<'_, B>) -> ([I::I8x32; ROWS], I::F32x4, I::F32x4);
}

pub(super) struct Q8_0;
impl Format<34> for Q8_0 {
    const NIBBLES: bool = false;
    #[inline(always)]
    fn load<I: Isa>(isa: I, step: BlockQuad<'_, 34>) -> ([I::I8x32; ROWS], I::F32x4, I::F32x4) {
        let (w, d) = isa.q8_0(step);
        (w, d, isa.splat4(0.0))
    }
}

pub(super) struct Q4_0;
impl Format<18> for Q4_0 {
    const NIBBLES: bool = true;
    const OFFSET: bool = true;
    #[inline(always)]
    fn load<I: Isa>(isa: I, step: BlockQuad<'_, 18>) -> ([I::I8x32; ROWS], I::F32x4, I::F32x4) {
        let (w, d) = isa.q4_0(step);
        (w, d, isa.splat4(0.0))
    }
}

pub(super) struct Q4_1;
impl Format<20> for Q4_1 {
    const NIBBLES: bool = true;
    const MINIMUM: bool = true;
    #[inline(always)]
    fn load<I: Isa>(isa: I, step: BlockQuad<'_, 20>) -> ([I::I8x32; ROWS], I::F32x4, I::F32x4) {
        isa.q4_1(step)
    }
}

/// Rows of a format, as a [`RowKernel`].
pub(super) struct Quantised<F, const B: usize>(PhantomData<F>);

impl<F: Format<B>, const B: usize> RowKernel for Quantised<F, B> {
    type Tokens<'a, const T: usize> = TokenCursor<'a, T>;

    #[inline(always)]
    fn tokens<'a, const T: usize>(x: &Activations<'a>, token: usize) -> TokenCursor<'a, T> {
        TokenCursor::new(x, token, 0)
    }

    #[inline(always)]
    fn tile<I: FloatIsa, const T: usize>(isa: I, rows: RowQuad<'_>, mut x: TokenCursor<'_, T>) -> [[f32; ROWS]; T] {
        let mut rows = RowCursor::<B>::new(rows, x.left());
        let mut acc = [isa.splat4(0.0); T];
        while let Some(step) = rows.next() {
            let (w, d, m) = F::load(isa, step);
            rows.prefetch(isa);
            // SAFETY: there are at most `x.left()` steps.
            let x = unsafe { x.next() };
            unroll!(t in 0..T => {
                let q = isa.load_i8(&x.q[t]);
                let dots = if F::NIBBLES {
                    isa.dot4_nibbles(&w, q, if F::OFFSET { x.bias[t] } else { 0 })
                } else {
                    isa.dot4_i8(&w, q, x.bias[t])
                };
                acc[t] = isa.fma4(dots, isa.mul4(d, isa.splat4(x.d[t])), acc[t]);
                if F::MINIMUM {
                    acc[t] = isa.fma4(m, isa.splat4(x.dsum[t]), acc[t]);
                }
            });
        }
        let mut sums = [[0.0; ROWS]; T];
        unroll!(t in 0..T => { sums[t] = isa.store4(acc[t]) });
        sums
    }
}
