//! QKᵀ: scores of the query heads of a group for the keys of a tile.
//!
//! int8 keys are multiplied with int8 queries. Two blocks of four keys stay in registers for all heads of the group; their
//! products are summed exactly, as integers, for which a head's query has one scale. The scale of a key is applied to its
//! score later, by the softmax. Other keys are converted to `f32` as they are loaded, once for up to four heads.

use super::super::cursor::{Prefetcher, Zip};
use super::super::padded::padded;
use super::kv_format::{KvFormat, QueryBlock};
use super::register_tile::by_heads;
use super::scores::{Scores, scores4, set_scores4};
use crate::arch::f32x16::pair_at;
use crate::arch::isa::{F32x16, Isa};
use crate::arch::unroll::{unroll, unroll_array};
use crate::quant::{BLOCK, Block};
use crate::storage::TILE;
use crate::util::SliceExt;

/// `scores[g][at + j] = q[g]·k[j]` of int8, without the scale of `k[j]`, four positions at a time.
#[inline(always)]
pub(super) fn score_int8<I: Isa>(
    isa: I,
    q: &[QueryBlock],
    head_dim: usize,
    k: &[u8],
    scores: &mut [Scores],
    mut at: usize,
    mut ahead: Prefetcher,
) {
    let mut tail = k;
    while let Some((a, behind)) = tail.split_at_checked(head_dim).filter(|_| head_dim > 0) {
        // Beyond the last position, repeat it.
        let (b, behind) = behind.split_at_checked(head_dim).unwrap_or((a, &[]));
        let (c, behind) = behind.split_at_checked(head_dim).unwrap_or((b, &[]));
        let (d, behind) = behind.split_at_checked(head_dim).unwrap_or((c, &[]));
        ahead.prefetch(isa, 4 * head_dim);
        dots_int8(isa, q, [a, b, c, d], scores, at);
        (tail, at) = (behind, at + 4);
    }
}

/// The products of heads with four rows, as scores from `at` on: two blocks of the rows stay in registers for all heads.
#[inline(always)]
fn dots_int8<I: Isa>(isa: I, q: &[QueryBlock], rows: [&[u8]; 4], scores: &mut [Scores], at: usize) {
    let blocks = rows[0].len().div_ceil(BLOCK);
    for b in (0..blocks).step_by(2) {
        let w = unroll_array!(j in 0..4 => isa.load_u8(&block(rows[j], b)));
        let heads = q.rows(blocks).zip(&mut *scores);
        if b + 1 < blocks {
            let w = [w, unroll_array!(j in 0..4 => isa.load_u8(&block(rows[j], b + 1)))];
            for (q, scores) in heads {
                if let Some(q) = q.get(b..).and_then(<[_]>::first_chunk) {
                    add_dots::<I, 2>(isa, &w, q, scores, at, b > 0);
                }
            }
        } else {
            for (q, scores) in heads {
                if let Some(q) = q.get(b..).and_then(<[_]>::first_chunk) {
                    add_dots::<I, 1>(isa, &[w], q, scores, at, b > 0);
                }
            }
        }
    }
}

/// Sets scores to the products of `N` blocks, or adds these.
#[inline(always)]
fn add_dots<I: Isa, const N: usize>(
    isa: I,
    w: &[[I::I8x32; 4]; N],
    q: &[QueryBlock; N],
    scores: &mut Scores,
    at: usize,
    add: bool,
) {
    let mut sums = isa.sums_i8(q.iter().map(|q| q.bias).sum());
    unroll!(n in 0..N => { sums = isa.add_i8(&w[n], isa.load_i8(&q[n].q), sums) });
    let (sums, d) = (isa.fold_i8(sums), isa.splat4(q[0].d));
    let sums = if add { isa.fma4(sums, d, isa.load4(scores4(scores, at))) } else { isa.mul4(sums, d) };
    set_scores4(scores, at, isa.store4(sums));
}

/// Block `b` of a row, padded with zeros.
#[inline(always)]
fn block(row: &[u8], b: usize) -> [u8; BLOCK] {
    let (whole, tail) = row.as_chunks();
    whole.get(b).copied().unwrap_or_else(|| padded(tail))
}

/// `scores[g][at + j] = q[g]·k[j]`.
///
/// Register tile: `G` heads × `J` positions, in pairs of positions, so that accumulators and operands fit.
#[inline(always)]
pub(super) fn score<I: Isa, E: KvFormat>(
    isa: I,
    q: &[[f32; 8]],
    row: usize,
    k: &[E::Eight],
    scores: &mut [Scores],
    at: usize,
    ahead: Prefetcher,
) {
    for (q, scores) in q.chunks_of(E::HEADS * row).zip(scores.chunks_mut(E::HEADS)) {
        by_heads!(
            scores.len(),
            score_heads::<I, E>(isa, q, row, k, scores, at, ahead),
            1 => [4, 4], 2 => [4, 4], 3 => [2, 4], 4 => [2, 4]
        );
    }
}

