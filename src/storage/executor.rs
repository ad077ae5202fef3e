//! Work items divided among threads, without trusting the executor that runs them.
//!
//! The core has no threads. It hands an [`Executor`] a closure that may be called from several threads at once, any
//! number of times; inside, each call claims items that no other call has claimed. Whatever the executor does, each
//! item runs exactly once. So a faulty executor can make a result late, but it cannot change a bit of it, nor make two
//! threads write the same element.

use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Something that can run a closure on several threads.
pub trait Executor: Sync {
    /// How many threads [`run`](Executor::run) may use, at least 1.
    fn workers(&self) -> usize;

    /// Calls `task` on up to [`workers`](Executor::workers) threads at once and returns when all the calls have. Each
    /// call is given the number of its thread, from 0, and returns how many items it ran.
    ///
    /// A number should always be the same thread: it then finds much of its data in its own cache.
    fn run(&self, task: &Task<'_>);

    /// Whether items are divided statically, one share for each call, so that counts differ by at most one, instead of
    /// dynamically: for threads that have a core each to themselves, all alike.
    fn static_schedule(&self) -> bool {
        false
    }
}

/// What an [`Executor`] runs, given the number of the thread.
pub type Task<'w> = dyn Fn(usize) -> usize + Sync + 'w;

/// The calling thread alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Executor for Serial {
    fn workers(&self) -> usize {
        1
    }

    fn run(&self, task: &Task<'_>) {
        task(0);
    }
}

/// Calls `f(0)` … `f(n - 1)`, each exactly once, on the executor's threads.
///
/// Each thread starts with its own share of the items, then helps the others. So where items are in the order of the
/// data they read and write, as tokens are, a thread reads what it wrote in the step before: a cache line that another
/// core has written costs as much as dozens of products.
///
/// Not generic over `f`, so compiled once: an item is so much work that an indirect call does not show.
pub fn for_each(exec: &dyn Executor, n: usize, f: &(dyn Fn(usize) + Sync)) {
    let workers = NonZeroUsize::new(exec.workers()).unwrap_or(NonZeroUsize::MIN);
    if n <= 1 || workers.get() == 1 {
        // Without an atomic too: where memory is not cached, a CPU need not have any.
        for i in 0..n {
            f(i);
        }
        return;
    }
    let queue = WorkQueue::new(n, workers, exec.static_schedule());
    exec.run(&|worker| queue.take(worker, f));
    // Nothing is left, unless the executor called the task too seldom.
    while queue.take(0, f) > 0 {}
}

/// As [`for_each`]; `f` is given the number of the call that runs an item, less than `calls`, before the item's.
///
/// No two calls that run at the same time have the same number, whatever the executor calls its threads. Where it makes
/// more calls than there are numbers, those beyond run nothing.
pub(super) fn for_each_in_calls(exec: &dyn Executor, n: usize, calls: usize, f: &(dyn Fn(usize, usize) + Sync)) {
    let workers = NonZeroUsize::new(exec.workers().min(calls)).unwrap_or(NonZeroUsize::MIN);
    if n <= 1 || workers.get() == 1 {
        (0..n).for_each(|i| f(0, i));
        return;
    }
    let queue = WorkQueue::new(n, workers, exec.static_schedule());
    let next = AtomicUsize::new(0);
    // Relaxed: the number only tells calls apart; `run` orders the items' effects before its return.
    let number = || next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |i| (i < calls).then_some(i + 1));
    exec.run(&|worker| number().map_or(0, |call| queue.take(worker, &|i| f(call, i))));
    // Those calls are over, so what the executor left may have one of their numbers.
    while queue.take(0, &|i| f(0, i)) > 0 {}
}

/// Words of the bitmap of claimed shares: for up to 512 threads, and small on the stack of firmware.
const BITMAP_WORDS: usize = if cfg!(target_os = "none") { 1 } else { 512 / usize::BITS as usize };
/// Most shares, and most threads that get any.
const MAX_SHARES: usize = BITMAP_WORDS * usize::BITS as usize;
/// Shares per thread, where there are as many items: claiming one costs a cache line that all threads write.
const SHARES_PER_THREAD: usize = 8;
/// Fewest shares, where there are as many items.
const MIN_SHARES: usize = 64;

/// Items divided into shares, which threads claim one after another.
struct WorkQueue {
    items: usize,
    workers: NonZeroUsize,
    /// Number of shares, at most as many as `claimed` has bits.
    shares: NonZeroUsize,
    /// Whether a thread runs one share, of every `shares`-th item because neighbours cost alike; else any number of
    /// shares, of consecutive items.
    static_schedule: bool,
    /// A bit for each share.
    claimed: [AtomicUsize; BITMAP_WORDS],
}

