//! Q1_0, Q2_0, TQ1_0 and TQ2_0: one scale for many weights of two or three values.

use super::{Format, Quants, Unit};
use crate::arch::isa::{At, Field, Form, UnitIsa, at};
use crate::arch::types::{BlockQuad, ROWS};
use crate::arch::unroll::unroll_array;
use crate::quant::types::{Q1_0, Q2_0, Tq1_0, Tq2_0};

/// A block of four rows: its bytes, and its scales.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Head<'w, I: UnitIsa, const B: usize> {
    blocks: [At<'w, I, [u8; B]>; ROWS],
    d: I::F32x4,
}

impl<'w, I: UnitIsa, const B: usize> Head<'w, I, B> {
    /// With the binary16 at byte `d` for the scale.
    #[inline(always)]
    fn new(isa: I, blocks: BlockQuad<'_, 'w, [u8; B], I::Places>, d: usize) -> Self {
        let blocks = blocks.blocks();
        Head { d: isa.gather4_f16(unroll_array!(r in 0..4 => at::<I, _, _>(blocks[r], d))), blocks }
    }
}

/// A weight is 2·d·q − d, for a quant of 0 or 1.
impl Format for Q1_0 {
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;
    type Head<'w, I: UnitIsa> = Head<'w, I, 18>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 18], I::Places>) -> Head<'w, I, 18> {
        Head::new(isa, blocks, 0)
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(isa: I, head: &Head<'_, I, 18>, u: usize) -> Unit<I> {
        let q = unroll_array!(r in 0..4 => isa.bits(at::<I, _, _>(head.blocks[r], 2), u));
        let d = isa.mul4(head.d, isa.splat4(2.0 * f32::from(I::SET)));
        Unit::new(isa, q, Form::PLAIN, d, isa.mul4(head.d, isa.splat4(-1.0)))
    }
    #[inline(always)]
    fn after<I: UnitIsa>(isa: I, head: &mut Head<'_, I, 18>, acc: I::F32x4) {
        head.blocks = isa.blocks_after(head.blocks, acc);
    }
}

/// A weight is d·q − d.
impl Format for Q2_0 {
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;
    type Head<'w, I: UnitIsa> = [Unit<I>; 2];

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 18], I::Places>) -> [Unit<I>; 2] {
        let (q, form, d) = isa.crumbs(blocks);
        let m = isa.mul4(d, isa.splat4(-1.0));
        [Unit::new(isa, q[0], form, d, m), Unit::new(isa, q[1], form, d, m)]
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(_: I, head: &[Unit<I>; 2], u: usize) -> Unit<I> {
        head[u & 1]
    }
}

/// A weight is d·q − d.
impl Format for Tq2_0 {
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;
    type Head<'w, I: UnitIsa> = Head<'w, I, 66>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 66], I::Places>) -> Head<'w, I, 66> {
        Head::new(isa, blocks, 64)
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(isa: I, head: &Head<'_, I, 66>, u: usize) -> Unit<I> {
        let q = unroll_array!(r in 0..4 => {
            isa.field_in_place(isa.load_u8(at::<I, _, _>(head.blocks[r], 32 * (u / 4))), Field { at: 2 * (u % 4), bits: 2 })
        });
        let m = isa.mul4(head.d, isa.splat4(-1.0));
        Unit::new(isa, unroll_array!(r in 0..4 => q[r].0), q[0].1, head.d, m)
    }
    #[inline(always)]
    fn after<I: UnitIsa>(isa: I, head: &mut Head<'_, I, 66>, acc: I::F32x4) {
        head.blocks = isa.blocks_after(head.blocks, acc);
    }
}

impl Format for Tq1_0 {
    const QUANTS: Quants = Quants::Nibbles;
    const OFFSET: i32 = 1;
    type Head<'w, I: UnitIsa> = Head<'w, I, 54>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 54], I::Places>) -> Head<'w, I, 54> {
        Head::new(isa, blocks, 52)
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(isa: I, head: &Head<'_, I, 54>, u: usize) -> Unit<I> {
        let q = unroll_array!(r in 0..4 => {
            let x = match u {
                0..5 => isa.load_u8(at::<I, _, _>(head.blocks[r], 0)),
                5 | 6 => isa.load_twice(at::<I, _, _>(head.blocks[r], 32)),
                _ => isa.load_and_repeat(at::<I, _, _>(head.blocks[r], 32)),
            };
            isa.trits(x, &POWERS[u & 7])
        });
        Unit::scaled(isa, unroll_array!(r in 0..4 => q[r].0), q[0].1, head.d)
    }
}

/// 3 to the power of each column's digit, by unit: columns 0..160 are digits of 32 bytes, the next 80 of 16, the last 16 of 4.
const POWERS: [[u8; 32]; 8] = {
    let mut powers = [[1; 32]; 8];
    let mut i = 0;
    while i < 256 {
        let digit = match i {
            0..160 => i / 32,
            160..240 => (i - 160) / 16,
            _ => (i - 240) / 4,
        };
        powers[i / 32][i % 32] = 3u8.pow(digit as u32);
        i += 1;
    }
    powers
};
