//! Attention of a group of query heads over one KV head, a tile of positions at a time.
//!
//! ```text
//! for each tile of 32 positions:
//!     s[g][j] = scale · q[g]·k[j]         each row of K comes from memory once for all heads of the group
//!     m' = max(m, max s);  p = e^(s − m')
//!     l = l·e^(m − m') + Σ p;  o = o·e^(m − m') + Σ p[j]·v[j]       V likewise
//! out = o / l
//! ```
//!
//! This is online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867) with one rescale per tile. A tile is what a
//! token looks at of 32 positions that start at a multiple of 32. Its rows may lie in up to three places, one after
//! another: pinned, in the ring, and in the chunk that is being read. That does not show in the bits, nor does how a
//! prompt was cut into chunks, or what slots a ring has. Only the scores of a tile exist at a time.
//!
//! Within a tile, which the first cache holds, a few heads meet a few positions at a time: as many sums as registers
//! hold, so that each number loaded or converted is used several times. How many they are does not show in the bits.
//!
//! int8 keys meet int8 queries: the products of a block of 32 are exact, as in [`rows`](super::rows), and a position's
//! scale meets its score. A value's scale meets its weight, so that int8 values cost a conversion each and no more.

use super::exp::exp2_below;
use super::float::padded;
use super::partial::Partial;
use super::stored::{Element, QueryBlock};
use crate::arch::isa::Isa;
use crate::arch::unroll::{array, each};
use crate::quant::BLOCK;
use crate::storage::TILE;

/// Most query heads that share one pass over K and V.
const GROUP: usize = 8;
/// Most query heads that are multiplied together.
const HEADS: usize = 4;

/// Keys and values of positions one after another, of one KV head.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// `(positions, head_dim)` elements.
    pub k: &'a [u8],
    /// `(positions, head_dim)` elements.
    pub v: &'a [u8],
    /// `(positions)` binary16, of int8 keys.
    pub k_scales: &'a [u8],
    /// `(positions)` binary16, of int8 values.
    pub v_scales: &'a [u8],
    /// Whether they are met by the queries for pinned positions.
    pub pinned: bool,
}

/// The queries of the heads of a group: those for the ring, then those for pinned positions.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'q> {
    /// `(group, head_dim)` each.
    pub floats: [&'q [f32]; 2],
    /// `(group, head_dim / 32)` each, rounded up; may be empty if no keys are int8.
    pub blocks: [&'q [QueryBlock]; 2],
    /// Width of a head.
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f32,
}

/// See [`Kernels::attend`](crate::arch::Kernels::attend).
#[inline(always)]
pub(in crate::arch) fn attend<I: Isa>(
    isa: I,
    element: Element,
    q: &Queries<'_>,
    runs: &[Run<'_>],
    out: &mut Partial<'_>,
) {
    let row = q.head_dim / 8; // eights of a row
    let group = out.max.len();
    let blocks = q.head_dim.div_ceil(BLOCK);
    // Checked for every model when it is loaded.
    let floats = q.floats.map(|q| q.as_chunks::<8>().0);
    let outs = out.out.as_chunks_mut::<8>().0;
    if row == 0 || !q.head_dim.is_multiple_of(8) || outs.len() != group * row || out.sum.len() != group {
        return;
    }
    if floats.iter().any(|q| q.len() != group * row) {
        return;
    }
    if element == Element::Int8 && q.blocks.iter().any(|b| b.len() != group * blocks) {
        return;
    }
    let heads = outs.chunks_mut(row * GROUP).zip(out.max.chunks_mut(GROUP)).zip(out.sum.chunks_mut(GROUP));
    for (first, ((outs, max), sum)) in (0..).step_by(GROUP).zip(heads) {
        let n = max.len();
        let part = Heads {
            floats: floats.map(|q| &q[first * row..][..n * row]),
            blocks: q.blocks.map(|b| b.get(first * blocks..(first + n) * blocks).unwrap_or(&[])),
            row,
            scale: q.scale,
        };
        match element {
            Element::F16 => tile::<I, F16, 16>(isa, &part, runs, outs, max, sum),
            Element::Int8 => tile::<I, Int8, 8>(isa, &part, runs, outs, max, sum),
            Element::F32 => tile::<I, F32, 32>(isa, &part, runs, outs, max, sum),
        }
    }
}

/// The queries of up to [`GROUP`] heads.
struct Heads<'q> {
    floats: [&'q [[f32; 8]]; 2],
    blocks: [&'q [QueryBlock]; 2],
    /// Eights of a row.
    row: usize,
    scale: f32,
}

/// A stored number; eight of them have `B` bytes.
trait Stored<const B: usize> {
    /// Whether rows have scales, and keys meet int8 queries.
    const INT8: bool = false;
    fn load<I: Isa>(isa: I, x: &[u8; B]) -> I::F32x8;
}

struct F16;
impl Stored<16> for F16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[u8; 16]) -> I::F32x8 {
        isa.load8_f16(x)
    }
}

struct Int8;
impl Stored<8> for Int8 {
    const INT8: bool = true;
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[u8; 8]) -> I::F32x8 {
        isa.load8_i8(x)
    }
}

