//! Rows of weights, block after block: four rows for a GEMV, sixteen for a panel.

use core::marker::PhantomData;

use super::prefetch::Prefetcher;
use crate::arch::isa::Isa;
use crate::arch::types::{BlockQuad, Places, ROWS};
use crate::quant::{Block, PANEL_ROWS};

/// Distance in bytes from the end of the rows that are read to what is prefetched to the first-level cache: as many lines as
/// that has fill buffers for.
const NEAR: usize = 2048;
/// Distance to what is prefetched to the second-level cache.
const FAR: usize = 32768;

/// Blocks of four rows, or of as many as `P` has, one after another.
pub(in crate::arch::generic) struct RowCursor<'a, B, P = [*const u8; ROWS]> {
    next: P,
    /// What to prefetch.
    ahead: *const u8,
    left: usize,
    borrow: PhantomData<&'a B>,
}

/// Four adjacent rows of weights, or more; beyond the last row of the matrix, it is repeated.
#[derive(Clone, Copy)]
pub(in crate::arch) struct RowQuad<'a> {
    data: &'a [u8],
    /// Bytes from a row to the next.
    stride: usize,
    /// Bytes of a row.
    len: usize,
    /// Where the last row starts.
    last: usize,
}

/// Rows of weights, some at a time.
pub(in crate::arch::generic) struct RowQuads<'a> {
    data: &'a [u8],
    stride: usize,
    left: usize,
    /// How many at a time.
    together: usize,
}

impl<'a> RowQuads<'a> {
    /// `data` has whole rows of `stride` bytes, of which `together` are taken at a time.
    #[inline(always)]
    pub(in crate::arch::generic) fn new(data: &'a [u8], stride: usize, together: usize) -> Self {
        RowQuads { data, stride, left: data.len().checked_div(stride).unwrap_or(0), together }
    }
}

impl<'a> Iterator for RowQuads<'a> {
    type Item = RowQuad<'a>;

    /// All have the same `stride` and `len`, so that a caller's loop computes what depends on these once.
    #[inline(always)]
    fn next(&mut self) -> Option<RowQuad<'a>> {
        let rows = self.left.min(self.together);
        let (data, stride) = (self.data, self.stride);
        self.left -= rows;
        self.data = data.get(self.together * stride..).unwrap_or(&[]);
        (rows > 0).then(|| RowQuad { data, stride, len: stride, last: (rows - 1) * stride })
    }
}

impl<'a> RowQuad<'a> {
    /// `data` has whole rows of `stride` bytes.
    #[inline(always)]
    pub(in crate::arch::generic) fn new(data: &'a [u8], stride: usize) -> Self {
        let stride = stride.min(data.len());
        RowQuad { data, stride, len: stride, last: data.len() - stride }
    }

    /// A block of each row.
    #[inline(always)]
    pub(in crate::arch::generic) fn of_blocks<B: Block>(blocks: &'a [B; ROWS]) -> Self {
        RowQuad::new(B::bytes_of(blocks), size_of::<B>())
    }

    /// The rows without their first `bytes`.
    #[inline(always)]
    pub(in crate::arch::generic) fn skip(self, bytes: usize) -> Self {
        let bytes = bytes.min(self.len);
        RowQuad { data: self.data.get(bytes..).unwrap_or(&[]), len: self.len - bytes, ..self }
    }

    /// Bytes of a row.
    #[inline(always)]
    pub(in crate::arch::generic) fn row_bytes(self) -> usize {
        self.len
    }

    /// Row `r`.
    #[inline(always)]
    pub(in crate::arch::generic) fn row(self, r: usize) -> &'a [u8] {
        self.data.get((r * self.stride).min(self.last)..).and_then(|row| row.get(..self.len)).unwrap_or(&[])
    }
}

impl<'a, B: Block, P: Places> RowCursor<'a, B, P> {
    /// At most `blocks` blocks of each row.
    #[inline(always)]
    pub(in crate::arch::generic) fn new(rows: RowQuad<'a>, blocks: usize) -> Self {
        const { assert!(align_of::<B>() == 1) };
        let first = rows.data.as_ptr();
        // Each offset is at most `last`, where a row of `len` bytes starts.
        let next = P::from_fn(|r| first.wrapping_add((r * rows.stride).min(rows.last)));
        let ahead = first.wrapping_add(P::ROWS * rows.stride + NEAR);
        RowCursor { next, ahead, left: blocks.min(rows.len / size_of::<B>()), borrow: PhantomData }
    }

