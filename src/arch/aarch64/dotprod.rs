//! NEON with the Armv8.2 dot product and binary16 arithmetic: Cortex-A55, A76 and later.

use core::arch::aarch64::*;
use core::arch::asm;

use super::isa::NeonDot;
use super::panel::NeonPanel;
use super::registers::{I8x32, PanelRows4, PanelRows8};
use super::tokens::{Dotprod, NeonToken, simd};
use super::{f16, post_index};
use crate::arch::backend::Backend;
use crate::arch::kernels::{Kernels, kernels};
use crate::arch::types::{BlockQuad, F16Block};

/// The kernels, where the CPU can run them.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    Dotprod::new().map(|token| kernels!(Backend::Dotprod, token, Dotprod::new_unchecked(), "neon,dotprod,fp16"))
}

/// `sdot`: adds to each int32 lane the four products of its bytes. The intrinsic is unstable in Rust 1.95,
/// and a function compiled for `sdot` would not be inlined where it must.
#[inline(always)]
fn sdot(_: Dotprod, mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers; the token proves that the CPU has the dot product.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// `sdot` by lane: the same with the four bytes of one lane of `b` for all lanes.
#[inline(always)]
fn sdot_lane<const LANE: i32>(_: Dotprod, mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers; the token proves that the CPU has the dot product.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]", inout(vreg) acc, in(vreg) a, in(vreg) b, const LANE,
             options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

impl NeonDot for Dotprod {
    const F16_PRODUCTS: bool = true;

    #[inline(always)]
    fn add_i8(self, w: &[I8x32; 4], x: I8x32, sums: [int32x4_t; 4]) -> [int32x4_t; 4] {
        let add = |r: usize| sdot(self, sdot(self, sums[r], w[r][0], x[0]), w[r][1], x[1]);
        [add(0), add(1), add(2), add(3)]
    }

    /// The first of each row's partial sums starts with `bias`.
    #[inline(always)]
    fn dot4_nibbles(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t {
        let zero = simd!(self, vdupq_n_s32(0));
        let start = match bias {
            Some(bias) => simd!(self, vsetq_lane_s32::<0>(bias, zero)),
            None => zero,
        };
        self.neon().fold(self.add_i8(w, x, [start; 4]))
    }

    #[inline(always)]
    fn dot4_five(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t {
        NeonDot::dot4_nibbles(self, w, x, bias)
    }

    #[inline(always)]
    fn dot4_six(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t {
        NeonDot::dot4_nibbles(self, w, x, bias)
    }

    /// Two of the four sums of a vector are of a row.
    #[inline(always)]
    fn dot4_planes(self, w: &[I8x32; 4], x: [int8x16_t; 4]) -> int32x4_t {
        let zero = simd!(self, vdupq_n_s32(0));
        let [ab, cd] = [0, 2].map(|p| {
            let sum = sdot(self, sdot(self, zero, w[p][0], x[0]), w[p][1], x[1]);
            sdot(self, sdot(self, sum, w[p + 1][0], x[2]), w[p + 1][1], x[3])
        });
        simd!(self, vpaddq_s32(ab, cd))
    }

    #[inline(always)]
    fn dot4_halves(self, w: &[I8x32; 4], x: I8x32) -> [int32x4_t; 2] {
        let zero = simd!(self, vdupq_n_s32(0));
        [0, 1].map(|h| self.neon().fold(w.map(|w| sdot(self, zero, w[h], x[h]))))
    }

    /// Of four sums of a row, two are of the first half and two of the last.
    #[inline(always)]
    fn dot4_eights(self, w: &[I8x32; 4], x: I8x32) -> [float32x4_t; 2] {
        simd!(self, {
            let zero = vdupq_n_s32(0);
            let [a, b, c, d] = w.map(|w| sdot(self, sdot(self, zero, w[0], x[0]), w[1], x[1]));
            let (ab, cd) = (vpaddq_s32(a, b), vpaddq_s32(c, d));
            [vuzp1q_s32(ab, cd), vuzp2q_s32(ab, cd)].map(|x| vcvtq_f32_s32(x))
        })
    }

    #[inline(always)]
    fn fma_f16<const T: usize>(
        self,
        w: BlockQuad<'_, '_, [u8; 64]>,
        x: [&F16Block; T],
        acc: &mut [[float32x4_t; 2]; T],
    ) {
        let neon = self.neon();
        let x8 = simd!(self, x.map(|x| x.x.each_ref().map(|x| vld1q_s8(x.as_ptr().cast()))));
        // SAFETY: each is advanced by the 64 bytes that are taken below.
        let rows = unsafe { w.pointers() };
        let products = rows.each_mut().map(|row| {
            // SAFETY: each of `BlockQuad::pointers` has 64 bytes, of which 32 and then 32 are taken.
            let ([a, b], [c, d]) = unsafe { (post_index::take_32(neon, row), post_index::take_32(neon, row)) };
            x8.map(|x| {
                let p = f16::fma(self, b, x[1], f16::mul(self, a, x[0]));
                f16::fma(self, d, x[3], f16::fma(self, c, x[2], p))
            })
        });
        for t in 0..T {
            let [p, q, r, s] = products.map(|row| row[t]);
            let sums = f16::add_pairs(self, f16::add_pairs(self, p, q), f16::add_pairs(self, r, s));
            simd!(self, {
                let sums = vreinterpretq_f16_s8(sums);
                acc[t][0] = vfmaq_n_f32(acc[t][0], vcvt_f32_f16(vget_low_f16(sums)), x[t].d);
                acc[t][1] = vfmaq_n_f32(acc[t][1], vcvt_high_f32_f16(sums), x[t].d);
            })
        }
    }
}

impl NeonPanel for Dotprod {
    const UNROLL: bool = true;
    const SIGNED: bool = true;

    #[inline(always)]
    fn dot_int8(self, w: &PanelRows8, x: &[i8; 32]) -> [int32x4_t; 2] {
        self.dot(w, x, 0)
    }
    #[inline(always)]
    fn dot_nibbles(self, w: &PanelRows8, x: &[i8; 32], bias: Option<i32>) -> [int32x4_t; 2] {
        self.dot(w, x, bias.unwrap_or(0))
    }
    #[inline(always)]
    fn dot_five(self, w: &PanelRows8, x: &[i8; 32], bias: Option<i32>) -> [int32x4_t; 2] {
        self.dot(w, x, bias.unwrap_or(0))
    }
    #[inline(always)]
    fn dot_halves(self, w: &PanelRows8, x: &[i8; 32]) -> [[int32x4_t; 2]; 2] {
        let x = simd!(self, [vld1q_s8(x.as_ptr()), vld1q_s8(x.as_ptr().add(16))]);
        [0, 1].map(|h| {
            w.map(|w| {
                let acc = simd!(self, vdupq_n_s32(0));
                let acc = sdot_lane::<1>(self, sdot_lane::<0>(self, acc, w[4 * h], x[h]), w[4 * h + 1], x[h]);
                sdot_lane::<3>(self, sdot_lane::<2>(self, acc, w[4 * h + 2], x[h]), w[4 * h + 3], x[h])
            })
        })
    }
}

impl Dotprod {
    /// Products of eight rows with a token, plus `bias`.
    #[inline(always)]
    fn dot(self, w: &PanelRows8, x: &[i8; 32], bias: i32) -> [int32x4_t; 2] {
        let (a, b) = simd!(self, (vld1q_s8(x.as_ptr()), vld1q_s8(x.as_ptr().add(16))));
        w.map(|w: PanelRows4| {
            let mut acc = simd!(self, vdupq_n_s32(bias));
            acc = sdot_lane::<1>(self, sdot_lane::<0>(self, acc, w[0], a), w[1], a);
            acc = sdot_lane::<3>(self, sdot_lane::<2>(self, acc, w[2], a), w[3], a);
            acc = sdot_lane::<1>(self, sdot_lane::<0>(self, acc, w[4], b), w[5], b);
            sdot_lane::<3>(self, sdot_lane::<2>(self, acc, w[6], b), w[7], b)
        })
    }
}
