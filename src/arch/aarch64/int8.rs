//! The operations of [`Int8Isa`] on NEON, generic over the token.

use core::arch::aarch64::*;
use core::arch::asm;

use super::bytes::{bytes, eights, insert_nibbles, low_halves, mask, ones, signed, trits};
use super::isa::NeonDot;
use super::post_index;
use super::registers::I8x32;
use super::tokens::{NeonToken, simd};
use crate::arch::isa::{At, Field, Form, Int8Isa, Isa, Order, UnitIsa, bias, last};
use crate::arch::types::BlockQuad;
use crate::arch::unroll::unroll_array;
use crate::quant::Block;

/// A shift by a constant number of bits, which is known after inlining.
macro_rules! shift {
    ($n:expr, $shift:ident($($x:expr),+), $zero:expr) => {
        match $n {
            0 => $zero,
            1 => $shift::<1>($($x),+),
            2 => $shift::<2>($($x),+),
            3 => $shift::<3>($($x),+),
            4 => $shift::<4>($($x),+),
            5 => $shift::<5>($($x),+),
            6 => $shift::<6>($($x),+),
            _ => $shift::<7>($($x),+),
        }
    };
}

/// As numbers, the integers being these times 2^`shift`.
#[inline(always)]
fn convert<X: NeonToken>(token: X, x: int32x4_t, shift: usize) -> float32x4_t {
    simd!(token, shift!(shift, vcvtq_n_f32_s32(x), vcvtq_f32_s32(x)))
}

impl<X: NeonDot> UnitIsa for X {
    type F32x4 = float32x4_t;
    type I8x32 = I8x32;
    type U32x4 = uint32x4_t;
    const SET: i8 = -1;
    type Stored = [f32; 4];
    type Places = [*const u8; 4];

