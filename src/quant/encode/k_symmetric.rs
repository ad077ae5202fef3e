//! Blocks of 256 weights with a scale for 16 of them: Q3_K, Q6_K.

use super::of_32::shares;
use super::pack::{bits, half, join, level, pairs, through_half};
use super::search::{SMALLEST, Symmetric, extreme, nearest, squares, sum};

/// Sixteen sub-blocks.
type Levels = [[u8; 16]; 16];

/// The scales and levels of the sub-blocks, each found by `search` from weights and importance.
fn sub_blocks(
    x: &[f32; 256],
    importance: Option<&[f32; 256]>,
    mut search: impl FnMut(usize, &[f32; 16], Option<&[f32; 16]>) -> Symmetric<16>,
) -> ([f32; 16], Levels) {
    let (mut scales, mut levels) = ([0.0; 16], [[0; 16]; 16]);
    let mut importance = importance.map(|w| w.as_chunks::<16>().0.iter());
    for (i, ((scale, levels), x)) in scales.iter_mut().zip(&mut levels).zip(x.as_chunks::<16>().0).enumerate() {
        let found = search(i, x, importance.as_mut().and_then(Iterator::next));
        (*scale, *levels) = (found.scale, found.levels);
    }
    (scales, levels)
}

/// The levels again, now that the scales are rounded; those of a scale that became 0 stay.
fn requantise(x: &[f32; 256], levels: &mut Levels, d: f32, scales: &[i8; 16], max: i32) {
    for ((levels, x), scale) in levels.iter_mut().zip(x.as_chunks::<16>().0).zip(scales) {
        let scale = through_half(d) * f32::from(*scale);
        if scale != 0.0 {
            *levels = x.map(|x| (nearest(x / scale).max(-max).min(max - 1) + max) as u8);
        }
    }
}

pub(super) fn q3_k(x: &[f32; 256], importance: Option<&[f32; 256]>) -> [u8; 110] {
    let mean_square = 2.0 * squares(x) / 256.0;
    let mut totals = [0.0; 16];
    let (scales, mut levels) = sub_blocks(x, importance, |i, x, w| match w {
        Some(w) => {
            let w = shares(x, w, mean_square);
            if let Some(total) = totals.get_mut(i) {
                *total = sum(w.into_iter());
            }
            Symmetric::search(x, &w, 4)
        }
        None => Symmetric::refine(x, 4),
    });
    let (d, scales) = if importance.is_some() {
        let found = Symmetric::search(&scales, &totals, 32);
        (found.scale, found.levels)
    } else {
        let extreme = extreme(&scales);
        let inverse = -32.0 / extreme;
        let quantise = |s: f32| ((nearest(inverse * s) as i8).clamp(-32, 31) + 32).cast_unsigned();
        if extreme == 0.0 { (0.0, [0; 16]) } else { (1.0 / inverse, scales.map(quantise)) }
    };
    requantise(x, &mut levels, d, &scales.map(|s| s.cast_signed() - 32), 4);
    let levels = levels.as_flattened();
    join(&[&bits(levels, 2), &pairs(levels, 0), &packed_scales(&scales), &half(d)])
}

/// Sixteen scales of 6 bits: the low 4 bits of k and k + 8 in byte k, then the high bits of k + 4·g in byte 8 + k.
fn packed_scales(scales: &[u8; 16]) -> [u8; 12] {
    core::array::from_fn(|i| match i {
        0..8 => level(scales, i) & 15 | level(scales, i + 8) << 4,
        _ => (0..4).fold(0, |byte, g| byte | (level(scales, i - 8 + 4 * g) >> 4) << (2 * g)),
    })
}

pub(super) fn q6_k(x: &[f32; 256], importance: Option<&[f32; 256]>) -> [u8; 210] {
    // Here importance is a weight's whole share in the error.
    let (scales, mut levels) =
        sub_blocks(x, importance, |_, x, w| Symmetric::search(x, w.unwrap_or(&x.map(|x| x * x)), 32));
    let extreme = extreme(&scales);
    if libm::fabsf(extreme) < SMALLEST {
        return [0; 210];
    }
    let inverse = -128.0 / extreme;
    let d = 1.0 / inverse;
    let scales = scales.map(|s| nearest(inverse * s).min(127) as i8);
    requantise(x, &mut levels, d, &scales, 32);
    let levels = levels.as_flattened();
    // The low 4 bits: in byte 64·h + l those of levels 128·h + l and 64 after it.
    let low: [u8; 128] = core::array::from_fn(|i| {
        let first = i / 64 * 128 + i % 64;
        level(levels, first) & 15 | level(levels, first + 64) << 4
    });
    join(&[&low, &pairs(levels, 4), &scales.map(i8::cast_unsigned), &half(d)])
}
