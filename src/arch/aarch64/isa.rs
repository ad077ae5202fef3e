//! The operations of [`Isa`] and [`FloatIsa`] on NEON, generic over the token.

use core::arch::aarch64::*;

use super::post_index;
use super::registers::I8x32;
use super::tokens::{Neon, NeonToken, simd};
use crate::arch::f32x16::F32x8Pair;
use crate::arch::isa::{FloatIsa, Isa};
use crate::arch::types::{BlockQuad, F16Block};

/// The operations that differ between NEON CPUs: dot products of int8, and products of binary16.
pub(super) trait NeonDot: NeonToken {
    /// As [`FloatIsa::F16_PRODUCTS`].
    const F16_PRODUCTS: bool = false;

    /// Adds the products of a block of 32 int8 with four others, in four partial sums each.
    fn add_i8(self, w: &[I8x32; 4], x: I8x32, sums: [int32x4_t; 4]) -> [int32x4_t; 4];

    /// Dot products of a block of 32 int8 with four others within ±16, plus `bias` if there is one.
    fn dot4_nibbles(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t;

    /// The same within 0..=31.
    fn dot4_five(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t;

    /// The same within 0..=63.
    fn dot4_six(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t;

    /// The dot products of quants within 0..=3 in [planes](crate::arch::isa::Order::Planes) with activations in them.
    fn dot4_planes(self, w: &[I8x32; 4], x: [int8x16_t; 4]) -> int32x4_t;

    /// Dot products of the first 16 and of the last int8 of a block with four others within 0..=63.
    fn dot4_halves(self, w: &[I8x32; 4], x: I8x32) -> [int32x4_t; 2];

    /// The same within ±16, as numbers, all columns in the order of [eights](crate::arch::isa::Order::Eights).
    fn dot4_eights(self, w: &[I8x32; 4], x: I8x32) -> [float32x4_t; 2];

    /// As [`FloatIsa::fma_f16`].
    #[inline(always)]
    fn fma_f16<const T: usize>(
        self,
        _w: BlockQuad<'_, '_, [u8; 64]>,
        _x: [&F16Block; T],
        _acc: &mut [[float32x4_t; 2]; T],
    ) {
    }
}

impl Neon {
    /// The sum of each of four vectors.
    #[inline(always)]
    pub(super) fn fold(self, v: [int32x4_t; 4]) -> int32x4_t {
        simd!(self, vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3])))
    }

    /// Four rows of four words to four columns.
    #[inline(always)]
    pub(super) fn transpose4x4(self, [a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
        simd!(self, {
            let wide = |x| vreinterpretq_f64_f32(x);
            let (ab0, ab1) = (wide(vtrn1q_f32(a, b)), wide(vtrn2q_f32(a, b)));
            let (cd0, cd1) = (wide(vtrn1q_f32(c, d)), wide(vtrn2q_f32(c, d)));
            [vtrn1q_f64(ab0, cd0), vtrn1q_f64(ab1, cd1), vtrn2q_f64(ab0, cd0), vtrn2q_f64(ab1, cd1)]
                .map(|x| vreinterpretq_f32_f64(x))
        })
    }

    /// Eight int32 to int16, which they fit.
    #[inline(always)]
    fn narrow(self, a: int32x4_t, b: int32x4_t) -> int16x8_t {
        simd!(self, vmovn_high_s32(vmovn_s32(a), b))
    }

    /// The low nibbles of 16 bytes, then the high ones.
    #[inline(always)]
    pub(super) fn split_nibbles(self, x: uint8x16_t) -> I8x32 {
        simd!(self, [vandq_u8(x, vdupq_n_u8(15)), vshrq_n_u8::<4>(x)].map(|x| vreinterpretq_s8_u8(x)))
    }
}

impl<X: NeonDot> Isa for X {
    type F32x8 = [float32x4_t; 2];
    type F32x16 = F32x8Pair<Self>;
    type Sums = [int32x4_t; 4];

