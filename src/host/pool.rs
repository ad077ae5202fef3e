//! Threads that wait for work: they spin a little, for the next step of a token is microseconds away, then sleep.
//!
//! ```text
//! caller:  job = work;  state = round + 1, open      worker:  spin, then sleep, until open and a new round
//!          wake who sleeps                                    state + 1: joined, while it is open
//!          work(0)                                            job(i)
//!          state: closed; wait until nobody is in it          state − 1; wake the caller if it was the last
//! ```
//!
//! A round is open until the caller's own share is done, which is when there is no work left. So the caller waits for
//! nobody who has not begun: neither for a thread that is slow to wake nor for one whose CPU another program has.
//!
//! All of it is one number, so that each change to it is ordered with each other one: who goes to sleep or waits says
//! so in the number, and who opens or leaves a round hears of it by the same change that does so. Where nobody sleeps,
//! there is no system call and no lock.

#![allow(unsafe_code)]

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::vec::Vec;

use super::sync::{Arc, AtomicBool, AtomicPtr, AtomicUsize, Condvar, Line, Mutex, Patience, thread};
use crate::storage::{Executor, Task};

/// Threads in the round.
const MEMBERS: usize = 0xffff;
/// The round can be joined.
const OPEN: usize = 1 << 16;
/// The caller sleeps until the last member leaves.
const WAITING: usize = 1 << 17;
/// Workers sleep, or are about to.
const ASLEEP: usize = 1 << 18;
/// The pool ends.
const STOP: usize = 1 << 19;
/// The number of the round is above the rest. It may wrap: who takes an old round for the present one sits it out.
const ROUND: usize = 1 << 20;

/// What is lent to the workers for the time of a round.
type Job<'w> = &'w Task<'w>;

struct Shared {
    /// Round, flags and members.
    state: Line<AtomicUsize>,
    /// The caller's `Job`, while the round is open or has members.
    job: Line<AtomicPtr<()>>,
    /// Whether there is a caller.
    running: AtomicBool,
    /// Held by who goes to sleep until it does, and by who wakes it.
    lock: Mutex<()>,
    wake: Condvar,
    done: Condvar,
}

/// Threads that stay for the life of the program.
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

    /// CPUs that this process may use: those of its affinity mask, and no more than the whole ones of its cgroup's
    /// quota; at least one.
    pub fn cpus() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn exactly(workers: usize) -> Self {
        let shared = Arc::new(Shared::new());
        let spawn = |i| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("armlet-{i}")).spawn(move || shared.serve(i)).ok()
        };
        // Threads that the system refuses are done without.
        let threads = (1..workers.min(MEMBERS)).map_while(spawn).collect();
        Self { shared, threads }
    }
}

impl Executor for Pool {
    fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `work` here and on each worker that comes before this call has returned from it. Inside `work`, or while
    /// another thread uses the pool, here alone.
    fn run(&self, work: &Task<'_>) {
        let shared = &*self.shared;
        if self.threads.is_empty() || shared.running.swap(true, Ordering::Acquire) {
            work(0);
            return;
        }
        shared.open(&work);
        // Also if `work` panics, the loan ends only when every member has left.
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
        // Kernels do not panic. If one did in a build that unwinds, a worker would be missing from then on.
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

    /// Opens a round. The caller closes it before `work` ends.
    fn open(&self, work: &Job<'_>) {
        self.job.0.store(core::ptr::from_ref(work).cast_mut().cast(), Ordering::Relaxed);
        // Nobody else changes more than a flag of a closed round.
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

    /// A member's last act.
    fn leave(&self) {
        let old = self.state.0.fetch_sub(1, Ordering::AcqRel);
        if old & (OPEN | WAITING | MEMBERS) == WAITING | 1 {
            self.with_lock(|| self.done.notify_one());
        }
    }

    /// The life of worker `i`.
    fn serve(&self, i: usize) {
        let (mut seen, mut patience) = (0, Patience::new());
        while self.join(&mut seen, &mut patience) {
            let _leave = Leave(self);
            let work = self.job.0.load(Ordering::Relaxed).cast_const().cast::<Job<'_>>();
            // SAFETY: this thread is a member of the round, so its caller has stored this pointer before it opened the
            // round and keeps what it points to until the last member has left, which `_leave` does after the call.
            unsafe { (*work)(i) };
        }
    }

    /// Joins the next round; false when the pool ends.
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

    /// Sleeps until somebody opens a round, or ends the pool; not at all if that `has_come`.
    fn sleep(&self, has_come: impl Fn(usize) -> bool) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_come(self.state.0.fetch_or(ASLEEP, Ordering::AcqRel)) {
            // Whatever wakes it, `join` looks again.
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
            // A worker that panics ends the process, so there is nothing to hear from one that ended.
            let _ = thread.join();
        }
    }
}

/// Calls `f` once on each thread of a pool that nobody else uses: who is done waits until all have come.
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

    /// More threads than CPUs, which only a test makes.
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

    /// A round without members ends, so a caller is not held up by workers that have not come.
    #[test]
    fn nobody_waits_for_who_has_not_come() {
        let shared = Shared::new();
        let work: Job<'_> = &|_| 0;
        for _ in 0..3 {
            shared.open(&work);
            shared.close();
        }
        // Who comes now is too late.
        shared.state.0.fetch_or(STOP, Ordering::Relaxed);
        assert!(!shared.join(&mut 0, &mut Patience::new()));
    }

    /// A run within a run, or beside one, is run by who asks for it.
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

    /// The loan ends when all have left, also if the caller's share panics.
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

/// Every order of events, up to a number of preemptions: `RUSTFLAGS="--cfg loom" cargo test --lib host::pool`.
#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;

    /// What is lent, seen by loom: it fails where a write is not ordered with another use.
    struct Lent(UnsafeCell<[usize; 2]>);
    // SAFETY: that the threads do not use it at once is what the models show.
    unsafe impl Sync for Lent {}

    fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model);
    }

    /// Rounds in which items are dealt out, by a counter: what the caller wrote is seen by who
    /// takes an item, and what they wrote is seen by the caller.
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
                    // SAFETY: an item is taken by one thread.
                    cell.with_mut(|x| unsafe {
                        assert_eq!(*x, [round, i]);
                        (*x)[1] += 10;
                    });
                }
            });
            for (i, Lent(cell)) in lent.iter().enumerate() {
                // SAFETY: the run is over.
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

    #[test]
    fn two_workers_two_rounds() {
        explore(2, || rounds(3, 2));
    }

    /// Nobody sleeps through a round that waits for it.
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
