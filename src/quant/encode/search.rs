//! The searches for the scale of a few weights: those of ggml, sum by sum, so that encoding gives the same bytes.
//!
//! An *importance* is a weight's share in the error that a search minimises.

use libm::fabsf;

/// Weights whose magnitudes are all below this are zeros.
pub(super) const SMALLEST: f32 = 1e-15;

/// The nearest integer, ties to even, if `x` has a magnitude below 2²²; else some integer, the same as in ggml.
pub(super) fn nearest(x: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³: the unit in the last place of the sum is 1
    ((x + SHIFT).to_bits() & 0x007f_ffff).cast_signed() - 0x0040_0000
}

/// 1/x, and 0 for 0.
pub(super) fn reciprocal(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// Sum in the order of the items, starting from +0, as in C.
pub(super) fn sum(items: impl Iterator<Item = f32>) -> f32 {
    items.fold(0.0, |sum, x| sum + x)
}

/// Sum of squares.
pub(super) fn squares(x: &[f32]) -> f32 {
    sum(x.iter().map(|x| x * x))
}

/// The first number of largest magnitude, with its sign.
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |m, x| if fabsf(*x) > fabsf(m) { *x } else { m })
}

/// Largest magnitude.
pub(super) fn magnitude(x: &[f32]) -> f32 {
    fabsf(extreme(x))
}

/// What a search for `w = scale·(level − max)` found.
pub(super) struct Symmetric<const N: usize> {
    pub(super) scale: f32,
    /// From 0 to 2·max − 1, or all 0 if the scale is.
    pub(super) levels: [u8; N],
}

impl<const N: usize> Symmetric<N> {
    const ZERO: Self = Symmetric { scale: 0.0, levels: [0; N] };

    /// Tries 19 scales around the one that maps the extreme weight to −max (ggml: `make_qx_quants`).
    pub(super) fn search(x: &[f32; N], importance: &[f32; N], max: i32) -> Self {
        let extreme = extreme(x);
        if fabsf(extreme) < SMALLEST {
            return Self::ZERO;
        }
        let fit = |inverse: f32| {
            let (mut levels, mut product, mut square) = ([0; N], 0.0, 0.0);
            for ((q, x), w) in levels.iter_mut().zip(x).zip(importance) {
                let level = nearest(inverse * x).max(-max).min(max - 1);
                *q = (level + max) as u8;
                product += w * x * level as f32;
                square += w * level as f32 * level as f32;
            }
            (levels, product, square)
        };
        let (mut levels, product, square) = fit(-max as f32 / extreme);
        let mut scale = if square == 0.0 { 0.0 } else { product / square };
        let mut best = scale * product;
        for step in (-9i8..=9).filter(|step| *step != 0) {
            let (tried, product, square) = fit(-(max as f32 + 0.1 * f32::from(step)) / extreme);
            if square > 0.0 && product * product > best * square {
                (levels, scale) = (tried, product / square);
                best = scale * product;
            }
        }
        Symmetric { scale, levels }
    }

    /// Maps the extreme weight to −max, then moves single levels where that lessens the error, which counts each weight
    /// by its square (ggml: `make_q3_quants`).
    pub(super) fn refine(x: &[f32; N], max: i32) -> Self {
        let extreme = extreme(x);
        if fabsf(extreme) < SMALLEST {
            return Self::ZERO;
        }
        let inverse = -max as f32 / extreme;
        let mut signed = x.map(|x| nearest(inverse * x).max(-max).min(max - 1));
        let (mut product, mut square) = (0.0, 0.0);
        for (x, level) in x.iter().zip(signed) {
            product += x * x * x * level as f32;
            square += x * x * level as f32 * level as f32;
        }
        for _ in 0..5 {
            let mut changed = false;
            for (x, level) in x.iter().zip(&mut signed) {
                let w = x * x;
                let mut p = product - w * x * *level as f32;
                if p > 0.0 {
                    let mut s = square - w * *level as f32 * *level as f32;
                    let tried = nearest(x * s / p).max(-max).min(max - 1);
                    if tried != *level {
                        p += w * x * tried as f32;
                        s += w * tried as f32 * tried as f32;
                        if s > 0.0 && p * p * square > product * product * s {
                            (*level, product, square, changed) = (tried, p, s, true);
                        }
                    }
                }
            }
            if !changed {
                break;
            }
        }
        let scale = if square > 0.0 { product / square } else { 0.0 };
        Symmetric { scale, levels: signed.map(|level| (level + max) as u8) }
    }
}

/// The search for `w = scale·level − min`: its first scale, and by how much it changes.
pub(super) struct Steps {
    /// The first scale maps the range of the weights to so much more than the largest level,
    pub(super) start: f32,
    /// and each of the following ones to so much more again.
    pub(super) step: f32,
    /// Number of scales after the first.
    pub(super) count: u8,
    /// Minimise absolute instead of square errors.
    pub(super) absolute: bool,
    /// Whether levels out of range are clamped before they are rounded, which matters only beyond 2²².
    pub(super) clamp_first: bool,
}

