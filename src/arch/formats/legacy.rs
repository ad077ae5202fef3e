//! Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1: a block is one unit.

use super::{Format, Quants, Unit, at};
use crate::arch::isa::Int8Isa;
use crate::arch::types::BlockQuad;
use crate::arch::unroll::unroll_array;
use crate::quant::types::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

impl Format for Q8_0 {
    const QUANTS: Quants = Quants::Int8;
    type Head<'w, I: Int8Isa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 34]>) -> Unit<I> {
        let (q, d) = isa.scaled_i8(blocks);
        Unit::scaled(q, d)
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

impl Format for Q4_0 {
    const QUANTS: Quants = Quants::Nibbles;
    const OFFSET: i32 = 8;
    type Head<'w, I: Int8Isa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 18]>) -> Unit<I> {
        let (q, d) = isa.scaled_nibbles(blocks);
        Unit::scaled(q, d)
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

impl Format for Q4_1 {
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;
    type Head<'w, I: Int8Isa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 20]>) -> Unit<I> {
        let (q, d, m) = isa.scaled_nibbles_min(blocks);
        Unit { q, d: [d; 2], m: [m; 2] }
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

impl Format for Q5_0 {
    const QUANTS: Quants = Quants::Five;
    const OFFSET: i32 = 16;
    type Head<'w, I: Int8Isa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 22]>) -> Unit<I> {
        let b = blocks.blocks();
        let q = unroll_array!(r in 0..4 => isa.or(isa.load_nibbles(at(b[r], 6)), isa.bits(at(b[r], 2), 16)));
        Unit::scaled(q, isa.gather4_f16(unroll_array!(r in 0..4 => at(b[r], 0))))
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

impl Format for Q5_1 {
    const QUANTS: Quants = Quants::Five;
    const MINIMUM: bool = true;
    type Head<'w, I: Int8Isa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: Int8Isa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 24]>) -> Unit<I> {
        let b = blocks.blocks();
        let q = unroll_array!(r in 0..4 => isa.or(isa.load_nibbles(at(b[r], 8)), isa.bits(at(b[r], 4), 16)));
        let d = isa.gather4_f16(unroll_array!(r in 0..4 => at(b[r], 0)));
        let m = isa.gather4_f16(unroll_array!(r in 0..4 => at(b[r], 2)));
        Unit { q, d: [d; 2], m: [m; 2] }
    }
    #[inline(always)]
    fn unit<I: Int8Isa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}
