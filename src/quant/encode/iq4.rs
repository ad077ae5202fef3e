//! Levels of a table: IQ4_NL and IQ4_XS.

use super::of_32::shares;
use super::pack::{half, join, level, nibbles};
use super::search::{SMALLEST, extreme, nearest, reciprocal, squares};
use crate::quant::formats::iq4_nl::LEVELS;

/// Twice the midpoints between levels, which is exact: that of level i and the one before.
const MIDPOINTS: [f32; 16] = {
    let mut out = [f32::NEG_INFINITY; 16];
    let mut i = 1;
    while i < 16 {
        out[i] = (LEVELS[i - 1] as i16 + LEVELS[i] as i16) as f32;
        i += 1;
    }
    out
};

/// The level nearest to `x`, the larger of two.
fn best(x: f32) -> u8 {
    [8, 4, 2, 1].iter().fold(0, |i, step| {
        let next = i + step;
        if x + x >= MIDPOINTS[usize::from(next & 15)] { next } else { i }
    })
}

fn value(index: u8) -> f32 {
    f32::from(LEVELS[usize::from(index & 15)])
}

/// The scale of 32 weights: the best of those that map the extreme weight to −127 and up to 7 beside it.
fn scale(x: &[f32; 32], importance: Option<&[f32; 32]>, mean_square: f32) -> f32 {
    let extreme = extreme(x);
    if libm::fabsf(extreme) < SMALLEST {
        return 0.0;
    }
    let importance = importance.map_or_else(|| x.map(|x| x * x), |w| shares(x, w, mean_square));
    let fit = |inverse: f32| {
        let (mut product, mut square) = (0.0, 0.0);
        for (x, w) in x.iter().zip(importance) {
            let q = value(best(inverse * x));
            product += w * q * x;
            square += w * q * q;
        }
        (product, square)
    };
    let lowest = f32::from(LEVELS[0]);
    let (product, square) = fit(1.0 / (-extreme / lowest));
    let mut scale = if square > 0.0 { product / square } else { 0.0 };
    let mut most = scale * product;
    for step in -7i8..=7 {
        let (product, square) = fit((f32::from(step) + lowest) / extreme);
        if square > 0.0 && product * product > most * square {
            scale = product / square;
            most = scale * product;
        }
    }
    scale
}

pub(super) fn iq4_nl(x: &[f32; 32], importance: Option<&[f32; 32]>) -> [u8; 18] {
    let scale = scale(x, importance, squares(x) * (2.0 / 32.0));
    let inverse = reciprocal(scale);
    join(&[&half(scale), &nibbles(&x.map(|x| best(inverse * x)))])
}

pub(super) fn iq4_xs(x: &[f32; 256], importance: Option<&[f32; 256]>) -> [u8; 136] {
    let mean_square = squares(x) * (2.0 / 256.0);
    let parts = x.as_chunks::<32>().0;
    let mut importance = importance.map(|w| w.as_chunks::<32>().0.iter());
    let mut scales = [0.0; 8];
    for (s, x) in scales.iter_mut().zip(parts) {
        *s = scale(x, importance.as_mut().and_then(Iterator::next), mean_square);
    }
    let d = -extreme(&scales) / 32.0;
    let inverse = reciprocal(d);
    let (mut quants, mut levels) = ([[0; 16]; 8], [0; 8]);
    for (((quants, q), s), x) in quants.iter_mut().zip(&mut levels).zip(scales).zip(parts) {
        let l = nearest(inverse * s).clamp(-32, 31);
        let inverse = reciprocal(d * l as f32);
        *quants = nibbles(&x.map(|x| best(inverse * x)));
        *q = (l + 32) as u8;
    }
    let high = levels.iter().rev().fold(0u16, |bits, l| bits << 2 | u16::from(l >> 4));
    let low: [u8; 4] = core::array::from_fn(|i| level(&levels, 2 * i) & 15 | level(&levels, 2 * i + 1) << 4);
    join(&[&half(d), &high.to_le_bytes(), &low, quants.as_flattened()])
}