/// What a search for `w = scale·level − min` found.
pub(super) struct Affine<const N: usize> {
    pub(super) scale: f32,
    /// At least 0.
    pub(super) min: f32,
    pub(super) levels: [u8; N],
}

impl<const N: usize> Affine<N> {
    /// Tries the scales of `steps`, each with the least-squares fit of scale and minimum to its levels, of 0 to `max`
    /// (ggml: `make_qkx2_quants`, `make_qkx3_quants`).
    pub(super) fn search(x: &[f32; N], importance: &[f32; N], max: i32, steps: &Steps) -> Self {
        let first = x.first().copied().unwrap_or(0.0);
        let low = x.iter().fold(first, |m, x| if *x < m { *x } else { m });
        let high = x.iter().fold(first, |m, x| if *x > m { *x } else { m });
        let mut min = if low > 0.0 { 0.0 } else { low };
        if high <= min {
            return Affine { scale: 0.0, min: -min, levels: [0; N] };
        }
        let weighted = || x.iter().zip(importance);
        let (sum_w, sum_x) = (sum(importance.iter().copied()), sum(weighted().map(|(x, w)| w * x)));
        let error = |levels: &[u8; N], scale: f32, min: f32| {
            sum(weighted().zip(levels).map(|((x, w), level)| {
                let difference = scale * f32::from(*level) + min - x;
                w * if steps.absolute { fabsf(difference) } else { difference * difference }
            }))
        };
        let inverse = max as f32 / (high - min);
        let mut levels = x.map(|x| nearest(inverse * (x - min)).max(0).min(max) as u8);
        let mut scale = 1.0 / inverse;
        let mut best = error(&levels, scale, min);
        for step in 0..=steps.count {
            // The minimum is that of the best fit so far.
            let inverse = (steps.start + steps.step * f32::from(step) + max as f32) / (high - min);
            let tried = x.map(|x| match inverse * (x - min) {
                v if !steps.clamp_first => nearest(v).max(0).min(max) as u8,
                v if v > 0.0 => nearest(if v < max as f32 { v } else { max as f32 }) as u8,
                _ => 0,
            });
            let Some((s, m)) = fit(x, importance, &tried, sum_w, sum_x) else { continue };
            let e = error(&tried, s, m);
            if e < best {
                (levels, best, scale, min) = (tried, e, s, m);
            }
        }
        Affine { scale, min: -min, levels }
    }
}

/// Scale and minimum, which is at most 0, of the least squares `Σ w·(scale·level + min − x)²`.
fn fit(x: &[f32], importance: &[f32], levels: &[u8], sum_w: f32, sum_x: f32) -> Option<(f32, f32)> {
    let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
    for ((x, w), level) in x.iter().zip(importance).zip(levels) {
        let level = f32::from(*level);
        sum_l += w * level;
        sum_l2 += w * level * level;
        sum_xl += w * level * x;
    }
    let determinant = sum_w * sum_l2 - sum_l * sum_l;
    let scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
    let min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    (determinant > 0.0).then_some(if min > 0.0 { (sum_xl / sum_l2, 0.0) } else { (scale, min) })
}

/// Scale and levels, of 0 to `max`, of numbers that are not negative (ggml: `make_qp_quants`).
pub(super) fn positive<const N: usize>(x: &[f32; N], importance: &[f32; N], max: i32) -> (f32, [u8; N]) {
    let high = x.iter().fold(0.0, |m, x| if m > *x { m } else { *x });
    if high < SMALLEST {
        return (0.0, [0; N]);
    }
    let level = |inverse: f32, x: f32| nearest(inverse * x).min(max);
    let error = |inverse: f32| {
        let scale = 1.0 / inverse;
        sum(x.iter().zip(importance).map(|(x, w)| {
            let difference = x - scale * level(inverse, *x) as f32;
            w * difference * difference
        }))
    };
    let mut inverse = max as f32 / high;
    let mut best = error(inverse);
    for step in (-4i8..=4).filter(|step| *step != 0) {
        let tried = (0.1 * f32::from(step) + max as f32) / high;
        let e = error(tried);
        if e < best {
            (best, inverse) = (e, tried);
        }
    }
    let mut levels = [0u8; N];
    let (mut product, mut square) = (0.0, 0.0);
    for ((q, x), w) in levels.iter_mut().zip(x).zip(importance) {
        let level = level(inverse, *x);
        *q = level as u8;
        product += w * x * level as f32;
        square += w * level as f32 * level as f32;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((q, x), w) in levels.iter_mut().zip(x).zip(importance) {
            let old = f32::from(*q);
            let (mut p, mut s) = (product - w * x * old, square - w * old * old);
            if p > 0.0 && s > 0.0 {
                let tried = nearest(x * s / p).min(max);
                if tried != i32::from(*q) {
                    p += w * x * tried as f32;
                    s += w * tried as f32 * tried as f32;
                    if p * p * square > product * product * s {
                        (*q, product, square, changed) = (tried as u8, p, s, true);
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    (if square > 0.0 { product / square } else { 0.0 }, levels)
}
