//! NEON as every Armv8.0 core has it: Cortex-A53 and A72.
//!
//! The operations are a macro, because later CPUs have the same ones but for integer dot products and binary16.

use core::arch::aarch64::*;

use super::post_index;
use super::registers::{I8x32, PanelRows4, PanelRows8};
use super::smull2::{smlal2, smull2};
use super::tokens::Neon;
use crate::arch::backend::Backend;
use crate::arch::isa::{FloatIsa, Isa, PanelIsa};
use crate::arch::kernels::{Kernels, kernels};
use crate::arch::types::{BlockQuad, Bytes, Nibbles, PanelScales, Sums, TokenBlock};

/// The kernels; `None` on a target compiled without floating-point registers.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    Neon::new().map(|neon| kernels!(Backend::Neon, neon, Neon::new_unchecked(), "neon"))
}

/// Every block relies on the same fact: a token exists only where its instructions do. Loads and stores go through
/// references to arrays of at least the vector's size.
macro_rules! simd {
    ($e:expr) => {
        // SAFETY: the token proves the instructions, and array references are valid for their size.
        unsafe { $e }
    };
}
pub(super) use simd;

/// Adds the products of a block of 32 int8 with four others.
///
/// Per byte lane two products of opposite halves are added in int16, which they fit: 2·128·127 = 32512. Then adjacent
/// pairs are added into int32.
#[inline(always)]
fn add_i8(w: &[I8x32; 4], x: I8x32, sums: [int32x4_t; 4]) -> [int32x4_t; 4] {
    simd!({
        let half = |w, x| smlal2(low(w, x), w, x);
        let add = |r: usize| vpadalq_s16(vpadalq_s16(sums[r], half(w[r][0], x[0])), half(w[r][1], x[1]));
        [add(0), add(1), add(2), add(3)]
    })
}

/// Nibbles leave room in int16 for four products, 4·15·127 = 7620, and for the sum of four such: 30480. So rows are
/// folded before they are widened.
#[inline(always)]
fn dot4_nibbles(w: &[I8x32; 4], x: I8x32, bias: i32) -> int32x4_t {
    simd!({
        let [a, b, c, d] = w.map(|w| {
            let sum = vmlal_high_s8(vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0])), w[0], x[0]);
            vmlal_high_s8(vmlal_s8(sum, vget_low_s8(w[1]), vget_low_s8(x[1])), w[1], x[1])
        });
        vpadalq_s16(vdupq_n_s32(bias), vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d)))
    })
}

/// PanelRows4 vectors of partial sums to a vector of four sums.
#[inline(always)]
pub(super) fn fold(v: [int32x4_t; 4]) -> int32x4_t {
    simd!(vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3])))
}

