//! The instruction sets that have kernels.

/// An instruction set that has kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Backend {
    /// Portable code.
    Scalar,
    /// aarch64 NEON, Armv8.0: Cortex-A53, A72.
    Neon,
    /// NEON with the Armv8.2 dot product (`sdot`) and binary16 arithmetic: Cortex-A55, A76.
    Dotprod,
    /// That and the Armv8.6 int8 matrix multiplication (`smmla`): Cortex-A710, Neoverse V1.
    I8mm,
    /// x86-64 AVX2, FMA and F16C.
    Avx2,
    /// x86-64 AVX-512 with VNNI.
    Avx512,
}

impl Backend {
    /// All backends, the best of an architecture last.
    pub const ALL: [Backend; 6] =
        [Backend::Scalar, Backend::Neon, Backend::Dotprod, Backend::I8mm, Backend::Avx2, Backend::Avx512];

    /// Its name, as `ARMLET_CPU` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Scalar => "scalar",
            Backend::Neon => "neon",
            Backend::Dotprod => "dotprod",
            Backend::I8mm => "i8mm",
            Backend::Avx2 => "avx2",
            Backend::Avx512 => "avx512",
        }
    }

    /// The backend of this name.
    pub fn from_name(name: &str) -> Option<Backend> {
        Backend::ALL.into_iter().find(|b| b.name() == name)
    }
}
