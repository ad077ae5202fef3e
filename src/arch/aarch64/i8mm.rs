//! The dot product and the Armv8.6 matrix multiplication of int8: Cortex-A510, A710, Neoverse V1 and later.

use core::arch::aarch64::*;
use core::arch::asm;

use super::isa::NeonDot;
use super::registers::{I8x32, PanelRows4, PanelRows8};
use super::tokens::{Dotprod, I8mm, NeonToken, simd};
use crate::arch::backend::Backend;
use crate::arch::isa::PanelIsa;
use crate::arch::kernels::{Kernels, kernels};
use crate::arch::types::{BlockQuad, Bytes, F16Block, Nibbles, PanelScales, Sums, TokenBlock};
use crate::quant::PANEL_ROWS;

/// The kernels, where the CPU can run them.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    I8mm::new().map(|token| kernels!(Backend::I8mm, token, I8mm::new_unchecked(), "neon,dotprod,fp16,i8mm"))
}

/// The dot product's: for one token `smmla` would waste half of its products.
impl NeonDot for I8mm {
    const F16_PRODUCTS: bool = Dotprod::F16_PRODUCTS;

    #[inline(always)]
    fn add_i8(self, w: &[I8x32; 4], x: I8x32, sums: [int32x4_t; 4]) -> [int32x4_t; 4] {
        NeonDot::add_i8(self.dotprod(), w, x, sums)
    }
    #[inline(always)]
    fn dot4_nibbles(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t {
        NeonDot::dot4_nibbles(self.dotprod(), w, x, bias)
    }
    #[inline(always)]
    fn dot4_five(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t {
        NeonDot::dot4_five(self.dotprod(), w, x, bias)
    }
    #[inline(always)]
    fn dot4_six(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t {
        NeonDot::dot4_six(self.dotprod(), w, x, bias)
    }
    #[inline(always)]
    fn dot4_planes(self, w: &[I8x32; 4], x: [int8x16_t; 4]) -> int32x4_t {
        self.dotprod().dot4_planes(w, x)
    }
    #[inline(always)]
    fn dot4_halves(self, w: &[I8x32; 4], x: I8x32) -> [int32x4_t; 2] {
        NeonDot::dot4_halves(self.dotprod(), w, x)
    }
    #[inline(always)]
    fn dot4_eights(self, w: &[I8x32; 4], x: I8x32) -> [float32x4_t; 2] {
        self.dotprod().dot4_eights(w, x)
    }
    #[inline(always)]
    fn fma_f16<const T: usize>(
        self,
        w: BlockQuad<'_, '_, [u8; 64]>,
        x: [&F16Block; T],
        acc: &mut [[float32x4_t; 2]; T],
    ) {
        NeonDot::fma_f16(self.dotprod(), w, x, acc);
    }
}

/// `smmla`: adds the products of two rows of eight int8, `a`, and two others, `b`: `[a₀b₀, a₀b₁, a₁b₀, a₁b₁]`. The
/// intrinsic is unstable in Rust 1.95.
#[inline(always)]
fn smmla(_: I8mm, mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers; the token proves that the CPU has the matrix multiplication.
    unsafe {
        asm!(".arch_extension i8mm", "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// Pairs of rows, eight columns of each: vectors 2j and 2j + 1 have columns 8j..8j + 8 of rows 0 and 1, of 2 and 3.
#[inline(always)]
fn pairs(token: I8mm, w: PanelRows8) -> PanelRows8 {
    w.map(|w: PanelRows4| {
        let w = w.map(|w| simd!(token, vreinterpretq_s32_s8(w)));
        core::array::from_fn(|i| {
            let (a, b) = (w[i & !1], w[i | 1]);
            simd!(token, vreinterpretq_s8_s32(if i % 2 == 0 { vzip1q_s32(a, b) } else { vzip2q_s32(a, b) }))
        })
    })
}

/// Each number twice: the scales of four pairs of rows.
#[inline(always)]
fn twice(token: I8mm, [a, b]: [float32x4_t; 2]) -> [float32x4_t; 4] {
    simd!(token, [vzip1q_f32(a, a), vzip2q_f32(a, a), vzip1q_f32(b, b), vzip2q_f32(b, b)])
}

/// The same of integers.
#[inline(always)]
fn twice_ints(token: I8mm, [a, b]: [int32x4_t; 2]) -> [int32x4_t; 4] {
    simd!(token, [vzip1q_s32(a, a), vzip2q_s32(a, a), vzip1q_s32(b, b), vzip2q_s32(b, b)])
}

/// The numbers of two tokens as `[x₀, x₁, x₀, x₁]`.
#[inline(always)]
fn both<const T: usize>(token: I8mm, x: &[f32; T]) -> float32x4_t {
    let pair = x.first_chunk::<2>().unwrap_or(&[0.0; 2]);
    // Both numbers as one of twice the size, at the alignment of the smaller.
    simd!(token, vreinterpretq_f32_u64(vdupq_n_u64(pair.as_ptr().cast::<u64>().read_unaligned())))
}

impl I8mm {
    /// Products of eight rows with two tokens, plus their biases: for each pair of rows a 2 × 2 matrix.
    #[inline(always)]
    fn dot<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>, offset: bool) -> [int32x4_t; 4] {
        self.dot_columns(w, x, offset, 0..4)
    }

    /// The same of the columns 8j..8j + 8 for the `j` of a range.
    #[inline(always)]
    fn dot_columns<const T: usize>(
        self,
        w: &PanelRows8,
        x: &TokenBlock<'_, T>,
        offset: bool,
        columns: core::ops::Range<usize>,
    ) -> [int32x4_t; 4] {
        let (Some(q), Some(bias)) = (x.q.first_chunk::<2>(), x.bias.first_chunk::<2>()) else {
            return [simd!(self, vdupq_n_s32(0)); 4];
        };
        // The arrays have 64 and 8 bytes; both loads take any alignment.
        simd!(self, {
            // Eight columns of one token beside the same of the other, four times: one instruction.
            let x = vld4q_s64(q.as_ptr().cast());
            let x = [x.0, x.1, x.2, x.3].map(|x| vreinterpretq_s8_s64(x));
            let start = if offset { vdupq_n_s64(bias.as_ptr().cast::<i64>().read_unaligned()) } else { vdupq_n_s64(0) };
            let mut acc = [vreinterpretq_s32_s64(start); 4];
            for j in columns {
                for p in 0..4 {
                    acc[p] = smmla(self, acc[p], w[p / 2][2 * j + p % 2], x[j]);
                }
            }
            acc
        })
    }
}

/// Sums keep the arrangement of `smmla` until the last block: four times two rows × two tokens.
impl PanelIsa for I8mm {
    const ROWS: usize = 8;
    const TOKENS: usize = 2;
    const SIGNED: bool = true;
    type Single = Dotprod;
    type Weights = PanelRows8;
    type Dots = [int32x4_t; 4];
    type Scales = [float32x4_t; 4];
    type Ints = [int32x4_t; 4];
    type Acc = [float32x4_t; 4];

    #[inline(always)]
    fn single(self) -> Dotprod {
        self.dotprod()
    }
    #[inline(always)]
    fn int8(self, q: &Bytes, group: usize) -> PanelRows8 {
        pairs(self, self.neon().panel_int8(q, group))
    }
    #[inline(always)]
    fn nibbles(self, n: &Nibbles, group: usize) -> PanelRows8 {
        pairs(self, self.neon().panel_nibbles(n, group))
    }
    #[inline(always)]
    fn less(self, w: PanelRows8, offset: i32) -> PanelRows8 {
        self.neon().panel_less(w, offset)
    }
    #[inline(always)]
    fn scales(self, scales: &PanelScales, group: usize) -> [float32x4_t; 4] {
        twice(self, self.neon().panel_scales(scales, group))
    }
    #[inline(always)]
    fn load<const T: usize>(self, sums: &[Sums; T], group: usize) -> [float32x4_t; 4] {
        let [a, b] = [0, T - 1].map(|t| self.neon().load_sums(&sums[t], group));
        [a[0], a[1], b[0], b[1]]
    }
    #[inline(always)]
    fn store<const T: usize>(self, [a, b, c, d]: [float32x4_t; 4], sums: &mut [Sums; T], group: usize) {
        self.neon().store_sums([a, b], &mut sums[0], group);
        self.neon().store_sums([c, d], &mut sums[T - 1], group);
    }
    #[inline(always)]
    fn in_rows(self, sums: &mut [Sums; 2], group: usize) {
        let [a, b, c, d] = self.load(sums, group);
        self.store(simd!(self, [vuzp1q_f32(a, b), vuzp1q_f32(c, d), vuzp2q_f32(a, b), vuzp2q_f32(c, d)]), sums, group);
    }
    #[inline(always)]
    fn dot_int8<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>) -> [int32x4_t; 4] {
        self.dot(w, x, false)
    }
    #[inline(always)]
    fn dot_nibbles<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>, offset: bool) -> [int32x4_t; 4] {
        self.dot(w, x, offset)
    }
    #[inline(always)]
    fn weights_of<const INT8: bool>(self, q: [[I8x32; 8]; 2]) -> PanelRows8 {
        pairs(self, self.dotprod().weights_of::<INT8>(q))
    }
    #[inline(always)]
    fn scales_of(self, [a, b, ..]: [float32x4_t; 4]) -> [float32x4_t; 4] {
        twice(self, [a, b])
    }
    #[inline(always)]
    fn ints_of(self, x: [uint32x4_t; 4]) -> [int32x4_t; 4] {
        twice_ints(self, self.dotprod().ints_of(x))
    }
    #[inline(always)]
    fn mul_scales(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        simd!(self, core::array::from_fn(|i| vmulq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn scales_f32(self, scales: &Sums, group: usize) -> [float32x4_t; 4] {
        twice(self, self.neon().load_sums(scales, group))
    }
    #[inline(always)]
    fn dot_five<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>, offset: bool) -> [int32x4_t; 4] {
        self.dot(w, x, offset)
    }
    #[inline(always)]
    fn dot_halves<const T: usize>(self, w: &PanelRows8, x: &TokenBlock<'_, T>, _: i32) -> [[int32x4_t; 4]; 2] {
        [0..2, 2..4].map(|columns| self.dot_columns(w, x, false, columns))
    }
    #[inline(always)]
    fn ints(self, x: &[i32; PANEL_ROWS], group: usize) -> [int32x4_t; 4] {
        twice_ints(self, self.neon().load_ints(x, group))
    }
    #[inline(always)]
    fn add_halves<const T: usize>(
        self,
        acc: [float32x4_t; 4],
        dots: [[int32x4_t; 4]; 2],
        d: [[float32x4_t; 4]; 2],
        s: [[int32x4_t; 4]; 2],
        minima: Option<[[int32x4_t; 4]; 2]>,
        x: &TokenBlock<'_, T>,
    ) -> [float32x4_t; 4] {
        let halves = x.halves.first_chunk::<2>().unwrap_or(&[[0; 2]; 2]);
        let xd = both(self, x.d);
        simd!(self, {
            // Of two tokens: the first half of each, twice, and the last.
            let sums = vld1q_s32(halves.as_flattened().as_ptr());
            let sums = [vuzp1q_s32(sums, sums), vuzp2q_s32(sums, sums)];
            core::array::from_fn(|i| {
                let dots = vmlaq_s32(vmulq_s32(dots[0][i], s[0][i]), dots[1][i], s[1][i]);
                let mut sum = vmulq_f32(vcvtq_f32_s32(dots), d[0][i]);
                if let Some([a, b]) = minima {
                    let sums = vmlaq_s32(vmulq_s32(a[i], sums[0]), b[i], sums[1]);
                    sum = vfmaq_f32(sum, vcvtq_f32_s32(sums), d[1][i]);
                }
                vfmaq_f32(acc[i], sum, xd)
            })
        })
    }
    #[inline(always)]
    fn add<const T: usize>(
        self,
        acc: [float32x4_t; 4],
        dots: [int32x4_t; 4],
        d: [float32x4_t; 4],
        x: &[f32; T],
    ) -> [float32x4_t; 4] {
        let x = both(self, x);
        simd!(self, core::array::from_fn(|i| vfmaq_f32(acc[i], vcvtq_f32_s32(dots[i]), vmulq_f32(d[i], x))))
    }
    #[inline(always)]
    fn add_minima<const T: usize>(self, acc: [float32x4_t; 4], m: [float32x4_t; 4], x: &[f32; T]) -> [float32x4_t; 4] {
        let x = both(self, x);
        simd!(self, core::array::from_fn(|i| vfmaq_f32(acc[i], m[i], x)))
    }
}
