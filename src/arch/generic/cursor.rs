//! Walking rows of weights and a tile of tokens in step: all that the generic algorithms read through pointers.
//!
//! Each of the streams is a pointer of its own that an iteration moves on, because that is what costs nothing: an ARM
//! load moves its pointer as it goes (`ldp q0, q1, [x0], #32`), while an index costs an addition for each row.
//! Lengths are checked once, when a walk is made.

use core::marker::PhantomData;
use core::ops::Range;

use super::activations::{Activations, Quants};
use crate::arch::isa::Isa;
use crate::quant::{BLOCK, PANEL_ROWS};

/// Rows of weights computed together from a matrix as GGUF lays it out.
pub(in crate::arch) const ROWS: usize = 4;
/// Bytes of a line of the caches of an x86 CPU, the only ones that are prefetched to.
const LINE: usize = 64;
/// Bytes from the end of the rows that are read to what is prefetched meanwhile to the first-level cache: as much as that
/// can wait for.
const NEAR: usize = 2048;
/// And to the second-level cache.
const FAR: usize = 32768;

/// Blocks of `B` bytes of four rows, one after another.
pub(super) struct RowCursor<'a, const B: usize> {
    next: [*const u8; ROWS],
    /// What to prefetch.
    ahead: *const u8,
    left: usize,
    borrow: PhantomData<&'a [u8]>,
}

/// RowQuad rows of weights as they lie one after another; beyond the last one there is, that one again.
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

impl<'a> RowQuad<'a> {
    /// `data` has whole rows of `stride` bytes.
    #[inline(always)]
    pub(super) fn new(data: &'a [u8], stride: usize) -> Self {
        let stride = stride.min(data.len());
        RowQuad { data, stride, len: stride, last: data.len() - stride }
    }

    /// The rows without their first `bytes`.
    #[inline(always)]
    pub(super) fn skip(self, bytes: usize) -> Self {
        let bytes = bytes.min(self.len);
        RowQuad { data: self.data.get(bytes..).unwrap_or(&[]), len: self.len - bytes, ..self }
    }

    /// Bytes of a row.
    #[inline(always)]
    pub(super) fn row_bytes(self) -> usize {
        self.len
    }

    /// Row `r`.
    #[inline(always)]
    pub(super) fn row(self, r: usize) -> &'a [u8] {
        self.data.get((r * self.stride).min(self.last)..).and_then(|row| row.get(..self.len)).unwrap_or(&[])
    }
}

impl<'a, const B: usize> RowCursor<'a, B> {
    /// At most `blocks` blocks of each row.
    #[inline(always)]
    pub(super) fn new(rows: RowQuad<'a>, blocks: usize) -> Self {
        let first = rows.data.as_ptr();
        // Each place is at most `last`, from which on there are `len` bytes.
        let next = core::array::from_fn(|r| first.wrapping_add((r * rows.stride).min(rows.last)));
        let ahead = first.wrapping_add(ROWS * rows.stride + NEAR);
        RowCursor { next, ahead, left: blocks.min(rows.len / B), borrow: PhantomData }
    }

    /// Prefetches what lies `bytes` on from what is read.
    #[inline(always)]
    pub(super) fn prefetch_from(self, bytes: usize) -> Self {
        RowCursor { ahead: self.next[0].wrapping_add(bytes), ..self }
    }

    /// Prefetches as much of what will be read later as a step reads, in the order of addresses.
    ///
    /// A CPU that sees one stream fetches ahead of it by itself; four streams, each soon at the end of its row, an x86
    /// CPU reads at half the speed. Its first-level cache waits for so few lines at a time that memory stays idle, and
    /// the second level gets them sooner.
    #[inline(always)]
    pub(super) fn prefetch<I: Isa>(&mut self, isa: I) {
        isa.prefetch_far(self.ahead.wrapping_add(FAR - NEAR), ROWS * B);
        self.prefetch_near(isa);
    }