/// An `Isa` of NEON operations, with the integer dot products of four rows given.
macro_rules! neon_isa {
    ($token:ident, $add_i8:expr, $dot4_nibbles:expr $(, $f16:ident)?) => {
        impl Isa for $token {
            type F32x8 = [float32x4_t; 2];
            type F32x16 = $crate::arch::f32x16::F32x8Pair<Self>;
            type F32x4 = float32x4_t;
            type I8x32 = I8x32;
            type Sums = [int32x4_t; 4];

            #[inline(always)]
            fn splat8(self, x: f32) -> Self::F32x8 {
                simd!([vdupq_n_f32(x); 2])
            }
            #[inline(always)]
            fn load8(self, x: &[f32; 8]) -> Self::F32x8 {
                simd!([vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(4))])
            }
            #[inline(always)]
            fn store8(self, x: Self::F32x8, out: &mut [f32; 8]) {
                simd!({
                    vst1q_f32(out.as_mut_ptr(), x[0]);
                    vst1q_f32(out.as_mut_ptr().add(4), x[1]);
                })
            }
            #[inline(always)]
            fn load8_f32(self, x: &[u8; 32]) -> Self::F32x8 {
                simd!({
                    let bytes = [vld1q_u8(x.as_ptr()), vld1q_u8(x.as_ptr().add(16))];
                    bytes.map(|b| vreinterpretq_f32_u8(b))
                })
            }
            #[inline(always)]
            fn load8_f16(self, x: &[u8; 16]) -> Self::F32x8 {
                simd!({
                    let x = vreinterpretq_f16_u8(vld1q_u8(x.as_ptr()));
                    [vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)]
                })
            }
            #[inline(always)]
            fn load8_bf16(self, x: &[u8; 16]) -> Self::F32x8 {
                simd!({
                    let x = vreinterpretq_u16_u8(vld1q_u8(x.as_ptr()));
                    [vshll_n_u16::<16>(vget_low_u16(x)), vshll_high_n_u16::<16>(x)].map(|x| vreinterpretq_f32_u32(x))
                })
            }
            #[inline(always)]
            fn load8_i8(self, x: &[u8; 8]) -> Self::F32x8 {
                simd!({
                    let x = vmovl_s8(vld1_s8(x.as_ptr().cast()));
                    [vcvtq_f32_s32(vmovl_s16(vget_low_s16(x))), vcvtq_f32_s32(vmovl_high_s16(x))]
                })
            }
            #[inline(always)]
            fn store8_f16(self, x: Self::F32x8, out: &mut [u8; 16]) {
                simd!({
                    let x = vcvt_high_f16_f32(vcvt_f16_f32(x[0]), x[1]);
                    vst1q_u8(out.as_mut_ptr(), vreinterpretq_u8_f16(x))
                })
            }
            #[inline(always)]
            fn add8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
                simd!([vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])])
            }
            #[inline(always)]
            fn sub8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
                simd!([vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1])])
            }
            #[inline(always)]
            fn mul8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
                simd!([vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])])
            }
            #[inline(always)]
            fn div8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
                simd!([vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1])])
            }
            #[inline(always)]
            fn min8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
                simd!([vminnmq_f32(a[0], b[0]), vminnmq_f32(a[1], b[1])])
            }
            #[inline(always)]
            fn max8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8 {
                simd!([vmaxnmq_f32(a[0], b[0]), vmaxnmq_f32(a[1], b[1])])
            }
            #[inline(always)]
            fn abs8(self, a: Self::F32x8) -> Self::F32x8 {
                simd!(a.map(|a| vabsq_f32(a)))
            }
            #[inline(always)]
            fn fma8(self, a: Self::F32x8, b: Self::F32x8, c: Self::F32x8) -> Self::F32x8 {
                simd!([vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])])
            }
            #[inline(always)]
            fn fma8_lane<const LANE: i32>(self, a: Self::F32x8, b: &[f32; 4], c: Self::F32x8) -> Self::F32x8 {
                simd!({
                    let b = vld1q_f32(b.as_ptr());
                    [vfmaq_laneq_f32::<LANE>(c[0], a[0], b), vfmaq_laneq_f32::<LANE>(c[1], a[1], b)]
                })
            }
            #[inline(always)]
            fn round8(self, a: Self::F32x8) -> Self::F32x8 {
                simd!(a.map(|a| vrndnq_f32(a)))
            }
            #[inline(always)]
            fn ldexp8(self, x: Self::F32x8, n: Self::F32x8) -> Self::F32x8 {
                let ldexp = |x, n| {
                    simd!({
                        let n = vshlq_n_s32::<23>(vcvtq_s32_f32(n));
                        vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), n))
                    })
                };
                [ldexp(x[0], n[0]), ldexp(x[1], n[1])]
            }
            #[inline(always)]
            fn sum8(self, a: Self::F32x8) -> f32 {
                simd!({
                    let four = vaddq_f32(a[0], a[1]);
                    let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
                    vget_lane_f32::<0>(vpadd_f32(two, two))
                })
            }
            #[inline(always)]
            fn sum8x4(self, a: [Self::F32x8; 4]) -> [f32; 4] {
                simd!({
                    let a = a.map(|a| vaddq_f32(a[0], a[1]));
                    let mut out = [0.0; 4];
                    vst1q_f32(out.as_mut_ptr(), vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3])));
                    out
                })
            }
            #[inline(always)]
            fn hmax8(self, a: Self::F32x8) -> f32 {
                simd!(vmaxnmvq_f32(vmaxnmq_f32(a[0], a[1])))
            }
            #[inline(always)]
            fn to_i8(self, x: [Self::F32x8; 4], out: &mut [i8; 32]) {
                simd!({
                    let narrow = |x: Self::F32x8| vmovn_s32_pair(vcvtq_s32_f32(x[0]), vcvtq_s32_f32(x[1]));
                    vst1q_s8(out.as_mut_ptr(), vmovn_high_s16(vmovn_s16(narrow(x[0])), narrow(x[1])));
                    vst1q_s8(out.as_mut_ptr().add(16), vmovn_high_s16(vmovn_s16(narrow(x[2])), narrow(x[3])));
                })
            }

            #[inline(always)]
            fn transpose8x4(self, rows: [Self::F32x8; 4]) -> [float32x4_t; 8] {
                let [a, b] = [0, 1].map(|h| transpose4x4(rows.map(|row| row[h])));
                [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
            }
            #[inline(always)]
            fn splat4(self, x: f32) -> float32x4_t {
                simd!(vdupq_n_f32(x))
            }
            #[inline(always)]
            fn load4(self, x: &[f32; 4]) -> float32x4_t {
                simd!(vld1q_f32(x.as_ptr()))
            }
            #[inline(always)]
            fn store4(self, x: float32x4_t) -> [f32; 4] {
                let mut out = [0.0; 4];
                simd!(vst1q_f32(out.as_mut_ptr(), x));
                out
            }
            #[inline(always)]
            fn gather4_f16(self, x: [&[u8; 2]; 4]) -> float32x4_t {
                simd!({
                    // Set lane by lane, these become `ld1` of a lane each, at any alignment.
                    let [a, b, c, d] = x.map(|x| u16::from_le_bytes(*x));
                    let bits = vset_lane_u16::<1>(b, vset_lane_u16::<0>(a, vdup_n_u16(0)));
                    let bits = vset_lane_u16::<3>(d, vset_lane_u16::<2>(c, bits));
                    vcvt_f32_f16(vreinterpret_f16_u16(bits))
                })
            }
            #[inline(always)]
            fn mul4(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
                simd!(vmulq_f32(a, b))
            }
            #[inline(always)]
            fn fma4(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
                simd!(vfmaq_f32(c, a, b))
            }

            #[inline(always)]
            fn load_i8(self, x: &[i8; 32]) -> I8x32 {
                simd!([vld1q_s8(x.as_ptr()), vld1q_s8(x.as_ptr().add(16))])
            }
            #[inline(always)]
            fn load_u8(self, x: &[u8; 32]) -> I8x32 {
                simd!([vld1q_s8(x.as_ptr().cast()), vld1q_s8(x.as_ptr().add(16).cast())])
            }
            #[inline(always)]
            fn load_nibbles(self, x: &[u8; 16]) -> I8x32 {
                split(simd!(vld1q_u8(x.as_ptr())))
            }
            #[inline(always)]
            fn dot4_i8(self, w: &[I8x32; 4], x: I8x32, bias: i32) -> float32x4_t {
                self.fold_i8(self.add_i8(w, x, self.sums_i8(bias)))
            }
            #[inline(always)]
            fn sums_i8(self, _bias: i32) -> [int32x4_t; 4] {
                simd!([vdupq_n_s32(0); 4])
            }
            #[inline(always)]
            fn add_i8(self, w: &[I8x32; 4], x: I8x32, sums: [int32x4_t; 4]) -> [int32x4_t; 4] {
                $add_i8(w, x, sums)
            }
            #[inline(always)]
            fn fold_i8(self, sums: [int32x4_t; 4]) -> float32x4_t {
                simd!(vcvtq_f32_s32(fold(sums)))
            }
            #[inline(always)]
            fn dot4_nibbles(self, w: &[I8x32; 4], x: I8x32, bias: i32) -> float32x4_t {
                simd!(vcvtq_f32_s32($dot4_nibbles(w, x, bias)))
            }

            #[inline(always)]
            fn q8_0(self, step: BlockQuad<'_, 34>) -> ([I8x32; 4], float32x4_t) {
                let rows = step.pointers();
                // SAFETY: each pointer has the 34 bytes of a block, which are read once, in order.
                unsafe {
                    let d = vcvt_f32_f16(vreinterpret_f16_u16(post_index::take_u16x4(rows)));
                    (rows.each_mut().map(|row| post_index::take_32(row)), d)
                }
            }
            #[inline(always)]
            fn q4_0(self, step: BlockQuad<'_, 18>) -> ([I8x32; 4], float32x4_t) {
                let rows = step.pointers();
                // SAFETY: each pointer has the 18 bytes of a block, which are read once, in order.
                unsafe {
                    let d = vcvt_f32_f16(vreinterpret_f16_u16(post_index::take_u16x4(rows)));
                    (rows.each_mut().map(|row| split(post_index::take_16(row))), d)
                }
            }
            #[inline(always)]
            fn q4_1(self, step: BlockQuad<'_, 20>) -> ([I8x32; 4], float32x4_t, float32x4_t) {
                let rows = step.pointers();
                // SAFETY: each pointer has the 20 bytes of a block, which are read once, in order.
                unsafe {
                    let dm = vreinterpretq_u16_u32(post_index::take_u32x4(rows));
                    let [d, m] = [vuzp1q_u16(dm, dm), vuzp2q_u16(dm, dm)]
                        .map(|x| vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(x))));
                    (rows.each_mut().map(|row| split(post_index::take_16(row))), d, m)
                }
            }
            #[inline(always)]
            fn f32x16(self, step: BlockQuad<'_, 64>) -> [[[float32x4_t; 2]; 2]; 4] {
                // SAFETY: each pointer has 64 bytes, which are read once, in order.
                step.pointers().each_mut().map(|row| unsafe {
                    [post_index::take_32(row), post_index::take_32(row)].map(|x| x.map(|x| vreinterpretq_f32_s8(x)))
                })
            }
            #[inline(always)]
            fn f16x16(self, step: BlockQuad<'_, 32>) -> [[[float32x4_t; 2]; 2]; 4] {
                // SAFETY: each pointer has 32 bytes, which are read once, in order.
                step.pointers().each_mut().map(|row| unsafe {
                    post_index::take_32(row).map(|x| {
                        let x = vreinterpretq_f16_s8(x);
                        [vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)]
                    })
                })
            }
            #[inline(always)]
            fn transpose4(self, rows: [&[u8; 16]; 4]) -> [[u8; 16]; 4] {
                simd!({
                    let words = transpose4x4(rows.map(|r| vreinterpretq_f32_u8(vld1q_u8(r.as_ptr()))));
                    words.map(|w| {
                        let mut out = [0; 16];
                        vst1q_u8(out.as_mut_ptr(), vreinterpretq_u8_f32(w));
                        out
                    })
                })
            }
        }

        impl FloatIsa for $token {
            const ROWS: usize = 8;
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
                simd!({
                    let x = vld1q_f32(x.as_ptr());
                    [0, 1].map(|h| {
                        let sum = vfmaq_laneq_f32::<1>(vfmaq_laneq_f32::<0>(acc[h], w[0][h], x), w[1][h], x);
                        vfmaq_laneq_f32::<3>(vfmaq_laneq_f32::<2>(sum, w[2][h], x), w[3][h], x)
                    })
                })
            }
            $(
                const F16_PRODUCTS: bool = true;
                #[inline(always)]
                fn fma_f16<const T: usize>(
                    self,
                    w: BlockQuad<'_, 64>,
                    x: [&F16Block; T],
                    acc: &mut [[float32x4_t; 2]; T],
                ) {
                    // SAFETY: each pointer has 64 bytes, which are read once, in order; the token proves that the CPU
                    // computes with binary16.
                    unsafe {
                        let halves = x.map(|x| x.x.each_ref().map(|x| vld1q_s8(x.as_ptr().cast())));
                        let products = w.pointers().each_mut().map(|row| {
                            let ([a, b], [c, d]) = (post_index::take_32(row), post_index::take_32(row));
                            halves.map(|x| {
                                let p = $f16::fma(b, x[1], $f16::mul(a, x[0]));
                                $f16::fma(d, x[3], $f16::fma(c, x[2], p))
                            })
                        });
                        for t in 0..T {
                            let [p, q, r, s] = products.map(|row| row[t]);
                            let sums = $f16::add_pairs($f16::add_pairs(p, q), $f16::add_pairs(r, s));
                            let sums = vreinterpretq_f16_s8(sums);
                            acc[t][0] = vfmaq_n_f32(acc[t][0], vcvt_f32_f16(vget_low_f16(sums)), x[t].d);
                            acc[t][1] = vfmaq_n_f32(acc[t][1], vcvt_high_f32_f16(sums), x[t].d);
                        }
                    }
                }
                #[inline(always)]
                fn fold_f16(self, acc: [float32x4_t; 2]) -> [f32; 4] {
                    self.store4(simd!(vpaddq_f32(acc[0], acc[1])))
                }
            )?
        }
    };
}
pub(super) use neon_isa;

