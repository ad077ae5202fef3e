//! What an instruction set must offer for the generic algorithms to run on it.

mod int8;
mod units;

pub(crate) use int8::Int8Isa;
pub(crate) use units::UnitIsa;
pub(in crate::arch) use units::{At, Field, Form, Order, at, bias};

use super::types::{BlockQuad, Bytes, F16Block, Nibbles, PanelScales, ROWS, Sums, TokenBlock};
use super::unroll::unroll_array;
use crate::quant::PANEL_ROWS;

/// A set of SIMD operations on vectors of fixed, virtual width.
///
/// A value of an implementing type is proof that the CPU has the instructions: it can be made only where they were
/// detected, or inside a function compiled for them. That is why these methods are safe.
///
/// Widths are virtual: eight `f32` are one AVX register, two NEON registers or an array. GGUF blocks are 32 long and
/// head sizes are multiples of 8, so the hot loops have no tails, and every backend can add in the same order.
///
/// Every method must be `#[inline(always)]`, so that it is compiled inside a function that enables its instructions.
///
/// Loads take byte arrays: weights in a file have any alignment.
pub(crate) trait Isa: UnitIsa<Places = [*const u8; ROWS]> {
    /// Eight `f32`.
    type F32x8: Copy;
    /// Two of these, in one register where that is as wide.
    type F32x16: F32x16<Self>;
    /// Exact sums of products of four rows, in as many parts as the instructions leave them.
    type Sums: Copy;

    /// Asks for the cache lines of `_bytes` bytes from `_at` on, which need not be there, in the first-level cache. Nothing
    /// where a CPU does well without.
    #[inline(always)]
    fn prefetch(self, _at: *const u8, _bytes: usize) {}
    /// The same in the second-level cache, which can wait for more lines at a time.
    #[inline(always)]
    fn prefetch_far(self, _at: *const u8, _bytes: usize) {}

    fn splat8(self, x: f32) -> Self::F32x8;
    fn load8(self, x: &[f32; 8]) -> Self::F32x8;
    fn store8(self, x: Self::F32x8, out: &mut [f32; 8]);
    /// Eight little-endian binary32.
    fn load8_f32(self, x: &[u8; 32]) -> Self::F32x8;
    /// Eight little-endian binary16.
    fn load8_f16(self, x: &[u8; 16]) -> Self::F32x8;
    /// Eight bfloat16.
    fn load8_bf16(self, x: &[u8; 16]) -> Self::F32x8;
    /// Eight int8.
    fn load8_i8(self, x: &[u8; 8]) -> Self::F32x8;
    /// Eight binary16, rounded to nearest even.
    fn store8_f16(self, x: Self::F32x8, out: &mut [u8; 16]);
    fn add8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn sub8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn mul8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn div8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn min8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn max8(self, a: Self::F32x8, b: Self::F32x8) -> Self::F32x8;
    fn abs8(self, a: Self::F32x8) -> Self::F32x8;
    /// `a·b + c`, rounded once.
    fn fma8(self, a: Self::F32x8, b: Self::F32x8, c: Self::F32x8) -> Self::F32x8;
    /// `a·b[LANE] + c`, rounded once.
    #[inline(always)]
    fn fma8_lane<const LANE: i32>(self, a: Self::F32x8, b: &[f32; 4], c: Self::F32x8) -> Self::F32x8 {
        self.fma8(a, self.splat8(b[LANE as usize]), c)
    }
    /// Nearest integer, ties to even.
    fn round8(self, a: Self::F32x8) -> Self::F32x8;
    /// x·2ⁿ for integral n, where neither x nor the result is zero, subnormal or not finite.
    fn ldexp8(self, x: Self::F32x8, n: Self::F32x8) -> Self::F32x8;
    /// Sum in the order ((0+4)+(2+6)) + ((1+5)+(3+7)).
    fn sum8(self, a: Self::F32x8) -> f32;
    /// Sums of four vectors, each in the order ((0+4)+(1+5)) + ((2+6)+(3+7)).
    fn sum8x4(self, a: [Self::F32x8; 4]) -> [f32; 4];
    fn hmax8(self, a: Self::F32x8) -> f32;
    /// Integral values within ±127, as int8.
    fn to_i8(self, x: [Self::F32x8; 4], out: &mut [i8; 32]);

    /// Four rows of eight to eight columns of four.
    fn transpose8x4(self, rows: [Self::F32x8; 4]) -> [Self::F32x4; 8];
    fn load4(self, x: &[f32; 4]) -> Self::F32x4;
    fn store4(self, x: Self::F32x4) -> [f32; 4];

