//! Prefetching what is read next.

use core::ops::Range;

use crate::arch::isa::Isa;

/// Bytes of a cache line of x86 CPUs, the only ones with software prefetch here.
const LINE: usize = 64;

/// Prefetches all lines of what is read next, and every fourth line of what follows, to the second-level cache.
///
/// A few lines at each step of a loop: a CPU that is asked for many lines at once stalls. Lines that its hardware
/// prefetcher brings do not count. That prefetcher stops at the end of a page, but every fourth line starts it again in the
/// next.
#[derive(Clone, Copy)]
pub(in crate::arch::generic) struct Prefetcher {
    next: *const u8,
    /// What is read after `next`.
    far: *const u8,
}

impl Prefetcher {
    /// `rows` are read next, then what follows them.
    #[inline(always)]
    pub(in crate::arch::generic) fn of(rows: &[u8]) -> Self {
        let Range { start, end } = rows.as_ptr_range();
        Prefetcher { next: start, far: end }
    }

    /// What follows `rows` is read next, as many bytes as they have.
    #[inline(always)]
    pub(in crate::arch::generic) fn behind(rows: &[u8]) -> Self {
        let end = rows.as_ptr_range().end;
        Prefetcher { next: end, far: end.wrapping_add(rows.len()) }
    }

    /// The next `bytes`, to the second-level cache alone.
    #[inline(always)]
    pub(in crate::arch::generic) fn prefetch_far<I: Isa>(&mut self, isa: I, bytes: usize) {
        isa.prefetch_far(self.next, bytes);
        self.next = self.next.wrapping_add(bytes);
    }

    /// The next `bytes`.
    #[inline(always)]
    pub(in crate::arch::generic) fn prefetch<I: Isa>(&mut self, isa: I, bytes: usize) {
        isa.prefetch(self.next, bytes);
        // By address, so that steps of any length prefetch one line in four.
        let first = self.far.addr().wrapping_neg() % (4 * LINE);
        for at in (first..bytes).step_by(4 * LINE) {
            isa.prefetch_far(self.far.wrapping_add(at), 1);
        }
        self.next = self.next.wrapping_add(bytes);
        self.far = self.far.wrapping_add(bytes);
    }
}
