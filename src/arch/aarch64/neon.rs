//! NEON as every Armv8.0 core has it: Cortex-A53 and A72.
//!
//! Products of int8 are added in int16, as many as fit, and then widened to int32.

use core::arch::aarch64::*;

use super::isa::NeonDot;
use super::panel::NeonPanel;
use super::registers::{I8x32, PanelRows4, PanelRows8};
use super::tokens::{Neon, simd};
use super::widening::{smlal, smlal2, smull, smull2};
use crate::arch::backend::Backend;
use crate::arch::kernels::{Kernels, kernels};
use crate::arch::unroll::unroll_array;

/// The kernels; `None` on a target compiled without floating-point registers.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    Neon::new().map(|token| kernels!(Backend::Neon, token, Neon::new_unchecked(), "neon"))
}

impl NeonDot for Neon {
    /// Per byte lane two products of opposite halves are added in int16, which they fit: 2·128·127 = 32512. Then adjacent
    /// pairs are added into int32.
    #[inline(always)]
    fn add_i8(self, w: &[I8x32; 4], x: I8x32, sums: [int32x4_t; 4]) -> [int32x4_t; 4] {
        simd!(self, {
            let half = |w, x| smlal2(self, self.smull(w, x), w, x);
            let add = |r: usize| vpadalq_s16(vpadalq_s16(sums[r], half(w[r][0], x[0])), half(w[r][1], x[1]));
            [add(0), add(1), add(2), add(3)]
        })
    }

    /// Quants within ±16 leave room in int16 for four products, 4·16·127 = 8128, and for the sum of four such: 32512. So
    /// rows are folded before they are widened.
    #[inline(always)]
    fn dot4_nibbles(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t {
        let [a, b, c, d] = w.map(|w| self.four_products(w, x));
        widen(self, simd!(self, vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d))), bias)
    }

    /// Four products fit a lane of int16, 4·31·127 = 15748, and so does the sum of two such.
    #[inline(always)]
    fn dot4_five(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t {
        let [a, b, c, d] = w.map(|w| self.four_products(w, x));
        simd!(self, self.fold_pairs([vpaddq_s16(a, b), vpaddq_s16(c, d)], bias))
    }

    /// Four products fit a lane of int16: 4·63·127 = 32004.
    #[inline(always)]
    fn dot4_six(self, w: &[I8x32; 4], x: I8x32, bias: Option<i32>) -> int32x4_t {
        let sums = w.map(|w| widen(self, self.four_products(w, x), None));
        let dots = self.fold(sums);
        match bias {
            Some(bias) => simd!(self, vaddq_s32(dots, vdupq_n_s32(bias))),
            None => dots,
        }
    }

    /// Four products fit a lane of int16, 4·3·127 = 1524, and so does the sum of eight such.
    #[inline(always)]
    fn dot4_planes(self, w: &[I8x32; 4], x: [int8x16_t; 4]) -> int32x4_t {
        let sums = unroll_array!(p in 0..2 => {
            let w = [w[2 * p][0], w[2 * p][1], w[2 * p + 1][0], w[2 * p + 1][1]];
            let (mut first, mut last) = (self.smull(w[0], x[0]), smull2(self, w[0], x[0]));
            for j in 1..4 {
                first = simd!(self, vmlal_s8(first, vget_low_s8(w[j]), vget_low_s8(x[j])));
                last = smlal2(self, last, w[j], x[j]);
            }
            simd!(self, vpaddq_s16(first, last))
        });
        widen(self, simd!(self, vpaddq_s16(sums[0], sums[1])), None)
    }

    /// Two products fit a lane of int16, 2·63·127 = 16002, and so does the sum of two such.
    #[inline(always)]
    fn dot4_halves(self, w: &[I8x32; 4], x: I8x32) -> [int32x4_t; 2] {
        [0, 1].map(|h| {
            let [a, b, c, d] = w.map(|w| smlal2(self, self.smull(w[h], x[h]), w[h], x[h]));
            simd!(self, self.fold_pairs([vpaddq_s16(a, b), vpaddq_s16(c, d)], None))
        })
    }

    /// All sixteen products fit a lane of int16: 16·16·127 = 32512. In the end a word has the sum of the first half of a row below
    /// that of the last.
    #[inline(always)]
    fn dot4_eights(self, w: &[I8x32; 4], x: I8x32) -> [float32x4_t; 2] {
        simd!(self, {
            let [a, b, c, d] = w.map(|w| {
                let first = vmlal_s8(self.smull(w[0], x[0]), vget_low_s8(w[1]), vget_low_s8(x[1]));
                let last = smlal2(self, smull2(self, w[0], x[0]), w[1], x[1]);
                vpaddq_s16(first, last)
            });
            let halves = vreinterpretq_s32_s16(vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d)));
            [vcvtq_n_f32_s32::<16>(vshlq_n_s32::<16>(halves)), vcvtq_f32_s32(vshrq_n_s32::<16>(halves))]
        })
    }
}

impl NeonPanel for Neon {
    /// Widening products need more registers than a group's weights leave.
    const FEW_REGISTERS: bool = true;

    /// Products of rows 0 and 1 are in one vector of int16, of rows 2 and 3 in another; two of them fit a lane.
    #[inline(always)]
    fn dot_int8(self, w: &PanelRows8, x: &[i8; 32]) -> [int32x4_t; 2] {
        let x = self.broadcast(x);
        w.map(|w| {
            simd!(self, {
                let two = |k| smlal(self, smull(self, w[k], x[k]), w[k + 1], x[k + 1]);
                let other = |k| smlal2(self, smull2(self, w[k], x[k]), w[k + 1], x[k + 1]);
                let (mut a, mut b) = (vpaddlq_s16(two(0)), vpaddlq_s16(other(0)));
                for k in [2, 4, 6] {
                    a = vpadalq_s16(a, two(k));
                    b = vpadalq_s16(b, other(k));
                }
                vpaddq_s32(a, b)
            })
        })
    }

