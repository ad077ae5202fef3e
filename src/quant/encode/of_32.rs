//! Blocks of 32 weights with a scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! Without importance the extremes of a block set its scale. With it there is a search, in which a weight's share in the
//! error is its importance times √(σ² + w²), where σ² is the mean square of the row.

use super::pack::{fifth_bits, half, join, nibbles};
use super::search::{Affine, Steps, Symmetric, extreme, magnitude, reciprocal};

/// The search of Q4_1 and Q5_1, and of the K formats, with importance.
pub(super) const WEIGHTED: Steps = Steps { start: -0.9, step: 0.05, count: 36, absolute: false, clamp_first: true };

/// Importance and the row's mean square.
pub(super) type Weighted<'a> = Option<(&'a [f32; 32], f32)>;

/// The shares of weights in the error.
pub(super) fn shares<const N: usize>(x: &[f32; N], importance: &[f32; N], mean_square: f32) -> [f32; N] {
    let mut out = *importance;
    for (w, x) in out.iter_mut().zip(x) {
        *w *= libm::sqrtf(mean_square + x * x);
    }
    out
}

pub(super) fn q8_0(x: &[f32; 32]) -> [u8; 34] {
    let d = magnitude(x) / 127.0;
    let inverse = reciprocal(d);
    join(&[&half(d), &x.map(|x| (libm::roundf(x * inverse) as i8).cast_unsigned())])
}

/// Scale and levels of Q4_0 (`max` = 8) and Q5_0 (16): the extreme weight, with its sign, becomes −max.
fn symmetric(x: &[f32; 32], weighted: Weighted<'_>, max: i32) -> (f32, [u8; 32]) {
    if let Some((importance, mean_square)) = weighted {
        let found = Symmetric::search(x, &shares(x, importance, mean_square), max);
        return (found.scale, found.levels);
    }
    let d = extreme(x) / -max as f32;
    let inverse = reciprocal(d);
    (d, x.map(|x| ((x * inverse + (max as f32 + 0.5)) as u8).min(2 * max as u8 - 1)))
}

/// Scale, minimum and levels of Q4_1 (`max` = 15) and Q5_1 (31).
fn affine(x: &[f32; 32], weighted: Weighted<'_>, max: i32) -> (f32, f32, [u8; 32]) {
    if let Some((importance, mean_square)) = weighted {
        let found = Affine::search(x, &shares(x, importance, mean_square), max, &WEIGHTED);
        return (found.scale, -found.min, found.levels);
    }
    let min = x.iter().fold(f32::MAX, |m, x| if *x < m { *x } else { m });
    let high = x.iter().fold(-f32::MAX, |m, x| if *x > m { *x } else { m });
    let d = (high - min) / max as f32;
    let inverse = reciprocal(d);
    (d, min, x.map(|x| (((x - min) * inverse + 0.5) as u8).min(max as u8)))
}

pub(super) fn q4_0(x: &[f32; 32], weighted: Weighted<'_>) -> [u8; 18] {
    let (d, levels) = symmetric(x, weighted, 8);
    join(&[&half(d), &nibbles(&levels)])
}

pub(super) fn q5_0(x: &[f32; 32], weighted: Weighted<'_>) -> [u8; 22] {
    let (d, levels) = symmetric(x, weighted, 16);
    join(&[&half(d), &fifth_bits(&levels), &nibbles(&levels)])
}

pub(super) fn q4_1(x: &[f32; 32], weighted: Weighted<'_>) -> [u8; 20] {
    let (d, min, levels) = affine(x, weighted, 15);
    join(&[&half(d), &half(min), &nibbles(&levels)])
}

pub(super) fn q5_1(x: &[f32; 32], weighted: Weighted<'_>) -> [u8; 24] {
    let (d, min, levels) = affine(x, weighted, 31);
    join(&[&half(d), &half(min), &fifth_bits(&levels), &nibbles(&levels)])
}
