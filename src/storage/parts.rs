//! Parts of slices, without a way to panic: what lies beyond the end is not there.
//!
//! The plan gives every buffer its size, so nothing here is ever cut short. But a compiler can't know that, and an index
//! which it can't prove becomes a call to a panic handler that firmware would have to link. Here it is an empty slice.

use core::ops::Range;
use core::slice::{ChunksExact, ChunksExactMut};

/// See the module.
pub(crate) trait Parts<T> {
    /// The elements of `range`; none if that goes beyond the end.
    fn part(&self, range: Range<usize>) -> &[T];
    /// As [`part`](Parts::part).
    fn part_mut(&mut self, range: Range<usize>) -> &mut [T];
    /// All rows of `width`.
    fn rows(&self, width: usize) -> ChunksExact<'_, T>;
    /// As [`rows`](Parts::rows).
    fn rows_mut(&mut self, width: usize) -> ChunksExactMut<'_, T>;

    /// All rows of `width`, and what is left as a shorter one.
    fn pieces(&self, width: usize) -> Pieces<'_, T>;

    /// Row `i` of those of `width`.
    #[inline(always)]
    fn row(&self, i: usize, width: usize) -> &[T] {
        self.part(i * width..(i + 1) * width)
    }

    /// The first `n`.
    #[inline(always)]
    fn front(&self, n: usize) -> &[T] {
        self.part(0..n)
    }

    /// The first `n`.
    #[inline(always)]
    fn front_mut(&mut self, n: usize) -> &mut [T] {
        self.part_mut(0..n)
    }
}

impl<T> Parts<T> for [T] {
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
    fn pieces(&self, width: usize) -> Pieces<'_, T> {
        Pieces { rest: self, width }
    }
}

/// See [`Parts::pieces`].
pub(crate) struct Pieces<'a, T> {
    rest: &'a [T],
    width: usize,
}

impl<'a, T> Iterator for Pieces<'a, T> {
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
