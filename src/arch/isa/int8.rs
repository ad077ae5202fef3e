//! Operations on int8 that panels need.

use super::Isa;
use super::units::{Field, Form, UnitIsa};
use crate::arch::types::ROWS;

/// What panels of such formats need of an instruction set, and how it decodes. Every method must be `#[inline(always)]`, as an
/// [`Isa`]'s.
pub(crate) trait Int8Isa: Isa {
    /// The operations for rows in place and one token, which may be those of eight rows.
    type Decode: UnitIsa;

    fn decode(self) -> Self::Decode;
    /// Whether [`join_planes`](Int8Isa::join_planes) has signed numbers.
    const SIGNED_PLANES: bool = false;

    /// [`SET`](Int8Isa::SET) or 0 for bit `at` of each byte.
    #[inline(always)]
    fn bit(self, x: Self::I8x32, at: usize) -> Self::I8x32 {
        self.field(x, Field { at, bits: 1 })
    }
    /// The low nibbles of `low`, then its high ones, each below a field of `high` whose highest bit is inverted; less half of the
    /// range if [`SIGNED_PLANES`](Int8Isa::SIGNED_PLANES).
    fn join_planes(self, low: Self::I8x32, high: [Self::I8x32; 2], h: [Field; 2]) -> [Self::I8x32; 2];

    /// Quants as panels take them: plain, or less `less` where the backend's panels are signed.
    #[inline(always)]
    fn panel_quants(self, q: [Self::I8x32; ROWS], _: Form, _less: i32) -> [Self::I8x32; ROWS] {
        q
    }
    /// Four columns of four rows in each vector: `[k][row][4]`, columns 4k..4k + 4.
    fn interleave(self, w: &[Self::I8x32; ROWS]) -> [[u8; 16]; 8];

    /// Four little-endian words.
    fn load_words(self, x: &[u8; 16]) -> Self::U32x4;
    /// Sixteen bytes, of which the lower six bits are the first of two numbers, and the numbers whose upper two bits are above
    /// them, and whose others are the low nibbles of the eight bytes behind, then the high ones.
    fn load_six_bits(self, x: &[u8; 24]) -> [Self::U32x4; 2];
    /// The bits `mask`, of up to eight, of each word shifted to the right by `at`, 0, 8, 16 or 24, as numbers.
    #[inline(always)]
    fn field_to_f32(self, x: Self::U32x4, at: usize, mask: u32) -> Self::F32x4 {
        self.to_f32(self.and_words(self.shr_words(x, at), mask))
    }
    /// As signed numbers.
    fn store_words(self, x: Self::U32x4) -> [i32; ROWS];
}
