//! Vectors of bytes, from which quants are made.

use core::arch::aarch64::*;
use core::arch::asm;

use super::registers::I8x32;
use super::tokens::{Neon, NeonToken, simd};
use crate::arch::unroll::unroll_array;

/// Lanes of `x` as they are unsigned.
#[inline(always)]
pub(super) fn bytes<X: NeonToken>(token: X, x: int8x16_t) -> uint8x16_t {
    simd!(token, vreinterpretq_u8_s8(x))
}

/// Lanes of `x` as they are signed.
#[inline(always)]
pub(super) fn signed<X: NeonToken>(token: X, x: uint8x16_t) -> int8x16_t {
    simd!(token, vreinterpretq_s8_u8(x))
}

/// `x`, a constant, kept in a register: the compiler would rather make it anew for each use.
#[inline(always)]
fn kept<X: NeonToken>(_: X, mut x: uint8x16_t) -> uint8x16_t {
    // SAFETY: there is no instruction.
    unsafe { asm!("/* {0:v} */", inout(vreg) x, options(pure, nomem, nostack, preserves_flags)) };
    x
}

/// `mask` in all lanes.
#[inline(always)]
pub(super) fn mask<X: NeonToken>(token: X, mask: u8) -> uint8x16_t {
    kept(token, simd!(token, vdupq_n_u8(mask)))
}

/// Ones in the bytes that have bit `at` set. Tests of half of the bits keep half as many masks in registers.
#[inline(always)]
pub(super) fn ones<X: NeonToken>(token: X, x: uint8x16_t, at: usize) -> uint8x16_t {
    simd!(token, {
        let x = if at.is_multiple_of(2) { vaddq_u8(x, x) } else { x };
        if at >= 6 { vcltzq_s8(vreinterpretq_s8_u8(x)) } else { vtstq_u8(x, mask(token, 2 << (at & !1))) }
    })
}

/// The low nibbles of `x` with `a` above them, and its high ones with the upper four bits of `b`. In this order nothing needs
/// to be copied, which the compiler would not keep.
#[inline(always)]
pub(super) fn insert_nibbles<X: NeonToken>(
    token: X,
    mut x: uint8x16_t,
    a: uint8x16_t,
    mut b: uint8x16_t,
) -> [int8x16_t; 2] {
    // SAFETY: two instructions on registers; the token proves NEON.
    unsafe {
        asm!("sri {b:v}.16b, {x:v}.16b, #4", "sli {x:v}.16b, {a:v}.16b, #4", x = inout(vreg) x, a = in(vreg) a,
             b = inout(vreg) b, options(pure, nomem, nostack, preserves_flags));
    }
    [signed(token, x), signed(token, b)]
}

/// The low halves of `a` and `b`. The intrinsic becomes a copy and an insertion, and what is done with both halves is done with
/// each.
#[inline(always)]
pub(super) fn low_halves<X: NeonToken>(_: X, a: uint64x2_t, b: uint64x2_t) -> uint64x2_t {
    let out;
    // SAFETY: one instruction on registers; the token proves NEON.
    unsafe {
        asm!("zip1 {0:v}.2d, {1:v}.2d, {2:v}.2d", lateout(vreg) out, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// Columns in the order of [eights](crate::arch::isa::Order::Eights), or back.
#[inline(always)]
pub(super) fn eights<X: NeonToken>(token: X, x: I8x32) -> I8x32 {
    simd!(token, {
        let [a, b] = x.map(|x| vreinterpretq_u64_s8(x));
        [vzip1q_u64(a, b), vzip2q_u64(a, b)].map(|x| vreinterpretq_s8_u64(x))
    })
}

/// The first and the second of two digits of base 3, less 1.
const TRITS: [[i8; 16]; 2] =
    [[-1, -1, -1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [-1, 0, 1, -1, 0, 1, -1, 0, 1, 0, 0, 0, 0, 0, 0, 0]];

/// As [`UnitIsa::trits`](crate::arch::isa::UnitIsa::trits), less 1. Two digits at once, `9·x/256`, are the index of a table for
/// each, which the compiler computes once for both. The last digit is alone: of it, and of any where columns have digits of
/// their own, comparisons have all bits.
#[inline(always)]
pub(super) fn trits<X: NeonToken>(token: X, x: uint8x16_t, powers: &[u8; 16]) -> uint8x16_t {
    let [power, .., last] = *powers;
    simd!(token, {
        if power == last && power < 81 {
            let x = if power < 9 { x } else { vmulq_u8(x, mask(token, 9)) };
            let two = vshrq_n_u8::<4>(vhaddq_u8(x, vshrq_n_u8::<3>(x)));
            let digit = usize::from(power == 3 || power == 27);
            bytes(token, vqtbl1q_s8(vld1q_s8(TRITS[digit].as_ptr()), two))
        } else {
            let x = vmulq_u8(x, kept(token, vld1q_u8(powers.as_ptr())));
            vsubq_u8(vcltq_u8(x, mask(token, 86)), vcgtq_u8(x, mask(token, 170)))
        }
    })
}

impl Neon {
    /// The low nibbles of four rows, then the high ones, with a bit above each, less 16: where a bit is not set, the nibble
    /// above becomes ones.
    #[inline(always)]
    pub(super) fn nibbles_and_bits(self, nibbles: [uint8x16_t; 4], bits: uint32x4_t) -> [I8x32; 4] {
        simd!(self, {
            let x = vmvnq_u8(vreinterpretq_u8_u32(bits));
            let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let first = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
            unroll_array!(r in 0..4 => unroll_array!(h in 0..2 => {
                let byte = vorrq_u8(first, vdupq_n_u8((4 * r + 2 * h) as u8));
                let clear = vtstq_u8(vqtbl1q_u8(x, byte), bit);
                let nibble = if h == 0 { nibbles[r] } else { vshrq_n_u8::<4>(nibbles[r]) };
                vreinterpretq_s8_u8(vsliq_n_u8::<4>(nibble, clear))
            }))
        })
    }
}
