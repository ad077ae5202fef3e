//! NEON as every Armv8.0 core has it: Cortex-A53 and A72.
//!
//! The operations are a macro, because `dotprod` has the same ones but for the integer dot product.

use core::arch::aarch64::*;

use crate::arch::isa::Isa;
use crate::arch::{Backend, Kernels, kernels};

/// Proof that the CPU has NEON.
#[derive(Clone, Copy)]
struct Neon(());

/// The kernels; `None` on a target compiled without floating-point registers.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    // The token is made only inside functions compiled for NEON, whose pointers only this table holds.
    cfg!(target_feature = "neon").then(|| kernels!(Backend::Neon, Neon(()), "neon"))
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

/// 32 int8 as two registers.
pub(super) type I8x32 = [int8x16_t; 2];

/// Dot products of two blocks of 32 int8, as four partial sums.
///
/// Per byte lane two products of opposite halves are added in int16, which they fit: 2·128·127 = 32512. Then adjacent
/// pairs are added into int32.
#[inline(always)]
fn products(w: I8x32, x: I8x32) -> int32x4_t {
    simd!({
        let half = |w, x| vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x);
        vpadalq_s16(vpaddlq_s16(half(w[0], x[0])), half(w[1], x[1]))
    })
}

/// Nibbles leave room for four products in int16: 4·15·127 = 7620.
#[inline(always)]
fn nibble_products(w: I8x32, x: I8x32) -> int32x4_t {
    simd!({
        let sum = vmlal_high_s8(vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0])), w[0], x[0]);
        vpaddlq_s16(vmlal_high_s8(vmlal_s8(sum, vget_low_s8(w[1]), vget_low_s8(x[1])), w[1], x[1]))
    })
}

/// Four vectors of partial sums to a vector of four sums.
#[inline(always)]
pub(super) fn fold(v: [int32x4_t; 4]) -> float32x4_t {
    simd!(vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]))))
}

/// An `Isa` of NEON operations, with the integer dot products given.
macro_rules! neon_isa {
    ($token:ident, $products:expr, $nibble_products:expr) => {
        impl Isa for $token {
            type F32x8 = [float32x4_t; 2];
            type F32x4 = float32x4_t;
            type I8x32 = I8x32;

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
            fn round8(self, a: Self::F32x8) -> Self::F32x8 {
                simd!(a.map(|a| vrndnq_f32(a)))
            }
            #[inline(always)]
            fn exp2i8(self, n: Self::F32x8) -> Self::F32x8 {
                simd!(n.map(|n| {
                    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127))))
                }))
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
            fn splat4(self, x: f32) -> float32x4_t {
                simd!(vdupq_n_f32(x))
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
            fn nibbles(self, x: &[u8; 16]) -> I8x32 {
                simd!({
                    let x = vld1q_u8(x.as_ptr());
                    [vandq_u8(x, vdupq_n_u8(15)), vshrq_n_u8::<4>(x)].map(|x| vreinterpretq_s8_u8(x))
                })
            }
            #[inline(always)]
            fn dot4_i8(self, w: &[I8x32; 4], x: I8x32) -> float32x4_t {
                fold(w.map(|w| $products(w, x)))
            }
            #[inline(always)]
            fn dot4_nibbles(self, w: &[I8x32; 4], x: I8x32) -> float32x4_t {
                fold(w.map(|w| $nibble_products(w, x)))
            }
        }
    };
}
pub(super) use neon_isa;

/// Eight int32 within int16, narrowed.
#[inline(always)]
pub(super) fn vmovn_s32_pair(a: int32x4_t, b: int32x4_t) -> int16x8_t {
    simd!(vmovn_high_s32(vmovn_s32(a), b))
}

neon_isa!(Neon, products, nibble_products);
