//! The end of a row that is not a whole block.

use crate::quant::Block;

/// `tail`, then zeros.
#[inline(always)]
pub(super) fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [T; N] {
    let mut out = [T::default(); N];
    copy(tail, &mut out);
    out
}

/// `tail`, then zeros.
#[inline(always)]
pub(super) fn padded_block<B: Block>(tail: &[u8]) -> B {
    let mut out = B::ZERO;
    copy(tail, out.as_mut());
    out
}

/// As much as there is room for; a copy of so many bytes, not a loop of bytes.
#[inline(always)]
fn copy<T: Copy>(tail: &[T], out: &mut [T]) {
    let n = tail.len().min(out.len());
    if let (Some(out), Some(tail)) = (out.get_mut(..n), tail.get(..n)) {
        out.copy_from_slice(tail);
    }
}
