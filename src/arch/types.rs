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

/// The next block of each of four rows.
pub(in crate::arch) struct BlockQuad<'n, 'w, B> {
    next: &'n mut [*const u8; ROWS],
    blocks: PhantomData<&'w B>,
}

impl<'n, 'w, B: Block> BlockQuad<'n, 'w, B> {
    /// # Safety
    /// Each pointer has a block that can be read for as long as `'w`.
    #[inline(always)]
    pub(in crate::arch) unsafe fn new(next: &'n mut [*const u8; ROWS]) -> Self {
        BlockQuad { next, blocks: PhantomData }
    }

    /// The blocks; moves each pointer to the block behind.
    #[inline(always)]
    pub(in crate::arch) fn blocks(self) -> [&'w B; ROWS] {
        self.next.each_mut().map(|next| {
            let block = *next;
            *next = block.wrapping_add(size_of::<B>());
            // SAFETY: `new` was promised a readable block, of bytes at any alignment, at each pointer, and taking `self` makes this their only use.
            unsafe { &*block.cast() }
        })
    }

    /// For each row the pointer to its block, for loads that advance it.
    ///
    /// # Safety
    /// Each pointer is then advanced by exactly a block, or not at all.
    #[inline(always)]
    #[cfg(target_arch = "aarch64")]
    pub(in crate::arch) unsafe fn pointers(self) -> &'n mut [*const u8; ROWS] {
        self.next
    }
}
