//! A thread pool. Idle workers first spin, because the next matrix of a token is microseconds away, then sleep.
//!
//! ```text
//! caller:  job = work;  state = round + 1, open      worker:  spin, then sleep, until a new round is open
//!          wake sleeping workers                              state + 1: joined, while the round is open
//!          work(0)                                            job(i)
//!          state: closed; wait until it has no members        state − 1; wake the caller if it was the last member
//! ```
//!
//! A round is open until the caller's own share is done, which is when there is no work left. The caller then waits only
//! for workers that have joined: neither for a thread that is slow to wake nor for one that has lost its CPU to another
//! program.
//!
//! Round, flags and number of members are one atomic word, so that all changes to them have one order. A thread announces
//! that it is about to sleep by setting a flag in the word, and the thread that opens or leaves a round sees the flag in
//! the old value of the word that it changes. While no thread sleeps, there is no system call and no lock.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::vec::Vec;

use super::sync::{Arc, AtomicBool, AtomicPtr, AtomicUsize, Condvar, Line, Mutex, Patience, thread};
use crate::storage::{Executor, Task};

/// Mask of the number of workers in the round.
const MEMBERS: usize = 0xffff;
/// Flag: the round can be joined.
const OPEN: usize = 1 << 16;
/// Flag: the caller sleeps until the last member leaves.
const WAITING: usize = 1 << 17;
/// Flag: workers sleep, or are about to.
const ASLEEP: usize = 1 << 18;
/// Flag: workers are to exit.
const STOP: usize = 1 << 19;
/// One round: the counter is in the bits above the flags. It may wrap; a worker that mistakes the current round for the
/// last one that it joined merely skips it.
const ROUND: usize = 1 << 20;

/// What the workers borrow during a round.
type Job<'w> = &'w Task<'w>;

struct Shared {
    /// Round, flags and members.
    state: Line<AtomicUsize>,
    /// The caller's `Job`, while the round is open or has members.
    job: Line<AtomicPtr<()>>,
    /// Whether a round is in progress.
    running: AtomicBool,
    /// Held by a thread from its decision to sleep until it does, and by the thread that wakes it.
    lock: Mutex<()>,
    wake: Condvar,
    done: Condvar,
}

/// A pool of threads, which live as long as it does.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` workers, the caller of [`run`](Executor::run) among them; never more than there are CPUs to
    /// run on, because a thread without a CPU only delays the others.
    pub fn new(threads: usize) -> Self {
        Self::exactly(threads.clamp(1, Self::cpus()))
    }

    /// CPUs that this process may use: those in its affinity mask, limited by the CPU quota of its cgroup, rounded down;
    /// at least one.
    pub fn cpus() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn exactly(workers: usize) -> Self {
        let shared = Arc::new(Shared::new());
        let spawn = |i| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("armlet-{i}")).spawn(move || shared.serve(i)).ok()
        };
        // If the system refuses a thread, the pool has fewer.
        let threads = (1..workers.min(MEMBERS)).map_while(spawn).collect();
        Self { shared, threads }
    }
}

impl Executor for Pool {
    fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `work` on this thread, and on each worker that joins before this thread's call has returned. Within `work`,
    /// or while another thread uses the pool, calls it on this thread only.
    fn run(&self, work: &Task<'_>) {
        let shared = &*self.shared;
        if self.threads.is_empty() || shared.running.swap(true, Ordering::Acquire) {
            work(0);
            return;
        }
        shared.open(&work);
        // Also if `work` panics, the borrow ends only when every member has left.
        let _close = Close(shared);
        work(0);
    }
}

/// Closes the round when dropped.
struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.running.store(false, Ordering::Release);
    }
}

