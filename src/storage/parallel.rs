//! Work shared among threads, without trusting who runs it.
//!
//! The core has no threads. It hands an [`Executor`] a closure that may be called from several threads at once, any
//! number of times; inside, each call takes items that no other has taken. Whatever the executor does, an item is
//! taken exactly once, and items write to disjoint [`Tile`]s. So a buggy executor can make a result late, but
//! it can neither make two threads write the same element nor change a bit of the result.

#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::Plain;
use crate::util::{rest, times};

/// Something that can run a closure on several threads.
pub trait Executor: Sync {
    /// How many threads [`run`](Executor::run) may use, at least 1.
    fn workers(&self) -> usize;

    /// Calls `task` on up to [`workers`](Executor::workers) threads at once and returns when all the calls have. Each
    /// call says which of the threads it is on, from 0, and returns how many items of the work it took.
    ///
    /// A thread should always be the same one: it then finds much of what it works on in its own cache.
    fn run(&self, task: &Task<'_>);

    /// Whether every call is to take equally many items, to one, instead of as many as it can: for threads that have a
    /// core each to themselves, all alike.
    fn static_schedule(&self) -> bool {
        false
    }
}

/// What an [`Executor`] runs, told which thread it is on.
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
/// Each thread begins at its own part of the items, then helps the others. So where items are in the order of what they
/// read and write, as tokens are, a thread reads what it wrote itself in the step before: a line of memory that another
/// core has written takes as long as dozens of products.
///
/// One copy of this for all `f`: an item is so much work that a call by pointer does not show.
pub fn for_each(exec: &dyn Executor, n: usize, f: &(dyn Fn(usize) + Sync)) {
    let workers = exec.workers();
    if n <= 1 || workers <= 1 {
        // Without an atomic too: where memory is not cached, a CPU need not have any.
        for i in 0..n {
            f(i);
        }
        return;
    }
    let queue = WorkQueue::new(n, workers, exec.static_schedule());
    exec.run(&|worker| queue.take(worker, f));
    // Nothing, unless the executor called the work too seldom.
    while queue.take(0, f) > 0 {}
}

/// Numbers whose bits say which shares are taken: for up to 512 threads, and few on the stack of firmware.
const BITMAP_WORDS: usize = if cfg!(target_os = "none") { 1 } else { 512 / usize::BITS as usize };
/// Most shares, and most threads that get any.
const MAX_SHARES: usize = BITMAP_WORDS * usize::BITS as usize;
/// Shares of a thread, where there are as many items: taking one costs a line of memory that all threads write.
const SHARES_PER_THREAD: usize = 8;
/// Fewest shares, where there are as many items.
const MIN_SHARES: usize = 64;

/// Items dealt out among threads.
struct WorkQueue {
    items: usize,
    workers: usize,
    /// Shares, at most as many as `taken` has bits.
    count: usize,
    /// Whether a thread takes one share, of items that lie `count` apart because neighbours are alike; else any number
    /// of shares, of items side by side.
    static_schedule: bool,
    /// A bit for each share.
    taken: [AtomicUsize; BITMAP_WORDS],
}

impl WorkQueue {
    fn new(items: usize, workers: usize, static_schedule: bool) -> Self {
        let workers = workers.min(MAX_SHARES);
        let most = if static_schedule {
            workers
        } else {
            (workers * SHARES_PER_THREAD).clamp(MIN_SHARES, MAX_SHARES.max(MIN_SHARES))
        };
        let taken = [const { AtomicUsize::new(0) }; BITMAP_WORDS];
        WorkQueue { items, workers, count: items.min(most).min(MAX_SHARES), static_schedule, taken }
    }