    /// Eight products fit a lane, 8·15·127 = 15240, and so does the sum of two such.
    #[inline(always)]
    fn dot_nibbles(self, w: &PanelRows8, x: &[i8; 32], bias: Option<i32>) -> [int32x4_t; 2] {
        let x = self.broadcast(x);
        w.map(|w| {
            let [a, b] = self.products(&w, &x, 0..8);
            widen(self, simd!(self, vpaddq_s16(a, b)), bias)
        })
    }

    /// Low and high nibbles have sums of their own: with no other products to compute, a core that executes in order
    /// would wait for the one before.
    #[inline(always)]
    fn dot_nibbles_alone(self, w: &PanelRows8, x: &[i8; 32], bias: Option<i32>) -> [int32x4_t; 2] {
        let x = self.broadcast(x);
        simd!(self, {
            let first = |k: usize| w.map(|w| [self.smull(w[k], x[k]), smull2(self, w[k], x[k])]);
            let mut low = first(0);
            let mut high = first(4);
            for k in 1..4 {
                for (sums, k) in [(&mut low, k), (&mut high, k + 4)] {
                    for ([a, b], w) in sums.iter_mut().zip(w) {
                        *a = vmlal_s8(*a, vget_low_s8(w[k]), vget_low_s8(x[k]));
                        *b = smlal2(self, *b, w[k], x[k]);
                    }
                }
            }
            core::array::from_fn(|h| {
                let ([a, b], [c, d]) = (low[h], high[h]);
                widen(self, vpaddq_s16(vaddq_s16(a, c), vaddq_s16(b, d)), bias)
            })
        })
    }

    /// Four products fit a lane, 4·31·127 = 15748, and so does the sum of two such.
    #[inline(always)]
    fn dot_five(self, w: &PanelRows8, x: &[i8; 32], bias: Option<i32>) -> [int32x4_t; 2] {
        let x = self.broadcast(x);
        w.map(|w| {
            let [[a, b], [c, d]] = [self.products(&w, &x, 0..4), self.products(&w, &x, 4..8)];
            let first = widen(self, simd!(self, vpaddq_s16(a, b)), bias);
            simd!(self, vpadalq_s16(first, vpaddq_s16(c, d)))
        })
    }

    /// Likewise: 4·32·127 = 16256.
    #[inline(always)]
    fn dot_halves(self, w: &PanelRows8, x: &[i8; 32]) -> [[int32x4_t; 2]; 2] {
        let x = self.broadcast(x);
        [0..4, 4..8].map(|k| {
            w.map(|w| {
                let [a, b] = self.products(&w, &x, k.clone());
                widen(self, simd!(self, vpaddq_s16(a, b)), None)
            })
        })
    }
}

/// Adjacent pairs of eight sums, plus `bias`.
#[inline(always)]
fn widen(token: Neon, sums: int16x8_t, bias: Option<i32>) -> int32x4_t {
    simd!(
        token,
        match bias {
            Some(bias) => vpadalq_s16(vdupq_n_s32(bias), sums),
            None => vpaddlq_s16(sums),
        }
    )
}

impl Neon {
    /// Products of four rows with a token's columns 4k..4k + 4, for the `k` of a range: of rows 0 and 1, of rows 2 and 3.
    #[inline(always)]
    fn products(self, w: &PanelRows4, x: &PanelRows4, columns: core::ops::Range<usize>) -> [int16x8_t; 2] {
        let k = columns.start;
        let (mut a, mut b) = (smull(self, w[k], x[k]), smull2(self, w[k], x[k]));
        for k in k + 1..columns.end {
            a = smlal(self, a, w[k], x[k]);
            b = smlal2(self, b, w[k], x[k]);
        }
        [a, b]
    }

    /// Products of 32 columns, four in each lane.
    #[inline(always)]
    fn four_products(self, w: I8x32, x: I8x32) -> int16x8_t {
        let sum = smlal2(self, self.smull(w[0], x[0]), w[0], x[0]);
        let sum = simd!(self, vmlal_s8(sum, vget_low_s8(w[1]), vget_low_s8(x[1])));
        smlal2(self, sum, w[1], x[1])
    }

    /// Sums of four lanes of int16 each, plus `bias`.
    #[inline(always)]
    fn fold_pairs(self, [ab, cd]: [int16x8_t; 2], bias: Option<i32>) -> int32x4_t {
        simd!(self, {
            let sums = vpaddq_s32(vpaddlq_s16(ab), vpaddlq_s16(cd));
            match bias {
                Some(bias) => vaddq_s32(sums, vdupq_n_s32(bias)),
                None => sums,
            }
        })
    }

    /// Columns 4k..4k + 4 in all four lanes, for k in 0..8.
    #[inline(always)]
    fn broadcast(self, x: &[i8; 32]) -> PanelRows4 {
        simd!(self, {
            let [a, b] = [0, 16].map(|at| vld4q_dup_s32(x.as_ptr().add(at).cast()));
            [a.0, a.1, a.2, a.3, b.0, b.1, b.2, b.3].map(|x| vreinterpretq_s8_s32(x))
        })
    }

    /// Products of the low halves.
    #[inline(always)]
    fn smull(self, a: int8x16_t, b: int8x16_t) -> int16x8_t {
        simd!(self, vmull_s8(vget_low_s8(a), vget_low_s8(b)))
    }
}
