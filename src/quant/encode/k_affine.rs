//! Blocks of 256 weights with a scale and a minimum for 16 or 32 of them: Q2_K, Q4_K, Q5_K.

use super::of_32::{WEIGHTED, shares};
use super::pack::{bits, half, join, level, pairs, through_half};
use super::search::{Affine, Steps, nearest, positive, squares, sum};

/// What distinguishes the formats.
struct Recipe {
    /// Largest level of a weight.
    max: i32,
    /// Largest level of a scale or minimum.
    max_scale: i32,
    /// Without importance: the search, and whether a weight's share in the error is |w| + √(mean square of the sub-block),
    /// or |w| alone.
    plain: Steps,
    with_mean: bool,
    /// With importance: the mean square of the block counts so many times.
    spread: f32,
}

const Q2K: Recipe = Recipe {
    max: 3,
    max_scale: 15,
    plain: Steps { start: -0.5, step: 0.1, count: 15, absolute: true, clamp_first: false },
    with_mean: false,
    spread: 1.0,
};

const Q4K: Recipe = Recipe {
    max: 15,
    max_scale: 63,
    plain: Steps { start: -1.0, step: 0.1, count: 20, absolute: false, clamp_first: false },
    with_mean: true,
    spread: 2.0,
};

const Q5K: Recipe = Recipe {
    max: 31,
    max_scale: 63,
    plain: Steps { start: -0.5, step: 0.1, count: 15, absolute: false, clamp_first: false },
    with_mean: true,
    spread: 2.0,
};

/// A block of `K` sub-blocks of `S` weights.
struct Block<const S: usize, const K: usize> {
    d: f32,
    dmin: f32,
    scales: [u8; K],
    mins: [u8; K],
    levels: [[u8; S]; K],
}

impl<const S: usize, const K: usize> Block<S, K> {
    fn new(x: &[f32; 256], importance: Option<&[f32; 256]>, recipe: &Recipe) -> Self {
        let (mut scales, mut mins, mut shares_of, mut levels) = ([0.0; K], [0.0; K], [0.0; K], [[0; S]; K]);
        let parts = || x.as_chunks::<S>().0.iter();
        let found = scales.iter_mut().zip(&mut mins).zip(&mut shares_of).zip(&mut levels);
        let mean_square = recipe.spread * squares(x) / 256.0;
        let mut importance = importance.map(|w| w.as_chunks::<S>().0.iter());
        let weighted = importance.is_some();
        for ((((scale, min), total), levels), x) in found.zip(parts()) {
            let (w, steps) = match importance.as_mut().and_then(Iterator::next) {
                Some(w) => (shares(x, w, mean_square), &WEIGHTED),
                None => {
                    let mean = if recipe.with_mean { libm::sqrtf(squares(x) / S as f32) } else { 0.0 };
                    (x.map(|x| mean + libm::fabsf(x)), &recipe.plain)
                }
            };
            let affine = Affine::search(x, &w, recipe.max, steps);
            (*scale, *min, *levels, *total) = (affine.scale, affine.min, affine.levels, sum(w.into_iter()));
        }
        let quantise = |numbers: &[f32; K]| match weighted {
            true => positive(numbers, &shares_of, recipe.max_scale),
            false => linear(numbers, recipe.max_scale),
        };
        let ((d, scales), (dmin, mins)) = (quantise(&scales), quantise(&mins));
        let mut block = Block { d, dmin, scales, mins, levels };
        // The levels again, now that the scales are rounded.
        let (d, dmin) = (through_half(d), through_half(dmin));
        for (((levels, x), scale), min) in block.levels.iter_mut().zip(parts()).zip(scales).zip(mins) {
            let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
            if scale != 0.0 {
                *levels = x.map(|x| nearest((x + min) / scale).max(0).min(recipe.max) as u8);
            }
        }
        block
    }

    /// The 12 bytes with eight scales and minima of 6 bits.
    fn packed_scales(&self) -> [u8; 12] {
        let (s, m) = (|j: usize| level(&self.scales, j), |j: usize| level(&self.mins, j));
        core::array::from_fn(|i| match i {
            0..4 => s(i) | s(i + 4) >> 4 << 6,
            4..8 => m(i - 4) | m(i) >> 4 << 6,
            _ => s(i - 4) & 15 | m(i - 4) << 4,
        })
    }
}

/// The scale that maps the largest number to `max`, and the levels.
fn linear<const K: usize>(numbers: &[f32; K], max: i32) -> (f32, [u8; K]) {
    let high = numbers.iter().fold(0.0, |m, x| if *x > m { *x } else { m });
    let inverse = if high > 0.0 { max as f32 / high } else { 0.0 };
    (high / max as f32, numbers.map(|x| (nearest(inverse * x) as u8).min(max as u8)))
}

pub(super) fn q2_k(x: &[f32; 256], importance: Option<&[f32; 256]>) -> [u8; 84] {
    let b = Block::<16, 16>::new(x, importance, &Q2K);
    let mut scales = b.scales;
    scales.iter_mut().zip(b.mins).for_each(|(s, m)| *s |= m << 4);
    join(&[&scales, &pairs(b.levels.as_flattened(), 0), &half(b.d), &half(b.dmin)])
}

/// The low 4 bits of levels: two sub-blocks in 32 bytes.
fn nibbles_of_two(levels: &[[u8; 32]; 8]) -> [[u8; 32]; 4] {
    let mut out = [[0; 32]; 4];
    for (out, [low, high]) in out.iter_mut().zip(levels.as_chunks::<2>().0) {
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            *out = low & 15 | high << 4;
        }
    }
    out
}

pub(super) fn q4_k(x: &[f32; 256], importance: Option<&[f32; 256]>) -> [u8; 144] {
    let b = Block::<32, 8>::new(x, importance, &Q4K);
    join(&[&half(b.d), &half(b.dmin), &b.packed_scales(), nibbles_of_two(&b.levels).as_flattened()])
}

pub(super) fn q5_k(x: &[f32; 256], importance: Option<&[f32; 256]>) -> [u8; 176] {
    let b = Block::<32, 8>::new(x, importance, &Q5K);
    let high = bits(b.levels.as_flattened(), 4);
    join(&[&half(b.d), &half(b.dmin), &b.packed_scales(), &high, nibbles_of_two(&b.levels).as_flattened()])
}