struct F32;
impl Stored<32> for F32 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[u8; 32]) -> I::F32x8 {
        isa.load8_f32(x)
    }
}

/// Up to `GROUP` query heads over a tile, whose rows lie in `runs`.
///
/// As many sums at a time as 32 registers of four numbers hold beside what they are made of: of some heads and
/// positions, then of some heads and eights of a row.
#[inline(always)]
fn tile<I: Isa, E: Stored<B>, const B: usize>(
    isa: I,
    q: &Heads<'_>,
    runs: &[Run<'_>],
    out: &mut [[f32; 8]],
    max: &mut [f32],
    sum: &mut [f32],
) {
    let (row, group) = (q.row, max.len());
    let mut scores = [[f32::NEG_INFINITY; TILE]; GROUP];
    // Exponents of 2, which need fewer operations than those of e.
    let scale = q.scale * core::f32::consts::LOG2_E;
    let mut factors = if E::INT8 { [[1.0; TILE]; 2] } else { [[scale; TILE], [1.0; TILE]] };
    let mut at = 0;
    for run in runs {
        let k = run.k.as_chunks::<B>().0;
        let len = (k.len() / row).min(TILE - at);
        if E::INT8 {
            unpack(isa, scale, run.k_scales, &mut factors[0][at..][..len]);
            unpack(isa, 1.0, run.v_scales, &mut factors[1][at..][..len]);
        }
        let pinned = usize::from(run.pinned);
        let (floats, blocks) = (q.floats[pinned], q.blocks[pinned]);
        let per_head = blocks.len() / group.max(1);
        for (h, scores) in scores.chunks_mut(HEADS).enumerate().take(group.div_ceil(HEADS)) {
            let heads = (group - h * HEADS).min(HEADS);
            if E::INT8 {
                let blocks = &blocks[h * HEADS * per_head..][..heads * per_head];
                match heads {
                    1 => score_int8::<I, 1>(isa, blocks, 8 * row, run.k, len, scores, at),
                    2 => score_int8::<I, 2>(isa, blocks, 8 * row, run.k, len, scores, at),
                    3 => score_int8::<I, 3>(isa, blocks, 8 * row, run.k, len, scores, at),
                    _ => score_int8::<I, HEADS>(isa, blocks, 8 * row, run.k, len, scores, at),
                }
            } else {
                let (q, k) = (&floats[h * HEADS * row..][..heads * row], &k[..len * row]);
                match heads {
                    1 => score::<I, E, 1, 4, B>(isa, q, row, k, scores, at),
                    2 => score::<I, E, 2, 4, B>(isa, q, row, k, scores, at),
                    3 => score::<I, E, 3, 2, B>(isa, q, row, k, scores, at),
                    _ => score::<I, E, HEADS, 2, B>(isa, q, row, k, scores, at),
                }
            }
        }
        at += len;
    }
    let mut rescale = soften::<I, E, B>(isa, &factors, &mut scores, max, sum);
    at = 0;
    for run in runs {
        let v = run.v.as_chunks::<B>().0;
        let len = (v.len() / row).min(TILE - at);
        let parts = out.chunks_mut(HEADS * row).zip(scores.chunks(HEADS)).zip(rescale.chunks(HEADS));
        for ((out, weights), rescale) in parts {
            let v = &v[..len * row];
            match out.len() / row {
                1 => weigh::<I, E, 1, 4, B>(isa, row, v, weights, at, rescale, out),
                2 => weigh::<I, E, 2, 4, B>(isa, row, v, weights, at, rescale, out),
                3 => weigh::<I, E, 3, 2, B>(isa, row, v, weights, at, rescale, out),
                _ => weigh::<I, E, HEADS, 2, B>(isa, row, v, weights, at, rescale, out),
            }
        }
        // What was there before is rescaled once.
        rescale = [1.0; GROUP];
        at += len;
    }
}

/// `out = by · scales`, which are binary16.
#[inline(always)]
fn unpack<I: Isa>(isa: I, by: f32, scales: &[u8], out: &mut [f32]) {
    let by = isa.splat8(by);
    let (eights, rest) = out.as_chunks_mut::<8>();
    let n = eights.len();
    for (out, scales) in eights.iter_mut().zip(scales.as_chunks::<16>().0) {
        isa.store8(isa.mul8(by, isa.load8_f16(scales)), out);
    }
    if !rest.is_empty() {
        let mut last = [0.0; 8];
        isa.store8(isa.mul8(by, isa.load8_f16(&padded(scales.get(16 * n..).unwrap_or(&[])))), &mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// `scores[g][at + j] = q[g]·k[j]` of int8, without the scale of `k[j]`, four positions at a time.
#[inline(always)]
fn score_int8<I: Isa, const G: usize>(
    isa: I,
    q: &[QueryBlock],
    head_dim: usize,
    k: &[u8],
    len: usize,
    scores: &mut [[f32; TILE]],
    at: usize,
) {
    let Some(scores) = scores.first_chunk_mut::<G>() else { return };
    let blocks = q.len() / G;
    let q: [&[QueryBlock]; G] = core::array::from_fn(|g| &q[g * blocks..][..blocks]);
    for first in (0..len).step_by(4) {
        // Beyond the last position, that one again.
        let rows: [&[u8]; 4] = core::array::from_fn(|j| &k[(first + j).min(len - 1) * head_dim..][..head_dim]);
        let mut acc = [isa.splat4(0.0); G];
        let tail = head_dim / BLOCK;
        let mut b = 0;
        while b < tail {
            let w = array!(j in 0..4 => isa.load_u8(block(rows[j], b)));
            each!(g in 0..G => { acc[g] = add_block(isa, &w, &q[g][b], acc[g]) });
            b += 1;
        }
        if !head_dim.is_multiple_of(BLOCK) {
            let w = array!(j in 0..4 => isa.load_u8(&padded(&rows[j][tail * BLOCK..])));
            each!(g in 0..G => { acc[g] = add_block(isa, &w, &q[g][tail], acc[g]) });
        }
        for g in 0..G {
            let sums = isa.store4(acc[g]);
            let out = scores[g].get_mut(at + first..at + len).unwrap_or(&mut []);
            match out.first_chunk_mut::<4>() {
                Some(out) => *out = sums,
                None => out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum),
            }
        }
    }
}

/// Block `b` of a row that has it whole.
#[inline(always)]
fn block(row: &[u8], b: usize) -> &[u8; BLOCK] {
    row.as_chunks().0.get(b).unwrap_or(&[0; BLOCK])
}

/// Adds the products of a block of four rows with one of a query.
#[inline(always)]
fn add_block<I: Isa>(isa: I, w: &[I::I8x32; 4], q: &QueryBlock, acc: I::F32x4) -> I::F32x4 {
    isa.fma4(isa.dot4_i8(w, isa.load_i8(&q.q), q.bias), isa.splat4(q.d), acc)
}

/// `scores[g][at + j] = q[g]·k[j]`, `J` positions at a time.
#[inline(always)]
fn score<I: Isa, E: Stored<B>, const G: usize, const J: usize, const B: usize>(
    isa: I,
    q: &[[f32; 8]],
    row: usize,
    k: &[[u8; B]],
    scores: &mut [[f32; TILE]],
    at: usize,
) {
    let Some(scores) = scores.first_chunk_mut::<G>() else { return };
    let q: [&[[f32; 8]]; G] = core::array::from_fn(|g| &q[g * row..][..row]);
    let mut parts = k.chunks_exact(J * row);
    let mut first = at;
    for k in &mut parts {
        let sums = dots::<I, E, G, J, B>(isa, q, core::array::from_fn(|j| &k[j * row..][..row]), row);
        for g in 0..G {
            if let Some(out) = scores[g].get_mut(first..).and_then(<[f32]>::first_chunk_mut) {
                *out = sums[g];
            }
        }
        first += J;
    }
    for k in parts.remainder().chunks_exact(row) {
        let sums = dots::<I, E, G, 1, B>(isa, q, [k], row);
        for g in 0..G {
            scores[g][first % TILE] = sums[g][0];
        }
        first += 1;
    }
}

/// The products of `G` heads with `J` rows.
#[inline(always)]
fn dots<I: Isa, E: Stored<B>, const G: usize, const J: usize, const B: usize>(
    isa: I,
    q: [&[[f32; 8]]; G],
    k: [&[[u8; B]]; J],
    row: usize,
) -> [[f32; J]; G] {
    let mut acc = [[isa.splat8(0.0); J]; G];
    // Two eights in a turn of the loop, and what may be left over.
    let (q_pairs, q_last) = (q.map(|q| q.as_chunks::<2>().0), q.map(|q| q.as_chunks::<2>().1));
    let (k_pairs, k_last) = (k.map(|k| k.as_chunks::<2>().0), k.map(|k| k.as_chunks::<2>().1));
    for c in 0..row / 2 {
        for i in 0..2 {
            multiply::<I, E, G, J, B>(isa, q_pairs.map(|q| &q[c][i]), k_pairs.map(|k| &k[c][i]), &mut acc);
        }
    }
    if row % 2 == 1 {
        multiply::<I, E, G, J, B>(isa, q_last.map(|q| &q[0]), k_last.map(|k| &k[0]), &mut acc);
    }
    // Four sums at a time; the last may be fewer.
    let mut sums = [[0.0; J]; G];
    let acc = acc.as_flattened();
    for (four, out) in (0..).step_by(4).zip(sums.as_flattened_mut().chunks_mut(4)) {
        let folded = isa.sum8x4(array!(i in 0..4 => acc[(four + i).min(G * J - 1)]));
        for (out, sum) in out.iter_mut().zip(folded) {
            *out = sum;
        }
    }
    sums
}

/// Adds the products of an eight of each, lane by lane.
#[inline(always)]
fn multiply<I: Isa, E: Stored<B>, const G: usize, const J: usize, const B: usize>(
    isa: I,
    q: [&[f32; 8]; G],
    k: [&[u8; B]; J],
    acc: &mut [[I::F32x8; J]; G],
) {
    let mut rows = [isa.splat8(0.0); J];
    for j in 0..J {
        rows[j] = E::load(isa, k[j]);
    }
    for g in 0..G {
        let q = isa.load8(q[g]);
        for j in 0..J {
            acc[g][j] = isa.fma8(q, rows[j], acc[g][j]);
        }
    }
}

/// Turns products into weights: multiplied with the factors of keys, relative to the running maxima, and multiplied with
/// the factors of values; gives the factors for what was summed before.
///
/// Unused places hold −∞ and become 2⁻¹²⁶: zero beside the maximum's 1, and they meet no row of V.
#[inline(always)]
fn soften<I: Isa, E: Stored<B>, const B: usize>(
    isa: I,
    [of_keys, of_values]: &[[f32; TILE]; 2],
    scores: &mut [[f32; TILE]; GROUP],
    max: &mut [f32],
    sum: &mut [f32],
) -> [f32; GROUP] {
    let mut rescale = [0.0; GROUP];
    for ((max, scores), change) in max.iter_mut().zip(&mut *scores).zip(&mut rescale) {
        let mut highest = isa.splat8(*max);
        for (s, factors) in scores.as_chunks_mut::<8>().0.iter_mut().zip(of_keys.as_chunks().0) {
            let scaled = isa.mul8(isa.load8(s), isa.load8(factors));
            highest = isa.max8(highest, scaled);
            isa.store8(scaled, s);
        }
        let highest = isa.hmax8(highest);
        (*change, *max) = (*max - highest, highest);
    }
    isa.store8(exp2_below(isa, isa.load8(&rescale)), &mut rescale);
    for ((sum, scores), (max, rescale)) in sum.iter_mut().zip(scores).zip(max.iter().zip(&rescale)) {
        let max = isa.splat8(*max);
        let mut total = isa.splat8(0.0);
        for (s, factors) in scores.as_chunks_mut::<8>().0.iter_mut().zip(of_values.as_chunks().0) {
            let p = exp2_below(isa, isa.sub8(isa.load8(s), max));
            total = isa.add8(total, p);
            isa.store8(if E::INT8 { isa.mul8(p, isa.load8(factors)) } else { p }, s);
        }
        *sum = *sum * rescale + isa.sum8(total);
    }
    rescale
}

/// `out[g] = out[g]·rescale[g] + Σ weights[g][at + j]·v[j]`, `C` eights at a time.
#[inline(always)]
fn weigh<I: Isa, E: Stored<B>, const G: usize, const C: usize, const B: usize>(
    isa: I,
    row: usize,
    v: &[[u8; B]],
    weights: &[[f32; TILE]],
    at: usize,
    rescale: &[f32],
    out: &mut [[f32; 8]],
) {
    let (Some(weights), Some(rescale)) = (weights.first_chunk::<G>(), rescale.first_chunk::<G>()) else { return };
    let weights = weights.each_ref().map(|w| w.get(at..at + v.len() / row).unwrap_or(&[]));
    let mut c = 0;
    while c + C <= row {
        strip::<I, E, G, C, B>(isa, row, c, v, weights, rescale, out);
        c += C;
    }
    while c < row {
        strip::<I, E, G, 1, B>(isa, row, c, v, weights, rescale, out);
        c += 1;
    }
}

/// [`weigh`] for `C` eights from `first`.
#[inline(always)]
fn strip<I: Isa, E: Stored<B>, const G: usize, const C: usize, const B: usize>(
    isa: I,
    row: usize,
    first: usize,
    v: &[[u8; B]],
    weights: [&[f32]; G],
    rescale: &[f32; G],
    out: &mut [[f32; 8]],
) {
    let mut acc = [[isa.splat8(0.0); C]; G];
    for g in 0..G {
        for c in 0..C {
            acc[g][c] = isa.mul8(isa.load8(&out[g * row + first + c]), isa.splat8(rescale[g]));
        }
    }
    // Four positions in a turn of the loop, and what may be left over.
    let fours = weights.map(|w| w.as_chunks::<4>().0);
    let mut rows = v.chunks_exact(4 * row);
    for (j, v) in (&mut rows).enumerate() {
        let w = fours.map(|w| &w[j]);
        accumulate::<I, E, G, C, 0, B>(isa, &v[first..][..C], w, &mut acc);
        accumulate::<I, E, G, C, 1, B>(isa, &v[row + first..][..C], w, &mut acc);
        accumulate::<I, E, G, C, 2, B>(isa, &v[2 * row + first..][..C], w, &mut acc);
        accumulate::<I, E, G, C, 3, B>(isa, &v[3 * row + first..][..C], w, &mut acc);
    }
    let rest: [[f32; 4]; G] = weights.map(|w| padded(w.as_chunks::<4>().1));
    for (j, v) in rows.remainder().chunks_exact(row).enumerate() {
        let w = rest.each_ref().map(|w| [w[j & 3]; 4]);
        accumulate::<I, E, G, C, 0, B>(isa, &v[first..][..C], w.each_ref(), &mut acc);
    }
    for g in 0..G {
        for c in 0..C {
            isa.store8(acc[g][c], &mut out[g * row + first + c]);
        }
    }
}

/// Adds the weighted eights of one position, whose weights are number `J` of each four.
#[inline(always)]
fn accumulate<I: Isa, E: Stored<B>, const G: usize, const C: usize, const J: i32, const B: usize>(
    isa: I,
    v: &[[u8; B]],
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
