//! What kernels are given: blocks of weights and of activations in the shapes that instruction sets work on. No algorithm.

use core::marker::PhantomData;

use crate::quant::{BLOCK, Block, PANEL_ROWS};
use crate::storage::Plain;

/// Rows of weights that a GEMV computes together.
pub(in crate::arch) const ROWS: usize = 4;

/// Sums of a panel's rows for one token.
pub(in crate::arch) type Sums = [f32; PANEL_ROWS];
/// The binary16 scales or minima of a panel's rows for one block.
pub(in crate::arch) type PanelScales = [u8; 2 * PANEL_ROWS];
/// int8 quants of a panel's block: `[k][row][4]`, in groups of four rows.
pub(in crate::arch) type Bytes = [[u8; 16]; 32];
/// Nibbles of a panel's block: `[k][row][4]`, in groups of four rows.
pub(in crate::arch) type Nibbles = [[u8; 16]; 16];

/// Activations of a block as binary16: `x[i] = d·x̂[i]`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct F16Block {
    /// x̂ as binary16.
    pub(in crate::arch) x: [[u8; 16]; 4],
    /// A power of two; NaN if an activation is not finite.
    pub(in crate::arch) d: f32,
}

// SAFETY: 64 bytes and a number, with no padding; any bits are a value.
unsafe impl Plain for F16Block {}

/// A block of int8 activations of `T` tokens; see [`Quants`](super::Quants).
#[derive(Clone, Copy)]
pub(in crate::arch) struct TokenBlock<'a, const T: usize> {
    pub(in crate::arch) q: &'a [[i8; BLOCK]; T],
    pub(in crate::arch) d: &'a [f32; T],
    pub(in crate::arch) bias: &'a [i32; T],
    pub(in crate::arch) dsum: &'a [f32; T],
    pub(in crate::arch) halves: &'a [[i32; 2]; T],
}

impl<'a, const T: usize> TokenBlock<'a, T> {
    /// Token `t` alone.
    #[inline(always)]
    pub(in crate::arch) fn one(&self, t: usize) -> TokenBlock<'a, 1> {
        use core::array::from_ref;
        let TokenBlock { q, d, bias, dsum, halves } = self;
        TokenBlock {
            q: from_ref(&q[t]),
            d: from_ref(&d[t]),
            bias: from_ref(&bias[t]),
            dsum: from_ref(&dsum[t]),
            halves: from_ref(&halves[t]),
        }
    }
}

/// A pointer into each of some rows of weights, and what is there.
pub(in crate::arch) trait Places: Copy {
    /// How many rows: a multiple of [`ROWS`].
    const ROWS: usize;
    /// A block of a row, or of both rows that share a vector.
    type Of<'w, B: Block>: Copy;

    /// Those that `place` has for 0, 1 …
    fn from_fn(place: impl Fn(usize) -> *const u8) -> Self;
    /// `N` bytes of a block from `from` on, which it has.
    fn part<const B: usize, const N: usize>(block: Self::Of<'_, [u8; B]>, from: usize) -> Self::Of<'_, [u8; N]>;
    /// The blocks; moves each pointer to the block behind.
    ///
    /// # Safety
    /// Each pointer has a block that can be read for as long as `'w`.
    unsafe fn take<'w, B: Block>(&mut self) -> [Self::Of<'w, B>; ROWS];
}

impl Places for [*const u8; ROWS] {
    const ROWS: usize = ROWS;
    type Of<'w, B: Block> = &'w B;

    #[inline(always)]
    fn from_fn(place: impl Fn(usize) -> *const u8) -> Self {
        core::array::from_fn(place)
    }
    #[inline(always)]
    fn part<const B: usize, const N: usize>(block: Self::Of<'_, [u8; B]>, from: usize) -> Self::Of<'_, [u8; N]> {
        debug_assert!(from + N <= B);
        block.get(from..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; N])
    }
    #[inline(always)]
    unsafe fn take<'w, B: Block>(&mut self) -> [&'w B; ROWS] {
        self.each_mut().map(|next| {
            let block = *next;
            *next = block.wrapping_add(size_of::<B>());
            // SAFETY: the caller promises a readable block, of bytes at any alignment, at each pointer.
            unsafe { &*block.cast() }
        })
    }
}

/// Rows r and r + 4 share a vector.
impl Places for [[*const u8; ROWS]; 2] {
    const ROWS: usize = 2 * ROWS;
    type Of<'w, B: Block> = [&'w B; 2];

    #[inline(always)]
    fn from_fn(place: impl Fn(usize) -> *const u8) -> Self {
        [Places::from_fn(&place), Places::from_fn(|r| place(ROWS + r))]
    }
    #[inline(always)]
    fn part<const B: usize, const N: usize>(block: Self::Of<'_, [u8; B]>, from: usize) -> Self::Of<'_, [u8; N]> {
        block.map(|block| <[*const u8; ROWS]>::part(block, from))
    }
    #[inline(always)]
    unsafe fn take<'w, B: Block>(&mut self) -> [[&'w B; 2]; ROWS] {
        // SAFETY: as the caller promises of each pointer.
        let [low, high] = self.each_mut().map(|next| unsafe { next.take() });
        core::array::from_fn(|r| [low[r], high[r]])
    }
}

/// The next block of each of four rows, or of as many as `P` has.
pub(in crate::arch) struct BlockQuad<'n, 'w, B, P = [*const u8; ROWS]> {
    next: &'n mut P,
    blocks: PhantomData<&'w B>,
}

impl<'n, 'w, B: Block, P: Places> BlockQuad<'n, 'w, B, P> {
    /// # Safety
    /// Each pointer has a block that can be read for as long as `'w`.
    #[inline(always)]
    pub(in crate::arch) unsafe fn new(next: &'n mut P) -> Self {
        BlockQuad { next, blocks: PhantomData }
    }

    /// The blocks; moves each pointer to the block behind.
    #[inline(always)]
    pub(in crate::arch) fn blocks(self) -> [P::Of<'w, B>; ROWS] {
        // SAFETY: `new` was promised a readable block at each pointer, and taking `self` makes this their only use.
        unsafe { self.next.take() }
    }
}

#[cfg(target_arch = "aarch64")]
impl<'n, B: Block> BlockQuad<'n, '_, B> {
    /// For each row the pointer to its block, for loads that advance it.
    ///
    /// # Safety
    /// Each pointer is then advanced by exactly a block, or not at all.
    #[inline(always)]
    pub(in crate::arch) unsafe fn pointers(self) -> &'n mut [*const u8; ROWS] {
        self.next
    }
}