    /// Prefetches as many bytes as a step reads, in the order of addresses.
    ///
    /// A hardware prefetcher follows one stream well, but four streams that soon end at half the speed of memory. The
    /// first-level cache has too few fill buffers to keep memory busy, so lines go to the second level first.
    #[inline(always)]
    pub(in crate::arch::generic) fn prefetch<I: Isa>(&mut self, isa: I) {
        isa.prefetch_far(self.ahead.wrapping_add(FAR - NEAR), P::ROWS * size_of::<B>());
        self.prefetch_near(isa);
    }

    /// As [`prefetch`](RowCursor::prefetch), to the first-level cache alone.
    #[inline(always)]
    pub(in crate::arch::generic) fn prefetch_near<I: Isa>(&mut self, isa: I) {
        isa.prefetch(self.ahead, P::ROWS * size_of::<B>());
        self.ahead = self.ahead.wrapping_add(P::ROWS * size_of::<B>());
    }

    /// The next block of each row.
    #[inline(always)]
    pub(in crate::arch::generic) fn next(&mut self) -> Option<BlockQuad<'_, 'a, B, P>> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: a block was left in each row, at its pointer: every `BlockQuad` advances these by at most a block.
        Some(unsafe { BlockQuad::new(&mut self.next) })
    }
}

impl<'a, B: Block> RowCursor<'a, B> {
    /// Prefetches from `bytes` after what is read.
    #[inline(always)]
    pub(in crate::arch::generic) fn prefetch_from(self, bytes: usize) -> Self {
        RowCursor { ahead: self.next[0].wrapping_add(bytes), ..self }
    }

    /// How many blocks each row has, and the cursor for a loop that counts them itself.
    #[inline(always)]
    pub(in crate::arch::generic) fn uncounted(self) -> (usize, UncountedRows<'a, B>) {
        (self.left, UncountedRows { next: self.next, borrow: PhantomData })
    }
}

/// A [`RowCursor`] without a count.
pub(in crate::arch::generic) struct UncountedRows<'a, B> {
    next: [*const u8; ROWS],
    borrow: PhantomData<&'a B>,
}

impl<'a, B: Block> UncountedRows<'a, B> {
    /// The next block of each row.
    ///
    /// # Safety
    /// To be called at most as often as [`RowCursor::uncounted`] said.
    #[inline(always)]
    pub(in crate::arch::generic) unsafe fn next(&mut self) -> BlockQuad<'_, 'a, B> {
        // SAFETY: the caller takes no more blocks than each row has, and every `BlockQuad` advances the pointers by at most a block.
        unsafe { BlockQuad::new(&mut self.next) }
    }
}

/// Blocks of the rows of some panels, column by column; beyond the last row of the matrix, it is repeated.
pub(in crate::arch::generic) struct PanelCursor<'a, B> {
    next: *const u8,
    /// Bytes from a row to the next, and from the first to the last.
    stride: usize,
    last: usize,
    left: usize,
    /// The rows behind these.
    ahead: Prefetcher,
    borrow: PhantomData<&'a B>,
}

impl<'a, B: Block> PanelCursor<'a, B> {
    /// `rows` has whole rows of `stride` bytes.
    #[inline(always)]
    pub(in crate::arch::generic) fn new(rows: &'a [u8], stride: usize) -> Self {
        const { assert!(align_of::<B>() == 1) };
        let stride = stride.min(rows.len());
        let last = rows.len() - stride;
        let ahead = Prefetcher::behind(rows);
        PanelCursor { next: rows.as_ptr(), stride, last, left: stride / size_of::<B>(), ahead, borrow: PhantomData }
    }

    /// The next block of each row; prefetches as much of the rows behind, in the order of addresses.
    #[inline(always)]
    pub(in crate::arch::generic) fn next<I: Isa, const N: usize>(
        &mut self,
        isa: I,
    ) -> Option<[[&'a B; PANEL_ROWS]; N]> {
        self.left = self.left.checked_sub(1)?;
        self.ahead.prefetch(isa, N * PANEL_ROWS * size_of::<B>());
        let block = self.next;
        self.next = block.wrapping_add(size_of::<B>());
        // SAFETY: so many blocks are left in the first row, and in any that starts at most `last` bytes behind it.
        let row = |r: usize| unsafe { &*block.wrapping_add((r * self.stride).min(self.last)).cast() };
        Some(core::array::from_fn(|n| core::array::from_fn(|r| row(n * PANEL_ROWS + r))))
    }
}
