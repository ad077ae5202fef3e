//! Columns of rows of K or V.

use core::marker::PhantomData;

/// `C` columns of each of several rows, row by row.
pub(in crate::arch::generic) struct Strided<'a, T, const C: usize> {
    next: *const T,
    /// Items of a row.
    width: usize,
    /// Rows still to be read.
    left: usize,
    rows: PhantomData<&'a [T]>,
}

impl<'a, T, const C: usize> Strided<'a, T, C> {
    /// Columns `first..first + C` of the whole rows of `width` items in `rows`; no rows if they are not that wide.
    #[inline(always)]
    pub(in crate::arch::generic) fn new(rows: &'a [T], width: usize, first: usize) -> Self {
        let len = rows.len().checked_div(width).unwrap_or(0);
        let fits = first + C <= width;
        let next = rows.as_ptr().wrapping_add(first);
        Strided { next, width, left: if fits { len } else { 0 }, rows: PhantomData }
    }

    /// The columns of the next four rows.
    #[inline(always)]
    pub(in crate::arch::generic) fn four(&mut self) -> Option<[&'a [T; C]; 4]> {
        self.left = self.left.checked_sub(4)?;
        let at = [(); 4].map(|()| self.step());
        // SAFETY: four whole rows were left, and `first + C <= width`.
        Some(at.map(|at| unsafe { &*at.cast() }))
    }

    /// The columns of the next row.
    #[inline(always)]
    pub(in crate::arch::generic) fn one(&mut self) -> Option<&'a [T; C]> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: a whole row was left, and `first + C <= width`.
        Some(unsafe { &*self.step().cast() })
    }

    /// The place of a row's columns; advances to the next row.
    #[inline(always)]
    fn step(&mut self) -> *const T {
        let at = self.next;
        // SAFETY: a pointer into a slice is not null. That spares the caller's `Option` a check.
        unsafe { core::hint::assert_unchecked(!at.is_null()) };
        self.next = opaque(at.wrapping_add(self.width));
        at
    }
}

/// The same pointer, with its origin hidden from the compiler.
///
/// It would otherwise keep the offsets of the second, third and fourth row in registers, of which there are not enough.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read through it")]
fn opaque<T>(p: *const T) -> *const T {
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        let mut p = p;
        // SAFETY: no instruction.
        unsafe { core::arch::asm!("/* {} */", inout(reg) p, options(pure, nomem, nostack, preserves_flags)) };
        p
    }
    #[cfg(not(all(target_arch = "aarch64", not(miri))))]
    p
}
