//! Buffers that several threads write at once: a matrix cut into tiles, each of which one thread may write.
//!
//! [`for_each_tile`] is the safe way in. It gives each tile to exactly one call, whatever the
//! [`Executor`](super::Executor) does, because [`for_each`] runs each index once.

#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::ops::Range;

use super::Plain;
use super::executor::{Executor, for_each, for_each_in_calls};

/// Rows and columns of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileShape {
    /// Rows; at least 1 are taken.
    pub rows: usize,
    /// Columns; at least 1 are taken.
    pub cols: usize,
}

/// A row-major matrix cut into tiles, each of which one thread may write.
pub struct Grid<'a, T> {
    data: *mut T,
    rows: usize,
    cols: usize,
    tile: TileShape,
    /// Tiles one above the other.
    down: usize,
    /// Tiles side by side.
    across: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a `&Grid` gives access to an element only by `Grid::tile`, whose contract is that each tile is in use once at
// a time. So sharing the `Grid` among threads is sending each of them some disjoint `&mut [T]`, which `T: Send` allows.
unsafe impl<T: Send> Sync for Grid<'_, T> {}
// SAFETY: a `Grid` owns the `&'a mut [T]` that it was made of, which may be sent where `T: Send`.
unsafe impl<T: Send> Send for Grid<'_, T> {}

impl<'a, T: Plain> Grid<'a, T> {
    /// Cuts `data`, `(rows, cols)`, into tiles: all tiles of the first rows, then those of the next. The last ones down
    /// and across may be smaller; an incomplete row at the end is left out.
    pub fn new(data: &'a mut [T], cols: usize, tile: TileShape) -> Self {
        let rows = data.len().checked_div(cols).unwrap_or(0);
        let tile = TileShape { rows: tile.rows.max(1), cols: tile.cols.max(1) };
        let (down, across) = (rows.div_ceil(tile.rows), cols.div_ceil(tile.cols));
        Self { data: data.as_mut_ptr(), rows, cols, tile, down, across, borrow: PhantomData }
    }

    /// Cuts `data`, `(rows, cols)`, into tiles of `width` columns and all rows.
    pub fn columns(data: &'a mut [T], cols: usize, width: usize) -> Self {
        Grid::new(data, cols, TileShape { rows: usize::MAX, cols: width })
    }

    /// Cuts `data`, `(rows, width)`, into its rows: tile `i` is row `i`. The last one may be shorter.
    pub fn rows(data: &'a mut [T], width: usize) -> Self {
        let len = data.len();
        Grid::columns(data, len, width)
    }

    /// Number of tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.down * self.across
    }

    /// Tile `i`, row by row of tiles; empty beyond the last one.
    ///
    /// # Safety
    /// For one `Grid`, no `i` may be asked for again while an earlier tile `i` is in use.
    pub(crate) unsafe fn tile(&self, i: usize) -> Tile<'a, T> {
        let (down, across) = (i / self.across.max(1), i % self.across.max(1));
        // Saturating, because all rows may be one tile of any height.
        let first_row = down.saturating_mul(self.tile.rows).min(self.rows);
        let first_col = (across * self.tile.cols).min(self.cols);
        Tile {
            data: self.data,
            first_row,
            rows: self.tile.rows.min(self.rows - first_row),
            stride: self.cols,
            first_col,
            cols: self.tile.cols.min(self.cols - first_col),
            borrow: PhantomData,
        }
    }
}

/// Some rows and columns of a row-major matrix, with the right to write them.
pub struct Tile<'a, T> {
    data: *mut T,
    first_row: usize,
    rows: usize,
    stride: usize,
    first_col: usize,
    cols: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T: Plain> Tile<'_, T> {
    /// The rows of the matrix that this tile covers.
    pub fn rows(&self) -> Range<usize> {
        self.first_row..self.first_row + self.rows
    }

    /// The columns of the matrix that this tile covers.
    pub fn columns(&self) -> Range<usize> {
        self.first_col..self.first_col + self.cols
    }

    /// Row `r` of the tile; empty when it has no such row.
    pub fn row(&mut self, r: usize) -> &mut [T] {
        if r >= self.rows {
            return &mut [];
        }
        // SAFETY: `Grid::new` and `Tile::from` give a matrix of at least `first_row + rows` rows of `stride` elements, and
        // here `r < rows` and `first_col + cols <= stride`, so the range is inside it. By the contract of `Grid::tile` no
        // other tile has these elements, and `&mut self` makes this the only borrow from this one.
        unsafe {
            let start = self.data.add((self.first_row + r) * self.stride + self.first_col);
            core::slice::from_raw_parts_mut(start, self.cols)
        }
    }

    /// The tile of the columns `range`, counted from this tile's first, as far as it has them.
    pub fn sub(&mut self, range: Range<usize>) -> Tile<'_, T> {
        let start = range.start.min(self.cols);
        let cols = range.end.clamp(start, self.cols) - start;
        Tile { first_col: self.first_col + start, cols, borrow: PhantomData, ..*self }
    }
}

impl<'a, T: Plain> From<&'a mut [T]> for Tile<'a, T> {
    /// A matrix of one row, whole.
    fn from(row: &'a mut [T]) -> Self {
        let cols = row.len();
        Tile { data: row.as_mut_ptr(), first_row: 0, rows: 1, stride: cols, first_col: 0, cols, borrow: PhantomData }
    }
}

