//! Post-indexed loads: one instruction for what is otherwise a load and an addition to its pointer.
//!
//! No intrinsic compiles to these for certain. Each is one instruction that loads from the pointer and adds the size to
//! it. They work at any alignment, provided that the memory is Normal and alignment checking is off.
//!
//! Without an operating system neither is certain: before the MMU is on, all memory is Device memory. There the loads are
//! of bytes, which need no alignment, and of 16-bit words, which are at even addresses if the file is; unless the build
//! sets `--cfg armlet_normal_memory`, which goes with `-C target-feature=-strict-align`.

use core::arch::aarch64::*;
use core::arch::asm;

use super::registers::I8x32;
use super::tokens::{Neon, simd};

/// Defines a load: `name(pointer, [previous]) -> vector`.
macro_rules! load {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $type:ty, $code:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        #[doc = concat!("`p` points to ", $bytes, " readable bytes.")]
        #[inline(always)]
        pub(super) unsafe fn $name(_: Neon, p: &mut *const u8) -> $type {
            let out;
            // SAFETY: one load; `p` points to readable bytes, as many as it reads, and the token proves NEON.
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
        pub(super) unsafe fn $name<const LANE: i32>(_: Neon, p: &mut *const u8, mut others: $type) -> $type {
            // SAFETY: one load; `p` points to readable bytes, as many as it reads, and the token proves NEON.
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
    /// 8 bits to lane 0, zeros to the others.
    byte, 1, uint8x16_t, "ldr {v:b}, [{p}]");
load!(
    /// 8 bits to a lane.
    byte_lane[lane], 1, uint8x16_t, "ld1 {{{v:v}.b}}[{lane}], [{p}]");
load!(
    /// 16 bytes.
    sixteen, 16, uint8x16_t, "ld1 {{{v:v}.16b}}, [{p}]");

/// 16 bits from each of four pointers.
///
/// # Safety
/// Each points to two readable bytes.
#[inline(always)]
pub(super) unsafe fn take_u16x4(neon: Neon, [a, b, c, d]: &mut [*const u8; 4]) -> uint16x4_t {
    // SAFETY: each load reads the two bytes that its pointer points to.
    unsafe { half_lane::<3>(neon, d, half_lane::<2>(neon, c, half_lane::<1>(neon, b, half(neon, a)))) }
}

/// 32 bits from each of four pointers.
///
/// # Safety
/// Each points to four readable bytes.
#[inline(always)]
pub(super) unsafe fn take_u32x4(neon: Neon, [a, b, c, d]: &mut [*const u8; 4]) -> uint32x4_t {
    // SAFETY: each load reads the four bytes that its pointer points to.
    unsafe {
        let word = wide::word_lane::<1>(neon, b, wide::word(neon, a));
        wide::word_lane::<3>(neon, d, wide::word_lane::<2>(neon, c, word))
    }
}

/// A byte from each of four pointers, to the lowest of a word each.
///
/// # Safety
/// Each points to a readable byte.
#[inline(always)]
pub(super) unsafe fn take_u8x4(neon: Neon, [a, b, c, d]: &mut [*const u8; 4]) -> uint32x4_t {
    // SAFETY: each load reads the byte that its pointer points to.
    let bytes = unsafe { byte_lane::<12>(neon, d, byte_lane::<8>(neon, c, byte_lane::<4>(neon, b, byte(neon, a)))) };
    simd!(neon, vreinterpretq_u32_u8(bytes))
}

/// 16 bytes.
///
/// # Safety
/// `p` points to 16 readable bytes.
#[inline(always)]
pub(super) unsafe fn take_16(neon: Neon, p: &mut *const u8) -> uint8x16_t {
    // SAFETY: `p` points to 16 readable bytes.
    unsafe { sixteen(neon, p) }
}

/// 32 bytes.
///
/// # Safety
/// `p` points to 32 readable bytes.
#[inline(always)]
pub(super) unsafe fn take_32(neon: Neon, p: &mut *const u8) -> I8x32 {
    // SAFETY: `p` points to 32 readable bytes.
    unsafe { wide::pair(neon, p) }
}

/// Loads that need memory without alignment checking.
#[cfg(any(not(target_os = "none"), armlet_normal_memory))]
mod wide {
    use super::*;

    load!(
        /// 32 bits to lane 0, zeros to the others.
        word, 4, uint32x4_t, "ldr {v:s}, [{p}]");
    load!(
        /// 32 bits to a lane.
        word_lane[lane], 4, uint32x4_t, "ld1 {{{v:v}.s}}[{lane}], [{p}]");

    /// 32 bytes.
    ///
    /// # Safety
    /// `p` points to 32 readable bytes.
    #[inline(always)]
    pub(super) unsafe fn pair(_: Neon, p: &mut *const u8) -> I8x32 {
        let (a, b);
        // SAFETY: one load of two registers; `p` points to 32 readable bytes, and the token proves NEON.
        unsafe {
            asm!("ldp {a:q}, {b:q}, [{p}], #32", a = out(vreg) a, b = out(vreg) b, p = inout(reg) *p,
                 options(pure, readonly, nostack, preserves_flags));
        }
        [a, b]
    }
}

/// The same as loads of 16 bits and of single bytes.
#[cfg(not(any(not(target_os = "none"), armlet_normal_memory)))]
mod wide {
    use super::*;

    /// 32 bits to lane 0, zeros to the others.
    ///
    /// # Safety
    /// `p` points to 4 readable bytes.
    #[inline(always)]
    pub(super) unsafe fn word(neon: Neon, p: &mut *const u8) -> uint32x4_t {
        let zeros = simd!(neon, vdupq_n_u32(0));
        // SAFETY: `p` points to 4 readable bytes.
        unsafe { word_lane::<0>(neon, p, zeros) }
    }

    /// 32 bits to a lane.
    ///
    /// # Safety
    /// `p` points to 4 readable bytes.
    #[inline(always)]
    pub(super) unsafe fn word_lane<const LANE: i32>(neon: Neon, p: &mut *const u8, others: uint32x4_t) -> uint32x4_t {
        // SAFETY: `p` points to 4 readable bytes, which are two loads of 2.
        let halves = unsafe {
            let low = half(neon, p);
            half_lane::<1>(neon, p, low)
        };
        simd!(neon, vsetq_lane_u32::<LANE>(vget_lane_u32::<0>(vreinterpret_u32_u16(halves)), others))
    }

    /// 32 bytes.
    ///
    /// # Safety
    /// `p` points to 32 readable bytes.
    #[inline(always)]
    pub(super) unsafe fn pair(neon: Neon, p: &mut *const u8) -> I8x32 {
        // SAFETY: `p` points to 32 readable bytes, which are two loads of 16.
        let pair = unsafe { [sixteen(neon, p), sixteen(neon, p)] };
        simd!(neon, pair.map(|x| vreinterpretq_s8_u8(x)))
    }
}
