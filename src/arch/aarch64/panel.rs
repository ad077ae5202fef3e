//! The operations of [`PanelIsa`] on NEON for one token at a time: a group is eight rows, the lanes of two vectors.

use core::arch::aarch64::*;
use core::arch::asm;

use super::isa::NeonDot;
use super::registers::{I8x32, PanelRows8};
use super::tokens::{Neon, simd};
use crate::arch::isa::PanelIsa;
use crate::arch::types::{Bytes, Nibbles, PanelScales, Sums, TokenBlock};
use crate::quant::PANEL_ROWS;

/// Loads of a group's weights, scales and sums.
impl Neon {
    #[inline(always)]
    pub(super) fn panel_int8(self, q: &Bytes, group: usize) -> PanelRows8 {
        // The mask keeps the index in the bounds of `q`, so that it is not checked.
        simd!(
            self,
            [0, 1].map(|h| core::array::from_fn(|k| vld1q_s8(q[4 * k + ((2 * group + h) & 3)].as_ptr().cast())))
        )
    }
    #[inline(always)]
    pub(super) fn panel_nibbles(self, n: &Nibbles, group: usize) -> PanelRows8 {
        [0, 1].map(|h| {
            let row = |k: usize| &n[4 * k + ((2 * group + h) & 3)];
            let n: [I8x32; 4] = simd!(self, core::array::from_fn(|k| self.split_nibbles(vld1q_u8(row(k).as_ptr()))));
            core::array::from_fn(|k| n[k % 4][k / 4])
        })
    }
    #[inline(always)]
    pub(super) fn panel_less(self, w: PanelRows8, offset: i32) -> PanelRows8 {
        w.map(|w| w.map(|w| simd!(self, vsubq_s8(w, vdupq_n_s8(offset as i8)))))
    }
    #[inline(always)]
    pub(super) fn panel_scales(self, scales: &PanelScales, group: usize) -> [float32x4_t; 2] {
        let eight = &scales.as_chunks::<16>().0[group & 1];
        simd!(self, {
            let x = vreinterpretq_f16_u8(vld1q_u8(eight.as_ptr()));
            [vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)]
        })
    }
    #[inline(always)]
    pub(super) fn load_sums(self, sums: &Sums, group: usize) -> [float32x4_t; 2] {
        let eight = &sums.as_chunks::<8>().0[group & 1];
        simd!(self, [vld1q_f32(eight.as_ptr()), vld1q_f32(eight.as_ptr().add(4))])
    }
    #[inline(always)]
    pub(super) fn load_ints(self, x: &[i32; PANEL_ROWS], group: usize) -> [int32x4_t; 2] {
        let eight = &x.as_chunks::<8>().0[group & 1];
        simd!(self, [vld1q_s32(eight.as_ptr()), vld1q_s32(eight.as_ptr().add(4))])
    }
    #[inline(always)]
    pub(super) fn store_sums(self, acc: [float32x4_t; 2], sums: &mut Sums, group: usize) {
        let eight = &mut sums.as_chunks_mut::<8>().0[group & 1];
        simd!(self, {
            vst1q_f32(eight.as_mut_ptr(), acc[0]);
            vst1q_f32(eight.as_mut_ptr().add(4), acc[1]);
        })
    }
}

/// The operations that differ between NEON CPUs: products of eight rows with a token.
pub(super) trait NeonPanel: NeonDot {
    /// As [`PanelIsa::UNROLL`].
    const UNROLL: bool = false;
    /// As [`PanelIsa::SIGNED`].
    const SIGNED: bool = false;

    /// As [`PanelIsa::FEW_REGISTERS`].
    const FEW_REGISTERS: bool = false;

    fn dot_int8(self, w: &PanelRows8, x: &[i8; 32]) -> [int32x4_t; 2];

    /// Products of weights within 0..=15, plus `bias`.
    fn dot_nibbles(self, w: &PanelRows8, x: &[i8; 32], bias: Option<i32>) -> [int32x4_t; 2];

    /// As [`PanelIsa::dot_nibbles_alone`].
    #[inline(always)]
    fn dot_nibbles_alone(self, w: &PanelRows8, x: &[i8; 32], bias: Option<i32>) -> [int32x4_t; 2] {
        self.dot_nibbles(w, x, bias)
    }

    /// Products of weights within 0..=31, plus `bias`.
    fn dot_five(self, w: &PanelRows8, x: &[i8; 32], bias: Option<i32>) -> [int32x4_t; 2];

    /// Products of the first 16 columns and of the last, of weights within ±32.
    fn dot_halves(self, w: &PanelRows8, x: &[i8; 32]) -> [[int32x4_t; 2]; 2];
}

impl<X: NeonPanel> PanelIsa for X {
    const ROWS: usize = 8;
    const TOKENS: usize = 1;
    const UNROLL: bool = X::UNROLL;
    const SIGNED: bool = X::SIGNED;
    const FEW_REGISTERS: bool = X::FEW_REGISTERS;
    type Single = Self;
    type Weights = PanelRows8;
    type Dots = [int32x4_t; 2];
    type Scales = [float32x4_t; 2];
    type Ints = [int32x4_t; 2];
    type Acc = [float32x4_t; 2];

