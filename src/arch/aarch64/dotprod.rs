//! NEON with the Armv8.2 dot product: Cortex-A55, A76 and later.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::{I8x32, fold, neon_isa, simd, vmovn_s32_pair};
use crate::arch::isa::Isa;
use crate::arch::{Backend, Kernels, kernels};

/// Proof that the CPU has NEON and the dot product.
#[derive(Clone, Copy)]
struct Dotprod(());

/// The kernels, where the CPU can run them.
pub(in crate::arch) fn kernels() -> Option<Kernels> {
    // The token is made only inside functions compiled for these features, whose pointers only this table holds.
    detected().then(|| kernels!(Backend::Dotprod, Dotprod(()), "neon,dotprod"))
}

/// From the operating system; without one, from what the compiler was told.
fn detected() -> bool {
    #[cfg(feature = "std")]
    {
        std::arch::is_aarch64_feature_detected!("dotprod")
    }
    #[cfg(not(feature = "std"))]
    {
        cfg!(target_feature = "dotprod")
    }
}

/// Dot products of two blocks of 32 int8, as four partial sums.
#[inline(always)]
fn products(w: I8x32, x: I8x32) -> int32x4_t {
    // SAFETY: only `Dotprod` calls this, which proves that the CPU has `sdot`.
    unsafe { sdot(sdot(vdupq_n_s32(0), w[0], x[0]), w[1], x[1]) }
}

/// `sdot`: adds to each int32 lane the four products of its bytes. The intrinsic is unstable in Rust 1.95.
///
/// # Safety
/// The CPU has the dot product.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction on registers, which this function is compiled for.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) a, in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

neon_isa!(Dotprod, products, products);
