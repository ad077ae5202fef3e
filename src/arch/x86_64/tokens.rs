//! Proof that the CPU has instructions: values without size, which only this module can make.
//!
//! A token is made where the features were detected, or in a function that is compiled for them, which nothing may call
//! without having detected them. So a function that takes a token may execute its instructions.

use super::cpuid;

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Avx2(());

/// Proof that the CPU has AVX-512 F, BW, VL and VNNI, AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Avx512(Avx2);

impl Avx2 {
    /// `None` where the CPU lacks a feature.
    pub(super) fn new() -> Option<Self> {
        cpuid::avx2_fma_f16c().then_some(Avx2(()))
    }

    /// The CPU must have the features: the compiler wants `unsafe` unless the caller is compiled for them.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn new_unchecked() -> Self {
        Avx2(())
    }
}

impl Avx512 {
    /// `None` where the CPU lacks a feature.
    pub(super) fn new() -> Option<Self> {
        let avx2 = Avx2::new()?;
        cpuid::avx512_vnni().then_some(Avx512(avx2))
    }

    /// The CPU must have the features: the compiler wants `unsafe` unless the caller is compiled for them.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn new_unchecked() -> Self {
        Avx512(Avx2::new_unchecked())
    }
}
