//! Work shared among threads, without trusting who runs it.
//!
//! The core has no threads. It hands an [`Executor`] a closure that may be called from several threads at once, any
//! number of times; inside, each call takes items from one queue until it is empty. Whatever the executor does, an
//! item is taken exactly once, and items write to disjoint [`Tile`]s. So a buggy executor can make a result late, but
//! it can neither make two threads write the same element nor change a bit of the result.

#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{Plain, times};

/// Something that can run a closure on several threads.
pub trait Executor: Sync {
    /// How many threads [`run`](Executor::run) may use, at least 1.
    fn workers(&self) -> usize;

    /// Calls `work` on up to [`workers`](Executor::workers) threads at once and returns when all the calls have. Each
    /// call returns how many items of the work it took.
    fn run(&self, work: &Work<'_>);

    /// Whether every call is to take equally many items, to one, instead of as many as it can: for threads that have a
    /// core each to themselves, all alike.
    fn even(&self) -> bool {
        false
    }
}

/// What an [`Executor`] runs.
pub type Work<'w> = dyn Fn() -> usize + Sync + 'w;

/// The calling thread alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Executor for Serial {
    fn workers(&self) -> usize {
        1
    }

    fn run(&self, work: &Work<'_>) {
        work();
    }
}

/// Calls `f(0)` … `f(n - 1)`, each exactly once, on the executor's threads.
///
/// One copy of this for all `f`: an item is so much work that a call by pointer does not show.
pub fn for_each(exec: &dyn Executor, n: usize, f: &(dyn Fn(usize) + Sync)) {
    let workers = exec.workers();
    if n <= 1 || workers <= 1 {
        // Without a counter too: where memory is not cached, a CPU need not be able to count in it.
        for i in 0..n {
            f(i);
        }
        return;
    }
    // A call takes one share of many items, or any number of shares of one.
    let shares = if exec.even() { workers.min(n) } else { n };
    let next = AtomicUsize::new(0);
    let share = || {
        // Relaxed: the counter only deals out shares; `run` orders the items' effects before its return.
        let first = next.fetch_add(1, Ordering::Relaxed);
        if first >= shares {
            return 0;
        }
        let (mut i, mut taken) = (first, 0);
        while i < n {
            f(i);
            i += shares;
            taken += 1;
        }
        taken
    };
    let all = || {
        let mut taken = 0;
        loop {
            match share() {
                0 => return taken,
                more => taken += more,
            }
        }
    };
    if exec.even() {
        exec.run(&share)
    } else {
        exec.run(&all)
    }
    // Nothing, unless the executor called `work` too seldom.
    all();
}

/// A row-major matrix cut into groups of columns, each of which one thread may write.
pub struct Columns<'a, T> {
    data: *mut T,
    rows: usize,
    cols: usize,
    width: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: `Columns` gives out nothing by itself; `for_each_tile` hands each tile to one thread, which is as if the
// tiles were `&mut [T]` sent there.
unsafe impl<T: Send> Sync for Columns<'_, T> {}
// SAFETY: it stands for a `&mut [T]`.
unsafe impl<T: Send> Send for Columns<'_, T> {}

impl<'a, T: Plain> Columns<'a, T> {
    /// Cuts `data`, `(rows, cols)` with at least that many elements, into tiles of `width` columns; the last may be
    /// narrower.
    ///
    /// # Panics
    /// Never for a `data` of `rows * cols` elements and a `width` of at least 1; a shorter one is cut to whole rows.
    pub fn new(data: &'a mut [T], cols: usize, width: usize) -> Self {
        let rows = times(data.len(), cols);
        Self { data: data.as_mut_ptr(), rows, cols, width: width.max(1), borrow: PhantomData }
    }

    fn tiles(&self) -> usize {
        self.cols.div_ceil(self.width)
    }

    /// # Safety
    /// For one `Columns`, no `i` may be asked for twice.
    unsafe fn tile(&self, i: usize) -> Tile<'a, T> {
        let start = (i * self.width).min(self.cols);
        let width = self.width.min(self.cols - start);
        Tile { data: self.data, rows: self.rows, stride: self.cols, start, width, borrow: PhantomData }
    }
}

