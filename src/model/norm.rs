//! Norms in place, of what is small beside the matrices: heads, and the output of a layer's two halves.
//!
//! RMSNorm before matrices has a kernel; see [`Kernels::rms_norm`](crate::arch::Kernels::rms_norm).

use super::NormKind;

/// Sums that are made side by side, so that the compiler can vectorise.
const LANES: usize = 8;

/// The sum of all numbers, or of their squares.
#[inline(never)]
fn sum(x: &[f32], squares: bool) -> f32 {
    let mut lanes = [0.0; LANES];
    for x in x.chunks(LANES) {
        lanes.iter_mut().zip(x).for_each(|(sum, x)| *sum += if squares { *x * *x } else { *x });
    }
    lanes.iter().sum()
}

/// `x = (x - mean) / sqrt(variance + eps) · weight + bias`; RMSNorm subtracts no mean. Little-endian f32 weights and biases;
/// an empty bias adds nothing.
#[inline(never)]
pub(super) fn normalise(x: &mut [f32], kind: NormKind, eps: f32, weight: &[u8], bias: &[u8]) {
    let n = x.len() as f32;
    if kind == NormKind::Layer {
        let mean = sum(x, false) / n;
        x.iter_mut().for_each(|x| *x -= mean);
    }
    let scale = 1.0 / libm::sqrtf(sum(x, true) / n + eps);
    for (x, w) in x.iter_mut().zip(weight.as_chunks::<4>().0) {
        *x = *x * scale * f32::from_le_bytes(*w);
    }
    add(x, bias, 0);
}

/// `x += y`, little-endian f32, of which those from `first` on count, as far as there are any.
#[inline(never)]
pub(super) fn add(x: &mut [f32], y: &[u8], first: usize) {
    for (x, y) in x.iter_mut().zip(y.get(4 * first..).unwrap_or_default().as_chunks::<4>().0) {
        *x += f32::from_le_bytes(*y);
    }
}

/// `x *= by`, which most models have as 1.
#[inline(never)]
pub(super) fn multiply(x: &mut [f32], by: f32) {
    if by != 1.0 {
        x.iter_mut().for_each(|x| *x *= by);
    }
}

/// `x += by · y`.
#[inline(never)]
pub(super) fn add_scaled(x: &mut [f32], y: &[f32], by: f32) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += by * *y);
}

/// `to = from`, as far as the shorter goes.
pub(super) fn copy(from: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}
