//! Several slices in step.

use core::marker::PhantomData;

/// The next element of each of several slices.
pub(in crate::arch::generic) struct Zip<'a, T, const N: usize> {
    next: [*const T; N],
    left: usize,
    borrow: PhantomData<&'a T>,
}

impl<'a, T, const N: usize> Zip<'a, T, N> {
    /// Of equally long slices; the shortest counts.
    #[inline(always)]
    pub(in crate::arch::generic) fn new(slices: [&'a [T]; N]) -> Self {
        let left = slices.iter().map(|s| s.len()).min().unwrap_or(0);
        Zip { next: slices.map(<[T]>::as_ptr), left, borrow: PhantomData }
    }

    /// Steps left.
    pub(in crate::arch::generic) fn left(&self) -> usize {
        self.left
    }

    /// The next element of each.
    ///
    /// # Safety
    /// To be called at most [`left`](Zip::left) times.
    #[inline(always)]
    pub(in crate::arch::generic) unsafe fn next(&mut self) -> [&'a T; N] {
        self.next.each_mut().map(|next| {
            let element = *next;
            *next = element.wrapping_add(1);
            // SAFETY: `left` counts the elements of the shortest slice, and the caller steps no further.
            unsafe { &*element }
        })
    }
}
