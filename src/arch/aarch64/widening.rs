//! Products of int8 as int16, of the low or the high halves of vectors.

use core::arch::aarch64::*;
use core::arch::asm;

use super::tokens::Neon;

/// `smull` and `smlal` of the low halves, `smull2` and `smlal2` of the high ones: products, and products added to `acc`.
///
/// With the intrinsics, the compiler sees that several tokens or heads use the same halves of weights, moves or widens each
/// half to a register of its own first, and runs out of registers.
macro_rules! product {
    ($name:ident, $code:literal, $operands:literal $(, $acc:ident)?) => {
        #[inline(always)]
        pub(super) fn $name(_: Neon, $($acc: int16x8_t,)? a: int8x16_t, b: int8x16_t) -> int16x8_t {
            product!(@ $code, $operands, a, b $(, $acc)?)
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
product!(smull2, "smull2", " {0:v}.8h, {1:v}.16b, {2:v}.16b");
product!(smlal2, "smlal2", " {0:v}.8h, {1:v}.16b, {2:v}.16b", acc);
product!(smull, "smull", " {0:v}.8h, {1:v}.8b, {2:v}.8b");
product!(smlal, "smlal", " {0:v}.8h, {1:v}.8b, {2:v}.8b", acc);