/// [`score`] for `G` heads, `J` positions at a time.
#[inline(always)]
fn score_heads<I: Isa, E: KvFormat, const G: usize, const J: usize>(
    isa: I,
    q: &[[f32; 8]],
    row: usize,
    k: &[E::Eight],
    scores: &mut [Scores],
    at: usize,
    mut ahead: Prefetcher,
) {
    let Some(scores) = scores.first_chunk_mut::<G>() else { return };
    let q: [&[[f32; 8]]; G] = core::array::from_fn(|g| q.row(g, row));
    let mut first = at;
    let mut tail = k;
    while let Some((rows, behind)) = tail.split_at_checked(J * row).filter(|_| row > 0) {
        ahead.prefetch(isa, J * row * size_of::<E::Eight>());
        tail = behind;
        let sums = dots::<I, E, G, J>(isa, q, core::array::from_fn(|j| rows.row(j, row)));
        for g in 0..G {
            if let Some(out) = scores[g].get_mut(first..).and_then(<[f32]>::first_chunk_mut) {
                *out = sums[g];
            }
        }
        first += J;
    }
    for k in tail.chunks_of(row) {
        let sums = dots::<I, E, G, 1>(isa, q, [k]);
        for g in 0..G {
            scores[g][first % TILE] = sums[g][0];
        }
        first += 1;
    }
}

/// The products of `G` heads with `J` rows.
#[inline(always)]
fn dots<I: Isa, E: KvFormat, const G: usize, const J: usize>(
    isa: I,
    q: [&[[f32; 8]]; G],
    k: [&[E::Eight]; J],
) -> [[f32; J]; G] {
    // One for each pair of rows; an array's length cannot be half of J, so the rest stay unused.
    let mut acc = [[I::F32x16::splat(isa, 0.0); J]; G];
    // Sixteen dimensions an iteration, then the last eight if head_dim is an odd multiple of 8.
    let (q, q_last) = (q.map(|q| q.as_chunks::<2>().0), q.map(|q| q.as_chunks::<2>().1.first()));
    let (k, k_last) = (k.map(|k| k.as_chunks::<2>().0), k.map(|k| k.as_chunks::<2>().1.first()));
    let (mut q, mut k) = (Zip::new(q), Zip::new(k));
    for _ in 0..q.left().min(k.left()) {
        // SAFETY: both have as many steps.
        let (q, k) = unsafe { (q.next(), k.next()) };
        multiply::<I, E, G, J>(isa, q.map(|q| &q[0]), k.map(|k| &k[0]), &mut acc);
        multiply::<I, E, G, J>(isa, q.map(|q| &q[1]), k.map(|k| &k[1]), &mut acc);
    }
    if q_last[0].is_some() {
        let zeros = E::Eight::ZERO;
        let (q, k) = (q_last.map(|q| q.unwrap_or(&[0.0; 8])), k_last.map(|k| k.unwrap_or(&zeros)));
        multiply::<I, E, G, J>(isa, q, k, &mut acc);
    }
    let mut sums = [[0.0; J]; G];
    if J == 1 {
        let folded = isa.sum8x4(unroll_array!(g in 0..4 => acc[g.min(G - 1)][0].first(isa)));
        sums.as_flattened_mut().iter_mut().zip(folded).for_each(|(out, sum)| *out = sum);
        return sums;
    }
    // Four pairs at a time; the last may be fewer.
    for first in (0..G * J).step_by(8) {
        let pairs = unroll_array!(i in 0..4 => {
            let at = (first + 2 * i).min(G * J - 2);
            acc[at / J][at % J / 2]
        });
        let folded = I::F32x16::sums(isa, pairs);
        sums.as_flattened_mut().iter_mut().skip(first).zip(folded).for_each(|(out, sum)| *out = sum);
    }
    sums
}

/// Adds the products of eight dimensions of each head and position, lane by lane.
#[inline(always)]
fn multiply<I: Isa, E: KvFormat, const G: usize, const J: usize>(
    isa: I,
    q: [&[f32; 8]; G],
    k: [&E::Eight; J],
    acc: &mut [[I::F32x16; J]; G],
) {
    let mut rows = [I::F32x16::splat(isa, 0.0); J];
    unroll!(p in 0..J.div_ceil(2) => { rows[p] = E::load(isa, pair_at(&k, p)) });
    for g in 0..G {
        let q = I::F32x16::load(isa, [q[g]; 2]);
        for p in 0..J.div_ceil(2) {
            acc[g][p] = q.fma(isa, rows[p], acc[g][p]);
        }
    }
}
