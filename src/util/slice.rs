//! Sub-slices without a panic: a request beyond the end yields an empty slice.
//!
//! The plan gives every buffer its size, so a request is never beyond the end. But the compiler cannot know that, and an
//! index that it cannot prove becomes a call to a panic handler, which firmware would have to link.

use core::ops::Range;
use core::slice::{ChunksExact, ChunksExactMut};

/// See the module.
pub(crate) trait SliceExt<T> {
    /// The elements of `range`; none if that goes beyond the end.
    fn part(&self, range: Range<usize>) -> &[T];
    /// As [`part`](SliceExt::part).
    fn part_mut(&mut self, range: Range<usize>) -> &mut [T];
    /// All rows of `width`.
    fn rows(&self, width: usize) -> ChunksExact<'_, T>;
    /// As [`rows`](SliceExt::rows).
    fn rows_mut(&mut self, width: usize) -> ChunksExactMut<'_, T>;

    /// All rows of `width`, and what is left as a shorter one.
    fn chunks_of(&self, width: usize) -> Chunks<'_, T>;

    /// Row `i` of those of `width`.
    #[inline(always)]
    fn row(&self, i: usize, width: usize) -> &[T] {
        self.part(i * width..(i + 1) * width)
    }

    /// The first `n`.
    #[inline(always)]
    fn first_n(&self, n: usize) -> &[T] {
        self.part(0..n)
    }

    /// The first `n`.
    #[inline(always)]
    fn first_n_mut(&mut self, n: usize) -> &mut [T] {
        self.part_mut(0..n)
    }
}

impl<T> SliceExt<T> for [T] {
    #[inline(always)]
    fn part(&self, range: Range<usize>) -> &[T] {
        self.get(range).unwrap_or(&[])
    }

    #[inline(always)]
    fn part_mut(&mut self, range: Range<usize>) -> &mut [T] {
        self.get_mut(range).unwrap_or(&mut [])
    }

    #[inline(always)]
    fn rows(&self, width: usize) -> ChunksExact<'_, T> {
        self.chunks_exact(width.max(1))
    }

    #[inline(always)]
    fn rows_mut(&mut self, width: usize) -> ChunksExactMut<'_, T> {
        self.chunks_exact_mut(width.max(1))
    }

    #[inline(always)]
    fn chunks_of(&self, width: usize) -> Chunks<'_, T> {
        Chunks { rest: self, width }
    }
}

/// See [`SliceExt::chunks_of`].
pub(crate) struct Chunks<'a, T> {
    rest: &'a [T],
    width: usize,
}

impl<'a, T> Iterator for Chunks<'a, T> {
    type Item = &'a [T];

    #[inline(always)]
    fn next(&mut self) -> Option<&'a [T]> {
        let (piece, rest) = self.rest.split_at_checked(self.width).unwrap_or((self.rest, &[]));
        self.rest = rest;
        Some(piece).filter(|piece| !piece.is_empty())
    }
}

/// How often `n` holds `width`; no times if there is nothing to hold.
#[inline(always)]
pub(crate) fn times(n: usize, width: usize) -> usize {
    n.checked_div(width).unwrap_or(0)
}

/// What is left then.
#[inline(always)]
pub(crate) fn rest(n: usize, width: usize) -> usize {
    n.checked_rem(width).unwrap_or(0)
}