    /// The same in steps, for sums across blocks: what to begin with, where `bias` is of all blocks together.
    fn sums_i8(self, bias: i32) -> Self::Sums;
    /// `sums` and the products of another block.
    fn add_i8(self, w: &[Self::I8x32; ROWS], x: Self::I8x32, sums: Self::Sums) -> Self::Sums;
    /// The four sums.
    fn fold_i8(self, sums: Self::Sums) -> Self::F32x4;

    /// Sixteen binary32 of each of four rows.
    #[inline(always)]
    fn f32x16(self, step: BlockQuad<'_, '_, [u8; 64]>) -> [[Self::F32x8; 2]; ROWS] {
        let blocks = step.blocks();
        unroll_array!(r in 0..4 => [self.load8_f32(first(blocks[r])), self.load8_f32(last(blocks[r]))])
    }
    /// Sixteen binary16 of each of four rows.
    #[inline(always)]
    fn f16x16(self, step: BlockQuad<'_, '_, [u8; 32]>) -> [[Self::F32x8; 2]; ROWS] {
        let blocks = step.blocks();
        unroll_array!(r in 0..4 => [self.load8_f16(first(blocks[r])), self.load8_f16(last(blocks[r]))])
    }
    /// Sixteen bfloat16 of each of four rows.
    #[inline(always)]
    fn bf16x16(self, step: BlockQuad<'_, '_, [u8; 32]>) -> [[Self::F32x8; 2]; ROWS] {
        let blocks = step.blocks();
        unroll_array!(r in 0..4 => [self.load8_bf16(first(blocks[r])), self.load8_bf16(last(blocks[r]))])
    }
    /// Four vectors of four 32-bit words, transposed.
    #[inline(always)]
    fn transpose4(self, rows: [&[u8; 16]; 4]) -> [[u8; 16]; 4] {
        core::array::from_fn(|k| core::array::from_fn(|i| rows[i / 4][4 * k + i % 4]))
    }
}

/// The first `N` bytes.
#[inline(always)]
pub(in crate::arch) fn first<const B: usize, const N: usize>(block: &[u8; B]) -> &[u8; N] {
    block.first_chunk().unwrap_or(&[0; N])
}

/// The last `N` bytes.
#[inline(always)]
pub(in crate::arch) fn last<const B: usize, const N: usize>(block: &[u8; B]) -> &[u8; N] {
    block.last_chunk().unwrap_or(&[0; N])
}

/// The two bytes at `at`: a scale or a minimum.
#[inline(always)]
pub(in crate::arch) fn pair<const B: usize>(block: &[u8; B], at: usize) -> &[u8; 2] {
    block.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 2])
}

/// A pair of vectors of eight `f32`. Every method must be `#[inline(always)]`, as an [`Isa`]'s.
pub(crate) trait F32x16<I: Isa>: Copy {
    /// Whether it is one register, of which there are 32: room for the sums of twice as many.
    const WIDE: bool;

    fn splat(isa: I, x: f32) -> Self;
    fn load(isa: I, x: [&[f32; 8]; 2]) -> Self;
    /// Little-endian binary32.
    fn load_f32(isa: I, x: [&[u8; 32]; 2]) -> Self;
    /// Little-endian binary16.
    fn load_f16(isa: I, x: [&[u8; 16]; 2]) -> Self;
    /// int8.
    fn load_i8(isa: I, x: [&[u8; 8]; 2]) -> Self;
    /// The first vector.
    fn first(self, isa: I) -> I::F32x8;
    /// Writes as many as `out` has: one, or both.
    fn store(self, isa: I, out: &mut [[f32; 8]]);
    fn mul(self, isa: I, b: Self) -> Self;
    /// `self·b + c`, rounded once.
    fn fma(self, isa: I, b: Self, c: Self) -> Self;
    /// `self·b[LANE] + c`, rounded once.
    fn fma_lane<const LANE: i32>(self, isa: I, b: &[f32; 4], c: Self) -> Self;
    /// The sum of each vector of four pairs, in the order of [`Isa::sum8x4`].
    fn sums(isa: I, pairs: [Self; 4]) -> [f32; 8];
}

/// Operations of a GEMM with float weights: a column of as many rows as a vector has lanes.
pub(crate) trait FloatIsa: Isa {
    /// Those rows: 8 or 16, the `R` of the methods.
    const ROWS: usize;
    /// A number of each row.
    type Column: Copy;

