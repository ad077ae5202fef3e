//! Tokens: zero-sized values that prove that the CPU has an instruction set. Only this module can make them.
//!
//! There are two ways to get one: `new` detects the CPU's features, and `new_unchecked` can be called without `unsafe`
//! only in functions compiled for those features. So a function that takes a token may execute its instructions.

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

    /// The token without detection.
    ///
    /// # Safety
    /// The CPU has the features. A caller that is compiled for them needs no `unsafe`.
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

    /// The token without detection.
    ///
    /// # Safety
    /// The CPU has the features. A caller that is compiled for them needs no `unsafe`.
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

/// Evaluates an expression of intrinsics: `simd!(token, expression)`.
///
/// Most intrinsics are `unsafe` only because the CPU may lack the instruction; `$token` proves that it does not. The
/// others load and store through pointers, which every use derives from a reference to an array, its function's argument:
/// pointer arithmetic stays inside that array.
macro_rules! simd {
    ($token:expr, $e:expr) => {{
        let _: $crate::arch::x86_64::tokens::Avx2 = $crate::arch::x86_64::tokens::Avx2Token::avx2($token);
        // SAFETY: the token proves the instructions; pointer arithmetic stays inside the array argument.
        unsafe { $e }
    }};
}
pub(super) use simd;