    #[inline(always)]
    fn splat8(self, x: f32) -> Self::F32x8 {
        simd!(self, [vdupq_n_f32(x); 2])
    }
    #[inline(always)]
    fn load8(self, x: &[f32; 8]) -> Self::F32x8 {
        simd!(self, [vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(4))])
    }
    #[inline(always)]
    fn store8(self, x: Self::F32x8, out: &mut [f32; 8]) {
        simd!(self, {
            vst1q_f32(out.as_mut_ptr(), x[0]);
            vst1q_f32(out.as_mut_ptr().add(4), x[1]);
        })
    }
    #[inline(always)]
    fn load8_f32(self, x: &[u8; 32]) -> Self::F32x8 {
        simd!(self, {
            let bytes = [vld1q_u8(x.as_ptr()), vld1q_u8(x.as_ptr().add(16))];
            bytes.map(|b| vreinterpretq_f32_u8(b))
        })
    }
    #[inline(always)]
    fn load8_f16(self, x: &[u8; 16]) -> Self::F32x8 {
        simd!(self, {
            let x = vreinterpretq_f16_u8(vld1q_u8(x.as_ptr()));
            [vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)]
        })
    }
    #[inline(always)]
    fn load8_bf16(self, x: &[u8; 16]) -> Self::F32x8 {
        simd!(self, {
            let x = vreinterpretq_u16_u8(vld1q_u8(x.as_ptr()));
            [vshll_n_u16::<16>(vget_low_u16(x)), vshll_high_n_u16::<16>(x)].map(|x| vreinterpretq_f32_u32(x))
        })
    }
    #[inline(always)]
    fn load8_i8(self, x: &[u8; 8]) -> Self::F32x8 {
        simd!(self, {
            let x = vmovl_s8(vld1_s8(x.as_ptr().cast()));
            [vcvtq_f32_s32(vmovl_s16(vget_low_s16(x))), vcvtq_f32_s32(vmovl_high_s16(x))]
        })
    }
    #[inline(always)]
    fn store8_f16(self, x: Self::F32x8, out: &mut [u8; 16]) {
        simd!(self, {
            let x = vcvt_high_f16_f32(vcvt_f16_f32(x[0]), x[1]);
            vst1q_u8(out.as_mut_ptr(), vreinterpretq_u8_f16(x))
        })
    }
    #[inline(always)]
    fn add8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
        simd!(self, [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn sub8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
        simd!(self, [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn mul8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
        simd!(self, [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn div8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
        simd!(self, [vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn min8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
        simd!(self, [vminnmq_f32(a[0], b[0]), vminnmq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn max8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
        simd!(self, [vmaxnmq_f32(a[0], b[0]), vmaxnmq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn abs8(self, a: Self::F32x8) -> Self::F32x8 {
        simd!(self, a.map(|a| vabsq_f32(a)))
    }
    #[inline(always)]
    fn fma8(self, a: Self::F32x8, b: Self::F32x8, c: Self::F32x8) -> Self::F32x8 {
        simd!(self, [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])])
    }
    #[inline(always)]
    fn fma8_lane<const LANE: i32>(self, a: Self::F32x8, b: &[f32; 4], c: Self::F32x8) -> Self::F32x8 {
        simd!(self, {
            let b = vld1q_f32(b.as_ptr());
            [vfmaq_laneq_f32::<LANE>(c[0], a[0], b), vfmaq_laneq_f32::<LANE>(c[1], a[1], b)]
        })
    }
    #[inline(always)]
    fn round8(self, a: Self::F32x8) -> Self::F32x8 {
        simd!(self, a.map(|a| vrndnq_f32(a)))
    }
    #[inline(always)]
    fn ldexp8(self, x: Self::F32x8, n: Self::F32x8) -> Self::F32x8 {
        let ldexp = |x, n| {
            simd!(self, {
                let n = vshlq_n_s32::<23>(vcvtq_s32_f32(n));
                vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), n))
            })
        };
        [ldexp(x[0], n[0]), ldexp(x[1], n[1])]
    }
    #[inline(always)]
    fn sum8(self, a: Self::F32x8) -> f32 {
        simd!(self, {
            let four = vaddq_f32(a[0], a[1]);
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(vpadd_f32(two, two))
        })
    }
    #[inline(always)]
    fn sum8x4(self, a: [Self::F32x8; 4]) -> [f32; 4] {
        simd!(self, {
            let a = a.map(|a| vaddq_f32(a[0], a[1]));
            let mut out = [0.0; 4];
            vst1q_f32(out.as_mut_ptr(), vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])));
            out
        })
    }
    #[inline(always)]
    fn hmax8(self, a: Self::F32x8) -> f32 {
        simd!(self, vmaxnmvq_f32(vmaxnmq_f32(a[0], a[1])))
    }
    #[inline(always)]
    fn to_i8(self, x: [Self::F32x8; 4], out: &mut [i8; 32]) {
        simd!(self, {
            let narrow = |x: Self::F32x8| self.neon().narrow(vcvtq_s32_f32(x[0]), vcvtq_s32_f32(x[1]));
            vst1q_s8(out.as_mut_ptr(), vmovn_high_s16(vmovn_s16(narrow(x[0])), narrow(x[1])));
            vst1q_s8(out.as_mut_ptr().add(16), vmovn_high_s16(vmovn_s16(narrow(x[2])), narrow(x[3])));
        })
    }

    #[inline(always)]
    fn transpose8x4(self, rows: [Self::F32x8; 4]) -> [float32x4_t; 8] {
        let [a, b] = [0, 1].map(|h| self.neon().transpose4x4(rows.map(|row| row[h])));
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
    }
    #[inline(always)]
    fn load4(self, x: &[f32; 4]) -> float32x4_t {
        simd!(self, vld1q_f32(x.as_ptr()))
    }
    #[inline(always)]
    fn store4(self, x: float32x4_t) -> [f32; 4] {
        let mut out = [0.0; 4];
        simd!(self, vst1q_f32(out.as_mut_ptr(), x));
        out
    }

    #[inline(always)]
    fn sums_i8(self, _bias: i32) -> [int32x4_t; 4] {
        simd!(self, [vdupq_n_s32(0); 4])
    }
    #[inline(always)]
    fn add_i8(self, w: &[I8x32; 4], x: I8x32, sums: [int32x4_t; 4]) -> [int32x4_t; 4] {
        NeonDot::add_i8(self, w, x, sums)
    }
    #[inline(always)]
    fn fold_i8(self, sums: [int32x4_t; 4]) -> float32x4_t {
        simd!(self, vcvtq_f32_s32(self.neon().fold(sums)))
    }

    #[inline(always)]
    fn f32x16(self, step: BlockQuad<'_, '_, [u8; 64]>) -> [[[float32x4_t; 2]; 2]; 4] {
        let neon = self.neon();
        // SAFETY: the token proves NEON; each of `BlockQuad::pointers` has 64 bytes, of which 32 and then 32 are taken.
        unsafe {
            step.pointers().each_mut().map(|row| {
                [post_index::take_32(neon, row), post_index::take_32(neon, row)]
                    .map(|x| x.map(|x| vreinterpretq_f32_s8(x)))
            })
        }
    }
    #[inline(always)]
    fn f16x16(self, step: BlockQuad<'_, '_, [u8; 32]>) -> [[[float32x4_t; 2]; 2]; 4] {
        let neon = self.neon();
        // SAFETY: the token proves NEON; each of `BlockQuad::pointers` has 32 bytes, which are taken.
        unsafe {
            step.pointers().each_mut().map(|row| {
                post_index::take_32(neon, row).map(|x| {
                    let x = vreinterpretq_f16_s8(x);
                    [vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)]
                })
            })
        }
    }
    #[inline(always)]
    fn transpose4(self, rows: [&[u8; 16]; 4]) -> [[u8; 16]; 4] {
        simd!(self, {
            let words = self.neon().transpose4x4(rows.map(|r| vreinterpretq_f32_u8(vld1q_u8(r.as_ptr()))));
            words.map(|w| {
                let mut out = [0; 16];
                vst1q_u8(out.as_mut_ptr(), vreinterpretq_u8_f32(w));
                out
            })
        })
    }
}

impl<X: NeonDot> FloatIsa for X {
    const ROWS: usize = 8;
    const F16_PRODUCTS: bool = X::F16_PRODUCTS;
    type Column = [float32x4_t; 2];

    #[inline(always)]
    fn load_column<const R: usize>(self, x: &[f32; R]) -> [float32x4_t; 2] {
        self.load8(x.first_chunk().unwrap_or(&[0.0; 8]))
    }
    #[inline(always)]
    fn store_column<const R: usize>(self, x: [float32x4_t; 2], out: &mut [f32; R]) {
        if let Some(out) = out.first_chunk_mut() {
            self.store8(x, out);
        }
    }
    #[inline(always)]
    fn fma_columns(self, w: &[[float32x4_t; 2]; 4], x: &[f32; 4], acc: [float32x4_t; 2]) -> [float32x4_t; 2] {
        simd!(self, {
            let x = vld1q_f32(x.as_ptr());
            [0, 1].map(|h| {
                let sum = vfmaq_laneq_f32::<1>(vfmaq_laneq_f32::<0>(acc[h], w[0][h], x), w[1][h], x);
                vfmaq_laneq_f32::<3>(vfmaq_laneq_f32::<2>(sum, w[2][h], x), w[3][h], x)
            })
        })
    }

    #[inline(always)]
    fn fma_f16<const T: usize>(
        self,
        w: BlockQuad<'_, '_, [u8; 64]>,
        x: [&F16Block; T],
        acc: &mut [[float32x4_t; 2]; T],
    ) {
        NeonDot::fma_f16(self, w, x, acc);
    }
    #[inline(always)]
    fn fold_f16(self, acc: [float32x4_t; 2]) -> [f32; 4] {
        self.store4(simd!(self, vpaddq_f32(acc[0], acc[1])))
    }
}
