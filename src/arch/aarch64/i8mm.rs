//! The dot product and the Armv8.6 matrix multiplication of int8: Cortex-A510, A710, Neoverse V1 and later.

use core::arch::aarch64::*;
use core::arch::asm;

use super::dotprod::{Dotprod, dot4_i8, dot4_nibbles};
use super::neon::{Group, I8x32, neon_isa, simd, split, vmovn_s32_pair};
use super::next;
use crate::arch::generic::panel::{Bytes, Halves, Nibbles};
use crate::arch::generic::walk::{Step, TokenBlock};
use crate::arch::isa::{Isa, PanelIsa};
use crate::arch::{Backend, Kernels, kernels};
use crate::quant::PANEL_ROWS;

/// Proof that the CPU has NEON, the dot product and the matrix multiplication.
#[derive(Clone, Copy)]
pub(super) struct I8mm(());

/// The kernels, where the CPU can run them.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    // The token is made only inside functions compiled for these features, whose pointers only this table holds.
    detected().then(|| kernels!(Backend::I8mm, I8mm(()), "neon,dotprod,i8mm"))
}

/// From the operating system; without one, from what the compiler was told.
fn detected() -> bool {
    #[cfg(feature = "std")]
    {
        std::arch::is_aarch64_feature_detected!("dotprod") && std::arch::is_aarch64_feature_detected!("i8mm")
    }
    #[cfg(not(feature = "std"))]
    {
        cfg!(all(target_feature = "dotprod", target_feature = "i8mm"))
    }
}

neon_isa!(I8mm, dot4_i8, dot4_nibbles);

/// `smmla`: adds the products of two rows of eight int8, `a`, and two others, `b`: `[a₀b₀, a₀b₁, a₁b₀, a₁b₁]`. The
/// intrinsic is unstable in Rust 1.95.
///
/// # Safety
/// The CPU has the matrix multiplication.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, which this function is compiled for.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// Pairs of rows, eight columns of each: vectors 2j and 2j + 1 have columns 8j..8j + 8 of rows 0 and 1, of 2 and 3.
#[inline(always)]
fn pairs(w: Group) -> Group {
    let w = w.map(|w| simd!(vreinterpretq_s32_s8(w)));
    core::array::from_fn(|i| {
        let (a, b) = (w[i & !1], w[i | 1]);
        simd!(vreinterpretq_s8_s32(if i % 2 == 0 { vzip1q_s32(a, b) } else { vzip2q_s32(a, b) }))
    })
}

impl I8mm {
    /// Products of four rows with tokens `t` and `t + 1`, plus their biases.
    #[inline(always)]
    fn dot<const T: usize>(self, w: &Group, x: &TokenBlock<'_, T>, t: usize, offset: bool) -> [int32x4_t; 2] {
        let (Some(q), Some(bias)) = (x.q[t..].first_chunk::<2>(), x.bias[t..].first_chunk::<2>()) else {
            return [simd!(vdupq_n_s32(0)); 2];
        };
        // SAFETY: the token proves that the CPU has `smmla`; the arrays have 64 and 8 bytes.
        unsafe {
            // Eight columns of one token beside the same of the other, four times: one instruction.
            let x = vld4q_s64(q.as_ptr().cast());
            let x = [x.0, x.1, x.2, x.3].map(|x| vreinterpretq_s8_s64(x));
            let start = if offset { vld1q_dup_s64(bias.as_ptr().cast()) } else { vdupq_n_s64(0) };
            let mut acc = [vreinterpretq_s32_s64(start); 2];
            for j in 0..4 {
                acc = [smmla(acc[0], w[2 * j], x[j]), smmla(acc[1], w[2 * j + 1], x[j])];
            }
            acc
        }
    }
}

/// `[x[t], x[t + 1], x[t], x[t + 1]]`
#[inline(always)]
fn twice<const T: usize>(x: &[f32; T], t: usize) -> float32x4_t {
    let pair = x[t..].first_chunk::<2>().unwrap_or(&[0.0; 2]);
    simd!(vreinterpretq_f32_f64(vld1q_dup_f64(pair.as_ptr().cast())))
}

/// Accumulators keep the arrangement of `smmla`, two rows × two tokens, until they are stored.
impl PanelIsa for I8mm {
    const ROWS: usize = 4;
    const TOKENS: usize = 2;
    type Single = Dotprod;
    type Weights = Group;
    type Dots = [int32x4_t; 2];
    type Scales = [float32x4_t; 2];
    type Acc = [float32x4_t; 2];

    #[inline(always)]
    fn single(self) -> Dotprod {
        Dotprod::of(self)
    }
    #[inline(always)]
    fn int8(self, q: &Bytes, group: usize) -> Group {
        pairs(self.single().int8(q, group))
    }
    #[inline(always)]
    fn nibbles(self, n: &Nibbles, group: usize) -> Group {
        pairs(self.single().nibbles(n, group))
    }
    #[inline(always)]
    fn scales(self, halves: &Halves, group: usize) -> [float32x4_t; 2] {
        let d = self.single().scales(halves, group);
        simd!([vzip1q_f32(d, d), vzip2q_f32(d, d)])
    }
    #[inline(always)]
    fn load(self, sums: &[[f32; PANEL_ROWS]], t: usize, group: usize) -> [float32x4_t; 2] {
        let [a, b] = [t, t + 1].map(|t| self.single().load(sums, t, group));
        simd!([vzip1q_f32(a, b), vzip2q_f32(a, b)])
    }
    #[inline(always)]
    fn store(self, acc: [float32x4_t; 2], sums: &mut [[f32; PANEL_ROWS]], t: usize, group: usize) {
        let [a, b] = simd!([vuzp1q_f32(acc[0], acc[1]), vuzp2q_f32(acc[0], acc[1])]);
        self.single().store(a, sums, t, group);
        self.single().store(b, sums, t + 1, group);
    }
    #[inline(always)]
    fn dot_int8<const T: usize>(self, w: &Group, x: &TokenBlock<'_, T>, t: usize) -> [int32x4_t; 2] {
        self.dot(w, x, t, false)
    }
    #[inline(always)]
    fn dot_nibbles<const T: usize>(self, w: &Group, x: &TokenBlock<'_, T>, t: usize, offset: bool) -> [int32x4_t; 2] {
        self.dot(w, x, t, offset)
    }
    #[inline(always)]
    fn add<const T: usize>(
        self,
        acc: [float32x4_t; 2],
        dots: [int32x4_t; 2],
        d: [float32x4_t; 2],
        x: &[f32; T],
        t: usize,
    ) -> [float32x4_t; 2] {
        let x = twice(x, t);
        simd!([0, 1].map(|i| vfmaq_f32(acc[i], vcvtq_f32_s32(dots[i]), vmulq_f32(d[i], x))))
    }
    #[inline(always)]
    fn add_minima<const T: usize>(
        self,
        acc: [float32x4_t; 2],
        m: [float32x4_t; 2],
        x: &[f32; T],
        t: usize,
    ) -> [float32x4_t; 2] {
        let x = twice(x, t);
        simd!([0, 1].map(|i| vfmaq_f32(acc[i], m[i], x)))
    }
}
