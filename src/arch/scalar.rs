//! The operations over plain arrays: portable code, and the reference that the other backends are compared with.

use half::{bf16, f16};

use super::backend::Backend;
use super::f32x16::F32x8Pair;
use super::isa::{At, Field, FloatIsa, Form, Int8Isa, Isa, Order, PanelIsa, UnitIsa, bias, first, last, pair};
use super::kernels::{Kernels, kernels};
use super::types::{BlockQuad, Bytes, Nibbles, PanelScales, Sums, TokenBlock};
use crate::quant::PANEL_ROWS;

#[derive(Clone, Copy)]
pub(super) struct Scalar;

pub(super) fn kernels() -> Kernels {
    kernels!(Backend::Scalar, Scalar, Scalar)
}

fn map<const N: usize>(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    core::array::from_fn(|i| f(a[i], b[i]))
}

/// `a·b + c`, rounded once, as the other backends' instruction does: so that all of them give the same bits.
///
/// The product of two f32 is exact in f64, and the sum is then rounded twice. That differs from rounding once only where
/// the first rounding lands half-way between two f32 (Boldo and Melquiond 2008), which for subnormal results is at other
/// bits; those `libm` computes exactly.
#[inline(never)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    const BELOW_F32: u64 = (1 << 29) - 1;
    const HALF_WAY: u64 = 1 << 28;
    let sum = f64::from(a) * f64::from(b) + f64::from(c);
    let subnormal = sum != 0.0 && sum.abs() < f64::from(f32::MIN_POSITIVE);
    if sum.to_bits() & BELOW_F32 == HALF_WAY || subnormal { libm::fmaf(a, b, c) } else { sum as f32 }
}

/// Larger operations are calls, not inlined: the backend is a reference, and is to compile quickly.
impl Isa for Scalar {
    type F32x8 = [f32; 8];
    type F32x16 = F32x8Pair<Self>;
    type Sums = [i32; 4];

