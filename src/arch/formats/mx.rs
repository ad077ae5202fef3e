//! MXFP4 and NVFP4: numbers of four bits (E2M1), doubled to be integers.

use super::{Format, Quants, Unit};
use crate::arch::isa::{At, UnitIsa, at};
use crate::arch::types::{BlockQuad, ROWS};
use crate::arch::unroll::unroll_array;
use crate::quant::tables::{FP4_LEVELS, ue4m3};
use crate::quant::types::{Mxfp4, Nvfp4};

impl Format for Mxfp4 {
    const QUANTS: Quants = Quants::Five;
    const OFFSET: i32 = 12;
    type Head<'w, I: UnitIsa> = Unit<I>;

    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 17], I::Places>) -> Unit<I> {
        let (e, nibbles) = isa.byte_and_nibbles(blocks);
        let q = unroll_array!(r in 0..4 => isa.lookup_fp4(&FP4_LEVELS, nibbles[r]));
        // 2^(e − 128): its exponent, which is larger than the subnormal numbers of 0 and 1 from 2 on.
        let (normal, subnormal) = (isa.sub_words(e, 1), isa.sub_words(e, u32::MAX));
        let bits = isa.max_words(isa.shl_words(normal, 23), isa.shl_words(subnormal, 21));
        Unit::scaled(isa, unroll_array!(r in 0..4 => q[r].0), q[0].1, isa.f32_of_bits(bits))
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(_: I, head: &Unit<I>, _: usize) -> Unit<I> {
        *head
    }
}

impl Format for Nvfp4 {
    const QUANTS: Quants = Quants::FloatHalves;
    const OFFSET: i32 = 12;
    type Head<'w, I: UnitIsa> = [At<'w, I, [u8; 36]>; ROWS];

    #[inline(always)]
    fn head<'w, I: UnitIsa>(_: I, blocks: BlockQuad<'_, 'w, [u8; 36], I::Places>) -> [At<'w, I, [u8; 36]>; ROWS] {
        blocks.blocks()
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(isa: I, head: &[At<'_, I, [u8; 36]>; ROWS], u: usize) -> Unit<I> {
        let q = unroll_array!(r in 0..4 => {
            isa.lookup_fp4(&FP4_LEVELS, isa.load_made(at::<I, _, _>(head[r], 4 + 16 * u), 0, nibbles))
        });
        let [first, last] = unroll_array!(h in 0..2 => {
            isa.load_scales(unroll_array!(r in 0..4 => at::<I, _, _>(head[r], 0)), 2 * u + h, ue4m3)
        });
        Unit::new(isa, unroll_array!(r in 0..4 => q[r].0), q[0].1, first, last)
    }
}

/// Sixteen columns are the low nibbles of eight bytes, then their high ones.
#[inline(never)]
fn nibbles(bytes: &[u8; 16], _: usize) -> [u8; 32] {
    core::array::from_fn(|i| bytes[8 * (i / 16) + i % 8] >> (4 * (i / 8 % 2)) & 15)
}