    fn load_column<const R: usize>(self, x: &[f32; R]) -> Self::Column;
    fn store_column<const R: usize>(self, x: Self::Column, out: &mut [f32; R]);
    /// `acc` plus the products of four columns with a token's four activations, from the first to the last, each rounded
    /// once.
    fn fma_columns(self, w: &[Self::Column; 4], x: &[f32; 4], acc: Self::Column) -> Self::Column;

    /// Whether the CPU multiplies binary16, and the two methods below do something; see
    /// [`gemv_f16`](super::generic::gemv_f16).
    const F16_PRODUCTS: bool = false;
    /// Adds the products of 32 binary16 of each of four rows with those of `T` tokens to two sums a row, `[r₀, r₀, r₁, r₁]` and
    /// `[r₂, r₂, r₃, r₃]`: in binary16 `w[8k + i]·x[8k + i]` for k in 0..4, then lanes 2i and 2i + 1 twice; in `f32`
    /// times the token's `d`.
    #[inline(always)]
    fn fma_f16<const T: usize>(
        self,
        _w: BlockQuad<'_, '_, [u8; 64]>,
        _x: [&F16Block; T],
        _acc: &mut [[Self::F32x4; 2]; T],
    ) {
    }
    /// The sum of each row's two.
    #[inline(always)]
    fn fold_f16(self, _acc: [Self::F32x4; 2]) -> [f32; ROWS] {
        [0.0; ROWS]
    }
}

/// Operations on panels, whose rows are the lanes of a vector; see [`panel`](super::generic::panel).
///
/// A group is [`ROWS`](PanelIsa::ROWS) of a panel's 16 rows, whose weights stay in registers while tokens pass by,
/// [`TOKENS`](PanelIsa::TOKENS) at a time: the `T` of the methods. Every sum is `acc + (dot + bias)·(d · d_x)`, with
/// the product of scales rounded, and the rest once.
pub(crate) trait PanelIsa: Int8Isa {
    /// Rows of a group: a divisor of 16.
    const ROWS: usize;
    /// Tokens of a step, 1 or 2.
    const TOKENS: usize;
    /// Panels whose weights the registers hold at once, 1 or 2.
    const PANELS: usize = 1;
    /// Whether the loop over single tokens takes two a turn, which saves counting where registers are left for it.
    const UNROLL: bool = false;
    /// Whether products of int8 cost no more than those of smaller weights: offsets are then subtracted from a group's
    /// weights, once for all tokens.
    const SIGNED: bool = false;
    /// Whether registers do not hold the weights of two groups of any format; of one that has two planes they never do.
    const FEW_REGISTERS: bool = false;
    /// The operations for one token at a time.
    type Single: PanelIsa;
    /// A group's quants of one block.
    type Weights: Copy;
    /// Exact dot products of a group and `TOKENS` tokens.
    type Dots: Copy;
    /// A group's scales or minima.
    type Scales: Copy;
    /// A group's integer scales or minima, of the type that products with [`Dots`](PanelIsa::Dots) take.
    type Ints: Copy;
    /// Sums of a group and `TOKENS` tokens, in whatever arrangement the instructions want.
    type Acc: Copy;

