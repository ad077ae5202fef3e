//! The caller's cores as an executor.

use core::cell::Cell;
use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::{ARMLET_MAX_WORKERS, armlet_parallel_for};
use crate::storage::{Executor, Work};

const MAX_WORKERS: usize = ARMLET_MAX_WORKERS as usize;

/// The cores of a firmware: all alike, each with its share and nothing else to do.
pub(super) struct CallbackExecutor {
    user: *mut c_void,
    parallel_for: armlet_parallel_for,
    workers: u32,
    /// Items that each has taken.
    pub(super) tiles: Cell<[u64; MAX_WORKERS]>,
    /// The largest difference between two of them in one run.
    pub(super) imbalance: Cell<u32>,
}

// SAFETY: `Executor` wants `Sync` because hosts run passes of several engines on one pool. This one belongs to one
// context, which one thread at a time uses; what the cores share is in `Job`.
unsafe impl Sync for CallbackExecutor {}

/// A run: what the cores are told.
struct Job<'w> {
    work: &'w Work<'w>,
    taken: [AtomicU32; MAX_WORKERS],
}

/// What `parallel_for` calls on each core.
///
/// # Safety
/// `arg` is the `Job` of a run that has not returned.
unsafe extern "C" fn work(arg: *mut c_void, core: u32) {
    // SAFETY: the caller's.
    let job = unsafe { &*arg.cast_const().cast::<Job<'_>>() };
    let taken = (job.work)(core as usize);
    if let Some(count) = job.taken.get(core as usize) {
        count.fetch_add(u32::try_from(taken).unwrap_or(u32::MAX), Relaxed);
    }
}

impl CallbackExecutor {
    pub(super) fn new(user: *mut c_void, parallel_for: armlet_parallel_for, workers: u32) -> Self {
        CallbackExecutor { user, parallel_for, workers, tiles: Cell::new([0; MAX_WORKERS]), imbalance: Cell::new(0) }
    }
}

impl Executor for CallbackExecutor {
    fn workers(&self) -> usize {
        self.workers as usize
    }

    fn run(&self, all: &Work<'_>) {
        let Some(parallel_for) = self.parallel_for else { return };
        let job = Job { work: all, taken: [const { AtomicU32::new(0) }; MAX_WORKERS] };
        // SAFETY: the callback's contract: it calls `work` while `job` lives, and returns when all calls have.
        unsafe { parallel_for(self.user, self.workers, work, core::ptr::from_ref(&job).cast_mut().cast()) };
        let mut tiles = self.tiles.get();
        let (mut least, mut most) = (u32::MAX, 0);
        for (total, taken) in tiles.iter_mut().zip(&job.taken).take(self.workers as usize) {
            let taken = taken.load(Relaxed);
            *total += u64::from(taken);
            (least, most) = (least.min(taken), most.max(taken));
        }
        self.tiles.set(tiles);
        self.imbalance.set(self.imbalance.get().max(most.saturating_sub(least)));
    }

    fn even(&self) -> bool {
        true
    }
}
