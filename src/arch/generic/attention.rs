//! Attention of a group of query heads over one KV head.
//!
//! ```text
//! for each tile of 32 positions:
//!     s[g][j] = scale · q[g]·k[j]         each row of K comes from memory once for all heads of the group
//!     m' = max(m, max s);  p = e^(s − m')
//!     l = l·e^(m − m') + Σ p;  o = o·e^(m − m') + Σ p[j]·v[j]       V likewise
//! out = o / l
//! ```
//!
//! This is online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867) with one rescale per tile. Tiles start at
//! multiples of 32 positions, so the bits of a result do not depend on how a prompt was cut into chunks. Only the
//! scores of a tile exist at a time.
//!
//! Within a tile, which the first cache holds, a few heads meet a few positions at a time: as many sums as registers
//! hold, so that each number loaded or converted is used several times. How many they are does not show in the bits.

use super::exp::exp;
use crate::arch::isa::Isa;
use crate::arch::unroll::array;

/// Positions of a tile.
const TILE: usize = 32;
/// Most query heads that share one pass over K and V.
const GROUP: usize = 8;
/// Most query heads that are multiplied together.
const HEADS: usize = 4;

/// How the cache stores a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Element {
    /// binary16.
    F16,
    /// binary32, for tests and comparisons.
    F32,
}

impl Element {
    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Element::F16 => 2,
            Element::F32 => 4,
        }
    }
}

/// Cached rows of one KV head, `(positions, head_dim)`.
#[derive(Clone, Copy)]
pub struct Cache<'a> {
    /// How a number is stored.
    pub element: Element,
    /// The rows.
    pub rows: &'a [u8],
}

/// See [`Kernels::attend`](crate::arch::Kernels::attend).
#[inline(always)]
pub(in crate::arch) fn attend<I: Isa>(
    isa: I,
    q: &[f32],
    head_dim: usize,
    scale: f32,
    k: Cache<'_>,
    v: Cache<'_>,
    out: &mut [f32],
) {
    let row = head_dim / 8; // eights of a row
    // Checked for every model when it is loaded.
    if row == 0 || !head_dim.is_multiple_of(8) || k.element != v.element {
        return;
    }
    let (q, out) = (q.as_chunks::<8>().0, out.as_chunks_mut::<8>().0);
    if q.len() != out.len() || !q.len().is_multiple_of(row) {
        return;
    }
    for (q, out) in q.chunks(row * GROUP).zip(out.chunks_mut(row * GROUP)) {
        match k.element {
            Element::F16 => pass::<I, F16, 16>(isa, q, row, scale, k.rows, v.rows, out),
            Element::F32 => pass::<I, F32, 32>(isa, q, row, scale, k.rows, v.rows, out),
        }
    }
}

/// A stored number; eight of them have `B` bytes.
trait Stored<const B: usize> {
    fn load<I: Isa>(isa: I, x: &[u8; B]) -> I::F32x8;
}

struct F16;
impl Stored<16> for F16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[u8; 16]) -> I::F32x8 {
        isa.load8_f16(x)
    }
}

struct F32;
impl Stored<32> for F32 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: &[u8; 32]) -> I::F32x8 {
        isa.load8_f32(x)
    }
}

/// Up to `GROUP` query heads over all positions.
///
/// As many sums at a time as 32 registers of four numbers hold beside what they are made of: of some heads and
/// positions, then of some heads and eights of a row.
#[inline(always)]
fn pass<I: Isa, E: Stored<B>, const B: usize>(
    isa: I,
    q: &[[f32; 8]],
    row: usize,
    scale: f32,
    k: &[u8],
    v: &[u8],
    out: &mut [[f32; 8]],
) {
    out.fill([0.0; 8]);
    let mut max = [f32::NEG_INFINITY; GROUP];
    let mut sum = [0.0; GROUP];
    let mut scores = [[0.0; TILE]; GROUP];
    let mut rescale = [0.0; GROUP];
    let (k, v) = (k.as_chunks::<B>().0, v.as_chunks::<B>().0);
    for (k, v) in k.chunks(TILE * row).zip(v.chunks(TILE * row)) {
        if k.len() < TILE * row {
            scores = [[f32::NEG_INFINITY; TILE]; GROUP];
        }
        for (q, scores) in q.chunks(HEADS * row).zip(scores.chunks_mut(HEADS)) {
            match q.len() / row {
                1 => score::<I, E, 1, 4, B>(isa, q, row, k, scores),
                2 => score::<I, E, 2, 4, B>(isa, q, row, k, scores),
                3 => score::<I, E, 3, 2, B>(isa, q, row, k, scores),
                _ => score::<I, E, HEADS, 2, B>(isa, q, row, k, scores),
            }
        }
        for g in 0..q.len() / row {
            rescale[g] = soften(isa, scale, &mut scores[g], &mut max[g], &mut sum[g]);
        }
        let parts = out.chunks_mut(HEADS * row).zip(scores.chunks(HEADS)).zip(rescale.chunks(HEADS));
        for ((out, weights), rescale) in parts {
            match out.len() / row {
                1 => weigh::<I, E, 1, 4, B>(isa, row, v, weights, rescale, out),
                2 => weigh::<I, E, 2, 4, B>(isa, row, v, weights, rescale, out),
                3 => weigh::<I, E, 3, 2, B>(isa, row, v, weights, rescale, out),
                _ => weigh::<I, E, HEADS, 2, B>(isa, row, v, weights, rescale, out),
            }
        }
    }
    for (out, sum) in out.chunks_exact_mut(row).zip(sum) {
        let inverse = isa.splat8(1.0 / sum);
        for x in out {
            isa.store8(isa.mul8(isa.load8(x), inverse), x);
        }
    }
}

