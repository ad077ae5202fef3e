//! Synchronisation primitives of the pool: the standard library's, or loom's models of them, which explore every
//! interleaving.

#[cfg(all(test, loom))]
mod parts {
    pub(in crate::host) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
    pub(in crate::host) use loom::sync::{Arc, Condvar, Mutex};
    pub(in crate::host) use loom::thread;

    /// Checks once: in a model it makes no difference how often.
    pub(in crate::host) struct Patience;

    impl Patience {
        pub(in crate::host) fn new() -> Self {
            Patience
        }

        pub(in crate::host) fn spin(&mut self, come: impl Fn() -> bool) -> bool {
            come()
        }
    }
}

#[cfg(not(all(test, loom)))]
mod parts {
    pub(in crate::host) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
    pub(in crate::host) use std::sync::{Arc, Condvar, Mutex};
    pub(in crate::host) use std::thread;
    use std::time::{Duration, Instant};

    /// The longest spin: longer than the time between two matrices of a token, shorter than two wake-ups.
    const LONGEST: Duration = Duration::from_micros(64);
    const SHORTEST: Duration = Duration::from_micros(2);
    /// Checks between two readings of the clock.
    const LOOKS: usize = 64;

    /// How long a thread spins before it sleeps: half as long after it spun in vain, twice as long after it did not.
    pub(in crate::host) struct Patience(Duration);

    impl Patience {
        pub(in crate::host) fn new() -> Self {
            Patience(LONGEST)
        }

        /// Spins until `come` returns true; returns false when the time is over. Time during which the thread was
        /// preempted counts: another program then needs the CPU more.
        pub(in crate::host) fn spin(&mut self, come: impl Fn() -> bool) -> bool {
            let mut start = None;
            loop {
                for _ in 0..LOOKS {
                    if come() {
                        self.0 = (self.0 * 2).min(LONGEST);
                        return true;
                    }
                    core::hint::spin_loop();
                }
                if start.get_or_insert_with(Instant::now).elapsed() > self.0 {
                    self.0 = (self.0 / 2).max(SHORTEST);
                    return false;
                }
            }
        }
    }
}

pub(super) use parts::*;

/// A value on cache lines of its own (two, because some CPUs fetch them in pairs), against false sharing.
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);
