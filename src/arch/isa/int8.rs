//! Operations on blocks of int8: how the fields of a format become quants, and their products with activations.

use super::Isa;
use crate::arch::types::ROWS;

/// What formats with fields narrower than a byte need of an instruction set. Every method must be `#[inline(always)]`,
/// as an [`Isa`]'s; numbers of bits are constants there.
pub(crate) trait Int8Isa: Isa {
    /// A 32-bit word of each of four rows.
    type U32x4: Copy;
    /// Whether the units of a block are unrolled, so that shifts are constants; else they are a loop.
    const UNROLL_UNITS: bool = true;

    /// Bits `shift..shift + bits` of each byte.
    fn field(self, x: Self::I8x32, shift: usize, bits: usize) -> Self::I8x32;
    /// `low | high << shift`, for `low` below 2^shift, and `high` of so few bits that none is lost.
    fn insert(self, low: Self::I8x32, high: Self::I8x32, shift: usize) -> Self::I8x32;
    /// `a | b`.
    fn or(self, a: Self::I8x32, b: Self::I8x32) -> Self::I8x32;
    /// `x − n`.
    fn sub(self, x: Self::I8x32, n: i8) -> Self::I8x32;
    /// The levels of indices within 0..=15.
    fn lookup(self, levels: &[i8; 16], x: Self::I8x32) -> Self::I8x32;
    /// `value` for each bit that is set, else 0; the least significant bit of the first byte first.
    fn bits(self, x: &[u8; 4], value: i8) -> Self::I8x32;
    /// Fields of two bits, the least significant of the first byte first.
    fn crumbs(self, x: &[u8; 8]) -> Self::I8x32;

    /// The exact dot products of four blocks of weights within 0..=31 with one of activations, plus `bias`.
    fn dot4_five(self, w: &[Self::I8x32; ROWS], x: Self::I8x32, bias: i32) -> Self::F32x4;
    /// The exact dot products of the first 16 and of the last, of weights within ±32; `halves` are the sums of those
    /// activations.
    fn dot4_halves(self, w: &[Self::I8x32; ROWS], x: Self::I8x32, halves: [i32; 2]) -> [Self::F32x4; 2];

    /// Four columns of four rows in each vector: `[k][row][4]`, columns 4k..4k + 4.
    fn interleave(self, w: &[Self::I8x32; ROWS]) -> [[u8; 16]; 8];

    /// Four little-endian words.
    fn words(self, x: [&[u8; 4]; ROWS]) -> Self::U32x4;
    fn and_words(self, x: Self::U32x4, mask: u32) -> Self::U32x4;
    fn or_words(self, a: Self::U32x4, b: Self::U32x4) -> Self::U32x4;
    /// `n` below 32.
    fn shr_words(self, x: Self::U32x4, n: usize) -> Self::U32x4;
    fn shl_words(self, x: Self::U32x4, n: usize) -> Self::U32x4;
    /// Byte `i` of each word, unsigned.
    fn byte_u8(self, x: Self::U32x4, i: usize) -> Self::F32x4;
    /// Byte `i` of each word, signed.
    fn byte_i8(self, x: Self::U32x4, i: usize) -> Self::F32x4;
}
