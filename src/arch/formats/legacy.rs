//! Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1: a block is one unit.

use super::{Format, Quants, Unit};
use crate::arch::isa::{Form, UnitIsa};
use crate::arch::types::BlockQuad;
use crate::quant::types::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

impl Format for Q8_0 {
    const QUANTS: Quants = Quants::Int8;
    type Head<'w, I: UnitIsa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 34], I::Places>) -> Unit<I> {
        let (q, d) = isa.scaled_i8(blocks);
        Unit::scaled(isa, q, Form::PLAIN, d)
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

impl Format for Q4_0 {
    const QUANTS: Quants = Quants::Nibbles;
    const OFFSET: i32 = 8;
    type Head<'w, I: UnitIsa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 18], I::Places>) -> Unit<I> {
        let (q, d) = isa.scaled_nibbles(blocks);
        Unit::scaled(isa, q, Form::PLAIN, d)
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

impl Format for Q4_1 {
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;
    type Head<'w, I: UnitIsa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 20], I::Places>) -> Unit<I> {
        let (q, d, m) = isa.scaled_nibbles_min(blocks);
        Unit::new(isa, q, Form::PLAIN, d, m)
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

impl Format for Q5_0 {
    const QUANTS: Quants = Quants::Five;
    const OFFSET: i32 = 16;
    type Head<'w, I: UnitIsa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 22], I::Places>) -> Unit<I> {
        let (q, form, d) = isa.fives(blocks);
        Unit::scaled(isa, q, form, d)
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

/// `d·q + m` is `d·(q − 16) + (m + 16·d)`, of smaller products.
impl Format for Q5_1 {
    const QUANTS: Quants = Quants::Five;
    const OFFSET: i32 = 16;
    const MINIMUM: bool = true;
    type Head<'w, I: UnitIsa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 24], I::Places>) -> Unit<I> {
        let (q, form, [d, m]) = isa.fives_min(blocks);
        Unit::new(isa, q, form, d, isa.fma4(d, isa.splat4(16.0), m))
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}
