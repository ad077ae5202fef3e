//! Operations on blocks of int8: how the fields of a format become quants, and their products with activations.

use super::Isa;
use crate::arch::types::{BlockQuad, ROWS};

/// What a backend has in place of a quant `q`, where that is cheaper to make: `(q − less)·2^shift`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::arch) struct Form {
    pub(in crate::arch) less: i32,
    pub(in crate::arch) shift: usize,
    /// Four vectors of 16 bytes for rows 0 and 1, and four for rows 2 and 3: of each, vector `j` has the columns ≡ `j` modulo 4,
    /// those of the first row in its low half.
    pub(in crate::arch) planes: bool,
}

impl Form {
    /// The quant itself.
    pub(in crate::arch) const PLAIN: Self = Form::less(0);

    pub(in crate::arch) const fn less(less: i32) -> Self {
        Form { less, shift: 0, planes: false }
    }
}

/// −offset·Σx, for `bias` = −8·Σx.
#[inline(always)]
pub(in crate::arch) fn bias(bias: i32, offset: i32) -> i32 {
    match offset {
        0 => 0,
        1 => bias >> 3,
        8 => bias,
        12 => bias + (bias >> 1),
        16 => bias << 1,
        _ => (bias >> 3) * offset,
    }
}

/// Bits `at..at + bits` of a byte.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Field {
    pub(in crate::arch) at: usize,
    pub(in crate::arch) bits: usize,
}

/// What formats with fields narrower than a byte need of an instruction set. Every method must be `#[inline(always)]`,
/// as an [`Isa`]'s; fields and forms are constants there.
pub(crate) trait Int8Isa: Isa {
    /// A 32-bit word of each of four rows.
    type U32x4: Copy;
    /// Whether the units of a block are unrolled, so that shifts are constants; else they are a loop.
    const UNROLL_UNITS: bool = true;
    /// What [`bits`](Int8Isa::bits) has for a bit that is set: 1 or −1.
    const SET: i8 = 1;
    /// Whether [`join_planes`](Int8Isa::join_planes) has signed numbers.
    const SIGNED_PLANES: bool = false;

    /// A field of each byte.
    fn field(self, x: Self::I8x32, field: Field) -> Self::I8x32;
    /// A field of each byte, left where it is if products can take it there, as its [`Form`] says.
    #[inline(always)]
    fn field_in_place(self, x: Self::I8x32, field: Field) -> (Self::I8x32, Form) {
        (self.field(x, field), Form::PLAIN)
    }
    /// A field of `low` and, above it, one of `high`.
    fn join(self, low: Self::I8x32, l: Field, high: Self::I8x32, h: Field) -> Self::I8x32;
    /// The levels of indices within 0..=15.
    fn lookup(self, levels: &[i8; 16], x: Self::I8x32) -> Self::I8x32;
    /// The quants `level + 12` of indices within 0..=15, for levels within ±12.
    fn lookup_fp4(self, levels: &[i8; 16], x: Self::I8x32) -> (Self::I8x32, Form);
    /// [`SET`](Int8Isa::SET) or 0 for bits `32·u..`, the least significant of the first byte first.
    fn bits(self, x: &[u8; 16], u: usize) -> Self::I8x32;
    /// [`SET`](Int8Isa::SET) or 0 for bit `at` of each byte.
    #[inline(always)]
    fn bit(self, x: Self::I8x32, at: usize) -> Self::I8x32 {
        self.field(x, Field { at, bits: 1 })
    }
    /// The low nibbles of `low`, then its high ones, each below a field of `high` whose highest bit is inverted; less half of the
    /// range if [`SIGNED_PLANES`](Int8Isa::SIGNED_PLANES).
    fn join_planes(self, low: Self::I8x32, high: [Self::I8x32; 2], h: [Field; 2]) -> [Self::I8x32; 2];
    /// Fields of two bits, the least significant of the first byte first, and the binary16 scale before them, of four blocks.
    fn crumbs(self, step: BlockQuad<'_, '_, [u8; 18]>) -> ([[Self::I8x32; ROWS]; 2], Form, Self::F32x4);
    /// `nibble + 16·bit`, and the binary16 scale, of four blocks: the scale, 32 bits, nibbles.
    fn fives(self, step: BlockQuad<'_, '_, [u8; 22]>) -> ([Self::I8x32; ROWS], Form, Self::F32x4);
    /// The same with a minimum behind the scale.
    fn fives_min(self, step: BlockQuad<'_, '_, [u8; 24]>) -> ([Self::I8x32; ROWS], Form, [Self::F32x4; 2]);
    /// A byte as a word, and the nibbles behind it, of four blocks.
    fn byte_and_nibbles(self, step: BlockQuad<'_, '_, [u8; 17]>) -> (Self::U32x4, [Self::I8x32; ROWS]);