/// PanelRows4 vectors of four words, transposed.
#[inline(always)]
pub(super) fn transpose4x4([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    simd!({
        let wide = |x| vreinterpretq_f64_f32(x);
        let (ab0, ab1) = (wide(vtrn1q_f32(a, b)), wide(vtrn2q_f32(a, b)));
        let (cd0, cd1) = (wide(vtrn1q_f32(c, d)), wide(vtrn2q_f32(c, d)));
        [vtrn1q_f64(ab0, cd0), vtrn1q_f64(ab1, cd1), vtrn2q_f64(ab0, cd0), vtrn2q_f64(ab1, cd1)]
            .map(|x| vreinterpretq_f32_f64(x))
    })
}

/// PanelRows8 int32 within int16, narrowed.
#[inline(always)]
pub(super) fn vmovn_s32_pair(a: int32x4_t, b: int32x4_t) -> int16x8_t {
    simd!(vmovn_high_s32(vmovn_s32(a), b))
}

/// The low halves of 16 bytes, then the high ones.
#[inline(always)]
pub(super) fn split(x: uint8x16_t) -> I8x32 {
    simd!([vandq_u8(x, vdupq_n_u8(15)), vshrq_n_u8::<4>(x)].map(|x| vreinterpretq_s8_u8(x)))
}

neon_isa!(Neon, add_i8, dot4_nibbles);

/// Loads of a group's weights and scales.
pub(super) mod load {
    use super::*;

    /// One half of a panel's rows.
    #[inline(always)]
    pub(in super::super) fn int8(q: &Bytes, group: usize) -> PanelRows8 {
        // Below 4, which spares checks.
        simd!([0, 1].map(|h| core::array::from_fn(|k| { vld1q_s8(q[4 * k + ((2 * group + h) & 3)].as_ptr().cast()) })))
    }
    #[inline(always)]
    pub(in super::super) fn nibbles(n: &Nibbles, group: usize) -> PanelRows8 {
        [0, 1].map(|h| {
            let n: [I8x32; 4] =
                simd!(core::array::from_fn(|k| split(vld1q_u8(n[4 * k + ((2 * group + h) & 3)].as_ptr()))));
            core::array::from_fn(|k| n[k % 4][k / 4])
        })
    }
    #[inline(always)]
    pub(in super::super) fn scales(scales: &PanelScales, group: usize) -> [float32x4_t; 2] {
        let eight = &scales.as_chunks::<16>().0[group & 1];
        simd!({
            let x = vreinterpretq_f16_u8(vld1q_u8(eight.as_ptr()));
            [vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)]
        })
    }
    #[inline(always)]
    pub(in super::super) fn sums(sums: &Sums, group: usize) -> [float32x4_t; 2] {
        let eight = &sums.as_chunks::<8>().0[group & 1];
        simd!([vld1q_f32(eight.as_ptr()), vld1q_f32(eight.as_ptr().add(4))])
    }
    #[inline(always)]
    pub(in super::super) fn store(acc: [float32x4_t; 2], sums: &mut Sums, group: usize) {
        let eight = &mut sums.as_chunks_mut::<8>().0[group & 1];
        simd!({
            vst1q_f32(eight.as_mut_ptr(), acc[0]);
            vst1q_f32(eight.as_mut_ptr().add(4), acc[1]);
        })
    }
}

