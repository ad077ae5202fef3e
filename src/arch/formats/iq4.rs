//! IQ4_NL and IQ4_XS: nibbles that index a table of levels.

use super::{Format, Quants, Unit};
use crate::arch::isa::{At, UnitIsa, at};
use crate::arch::types::{BlockQuad, ROWS};
use crate::arch::unroll::unroll_array;
use crate::quant::tables::IQ4_LEVELS;
use crate::quant::types::{Iq4Nl, Iq4Xs};

impl Format for Iq4Nl {
    const QUANTS: Quants = Quants::Int8;
    type Head<'w, I: UnitIsa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 18], I::Places>) -> Unit<I> {
        let (q, d) = isa.scaled_nibbles(blocks);
        let q = unroll_array!(r in 0..4 => isa.lookup_i8(&IQ4_LEVELS, q[r]));
        Unit::scaled(isa, unroll_array!(r in 0..4 => q[r].0), q[0].1, d)
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

/// A block of four rows of IQ4_XS.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Head<'w, I: UnitIsa> {
    blocks: [At<'w, I, [u8; 136]>; ROWS],
    /// d/4
    d: I::F32x4,
    /// 4·(S − 32) as int8, of even units and of odd ones.
    scales: [I::U32x4; 2],
}

impl Format for Iq4Xs {
    const QUANTS: Quants = Quants::Int8;
    const UNITS_TOGETHER: usize = 1;
    type Head<'w, I: UnitIsa> = Head<'w, I>;

    /// d, the two high bits of eight scales in 16 bits, their four low bits in four bytes.
    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 136], I::Places>) -> Head<'w, I> {
        let blocks = blocks.blocks();
        let [first, low, ..] = isa.quads(unroll_array!(r in 0..4 => at::<I, _, _>(blocks[r], 0)));
        // The high bits of two units to each byte.
        let high = isa.shr_words(first, 16);
        let high = isa.and_words(isa.or_words(high, isa.shl_words(high, 8)), 0x00ff_00ff);
        let high = isa.and_words(isa.or_words(high, isa.shl_words(high, 4)), 0x0f0f_0f0f);
        let even = isa.or_words(
            isa.shl_words(isa.and_words(low, 0x0f0f_0f0f), 2),
            isa.shl_words(isa.and_words(high, 0x0303_0303), 6),
        );
        let odd = isa.or_words(
            isa.and_words(isa.shr_words(low, 2), 0x3c3c_3c3c),
            isa.shl_words(isa.and_words(high, 0x0c0c_0c0c), 4),
        );
        Head {
            d: isa.mul4(isa.halves_f16(first)[0], isa.splat4(0.25)),
            scales: [isa.xor_words(even, 0x8080_8080), isa.xor_words(odd, 0x8080_8080)],
            blocks,
        }
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(isa: I, head: &Head<'_, I>, u: usize) -> Unit<I> {
        let q = unroll_array!(r in 0..4 => {
            isa.lookup_i8(&IQ4_LEVELS, isa.load_nibbles(at::<I, _, _>(head.blocks[r], 8 + 16 * u)))
        });
        // Exact.
        let d = isa.mul4(isa.to_f32(isa.byte_i8(head.scales[u % 2], u / 2)), head.d);
        Unit::scaled(isa, unroll_array!(r in 0..4 => q[r].0), q[0].1, d)
    }
    #[inline(always)]
    fn after<I: UnitIsa>(isa: I, head: &mut Head<'_, I>, acc: I::F32x4) {
        head.blocks = isa.blocks_after(head.blocks, acc);
    }
}