    /// Takes what is `worker`'s and, unless shares are to be even, what others have not taken yet; says how many items.
    fn take(&self, worker: usize, f: &(dyn Fn(usize) + Sync)) -> usize {
        let own = times(rest(worker, self.workers) * self.count, self.workers);
        let mut items = 0;
        for i in 0..self.count {
            let share = rest(own + i, self.count);
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

    /// Takes a share; whether it was still there.
    fn claim(&self, share: usize) -> bool {
        let bit = 1 << (share % usize::BITS as usize);
        // Relaxed: the bits only deal out shares; `run` orders the items' effects before its return.
        let set = |word: &AtomicUsize| {
            word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
        };
        self.taken.get(share / usize::BITS as usize).is_some_and(set)
    }

    /// Where a share of items side by side ends, and the next begins.
    fn end(&self, shares: usize) -> usize {
        shares * times(self.items, self.count) + shares.min(rest(self.items, self.count))
    }

    /// Runs the items of a share; says how many those are.
    fn run(&self, share: usize, f: &(dyn Fn(usize) + Sync)) -> usize {
        let (mut i, last, step) = if self.static_schedule {
            (share, self.items, self.count)
        } else {
            (self.end(share), self.end(share + 1), 1)
        };
        let mut items = 0;
        while i < last {
            f(i);
            i += step;
            items += 1;
        }
        items
    }
}

/// A row-major matrix cut into tiles, each of which one thread may write.
pub struct Grid<'a, T> {
    data: *mut T,
    rows: usize,
    cols: usize,
    /// Rows and columns of a tile.
    height: usize,
    width: usize,
    /// Tiles one above the other and side by side.
    tiles: [usize; 2],
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: `Grid` gives out nothing by itself; `for_each_tile` hands each tile to one thread, which is as if the
// tiles were `&mut [T]` sent there.
unsafe impl<T: Send> Sync for Grid<'_, T> {}
// SAFETY: it stands for a `&mut [T]`.
unsafe impl<T: Send> Send for Grid<'_, T> {}

impl<'a, T: Plain> Grid<'a, T> {
    /// Cuts `data`, `(rows, cols)`, into tiles of `height` rows and `width` columns, at least 1 each: all tiles of the
    /// first rows, then those of the next. The last of either may be smaller; a part of a row is left out.
    pub fn new(data: &'a mut [T], cols: usize, [height, width]: [usize; 2]) -> Self {
        let (rows, height, width) = (times(data.len(), cols), height.max(1), width.max(1));
        let tiles = [rows.div_ceil(height), cols.div_ceil(width)];
        Self { data: data.as_mut_ptr(), rows, cols, height, width, tiles, borrow: PhantomData }
    }

    /// Cuts `data` into tiles of `width` columns.
    pub fn columns(data: &'a mut [T], cols: usize, width: usize) -> Self {
        Grid::new(data, cols, [usize::MAX, width])
    }

    pub(crate) fn tiles(&self) -> usize {
        self.tiles[0] * self.tiles[1]
    }

    /// # Safety
    /// For one `Grid`, no `i` may be asked for twice.
    pub(crate) unsafe fn tile(&self, i: usize) -> Tile<'a, T> {
        let (down, across) = (times(i, self.tiles[1]), rest(i, self.tiles[1]));
        // Saturating, because all rows may be one tile of any height.
        let first = down.saturating_mul(self.height).min(self.rows);
        let start = (across * self.width).min(self.cols);
        Tile {
            data: self.data,
            first,
            rows: self.height.min(self.rows - first),
            stride: self.cols,
            start,
            width: self.width.min(self.cols - start),
            borrow: PhantomData,
        }
    }
}

/// Some rows and columns of a row-major matrix, with the right to write them.
pub struct Tile<'a, T> {
    data: *mut T,
    first: usize,
    rows: usize,
    stride: usize,
    start: usize,
    width: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T: Plain> Tile<'_, T> {
    /// The rows that this tile covers.
    pub fn rows(&self) -> core::ops::Range<usize> {
        self.first..self.first + self.rows
    }

    /// The columns that this tile covers.
    pub fn columns(&self) -> core::ops::Range<usize> {
        self.start..self.start + self.width
    }

    /// Row `r` of the tile; empty when it has no such row.
    pub fn row(&mut self, r: usize) -> &mut [T] {
        if r >= self.rows {
            return &mut [];
        }
        // SAFETY: `first + rows` rows are there, `r < rows` and `start + width <= stride`, so the range lies inside the
        // matrix; the tile is the only one with these elements (the contract of `Grid::tile`), and `&mut self` makes
        // this its only borrow.
        unsafe {
            core::slice::from_raw_parts_mut(self.data.add((self.first + r) * self.stride + self.start), self.width)
        }
    }

    /// The tile of the columns `range`, counted from this tile's first; cut to what there is.
    pub fn sub(&mut self, range: core::ops::Range<usize>) -> Tile<'_, T> {
        let start = range.start.min(self.width);
        let width = range.end.clamp(start, self.width) - start;
        Tile { start: self.start + start, width, borrow: PhantomData, ..*self }
    }
}

impl<'a, T: Plain> From<&'a mut [T]> for Tile<'a, T> {
    /// A matrix of one row, whole.
    fn from(row: &'a mut [T]) -> Self {
        Tile {
            data: row.as_mut_ptr(),
            first: 0,
            rows: 1,
            stride: row.len(),
            start: 0,
            width: row.len(),
            borrow: PhantomData,
        }
    }
}

/// Matrices cut alike, which may be of several types; for each index, one tile of each.
pub trait Outputs: Sync {
    /// A tile of each.
    type Tiles;

    /// How many indices there are.
    fn tiles(&self) -> usize;

    /// The tiles of index `i`.
    ///
    /// # Safety
    /// No `i` may be asked for twice.
    unsafe fn tile(&self, i: usize) -> Self::Tiles;
}