impl WorkQueue {
    fn new(items: usize, workers: NonZeroUsize, static_schedule: bool) -> Self {
        let threads = workers.get().min(MAX_SHARES);
        let most = match static_schedule {
            true => threads,
            false => (threads * SHARES_PER_THREAD).clamp(MIN_SHARES, MAX_SHARES.max(MIN_SHARES)),
        };
        let one = NonZeroUsize::MIN;
        WorkQueue {
            items,
            workers: NonZeroUsize::new(threads).unwrap_or(one),
            shares: NonZeroUsize::new(items.min(most).min(MAX_SHARES)).unwrap_or(one),
            static_schedule,
            claimed: [const { AtomicUsize::new(0) }; BITMAP_WORDS],
        }
    }

    /// Runs the share of `worker` and, with a dynamic schedule, those that others have not claimed yet; returns the
    /// number of items run.
    fn take(&self, worker: usize, f: &(dyn Fn(usize) + Sync)) -> usize {
        let own = worker % self.workers * self.shares.get() / self.workers;
        let mut items = 0;
        for i in 0..self.shares.get() {
            let share = (own + i) % self.shares;
            if !self.claim(share) {
                continue;
            }
            items += self.run(share, f);
            if self.static_schedule {
                break;
            }
        }
        items
    }

    /// Claims a share; false if another call has it.
    fn claim(&self, share: usize) -> bool {
        let bit = 1 << (share % usize::BITS as usize);
        // Relaxed: the bits only divide the shares; `run` orders the items' effects before its return.
        let set = |word: &AtomicUsize| {
            word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
        };
        self.claimed.get(share / usize::BITS as usize).is_some_and(set)
    }

    /// The first item of a share of consecutive items; the end of the one before.
    fn start(&self, share: usize) -> usize {
        share * (self.items / self.shares) + share.min(self.items % self.shares)
    }

    /// Runs the items of a share; returns how many.
    fn run(&self, share: usize, f: &(dyn Fn(usize) + Sync)) -> usize {
        let (mut i, end, step) = match self.static_schedule {
            true => (share, self.items, self.shares.get()),
            false => (self.start(share), self.start(share + 1), 1),
        };
        let mut items = 0;
        while i < end {
            f(i);
            i += step;
            items += 1;
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn queue(items: usize, workers: usize) -> WorkQueue {
        WorkQueue::new(items, NonZeroUsize::new(workers).unwrap(), false)
    }

    /// An executor of three workers that notes how many items each call ran.
    struct Noting(std::sync::Mutex<Vec<usize>>);
    impl Executor for Noting {
        fn workers(&self) -> usize {
            3
        }
        fn run(&self, task: &Task<'_>) {
            let taken = (0..3).map(task).collect();
            *self.0.lock().unwrap() = taken;
        }
        fn static_schedule(&self) -> bool {
            true
        }
    }

    #[test]
    fn shares_of_any_number_of_items_fit_together() {
        for items in [1, 2, 63, 64, 65, 1000, usize::MAX / 2, usize::MAX - 1] {
            for workers in [2, 3, 7, 64, 100, 512, 1_000_000] {
                let queue = queue(items, workers);
                let shares = queue.shares.get();
                assert!(shares <= MAX_SHARES && (queue.start(0), queue.start(shares)) == (0, items));
                let sizes = (0..shares).map(|s| queue.start(s + 1) - queue.start(s));
                let (least, most) = sizes.fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
                assert!(least >= 1 && most - least <= 1, "{items} items, {workers} workers");
            }
        }
    }

    #[test]
    fn each_worker_starts_with_its_own_share() {
        for (n, worker, first) in [(4, 0, 0), (4, 1, 1), (4, 3, 3), (1000, 1, 250), (1000, 7, 750), (3, 2, 1)] {
            let order = std::sync::Mutex::new(Vec::new());
            let taken = queue(n, 4).take(worker, &|i| order.lock().unwrap().push(i));
            let order = order.into_inner().unwrap();
            assert!(taken == n && order.len() == n && order[0].abs_diff(first) <= n / 64, "{n}, {worker}: {order:?}");
        }
    }

    #[test]
    fn static_shares_differ_by_one_item_at_most() {
        for n in [2, 3, 4, 11, 12, 100] {
            let exec = Noting(std::sync::Mutex::default());
            for_each(&exec, n, &|_| ());
            let taken = exec.0.into_inner().unwrap();
            assert_eq!(taken.iter().sum::<usize>(), n);
            assert!(taken.iter().max().unwrap() - taken.iter().min().unwrap() <= 1, "{n}: {taken:?}");
        }
    }
}
