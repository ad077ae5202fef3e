//! Threads that wait for work: they spin a little, for the next step of a token is microseconds away, then sleep.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::vec::Vec;

use crate::storage::Executor;

/// Turns of waiting before a thread sleeps: some tens of microseconds.
const SPINS: usize = 4000;

/// A closure lent to the workers for the time of one `run`.
type Job = *const (dyn Fn() + Sync);

struct Shared {
    /// Number of the current job; workers wait for it to change.
    round: AtomicUsize,
    /// Workers that have not finished the current job.
    busy: AtomicUsize,
    stop: AtomicBool,
    job: Mutex<Option<JobPtr>>,
    wake: Condvar,
}

#[derive(Clone, Copy)]
struct JobPtr(Job);
// SAFETY: the closure is `Sync`, and `Pool::run` keeps it alive until every worker has returned from it.
unsafe impl Send for JobPtr {}

/// Threads that stay for the life of the program.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// One `run` at a time.
    running: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` workers, the caller of [`run`](Executor::run) among them; never more than there are CPUs to
    /// run on (the affinity mask and the cgroup's quota counted), because a spinning thread without a CPU only delays
    /// the others.
    pub fn new(threads: usize) -> Self {
        let workers = threads.clamp(1, Self::cpus());
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            job: Mutex::new(None),
            wake: Condvar::new(),
        });
        let spawn = |i| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("armlet-{i}")).spawn(move || shared.serve()).ok()
        };
        // A thread that the system refuses is done without.
        let threads = (1..workers).filter_map(spawn).collect();
        Self { shared, threads, running: Mutex::new(()) }
    }

    /// CPUs that this process may use.
    pub fn cpus() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

impl Executor for Pool {
    fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    fn run(&self, work: &(dyn Fn() + Sync)) {
        let _one = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        shared.busy.store(self.threads.len(), Ordering::Relaxed);
        // SAFETY: only the lifetime changes. No worker touches the closure after it has decremented `busy`, and this
        // function does not return, not even by a panic (see `Wait`), before `busy` is 0.
        let job: &'static (dyn Fn() + Sync) = unsafe { core::mem::transmute(work) };
        {
            let mut slot = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(JobPtr(job));
            shared.round.fetch_add(1, Ordering::Release);
            shared.wake.notify_all();
        }
        let _wait = Wait(shared);
        work();
    }
}

/// Waits for the workers when dropped, so also when the caller's share of the work panics.
struct Wait<'a>(&'a Shared);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut turns = 0;
        while self.0.busy.load(Ordering::Acquire) > 0 {
            turns += 1;
            if turns < SPINS { core::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

impl Shared {
    fn serve(&self) {
        let mut seen = 0;
        while let Some(job) = self.next(&mut seen) {
            // Kernels do not panic. If one did in a build that unwinds, a worker would be missing from then on.
            let _done = Done(&self.busy);
            // SAFETY: `run` lent the closure and waits for `_done` before it ends the loan.
            unsafe { (*job.0)() };
        }
    }

    /// The next job; `None` when the pool is dropped.
    fn next(&self, seen: &mut usize) -> Option<JobPtr> {
        for _ in 0..SPINS {
            if self.round.load(Ordering::Acquire) != *seen {
                break;
            }
            core::hint::spin_loop();
        }
        let mut slot = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        while self.round.load(Ordering::Acquire) == *seen {
            slot = self.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        *seen = self.round.load(Ordering::Acquire);
        if self.stop.load(Ordering::Relaxed) { None } else { *slot }
    }
}

struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let _slot = self.shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.stop.store(true, Ordering::Relaxed);
            self.shared.round.fetch_add(1, Ordering::Release);
            self.shared.wake.notify_all();
        }
        for thread in self.threads.drain(..) {
            // A worker that panics ends the process, so there is nothing to hear from one that ended.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::for_each;

    #[test]
    fn every_item_is_run_once_in_every_round() {
        for threads in [0, 1, 2, 7, 10_000] {
            let pool = Pool::new(threads);
            assert!((1..=Pool::cpus()).contains(&pool.workers()));
            for n in [0, 1, 2, 100] {
                for _ in 0..200 {
                    let sum = AtomicUsize::new(0);
                    for_each(&pool, n, |i| {
                        sum.fetch_add(i + 1, Ordering::Relaxed);
                    });
                    assert_eq!(sum.into_inner(), n * (n + 1) / 2);
                }
            }
        }
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let count = AtomicUsize::new(0);
            pool.run(&|| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), pool.workers());
        }
    }
}
