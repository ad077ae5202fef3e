//! Products of the high halves of vectors.

use core::arch::aarch64::*;
use core::arch::asm;

/// `smull2` and `smlal2`: products of the high halves, and products added to `acc`.
///
/// The intrinsics say the same, but the compiler, which sees the high halves of weights used for several tokens or heads,
/// moves each to a register of its own first, and then has too few.
macro_rules! high {
    ($name:ident, $code:literal $(, $acc:ident)?) => {
        #[inline(always)]
        pub(super) fn $name($($acc: int16x8_t,)? a: int8x16_t, b: int8x16_t) -> int16x8_t {
            high!(@ $code, a, b $(, $acc)?)
        }
    };
    (@ $code:literal, $a:ident, $b:ident) => {{
        let out;
        // SAFETY: one instruction on registers, which every aarch64 CPU with NEON has.
        unsafe {
            asm!(concat!($code, " {0:v}.8h, {1:v}.16b, {2:v}.16b"), lateout(vreg) out, in(vreg) $a, in(vreg) $b,
                 options(pure, nomem, nostack, preserves_flags));
        }
        out
    }};
    (@ $code:literal, $a:ident, $b:ident, $acc:ident) => {{
        let mut out = $acc;
        // SAFETY: as above.
        unsafe {
            asm!(concat!($code, " {0:v}.8h, {1:v}.16b, {2:v}.16b"), inout(vreg) out, in(vreg) $a, in(vreg) $b,
                 options(pure, nomem, nostack, preserves_flags));
        }
        out
    }};
}
high!(smull2, "smull2");
high!(smlal2, "smlal2", acc);
