//! Q2_K to Q6_K: blocks of eight units, whose scales are decoded for all four rows together.

use super::{Format, Quants, Unit, at};
use crate::arch::isa::Int8Isa;
use crate::arch::types::{BlockQuad, ROWS};
use crate::arch::unroll::unroll_array;
use crate::quant::types::{Q2K, Q3K, Q4K, Q5K, Q6K};

/// A block of four rows: its bytes, d, −dmin or another factor, and the bytes of the scales and minima, four in a word.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Head<'w, I: Int8Isa, const B: usize> {
    blocks: [&'w [u8; B]; ROWS],
    d: I::F32x4,
    m: I::F32x4,
    scales: [I::U32x4; 4],
    minima: [I::U32x4; 4],
}

impl<I: Int8Isa, const B: usize> Head<'_, I, B> {
    /// 32 bytes from `at` on, of each row.
    #[inline(always)]
    fn bytes(&self, isa: I, from: usize) -> [I::I8x32; ROWS] {
        unroll_array!(r in 0..4 => isa.load_u8(at(self.blocks[r], from)))
    }
    /// d·S for scale `k`, unsigned.
    #[inline(always)]
    fn scale(&self, isa: I, k: usize) -> I::F32x4 {
        isa.mul4(isa.byte_u8(self.scales[k / 4], k % 4), self.d)
    }
    /// −dmin·M for minimum `k`.
    #[inline(always)]
    fn minimum(&self, isa: I, k: usize) -> I::F32x4 {
        isa.mul4(isa.byte_u8(self.minima[k / 4], k % 4), self.m)
    }
}

/// The word at `from` of each row.
#[inline(always)]
fn words<I: Int8Isa, const B: usize>(isa: I, blocks: &[&[u8; B]; ROWS], from: usize) -> I::U32x4 {
    isa.words(unroll_array!(r in 0..4 => at(blocks[r], from)))
}

/// The binary16 at `from` of each row, times `factor`.
#[inline(always)]
fn scale<I: Int8Isa, const B: usize>(isa: I, blocks: &[&[u8; B]; ROWS], from: usize, factor: f32) -> I::F32x4 {
    let d = isa.gather4_f16(unroll_array!(r in 0..4 => at(blocks[r], from)));
    if factor == 1.0 { d } else { isa.mul4(d, isa.splat4(factor)) }
}

/// Eight scales and eight minima of 6 bits in 12 bytes, which begin at byte 4: of Q4_K and Q5_K. The first four of each are
/// the low bits of bytes, the others four bits of the last four bytes, and two high bits of the first eight.
#[inline(always)]
fn head_of_six_bits<'w, I: Int8Isa, const B: usize>(isa: I, blocks: BlockQuad<'_, 'w, [u8; B]>) -> Head<'w, I, B> {
    let blocks = blocks.blocks();
    let [s, m, low] = [words(isa, &blocks, 4), words(isa, &blocks, 8), words(isa, &blocks, 12)];
    let (s03, m03) = (isa.and_words(s, 0x3f3f_3f3f), isa.and_words(m, 0x3f3f_3f3f));
    let (s_high, m_high) = (isa.shr_words(s, 2), isa.shr_words(m, 2));
    let s47 = isa.or_words(isa.and_words(low, 0x0f0f_0f0f), isa.and_words(s_high, 0x3030_3030));
    let m_low = isa.and_words(isa.shr_words(low, 4), 0x0f0f_0f0f);
    let m47 = isa.or_words(m_low, isa.and_words(m_high, 0x3030_3030));
    Head {
        d: scale(isa, &blocks, 0, 1.0),
        m: scale(isa, &blocks, 2, -1.0),
        scales: [s03, s47, s47, s47],
        minima: [m03, m47, m47, m47],
        blocks,
    }
}

impl Format for Q4K {
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;
    type Head<'w, I: Int8Isa> = Head<'w, I, 144>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 144]>) -> Head<'w, I, 144> {
        head_of_six_bits(isa, blocks)
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(isa: I, head: &Head<'_, I, 144>, u: usize) -> Unit<I> {
        let bytes = head.bytes(isa, 16 + 32 * (u / 2));
        let q = unroll_array!(r in 0..4 => isa.field(bytes[r], 4 * (u % 2), 4));
        Unit { q, d: [head.scale(isa, u); 2], m: [head.minimum(isa, u); 2] }
    }
}