/// The parts of a `PanelIsa` that do not multiply: eight rows a group, one token at a time.
macro_rules! neon_panel {
    () => {
        const ROWS: usize = 8;
        const TOKENS: usize = 1;
        type Single = Self;
        type Weights = PanelRows8;
        type Dots = [int32x4_t; 2];
        type Scales = [float32x4_t; 2];
        type Acc = [float32x4_t; 2];

        fn single(self) -> Self {
            self
        }
        #[inline(always)]
        fn int8(self, q: &Bytes, group: usize) -> PanelRows8 {
            load::int8(q, group)
        }
        #[inline(always)]
        fn nibbles(self, n: &Nibbles, group: usize) -> PanelRows8 {
            load::nibbles(n, group)
        }
        #[inline(always)]
        fn scales(self, scales: &PanelScales, group: usize) -> [float32x4_t; 2] {
            load::scales(scales, group)
        }
        #[inline(always)]
        fn load<const T: usize>(self, sums: &[Sums; T], group: usize) -> [float32x4_t; 2] {
            load::sums(&sums[0], group)
        }
        #[inline(always)]
        fn store<const T: usize>(self, acc: [float32x4_t; 2], sums: &mut [Sums; T], group: usize) {
            load::store(acc, &mut sums[0], group)
        }
        #[inline(always)]
        fn add<const T: usize>(
            self,
            acc: [float32x4_t; 2],
            dots: [int32x4_t; 2],
            d: [float32x4_t; 2],
            x: &[f32; T],
        ) -> [float32x4_t; 2] {
            simd!([0, 1].map(|h| vfmaq_f32(acc[h], vcvtq_f32_s32(dots[h]), vmulq_n_f32(d[h], x[0]))))
        }
        #[inline(always)]
        fn add_minima<const T: usize>(
            self,
            acc: [float32x4_t; 2],
            m: [float32x4_t; 2],
            x: &[f32; T],
        ) -> [float32x4_t; 2] {
            simd!([0, 1].map(|h| vfmaq_n_f32(acc[h], m[h], x[0])))
        }
    };
}
pub(super) use neon_panel;

