//! An executor over the caller's `parallel_for`.

#![allow(unsafe_code)]

use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{ARMLET_MAX_WORKERS, armlet_parallel_for};
use crate::storage::{Executor, Task};

const MAX_WORKERS: usize = ARMLET_MAX_WORKERS as usize;

/// Runs work on the caller's cores.
///
/// One thread at a time uses a context, so the counters are never written by two; they are atomic because an
/// [`Executor`] is `Sync`.
pub(super) struct CallbackExecutor {
    user: AtomicPtr<c_void>,
    parallel_for: armlet_parallel_for,
    workers: u32,
    /// Items that each worker has taken.
    tiles: [AtomicU64; MAX_WORKERS],
    /// The largest difference between two workers' items in one call.
    imbalance: AtomicU32,
}

/// What the cores share during one call of `parallel_for`.
struct Job<'w> {
    task: &'w Task<'w>,
    taken: [AtomicU32; MAX_WORKERS],
}

/// What `parallel_for` calls on each core.
///
/// # Safety
/// *Callback*: `arg` is what `parallel_for` was called with, and that call has not returned.
unsafe extern "C" fn work(arg: *mut c_void, core: u32) {
    // SAFETY: callback: `run` passes a `Job` that lives until `parallel_for` returns.
    let job = unsafe { &*arg.cast_const().cast::<Job<'_>>() };
    let taken = (job.task)(core as usize);
    if let Some(count) = job.taken.get(core as usize) {
        count.fetch_add(u32::try_from(taken).unwrap_or(u32::MAX), Relaxed);
    }
}

impl CallbackExecutor {
    pub(super) fn new(user: *mut c_void, parallel_for: armlet_parallel_for, workers: u32) -> Self {
        CallbackExecutor {
            user: AtomicPtr::new(user),
            parallel_for,
            workers,
            tiles: [const { AtomicU64::new(0) }; MAX_WORKERS],
            imbalance: AtomicU32::new(0),
        }
    }

    /// Items that each worker has taken so far.
    pub(super) fn tiles(&self) -> [u64; MAX_WORKERS] {
        self.tiles.each_ref().map(|n| n.load(Relaxed))
    }

    /// The largest difference between two workers' items in one call.
    pub(super) fn imbalance(&self) -> u32 {
        self.imbalance.load(Relaxed)
    }
}

impl Executor for CallbackExecutor {
    fn workers(&self) -> usize {
        self.workers as usize
    }

    fn run(&self, task: &Task<'_>) {
        let Some(parallel_for) = self.parallel_for else { return };
        let job = Job { task, taken: [const { AtomicU32::new(0) }; MAX_WORKERS] };
        let arg = core::ptr::from_ref(&job).cast_mut().cast();
        // SAFETY: callback: it calls `work` with `arg` only before it returns, and `job` lives longer.
        unsafe { parallel_for(self.user.load(Relaxed), self.workers, work, arg) };
        let (mut least, mut most) = (u32::MAX, 0);
        for (total, taken) in self.tiles.iter().zip(&job.taken).take(self.workers as usize) {
            let taken = taken.load(Relaxed);
            // A load and a store, not an atomic addition: there is one writer.
            total.store(total.load(Relaxed) + u64::from(taken), Relaxed);
            (least, most) = (least.min(taken), most.max(taken));
        }
        self.imbalance.store(self.imbalance().max(most.saturating_sub(least)), Relaxed);
    }

    /// The cores are all alike and do nothing else meanwhile.
    fn static_schedule(&self) -> bool {
        true
    }
}
