//! Sub-slices without a panic: out-of-range requests yield an empty slice, after an assertion in debug builds.
//!
//! The plan sizes every buffer, so no request is out of range; tests, which run with assertions, prove it. But the
//! compiler cannot know that, and an index that it cannot prove becomes a call to a panic handler, which firmware would
//! have to link. Where a slice is meant to be cut at the end, the caller says so with `min`.

use core::ops::Range;
use core::slice::{ChunksExact, ChunksExactMut};

/// See the module.
pub(crate) trait SliceExt<T> {
    /// The elements of `range`, which the slice must have.
    fn part(&self, range: Range<usize>) -> &[T];
    /// As [`part`](SliceExt::part), to write.
    fn part_mut(&mut self, range: Range<usize>) -> &mut [T];
    /// The slice as a matrix: its rows of `width`, which must be whole.
    fn rows(&self, width: usize) -> ChunksExact<'_, T>;
    /// As [`rows`](SliceExt::rows), to write.
    fn rows_mut(&mut self, width: usize) -> ChunksExactMut<'_, T>;

    /// Chunks of `width`, of which the last may be shorter; none if `width` is 0.
    fn chunks_of(&self, width: usize) -> Chunks<'_, T>;

    /// Row `i` of a matrix of `width` columns.
    #[inline(always)]
    #[track_caller]
    fn row(&self, i: usize, width: usize) -> &[T] {
        self.part(i * width..(i + 1) * width)
    }

    /// The first `n`.
    #[inline(always)]
    #[track_caller]
    fn first_n(&self, n: usize) -> &[T] {
        self.part(0..n)
    }

    /// As [`first_n`](SliceExt::first_n), to write.
    #[inline(always)]
    #[track_caller]
    fn first_n_mut(&mut self, n: usize) -> &mut [T] {
        self.part_mut(0..n)
    }
}

/// Asserts in debug builds that a slice of `len` elements has `range`.
#[inline(always)]
#[track_caller]
fn check(range: &Range<usize>, len: usize) {
    debug_assert!(range.start <= range.end && range.end <= len, "{range:?} of {len} elements");
}

/// Asserts in debug builds that `len` elements are whole rows.
#[inline(always)]
#[track_caller]
fn check_rows(width: usize, len: usize) {
    debug_assert!(len.is_multiple_of(width), "{len} elements in rows of {width}");
}

impl<T> SliceExt<T> for [T] {
    #[inline(always)]
    #[track_caller]
    fn part(&self, range: Range<usize>) -> &[T] {
        check(&range, self.len());
        self.get(range).unwrap_or(&[])
    }

    #[inline(always)]
    #[track_caller]
    fn part_mut(&mut self, range: Range<usize>) -> &mut [T] {
        check(&range, self.len());
        self.get_mut(range).unwrap_or(&mut [])
    }

    #[inline(always)]
    #[track_caller]
    fn rows(&self, width: usize) -> ChunksExact<'_, T> {
        check_rows(width, self.len());
        self.chunks_exact(width.max(1))
    }

    #[inline(always)]
    #[track_caller]
    fn rows_mut(&mut self, width: usize) -> ChunksExactMut<'_, T> {
        check_rows(width, self.len());
        self.chunks_exact_mut(width.max(1))
    }

    #[inline(always)]
    fn chunks_of(&self, width: usize) -> Chunks<'_, T> {
        Chunks { tail: self, width }
    }
}

/// See [`SliceExt::chunks_of`].
pub(crate) struct Chunks<'a, T> {
    tail: &'a [T],
    width: usize,
}

impl<'a, T> Iterator for Chunks<'a, T> {
    type Item = &'a [T];

    #[inline(always)]
    fn next(&mut self) -> Option<&'a [T]> {
        let (chunk, tail) = self.tail.split_at_checked(self.width).unwrap_or((self.tail, &[]));
        self.tail = tail;
        Some(chunk).filter(|chunk| !chunk.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_chunk_may_be_shorter() {
        let all = [1, 2, 3, 4, 5];
        assert!(all.chunks_of(2).eq([&[1, 2][..], &[3, 4], &[5]]) && all.chunks_of(0).next().is_none());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "3..6 of 5 elements")]
    fn a_part_that_is_out_of_range_fails_in_tests() {
        let _ = [0; 5].row(1, 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "5 elements in rows of 2")]
    fn rows_that_are_not_whole_fail_in_tests() {
        let _ = [0; 5].rows(2);
    }
}