    /// As [`prefetch`](RowCursor::prefetch), to the first-level cache alone.
    #[inline(always)]
    pub(super) fn prefetch_near<I: Isa>(&mut self, isa: I) {
        isa.prefetch(self.ahead, ROWS * B);
        self.ahead = self.ahead.wrapping_add(ROWS * B);
    }

    /// Steps to come.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// A step, for a loop that counts by itself.
    ///
    /// # Safety
    /// To be called at most [`left`](RowCursor::left) times, and not beside [`next`](RowCursor::next).
    #[inline(always)]
    pub(super) unsafe fn step(&mut self) -> BlockQuad<'_, B> {
        BlockQuad { next: &mut self.next }
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<BlockQuad<'_, B>> {
        self.left = self.left.checked_sub(1)?;
        Some(BlockQuad { next: &mut self.next })
    }
}

/// The next block of each of four rows.
pub(in crate::arch) struct BlockQuad<'w, const B: usize> {
    next: &'w mut [*const u8; ROWS],
}

impl<'w, const B: usize> BlockQuad<'w, B> {
    /// The blocks.
    #[inline(always)]
    pub(in crate::arch) fn blocks(self) -> [&'w [u8; B]; ROWS] {
        self.next.each_mut().map(|next| {
            let block = *next;
            *next = block.wrapping_add(B);
            // SAFETY: a step is one of as many as there are blocks of `B` bytes in each row.
            unsafe { &*block.cast() }
        })
    }

    /// For each row the pointer to its block of `B` bytes; the caller moves it on by `B`.
    #[inline(always)]
    #[cfg(target_arch = "aarch64")]
    pub(in crate::arch) fn pointers(self) -> &'w mut [*const u8; ROWS] {
        self.next
    }
}

/// Blocks of `B` bytes of the rows of some panels, one after another; beyond the last row there is, that one again.
pub(super) struct PanelCursor<'a, const B: usize> {
    next: *const u8,
    /// Bytes from a row to the next, and from the first to the last.
    stride: usize,
    last: usize,
    left: usize,
    /// The rows behind these.
    ahead: Prefetcher,
    borrow: PhantomData<&'a [u8]>,
}

impl<'a, const B: usize> PanelCursor<'a, B> {
    /// `rows` has whole rows of `stride` bytes.
    #[inline(always)]
    pub(super) fn new(rows: &'a [u8], stride: usize) -> Self {
        let stride = stride.min(rows.len());
        let last = rows.len() - stride;
        let ahead = Prefetcher::behind(rows);
        PanelCursor { next: rows.as_ptr(), stride, last, left: stride / B, ahead, borrow: PhantomData }
    }

    /// The next block of each row; prefetches as much of the rows behind, in the order of addresses.
    #[inline(always)]
    pub(super) fn next<I: Isa, const N: usize>(&mut self, isa: I) -> Option<[[&'a [u8; B]; PANEL_ROWS]; N]> {
        self.left = self.left.checked_sub(1)?;
        self.ahead.prefetch(isa, N * PANEL_ROWS * B);
        let block = self.next;
        self.next = block.wrapping_add(B);
        // SAFETY: so many blocks are left in the first row, and in any that starts at most `last` bytes behind it.
        let row = |r: usize| unsafe { &*block.wrapping_add((r * self.stride).min(self.last)).cast() };
        Some(core::array::from_fn(|n| core::array::from_fn(|r| row(n * PANEL_ROWS + r))))
    }
}

/// What to prefetch while something is read: all lines of what is read next, and each fourth of what comes after that, to
/// the second-level cache.
///
/// A few lines at each step of a loop: a CPU that is asked for many at once waits for some of them before it goes on.
/// Lines that its own prefetcher brings do not count among these. That prefetcher does not go from one page of memory to
/// the next, but each fourth line is enough to set it going in one.
#[derive(Clone, Copy)]
pub(super) struct Prefetcher {
    next: *const u8,
    /// What comes after that.
    far: *const u8,
}

impl Prefetcher {
    /// `rows` are read next, then what lies behind them.
    #[inline(always)]
    pub(super) fn of(rows: &[u8]) -> Self {
        let Range { start, end } = rows.as_ptr_range();
        Prefetcher { next: start, far: end }
    }

