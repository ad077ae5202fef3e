//! Attention of a group of query heads over one KV head, a tile of positions at a time.
//!
//! ```text
//! for each tile of 32 positions:
//!     s[g][j] = log₂e · scale · q[g]·k[j]     each row of K comes from memory once for all heads of the group
//!     m' = max(m, max s);  p = 2^(s − m')
//!     l = l·2^(m − m') + Σ p;  o = o·2^(m − m') + Σ p[j]·v[j]       V likewise
//! out = o / l
//! ```
//!
//! This is online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867) with one rescale per tile. A tile is what a token
//! attends to of 32 positions, the first a multiple of 32. Its rows are in up to four spans: sinks and others, each in the
//! cache or in the chunk that is being read. The bits of the result do not depend on where the rows are, on how a prompt was cut into
//! chunks, or on the slots of the ring. Only the scores of one tile exist at a time.
//!
//! Within a tile, which fits the first-level cache, a register tile of a few heads and a few positions is computed at a
//! time, so that each number loaded or converted is used several times. The size of the register tile does not change
//! bits. [`qk`] computes the scores, [`pv`] the output.

pub(in crate::arch) mod kv_format;
pub(in crate::arch) mod online_softmax;
mod pv;
mod qk;
mod register_tile;
mod scores;

use self::kv_format::{KvFormat, QueryBlock};
use self::online_softmax::SoftmaxState;
use self::pv::{TileRows, accumulate_values};
use self::qk::{score, score_int8};
use self::scores::Scores;
use super::cursor::Prefetcher;
use super::exp::exp2_below;
use super::padded::padded;
use crate::arch::isa::Isa;
use crate::quant::{BLOCK, Block};
use crate::storage::TILE;
use crate::util::SliceExt;
use crate::util::soft_cap::soft_cap;

/// Most query heads that share one pass over K and V.
const GROUP: usize = 8;

/// The score of a position that the tile does not have: lower than any score, and finite.
const MASKED: f32 = f32::MIN / 16.0;

/// Keys and values of positions one after another, of one KV head.
#[derive(Clone, Copy, Debug)]
pub struct KvSpan<'a> {
    /// `(positions, head_dim)` elements.
    pub k: &'a [u8],
    /// `(positions, head_dim)` elements.
    pub v: &'a [u8],
    /// `(positions)` binary16, of int8 keys.
    pub k_scales: &'a [u8],
    /// `(positions)` binary16, of int8 values.
    pub v_scales: &'a [u8],
    /// Whether these are sinks, which are scored with the second copy of the query.
    pub sinks: bool,
}

/// The queries of the heads of a group, after RoPE.
#[derive(Clone, Copy, Debug)]
pub struct GroupQueries<'q> {
    /// `(group, head_dim)`.
    pub floats: &'q [f32],
    /// `(group, head_dim / 32)`, rounded up; may be empty if no keys are int8.
    pub blocks: &'q [QueryBlock],
}

/// Both copies of the queries of a group.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'q> {
    /// Rotated to the token's position, for the keys of the ring.
    pub ring: GroupQueries<'q>,
    /// Rotated to the shifted position, for the sinks.
    pub sinks: GroupQueries<'q>,
    /// Width of a head.
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// What they are then bounded by, softly: `s` becomes `cap · tanh(s / cap)`; 0 for no bound.
    pub cap: f32,
}

/// Calls `$attend` for the elements of `$kv_type`. Each is a function of its own, as in
/// [`matmul::dispatch`](super::matmul::dispatch).
macro_rules! dispatch {
    ($attend:ident, $kv_type:expr, $($args:expr),*) => {{
        use $crate::arch::generic::attention::kv_format::{F16, F32, Int8};
        match $kv_type {
            KvType::F16 => $attend::<F16>($($args),*),
            KvType::Int8 => $attend::<Int8>($($args),*),
            KvType::F32 if const { !KvType::F32.is_built() } => {}
            KvType::F32 => $attend::<F32>($($args),*),
        }
    }};
}
pub(in crate::arch) use dispatch;

