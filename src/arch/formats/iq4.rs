//! IQ4_NL and IQ4_XS: nibbles that index a table of levels.

use super::{Format, Quants, Unit, at};
use crate::arch::isa::Int8Isa;
use crate::arch::types::{BlockQuad, ROWS};
use crate::arch::unroll::unroll_array;
use crate::quant::tables::IQ4_LEVELS;
use crate::quant::types::{Iq4Nl, Iq4Xs};

impl Format for Iq4Nl {
    const QUANTS: Quants = Quants::Int8;
    type Head<'w, I: Int8Isa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 18]>) -> Unit<I> {
        let (q, d) = isa.scaled_nibbles(blocks);
        Unit::scaled(unroll_array!(r in 0..4 => isa.lookup(&IQ4_LEVELS, q[r])), d)
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

/// A block of four rows of IQ4_XS.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Head<'w, I: Int8Isa> {
    blocks: [&'w [u8; 136]; ROWS],
    d: I::F32x4,
    /// −32·d
    offset: I::F32x4,
    /// The low four bits of scale `j` at bit 4·j.
    low: I::U32x4,
    /// Its two high bits at bit 16 + 2·j.
    high: I::U32x4,
}

impl Format for Iq4Xs {
    const QUANTS: Quants = Quants::Int8;
    type Head<'w, I: Int8Isa> = Head<'w, I>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 136]>) -> Head<'w, I> {
        let blocks = blocks.blocks();
        let d = isa.gather4_f16(unroll_array!(r in 0..4 => at(blocks[r], 0)));
        Head {
            d,
            offset: isa.mul4(d, isa.splat4(-32.0)),
            low: isa.words(unroll_array!(r in 0..4 => at(blocks[r], 4))),
            high: isa.words(unroll_array!(r in 0..4 => at(blocks[r], 0))),
            blocks,
        }
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(isa: I, head: &Head<'_, I>, u: usize) -> Unit<I> {
        let q = unroll_array!(r in 0..4 => isa.lookup(&IQ4_LEVELS, isa.load_nibbles(at(head.blocks[r], 8 + 16 * u))));
        let low = isa.and_words(isa.shr_words(head.low, 4 * u), 15);
        let high = isa.and_words(isa.shr_words(head.high, 12 + 2 * u), 0x30);
        // d·(S − 32), exact.
        Unit::scaled(q, isa.fma4(isa.byte_u8(isa.or_words(low, high), 0), head.d, head.offset))
    }
}
