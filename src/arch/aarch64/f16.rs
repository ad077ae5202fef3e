//! Arithmetic of binary16, eight lanes at a time. The intrinsics are unstable in Rust 1.95; vectors are of bytes because
//! that is how they are loaded.

use core::arch::aarch64::int8x16_t;
use core::arch::asm;

/// `a·b`.
///
/// # Safety
/// The CPU has Armv8.2 binary16 arithmetic.
#[inline(always)]
pub(super) unsafe fn mul(a: int8x16_t, b: int8x16_t) -> int8x16_t {
    let out;
    // SAFETY: one instruction on registers, which the caller vouches for.
    unsafe {
        asm!(".arch_extension fp16", "fmul {0:v}.8h, {1:v}.8h, {2:v}.8h", lateout(vreg) out, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// `a·b + acc`, rounded once.
///
/// # Safety
/// The CPU has Armv8.2 binary16 arithmetic.
#[inline(always)]
pub(super) unsafe fn fma(a: int8x16_t, b: int8x16_t, mut acc: int8x16_t) -> int8x16_t {
    // SAFETY: one instruction on registers, which the caller vouches for.
    unsafe {
        asm!(".arch_extension fp16", "fmla {0:v}.8h, {1:v}.8h, {2:v}.8h", inout(vreg) acc, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// Sums of adjacent lanes: of `a`, then of `b`.
///
/// # Safety
/// The CPU has Armv8.2 binary16 arithmetic.
#[inline(always)]
pub(super) unsafe fn add_pairs(a: int8x16_t, b: int8x16_t) -> int8x16_t {
    let out;
    // SAFETY: one instruction on registers, which the caller vouches for.
    unsafe {
        asm!(".arch_extension fp16", "faddp {0:v}.8h, {1:v}.8h, {2:v}.8h", lateout(vreg) out, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    out
}