/// See [`Kernels::attend`](crate::arch::Kernels::attend).
#[inline(always)]
pub(in crate::arch) fn attend<'q, I: Isa, E: KvFormat>(
    isa: I,
    q: &Queries<'q>,
    spans: &[KvSpan<'_>],
    out: &mut SoftmaxState<'_>,
) {
    let row = q.head_dim / 8; // vectors of eight in a row
    let group = out.max.len();
    let blocks = if E::INT8 { q.head_dim.div_ceil(BLOCK) } else { 0 };
    // Checked for every model when it is loaded.
    let outs = out.out.as_chunks_mut::<8>().0;
    if row == 0 || !q.head_dim.is_multiple_of(8) || outs.len() != group * row || out.sum.len() != group {
        return;
    }
    let lacks = |q: &GroupQueries<'_>| q.floats.len() / 8 != group * row || E::INT8 && q.blocks.len() != group * blocks;
    if lacks(&q.ring) || lacks(&q.sinks) {
        return;
    }
    let mut first = 0;
    while first < group {
        let end = (first + GROUP).min(group);
        let part = |q: &GroupQueries<'q>| HeadQueries {
            floats: q.floats.as_chunks().0.part(first * row..end * row),
            blocks: q.blocks.part(first * blocks..end * blocks),
        };
        let part = Heads { ring: part(&q.ring), sinks: part(&q.sinks), row, scale: q.scale, cap: q.cap };
        let (outs, max) = (outs.part_mut(first * row..end * row), out.max.part_mut(first..end));
        let sum = out.sum.part_mut(first..end);
        tile::<I, E>(isa, &part, spans, outs, max, sum);
        first = end;
    }
}

/// [`GroupQueries`] of up to [`GROUP`] heads.
struct HeadQueries<'q> {
    floats: &'q [[f32; 8]],
    blocks: &'q [QueryBlock],
}

/// [`Queries`] of up to [`GROUP`] heads.
struct Heads<'q> {
    ring: HeadQueries<'q>,
    sinks: HeadQueries<'q>,
    /// Vectors of eight in a row.
    row: usize,
    scale: f32,
    cap: f32,
}

/// What is multiplied with the scores of a tile, `(TILE)` each: by key before the softmax, by value after it.
struct Factors {
    keys: [f32; TILE],
    values: [f32; TILE],
}

