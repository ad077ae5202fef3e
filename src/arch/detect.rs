//! Which kernels run: the best that the CPU has, chosen once.

#[cfg(target_arch = "aarch64")]
use super::aarch64;
use super::backend::Backend;
use super::kernels::Kernels;
use super::scalar;
#[cfg(target_arch = "x86_64")]
use super::x86_64;

/// The backend of an image without an operating system.
const ONLY: Option<Backend> = if !cfg!(all(target_os = "none", target_arch = "aarch64")) {
    None
} else if cfg!(target_feature = "i8mm") {
    Some(Backend::I8mm)
} else if cfg!(all(target_feature = "dotprod", target_feature = "fp16")) {
    Some(Backend::Dotprod)
} else if cfg!(target_feature = "neon") {
    Some(Backend::Neon)
} else {
    Some(Backend::Scalar)
};

impl Kernels {
    /// The best kernels that this CPU can run. Without an operating system: those of the CPU that the library was compiled
    /// for, and no others are in it, because an image is for one chip and has little room.
    pub fn detect() -> Kernels {
        let best = match ONLY {
            Some(only) => Kernels::for_backend(only),
            None => Backend::ALL.into_iter().rev().find_map(Kernels::for_backend),
        };
        let best = best.unwrap_or_else(scalar::kernels);
        debug!("kernels: {}", best.backend.name());
        best
    }

    /// The kernels of `backend`; `None` when this CPU cannot run them.
    pub fn for_backend(backend: Backend) -> Option<Kernels> {
        if ONLY.is_some_and(|only| only != backend) {
            return None;
        }
        match backend {
            Backend::Scalar => Some(scalar::kernels()),
            #[cfg(target_arch = "aarch64")]
            Backend::Neon => aarch64::neon::kernels(),
            #[cfg(target_arch = "aarch64")]
            Backend::Dotprod => aarch64::dotprod::kernels(),
            #[cfg(target_arch = "aarch64")]
            Backend::I8mm => aarch64::i8mm::kernels(),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => x86_64::avx2::kernels(),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => x86_64::avx512::kernels(),
            #[allow(unreachable_patterns, reason = "which arms are above depends on the architecture")]
            _ => None,
        }
    }
}
