//! Loads that move their pointer on: one instruction for what is otherwise a load and an addition.
//!
//! The compiler has no way to ask for these. Each is one instruction that reads what the pointer points to and adds its
//! size. They work at any alignment, as long as the memory is Normal and alignment checking is off.
//!
//! Without an operating system neither need be so: before the MMU is on, all memory is Device memory. There the loads are
//! of bytes, which any address has, and of halves, which lie at even addresses if the file does; unless the build says
//! `--cfg armlet_normal_memory`, which goes with `-C target-feature=-strict-align`.

use core::arch::aarch64::*;
use core::arch::asm;

use super::registers::I8x32;

/// Defines a load: `name(pointer, [previous]) -> vector`.
macro_rules! load {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $type:ty, $code:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        #[doc = concat!("`p` points to ", $bytes, " readable bytes.")]
        #[inline(always)]
        pub(super) unsafe fn $name(p: &mut *const u8) -> $type {
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
        pub(super) unsafe fn $name<const LANE: i32>(p: &mut *const u8, mut others: $type) -> $type {
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
    /// 16 bytes.
    sixteen, 16, uint8x16_t, "ld1 {{{v:v}.16b}}, [{p}]");

/// 16 bits from each of four pointers.
///
/// # Safety
/// Each points to two readable bytes.
#[inline(always)]
pub(super) unsafe fn take_u16x4([a, b, c, d]: &mut [*const u8; 4]) -> uint16x4_t {
    // SAFETY: the caller's promise.
    unsafe { half_lane::<3>(d, half_lane::<2>(c, half_lane::<1>(b, half(a)))) }
}

/// 32 bits from each of four pointers.
///
/// # Safety
/// Each points to four readable bytes.
#[inline(always)]
pub(super) unsafe fn take_u32x4([a, b, c, d]: &mut [*const u8; 4]) -> uint32x4_t {
    // SAFETY: the caller's promise.
    unsafe { wide::word_lane::<3>(d, wide::word_lane::<2>(c, wide::word_lane::<1>(b, wide::word(a)))) }
}

/// 16 bytes.
///
/// # Safety
/// `p` points to 16 readable bytes.
#[inline(always)]
pub(super) unsafe fn take_16(p: &mut *const u8) -> uint8x16_t {
    // SAFETY: the caller's promise.
    unsafe { sixteen(p) }
}

/// 32 bytes.
///
/// # Safety
/// `p` points to 32 readable bytes.
#[inline(always)]
pub(super) unsafe fn take_32(p: &mut *const u8) -> I8x32 {
    // SAFETY: the caller's promise.
    unsafe { wide::pair(p) }
}

/// Loads of more than alignment checking allows.
#[cfg(any(not(target_os = "none"), armlet_normal_memory))]
mod wide {
    use super::*;

    load!(
        /// 32 bits to lane 0, zeros to the others.
        word, 4, uint32x4_t, "ldr {v:s}, [{p}]");
    load!(
        /// 32 bits to a lane.
        word_lane[lane], 4, uint32x4_t, "ld1 {{{v:v}.s}}[{lane}], [{p}]");

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
}

/// The same of smaller pieces.
#[cfg(not(any(not(target_os = "none"), armlet_normal_memory)))]
mod wide {
    use super::*;

    #[inline(always)]
    pub(super) unsafe fn word(p: &mut *const u8) -> uint32x4_t {
        // SAFETY: the caller's promise.
        unsafe { word_lane::<0>(p, vdupq_n_u32(0)) }
    }

    #[inline(always)]
    pub(super) unsafe fn word_lane<const LANE: i32>(p: &mut *const u8, others: uint32x4_t) -> uint32x4_t {
        // SAFETY: the caller's promise: two halves in a row. NEON is in every instruction set that comes here.
        unsafe {
            let low = half(p);
            let word = vreinterpret_u32_u16(half_lane::<1>(p, low));
            vsetq_lane_u32::<LANE>(vget_lane_u32::<0>(word), others)
        }
    }

    #[inline(always)]
    pub(super) unsafe fn pair(p: &mut *const u8) -> I8x32 {
        // SAFETY: the caller's promise.
        unsafe { [sixteen(p), sixteen(p)].map(|x| vreinterpretq_s8_u8(x)) }
    }
}
