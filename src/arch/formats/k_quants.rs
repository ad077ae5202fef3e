//! Q2_K to Q6_K: blocks of eight units, whose scales are decoded for all four rows together.

use super::{Format, Quants, Unit};
use crate::arch::isa::{At, Field, Form, UnitIsa, at};
use crate::arch::types::{BlockQuad, ROWS};
use crate::arch::unroll::unroll_array;
use crate::quant::types::{Q2K, Q3K, Q4K, Q5K, Q6K};

/// A block of four rows: its bytes, d and −dmin, and the bytes of the scales and minima, four in a word.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Head<'w, I: UnitIsa, const B: usize> {
    blocks: [At<'w, I, [u8; B]>; ROWS],
    d: [I::F32x4; 2],
    scales: [I::U32x4; 4],
    minima: [I::U32x4; 4],
}

impl<I: UnitIsa, const B: usize> Head<'_, I, B> {
    /// 32 bytes from `at` on, of each row.
    #[inline(always)]
    fn bytes(&self, isa: I, from: usize) -> [I::I8x32; ROWS] {
        unroll_array!(r in 0..4 => isa.load_u8(at::<I, _, _>(self.blocks[r], from)))
    }
    /// The scale and the minimum of unit `u`: d·S, exact, and −dmin·M.
    #[inline(always)]
    fn scaled(&self, isa: I, u: usize) -> [I::F32x4; 2] {
        let [s, m] = [isa.byte_u8(self.scales[u / 4], u % 4), isa.byte_u8(self.minima[u / 4], u % 4)];
        [isa.mul4(isa.to_f32(s), self.d[0]), isa.mul4(isa.to_f32(m), self.d[1])]
    }
}

/// 16 bytes of each row, from `from` on, as words.
#[inline(always)]
fn quads<I: UnitIsa, const B: usize>(isa: I, blocks: &[At<'_, I, [u8; B]>; ROWS], from: usize) -> [I::U32x4; 4] {
    isa.quads(unroll_array!(r in 0..4 => at::<I, _, _>(blocks[r], from)))
}

/// The binary16 at `from` of each row, twice.
#[inline(always)]
fn scale<I: UnitIsa, const B: usize>(isa: I, blocks: &[At<'_, I, [u8; B]>; ROWS], from: usize) -> [I::F32x4; 2] {
    [isa.gather4_f16(unroll_array!(r in 0..4 => at::<I, _, _>(blocks[r], from))); 2]
}

/// d and −dmin, from the word with d and dmin.
#[inline(always)]
fn scale_and_minimum<I: UnitIsa>(isa: I, word: I::U32x4) -> [I::F32x4; 2] {
    let [d, m] = isa.halves_f16(word);
    [d, isa.mul4(m, isa.splat4(-1.0))]
}

/// d, dmin, then eight scales and eight minima of 6 bits in 12 bytes: of Q4_K and Q5_K. The first four of each are the low
/// bits of bytes, the others four bits of the last four bytes, and two high bits of the first eight.
#[inline(always)]
fn head_of_six_bits<'w, I: UnitIsa, const B: usize>(
    isa: I,
    blocks: BlockQuad<'_, 'w, [u8; B], I::Places>,
) -> Head<'w, I, B> {
    let blocks = blocks.blocks();
    let [d, s, m, low] = quads(isa, &blocks, 0);
    let (s03, m03) = (isa.and_words(s, 0x3f3f_3f3f), isa.and_words(m, 0x3f3f_3f3f));
    let (s_high, m_high) = (isa.shr_words(s, 2), isa.shr_words(m, 2));
    let s47 = isa.or_words(isa.and_words(low, 0x0f0f_0f0f), isa.and_words(s_high, 0x3030_3030));
    let m_low = isa.and_words(isa.shr_words(low, 4), 0x0f0f_0f0f);
    let m47 = isa.or_words(m_low, isa.and_words(m_high, 0x3030_3030));
    Head { d: scale_and_minimum(isa, d), scales: [s03, s47, s47, s47], minima: [m03, m47, m47, m47], blocks }
}

impl Format for Q4K {
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;
    type Head<'w, I: UnitIsa> = Head<'w, I, 144>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 144], I::Places>) -> Head<'w, I, 144> {
        head_of_six_bits(isa, blocks)
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(isa: I, head: &Head<'_, I, 144>, u: usize) -> Unit<I> {
        let bytes = head.bytes(isa, 16 + 32 * (u / 2));
        let q = unroll_array!(r in 0..4 => isa.field(bytes[r], Field { at: 4 * (u % 2), bits: 4 }));
        let [d, m] = head.scaled(isa, u);
        Unit::new(isa, q, Form::PLAIN, d, m)
    }
    #[inline(always)]
    fn after<I: UnitIsa>(isa: I, head: &mut Head<'_, I, 144>, acc: I::F32x4) {
        head.blocks = isa.blocks_after(head.blocks, acc);
    }
}

