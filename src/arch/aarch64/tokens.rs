//! Tokens: zero-sized values that prove that the CPU has an instruction set. Only this module can make them.
//!
//! There are two ways to get one: `new` detects the CPU's features, and `new_unchecked` can be called without `unsafe`
//! only in functions compiled for those features. So a function that takes a token may execute its instructions.

use super::cpu;

/// Proof that the CPU has NEON.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Neon(());

/// Proof that the CPU has NEON, the Armv8.2 dot product and binary16 arithmetic.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Dotprod(Neon);

/// Proof that the CPU has what [`Dotprod`] proves and the Armv8.6 matrix multiplication of int8.
#[derive(Clone, Copy)]
pub(in crate::arch) struct I8mm(Dotprod);

impl Neon {
    /// `None` on a target compiled without floating-point registers.
    pub(super) fn new() -> Option<Self> {
        cfg!(target_feature = "neon").then_some(Neon(()))
    }

    /// The token without detection.
    ///
    /// # Safety
    /// The CPU has NEON. A caller that is compiled for it needs no `unsafe`.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn new_unchecked() -> Self {
        Neon(())
    }
}

impl Dotprod {
    /// `None` where the CPU lacks a feature.
    pub(super) fn new() -> Option<Self> {
        let neon = Neon::new()?;
        (cpu::dotprod() && cpu::fp16()).then_some(Dotprod(neon))
    }

    /// The token without detection.
    ///
    /// # Safety
    /// The CPU has the features. A caller that is compiled for them needs no `unsafe`.
    #[inline]
    #[target_feature(enable = "neon,dotprod,fp16")]
    pub(super) fn new_unchecked() -> Self {
        Dotprod(Neon::new_unchecked())
    }
}

impl I8mm {
    /// `None` where the CPU lacks a feature.
    pub(super) fn new() -> Option<Self> {
        let dotprod = Dotprod::new()?;
        cpu::i8mm().then_some(I8mm(dotprod))
    }

    /// The token without detection.
    ///
    /// # Safety
    /// The CPU has the features. A caller that is compiled for them needs no `unsafe`.
    #[inline]
    #[target_feature(enable = "neon,dotprod,fp16,i8mm")]
    pub(super) fn new_unchecked() -> Self {
        I8mm(Dotprod::new_unchecked())
    }

    /// The weaker token within.
    #[inline(always)]
    pub(super) fn dotprod(self) -> Dotprod {
        self.0
    }
}

/// A token that proves NEON, alone or with more.
pub(in crate::arch) trait NeonToken: Copy {
    fn neon(self) -> Neon;
}

impl NeonToken for Neon {
    #[inline(always)]
    fn neon(self) -> Neon {
        self
    }
}

impl NeonToken for Dotprod {
    #[inline(always)]
    fn neon(self) -> Neon {
        self.0
    }
}

impl NeonToken for I8mm {
    #[inline(always)]
    fn neon(self) -> Neon {
        self.0.0
    }
}

/// Evaluates an expression of NEON intrinsics: `simd!(token, expression)`.
///
/// Most intrinsics are `unsafe` only because the CPU may lack the instruction; `$token` proves that it does not. The
/// others load and store through pointers, which every use derives from a reference to an array, its function's argument:
/// pointer arithmetic stays inside that array.
macro_rules! simd {
    ($token:expr, $e:expr) => {{
        let _: $crate::arch::aarch64::tokens::Neon = $crate::arch::aarch64::tokens::NeonToken::neon($token);
        // SAFETY: the token proves the instructions; pointer arithmetic stays inside the array argument.
        unsafe { $e }
    }};
}
pub(super) use simd;
