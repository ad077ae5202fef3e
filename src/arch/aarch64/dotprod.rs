//! NEON with the Armv8.2 dot product and binary16 arithmetic: Cortex-A55, A76 and later.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::{fold, load, neon_isa, neon_panel, simd, split, transpose4x4, vmovn_s32_pair};
use super::registers::{I8x32, PanelRows4, PanelRows8};
use super::tokens::Dotprod;
use super::{f16, post_index};
use crate::arch::backend::Backend;
use crate::arch::isa::{FloatIsa, Isa, PanelIsa};
use crate::arch::kernels::{Kernels, kernels};
use crate::arch::types::{BlockQuad, Bytes, F16Block, Nibbles, PanelScales, Sums, TokenBlock};

/// The kernels, where the CPU can run them.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    Dotprod::new().map(|token| kernels!(Backend::Dotprod, token, Dotprod::new_unchecked(), "neon,dotprod,fp16"))
}

/// `sdot`: adds to each int32 lane the four products of its bytes. The intrinsic is unstable in Rust 1.95,
/// and a function compiled for `sdot` would not be inlined where it must.
///
/// # Safety
/// The CPU has the dot product.
#[inline(always)]
unsafe fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, which the caller vouches for.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// `sdot` by lane: the same with the four bytes of one lane of `b` for all lanes.
///
/// # Safety
/// The CPU has the dot product.
#[inline(always)]
unsafe fn sdot_lane<const LANE: i32>(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, which the caller vouches for.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]", inout(vreg) acc, in(vreg) a, in(vreg) b, const LANE,
             options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// Adds the products of a block of 32 int8 with four others.
#[inline(always)]
pub(super) fn add_i8(w: &[I8x32; 4], x: I8x32, sums: [int32x4_t; 4]) -> [int32x4_t; 4] {
    // SAFETY: only `Dotprod` and `I8mm` call this, which prove that the CPU has `sdot`.
    let add = |r: usize| unsafe { sdot(sdot(sums[r], w[r][0], x[0]), w[r][1], x[1]) };
    [add(0), add(1), add(2), add(3)]
}

/// Dot products of a block of 32 int8 with four others, plus `bias`: it starts the first of each row's partial sums.
#[inline(always)]
pub(super) fn dot4_nibbles(w: &[I8x32; 4], x: I8x32, bias: i32) -> int32x4_t {
    let start = simd!(vsetq_lane_s32::<0>(bias, vdupq_n_s32(0)));
    fold(add_i8(w, x, [start; 4]))
}

neon_isa!(Dotprod, add_i8, dot4_nibbles, f16);

impl Dotprod {
    /// Products of eight rows with a token, plus `bias`.
    #[inline(always)]
    fn dot(self, w: &PanelRows8, x: &[i8; 32], bias: i32) -> [int32x4_t; 2] {
        // SAFETY: the token proves that the CPU has `sdot`; the array has 32 bytes.
        unsafe {
            let (a, b) = (vld1q_s8(x.as_ptr()), vld1q_s8(x.as_ptr().add(16)));
            w.map(|w: PanelRows4| {
                let mut acc = vdupq_n_s32(bias);
                acc = sdot_lane::<1>(sdot_lane::<0>(acc, w[0], a), w[1], a);
                acc = sdot_lane::<3>(sdot_lane::<2>(acc, w[2], a), w[3], a);
                acc = sdot_lane::<1>(sdot_lane::<0>(acc, w[4], b), w[5], b);
                sdot_lane::<3>(sdot_lane::<2>(acc, w[6], b), w[7], b)
            })
        }
    }
}

impl PanelIsa for Dotprod {
    neon_panel!();
    const UNROLL: bool = true;

    #[inline(always)]
    fn dot_int8<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>) -> [int32x4_t; 2] {
        self.dot(w, &x.q[0], 0)
    }
    #[inline(always)]
    fn dot_nibbles<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>, offset: bool) -> [int32x4_t; 2] {
        self.dot(w, &x.q[0], if offset { x.bias[0] } else { 0 })
    }
}
