//! Accumulators of many tokens, on the stack.

use core::mem::MaybeUninit;

use crate::storage::Plain;

/// Tokens that are multiplied with weights interleaved or widened once: their sums are on the stack, of which firmware has
/// little.
pub(super) const MAX_TOKENS: usize = if cfg!(target_os = "none") { 64 } else { 128 };

/// Accumulators for the sums of [`MAX_TOKENS`], at the start of a line of the cache, so that no vector of 64 bytes is in two.
///
/// Only those that are used are ever written: for a few tokens, zeroing all would cost a tenth of the product.
#[repr(align(64))]
pub(super) struct Accumulators<T>(MaybeUninit<[T; MAX_TOKENS]>);

impl<T: Plain> Accumulators<T> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Accumulators(MaybeUninit::uninit())
    }

    /// The first `n`, all zero.
    #[inline(always)]
    pub(super) fn zeroed(&mut self, n: usize) -> &mut [T] {
        let n = n.min(MAX_TOKENS);
        let first = self.0.as_mut_ptr().cast::<T>();
        // SAFETY: there is room for `n`, and zeros are a value of what is plain.
        unsafe {
            first.write_bytes(0, n);
            core::slice::from_raw_parts_mut(first, n)
        }
    }
}