    /// The exact dot products of four blocks of quants within 0..=15, less `offset`, with one of activations; `sum` is −8·Σx.
    #[inline(always)]
    fn dot4_small(self, w: &[Self::I8x32; ROWS], _: Form, x: Self::I8x32, sum: i32, offset: i32) -> Self::F32x4 {
        self.dot4_nibbles(w, x, bias(sum, offset))
    }
    /// The same of quants within 0..=31.
    fn dot4_five(self, w: &[Self::I8x32; ROWS], form: Form, x: Self::I8x32, sum: i32, offset: i32) -> Self::F32x4;
    /// The same of the first 16 and of the last, of quants within 0..=63; `sums` are those of these activations.
    fn dot4_halves(
        self,
        w: &[Self::I8x32; ROWS],
        form: Form,
        x: Self::I8x32,
        sums: &[i32; 2],
        offset: i32,
    ) -> [Self::F32x4; 2];
    /// The dot products of the halves, each times its integer scale, added: exact, as they are below 2²⁴.
    #[inline(always)]
    fn dot4_scaled_halves(
        self,
        w: &[Self::I8x32; ROWS],
        form: Form,
        x: Self::I8x32,
        sums: &[i32; 2],
        offset: i32,
        scales: [Self::U32x4; 2],
    ) -> Self::F32x4 {
        let [a, b] = self.dot4_halves(w, form, x, sums, offset);
        self.fma4(b, self.to_f32(scales[1]), self.mul4(a, self.to_f32(scales[0])))
    }
    /// `m[0]·x[0] + m[1]·x[1]`, exact as well.
    #[inline(always)]
    fn scaled_sums(self, m: [Self::U32x4; 2], x: &[i32; 2]) -> Self::F32x4 {
        let first = self.mul4(self.to_f32(m[0]), self.splat4(x[0] as f32));
        self.fma4(self.to_f32(m[1]), self.splat4(x[1] as f32), first)
    }

    /// Quants as panels take them: plain, or less `less` where the backend's panels are signed.
    #[inline(always)]
    fn panel_quants(self, q: [Self::I8x32; ROWS], _: Form, _less: i32) -> [Self::I8x32; ROWS] {
        q
    }
    /// Four columns of four rows in each vector: `[k][row][4]`, columns 4k..4k + 4.
    fn interleave(self, w: &[Self::I8x32; ROWS]) -> [[u8; 16]; 8];

    /// The blocks, which the compiler takes to depend on `acc`: their bytes are then not loaded while those before still
    /// need the registers.
    #[inline(always)]
    fn blocks_after<B>(self, blocks: [&B; ROWS], _acc: Self::F32x4) -> [&B; ROWS] {
        blocks
    }

    fn splat_words(self, x: u32) -> Self::U32x4;
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
    /// Four little-endian words of each row: the first of all, the second …
    fn quads(self, x: [&[u8; 16]; ROWS]) -> [Self::U32x4; 4];
    /// As signed numbers.
    fn store_words(self, x: Self::U32x4) -> [i32; ROWS];
    fn and_words(self, x: Self::U32x4, mask: u32) -> Self::U32x4;
    fn or_words(self, a: Self::U32x4, b: Self::U32x4) -> Self::U32x4;
    fn xor_words(self, x: Self::U32x4, mask: u32) -> Self::U32x4;
    /// `x − n`, wrapping.
    fn sub_words(self, x: Self::U32x4, n: u32) -> Self::U32x4;
    /// `n` below 32.
    fn shr_words(self, x: Self::U32x4, n: usize) -> Self::U32x4;
    fn shl_words(self, x: Self::U32x4, n: usize) -> Self::U32x4;
    /// Byte `i` of each word, unsigned.
    fn byte_u8(self, x: Self::U32x4, i: usize) -> Self::U32x4;
    /// Byte `i` of each word, signed.
    fn byte_i8(self, x: Self::U32x4, i: usize) -> Self::U32x4;
    /// The larger of two signed words.
    fn max_words(self, a: Self::U32x4, b: Self::U32x4) -> Self::U32x4;
    /// The bits of `f32`.
    fn f32_of_bits(self, x: Self::U32x4) -> Self::F32x4;
    /// Signed words as numbers.
    fn to_f32(self, x: Self::U32x4) -> Self::F32x4;
    /// The low and the high half of each word as binary16.
    fn halves_f16(self, x: Self::U32x4) -> [Self::F32x4; 2];
}
