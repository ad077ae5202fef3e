//! Prefetching what is read next.

use core::ops::Range;

use crate::arch::isa::Isa;

/// Bytes of a line of the caches of an x86 CPU, the only ones that are prefetched to.
const LINE: usize = 64;
/// What to prefetch while something is read: all lines of what is read next, and each fourth of what comes after that, to
/// the second-level cache.
///
/// A few lines at each step of a loop: a CPU that is asked for many at once waits for some of them before it goes on.
/// Lines that its own prefetcher brings do not count among these. That prefetcher does not go from one page of memory to
/// the next, but each fourth line is enough to set it going in one.
#[derive(Clone, Copy)]
pub(in crate::arch::generic) struct Prefetcher {
    next: *const u8,
    /// What comes after that.
    far: *const u8,
}

impl Prefetcher {
    /// `rows` are read next, then what lies behind them.
    #[inline(always)]
    pub(in crate::arch::generic) fn of(rows: &[u8]) -> Self {
        let Range { start, end } = rows.as_ptr_range();
        Prefetcher { next: start, far: end }
    }

    /// What lies behind `rows` is read next, as much of it as they are.
    #[inline(always)]
    pub(in crate::arch::generic) fn behind(rows: &[u8]) -> Self {
        let end = rows.as_ptr_range().end;
        Prefetcher { next: end, far: end.wrapping_add(rows.len()) }
    }

    /// The next `bytes`.
    #[inline(always)]
    pub(in crate::arch::generic) fn prefetch<I: Isa>(&mut self, isa: I, bytes: usize) {
        isa.prefetch(self.next, bytes);
        // By address, so that steps of any length ask for one line in four.
        let first = self.far.addr().wrapping_neg() % (4 * LINE);
        for at in (first..bytes).step_by(4 * LINE) {
            isa.prefetch_far(self.far.wrapping_add(at), 1);
        }
        self.next = self.next.wrapping_add(bytes);
        self.far = self.far.wrapping_add(bytes);
    }
}