/// Up to `GROUP` query heads over a tile, whose rows are in `spans`.
#[inline(always)]
fn tile<I: Isa, E: KvFormat>(
    isa: I,
    q: &Heads<'_>,
    spans: &[KvSpan<'_>],
    out: &mut [[f32; 8]],
    max: &mut [f32],
    sum: &mut [f32],
) {
    let row = q.row;
    let mut scores: [Scores; GROUP] = [[0.0; TILE + 4]; GROUP];
    let tile = scores.first_n_mut(max.len());
    // Powers of 2 need fewer operations than powers of e.
    let scale = q.scale * core::f32::consts::LOG2_E;
    let mut factors = Factors { keys: [if E::INT8 { 1.0 } else { scale }; TILE], values: [1.0; TILE] };
    let mut at = 0;
    for span in spans {
        let k = E::Eight::slice_of(span.k);
        let len = (k.len() / row.max(1)).min(TILE.saturating_sub(at));
        // While keys are read, their values are prefetched, then the keys behind them; where the next tile is elsewhere, for
        // nothing.
        let ahead = Prefetcher::of(span.v);
        let q = if span.sinks { &q.sinks } else { &q.ring };
        if E::INT8 {
            load_scales(isa, scale, span.k_scales, factors.keys.part_mut(at..at + len));
            load_scales(isa, 1.0, span.v_scales, factors.values.part_mut(at..at + len));
            score_int8(isa, q.blocks, 8 * row, span.k.first_n(len * 8 * row), tile, at, ahead);
        } else {
            score::<I, E>(isa, q.floats, row, k.first_n(len * row), tile, at, ahead);
        }
        at += len;
    }
    if q.cap > 0.0 {
        soften(tile, &mut factors.keys, q.cap * core::f32::consts::LOG2_E);
    }
    for scores in tile.iter_mut() {
        scores.get_mut(at..).unwrap_or_default().fill(MASKED);
    }
    let mut rescale = softmax_tile::<I, E>(isa, &factors, tile, max, sum);
    at = 0;
    for span in spans {
        let v = E::Eight::slice_of(span.v);
        let len = (v.len() / row.max(1)).min(TILE.saturating_sub(at));
        let ahead = Prefetcher::behind(span.k);
        accumulate_values::<I, E>(isa, TileRows { vectors: row, at }, v.first_n(len * row), tile, &rescale, out, ahead);
        // What was there before is rescaled once.
        rescale = [1.0; GROUP];
        at += len;
    }
}

/// Bounds scores once they are multiplied with the factors of keys.
#[inline(never)]
fn soften(scores: &mut [Scores], keys: &mut [f32; TILE], cap: f32) {
    for scores in scores {
        scores.iter_mut().zip(&*keys).for_each(|(s, factor)| *s *= factor);
        soft_cap(scores, cap);
    }
    *keys = [1.0; TILE];
}

/// `out = by · scales`; the scales are binary16.
#[inline(always)]
fn load_scales<I: Isa>(isa: I, by: f32, scales: &[u8], out: &mut [f32]) {
    let by = isa.splat8(by);
    let (whole, tail) = out.as_chunks_mut::<8>();
    let n = whole.len();
    for (out, scales) in whole.iter_mut().zip(scales.as_chunks::<16>().0) {
        isa.store8(isa.mul8(by, isa.load8_f16(scales)), out);
    }
    if !tail.is_empty() {
        let mut last = [0.0; 8];
        isa.store8(isa.mul8(by, isa.load8_f16(&padded(scales.get(16 * n..).unwrap_or(&[])))), &mut last);
        tail.iter_mut().zip(last).for_each(|(out, last)| *out = last);
    }
}

/// Softmax of one tile: scales the raw scores with the factors of keys, updates each head's running maximum and sum,
/// multiplies the weights with the factors of values, and returns the factor by which earlier output must be rescaled.
///
/// Masked positions get the weight 2⁻¹²⁶, zero beside the maximum's 1, and have no row of V. A score that is not finite
/// would be lost in the maximum, so it makes the sum NaN.
#[inline(always)]
fn softmax_tile<I: Isa, E: KvFormat>(
    isa: I,
    factors: &Factors,
    scores: &mut [Scores],
    max: &mut [f32],
    sum: &mut [f32],
) -> [f32; GROUP] {
    let mut rescale = [0.0; GROUP];
    let zero = isa.splat8(0.0);
    for (((max, sum), scores), change) in max.iter_mut().zip(&mut *sum).zip(&mut *scores).zip(&mut rescale) {
        let mut highest = isa.splat8(*max);
        let mut nothing = zero;
        for (s, factor) in scores.as_chunks_mut::<8>().0.iter_mut().zip(factors.keys.as_chunks().0) {
            let scaled = isa.mul8(isa.load8(s), isa.load8(factor));
            highest = isa.max8(highest, scaled);
            nothing = isa.fma8(scaled, zero, nothing);
            isa.store8(scaled, s);
        }
        let highest = isa.hmax8(highest);
        *sum += isa.sum8(nothing);
        (*change, *max) = (*max - highest, highest);
    }
    isa.store8(exp2_below(isa, isa.load8(&rescale)), &mut rescale);
    for ((sum, scores), (max, rescale)) in sum.iter_mut().zip(scores).zip(max.iter().zip(&rescale)) {
        let max = isa.splat8(*max);
        let mut total = zero;
        for (s, factor) in scores.as_chunks_mut::<8>().0.iter_mut().zip(factors.values.as_chunks().0) {
            let p = exp2_below(isa, isa.sub8(isa.load8(s), max));
            total = isa.add8(total, p);
            isa.store8(if E::INT8 { isa.mul8(p, isa.load8(factor)) } else { p }, s);
        }
        *sum = *sum * rescale + isa.sum8(total);
    }
    rescale
}
