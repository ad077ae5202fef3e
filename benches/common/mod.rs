//! What the benchmarks share: backends, and numbers to work on.

use armlet::arch::{Backend, Kernels};

/// Every backend that this CPU can run, with its name; `ARMLET_CPU` leaves the one it names.
pub(crate) fn backends() -> impl Iterator<Item = &'static str> {
    let only = std::env::var("ARMLET_CPU").unwrap_or_default();
    let wanted = move |name: &&str| only.is_empty() || only == *name;
    Backend::ALL.into_iter().filter(|b| Kernels::for_backend(*b).is_some()).map(Backend::name).filter(wanted)
}

/// The kernels of a backend from [`backends`].
pub(crate) fn kernels(name: &str) -> Kernels {
    Backend::from_name(name).and_then(Kernels::for_backend).expect("a backend of this CPU")
}

/// `n` numbers in −1..1, the same every time.
pub(crate) fn noise(n: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}