    fn single(self) -> Self::Single;
    /// Four 32-bit words of each row to the order of a panel: `[k][row][4]`.
    #[inline(always)]
    fn transpose16(self, rows: [&[u8; 16]; PANEL_ROWS]) -> [u8; 256] {
        let mut out = [0; 256];
        let quads = out.as_chunks_mut::<16>().0;
        for (group, rows) in rows.as_chunks().0.iter().enumerate() {
            for (k, words) in self.transpose4(*rows).into_iter().enumerate() {
                quads[4 * k + group] = words;
            }
        }
        out
    }
    /// The first number of 16 bits of each row, then the second.
    #[inline(always)]
    fn interleave_scales(self, rows: [&[u8; 16]; PANEL_ROWS]) -> [PanelScales; 2] {
        let mut out = [[0; 2 * PANEL_ROWS]; 2];
        for (s, out) in out.iter_mut().enumerate() {
            for (out, row) in out.as_chunks_mut().0.iter_mut().zip(rows) {
                *out = *pair(row, 2 * s);
            }
        }
        out
    }
    fn int8(self, q: &Bytes, group: usize) -> Self::Weights;
    fn nibbles(self, n: &Nibbles, group: usize) -> Self::Weights;
    /// Weights less `offset`, where these are [`SIGNED`](PanelIsa::SIGNED).
    #[inline(always)]
    fn less(self, w: Self::Weights, _offset: i32) -> Self::Weights {
        w
    }
    fn scales(self, scales: &PanelScales, group: usize) -> Self::Scales;
    /// Sums as [`store`](PanelIsa::store) left them; zeros are zeros in any arrangement.
    fn load<const T: usize>(self, sums: &[Sums; T], group: usize) -> Self::Acc;
    fn store<const T: usize>(self, acc: Self::Acc, sums: &mut [Sums; T], group: usize);
    /// `unit`, which the compiler takes to depend on `dots`: a group's weights are then not loaded while the group
    /// before it still needs the registers.
    #[inline(always)]
    fn after<T>(self, unit: &T, _dots: Self::Dots) -> &T {
        unit
    }
    /// Puts what `store` left in the order of tokens and rows.
    #[inline(always)]
    fn in_rows(self, _sums: &mut [Sums; 2], _group: usize) {}
    /// Quants of small magnitude, in the order of `int8`.
    #[inline(always)]
    fn small(self, q: &Bytes, group: usize) -> Self::Weights {
        self.int8(q, group)
    }
    /// Quants from columns of rows 0..8 and 8..16 of a panel, the vectors of `[k][row][4]`, or of a group of eight rows twice;
    /// int8, or of small magnitude.
    fn weights_of<const INT8: bool>(self, q: [[Self::I8x32; 8]; 2]) -> Self::Weights;
    /// Scales or minima from those of four times four rows; a smaller group has the first.
    fn scales_of(self, d: [Self::F32x4; 4]) -> Self::Scales;
    /// The same of integers.
    fn ints_of(self, x: [Self::U32x4; 4]) -> Self::Ints;
    fn mul_scales(self, a: Self::Scales, b: Self::Scales) -> Self::Scales;
    /// A group's scales or minima, from `f32`.
    fn scales_f32(self, scales: &Sums, group: usize) -> Self::Scales;
    /// A group's integer scales or minima.
    fn ints(self, x: &[i32; PANEL_ROWS], group: usize) -> Self::Ints;
    /// Products of int8 weights.
    fn dot_int8<const T: usize>(self, w: &Self::Weights, x: &TokenBlock<'_, T>) -> Self::Dots;
    /// Products of weights within 0..=15, plus the tokens' biases if `offset`.
    fn dot_nibbles<const T: usize>(self, w: &Self::Weights, x: &TokenBlock<'_, T>, offset: bool) -> Self::Dots;
    /// The same where no other products are computed meanwhile.
    #[inline(always)]
    fn dot_nibbles_alone<const T: usize>(self, w: &Self::Weights, x: &TokenBlock<'_, T>, offset: bool) -> Self::Dots {
        self.dot_nibbles(w, x, offset)
    }
    /// Products of `small` weights within 0..=31, plus the tokens' biases if `offset`.
    fn dot_five<const T: usize>(self, w: &Self::Weights, x: &TokenBlock<'_, T>, offset: bool) -> Self::Dots;
    /// Products of the first 16 columns and of the last, of `small` weights within 0..=63 less `offset`; where
    /// [`panel_quants`](Int8Isa::panel_quants) makes signed ones, these are less it already.
    fn dot_halves<const T: usize>(self, w: &Self::Weights, x: &TokenBlock<'_, T>, offset: i32) -> [Self::Dots; 2];
    /// `acc + (d[0]·(s[0]·dots[0] + s[1]·dots[1]) + d[1]·(m[0]·x.halves[0] + m[1]·x.halves[1]))·x.d`; without minima the
    /// second product is none. Sums in brackets are exact integers.
    fn add_halves<const T: usize>(
        self,
        acc: Self::Acc,
        dots: [Self::Dots; 2],
        d: [Self::Scales; 2],
        s: [Self::Ints; 2],
        minima: Option<[Self::Ints; 2]>,
        x: &TokenBlock<'_, T>,
    ) -> Self::Acc;
    /// `acc + dots·(d · x)`.
    fn add<const T: usize>(self, acc: Self::Acc, dots: Self::Dots, d: Self::Scales, x: &[f32; T]) -> Self::Acc;
    /// `acc + m·x`.
    fn add_minima<const T: usize>(self, acc: Self::Acc, m: Self::Scales, x: &[f32; T]) -> Self::Acc;
}
