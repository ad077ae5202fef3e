//! Sums of values by their weights, for a few heads of a group at a time.
//!
//! An int8 value's scale is part of its weight, so that it costs a conversion and no more. Four weights of a head fill a
//! vector, of which a multiplication takes one lane.

use super::attention::{Scores, four};
use super::stored::Stored;
use super::walk::{Ahead, Strip};
use crate::arch::isa::Isa;
use crate::storage::{Parts, times};

/// `out[g] = out[g]·rescale[g] + Σ weights[g][at + j]·v[j]`.
///
/// As many sums at a time as 32 registers of four numbers hold beside what they are made of: of some heads and eights of
/// a row.
#[inline(always)]
pub(super) fn weigh<I: Isa, E: Stored<B>, const B: usize>(
    isa: I,
    row: usize,
    v: &[[u8; B]],
    weights: &[Scores],
    at: usize,
    rescale: &[f32],
    out: &mut [[f32; 8]],
) {
    for (i, (weights, rescale)) in weights.chunks(E::HEADS).zip(rescale.chunks(E::HEADS)).enumerate() {
        let first = i * E::HEADS;
        let out = out.part_mut(first * row..(first + weights.len()) * row);
        match weights.len() {
            1 => weigh_heads::<I, E, 1, 4, B>(isa, row, v, weights, at, rescale, out),
            2 if E::HEADS > 1 => weigh_heads::<I, E, 2, 4, B>(isa, row, v, weights, at, rescale, out),
            3 if E::HEADS > 1 => weigh_heads::<I, E, 3, 2, B>(isa, row, v, weights, at, rescale, out),
            4 if E::HEADS > 1 => weigh_heads::<I, E, 4, 2, B>(isa, row, v, weights, at, rescale, out),
            _ => {}
        }
    }
}

/// [`weigh`] for `G` heads, `C` eights at a time.
#[inline(always)]
fn weigh_heads<I: Isa, E: Stored<B>, const G: usize, const C: usize, const B: usize>(
    isa: I,
    row: usize,
    v: &[[u8; B]],
    weights: &[Scores],
    at: usize,
    rescale: &[f32],
    out: &mut [[f32; 8]],
) {
    let (Some(weights), Some(rescale)) = (weights.first_chunk::<G>(), rescale.first_chunk::<G>()) else { return };
    let len = times(v.len(), row);
    let (mut c, mut ahead) = (0, Ahead::of(v));
    while c + C <= row {
        strip::<I, E, G, C, B>(isa, [row, c, at], &mut ahead, Strip::new(v, [len, row, c]), weights, rescale, out);
        c += C;
    }
    while c < row {
        strip::<I, E, G, 1, B>(isa, [row, c, at], &mut ahead, Strip::new(v, [len, row, c]), weights, rescale, out);
        c += 1;
    }
}

/// [`weigh_heads`] for `C` eights from `first`.
#[inline(always)]
fn strip<I: Isa, E: Stored<B>, const G: usize, const C: usize, const B: usize>(
    isa: I,
    [row, first, mut at]: [usize; 3],
    ahead: &mut Ahead,
    mut v: Strip<'_, [u8; B], C>,
    weights: &[Scores; G],
    rescale: &[f32; G],
    out: &mut [[f32; 8]],
) {
    let mut acc = [[isa.splat8(0.0); C]; G];
    for g in 0..G {
        let Some(out) = out.get(g * row + first..).and_then(<[_]>::first_chunk::<C>) else { return };
        for c in 0..C {
            acc[g][c] = isa.mul8(isa.load8(&out[c]), isa.splat8(rescale[g]));
        }
    }
    // Four positions in a turn of the loop, and what may be left over.
    while let Some(v) = v.four() {
        ahead.prefetch(isa, 4 * C * B);
        let w = weights.each_ref().map(|w| four(w, at));
        accumulate::<I, E, G, C, 0, B>(isa, v[0], w, &mut acc);
        accumulate::<I, E, G, C, 1, B>(isa, v[1], w, &mut acc);
        accumulate::<I, E, G, C, 2, B>(isa, v[2], w, &mut acc);
        accumulate::<I, E, G, C, 3, B>(isa, v[3], w, &mut acc);
        at += 4;
    }
    while let Some(v) = v.one() {
        let w = weights.each_ref().map(|w| four(w, at));
        accumulate::<I, E, G, C, 0, B>(isa, v, w, &mut acc);
        at += 1;
    }
    for (g, acc) in acc.iter().enumerate() {
        let Some(out) = out.get_mut(g * row + first..).and_then(<[_]>::first_chunk_mut::<C>) else { return };
        for c in 0..C {
            isa.store8(acc[c], &mut out[c]);
        }
    }
}

/// Adds the weighted eights of one position, whose weights are number `J` of each four.
#[inline(always)]
fn accumulate<I: Isa, E: Stored<B>, const G: usize, const C: usize, const J: i32, const B: usize>(
    isa: I,
    v: &[[u8; B]; C],
    weights: [&[f32; 4]; G],
    acc: &mut [[I::F32x8; C]; G],
) {
    for c in 0..C {
        let v = E::load(isa, &v[c]);
        for g in 0..G {
            acc[g][c] = isa.fma8_lane::<J>(v, weights[g], acc[g][c]);
        }
    }
}
