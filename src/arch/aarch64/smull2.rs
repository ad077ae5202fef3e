//! Products of the high halves of vectors.

use core::arch::aarch64::*;
use core::arch::asm;

use super::tokens::Neon;

/// `smull2` and `smlal2`: products of the high halves, and products added to `acc`.
///
/// With the intrinsics, the compiler sees that several tokens or heads use the same high halves of weights, moves each
/// half to a register of its own first, and runs out of registers.
macro_rules! high {
    ($name:ident, $code:literal, $operands:literal $(, $acc:ident)?) => {
        #[inline(always)]
        pub(super) fn $name(_: Neon, $($acc: int16x8_t,)? a: int8x16_t, b: int8x16_t) -> int16x8_t {
            high!(@ $code, $operands, a, b $(, $acc)?)
        }
    };
    (@ $code:literal, $operands:literal, $a:ident, $b:ident) => {{
        let out;
        // SAFETY: one instruction on registers; the token proves that the CPU has NEON.
        unsafe {
            asm!(concat!($code, $operands), lateout(vreg) out, in(vreg) $a, in(vreg) $b,
                 options(pure, nomem, nostack, preserves_flags));
        }
        out
    }};
    (@ $code:literal, $operands:literal, $a:ident, $b:ident, $acc:ident) => {{
        let mut out = $acc;
        // SAFETY: one instruction on registers; the token proves that the CPU has NEON.
        unsafe {
            asm!(concat!($code, $operands), inout(vreg) out, in(vreg) $a, in(vreg) $b,
                 options(pure, nomem, nostack, preserves_flags));
        }
        out
    }};
}
high!(smull2, "smull2", " {0:v}.8h, {1:v}.16b, {2:v}.16b");
high!(smlal2, "smlal2", " {0:v}.8h, {1:v}.16b, {2:v}.16b", acc);
high!(smull, "smull", " {0:v}.8h, {1:v}.8b, {2:v}.8b");
high!(smlal, "smlal", " {0:v}.8h, {1:v}.8b, {2:v}.8b", acc);