/// Some columns of a row-major matrix, with the right to write them.
pub struct Tile<'a, T> {
    data: *mut T,
    rows: usize,
    stride: usize,
    start: usize,
    width: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T: Plain> Tile<'_, T> {
    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns that this tile covers.
    pub fn columns(&self) -> core::ops::Range<usize> {
        self.start..self.start + self.width
    }

    /// Row `r` of these columns; empty when there is no such row.
    pub fn row(&mut self, r: usize) -> &mut [T] {
        if r >= self.rows {
            return &mut [];
        }
        // SAFETY: `r < rows` and `start + width <= stride`, so the range lies inside the matrix; the tile is the only
        // one with these columns (the contract of `Columns::tile`), and `&mut self` makes this its only borrow.
        unsafe { core::slice::from_raw_parts_mut(self.data.add(r * self.stride + self.start), self.width) }
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
        Tile { data: row.as_mut_ptr(), rows: 1, stride: row.len(), start: 0, width: row.len(), borrow: PhantomData }
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

impl<'a, T: Plain + Send, const N: usize> Outputs for [Columns<'a, T>; N] {
    type Tiles = [Tile<'a, T>; N];

    fn tiles(&self) -> usize {
        self.iter().map(Columns::tiles).min().unwrap_or(0)
    }

    unsafe fn tile(&self, i: usize) -> Self::Tiles {
        // SAFETY: the caller's promise is `Columns::tile`'s.
        self.each_ref().map(|columns| unsafe { columns.tile(i) })
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
    for_each_tile(exec, [Columns::new(data, cols, width)], |[mut tile]| {
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
        even: bool,
    }
    impl Executor for Eager {
        fn workers(&self) -> usize {
            2
        }
        fn run(&self, work: &Work<'_>) {
            std::thread::scope(|s| {
                for _ in 0..self.calls {
                    s.spawn(work);
                }
            });
        }
        fn even(&self) -> bool {
            self.even
        }
    }

    #[test]
    fn every_element_is_written_once_whatever_the_executor_does() {
        let eager = [0, 1, 5].into_iter().flat_map(|calls| [true, false].map(|even| Eager { calls, even }));
        for exec in eager.map(|e| Box::new(e) as Box<dyn Executor>).chain([Box::new(Serial) as Box<dyn Executor>]) {
            let exec = &*exec;
            for (rows, cols, width) in [(1, 1, 1), (3, 10, 4), (2, 64, 64), (5, 7, 100), (0, 5, 2)] {
                let mut a = vec![0u32; rows * cols];
                let mut b = vec![0u8; rows * cols];
                let outputs = ([Columns::new(&mut a, cols, width)], [Columns::new(&mut b, cols, width)]);
                for_each_tile(exec, outputs, |([mut x], [mut y])| {
                    for r in 0..x.rows() {
                        let first = x.columns().start;
                        for (c, v) in x.row(r).iter_mut().enumerate() {
                            *v += (r * cols + first + c) as u32 + 1;
                        }
                        for v in y.sub(1..3).row(r) {
                            *v += 1;
                        }
                    }
                    assert!(x.row(rows).is_empty());
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
        fn run(&self, work: &Work<'_>) {
            let taken = (0..3).map(|_| work()).collect();
            *self.0.lock().unwrap() = taken;
        }
        fn even(&self) -> bool {
            true
        }
    }

    #[test]
    fn even_shares_differ_by_one_item_at_most() {
        for n in [2, 3, 4, 11, 12, 100] {
            let exec = Noting(std::sync::Mutex::default());
            for_each(&exec, n, &|_| ());
            let taken = exec.0.into_inner().unwrap();
            assert_eq!(taken.iter().sum::<usize>(), n);
            assert!(taken.iter().max().unwrap() - taken.iter().min().unwrap() <= 1, "{n}: {taken:?}");
        }
    }
}
