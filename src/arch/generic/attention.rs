//! Attention of a group of query heads over one KV head.
//!
//! ```text
//! for each tile of 32 positions:
//!     s[g][j] = scale · q[g]·k[j]         each row of K is loaded once for all heads of the group
//!     m' = max(m, max s);  p = e^(s − m')
//!     l = l·e^(m − m') + Σ p;  o = o·e^(m − m') + Σ p[j]·v[j]       V likewise
//! out = o / l
//! ```
//!
//! This is online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867) with one rescale per tile. Tiles start at
//! multiples of 32 positions, so the bits of a result do not depend on how a prompt was cut into chunks. Only the
//! scores of a tile exist at a time.

use super::exp::exp;
use crate::arch::isa::Isa;

/// Positions of a tile.
const TILE: usize = 32;
/// Most query heads that share one pass over K and V: four accumulators and what they need fit the registers.
const GROUP: usize = 4;

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
    let per_pass = head_dim * GROUP;
    // Checked for every model when it is loaded.
    if per_pass == 0 || !head_dim.is_multiple_of(8) || k.element != v.element {
        return;
    }
    for (q, out) in q.chunks(per_pass).zip(out.chunks_mut(per_pass)) {
        match (q.len() / head_dim, k.element) {
            (1, Element::F16) => pass::<I, F16, 1, 16>(isa, q, head_dim, scale, k, v, out),
            (2, Element::F16) => pass::<I, F16, 2, 16>(isa, q, head_dim, scale, k, v, out),
            (3, Element::F16) => pass::<I, F16, 3, 16>(isa, q, head_dim, scale, k, v, out),
            (_, Element::F16) => pass::<I, F16, 4, 16>(isa, q, head_dim, scale, k, v, out),
            (1, Element::F32) => pass::<I, F32, 1, 32>(isa, q, head_dim, scale, k, v, out),
            (2, Element::F32) => pass::<I, F32, 2, 32>(isa, q, head_dim, scale, k, v, out),
            (3, Element::F32) => pass::<I, F32, 3, 32>(isa, q, head_dim, scale, k, v, out),
            (_, Element::F32) => pass::<I, F32, 4, 32>(isa, q, head_dim, scale, k, v, out),
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

/// `G` query heads over all positions.
#[inline(always)]
fn pass<I: Isa, E: Stored<B>, const G: usize, const B: usize>(
    isa: I,
    q: &[f32],
    head_dim: usize,
    scale: f32,
    k: Cache<'_>,
    v: Cache<'_>,
    out: &mut [f32],
) {
    let row = head_dim / 8; // eights of a row
    let q = q.as_chunks::<8>().0;
    let out = out.as_chunks_mut::<8>().0;
    if q.len() != G * row || out.len() != G * row {
        return;
    }
    out.fill([0.0; 8]);
    let mut max = [f32::NEG_INFINITY; G];
    let mut sum = [0.0; G];
    let (k, v) = (k.rows.as_chunks::<B>().0, v.rows.as_chunks::<B>().0);
    for (k, v) in k.chunks(TILE * row).zip(v.chunks(TILE * row)) {
        let mut scores = [[f32::NEG_INFINITY; TILE]; G];
        score::<I, E, G, B>(isa, q, row, scale, k, &mut scores);
        let mut rescale = [0.0; G];
        for g in 0..G {
            rescale[g] = soften(isa, &mut scores[g], &mut max[g], &mut sum[g]);
        }
        weigh::<I, E, G, B>(isa, row, v, &scores, &rescale, out);
    }
    for (out, sum) in out.chunks_exact_mut(row.max(1)).zip(sum) {
        let inverse = isa.splat8(1.0 / sum);
        for x in out {
            isa.store8(isa.mul8(isa.load8(x), inverse), x);
        }
    }
}

/// `scores[g][j] = scale · q[g]·k[j]`.
#[inline(always)]
fn score<I: Isa, E: Stored<B>, const G: usize, const B: usize>(
    isa: I,
    q: &[[f32; 8]],
    row: usize,
    scale: f32,
    k: &[[u8; B]],
    scores: &mut [[f32; TILE]; G],
) {
    let q: [&[[f32; 8]]; G] = core::array::from_fn(|g| &q[g * row..][..row]);
    for (j, k) in k.chunks_exact(row).take(TILE).enumerate() {
        let mut acc = [isa.splat8(0.0); G];
        for c in 0..row {
            let k = E::load(isa, &k[c]);
            for g in 0..G {
                acc[g] = isa.fma8(isa.load8(&q[g][c]), k, acc[g]);
            }
        }
        for g in 0..G {
            scores[g][j] = isa.sum8(acc[g]) * scale;
        }
    }
}

/// Turns scores into weights relative to the running maximum; gives the factor for what was summed before.
///
/// Unused places hold −∞ and become e^−87 or less: zero beside the maximum's 1, and they meet no row of V.
#[inline(always)]
fn soften<I: Isa>(isa: I, scores: &mut [f32; TILE], max: &mut f32, sum: &mut f32) -> f32 {
    let parts = scores.as_chunks_mut::<8>().0;
    let highest = parts.iter().fold(isa.splat8(*max), |m, s| isa.max8(m, isa.load8(s)));
    let new_max = isa.hmax8(highest);
    let mut total = isa.splat8(0.0);
    for s in parts {
        let p = exp(isa, isa.sub8(isa.load8(s), isa.splat8(new_max)));
        total = isa.add8(total, p);
        isa.store8(p, s);
    }
    let rescale = if *max == f32::NEG_INFINITY { 0.0 } else { libm::expf(*max - new_max) };
    *sum = *sum * rescale + isa.sum8(total);
    *max = new_max;
    rescale
}

/// `out[g] = out[g]·rescale[g] + Σ weights[g][j]·v[j]`.
#[inline(always)]
fn weigh<I: Isa, E: Stored<B>, const G: usize, const B: usize>(
    isa: I,
    row: usize,
    v: &[[u8; B]],
    weights: &[[f32; TILE]; G],
    rescale: &[f32; G],
    out: &mut [[f32; 8]],
) {
    for c in 0..row {
        let mut acc: [I::F32x8; G] =
            core::array::from_fn(|g| isa.mul8(isa.load8(&out[g * row + c]), isa.splat8(rescale[g])));
        for (j, v) in v.chunks_exact(row).take(TILE).enumerate() {
            let v = E::load(isa, &v[c]);
            for g in 0..G {
                acc[g] = isa.fma8(isa.splat8(weights[g][j]), v, acc[g]);
            }
        }
        for g in 0..G {
            isa.store8(acc[g], &mut out[g * row + c]);
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
