//! Blocks of int8 activations of several tokens.

use core::marker::PhantomData;

use crate::arch::generic::activations::{Activations, Quants};
use crate::arch::types::TokenBlock;
use crate::quant::BLOCK;

/// The int8 activations of `T` tokens, block after block.
#[derive(Clone, Copy)]
pub(in crate::arch::generic) struct TokenCursor<'a, const T: usize> {
    q: *const [i8; BLOCK],
    d: *const f32,
    bias: *const i32,
    dsum: *const f32,
    halves: *const [i32; 2],
    stride: usize,
    left: usize,
    borrow: PhantomData<&'a ()>,
}

impl<'a, const T: usize> TokenCursor<'a, T> {
    /// Tokens `token..token + T` of `x`, from block `first` on; empty if `x` does not have them.
    #[inline(always)]
    pub(in crate::arch::generic) fn new(x: &Activations<'a>, token: usize, first: usize) -> Self {
        let (quants, stride) = (x.quants, x.quants.stride);
        let len = quants.q.len().min(quants.d.len()).min(quants.bias.len()).min(quants.dsum.len());
        let len = len.min(quants.halves.len());
        // Blocks that have tokens `token..token + T`; each is `stride` after the one before.
        let behind = len.checked_sub(token.saturating_add(T)).and_then(|rest| rest.checked_div(stride));
        let left = behind.map_or(0, |n| n + 1).saturating_sub(first);
        let at = if left > 0 { first * stride + token } else { 0 };
        TokenCursor {
            q: quants.q.as_ptr().wrapping_add(at),
            d: quants.d.as_ptr().wrapping_add(at),
            bias: quants.bias.as_ptr().wrapping_add(at),
            dsum: quants.dsum.as_ptr().wrapping_add(at),
            halves: quants.halves.as_ptr().wrapping_add(at),
            stride,
            left,
            borrow: PhantomData,
        }
    }

    /// All of `x`, which is one token and no part of a pass of more: the stride is a constant.
    #[inline(always)]
    pub(in crate::arch::generic) fn of_one(x: &Activations<'a>) -> Self {
        const { assert!(T == 1) };
        let all = Self::new(x, 0, 0);
        TokenCursor { stride: 1, left: if all.stride == 1 { all.left } else { 0 }, ..all }
    }

    /// Blocks left.
    pub(in crate::arch::generic) fn left(&self) -> usize {
        self.left
    }

    /// The next block.
    ///
    /// # Safety
    /// To be called at most [`left`](TokenCursor::left) times.
    #[inline(always)]
    pub(in crate::arch::generic) unsafe fn next(&mut self) -> TokenBlock<'a, T> {
        // SAFETY: `left` counts the blocks that have all `T` tokens, and the caller takes no more.
        let block = unsafe {
            TokenBlock {
                q: &*self.q.cast(),
                d: &*self.d.cast(),
                bias: &*self.bias.cast(),
                dsum: &*self.dsum.cast(),
                halves: &*self.halves.cast(),
            }
        };
        self.q = self.q.wrapping_add(self.stride);
        self.d = self.d.wrapping_add(self.stride);
        self.bias = self.bias.wrapping_add(self.stride);
        self.dsum = self.dsum.wrapping_add(self.stride);
        self.halves = self.halves.wrapping_add(self.stride);
        block
    }
}

/// Block `b` of the tokens from `token` on, `T` at a time.
#[inline(always)]
pub(in crate::arch::generic) fn token_blocks<'a, const T: usize>(
    x: &Activations<'a>,
    b: usize,
    token: usize,
) -> impl Iterator<Item = TokenBlock<'a, T>> {
    let Quants { q, d, bias, dsum, halves, stride } = x.quants;
    let (first, end) = (b * stride + token, b * stride + x.tokens);
    let q = q.get(first..end).unwrap_or(&[]).as_chunks().0;
    let d = d.get(first..end).unwrap_or(&[]).as_chunks().0;
    let bias = bias.get(first..end).unwrap_or(&[]).as_chunks().0;
    let dsum = dsum.get(first..end).unwrap_or(&[]).as_chunks().0;
    let halves = halves.get(first..end).unwrap_or(&[]).as_chunks().0;
    let all = q.iter().zip(d).zip(bias).zip(dsum).zip(halves);
    all.map(|((((q, d), bias), dsum), halves)| TokenBlock { q, d, bias, dsum, halves })
}