impl Format for Q5K {
    const QUANTS: Quants = Quants::Five;
    const MINIMUM: bool = true;
    type Head<'w, I: Int8Isa> = Head<'w, I, 176>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 176]>) -> Head<'w, I, 176> {
        head_of_six_bits(isa, blocks)
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(isa: I, head: &Head<'_, I, 176>, u: usize) -> Unit<I> {
        let (low, high) = (head.bytes(isa, 48 + 32 * (u / 2)), head.bytes(isa, 16));
        let q = unroll_array!(r in 0..4 => {
            isa.insert(isa.field(low[r], 4 * (u % 2), 4), isa.field(high[r], u, 1), 4)
        });
        Unit { q, d: [head.scale(isa, u); 2], m: [head.minimum(isa, u); 2] }
    }
}

impl Format for Q6K {
    const QUANTS: Quants = Quants::Halves;
    type Head<'w, I: Int8Isa> = Head<'w, I, 210>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 210]>) -> Head<'w, I, 210> {
        let blocks = blocks.blocks();
        let d = scale(isa, &blocks, 208, 1.0);
        let scales = unroll_array!(k in 0..4 => words(isa, &blocks, 192 + 4 * k));
        Head { blocks, d, m: d, scales, minima: scales }
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(isa: I, head: &Head<'_, I, 210>, u: usize) -> Unit<I> {
        let (half, group) = (u / 4, u % 4);
        let low = head.bytes(isa, 64 * half + 32 * (group % 2));
        let high = head.bytes(isa, 128 + 32 * half);
        let q = unroll_array!(r in 0..4 => {
            let q = isa.insert(isa.field(low[r], 4 * (group / 2), 4), isa.field(high[r], 2 * group, 2), 4);
            isa.sub(q, 32)
        });
        let word = head.scales[u / 2];
        let d = unroll_array!(h in 0..2 => isa.mul4(isa.byte_i8(word, 2 * (u % 2) + h), head.d));
        Unit { q, d, m: d }
    }
}

impl Format for Q3K {
    const QUANTS: Quants = Quants::Halves;
    type Head<'w, I: Int8Isa> = Head<'w, I, 110>;

    /// Sixteen scales of 6 bits: four bits of each in the first eight bytes, two in the other four.
    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 110]>) -> Head<'w, I, 110> {
        let blocks = blocks.blocks();
        let low = unroll_array!(k in 0..2 => words(isa, &blocks, 96 + 4 * k));
        let high = words(isa, &blocks, 104);
        let scales = unroll_array!(k in 0..4 => {
            let low = isa.and_words(isa.shr_words(low[k % 2], 4 * (k / 2)), 0x0f0f_0f0f);
            let high = isa.and_words(isa.shr_words(high, 2 * k), 0x0303_0303);
            isa.or_words(low, isa.shl_words(high, 4))
        });
        Head { d: scale(isa, &blocks, 108, 1.0), m: scale(isa, &blocks, 108, -32.0), scales, minima: scales, blocks }
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(isa: I, head: &Head<'_, I, 110>, u: usize) -> Unit<I> {
        let (low, high) = (head.bytes(isa, 32 + 32 * (u / 4)), head.bytes(isa, 0));
        let q = unroll_array!(r in 0..4 => {
            isa.sub(isa.insert(isa.field(low[r], 2 * (u % 4), 2), isa.field(high[r], u, 1), 2), 4)
        });
        let word = head.scales[u / 2];
        // d·(S − 32), exact.
        let d = unroll_array!(h in 0..2 => isa.fma4(isa.byte_u8(word, 2 * (u % 2) + h), head.d, head.m));
        Unit { q, d, m: d }
    }
}

impl Format for Q2K {
    const QUANTS: Quants = Quants::Halves;
    const MINIMUM: bool = true;
    type Head<'w, I: Int8Isa> = Head<'w, I, 84>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 84]>) -> Head<'w, I, 84> {
        let blocks = blocks.blocks();
        let both = unroll_array!(k in 0..4 => words(isa, &blocks, 4 * k));
        Head {
            d: scale(isa, &blocks, 80, 1.0),
            m: scale(isa, &blocks, 82, -1.0),
            scales: unroll_array!(k in 0..4 => isa.and_words(both[k], 0x0f0f_0f0f)),
            minima: unroll_array!(k in 0..4 => isa.and_words(isa.shr_words(both[k], 4), 0x0f0f_0f0f)),
            blocks,
        }
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(isa: I, head: &Head<'_, I, 84>, u: usize) -> Unit<I> {
        let bytes = head.bytes(isa, 16 + 32 * (u / 4));
        let q = unroll_array!(r in 0..4 => isa.field(bytes[r], 2 * (u % 4), 2));
        let d = unroll_array!(h in 0..2 => head.scale(isa, 2 * u + h));
        Unit { q, d, m: unroll_array!(h in 0..2 => head.minimum(isa, 2 * u + h)) }
    }
}