/// `scores[g][j] = q[g]·k[j]`, `J` positions at a time.
#[inline(always)]
fn score<I: Isa, E: Stored<B>, const G: usize, const J: usize, const B: usize>(
    isa: I,
    q: &[[f32; 8]],
    row: usize,
    k: &[[u8; B]],
    scores: &mut [[f32; TILE]],
) {
    let Some(scores) = scores.first_chunk_mut::<G>() else { return };
    let q: [&[[f32; 8]]; G] = core::array::from_fn(|g| &q[g * row..][..row]);
    let mut parts = k.chunks_exact(J * row);
    let mut first = 0;
    for k in (&mut parts).take(TILE / J) {
        let sums = dots::<I, E, G, J, B>(isa, q, core::array::from_fn(|j| &k[j * row..][..row]), row);
        for g in 0..G {
            scores[g].as_chunks_mut::<J>().0[first / J] = sums[g];
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

/// Turns products into weights: scaled, and relative to the running maximum; gives the factor for what was summed before.
///
/// Unused places hold −∞ and become e^−87 or less: zero beside the maximum's 1, and they meet no row of V.
#[inline(always)]
fn soften<I: Isa>(isa: I, scale: f32, scores: &mut [f32; TILE], max: &mut f32, sum: &mut f32) -> f32 {
    let (parts, _) = scores.as_chunks_mut::<8>();
    let mut highest = isa.splat8(*max);
    for s in parts.iter_mut() {
        let scaled = isa.mul8(isa.load8(s), isa.splat8(scale));
        highest = isa.max8(highest, scaled);
        isa.store8(scaled, s);
    }
    let new_max = isa.hmax8(highest);
    let mut total = isa.splat8(0.0);
    for s in parts {
        let p = exp(isa, isa.sub8(isa.load8(s), isa.splat8(new_max)));
        total = isa.add8(total, p);
        isa.store8(p, s);
    }
    let rescale = match *max {
        f32::NEG_INFINITY => 0.0,
        old if old == new_max => 1.0,
        old => libm::expf(old - new_max),
    };
    *sum = *sum * rescale + isa.sum8(total);
    *max = new_max;
    rescale
}

/// `out[g] = out[g]·rescale[g] + Σ weights[g][j]·v[j]`, `C` eights at a time.
#[inline(always)]
fn weigh<I: Isa, E: Stored<B>, const G: usize, const C: usize, const B: usize>(
    isa: I,
    row: usize,
    v: &[[u8; B]],
    weights: &[[f32; TILE]],
    rescale: &[f32],
    out: &mut [[f32; 8]],
) {
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
    weights: &[[f32; TILE]],
    rescale: &[f32],
    out: &mut [[f32; 8]],
) {
    let last = (v.len() / row).saturating_sub(1).min(TILE - 1);
    let (Some(weights), Some(rescale)) = (weights.first_chunk::<G>(), rescale.first_chunk::<G>()) else { return };
    let mut acc = [[isa.splat8(0.0); C]; G];
    for g in 0..G {
        for c in 0..C {
            acc[g][c] = isa.mul8(isa.load8(&out[g * row + first + c]), isa.splat8(rescale[g]));
        }
    }
    // Two positions in a turn of the loop, and what may be left over.
    let mut v = v.chunks_exact(2 * row);
    for (j, v) in (&mut v).take(TILE / 2).enumerate() {
        accumulate::<I, E, G, C, B>(isa, &v[first..][..C], weights.each_ref().map(|w| w[2 * j]), &mut acc);
        accumulate::<I, E, G, C, B>(isa, &v[row + first..][..C], weights.each_ref().map(|w| w[2 * j + 1]), &mut acc);
    }
    if let Some(v) = v.remainder().get(first..first + C) {
        accumulate::<I, E, G, C, B>(isa, v, weights.each_ref().map(|w| w[last]), &mut acc);
    }
    for g in 0..G {
        for c in 0..C {
            isa.store8(acc[g][c], &mut out[g * row + first + c]);
        }
    }
}

/// Adds the weighted eights of one position.
#[inline(always)]
fn accumulate<I: Isa, E: Stored<B>, const G: usize, const C: usize, const B: usize>(
    isa: I,
    v: &[[u8; B]],
    weights: [f32; G],
    acc: &mut [[I::F32x8; C]; G],
) {
    for c in 0..C {
        let v = E::load(isa, &v[c]);
        for g in 0..G {
            acc[g][c] = isa.fma8(isa.splat8(weights[g]), v, acc[g][c]);
        }
    }
}

/// Converts `x` to cache elements; see [`Kernels::store`](crate::arch::Kernels::store).
#[inline(always)]
pub(in crate::arch) fn store<I: Isa>(isa: I, element: Element, x: &[f32], out: &mut [u8]) {
    let x = x.as_chunks::<8>().0;
    match element {
        Element::F16 => {
            for (x, out) in x.iter().zip(out.as_chunks_mut::<16>().0) {
                isa.store8_f16(isa.load8(x), out);
            }
        }
        Element::F32 => {
            for (x, out) in x.as_flattened().iter().zip(out.as_chunks_mut::<4>().0) {
                *out = x.to_le_bytes();
            }
        }
    }
}
