//! PV: sums of the values of a tile, weighted by the softmax, for a few heads of a group at a time.
//!
//! The softmax has multiplied each weight with the scale of its int8 value, so that a value costs a conversion and no more.
//! Four weights of a head fill a vector, of which a multiplication takes one lane.

use super::super::cursor::{Prefetcher, Strided};
use super::kv_format::KvFormat;
use super::register_tile::by_heads;
use super::scores::{Scores, scores4};
use crate::arch::f32x16::pair_at;
use crate::arch::isa::{F32x16, Isa};
use crate::arch::unroll::unroll;
use crate::util::SliceExt;

/// Where rows of V belong.
#[derive(Clone, Copy)]
pub(super) struct TileRows {
    /// Vectors of eight numbers in a row: head_dim / 8.
    pub(super) vectors: usize,
    /// Position within the tile of the first row.
    pub(super) at: usize,
}

/// The weights of `G` heads for the positions of a tile, and the factors for their earlier output.
#[derive(Clone, Copy)]
struct Heads<'w, const G: usize> {
    weights: &'w [Scores; G],
    rescale: &'w [f32; G],
}

/// `out[g] = out[g]·rescale[g] + Σ weights[g][at + j]·v[j]`.
///
/// Register tile: `G` heads × `C` vectors of eight, in pairs, chosen so that accumulators and operands fit.
#[inline(always)]
pub(super) fn accumulate_values<I: Isa, E: KvFormat>(
    isa: I,
    rows: TileRows,
    v: &[E::Eight],
    weights: &[Scores],
    rescale: &[f32],
    out: &mut [[f32; 8]],
    ahead: Prefetcher,
) {
    for (i, (weights, rescale)) in weights.chunks(E::HEADS).zip(rescale.chunks(E::HEADS)).enumerate() {
        let first = i * E::HEADS;
        let out = out.part_mut(first * rows.vectors..(first + weights.len()) * rows.vectors);
        by_heads!(
            weights.len(),
            accumulate_heads::<I, E>(isa, rows, v, weights, rescale, out, ahead),
            1 => [4, 8], 2 => [4, 8], 3 => [2, 8], 4 => [2, 8]
        );
    }
}

/// [`accumulate_values`] for `G` heads, `C` vectors of a row at a time.
#[inline(always)]
fn accumulate_heads<I: Isa, E: KvFormat, const G: usize, const C: usize>(
    isa: I,
    rows: TileRows,
    v: &[E::Eight],
    weights: &[Scores],
    rescale: &[f32],
    out: &mut [[f32; 8]],
    mut ahead: Prefetcher,
) {
    let (Some(weights), Some(rescale)) = (weights.first_chunk(), rescale.first_chunk()) else { return };
    let heads = Heads::<G> { weights, rescale };
    let mut c = 0;
    while c + C <= rows.vectors {
        strip::<I, E, G, C>(isa, rows, c, &mut ahead, Strided::new(v, rows.vectors, c), heads, out);
        c += C;
    }
    while I::F32x16::WIDE && c + 2 <= rows.vectors {
        strip::<I, E, G, 2>(isa, rows, c, &mut ahead, Strided::new(v, rows.vectors, c), heads, out);
        c += 2;
    }
    while c < rows.vectors {
        strip::<I, E, G, 1>(isa, rows, c, &mut ahead, Strided::new(v, rows.vectors, c), heads, out);
        c += 1;
    }
}

/// [`accumulate_heads`] for `C` vectors of a row from `first`.
#[inline(always)]
fn strip<I: Isa, E: KvFormat, const G: usize, const C: usize>(
    isa: I,
    rows: TileRows,
    first: usize,
    ahead: &mut Prefetcher,
    mut v: Strided<'_, E::Eight, C>,
    heads: Heads<'_, G>,
    out: &mut [[f32; 8]],
) {
    // One for each pair of vectors; the length of an array cannot be half of C, so half of it is unused.
    let mut acc = [[I::F32x16::splat(isa, 0.0); C]; G];
    for (g, acc) in acc.iter_mut().enumerate() {
        let Some(out) = out.get(g * rows.vectors + first..).and_then(<[_]>::first_chunk::<C>) else { return };
        unroll!(c in 0..C.div_ceil(2) => {
            acc[c] = I::F32x16::load(isa, pair_at(&out.each_ref(), c)).mul(isa, I::F32x16::splat(isa, heads.rescale[g]));
        });
    }
    let mut at = rows.at;
    // Four positions an iteration, then one at a time.
    while let Some(v) = v.four() {
        ahead.prefetch(isa, 4 * C * size_of::<E::Eight>());
        let w = heads.weights.each_ref().map(|w| scores4(w, at));
        accumulate::<I, E, G, C, 0>(isa, v[0], w, &mut acc);
        accumulate::<I, E, G, C, 1>(isa, v[1], w, &mut acc);
        accumulate::<I, E, G, C, 2>(isa, v[2], w, &mut acc);
        accumulate::<I, E, G, C, 3>(isa, v[3], w, &mut acc);
        at += 4;
    }
    while let Some(v) = v.one() {
        let w = heads.weights.each_ref().map(|w| scores4(w, at));
        accumulate::<I, E, G, C, 0>(isa, v, w, &mut acc);
        at += 1;
    }
    for (g, acc) in acc.iter().enumerate() {
        let Some(out) = out.get_mut(g * rows.vectors + first..).and_then(<[_]>::first_chunk_mut::<C>) else { return };
        for (out, acc) in out.chunks_mut(2).zip(acc) {
            acc.store(isa, out);
        }
    }
}

/// Adds the weighted vectors of one position; its weight is lane `J` of each head's four.
#[inline(always)]
fn accumulate<I: Isa, E: KvFormat, const G: usize, const C: usize, const J: i32>(
    isa: I,
    v: &[E::Eight; C],
    weights: [&[f32; 4]; G],
    acc: &mut [[I::F32x16; C]; G],
) {
    unroll!(c in 0..C.div_ceil(2) => {
        let v = E::load(isa, pair_at(&v.each_ref(), c));
        for g in 0..G {
            acc[g][c] = v.fma_lane::<J>(isa, weights[g], acc[g][c]);
        }
    });
}