    /// What lies behind `rows` is read next, as much of it as they are.
    #[inline(always)]
    pub(super) fn behind(rows: &[u8]) -> Self {
        let end = rows.as_ptr_range().end;
        Prefetcher { next: end, far: end.wrapping_add(rows.len()) }
    }

    /// The next `bytes`.
    #[inline(always)]
    pub(super) fn prefetch<I: Isa>(&mut self, isa: I, bytes: usize) {
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

/// Several slices, kv_type after kv_type of all of them.
pub(super) struct Zip<'a, T, const N: usize> {
    next: [*const T; N],
    left: usize,
    borrow: PhantomData<&'a T>,
}

impl<'a, T, const N: usize> Zip<'a, T, N> {
    /// Of equally long slices; the shortest counts.
    #[inline(always)]
    pub(super) fn new(slices: [&'a [T]; N]) -> Self {
        let left = slices.iter().map(|s| s.len()).min().unwrap_or(0);
        Zip { next: slices.map(<[T]>::as_ptr), left, borrow: PhantomData }
    }

    /// Steps to come.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// The next kv_type of each.
    ///
    /// # Safety
    /// To be called at most [`left`](Zip::left) times.
    #[inline(always)]
    pub(super) unsafe fn next(&mut self) -> [&'a T; N] {
        self.next.each_mut().map(|next| {
            let kv_type = *next;
            *next = kv_type.wrapping_add(1);
            // SAFETY: `new` saw that each slice has as many, and the caller that this is one of them.
            unsafe { &*kv_type }
        })
    }
}

/// The int8 activations of `T` tokens, block after block.
#[derive(Clone, Copy)]
pub(super) struct TokenCursor<'a, const T: usize> {
    q: *const [i8; BLOCK],
    d: *const f32,
    bias: *const i32,
    dsum: *const f32,
    stride: usize,
    left: usize,
    borrow: PhantomData<&'a ()>,
}

/// A block of activations of `T` tokens; see [`Quants`](super::activations::Quants).
#[derive(Clone, Copy)]
pub(in crate::arch) struct TokenBlock<'a, const T: usize> {
    pub(in crate::arch) q: &'a [[i8; BLOCK]; T],
    pub(in crate::arch) d: &'a [f32; T],
    pub(in crate::arch) bias: &'a [i32; T],
    pub(in crate::arch) dsum: &'a [f32; T],
}

impl<'a, const T: usize> TokenCursor<'a, T> {
    /// TokenCursor `token..token + T` of `x`, which has them, from block `first` on; empty when their places are not there.
    #[inline(always)]
    pub(super) fn new(x: &Activations<'a>, token: usize, first: usize) -> Self {
        let (quants, stride) = (x.quants, x.quants.stride);
        let len = quants.q.len().min(quants.d.len()).min(quants.bias.len()).min(quants.dsum.len());
        // Blocks whose places `token..token + T` are there, all but the first `stride` behind another.
        let behind = len.checked_sub(token.saturating_add(T)).and_then(|rest| rest.checked_div(stride));
        let left = behind.map_or(0, |n| n + 1).saturating_sub(first);
        let at = if left > 0 { first * stride + token } else { 0 };
        TokenCursor {
            q: quants.q.as_ptr().wrapping_add(at),
            d: quants.d.as_ptr().wrapping_add(at),
            bias: quants.bias.as_ptr().wrapping_add(at),
            dsum: quants.dsum.as_ptr().wrapping_add(at),
            stride,
            left,
            borrow: PhantomData,
        }
    }

