//! Two vectors of eight `f32`, for instruction sets whose registers hold eight or fewer.
//!
//! The caller chooses what the two are: of two rows, or sixteen numbers side by side. Each lane computes what it would in
//! a vector of eight, so the bits do not depend on the width of registers.

use super::isa::{F32x16, Isa};
use super::unroll::unroll_array;

/// Two vectors.
#[derive(Clone, Copy)]
pub(crate) struct F32x8Pair<I: Isa>([I::F32x8; 2]);

impl<I: Isa> F32x16<I> for F32x8Pair<I> {
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(isa: I, x: f32) -> Self {
        F32x8Pair([isa.splat8(x); 2])
    }
    #[inline(always)]
    fn load(isa: I, [a, b]: [&[f32; 8]; 2]) -> Self {
        F32x8Pair([isa.load8(a), isa.load8(b)])
    }
    #[inline(always)]
    fn load_f32(isa: I, [a, b]: [&[u8; 32]; 2]) -> Self {
        F32x8Pair([isa.load8_f32(a), isa.load8_f32(b)])
    }
    #[inline(always)]
    fn load_f16(isa: I, [a, b]: [&[u8; 16]; 2]) -> Self {
        F32x8Pair([isa.load8_f16(a), isa.load8_f16(b)])
    }
    #[inline(always)]
    fn load_i8(isa: I, [a, b]: [&[u8; 8]; 2]) -> Self {
        F32x8Pair([isa.load8_i8(a), isa.load8_i8(b)])
    }
    #[inline(always)]
    fn first(self, _: I) -> I::F32x8 {
        self.0[0]
    }
    #[inline(always)]
    fn store(self, isa: I, out: &mut [[f32; 8]]) {
        if let Some(out) = out.get_mut(0) {
            isa.store8(self.0[0], out);
        }
        if let Some(out) = out.get_mut(1) {
            isa.store8(self.0[1], out);
        }
    }
    #[inline(always)]
    fn mul(self, isa: I, b: Self) -> Self {
        F32x8Pair(unroll_array!(i in 0..2 => isa.mul8(self.0[i], b.0[i])))
    }
    #[inline(always)]
    fn fma(self, isa: I, b: Self, c: Self) -> Self {
        F32x8Pair(unroll_array!(i in 0..2 => isa.fma8(self.0[i], b.0[i], c.0[i])))
    }
    #[inline(always)]
    fn fma_lane<const LANE: i32>(self, isa: I, b: &[f32; 4], c: Self) -> Self {
        F32x8Pair(unroll_array!(i in 0..2 => isa.fma8_lane::<LANE>(self.0[i], b, c.0[i])))
    }
    #[inline(always)]
    fn sums(isa: I, [a, b, c, d]: [Self; 4]) -> [f32; 8] {
        let mut out = [0.0; 8];
        let four = out.as_chunks_mut().0;
        four[0] = isa.sum8x4([a.0[0], a.0[1], b.0[0], b.0[1]]);
        four[1] = isa.sum8x4([c.0[0], c.0[1], d.0[0], d.0[1]]);
        out
    }
}

/// Pair `p` of an array; where there is no second, the first again, which the compiler sees through in pairs of two
/// registers as long as only the first is used of what becomes of it.
#[inline(always)]
pub(super) fn pair_at<T: Copy, const N: usize>(x: &[T; N], p: usize) -> [T; 2] {
    [x[2 * p], x[(2 * p + 1).min(N - 1)]]
}
