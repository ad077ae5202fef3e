//! The Walsh-Hadamard transform of heads, which spreads outliers and so makes int8 keys more precise (Ashkboos et al.
//! 2024, QuaRot, arXiv 2404.00456).

use crate::util::SliceExt;

/// Transforms each block of the largest power of two that divides the head. Applied to queries and keys alike it leaves
/// their dot products as they are.
pub(super) fn transform(head: &mut [f32]) {
    let size = 1 << head.len().trailing_zeros();
    for block in head.rows_mut(size) {
        let mut half = 1;
        while half < size {
            for pair in block.rows_mut(2 * half) {
                let (a, b) = pair.split_at_mut_checked(half).unwrap_or_default();
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        let scale = 1.0 / libm::sqrtf(size as f32);
        block.iter_mut().for_each(|x| *x *= scale);
    }
}
