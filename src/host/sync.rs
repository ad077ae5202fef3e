//! What the pool is made of: the standard library's parts, or loom's models of them, which go through every order in
//! which threads can meet.

#[cfg(all(test, loom))]
mod parts {
    pub(in crate::host) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
    pub(in crate::host) use loom::sync::{Arc, Condvar, Mutex};
    pub(in crate::host) use loom::thread;

    /// Looks once: in a model it makes no difference how often.
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

    /// The longest that a thread spins: more than lies between two steps of a token, less than waking it takes twice.
    const LONGEST: Duration = Duration::from_micros(64);
    const SHORTEST: Duration = Duration::from_micros(2);
    /// Looks between two looks at the clock.
    const LOOKS: usize = 64;

    /// How long a thread spins for something to come before it sleeps: half as long after it was in vain, twice as
    /// long after it was not.
    pub(in crate::host) struct Patience(Duration);

    impl Patience {
        pub(in crate::host) fn new() -> Self {
            Patience(LONGEST)
        }

        /// Spins until `come`; gives up when the time is over, which it also is for who lost the CPU meanwhile: then
        /// another program needs it more.
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

/// On cache lines of its own (two, because some CPUs fetch them in pairs), so that who writes beside it does not
/// disturb who reads it.
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);
