//! Proof that the CPU has instructions: values without size, which only this module can make.
//!
//! A token is made where the features were detected, or in a function that is compiled for them, which nothing may call
//! without having detected them. So a function that takes a token may execute its instructions.

use super::cpuid;

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Proof that the CPU has AVX-512 F, BW, VL and VNNI, AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(Avx2);

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

/// A token that proves AVX2, FMA and F16C, alone or with more.
pub(crate) trait Avx2Token: Copy {
    fn avx2(self) -> Avx2;
}

impl Avx2Token for Avx2 {
    #[inline(always)]
    fn avx2(self) -> Avx2 {
        self
    }
}

impl Avx2Token for Avx512 {
    #[inline(always)]
    fn avx2(self) -> Avx2 {
        self.0
    }
}

/// An expression of intrinsics, which `$token` allows: `simd!(token, expression)`.
///
/// Most of them are safe but for the instructions they need. Those that load and store get pointers to arrays or
/// references to them: every use keeps pointer arithmetic inside the array that was its function's argument.
macro_rules! simd {
    ($token:expr, $e:expr) => {{
        let _: $crate::arch::x86_64::tokens::Avx2 = $crate::arch::x86_64::tokens::Avx2Token::avx2($token);
        // SAFETY: the token proves the instructions; loads and stores stay inside the arrays that they were given.
        unsafe { $e }
    }};
}
pub(super) use simd;