/// Matrices cut into equally many tiles, perhaps of several types; for each index, one tile of each.
///
/// # Safety
/// The tiles of different indices, and of different values of `Outputs`, must have no element in common, so that they may
/// be written at the same time.
pub unsafe trait Outputs: Sync {
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

// SAFETY: tiles of a `Grid` do not overlap, and those of different `Grid`s are of different `&mut [T]`.
unsafe impl<'a, T: Plain + Send, const N: usize> Outputs for [Grid<'a, T>; N] {
    type Tiles = [Tile<'a, T>; N];

    fn tiles(&self) -> usize {
        self.iter().map(Grid::tiles).min().unwrap_or(0)
    }

    unsafe fn tile(&self, i: usize) -> Self::Tiles {
        // SAFETY: the contract of `Outputs::tile`, no index twice, is that of `Grid::tile`.
        self.each_ref().map(|grid| unsafe { grid.tile(i) })
    }
}

// SAFETY: both keep the contract of `Outputs`, and they are of different `&mut [T]`.
unsafe impl<A: Outputs, B: Outputs> Outputs for (A, B) {
    type Tiles = (A::Tiles, B::Tiles);

    fn tiles(&self) -> usize {
        self.0.tiles().min(self.1.tiles())
    }

    unsafe fn tile(&self, i: usize) -> Self::Tiles {
        // SAFETY: no index is asked for twice of the pair, so neither of its parts.
        unsafe { (self.0.tile(i), self.1.tile(i)) }
    }
}

/// Calls `f(i, row)` once for each row of `data`, `(rows, width)`. The last one may be shorter.
pub fn for_each_row<T: Plain + Send>(
    exec: &dyn Executor,
    data: &mut [T],
    width: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    for_each_tile(exec, [Grid::rows(data, width)], |i, [mut tile]| f(i, tile.row(0)));
}

/// Calls `f(i, tiles)` once for each index, with tile `i` of every matrix in `outputs`.
///
/// All matrices must be cut into equally many tiles; the smallest number counts.
pub fn for_each_tile<O: Outputs>(exec: &dyn Executor, outputs: O, f: impl Fn(usize, O::Tiles) + Sync) {
    // SAFETY: `Outputs::tile` must not be asked for an index twice; `for_each` calls each index once.
    for_each(exec, outputs.tiles(), &|i| f(i, unsafe { outputs.tile(i) }));
}

/// As [`for_each_tile`]; `f` also has one of the rows of `scratch`, `(rows, width)`, to itself while it runs. What the row
/// holds is left from before; an incomplete row at the end is left out.
///
/// `scratch` should have a row for each thread; with fewer, fewer threads run.
pub fn for_each_tile_with_scratch<O: Outputs, T: Plain + Send>(
    exec: &dyn Executor,
    outputs: O,
    scratch: &mut [T],
    width: usize,
    f: impl Fn(usize, O::Tiles, &mut [T]) + Sync,
) {
    let rows = scratch.len().checked_div(width).unwrap_or(0);
    let scratch = Grid::rows(scratch.get_mut(..rows * width).unwrap_or_default(), width);
    for_each_in_calls(exec, outputs.tiles(), scratch.tiles().max(1), &|call, i| {
        // SAFETY: calls that run at the same time have different numbers, so different rows. An item of a call ends before the
        // next one begins, and the row is lent to it for no longer.
        let mut row = unsafe { scratch.tile(call) };
        // SAFETY: `for_each_in_calls` calls each index once.
        f(i, unsafe { outputs.tile(i) }, row.row(0));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Serial, Task};
    use std::boxed::Box;

    /// An executor that calls the task any number of times, from as many threads.
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
                let cut = TileShape { rows: height, cols: width };
                let outputs = ([Grid::new(&mut a, cols, cut)], [Grid::new(&mut b, cols, cut)]);
                for_each_tile(exec, outputs, |i, ([mut x], [mut y])| {
                    let ([first, down], covered) = ([x.columns().start, x.rows().start], x.rows().len());
                    assert!(covered <= height && x.columns().len() <= width);
                    assert_eq!(i, down / height * cols.div_ceil(width) + first / width);
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

    #[test]
    fn no_two_items_have_the_same_scratch_at_the_same_time() {
        for static_schedule in [true, false] {
            for (calls, rows) in [0, 1, 2, 5].into_iter().flat_map(|calls| [1, 2, 3, 9].map(|rows| (calls, rows))) {
                let (mut out, mut scratch) = (vec![0u32; 70], vec![u32::MAX; rows * 16 + rows]);
                let exec = Eager { calls, static_schedule };
                for_each_tile_with_scratch(&exec, [Grid::rows(&mut out, 1)], &mut scratch, 16, |i, [mut out], row| {
                    assert_eq!(row.len(), 16);
                    row.fill(i as u32);
                    std::thread::yield_now();
                    out.row(0)[0] += row.iter().sum::<u32>() + 1;
                });
                assert!(out.iter().enumerate().all(|(i, &x)| x == 16 * i as u32 + 1), "{calls} {rows}");
            }
        }
    }

    #[test]
    fn rows_are_tiles_and_the_last_may_be_shorter() {
        let mut data = [0u32; 11];
        for_each_row(&Serial, &mut data, 3, |i, row| row.fill(i as u32 + 1));
        assert_eq!(data, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]);
        for_each_row(&Serial, &mut [0u8; 0], 3, |_, _| unreachable!("no rows"));
    }
}
