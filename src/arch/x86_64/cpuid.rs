//! Feature detection by `cpuid`, without an operating system.

use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

/// Whether the CPU has AVX2, FMA and F16C, and the operating system saves their registers.
///
/// Intel SDM volume 1, section 14.3 and 14.7.1.
pub(super) fn avx2_fma_f16c() -> bool {
    const FMA: u32 = 1 << 12;
    const OSXSAVE: u32 = 1 << 27;
    const AVX: u32 = 1 << 28;
    const F16C: u32 = 1 << 29;
    const AVX2: u32 = 1 << 5;
    const XMM_YMM: u64 = 0b110;

    // Miri has no `cpuid`, and gets the scalar kernels.
    if cfg!(miri) || __cpuid(0).eax < 7 {
        return false;
    }
    let wanted = FMA | OSXSAVE | AVX | F16C;
    if __cpuid(1).ecx & wanted != wanted {
        return false;
    }
    // SAFETY: OSXSAVE is set, so `xgetbv` exists and is enabled.
    let saved = unsafe { xcr0() };
    saved & XMM_YMM == XMM_YMM && __cpuid_count(7, 0).ebx & AVX2 != 0
}

/// Whether the CPU has AVX-512 F, BW, VL and VNNI and what [`avx2_fma_f16c`] wants, and the operating system saves their
/// registers.
///
/// Intel SDM volume 1, section 15.2 to 15.4.
pub(super) fn avx512_vnni() -> bool {
    const F_BW_VL: u32 = 1 << 16 | 1 << 30 | 1 << 31;
    const VNNI: u32 = 1 << 11;
    const OPMASK_ZMM: u64 = 0b1110_0000;

    if !avx2_fma_f16c() {
        return false;
    }
    // SAFETY: `avx2_fma_f16c` saw that OSXSAVE is set, so `xgetbv` exists and is enabled.
    let saved = unsafe { xcr0() };
    let leaf = __cpuid_count(7, 0);
    saved & OPMASK_ZMM == OPMASK_ZMM && leaf.ebx & F_BW_VL == F_BW_VL && leaf.ecx & VNNI != 0
}

/// Which registers the operating system saves.
#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: the function is compiled for `xsave`, and register 0 always exists.
    unsafe { _xgetbv(0) }
}
