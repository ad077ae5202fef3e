//! Operations on units: how blocks of some rows become quants, and their products with activations.

use crate::arch::types::{BlockQuad, Places, ROWS};
use crate::arch::unroll::unroll_array;
use crate::quant::Block;

/// What a backend has in place of a quant `q`, where that is cheaper to make: `(q − less)·2^shift`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::arch) struct Form {
    pub(in crate::arch) less: i32,
    pub(in crate::arch) shift: usize,
    pub(in crate::arch) order: Order,
}

/// Where columns are.
#[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "other backends have the first alone"))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::arch) enum Order {
    /// In their own order.
    Plain,
    /// Four vectors of 16 bytes for rows 0 and 1, and four for rows 2 and 3: of each, vector `j` has the columns ≡ `j` modulo 4,
    /// those of the first row in its low half.
    Planes,
    /// Of a row's two vectors of 16 bytes, the first has columns 0..8 and 16..24, the second the others.
    Eights,
}

impl Form {
    /// The quant itself.
    pub(in crate::arch) const PLAIN: Self = Form::less(0);

    pub(in crate::arch) const fn less(less: i32) -> Self {
        Form { less, shift: 0, order: Order::Plain }
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

/// A block, or a part of it, of one row, or of the two that share a vector.
pub(in crate::arch) type At<'w, I, B> = <<I as UnitIsa>::Places as Places>::Of<'w, B>;

/// `N` bytes of a block from `from` on, which it has.
#[inline(always)]
pub(in crate::arch) fn at<'w, I: UnitIsa, const B: usize, const N: usize>(
    block: At<'w, I, [u8; B]>,
    from: usize,
) -> At<'w, I, [u8; N]> {
    I::Places::part(block, from)
}

/// What formats need of an instruction set. Every method must be `#[inline(always)]`, as an [`Isa`](super::Isa)'s; fields and
/// forms are constants there.
///
/// Rows are four, the lanes of a vector of words, or twice as many where registers are as wide: rows r and r + 4 then share
/// a vector of int8, and the types named for four have eight.
pub(crate) trait UnitIsa: Copy {
    /// An `f32` of each row.
    type F32x4: Copy;
    /// 32 int8 of a row, or of both that share a vector.
    type I8x32: Copy;
    /// A 32-bit word of each row.
    type U32x4: Copy;
    /// The numbers of all rows, as an array.
    type Stored: AsRef<[f32]>;
    /// Where the next blocks of the rows are.
    type Places: Places;
    /// Whether the units of a block are unrolled, so that shifts are constants; else they are a loop.
    const UNROLL_UNITS: bool = true;
    /// What [`bits`](UnitIsa::bits) has for a bit that is set: 1 or −1.
    const SET: i8 = 1;

