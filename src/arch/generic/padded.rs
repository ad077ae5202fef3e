//! The end of a row that is not a whole block.

/// `tail`, then zeros.
#[inline(always)]
pub(super) fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [T; N] {
    let mut out = [T::default(); N];
    let n = tail.len().min(N);
    // A copy of so many bytes, not a loop of bytes.
    if let (Some(out), Some(tail)) = (out.get_mut(..n), tail.get(..n)) {
        out.copy_from_slice(tail);
    }
    out
}
