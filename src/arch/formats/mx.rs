//! MXFP4 and NVFP4: numbers of four bits (E2M1), doubled to be integers.

use super::{Format, Quants, Unit};
use crate::arch::isa::{Form, UnitIsa};
use crate::arch::types::BlockQuad;
use crate::arch::unroll::unroll_array;
use crate::quant::tables::FP4_LEVELS;
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
    type Head<'w, I: UnitIsa> = [Unit<I>; 2];

    /// Scales of 8 bits, E4M3: as binary16, whose exponents are 8 less, they are 2⁻⁷ of half of what they mean; 0x7f is zero.
    #[inline(always)]
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, [u8; 36], I::Places>) -> [Unit<I>; 2] {
        let (scales, nibbles, order) = isa.word_and_nibbles(blocks);
        let scales = isa.clear_bytes(scales, 0x7f);
        let even = isa.halves_f16(isa.and_words(isa.shl_words(scales, 7), 0x3f80_3f80));
        let odd = isa.halves_f16(isa.and_words(isa.shr_words(scales, 1), 0x3f80_3f80));
        unroll_array!(u in 0..2 => {
            let q = unroll_array!(r in 0..4 => isa.lookup_fp4(&FP4_LEVELS, nibbles[u][r]));
            let [first, last] = unroll_array!(h in 0..2 => isa.mul4([even, odd][h][u], isa.splat4(128.0)));
            Unit::new(isa, unroll_array!(r in 0..4 => q[r].0), Form { order, ..q[0].1 }, first, last)
        })
    }
    #[inline(always)]
    fn unit<I: UnitIsa>(_: I, head: &[Unit<I>; 2], u: usize) -> Unit<I> {
        head[u & 1]
    }
}