    fn single(self) -> Self {
        self
    }
    #[inline(always)]
    fn int8(self, q: &Bytes, group: usize) -> PanelRows8 {
        self.neon().panel_int8(q, group)
    }
    #[inline(always)]
    fn nibbles(self, n: &Nibbles, group: usize) -> PanelRows8 {
        self.neon().panel_nibbles(n, group)
    }
    #[inline(always)]
    fn less(self, w: PanelRows8, offset: i32) -> PanelRows8 {
        self.neon().panel_less(w, offset)
    }
    #[inline(always)]
    fn scales(self, scales: &PanelScales, group: usize) -> [float32x4_t; 2] {
        self.neon().panel_scales(scales, group)
    }
    #[inline(always)]
    fn load<const T: usize>(self, sums: &[Sums; T], group: usize) -> [float32x4_t; 2] {
        self.neon().load_sums(&sums[0], group)
    }
    #[inline(always)]
    fn store<const T: usize>(self, acc: [float32x4_t; 2], sums: &mut [Sums; T], group: usize) {
        self.neon().store_sums(acc, &mut sums[0], group)
    }
    #[inline(always)]
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "the pointer passes through, unread")]
    fn after<T>(self, unit: &T, dots: [int32x4_t; 2]) -> &T {
        let mut unit = core::ptr::from_ref(unit);
        // SAFETY: there is no instruction, so that the pointer stays what it is: a reference.
        unsafe {
            asm!("/* {0} {1:v} {2:v} */", inout(reg) unit, in(vreg) dots[0], in(vreg) dots[1],
                 options(pure, nomem, nostack, preserves_flags));
            &*unit
        }
    }
    #[inline(always)]
    fn dot_int8<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>) -> [int32x4_t; 2] {
        NeonPanel::dot_int8(self, w, &x.q[0])
    }
    #[inline(always)]
    fn dot_nibbles<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>, offset: bool) -> [int32x4_t; 2] {
        NeonPanel::dot_nibbles(self, w, &x.q[0], offset.then_some(x.bias[0]))
    }
    #[inline(always)]
    fn dot_nibbles_alone<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>, offset: bool) -> [int32x4_t; 2] {
        NeonPanel::dot_nibbles_alone(self, w, &x.q[0], offset.then_some(x.bias[0]))
    }
    #[inline(always)]
    fn weights_of<const INT8: bool>(self, [q, _]: [[I8x32; 8]; 2]) -> PanelRows8 {
        [0, 1].map(|h| q.map(|q| q[h]))
    }
    #[inline(always)]
    fn scales_of(self, [a, b, ..]: [float32x4_t; 4]) -> [float32x4_t; 2] {
        [a, b]
    }
    #[inline(always)]
    fn ints_of(self, [a, b, ..]: [uint32x4_t; 4]) -> [int32x4_t; 2] {
        simd!(self, [vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b)])
    }
    #[inline(always)]
    fn mul_scales(self, a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] {
        simd!(self, [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])])
    }
    #[inline(always)]
    fn scales_f32(self, scales: &Sums, group: usize) -> [float32x4_t; 2] {
        self.neon().load_sums(scales, group)
    }
    #[inline(always)]
    fn dot_five<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>, offset: bool) -> [int32x4_t; 2] {
        NeonPanel::dot_five(self, w, &x.q[0], offset.then_some(x.bias[0]))
    }
    #[inline(always)]
    fn dot_halves<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>, _: i32) -> [[int32x4_t; 2]; 2] {
        NeonPanel::dot_halves(self, w, &x.q[0])
    }
    #[inline(always)]
    fn ints(self, x: &[i32; PANEL_ROWS], group: usize) -> [int32x4_t; 2] {
        self.neon().load_ints(x, group)
    }
    #[inline(always)]
    fn add_halves<const T: usize>(
        self,
        acc: [float32x4_t; 2],
        dots: [[int32x4_t; 2]; 2],
        d: [[float32x4_t; 2]; 2],
        s: [[int32x4_t; 2]; 2],
        minima: Option<[[int32x4_t; 2]; 2]>,
        x: &TokenBlock<'_, T>,
    ) -> [float32x4_t; 2] {
        simd!(self, {
            let sums = vld1_s32(x.halves[0].as_ptr());
            [0, 1].map(|i| {
                let dots = vmlaq_s32(vmulq_s32(dots[0][i], s[0][i]), dots[1][i], s[1][i]);
                let mut sum = vmulq_f32(vcvtq_f32_s32(dots), d[0][i]);
                if let Some([a, b]) = minima {
                    let sums = vmlaq_lane_s32::<1>(vmulq_lane_s32::<0>(a[i], sums), b[i], sums);
                    sum = vfmaq_f32(sum, vcvtq_f32_s32(sums), d[1][i]);
                }
                vfmaq_n_f32(acc[i], sum, x.d[0])
            })
        })
    }
    #[inline(always)]
    fn add<const T: usize>(
        self,
        acc: [float32x4_t; 2],
        dots: [int32x4_t; 2],
        d: [float32x4_t; 2],
        x: &[f32; T],
    ) -> [float32x4_t; 2] {
        simd!(self, [0, 1].map(|h| vfmaq_f32(acc[h], vcvtq_f32_s32(dots[h]), vmulq_n_f32(d[h], x[0]))))
    }
    #[inline(always)]
    fn add_minima<const T: usize>(self, acc: [float32x4_t; 2], m: [float32x4_t; 2], x: &[f32; T]) -> [float32x4_t; 2] {
        simd!(self, [0, 1].map(|h| vfmaq_n_f32(acc[h], m[h], x[0])))
    }
}