impl Format for Q5K {
    const QUANTS: Quants = Quants::Five;
    const MINIMUM: bool = true;
    type Head<'w, I: UnitIsa> = Head<'w, I, 176>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 176], I::Places>) -> Head<'w, I, 176> {
        head_of_six_bits(isa, blocks)
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(isa: I, head: &Head<'_, I, 176>, u: usize) -> Unit<I> {
        let (low, high) = (head.bytes(isa, 48 + 32 * (u / 2)), head.bytes(isa, 16));
        let q = unroll_array!(r in 0..4 => {
            isa.join(low[r], Field { at: 4 * (u % 2), bits: 4 }, high[r], Field { at: u, bits: 1 })
        });
        let [d, m] = head.scaled(isa, u);
        Unit::new(isa, q, Form::PLAIN, d, m)
    }
    #[inline(always)]
    fn after<I: UnitIsa>(isa: I, head: &mut Head<'_, I, 176>, acc: I::F32x4) {
        head.blocks = isa.blocks_after(head.blocks, acc);
    }
}

impl Format for Q6K {
    const QUANTS: Quants = Quants::Halves;
    const OFFSET: i32 = 32;
    type Head<'w, I: UnitIsa> = Head<'w, I, 210>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 210], I::Places>) -> Head<'w, I, 210> {
        let blocks = blocks.blocks();
        let scales = quads(isa, &blocks, 192);
        Head { d: scale(isa, &blocks, 208), scales, minima: scales, blocks }
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(isa: I, head: &Head<'_, I, 210>, u: usize) -> Unit<I> {
        let (half, group) = (u / 4, u % 4);
        let low = head.bytes(isa, 64 * half + 32 * (group % 2));
        let high = head.bytes(isa, 128 + 32 * half);
        let q = unroll_array!(r in 0..4 => {
            isa.join(low[r], Field { at: 4 * (group / 2), bits: 4 }, high[r], Field { at: 2 * group, bits: 2 })
        });
        let s = unroll_array!(h in 0..2 => isa.byte_i8(head.scales[u / 2], 2 * (u % 2) + h));
        Unit { q, form: Form::PLAIN, d: head.d, s: [s; 2] }
    }
    #[inline(always)]
    fn after<I: UnitIsa>(isa: I, head: &mut Head<'_, I, 210>, acc: I::F32x4) {
        head.blocks = isa.blocks_after(head.blocks, acc);
    }
}

impl Format for Q3K {
    const QUANTS: Quants = Quants::Halves;
    const OFFSET: i32 = 4;
    type Head<'w, I: UnitIsa> = Head<'w, I, 110>;

    /// Sixteen scales of 6 bits: four bits of each in the first eight bytes, two in the other four.
    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 110], I::Places>) -> Head<'w, I, 110> {
        let blocks = blocks.blocks();
        let [_, first, second, high] = quads(isa, &blocks, 92);
        let scales = unroll_array!(k in 0..4 => {
            let low = [first, second][k % 2];
            let low = isa.and_words(isa.shr_words(low, 4 * (k / 2)), 0x0f0f_0f0f);
            let high = isa.and_words(isa.shr_words(high, 2 * k), 0x0303_0303);
            isa.or_words(low, isa.shl_words(high, 4))
        });
        Head { d: scale(isa, &blocks, 108), scales, minima: scales, blocks }
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(isa: I, head: &Head<'_, I, 110>, u: usize) -> Unit<I> {
        let (low, high) = (head.bytes(isa, 32 + 32 * (u / 4)), head.bytes(isa, 0));
        let q = unroll_array!(r in 0..4 => {
            isa.join(low[r], Field { at: 2 * (u % 4), bits: 2 }, high[r], Field { at: u, bits: 1 })
        });
        let s = unroll_array!(h in 0..2 => {
            isa.sub_words(isa.byte_u8(head.scales[u / 2], 2 * (u % 2) + h), 32)
        });
        Unit { q, form: Form::PLAIN, d: head.d, s: [s; 2] }
    }
    #[inline(always)]
    fn after<I: UnitIsa>(isa: I, head: &mut Head<'_, I, 110>, acc: I::F32x4) {
        head.blocks = isa.blocks_after(head.blocks, acc);
    }
}

impl Format for Q2K {
    const QUANTS: Quants = Quants::Halves;
    const MINIMUM: bool = true;
    type Head<'w, I: UnitIsa> = Head<'w, I, 84>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 84], I::Places>) -> Head<'w, I, 84> {
        let blocks = blocks.blocks();
        let both = quads(isa, &blocks, 0);
        Head {
            d: scale_and_minimum(isa, quads(isa, &blocks, 68)[3]),
            scales: unroll_array!(k in 0..4 => isa.and_words(both[k], 0x0f0f_0f0f)),
            minima: unroll_array!(k in 0..4 => isa.and_words(isa.shr_words(both[k], 4), 0x0f0f_0f0f)),
            blocks,
        }
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(isa: I, head: &Head<'_, I, 84>, u: usize) -> Unit<I> {
        let bytes = head.bytes(isa, 16 + 32 * (u / 4));
        let q = unroll_array!(r in 0..4 => isa.field_in_place(bytes[r], Field { at: 2 * (u % 4), bits: 2 }));
        let s = unroll_array!(h in 0..2 => isa.byte_u8(head.scales[u / 2], 2 * (u % 2) + h));
        let m = unroll_array!(h in 0..2 => isa.byte_u8(head.minima[u / 2], 2 * (u % 2) + h));
        Unit { q: unroll_array!(r in 0..4 => q[r].0), form: q[0].1, d: head.d, s: [s, m] }
    }
    #[inline(always)]
    fn after<I: UnitIsa>(isa: I, head: &mut Head<'_, I, 84>, acc: I::F32x4) {
        head.blocks = isa.blocks_after(head.blocks, acc);
    }
}