    #[inline(always)]
    fn splat4(self, x: f32) -> float32x4_t {
        simd!(self, vdupq_n_f32(x))
    }
    #[inline(always)]
    fn gather4_f16(self, x: [At<'_, Self, [u8; 2]>; 4]) -> float32x4_t {
        simd!(self, {
            // Set lane by lane, these become `ld1` of a lane each, at any alignment.
            let [a, b, c, d] = x.map(|x| u16::from_le_bytes(*x));
            let bits = vset_lane_u16::<1>(b, vset_lane_u16::<0>(a, vdup_n_u16(0)));
            let bits = vset_lane_u16::<3>(d, vset_lane_u16::<2>(c, bits));
            vcvt_f32_f16(vreinterpret_f16_u16(bits))
        })
    }
    #[inline(always)]
    fn mul4(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        simd!(self, vmulq_f32(a, b))
    }
    #[inline(always)]
    fn fma4(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        simd!(self, vfmaq_f32(c, a, b))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; 32]) -> I8x32 {
        simd!(self, [vld1q_s8(x.as_ptr()), vld1q_s8(x.as_ptr().add(16))])
    }
    #[inline(always)]
    fn load_u8(self, x: At<'_, Self, [u8; 32]>) -> I8x32 {
        simd!(self, [vld1q_s8(x.as_ptr().cast()), vld1q_s8(x.as_ptr().add(16).cast())])
    }
    #[inline(always)]
    fn load_nibbles(self, x: At<'_, Self, [u8; 16]>) -> I8x32 {
        self.neon().split_nibbles(simd!(self, vld1q_u8(x.as_ptr())))
    }
    #[inline(always)]
    fn dot4_i8(self, w: &[I8x32; 4], x: I8x32, bias: i32) -> float32x4_t {
        self.fold_i8(Isa::add_i8(self, w, x, self.sums_i8(bias)))
    }
    #[inline(always)]
    fn dot4_nibbles(self, w: &[I8x32; 4], x: I8x32, bias: i32) -> float32x4_t {
        simd!(self, vcvtq_f32_s32(NeonDot::dot4_nibbles(self, w, x, Some(bias))))
    }
    #[inline(always)]
    fn scaled_i8(self, step: BlockQuad<'_, '_, [u8; 34]>) -> ([I8x32; 4], float32x4_t) {
        let neon = self.neon();
        // SAFETY: the token proves NEON; each of `BlockQuad::pointers` has 34 bytes, of which 2 and then 32 are taken.
        unsafe {
            let rows = step.pointers();
            let d = vcvt_f32_f16(vreinterpret_f16_u16(post_index::take_u16x4(neon, rows)));
            (rows.each_mut().map(|row| post_index::take_32(neon, row)), d)
        }
    }
    #[inline(always)]
    fn scaled_nibbles(self, step: BlockQuad<'_, '_, [u8; 18]>) -> ([I8x32; 4], float32x4_t) {
        let neon = self.neon();
        // SAFETY: the token proves NEON; each of `BlockQuad::pointers` has 18 bytes, of which 2 and then 16 are taken.
        unsafe {
            let rows = step.pointers();
            let d = vcvt_f32_f16(vreinterpret_f16_u16(post_index::take_u16x4(neon, rows)));
            (rows.each_mut().map(|row| neon.split_nibbles(post_index::take_16(neon, row))), d)
        }
    }
    #[inline(always)]
    fn scaled_nibbles_min(self, step: BlockQuad<'_, '_, [u8; 20]>) -> ([I8x32; 4], float32x4_t, float32x4_t) {
        let neon = self.neon();
        // SAFETY: the token proves NEON; each of `BlockQuad::pointers` has 20 bytes, of which 4 and then 16 are taken.
        unsafe {
            let rows = step.pointers();
            let dm = vreinterpretq_u16_u32(post_index::take_u32x4(neon, rows));
            let [d, m] =
                [vuzp1q_u16(dm, dm), vuzp2q_u16(dm, dm)].map(|x| vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(x))));
            (rows.each_mut().map(|row| neon.split_nibbles(post_index::take_16(neon, row))), d, m)
        }
    }
    /// A comparison sets all bits.
    #[inline(always)]
    fn field(self, x: I8x32, Field { at, bits }: Field) -> I8x32 {
        simd!(
            self,
            x.map(|x| {
                let x = bytes(self, x);
                let x = shift!(at, vshrq_n_u8(x), x);
                // Nothing is left to mask behind the highest bits.
                signed(self, if at + bits == 8 { x } else { vandq_u8(x, vdupq_n_u8((1 << bits) - 1)) })
            })
        )
    }
    #[inline(always)]
    fn field_in_place(self, x: I8x32, field: Field) -> (I8x32, Form) {
        let Field { at, bits } = field;
        if at + bits > 6 {
            return (self.field(x, field), Form::PLAIN);
        }
        let mask = ((1 << bits) - 1) << at;
        (simd!(self, x.map(|x| vandq_s8(x, vdupq_n_s8(mask)))), Form { shift: at, ..Form::PLAIN })
    }
    /// One insertion puts the fields side by side, with whatever else the bytes have beside them, which is masked last. Where the
    /// field of `low` is in place, inserting there costs a copy, because other units need these bytes: an addition does not, but
    /// takes two masks, for which registers are left beside fields of two bits.
    #[inline(always)]
    fn join(self, low: I8x32, l: Field, high: I8x32, h: Field) -> I8x32 {
        let (below, all) = ((1 << l.bits) - 1, (1 << (l.bits + h.bits)) - 1);
        simd!(
            self,
            unroll_array!(i in 0..2 => {
                let (low, high) = (bytes(self, low[i]), bytes(self, high[i]));
                signed(self, if l.at + l.bits == 8 {
                    let high = if h.at >= l.bits {
                        shift!(h.at - l.bits, vshrq_n_u8(high), high)
                    } else {
                        shift!(l.bits - h.at, vshlq_n_u8(high), high)
                    };
                    vandq_u8(shift!(l.at, vsriq_n_u8(high, low), low), vdupq_n_u8(all))
                } else if l.at == 0 && l.bits == 2 && h.at > l.bits {
                    let low = vandq_u8(low, mask(self, below));
                    let high = vandq_u8(high, mask(self, (all - below) << (h.at - l.bits)));
                    shift!(h.at - l.bits, vsraq_n_u8(low, high), low)
                } else {
                    let low = shift!(l.at, vshrq_n_u8(low), low);
                    let high = shift!(h.at, vshrq_n_u8(high), high);
                    vandq_u8(shift!(l.bits, vsliq_n_u8(low, high), low), mask(self, all))
                })
            })
        )
    }
    #[inline(always)]
    fn lookup(self, levels: &[i8; 16], x: I8x32) -> I8x32 {
        simd!(self, {
            let levels = vld1q_s8(levels.as_ptr());
            x.map(|x| vqtbl1q_s8(levels, vreinterpretq_u8_s8(x)))
        })
    }
    #[inline(always)]
    fn lookup_fp4(self, levels: &[i8; 16], x: I8x32) -> (I8x32, Form) {
        (self.lookup(levels, x), Form::less(12))
    }
    #[inline(always)]
    fn bits(self, x: At<'_, Self, [u8; 16]>, u: usize) -> I8x32 {
        simd!(self, {
            let x = vld1q_u8(x.as_ptr());
            let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let first = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
            unroll_array!(h in 0..2 => {
                let byte = vorrq_u8(first, vdupq_n_u8((4 * u + 2 * h) as u8));
                signed(self, vtstq_u8(vqtbl1q_u8(x, byte), bit))
            })
        })
    }
    /// In planes: the bytes of two rows side by side, of which a shift and a mask take one of the four fields each.
    #[inline(always)]
    fn crumbs(self, step: BlockQuad<'_, '_, [u8; 18]>) -> ([[I8x32; 4]; 2], Form, float32x4_t) {
        let neon = self.neon();
        // SAFETY: the token proves NEON; each of `BlockQuad::pointers` has 18 bytes, of which 2 and then 16 are taken.
        let (d, rows) = unsafe {
            let rows = step.pointers();
            let d = vcvt_f32_f16(vreinterpret_f16_u16(post_index::take_u16x4(neon, rows)));
            (d, rows.each_mut().map(|row| post_index::take_16(neon, row)))
        };
        let [a, b, c, d4] = simd!(self, rows.map(|row| vreinterpretq_u64_u8(row)));
        let low = [low_halves(self, a, b), low_halves(self, c, d4)];
        let pairs = [low, simd!(self, [vzip2q_u64(a, b), vzip2q_u64(c, d4)])];
        let q = unroll_array!(u in 0..2 => unroll_array!(i in 0..4 => {
            let x = simd!(self, vreinterpretq_s8_u64(pairs[u][i / 2]));
            let [a, b] = unroll_array!(j in 0..2 => self.field([x; 2], Field { at: 2 * (2 * (i % 2) + j), bits: 2 }));
            [a[0], b[0]]
        }));
        (q, Form { order: Order::Planes, ..Form::PLAIN }, d)
    }
    #[inline(always)]
    fn fives(self, step: BlockQuad<'_, '_, [u8; 22]>) -> ([I8x32; 4], Form, float32x4_t) {
        let neon = self.neon();
        // SAFETY: the token proves NEON; each of `BlockQuad::pointers` has 22 bytes, of which 2, 4 and then 16 are taken.
        let (d, bits, nibbles) = unsafe {
            let rows = step.pointers();
            let d = vcvt_f32_f16(vreinterpret_f16_u16(post_index::take_u16x4(neon, rows)));
            let bits = post_index::take_u32x4(neon, rows);
            (d, bits, rows.each_mut().map(|row| post_index::take_16(neon, row)))
        };
        (neon.nibbles_and_bits(nibbles, bits), Form::less(16), d)
    }
    #[inline(always)]
    fn fives_min(self, step: BlockQuad<'_, '_, [u8; 24]>) -> ([I8x32; 4], Form, [float32x4_t; 2]) {
        let neon = self.neon();
        // SAFETY: the token proves NEON; each of `BlockQuad::pointers` has 24 bytes, of which 4, 4 and then 16 are taken.
        let (d, bits, nibbles) = unsafe {
            let rows = step.pointers();
            let d = self.halves_f16(post_index::take_u32x4(neon, rows));
            let bits = post_index::take_u32x4(neon, rows);
            (d, bits, rows.each_mut().map(|row| post_index::take_16(neon, row)))
        };
        (neon.nibbles_and_bits(nibbles, bits), Form::less(16), d)
    }
    #[inline(always)]
    fn byte_and_nibbles(self, step: BlockQuad<'_, '_, [u8; 17]>) -> (uint32x4_t, [I8x32; 4]) {
        let neon = self.neon();
        // SAFETY: the token proves NEON; each of `BlockQuad::pointers` has 17 bytes, of which 1 and then 16 are taken.
        unsafe {
            let rows = step.pointers();
            let bytes = post_index::take_u8x4(neon, rows);
            (bytes, rows.each_mut().map(|row| neon.split_nibbles(post_index::take_16(neon, row))))
        }
    }
    #[inline(always)]
    fn dot4_small(self, w: &[I8x32; 4], form: Form, x: I8x32, sum: i32, offset: i32) -> float32x4_t {
        if form.order == Order::Planes {
            // Columns ≡ 0, 1, 2 and 3 modulo 4, twice.
            let dots = simd!(self, {
                let (even, odd) = (vuzp1q_s8(x[0], x[1]), vuzp2q_s8(x[0], x[1]));
                let x = [vuzp1q_s8(even, even), vuzp1q_s8(odd, odd), vuzp2q_s8(even, even), vuzp2q_s8(odd, odd)];
                self.dot4_planes(w, x)
            });
            return convert(self, dots, 0);
        }
        let bias = (offset != form.less).then(|| bias(sum, offset - form.less) << form.shift);
        let dots = if form.shift == 0 { NeonDot::dot4_nibbles(self, w, x, bias) } else { self.dot4_six(w, x, bias) };
        convert(self, dots, form.shift)
    }
    #[inline(always)]
    fn dot4_five(self, w: &[I8x32; 4], form: Form, x: I8x32, sum: i32, offset: i32) -> float32x4_t {
        let bias = (offset != form.less).then(|| bias(sum, offset - form.less));
        let dots =
            if form.less == 0 { NeonDot::dot4_five(self, w, x, bias) } else { NeonDot::dot4_nibbles(self, w, x, bias) };
        convert(self, dots, 0)
    }
    #[inline(always)]
    fn dot4_halves(self, w: &[I8x32; 4], form: Form, x: I8x32, sums: &[i32; 2], offset: i32) -> [float32x4_t; 2] {
        if form.order == Order::Eights {
            return NeonDot::dot4_eights(self, w, eights(self, x));
        }
        let dots = NeonDot::dot4_halves(self, w, x);
        [0, 1].map(|h| {
            let less = simd!(self, vdupq_n_s32((offset - form.less) * sums[h]));
            convert(self, simd!(self, vsubq_s32(dots[h], less)), 0)
        })
    }
    #[inline(always)]
    fn dot4_scaled_halves(
        self,
        w: &[I8x32; 4],
        form: Form,
        x: I8x32,
        sums: &[i32; 2],
        offset: i32,
        scales: [uint32x4_t; 2],
    ) -> float32x4_t {
        let [a, b] = NeonDot::dot4_halves(self, w, x);
        simd!(self, {
            let s = scales.map(|s| vreinterpretq_s32_u32(s));
            let mut dots = vmlaq_s32(vmulq_s32(a, s[0]), b, s[1]);
            if offset != 0 {
                let less = vmul_n_s32(vld1_s32(sums.as_ptr()), offset);
                dots = vmlsq_lane_s32::<1>(vmlsq_lane_s32::<0>(dots, s[0], less), s[1], less);
            }
            convert(self, dots, form.shift)
        })
    }
    #[inline(always)]
    fn scaled_sums(self, m: [uint32x4_t; 2], x: &[i32; 2]) -> float32x4_t {
        simd!(self, {
            let m = m.map(|m| vreinterpretq_s32_u32(m));
            let x = vld1_s32(x.as_ptr());
            vcvtq_f32_s32(vmlaq_lane_s32::<1>(vmulq_lane_s32::<0>(m[0], x), m[1], x))
        })
    }
    #[inline(always)]
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "the pointers pass through, unread")]
    fn blocks_after<'w, B: Block>(self, blocks: [At<'w, Self, B>; 4], acc: float32x4_t) -> [At<'w, Self, B>; 4] {
        let [mut a, mut b, mut c, mut d] = blocks.map(core::ptr::from_ref);
        // SAFETY: there is no instruction, so that the pointers stay what they are: references.
        unsafe {
            asm!("/* {a} {b} {c} {d} {acc:v} */", a = inout(reg) a, b = inout(reg) b, c = inout(reg) c,
                 d = inout(reg) d, acc = in(vreg) acc, options(pure, nomem, nostack, preserves_flags));
            [&*a, &*b, &*c, &*d]
        }
    }
    #[inline(always)]
    fn splat_words(self, x: u32) -> uint32x4_t {
        simd!(self, vdupq_n_u32(x))
    }
    #[inline(always)]
    fn quads(self, x: [At<'_, Self, [u8; 16]>; 4]) -> [uint32x4_t; 4] {
        let rows = simd!(self, x.map(|x| vreinterpretq_f32_u8(vld1q_u8(x.as_ptr()))));
        simd!(self, self.neon().transpose4x4(rows).map(|x| vreinterpretq_u32_f32(x)))
    }
    #[inline(always)]
    fn and_words(self, x: uint32x4_t, mask: u32) -> uint32x4_t {
        simd!(self, vandq_u32(x, vdupq_n_u32(mask)))
    }
    #[inline(always)]
    fn or_words(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        simd!(self, vorrq_u32(a, b))
    }
    #[inline(always)]
    fn xor_words(self, x: uint32x4_t, mask: u32) -> uint32x4_t {
        simd!(self, veorq_u32(x, vdupq_n_u32(mask)))
    }
    #[inline(always)]
    fn max_words(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        simd!(self, vreinterpretq_u32_s32(vmaxq_s32(vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b))))
    }
    #[inline(always)]
    fn f32_of_bits(self, x: uint32x4_t) -> float32x4_t {
        simd!(self, vreinterpretq_f32_u32(x))
    }
    #[inline(always)]
    fn sub_words(self, x: uint32x4_t, n: u32) -> uint32x4_t {
        simd!(self, vsubq_u32(x, vdupq_n_u32(n)))
    }
    #[inline(always)]
    fn shr_words(self, x: uint32x4_t, n: usize) -> uint32x4_t {
        simd!(self, vshlq_u32(x, vdupq_n_s32(-(n as i32))))
    }
    #[inline(always)]
    fn shl_words(self, x: uint32x4_t, n: usize) -> uint32x4_t {
        simd!(self, vshlq_u32(x, vdupq_n_s32(n as i32)))
    }
    #[inline(always)]
    fn byte_u8(self, x: uint32x4_t, i: usize) -> uint32x4_t {
        simd!(
            self,
            match i {
                0 => vandq_u32(x, vdupq_n_u32(0xff)),
                1 => vandq_u32(vshrq_n_u32::<8>(x), vdupq_n_u32(0xff)),
                2 => vandq_u32(vshrq_n_u32::<16>(x), vdupq_n_u32(0xff)),
                _ => vshrq_n_u32::<24>(x),
            }
        )
    }
    #[inline(always)]
    fn byte_i8(self, x: uint32x4_t, i: usize) -> uint32x4_t {
        simd!(self, {
            let x = vreinterpretq_s32_u32(x);
            vreinterpretq_u32_s32(match i {
                0 => vshrq_n_s32::<24>(vshlq_n_s32::<24>(x)),
                1 => vshrq_n_s32::<24>(vshlq_n_s32::<16>(x)),
                2 => vshrq_n_s32::<24>(vshlq_n_s32::<8>(x)),
                _ => vshrq_n_s32::<24>(x),
            })
        })
    }
    #[inline(always)]
    fn to_f32(self, x: uint32x4_t) -> float32x4_t {
        simd!(self, vcvtq_f32_s32(vreinterpretq_s32_u32(x)))
    }
    #[inline(always)]
    fn halves_f16(self, x: uint32x4_t) -> [float32x4_t; 2] {
        simd!(self, [vmovn_u32(x), vshrn_n_u32::<16>(x)].map(|x| vcvt_f32_f16(vreinterpret_f16_u16(x))))
    }
    #[inline(always)]
    fn stored(self, x: float32x4_t) -> [f32; 4] {
        self.store4(x)
    }
    #[inline(always)]
    fn load_twice(self, x: At<'_, Self, [u8; 16]>) -> I8x32 {
        simd!(self, [vld1q_s8(x.as_ptr().cast()); 2])
    }
    #[inline(always)]
    fn load_and_repeat(self, x: At<'_, Self, [u8; 20]>) -> I8x32 {
        // At any alignment.
        let word = u32::from_le_bytes(*last(x));
        simd!(self, [vld1q_s8(x.as_ptr().cast()), vreinterpretq_s8_u32(vdupq_n_u32(word))])
    }
    /// The low nibbles of 16 bytes are a vector, the high ones another.
    #[inline(always)]
    fn word_and_nibbles(self, step: BlockQuad<'_, '_, [u8; 36]>) -> (uint32x4_t, [[I8x32; 4]; 2], Order) {
        let neon = self.neon();
        // SAFETY: the token proves NEON; each of `BlockQuad::pointers` has 36 bytes, of which 4 and then 32 are taken.
        let (words, rows) = unsafe {
            let rows = step.pointers();
            let words = post_index::take_u32x4(neon, rows);
            (words, rows.each_mut().map(|row| post_index::take_32(neon, row)))
        };
        let q = unroll_array!(u in 0..2 => unroll_array!(r in 0..4 => neon.split_nibbles(bytes(self, rows[r][u]))));
        (words, q, Order::Eights)
    }
    #[inline(always)]
    fn trits(self, x: I8x32, powers: &[u8; 32]) -> (I8x32, Form) {
        let (powers, _) = powers.as_chunks::<16>();
        let q = unroll_array!(h in 0..2 => signed(self, trits(self, bytes(self, x[h]), &powers[h])));
        (q, Form::less(1))
    }
    #[inline(always)]
    fn clear_bytes(self, x: uint32x4_t, byte: u8) -> uint32x4_t {
        simd!(self, {
            let x = vreinterpretq_u8_u32(x);
            vreinterpretq_u32_u8(vbicq_u8(x, vceqq_u8(x, vdupq_n_u8(byte))))
        })
    }
}

