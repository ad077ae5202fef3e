//! Rotary position embedding (RoPE: Su et al. 2021, arXiv 2104.09864).
//!
//! Angles depend on the position only, so their cosines and sines are computed once per pass, for all layers and heads.

use super::batch::Batch;
use super::{Model, RopeKind};
use crate::util::{SliceExt, phase};

/// Fills `table`, `(tokens, bases, 2, rope_dims / 2, 2)`, with cosine and sine of position · frequency of each pair:
/// for the token's position, and for the shifted position used against the sinks.
pub(super) fn fill_table(model: &Model<'_>, batch: &Batch<'_, '_>, table: &mut [f32]) {
    let h = &model.hparams;
    let (_, rope_dims) = h.widest_head();
    let tokens = table.rows_mut(h.rope_bases() * 2 * rope_dims).take(batch.rows());
    for (t, bases) in tokens.enumerate() {
        let Some(token) = batch.locate(t) else { return };
        let positions = [token.position, token.position - token.cache.sink_offset(token.position)];
        let sets = model.weights.rope_frequencies;
        let long = is_long(model, token.cache.context());
        for (base, angles) in bases.rows_mut(2 * rope_dims).enumerate() {
            // The set of a long context is behind the others.
            let set = if base == 0 && long { h.rope_bases() } else { base };
            let windowed = h.window.as_ref().and_then(|w| w.rotation).filter(|_| base > 0);
            let multiplier = windowed.map_or(h.rope_scaling, |r| r.scaling).multiplier;
            let frequencies = sets.row(set, rope_dims / 2);
            for (angles, position) in angles.rows_mut(rope_dims).zip(positions) {
                for (pair, frequency) in angles.as_chunks_mut::<2>().0.iter_mut().zip(frequencies) {
                    let (sin, cos) = phase::sin_cos(frequency.wrapping_mul(position));
                    *pair = [cos * multiplier, sin * multiplier];
                }
            }
        }
    }
}

/// Whether tokens that attend to up to `context` positions are rotated by the factors of a long context.
pub(crate) fn is_long(model: &Model<'_>, context: usize) -> bool {
    let h = &model.hparams;
    let sets = model.weights.rope_frequencies.len() / (h.widest_head().1 / 2).max(1);
    sets > h.rope_bases() && context > h.rope_scaling.original_context
}

/// Rotates the first dimensions of a head by the angles of a position. Written for the compiler to vectorise.
pub(super) fn apply(head: &mut [f32], angles: &[f32], kind: RopeKind) {
    let rotate = |x: &mut f32, y: &mut f32, [cos, sin]: [f32; 2]| (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
    let head = head.first_n_mut(angles.len());
    let angles = angles.as_chunks().0;
    match kind {
        RopeKind::Interleaved => {
            for ([x, y], angle) in head.as_chunks_mut().0.iter_mut().zip(angles) {
                rotate(x, y, *angle);
            }
        }
        RopeKind::NeoX => {
            let (x, y) = head.split_at_mut_checked(angles.len()).unwrap_or_default();
            for ((x, y), angle) in x.iter_mut().zip(y).zip(angles) {
                rotate(x, y, *angle);
            }
        }
    }
}