/// Columns 4k..4k + 4 in all four lanes, for k in 0..8.
#[inline(always)]
fn broadcast(x: &[i8; 32]) -> PanelRows4 {
    simd!({
        let [a, b] = [0, 16].map(|at| vld4q_dup_s32(x.as_ptr().add(at).cast()));
        [a.0, a.1, a.2, a.3, b.0, b.1, b.2, b.3].map(|x| vreinterpretq_s8_s32(x))
    })
}

impl PanelIsa for Neon {
    neon_panel!();

    /// Products of rows 0 and 1 are in one vector of int16, of rows 2 and 3 in another; two of them fit a lane.
    #[inline(always)]
    fn dot_int8<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>) -> [int32x4_t; 2] {
        let x = broadcast(&x.q[0]);
        w.map(|w| {
            simd!({
                let two = |k| vmlal_s8(low(w[k], x[k]), vget_low_s8(w[k + 1]), vget_low_s8(x[k + 1]));
                let other = |k| smlal2(smull2(w[k], x[k]), w[k + 1], x[k + 1]);
                let (mut a, mut b) = (vpaddlq_s16(two(0)), vpaddlq_s16(other(0)));
                for k in [2, 4, 6] {
                    a = vpadalq_s16(a, two(k));
                    b = vpadalq_s16(b, other(k));
                }
                vpaddq_s32(a, b)
            })
        })
    }

    /// PanelRows8 products fit a lane, 8·15·127 = 15240, and so does the sum of two such.
    #[inline(always)]
    fn dot_nibbles<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>, offset: bool) -> [int32x4_t; 2] {
        let bias = if offset { x.bias[0] } else { 0 };
        let x = broadcast(&x.q[0]);
        w.map(|w| {
            simd!({
                let (mut a, mut b) = (low(w[0], x[0]), smull2(w[0], x[0]));
                for k in 1..8 {
                    a = vmlal_s8(a, vget_low_s8(w[k]), vget_low_s8(x[k]));
                    b = smlal2(b, w[k], x[k]);
                }
                let sums = vpaddq_s16(a, b);
                if offset { vpadalq_s16(vdupq_n_s32(bias), sums) } else { vpaddlq_s16(sums) }
            })
        })
    }
}

/// Products of the low halves.
#[inline(always)]
fn low(a: int8x16_t, b: int8x16_t) -> int16x8_t {
    simd!(vmull_s8(vget_low_s8(a), vget_low_s8(b)))
}