impl<X: NeonDot> Int8Isa for X {
    type Decode = Self;

    #[inline(always)]
    fn decode(self) -> Self {
        self
    }
    const SIGNED_PLANES: bool = true;

    #[inline(always)]
    fn bit(self, x: I8x32, at: usize) -> I8x32 {
        x.map(|x| signed(self, ones(self, bytes(self, x), at)))
    }
    /// A bit that is set becomes ones, which the nibble is put below; of two bits the higher becomes the sign.
    #[inline(always)]
    fn join_planes(self, low: I8x32, high: [I8x32; 2], h: [Field; 2]) -> [I8x32; 2] {
        let joined = unroll_array!(i in 0..2 => {
            // Fields of the low nibbles stay below, those of the high ones go to the upper four bits.
            let [a, b] = unroll_array!(n in 0..2 => simd!(self, {
                let x = bytes(self, high[n][i]);
                if h[n].bits == 1 {
                    ones(self, x, h[n].at)
                } else {
                    let top = vreinterpretq_s8_u8(shift!(6 - h[n].at, vshlq_n_u8(x), x));
                    vreinterpretq_u8_s8(if n == 0 { vshrq_n_s8::<6>(top) } else { vshrq_n_s8::<2>(top) })
                }
            }));
            insert_nibbles(self, bytes(self, low[i]), a, b)
        });
        unroll_array!(n in 0..2 => unroll_array!(i in 0..2 => joined[i][n]))
    }
    #[inline(always)]
    fn panel_quants(self, q: [I8x32; 4], form: Form, less: i32) -> [I8x32; 4] {
        simd!(self, {
            if form.order == Order::Planes {
                let pairs = unroll_array!(p in 0..2 => {
                    let [[a, b], [c, d]] = [q[2 * p], q[2 * p + 1]];
                    let (first, last) = ((vzip1q_s8(a, c), vzip1q_s8(b, d)), (vzip2q_s8(a, c), vzip2q_s8(b, d)));
                    let row = |(even, odd)| [vzip1q_s8(even, odd), vzip2q_s8(even, odd)];
                    [row(first), row(last)]
                });
                return [pairs[0][0], pairs[0][1], pairs[1][0], pairs[1][1]];
            }
            q.map(|q| {
                let q = if form.order == Order::Eights { eights(self, q) } else { q };
                q.map(|q| {
                    let q = signed(self, shift!(form.shift, vshrq_n_u8(bytes(self, q)), bytes(self, q)));
                    vaddq_s8(q, vdupq_n_s8((form.less - less) as i8))
                })
            })
        })
    }
    #[inline(always)]
    fn interleave(self, w: &[I8x32; 4]) -> [[u8; 16]; 8] {
        let mut out = [[0; 16]; 8];
        simd!(self, {
            for h in 0..2 {
                let words = self.neon().transpose4x4(w.map(|row| vreinterpretq_f32_s8(row[h])));
                for k in 0..4 {
                    vst1q_u8(out[4 * h + k].as_mut_ptr(), vreinterpretq_u8_f32(words[k]));
                }
            }
        });
        out
    }
    #[inline(always)]
    fn load_words(self, x: &[u8; 16]) -> uint32x4_t {
        simd!(self, vreinterpretq_u32_u8(vld1q_u8(x.as_ptr())))
    }
    #[inline(always)]
    fn load_six_bits(self, x: &[u8; 24]) -> [uint32x4_t; 2] {
        simd!(self, {
            let (first, eight) = (vld1q_u8(x.as_ptr()), vld1_u8(x.as_ptr().add(16)));
            let low = vcombine_u8(eight, vshr_n_u8::<4>(eight));
            [first, vsliq_n_u8::<4>(low, vshrq_n_u8::<6>(first))].map(|x| vreinterpretq_u32_u8(x))
        })
    }
    /// The conversion shifts.
    #[inline(always)]
    fn field_to_f32(self, x: uint32x4_t, at: usize, mask: u32) -> float32x4_t {
        simd!(self, {
            let x = vandq_u32(x, vdupq_n_u32(mask << at));
            match at {
                0 => vcvtq_f32_u32(x),
                8 => vcvtq_n_f32_u32::<8>(x),
                16 => vcvtq_n_f32_u32::<16>(x),
                _ => vcvtq_n_f32_u32::<24>(x),
            }
        })
    }
    #[inline(always)]
    fn store_words(self, x: uint32x4_t) -> [i32; 4] {
        let mut out = [0; 4];
        simd!(self, vst1q_s32(out.as_mut_ptr(), vreinterpretq_s32_u32(x)));
        out
    }
}