impl<'a, T: Plain + Send, const N: usize> Outputs for [Grid<'a, T>; N] {
    type Tiles = [Tile<'a, T>; N];

    fn tiles(&self) -> usize {
        self.iter().map(Grid::tiles).min().unwrap_or(0)
    }

    unsafe fn tile(&self, i: usize) -> Self::Tiles {
        // SAFETY: the caller's promise is `Grid::tile`'s.
        self.each_ref().map(|grid| unsafe { grid.tile(i) })
    }
}

impl<A: Outputs, B: Outputs> Outputs for (A, B) {
    type Tiles = (A::Tiles, B::Tiles);

    fn tiles(&self) -> usize {
        self.0.tiles().min(self.1.tiles())
    }

    unsafe fn tile(&self, i: usize) -> Self::Tiles {
        // SAFETY: the caller's promise holds for both.
        unsafe { (self.0.tile(i), self.1.tile(i)) }
    }
}

/// Calls `f(i, row)` once for each row of `width` elements that `data` holds.
pub fn for_each_row<T: Plain + Send>(
    exec: &dyn Executor,
    data: &mut [T],
    width: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let cols = data.len();
    for_each_tile(exec, [Grid::columns(data, cols, width)], |[mut tile]| {
        let i = times(tile.columns().start, width);
        f(i, tile.row(0));
    });
}

/// Calls `f` once for each index of a tile with that tile of every matrix in `outputs`.
///
/// All matrices must be cut into equally many tiles; the smallest number counts.
pub fn for_each_tile<O: Outputs>(exec: &dyn Executor, outputs: O, f: impl Fn(O::Tiles) + Sync) {
    // SAFETY: `for_each` gives each index to one call only.
    for_each(exec, outputs.tiles(), &|i| f(unsafe { outputs.tile(i) }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::vec::Vec;

    /// An executor that calls the work as often as it likes, from two threads.
    struct Eager {
        calls: usize,
        static_schedule: bool,
    }
    impl Executor for Eager {
        fn workers(&self) -> usize {
            2
        }
        fn run(&self, task: &Task<'_>) {
            std::thread::scope(|s| {
                for i in 0..self.calls {
                    s.spawn(move || task(i % 3));
                }
            });
        }
        fn static_schedule(&self) -> bool {
            self.static_schedule
        }
    }

    #[test]
    fn every_element_is_written_once_whatever_the_executor_does() {
        let eager = [0, 1, 5]
            .into_iter()
            .flat_map(|calls| [true, false].map(|static_schedule| Eager { calls, static_schedule }));
        for exec in eager.map(|e| Box::new(e) as Box<dyn Executor>).chain([Box::new(Serial) as Box<dyn Executor>]) {
            let exec = &*exec;
            let shapes = [(1, 1, 1), (3, 10, 4), (2, 64, 64), (5, 7, 100), (0, 5, 2), (3, 200, 1)];
            let heights = [1, 2, 4, usize::MAX];
            for ((rows, cols, width), height) in shapes.into_iter().flat_map(|s| heights.map(|h| (s, h))) {
                let mut a = vec![0u32; rows * cols];
                let mut b = vec![0u8; rows * cols];
                let cut = [height, width];
                let outputs = ([Grid::new(&mut a, cols, cut)], [Grid::new(&mut b, cols, cut)]);
                for_each_tile(exec, outputs, |([mut x], [mut y])| {
                    let ([first, down], covered) = ([x.columns().start, x.rows().start], x.rows().len());
                    assert!(covered <= height && x.columns().len() <= width);
                    for r in 0..covered {
                        for (c, v) in x.row(r).iter_mut().enumerate() {
                            *v += ((down + r) * cols + first + c) as u32 + 1;
                        }
                        for v in y.sub(1..3).row(r) {
                            *v += 1;
                        }
                    }
                    assert!(x.row(covered).is_empty());
                });
                assert!(a.iter().enumerate().all(|(i, &v)| v == i as u32 + 1));
                let in_sub = |c: usize| (1..3).contains(&(c % width));
                assert!(b.iter().enumerate().all(|(i, &v)| v == u8::from(in_sub(i % cols))));
            }
        }
    }

    /// An executor of three workers that notes how much each call took.
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
                let queue = WorkQueue::new(items, workers, false);
                assert!(queue.count <= MAX_SHARES && (queue.end(0), queue.end(queue.count)) == (0, items));
                let sizes = (0..queue.count).map(|s| queue.end(s + 1) - queue.end(s));
                let (least, most) = sizes.fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
                assert!(least >= 1 && most - least <= 1, "{items} items, {workers} workers");
            }
        }
    }

    #[test]
    fn each_worker_begins_at_its_own_part() {
        for (n, worker, first) in [(4, 0, 0), (4, 1, 1), (4, 3, 3), (1000, 1, 250), (1000, 7, 750), (3, 2, 1)] {
            let order = std::sync::Mutex::new(Vec::new());
            let taken = WorkQueue::new(n, 4, false).take(worker, &|i| order.lock().unwrap().push(i));
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
