//! Proof that the CPU has instructions: values without size, which only this module can make.
//!
//! A token is made where the features were detected, or in a function that is compiled for them, which nothing may call
//! without having detected them. So a function that takes a token may execute its instructions.

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

    /// The CPU must have NEON: the compiler wants `unsafe` unless the caller is compiled for it.
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

    /// The CPU must have the features: the compiler wants `unsafe` unless the caller is compiled for them.
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

    /// The CPU must have the features: the compiler wants `unsafe` unless the caller is compiled for them.
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

/// An expression of NEON intrinsics, which `$token` allows: `simd!(token, expression)`.
///
/// Most of them are safe but for the instructions they need. Those that load and store get pointers to arrays or
/// references to them: every use keeps pointer arithmetic inside the array that was its function's argument.
macro_rules! simd {
    ($token:expr, $e:expr) => {{
        let _: $crate::arch::aarch64::tokens::Neon = $crate::arch::aarch64::tokens::NeonToken::neon($token);
        // SAFETY: the token proves the instructions; loads and stores stay inside the arrays that they were given.
        unsafe { $e }
    }};
}
pub(super) use simd;