    #[inline(always)]
    fn splat8(self, x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    fn load8(self, x: &[f32; 8]) -> [f32; 8] {
        *x
    }
    #[inline(always)]
    fn store8(self, x: [f32; 8], out: &mut [f32; 8]) {
        *out = x;
    }
    #[inline(never)]
    fn load8_f32(self, x: &[u8; 32]) -> [f32; 8] {
        core::array::from_fn(|i| f32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]))
    }
    #[inline(never)]
    fn load8_f16(self, x: &[u8; 16]) -> [f32; 8] {
        core::array::from_fn(|i| f16::from_le_bytes(*pair(x, 2 * i)).to_f32())
    }
    #[inline(never)]
    fn load8_bf16(self, x: &[u8; 16]) -> [f32; 8] {
        core::array::from_fn(|i| bf16::from_le_bytes(*pair(x, 2 * i)).to_f32())
    }
    #[inline(never)]
    fn load8_i8(self, x: &[u8; 8]) -> [f32; 8] {
        x.map(|x| f32::from(x.cast_signed()))
    }
    #[inline(never)]
    fn store8_f16(self, x: [f32; 8], out: &mut [u8; 16]) {
        for (out, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(x) {
            *out = f16::from_f32(x).to_le_bytes();
        }
    }
    #[inline(always)]
    fn add8(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub8(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(a, b, |a, b| a - b)
    }
    #[inline(never)]
    fn mul8(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div8(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn min8(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(a, b, f32::min)
    }
    #[inline(always)]
    fn max8(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        map(a, b, f32::max)
    }
    #[inline(always)]
    fn abs8(self, a: [f32; 8]) -> [f32; 8] {
        a.map(f32::abs)
    }
    #[inline(never)]
    fn fma8(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        core::array::from_fn(|i| fma(a[i], b[i], c[i]))
    }
    #[inline(never)]
    fn round8(self, a: [f32; 8]) -> [f32; 8] {
        a.map(libm::rintf)
    }
    #[inline(never)]
    fn ldexp8(self, x: [f32; 8], n: [f32; 8]) -> [f32; 8] {
        map(x, n, |x, n| f32::from_bits(x.to_bits().wrapping_add((n as i32 as u32) << 23)))
    }
    #[inline(never)]
    fn sum8(self, a: [f32; 8]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(never)]
    fn sum8x4(self, a: [[f32; 8]; 4]) -> [f32; 4] {
        a.map(|a| ((a[0] + a[4]) + (a[1] + a[5])) + ((a[2] + a[6]) + (a[3] + a[7])))
    }
    #[inline(never)]
    fn hmax8(self, a: [f32; 8]) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(never)]
    fn to_i8(self, x: [[f32; 8]; 4], out: &mut [i8; 32]) {
        for (out, x) in out.iter_mut().zip(x.as_flattened()) {
            *out = *x as i8;
        }
    }

    #[inline(always)]
    fn transpose8x4(self, rows: [[f32; 8]; 4]) -> [[f32; 4]; 8] {
        core::array::from_fn(|c| rows.map(|row| row[c]))
    }
    #[inline(always)]
    fn load4(self, x: &[f32; 4]) -> [f32; 4] {
        *x
    }
    #[inline(always)]
    fn store4(self, x: [f32; 4]) -> [f32; 4] {
        x
    }

    #[inline(always)]
    fn sums_i8(self, _bias: i32) -> [i32; 4] {
        [0; 4]
    }
    #[inline(never)]
    fn add_i8(self, w: &[[i8; 32]; 4], x: [i8; 32], sums: [i32; 4]) -> [i32; 4] {
        let dot = |w: &[i8; 32]| w.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(x)).sum::<i32>();
        core::array::from_fn(|r| sums[r] + dot(&w[r]))
    }
    #[inline(always)]
    fn fold_i8(self, sums: [i32; 4]) -> [f32; 4] {
        sums.map(|sum| sum as f32)
    }
}

impl UnitIsa for Scalar {
    type F32x4 = [f32; 4];
    type I8x32 = [i8; 32];
    const UNROLL_UNITS: bool = false;
    type U32x4 = [u32; 4];
    type Stored = [f32; 4];
    type Places = [*const u8; 4];

    #[inline(always)]
    fn splat4(self, x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(never)]
    fn gather4_f16(self, x: [At<'_, Self, [u8; 2]>; 4]) -> [f32; 4] {
        x.map(|b| f16::from_le_bytes(*b).to_f32())
    }
    #[inline(always)]
    fn mul4(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map(a, b, |a, b| a * b)
    }
    #[inline(never)]
    fn fma4(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        core::array::from_fn(|i| fma(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; 32]) -> [i8; 32] {
        *x
    }
    #[inline(always)]
    fn load_u8(self, x: At<'_, Self, [u8; 32]>) -> [i8; 32] {
        x.map(u8::cast_signed)
    }
    #[inline(never)]
    fn load_nibbles(self, x: At<'_, Self, [u8; 16]>) -> [i8; 32] {
        core::array::from_fn(|i| if i < 16 { x[i] & 15 } else { x[i - 16] >> 4 }.cast_signed())
    }
    #[inline(never)]
    fn dot4_i8(self, w: &[[i8; 32]; 4], x: [i8; 32], _bias: i32) -> [f32; 4] {
        self.fold_i8(self.add_i8(w, x, [0; 4]))
    }
    #[inline(never)]
    fn dot4_nibbles(self, w: &[[i8; 32]; 4], x: [i8; 32], bias: i32) -> [f32; 4] {
        w.map(|w| (w.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(x)).sum::<i32>() + bias) as f32)
    }
    #[inline(never)]
    fn field(self, x: [i8; 32], field: Field) -> [i8; 32] {
        x.map(|x| (x.cast_unsigned() >> field.at & ((1 << field.bits) - 1)).cast_signed())
    }
    #[inline(never)]
    fn join(self, low: [i8; 32], l: Field, high: [i8; 32], h: Field) -> [i8; 32] {
        let (low, high) = (self.field(low, l), self.field(high, h));
        core::array::from_fn(|i| low[i] | high[i] << l.bits)
    }
    #[inline(never)]
    fn lookup(self, levels: &[i8; 16], x: [i8; 32]) -> [i8; 32] {
        x.map(|x| levels[usize::from(x.cast_unsigned() & 15)])
    }
    #[inline(never)]
    fn lookup_fp4(self, levels: &[i8; 16], x: [i8; 32]) -> ([i8; 32], Form) {
        (self.lookup(levels, x), Form::less(12))
    }
    #[inline(never)]
    fn bits(self, x: At<'_, Self, [u8; 16]>, u: usize) -> [i8; 32] {
        core::array::from_fn(|i| (x[(4 * u + i / 8) & 15] >> (i % 8) & 1).cast_signed())
    }
    #[inline(never)]
    fn crumbs(self, step: BlockQuad<'_, '_, [u8; 18]>) -> ([[[i8; 32]; 4]; 2], Form, [f32; 4]) {
        let blocks = step.blocks();
        let crumb = |r: usize, i: usize| (last::<18, 16>(blocks[r])[(i / 4) & 15] >> (2 * (i % 4)) & 3).cast_signed();
        let unit = |u: usize| core::array::from_fn(|r| core::array::from_fn(|i| crumb(r, 32 * u + i)));
        ([unit(0), unit(1)], Form::PLAIN, self.gather4_f16(blocks.map(|b| pair(b, 0))))
    }
    #[inline(never)]
    fn fives(self, step: BlockQuad<'_, '_, [u8; 22]>) -> ([[i8; 32]; 4], Form, [f32; 4]) {
        let blocks = step.blocks();
        (
            blocks.map(|b| five(first(last::<22, 20>(b)), last(b))),
            Form::PLAIN,
            self.gather4_f16(blocks.map(|b| pair(b, 0))),
        )
    }
    #[inline(never)]
    fn fives_min(self, step: BlockQuad<'_, '_, [u8; 24]>) -> ([[i8; 32]; 4], Form, [[f32; 4]; 2]) {
        let blocks = step.blocks();
        let d = [0, 2].map(|at| self.gather4_f16(blocks.map(|b| pair(b, at))));
        (blocks.map(|b| five(first(last::<24, 20>(b)), last(b))), Form::PLAIN, d)
    }
    #[inline(always)]
    fn byte_and_nibbles(self, step: BlockQuad<'_, '_, [u8; 17]>) -> ([u32; 4], [[i8; 32]; 4]) {
        let blocks = step.blocks();
        (blocks.map(|b| u32::from(b[0])), blocks.map(|b| self.load_nibbles(last(b))))
    }
    #[inline(never)]
    fn dot4_five(self, w: &[[i8; 32]; 4], form: Form, x: [i8; 32], sum: i32, offset: i32) -> [f32; 4] {
        self.dot4_nibbles(w, x, bias(sum, offset - form.less))
    }
    #[inline(never)]
    fn dot4_halves(self, w: &[[i8; 32]; 4], form: Form, x: [i8; 32], sums: &[i32; 2], offset: i32) -> [[f32; 4]; 2] {
        let offset = offset - form.less;
        [0, 1].map(|h| w.map(|w| (dot_half(&w, &x, h) - offset * sums[h]) as f32))
    }
    #[inline(always)]
    fn splat_words(self, x: u32) -> [u32; 4] {
        [x; 4]
    }
    #[inline(never)]
    fn quads(self, x: [At<'_, Self, [u8; 16]>; 4]) -> [[u32; 4]; 4] {
        core::array::from_fn(|k| x.map(|x| u32::from_le_bytes(x.as_chunks::<4>().0[k])))
    }
    #[inline(always)]
    fn xor_words(self, x: [u32; 4], mask: u32) -> [u32; 4] {
        x.map(|x| x ^ mask)
    }
    #[inline(always)]
    fn max_words(self, a: [u32; 4], b: [u32; 4]) -> [u32; 4] {
        core::array::from_fn(|i| a[i].cast_signed().max(b[i].cast_signed()).cast_unsigned())
    }
    #[inline(always)]
    fn f32_of_bits(self, x: [u32; 4]) -> [f32; 4] {
        x.map(f32::from_bits)
    }
    #[inline(always)]
    fn sub_words(self, x: [u32; 4], n: u32) -> [u32; 4] {
        x.map(|x| x.wrapping_sub(n))
    }
    #[inline(always)]
    fn and_words(self, x: [u32; 4], mask: u32) -> [u32; 4] {
        x.map(|x| x & mask)
    }
    #[inline(always)]
    fn or_words(self, a: [u32; 4], b: [u32; 4]) -> [u32; 4] {
        core::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn shr_words(self, x: [u32; 4], n: usize) -> [u32; 4] {
        x.map(|x| x >> n)
    }
    #[inline(always)]
    fn shl_words(self, x: [u32; 4], n: usize) -> [u32; 4] {
        x.map(|x| x << n)
    }
    #[inline(always)]
    fn byte_u8(self, x: [u32; 4], i: usize) -> [u32; 4] {
        x.map(|x| u32::from((x >> (8 * i)) as u8))
    }
    #[inline(always)]
    fn byte_i8(self, x: [u32; 4], i: usize) -> [u32; 4] {
        x.map(|x| i32::from((x >> (8 * i)) as i8).cast_unsigned())
    }
    #[inline(always)]
    fn to_f32(self, x: [u32; 4]) -> [f32; 4] {
        x.map(|x| x.cast_signed() as f32)
    }
    #[inline(never)]
    fn halves_f16(self, x: [u32; 4]) -> [[f32; 4]; 2] {
        [0, 16].map(|shift| x.map(|x| f16::from_bits((x >> shift) as u16).to_f32()))
    }
    #[inline(always)]
    fn stored(self, x: [f32; 4]) -> [f32; 4] {
        self.store4(x)
    }
    #[inline(always)]
    fn load_twice(self, x: At<'_, Self, [u8; 16]>) -> [i8; 32] {
        core::array::from_fn(|i| x[i % 16].cast_signed())
    }
    #[inline(always)]
    fn load_and_repeat(self, x: At<'_, Self, [u8; 20]>) -> [i8; 32] {
        core::array::from_fn(|i| x[if i < 16 { i } else { 16 + i % 4 }].cast_signed())
    }
    #[inline(never)]
    fn word_and_nibbles(self, step: BlockQuad<'_, '_, [u8; 36]>) -> ([u32; 4], [[[i8; 32]; 4]; 2], Order) {
        let blocks = step.blocks();
        let nibble = |r: usize, i: usize| (blocks[r][4 + 8 * (i / 16) + i % 8] >> (4 * (i / 8 % 2)) & 15).cast_signed();
        let unit = |u: usize| core::array::from_fn(|r| core::array::from_fn(|i| nibble(r, 32 * u + i)));
        (blocks.map(|b| u32::from_le_bytes(*first(b))), [unit(0), unit(1)], Order::Plain)
    }
    #[inline(never)]
    fn trits(self, x: [i8; 32], powers: &[u8; 32]) -> ([i8; 32], Form) {
        let trit = |i: usize| ((u16::from(x[i].cast_unsigned().wrapping_mul(powers[i])) * 3) >> 8) as i8;
        (core::array::from_fn(trit), Form::PLAIN)
    }
    #[inline(always)]
    fn clear_bytes(self, x: [u32; 4], byte: u8) -> [u32; 4] {
        x.map(|x| u32::from_le_bytes(x.to_le_bytes().map(|b| if b == byte { 0 } else { b })))
    }
}

/// Calls, not copies: there is no instruction set to be compiled for, and many formats.
impl Int8Isa for Scalar {
    type Decode = Self;

    #[inline(always)]
    fn decode(self) -> Self {
        self
    }
    const SIGNED_PLANES: bool = true;

    #[inline(never)]
    fn join_planes(self, low: [i8; 32], high: [[i8; 32]; 2], h: [Field; 2]) -> [[i8; 32]; 2] {
        let half = 8 << h[0].bits;
        [0, 1].map(|i| self.join(low, Field { at: 4 * i, bits: 4 }, high[i], h[i]).map(|q| (q ^ half) - half))
    }
    #[inline(never)]
    fn panel_quants(self, q: [[i8; 32]; 4], form: Form, less: i32) -> [[i8; 32]; 4] {
        q.map(|q| q.map(|q| q.wrapping_add((form.less - less) as i8)))
    }
    #[inline(never)]
    fn interleave(self, w: &[[i8; 32]; 4]) -> [[u8; 16]; 8] {
        core::array::from_fn(|k| core::array::from_fn(|i| w[i / 4][4 * k + i % 4].cast_unsigned()))
    }
    #[inline(never)]
    fn load_words(self, x: &[u8; 16]) -> [u32; 4] {
        core::array::from_fn(|i| u32::from_le_bytes(x.as_chunks::<4>().0[i]))
    }
    #[inline(never)]
    fn load_six_bits(self, x: &[u8; 24]) -> [[u32; 4]; 2] {
        let (words, _) = x.as_chunks::<4>();
        let low = |i: usize| u32::from_le_bytes(words[4 + i % 2]) >> (4 * (i / 2)) & 0x0f0f_0f0f;
        let first = self.load_words(first(x));
        [first, core::array::from_fn(|i| low(i) | first[i] >> 2 & 0x3030_3030)]
    }
    #[inline(always)]
    fn store_words(self, x: [u32; 4]) -> [i32; 4] {
        x.map(u32::cast_signed)
    }
}

/// Nibbles with a bit above each.
fn five(bits: &[u8; 4], nibbles: &[u8; 16]) -> [i8; 32] {
    let bits = u32::from_le_bytes(*bits);
    core::array::from_fn(|i| (nibbles[i % 16] >> (4 * (i / 16)) & 15 | ((bits >> i & 1) << 4) as u8).cast_signed())
}

/// The exact dot product of the first 16 or the last.
fn dot_half(w: &[i8; 32], x: &[i8; 32], half: usize) -> i32 {
    w.iter().zip(x).skip(16 * half).take(16).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum()
}

/// A value for each row of a panel.
type Rows<T> = [T; PANEL_ROWS];

impl FloatIsa for Scalar {
    const ROWS: usize = 8;
    type Column = [f32; 8];

    #[inline(always)]
    fn load_column<const R: usize>(self, x: &[f32; R]) -> [f32; 8] {
        x.first_chunk().copied().unwrap_or_default()
    }
    #[inline(always)]
    fn store_column<const R: usize>(self, x: [f32; 8], out: &mut [f32; R]) {
        if let Some(out) = out.first_chunk_mut() {
            *out = x;
        }
    }
    #[inline(never)]
    fn fma_columns(self, w: &[[f32; 8]; 4], x: &[f32; 4], acc: [f32; 8]) -> [f32; 8] {
        w.iter().zip(x).fold(acc, |acc, (w, x)| self.fma8(*w, [*x; 8], acc))
    }
}

impl PanelIsa for Scalar {
    const ROWS: usize = PANEL_ROWS;
    const TOKENS: usize = 1;
    type Single = Scalar;
    type Weights = Rows<[i8; 32]>;
    type Dots = Rows<f32>;
    type Scales = Rows<f32>;
    type Acc = Rows<f32>;
    type Ints = Rows<i32>;

    fn single(self) -> Scalar {
        self
    }
    #[inline(never)]
    fn int8(self, q: &Bytes, _group: usize) -> Rows<[i8; 32]> {
        let q = q.as_flattened();
        core::array::from_fn(|r| core::array::from_fn(|i| q[64 * (i / 4) + 4 * r + i % 4].cast_signed()))
    }
    #[inline(never)]
    fn nibbles(self, n: &Nibbles, _group: usize) -> Rows<[i8; 32]> {
        let n = n.as_flattened();
        core::array::from_fn(|r| {
            let bytes = core::array::from_fn(|i| n[64 * (i / 4) + 4 * r + i % 4]);
            self.load_nibbles(&bytes)
        })
    }
    #[inline(never)]
    fn scales(self, scales: &PanelScales, _group: usize) -> Rows<f32> {
        core::array::from_fn(|r| f16::from_le_bytes([scales[2 * r], scales[2 * r + 1]]).to_f32())
    }
    #[inline(always)]
    fn load<const T: usize>(self, sums: &[Sums; T], _group: usize) -> Rows<f32> {
        sums[0]
    }
    #[inline(always)]
    fn store<const T: usize>(self, acc: Rows<f32>, sums: &mut [Sums; T], _group: usize) {
        sums[0] = acc;
    }
    #[inline(never)]
    fn dot_int8<const T: usize>(self, w: &Rows<[i8; 32]>, x: &TokenBlock<'_, T>) -> Rows<f32> {
        w.map(|w| w.iter().zip(x.q[0]).map(|(w, x)| i32::from(*w) * i32::from(x)).sum::<i32>() as f32)
    }
    #[inline(never)]
    fn dot_nibbles<const T: usize>(self, w: &Rows<[i8; 32]>, x: &TokenBlock<'_, T>, offset: bool) -> Rows<f32> {
        let bias = if offset { x.bias[0] as f32 } else { 0.0 };
        self.dot_int8(w, x).map(|dot| dot + bias) // exact: integers below 2²⁴
    }
    #[inline(never)]
    fn weights_of<const INT8: bool>(self, q: [[[i8; 32]; 8]; 2]) -> Rows<[i8; 32]> {
        core::array::from_fn(|r| core::array::from_fn(|i| q[r / 8][i / 4][4 * (r % 8) + i % 4]))
    }
    #[inline(always)]
    fn scales_of(self, d: [[f32; 4]; 4]) -> Rows<f32> {
        core::array::from_fn(|r| d[r / 4][r % 4])
    }
    #[inline(always)]
    fn ints_of(self, x: [[u32; 4]; 4]) -> Rows<i32> {
        core::array::from_fn(|r| x[r / 4][r % 4].cast_signed())
    }
    #[inline(always)]
    fn mul_scales(self, a: Rows<f32>, b: Rows<f32>) -> Rows<f32> {
        map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn scales_f32(self, scales: &Sums, _group: usize) -> Rows<f32> {
        *scales
    }
    #[inline(never)]
    fn dot_five<const T: usize>(self, w: &Rows<[i8; 32]>, x: &TokenBlock<'_, T>, offset: bool) -> Rows<f32> {
        self.dot_nibbles(w, x, offset)
    }
    #[inline(always)]
    fn ints(self, x: &Rows<i32>, _group: usize) -> Rows<i32> {
        *x
    }
    /// [`panel_quants`](Int8Isa::panel_quants) made them signed.
    #[inline(never)]
    fn dot_halves<const T: usize>(self, w: &Rows<[i8; 32]>, x: &TokenBlock<'_, T>, _: i32) -> [Rows<f32>; 2] {
        [0, 1].map(|h| w.map(|w| dot_half(&w, &x.q[0], h) as f32))
    }
    #[inline(never)]
    fn add_halves<const T: usize>(
        self,
        acc: Rows<f32>,
        dots: [Rows<f32>; 2],
        d: [Rows<f32>; 2],
        s: [Rows<i32>; 2],
        minima: Option<[Rows<i32>; 2]>,
        x: &TokenBlock<'_, T>,
    ) -> Rows<f32> {
        // Exact: integers below 2²⁴.
        let sum = |x: [f32; 2], s: [i32; 2]| x[0] * s[0] as f32 + x[1] * s[1] as f32;
        core::array::from_fn(|r| {
            let mut scaled = sum([dots[0][r], dots[1][r]], [s[0][r], s[1][r]]) * d[0][r];
            if let Some([a, b]) = minima {
                scaled = fma(sum(x.halves[0].map(|x| x as f32), [a[r], b[r]]), d[1][r], scaled);
            }
            fma(scaled, x.d[0], acc[r])
        })
    }
    #[inline(never)]
    fn add<const T: usize>(self, acc: Rows<f32>, dots: Rows<f32>, d: Rows<f32>, x: &[f32; T]) -> Rows<f32> {
        core::array::from_fn(|r| fma(dots[r], d[r] * x[0], acc[r]))
    }
    #[inline(never)]
    fn add_minima<const T: usize>(self, acc: Rows<f32>, m: Rows<f32>, x: &[f32; T]) -> Rows<f32> {
        core::array::from_fn(|r| fma(m[r], x[0], acc[r]))
    }
}
