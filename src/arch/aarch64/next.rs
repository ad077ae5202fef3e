//! Loads that move their pointer on: one instruction for what is otherwise a load and an addition.
//!
//! The compiler has no way to ask for these. Each is one instruction that reads what the pointer points to and adds its
//! size. All are safe at any alignment, as long as the memory is Normal and alignment checking is off.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::I8x32;

/// Defines a load: `name(pointer, [previous]) -> vector`.
macro_rules! load {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $type:ty, $code:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        #[doc = concat!("`p` points to ", $bytes, " readable bytes.")]
        #[inline(always)]
        unsafe fn $name(p: &mut *const u8) -> $type {
            let out;
            // SAFETY: reads the bytes that the caller vouches for.
            unsafe {
                asm!(concat!($code, ", #", $bytes), v = out(vreg) out, p = inout(reg) *p,
                     options(pure, readonly, nostack, preserves_flags));
            }
            out
        }
    };
    ($(#[$doc:meta])* $name:ident[lane], $bytes:literal, $type:ty, $code:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        #[doc = concat!("`p` points to ", $bytes, " readable bytes.")]
        #[inline(always)]
        unsafe fn $name<const LANE: i32>(p: &mut *const u8, mut others: $type) -> $type {
            // SAFETY: reads the bytes that the caller vouches for.
            unsafe {
                asm!(concat!($code, ", #", $bytes), v = inout(vreg) others, p = inout(reg) *p, lane = const LANE,
                     options(pure, readonly, nostack, preserves_flags));
            }
            others
        }
    };
}

load!(
    /// 16 bits to lane 0, zeros to the others.
    half, 2, uint16x4_t, "ldr {v:h}, [{p}]");
load!(
    /// 16 bits to a lane.
    half_lane[lane], 2, uint16x4_t, "ld1 {{{v:v}.h}}[{lane}], [{p}]");
load!(
    /// 32 bits to lane 0, zeros to the others.
    word, 4, uint32x4_t, "ldr {v:s}, [{p}]");
load!(
    /// 32 bits to a lane.
    word_lane[lane], 4, uint32x4_t, "ld1 {{{v:v}.s}}[{lane}], [{p}]");
load!(
    /// 16 bytes.
    sixteen, 16, uint8x16_t, "ldr {v:q}, [{p}]");

/// 16 bits from each of four pointers.
///
/// # Safety
/// Each points to two readable bytes.
#[inline(always)]
pub(super) unsafe fn halves([a, b, c, d]: &mut [*const u8; 4]) -> uint16x4_t {
    // SAFETY: the caller's promise.
    unsafe { half_lane::<3>(d, half_lane::<2>(c, half_lane::<1>(b, half(a)))) }
}

/// 32 bits from each of four pointers.
///
/// # Safety
/// Each points to four readable bytes.
#[inline(always)]
pub(super) unsafe fn words([a, b, c, d]: &mut [*const u8; 4]) -> uint32x4_t {
    // SAFETY: the caller's promise.
    unsafe { word_lane::<3>(d, word_lane::<2>(c, word_lane::<1>(b, word(a)))) }
}

/// 16 bytes.
///
/// # Safety
/// `p` points to 16 readable bytes.
#[inline(always)]
pub(super) unsafe fn vector(p: &mut *const u8) -> uint8x16_t {
    // SAFETY: the caller's promise.
    unsafe { sixteen(p) }
}

/// 32 bytes.
///
/// # Safety
/// `p` points to 32 readable bytes.
#[inline(always)]
pub(super) unsafe fn pair(p: &mut *const u8) -> I8x32 {
    let (a, b);
    // SAFETY: reads the bytes that the caller vouches for.
    unsafe {
        asm!("ldp {a:q}, {b:q}, [{p}], #32", a = out(vreg) a, b = out(vreg) b, p = inout(reg) *p,
             options(pure, readonly, nostack, preserves_flags));
    }
    [a, b]
}