    fn splat4(self, x: f32) -> Self::F32x4;
    /// Little-endian binary16 from as many places as there are rows: the scales of their blocks.
    fn gather4_f16(self, x: [At<'_, Self, [u8; 2]>; ROWS]) -> Self::F32x4;
    /// The numbers in the order of rows.
    fn stored(self, x: Self::F32x4) -> Self::Stored;
    fn mul4(self, a: Self::F32x4, b: Self::F32x4) -> Self::F32x4;
    /// `a·b + c`, rounded once.
    fn fma4(self, a: Self::F32x4, b: Self::F32x4, c: Self::F32x4) -> Self::F32x4;

    /// 32 activations, for each row of a vector.
    fn load_i8(self, x: &[i8; 32]) -> Self::I8x32;
    fn load_u8(self, x: At<'_, Self, [u8; 32]>) -> Self::I8x32;
    /// 16 bytes, twice.
    fn load_twice(self, x: At<'_, Self, [u8; 16]>) -> Self::I8x32;
    /// 16 bytes, then the four behind them, four times.
    fn load_and_repeat(self, x: At<'_, Self, [u8; 20]>) -> Self::I8x32;
    /// Low nibbles of the 16 bytes, then their high nibbles.
    fn load_nibbles(self, x: At<'_, Self, [u8; 16]>) -> Self::I8x32;
    /// The exact dot product of each of four blocks of int8 weights with one block of activations within ±127, whose
    /// sum times −8 is `bias`: some CPUs want unsigned weights, and correct the result by it.
    fn dot4_i8(self, w: &[Self::I8x32; ROWS], x: Self::I8x32, bias: i32) -> Self::F32x4;
    /// The dot products for weights within 0..=15, which some CPUs multiply faster, plus `bias`.
    fn dot4_nibbles(self, w: &[Self::I8x32; ROWS], x: Self::I8x32, bias: i32) -> Self::F32x4;
    /// int8 quants and their binary16 scale, which comes first, of four blocks.
    #[inline(always)]
    fn scaled_i8(self, step: BlockQuad<'_, '_, [u8; 34], Self::Places>) -> ([Self::I8x32; ROWS], Self::F32x4) {
        let blocks = step.blocks();
        let d = self.gather4_f16(unroll_array!(r in 0..4 => at::<Self, _, _>(blocks[r], 0)));
        (unroll_array!(r in 0..4 => self.load_u8(at::<Self, _, _>(blocks[r], 2))), d)
    }
    /// Nibbles and their binary16 scale, which comes first, of four blocks.
    #[inline(always)]
    fn scaled_nibbles(self, step: BlockQuad<'_, '_, [u8; 18], Self::Places>) -> ([Self::I8x32; ROWS], Self::F32x4) {
        let blocks = step.blocks();
        let d = self.gather4_f16(unroll_array!(r in 0..4 => at::<Self, _, _>(blocks[r], 0)));
        (unroll_array!(r in 0..4 => self.load_nibbles(at::<Self, _, _>(blocks[r], 2))), d)
    }
    /// Nibbles, and their binary16 scale and minimum, which come first, of four blocks.
    #[inline(always)]
    fn scaled_nibbles_min(
        self,
        step: BlockQuad<'_, '_, [u8; 20], Self::Places>,
    ) -> ([Self::I8x32; ROWS], Self::F32x4, Self::F32x4) {
        let blocks = step.blocks();
        let d = self.gather4_f16(unroll_array!(r in 0..4 => at::<Self, _, _>(blocks[r], 0)));
        let m = self.gather4_f16(unroll_array!(r in 0..4 => at::<Self, _, _>(blocks[r], 2)));
        (unroll_array!(r in 0..4 => self.load_nibbles(at::<Self, _, _>(blocks[r], 4))), d, m)
    }

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
    /// The same for [`dot4_levels`](UnitIsa::dot4_levels).
    #[inline(always)]
    fn lookup_i8(self, levels: &[i8; 16], x: Self::I8x32) -> (Self::I8x32, Form) {
        (self.lookup(levels, x), Form::PLAIN)
    }
    /// [`dot4_i8`](UnitIsa::dot4_i8) of int8 weights, or of such levels.
    #[inline(always)]
    fn dot4_levels(self, w: &[Self::I8x32; ROWS], _: Form, x: Self::I8x32, bias: i32) -> Self::F32x4 {
        self.dot4_i8(w, x, bias)
    }
    /// The quants `level + 12` of indices within 0..=15, for levels within ±12.
    fn lookup_fp4(self, levels: &[i8; 16], x: Self::I8x32) -> (Self::I8x32, Form);
    /// [`SET`](UnitIsa::SET) or 0 for bits `32·u..`, the least significant of the first byte first.
    fn bits(self, x: At<'_, Self, [u8; 16]>, u: usize) -> Self::I8x32;
    /// Fields of two bits, the least significant of the first byte first, and the binary16 scale before them, of four blocks.
    fn crumbs(self, step: BlockQuad<'_, '_, [u8; 18], Self::Places>) -> ([[Self::I8x32; ROWS]; 2], Form, Self::F32x4);
    /// `nibble + 16·bit`, and the binary16 scale, of four blocks: the scale, 32 bits, nibbles.
    fn fives(self, step: BlockQuad<'_, '_, [u8; 22], Self::Places>) -> ([Self::I8x32; ROWS], Form, Self::F32x4);
    /// The same with a minimum behind the scale.
    fn fives_min(
        self,
        step: BlockQuad<'_, '_, [u8; 24], Self::Places>,
    ) -> ([Self::I8x32; ROWS], Form, [Self::F32x4; 2]);
    /// A byte as a word, and the nibbles behind it, of four blocks.
    fn byte_and_nibbles(self, step: BlockQuad<'_, '_, [u8; 17], Self::Places>) -> (Self::U32x4, [Self::I8x32; ROWS]);

    /// Four bytes as a word, and the nibbles behind them, of four blocks: sixteen columns are the low nibbles of eight bytes, then
    /// their high ones. The nibbles are in the order that is told.
    fn word_and_nibbles(
        self,
        step: BlockQuad<'_, '_, [u8; 36], Self::Places>,
    ) -> (Self::U32x4, [[Self::I8x32; ROWS]; 2], Order);
    /// The first digit of base 3 behind the point of each byte as a fraction, times a power of 3, less what is whole:
    /// (`x·power` mod 256)·3 / 256.
    fn trits(self, x: Self::I8x32, powers: &[u8; 32]) -> (Self::I8x32, Form);

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
    /// The blocks, which the compiler takes to depend on `acc`: their bytes are then not loaded while those before still
    /// need the registers.
    #[inline(always)]
    fn blocks_after<'w, B: Block>(self, blocks: [At<'w, Self, B>; ROWS], _acc: Self::F32x4) -> [At<'w, Self, B>; ROWS] {
        blocks
    }

    fn splat_words(self, x: u32) -> Self::U32x4;
    /// Four little-endian words of each row: the first of all, the second …
    fn quads(self, x: [At<'_, Self, [u8; 16]>; ROWS]) -> [Self::U32x4; 4];
    fn and_words(self, x: Self::U32x4, mask: u32) -> Self::U32x4;
    fn or_words(self, a: Self::U32x4, b: Self::U32x4) -> Self::U32x4;
    fn xor_words(self, x: Self::U32x4, mask: u32) -> Self::U32x4;
    /// Zeros in place of bytes that are `byte`.
    fn clear_bytes(self, x: Self::U32x4, byte: u8) -> Self::U32x4;
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