    /// Blocks to come.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// The next block.
    ///
    /// # Safety
    /// To be called at most [`left`](TokenCursor::left) times.
    #[inline(always)]
    pub(super) unsafe fn next(&mut self) -> TokenBlock<'a, T> {
        // SAFETY: `new` saw that the `T` places of this block from the token on are there, and the caller that it is one
        // of those.
        let block = unsafe {
            TokenBlock { q: &*self.q.cast(), d: &*self.d.cast(), bias: &*self.bias.cast(), dsum: &*self.dsum.cast() }
        };
        self.q = self.q.wrapping_add(self.stride);
        self.d = self.d.wrapping_add(self.stride);
        self.bias = self.bias.wrapping_add(self.stride);
        self.dsum = self.dsum.wrapping_add(self.stride);
        block
    }
}

impl<'a, const T: usize> TokenBlock<'a, T> {
    /// Token `t` alone.
    #[inline(always)]
    pub(super) fn one(&self, t: usize) -> TokenBlock<'a, 1> {
        use core::array::from_ref;
        let TokenBlock { q, d, bias, dsum } = self;
        TokenBlock { q: from_ref(&q[t]), d: from_ref(&d[t]), bias: from_ref(&bias[t]), dsum: from_ref(&dsum[t]) }
    }
}

/// Block `b` of the tokens from `token` on, `T` at a time.
#[inline(always)]
pub(super) fn token_blocks<'a, const T: usize>(
    x: &Activations<'a>,
    b: usize,
    token: usize,
) -> impl Iterator<Item = TokenBlock<'a, T>> {
    let Quants { q, d, bias, dsum, stride } = x.quants;
    let (first, end) = (b * stride + token, b * stride + x.tokens);
    let q = q.get(first..end).unwrap_or(&[]).as_chunks().0;
    let d = d.get(first..end).unwrap_or(&[]).as_chunks().0;
    let bias = bias.get(first..end).unwrap_or(&[]).as_chunks().0;
    let dsum = dsum.get(first..end).unwrap_or(&[]).as_chunks().0;
    q.iter().zip(d).zip(bias).zip(dsum).map(|(((q, d), bias), dsum)| TokenBlock { q, d, bias, dsum })
}

/// `C` items from one column on of each of several rows.
pub(super) struct Strided<'a, T, const C: usize> {
    at: *const T,
    /// Items of a row.
    row: usize,
    /// RowCursor that were not read.
    left: usize,
    rows: PhantomData<&'a [T]>,
}

impl<'a, T, const C: usize> Strided<'a, T, C> {
    /// Of the first `len` rows of `row` items; of none if they have no such columns or are not all there.
    #[inline(always)]
    pub(super) fn new(rows: &'a [T], [len, row, first]: [usize; 3]) -> Self {
        let fits = first + C <= row && len.checked_mul(row).is_some_and(|items| items <= rows.len());
        let at = rows.as_ptr().wrapping_add(first);
        Strided { at, row, left: if fits { len } else { 0 }, rows: PhantomData }
    }

    /// The next four rows'.
    #[inline(always)]
    pub(super) fn four(&mut self) -> Option<[&'a [T; C]; 4]> {
        self.left = self.left.checked_sub(4)?;
        let at = [(); 4].map(|()| self.step());
        // SAFETY: four rows were left, and each has the items.
        Some(at.map(|at| unsafe { &*at.cast() }))
    }

    /// The next row's.
    #[inline(always)]
    pub(super) fn one(&mut self) -> Option<&'a [T; C]> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: a row was left, and it has the items.
        Some(unsafe { &*self.step().cast() })
    }

    /// Where the items of a row are; then it is the next one's turn.
    #[inline(always)]
    fn step(&mut self) -> *const T {
        let at = self.at;
        // SAFETY: the end of a row that is there is not null. That spares the caller's `Option` a check.
        unsafe { core::hint::assert_unchecked(!at.is_null()) };
        self.at = opaque(at.wrapping_add(self.row));
        at
    }
}

/// The same pointer, of which the compiler does not know how it came about.
///
/// Of rows one after another it would otherwise keep the distances to the second, the third and the fourth, for which it
/// has no registers.
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