/// Leaves the round when dropped.
struct Leave<'a>(&'a Shared);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        // Kernels do not panic. If one did in a build that unwinds, the pool would be one worker short from then on.
        if std::thread::panicking() {
            std::process::abort();
        }
        self.0.leave();
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            state: Line(AtomicUsize::new(0)),
            job: Line(AtomicPtr::new(core::ptr::null_mut())),
            running: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            done: Condvar::new(),
        }
    }

    /// Opens a round. The caller must close it before `work` goes out of scope.
    fn open(&self, work: &Job<'_>) {
        self.job.0.store(core::ptr::from_ref(work).cast_mut().cast(), Ordering::Relaxed);
        // While no round is open, other threads change only flags.
        let round = (self.state.0.load(Ordering::Relaxed) & !(ROUND - 1)).wrapping_add(ROUND);
        let old = self.state.0.swap(round | OPEN, Ordering::AcqRel);
        if old & ASLEEP != 0 {
            self.with_lock(|| self.wake.notify_all());
        }
    }

    /// Closes the round and waits for its members.
    fn close(&self) {
        let members = |state: usize| state & MEMBERS;
        let now = || self.state.0.load(Ordering::Acquire);
        let left = self.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        if members(left) == 0 || Patience::new().spin(|| members(now()) == 0) {
            return;
        }
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state.0.fetch_or(WAITING, Ordering::AcqRel);
        while members(state) > 0 {
            lock = self.done.wait(lock).unwrap_or_else(PoisonError::into_inner);
            state = now();
        }
    }

    /// Leaves the round.
    fn leave(&self) {
        let old = self.state.0.fetch_sub(1, Ordering::AcqRel);
        if old & (OPEN | WAITING | MEMBERS) == WAITING | 1 {
            self.with_lock(|| self.done.notify_one());
        }
    }

    /// The main loop of worker `i`.
    #[allow(unsafe_code)]
    fn serve(&self, i: usize) {
        let (mut seen, mut patience) = (0, Patience::new());
        while self.join(&mut seen, &mut patience) {
            let _leave = Leave(self);
            let work = self.job.0.load(Ordering::Relaxed).cast_const().cast::<Job<'_>>();
            // SAFETY: this thread is a member of the round. `open` stored the pointer before it opened the round, and what
            // it points to lives until `close` has seen the last member leave, which `_leave` does after this call.
            unsafe { (*work)(i) };
        }
    }

    /// Joins the next round; returns false if the worker is to exit.
    fn join(&self, seen: &mut usize, patience: &mut Patience) -> bool {
        let is_new = |state: usize| state & OPEN != 0 && state & !(ROUND - 1) != *seen;
        let has_come = |state: usize| state & STOP != 0 || is_new(state);
        loop {
            let mut state = self.state.0.load(Ordering::Relaxed);
            while is_new(state) {
                match self.state.0.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => {
                        *seen = state & !(ROUND - 1);
                        return true;
                    }
                    Err(now) => state = now,
                }
            }
            if state & STOP != 0 {
                return false;
            }
            if !patience.spin(|| has_come(self.state.0.load(Ordering::Relaxed))) {
                self.sleep(has_come);
            }
        }
    }

    /// Sleeps until a round is opened or the pool is dropped; not at all if that `has_come`.
    fn sleep(&self, has_come: impl Fn(usize) -> bool) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_come(self.state.0.fetch_or(ASLEEP, Ordering::AcqRel)) {
            // `join` checks again, so a spurious wake-up does no harm.
            drop(self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn with_lock(&self, f: impl FnOnce()) {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        f();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(STOP, Ordering::AcqRel);
        self.shared.with_lock(|| self.shared.wake.notify_all());
        for thread in self.threads.drain(..) {
            // A worker that panics aborts the process, so the result is always `Ok`.
            let _ = thread.join();
        }
    }
}

/// Calls `f` once on each thread of a pool that is not in use: each waits until all have arrived.
#[cfg(test)]
fn on_each(pool: &Pool, f: impl Fn() + Sync) {
    let here = AtomicUsize::new(0);
    pool.run(&|_| {
        f();
        here.fetch_add(1, Ordering::AcqRel);
        while here.load(Ordering::Acquire) < pool.workers() {
            thread::yield_now();
        }
        1
    });
}

#[cfg(all(test, not(loom)))]
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
                    for_each(&pool, n, &|i| {
                        sum.fetch_add(i + 1, Ordering::Relaxed);
                    });
                    assert_eq!(sum.into_inner(), n * (n + 1) / 2);
                }
            }
        }
    }

    /// More threads than CPUs, which only a test can make.
    #[test]
    fn sleeping_workers_wake() {
        let pool = Pool::exactly(5);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let count = AtomicUsize::new(0);
            on_each(&pool, || {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 5);
        }
    }

    /// A round without members ends at once: a caller does not wait for workers that have not joined.
    #[test]
    fn a_caller_does_not_wait_for_workers_that_have_not_joined() {
        let shared = Shared::new();
        let work: Job<'_> = &|_| 0;
        for _ in 0..3 {
            shared.open(&work);
            shared.close();
        }
        // A worker that arrives now is too late.
        shared.state.0.fetch_or(STOP, Ordering::Relaxed);
        assert!(!shared.join(&mut 0, &mut Patience::new()));
    }

    /// A call within a call, or beside one on another thread, is executed by the calling thread.
    #[test]
    fn runs_within_and_beside_runs() {
        let pool = Pool::exactly(3);
        let count = AtomicUsize::new(0);
        for_each(&pool, 10, &|_| {
            for_each(&pool, 10, &|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..100 {
                        for_each(&pool, 10, &|_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 100 + 4 * 100 * 10);
    }

    /// The borrow ends when all members have left, also if the caller's share panics.
    #[test]
    fn a_panic_of_the_caller_is_waited_out() {
        let pool = Pool::exactly(3);
        let caller = std::thread::current().id();
        let (come, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(&|_| {
                come.fetch_add(1, Ordering::AcqRel);
                while come.load(Ordering::Acquire) < 3 {
                    std::thread::yield_now();
                }
                if std::thread::current().id() == caller {
                    panic!("the caller's share");
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
                left.fetch_add(1, Ordering::Relaxed)
            });
        }));
        assert!(result.is_err());
        assert_eq!(left.into_inner(), 2);
        on_each(&pool, || ());
    }
}

/// Explores every interleaving up to a number of preemptions: `RUSTFLAGS="--cfg loom" cargo test --lib host::pool`.
#[cfg(all(test, loom))]
#[allow(unsafe_code)]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;

    /// Borrowed data under loom, which fails if a write is not ordered with another access.
    struct Lent(UnsafeCell<[usize; 2]>);
    // SAFETY: that no two threads access it at once is what the models check.
    unsafe impl Sync for Lent {}

    fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model);
    }

    /// Rounds in which workers take items from a counter: a worker sees what the caller wrote, and the caller what the
    /// workers wrote.
    fn rounds(workers: usize, rounds: usize) {
        let pool = Pool::exactly(workers);
        for round in 1..=rounds {
            let lent = [0, 1].map(|i| Lent(UnsafeCell::new([round, i])));
            let next = AtomicUsize::new(0);
            let lent_ref = &lent;
            pool.run(&|_| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(Lent(cell)) = lent_ref.get(i) else { return 0 };
                    // SAFETY: the counter gives each item to one thread.
                    cell.with_mut(|x| unsafe {
                        assert_eq!(*x, [round, i]);
                        (*x)[1] += 10;
                    });
                }
            });
            for (i, Lent(cell)) in lent.iter().enumerate() {
                // SAFETY: the round is over.
                cell.with(|x| unsafe { assert_eq!(*x, [round, i + 10]) });
            }
        }
    }

    #[test]
    fn one_worker_two_rounds() {
        explore(4, || rounds(2, 2));
    }

    #[test]
    fn two_workers_one_round() {
        explore(2, || rounds(3, 1));
    }

    /// Two preemptions in full size (`ARMLET_DEEP=1`): three quarters of the time of all models.
    #[test]
    fn two_workers_two_rounds() {
        let full = std::env::var_os("ARMLET_DEEP").is_some_and(|value| value == "1");
        explore(if full { 2 } else { 1 }, || rounds(3, 2));
    }

    /// No worker sleeps through a round.
    #[test]
    fn everybody_comes() {
        explore(3, || {
            let pool = Pool::exactly(2);
            on_each(&pool, || ());
            on_each(&pool, || ());
        });
    }

    #[test]
    fn a_pool_without_a_round_ends() {
        explore(4, || drop(Pool::exactly(3)));
    }
}
