//! Arithmetic of binary16, eight lanes at a time. The intrinsics are unstable in Rust 1.95; vectors are of bytes because
//! they are loaded as such.

use core::arch::aarch64::int8x16_t;
use core::arch::asm;

use super::tokens::Dotprod;

/// `a·b`.
#[inline(always)]
pub(super) fn mul(_: Dotprod, a: int8x16_t, b: int8x16_t) -> int8x16_t {
    let out;
    // SAFETY: one instruction on registers; the token proves that the CPU has binary16 arithmetic.
    unsafe {
        asm!(".arch_extension fp16", "fmul {0:v}.8h, {1:v}.8h, {2:v}.8h", lateout(vreg) out, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// `a·b + acc`, rounded once.
#[inline(always)]
pub(super) fn fma(_: Dotprod, a: int8x16_t, b: int8x16_t, mut acc: int8x16_t) -> int8x16_t {
    // SAFETY: one instruction on registers; the token proves that the CPU has binary16 arithmetic.
    unsafe {
        asm!(".arch_extension fp16", "fmla {0:v}.8h, {1:v}.8h, {2:v}.8h", inout(vreg) acc, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// Sums of adjacent lanes: of `a`, then of `b`.
#[inline(always)]
pub(super) fn add_pairs(_: Dotprod, a: int8x16_t, b: int8x16_t) -> int8x16_t {
    let out;
    // SAFETY: one instruction on registers; the token proves that the CPU has binary16 arithmetic.
    unsafe {
        asm!(".arch_extension fp16", "faddp {0:v}.8h, {1:v}.8h, {2:v}.8h", lateout(vreg) out, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    out
}
