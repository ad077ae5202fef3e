//! Activations, and their quantisation to int8.

use crate::arch::isa::Isa;
use crate::arch::types::F16Block;
use crate::arch::unroll::unroll_array;
use crate::quant::BLOCK;
use crate::storage::{Arena, ArenaError, Grid, Outputs, Tile};
use crate::util::SliceExt;
use core::ops::Range;

/// Activations as int8, `x[32·b + i] = d·q[i]`, for the tokens of one pass.
///
/// All are `(blocks, stride)`, block b of token t at `stride·b + t`: the tokens of a tile are adjacent, so that one
/// pointer walks them and their scales fill a vector. What a format with an offset or a minimum needs of a block is computed
/// here, once for all rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quants<'a> {
    /// Quants, within ±127.
    pub q: &'a [[i8; BLOCK]],
    /// Scales.
    pub d: &'a [f32],
    /// −8·Σq, exact: what is added to a dot product with nibbles that stand for −8..=7.
    pub bias: &'a [i32],
    /// d·Σq, rounded once: what a minimum is multiplied by.
    pub dsum: &'a [f32],
    /// Σq of the first 16 and of the last: what a minimum or an offset of half a block is multiplied by.
    pub halves: &'a [[i32; 2]],
    /// Distance from a block to the next, in tokens; more than the tokens of this view where it is part of a pass.
    pub stride: usize,
}

impl Quants<'_> {
    /// The same without the first tokens.
    fn skip(self, tokens: usize) -> Self {
        fn behind<T>(all: &[T], tokens: usize) -> &[T] {
            all.get(tokens..).unwrap_or(&[])
        }
        Quants {
            q: behind(self.q, tokens),
            d: behind(self.d, tokens),
            bias: behind(self.bias, tokens),
            dsum: behind(self.dsum, tokens),
            halves: behind(self.halves, tokens),
            ..self
        }
    }
}

/// Memory for [`Quants`].
#[derive(Debug)]
pub struct QuantsMut<'a> {
    q: &'a mut [[i8; BLOCK]],
    d: &'a mut [f32],
    bias: &'a mut [i32],
    dsum: &'a mut [f32],
    halves: &'a mut [[i32; 2]],
}

/// The columns of one or more tokens of [`Quants`], with the right to write them.
pub struct QuantTile<'a> {
    q: Tile<'a, [i8; BLOCK]>,
    d: Tile<'a, f32>,
    bias: Tile<'a, i32>,
    dsum: Tile<'a, f32>,
    halves: Tile<'a, [i32; 2]>,
}

/// [`Quants`] cut into a tile for each token.
pub(crate) struct QuantGrids<'a> {
    q: Grid<'a, [i8; BLOCK]>,
    d: Grid<'a, f32>,
    bias: Grid<'a, i32>,
    dsum: Grid<'a, f32>,
    halves: Grid<'a, [i32; 2]>,
}

// SAFETY: tiles of a `Grid` do not overlap, and these are of different `&mut [_]`.
unsafe impl<'a> Outputs for QuantGrids<'a> {
    type Tiles = QuantTile<'a>;

    fn tiles(&self) -> usize {
        let [a, b, c] = [self.d.tiles(), self.dsum.tiles(), self.bias.tiles()];
        self.q.tiles().min(a).min(b).min(c).min(self.halves.tiles())
    }

    unsafe fn tile(&self, i: usize) -> QuantTile<'a> {
        // SAFETY: the contract of this function, that no `i` is asked for twice, is the contract of each grid.
        unsafe {
            QuantTile {
                q: self.q.tile(i),
                d: self.d.tile(i),
                bias: self.bias.tile(i),
                dsum: self.dsum.tile(i),
                halves: self.halves.tile(i),
            }
        }
    }
}

impl<'a> QuantsMut<'a> {
    /// Carves room for `tokens` tokens of `cols` activations.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub fn new(arena: &mut Arena<'a>, tokens: usize, cols: usize) -> Result<Self, ArenaError> {
        let shape = [cols.div_ceil(BLOCK), tokens];
        Ok(Self {
            q: arena.alloc("int8 activations", &shape)?,
            d: arena.alloc("their scales", &shape)?,
            bias: arena.alloc("their offsets", &shape)?,
            dsum: arena.alloc("their sums", &shape)?,
            halves: arena.alloc("sums of halves", &shape)?,
        })
    }

    /// The places of some blocks of `tokens` tokens, cut by tokens; fewer when there is less room.
    pub(crate) fn columns(&mut self, blocks: Range<usize>, tokens: usize) -> QuantGrids<'_> {
        let end = (blocks.end * tokens).min(self.q.len());
        let n = (blocks.start * tokens).min(end)..end;
        QuantGrids {
            q: Grid::columns(self.q.part_mut(n.clone()), tokens, 1),
            d: Grid::columns(self.d.part_mut(n.clone()), tokens, 1),
            bias: Grid::columns(self.bias.part_mut(n.clone()), tokens, 1),
            dsum: Grid::columns(self.dsum.part_mut(n.clone()), tokens, 1),
            halves: Grid::columns(self.halves.part_mut(n), tokens, 1),
        }
    }

    /// Bytes of a block and token as [`pack`](QuantsMut::pack) writes them.
    pub(crate) const PACKED: usize = BLOCK + size_of::<f32>();

    /// Copies the quants and then the scales of some blocks of `tokens` tokens, from which all else follows.
    pub(crate) fn pack(&self, blocks: Range<usize>, tokens: usize, out: &mut [u8]) {
        let n = blocks.start * tokens..blocks.end * tokens;
        let (q, d) = out.split_at_mut_checked(n.len() * BLOCK).unwrap_or_default();
        for (out, q) in q.rows_mut(BLOCK).zip(self.q.part(n.clone())) {
            out.iter_mut().zip(q).for_each(|(out, q)| *out = *q as u8);
        }
        for (out, d) in d.as_chunks_mut().0.iter_mut().zip(self.d.part(n)) {
            *out = d.to_le_bytes();
        }
    }

    /// Fills blocks with what [`pack`](QuantsMut::pack) copied from those of another, as if they had been quantised here.
    pub(crate) fn unpack(&mut self, blocks: Range<usize>, tokens: usize, packed: &[u8]) {
        let n = blocks.start * tokens..blocks.end * tokens;
        let (q, d) = packed.split_at_checked(n.len() * BLOCK).unwrap_or_default();
        for ((to, q), (d, from)) in self
            .q
            .part_mut(n.clone())
            .iter_mut()
            .zip(q.rows(BLOCK))
            .zip(self.d.part_mut(n.clone()).iter_mut().zip(d.as_chunks().0))
        {
            to.iter_mut().zip(q).for_each(|(to, q)| *to = *q as i8);
            *d = f32::from_le_bytes(*from);
        }
        for i in n {
            let (Some(q), Some(d)) = (self.q.get(i), self.d.get(i)) else { return };
            // Integers, as in `quantise`.
            let [first, last] = [q.first_n(BLOCK / 2), q.part(BLOCK / 2..BLOCK)]
                .map(|half| half.iter().map(|q| i32::from(*q)).sum::<i32>());
            if let (Some(bias), Some(dsum), Some(halves)) =
                (self.bias.get_mut(i), self.dsum.get_mut(i), self.halves.get_mut(i))
            {
                *bias = -8 * (first + last);
                *dsum = d * (first + last) as f32;
                *halves = [first, last];
            }
        }
    }

    /// What was written to the first `blocks` × `tokens` places.
    pub(crate) fn view(&self, blocks: usize, tokens: usize) -> Quants<'_> {
        let n = (blocks * tokens).min(self.q.len());
        let [d, dsum] = [&self.d, &self.dsum].map(|x| x.first_n(n));
        let (bias, halves) = (self.bias.first_n(n), self.halves.first_n(n));
        Quants { q: self.q.first_n(n), d, bias, dsum, halves, stride: tokens }
    }
}

/// The input of a matrix: as floats and, for quantised weights, as int8, for binary16 ones perhaps as such.
#[derive(Clone, Copy)]
pub struct Activations<'a> {
    /// Number of tokens.
    pub tokens: usize,
    /// `(tokens, cols)`.
    pub floats: &'a [f32],
    /// `(cols / 32, stride)`; may be empty when no matrix that they are multiplied with is quantised.
    pub quants: Quants<'a>,
    /// `(tokens, cols / 32)`, rounded up; empty where nothing is to be computed in binary16, see
    /// [`Kernels::uses_f16_products`](crate::arch::Kernels::uses_f16_products).
    pub f16: &'a [F16Block],
}

impl Activations<'_> {
    /// Those of `tokens`, as far as they are there.
    pub(super) fn part(self, tokens: Range<usize>) -> Self {
        let (start, end) = (tokens.start.min(self.tokens), tokens.end.min(self.tokens));
        if end - start == self.tokens {
            return self;
        }
        let [cols, blocks] = [self.floats.len(), self.f16.len()].map(|len| len / self.tokens.max(1));
        Activations {
            tokens: end - start,
            floats: self.floats.part(start * cols..end * cols),
            quants: self.quants.skip(start),
            f16: self.f16.part(start * blocks..end * blocks),
        }
    }
}

/// Quantises the activations `x` of one token to the first column of `out`, as far as the shorter goes.
///
/// The scale is the largest magnitude / 127, so that −128 never occurs: the kernels rely on it to add two products
/// in 16 bits. A block with a NaN or an infinity gets a NaN for its scale, which shows in the result.
#[inline(always)]
pub(in crate::arch) fn quantise<I: Isa>(isa: I, x: &[f32], out: &mut QuantTile<'_>) {
    for (b, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        if let ([q, ..], [bias, ..], [d, ..], [dsum, ..], [halves, ..]) =
            (out.q.row(b), out.bias.row(b), out.d.row(b), out.dsum.row(b), out.halves.row(b))
        {
            let (scale, [first, last]) = quantise_block(isa, x, q);
            *d = scale;
            // Integers: their sum is exact.
            let sum = first + last;
            *bias = -8 * sum as i32;
            *dsum = *d * sum;
            *halves = [first as i32, last as i32];
        }
    }
}

/// The quants of a block; its scale, and the sums of each half's quants.
#[inline(always)]
pub(super) fn quantise_block<I: Isa>(isa: I, x: &[f32; BLOCK], q: &mut [i8; BLOCK]) -> (f32, [f32; 2]) {
    let (parts, _) = x.as_chunks::<8>();
    let v = unroll_array!(i in 0..4 => isa.load8(&parts[i]));
    let a = unroll_array!(i in 0..4 => isa.abs8(v[i]));
    let largest = isa.hmax8(isa.max8(isa.max8(a[0], a[1]), isa.max8(a[2], a[3])));
    let total = isa.sum8(isa.add8(isa.add8(a[0], a[1]), isa.add8(a[2], a[3])));
    let (d, inverse) = scale(largest, total);
    (d, round_block(isa, x, inverse, q))
}

/// The scale of numbers whose largest magnitude and sum of magnitudes are given, and its inverse.
///
/// `max` drops a NaN, the sum keeps it. Subnormal numbers have an infinite reciprocal, and no weight in any sum.
#[inline(always)]
pub(super) fn scale(largest: f32, total: f32) -> (f32, f32) {
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    if !total.is_finite() {
        return (f32::NAN, 0.0);
    }
    if inverse.is_finite() { (largest / 127.0, inverse) } else { (0.0, 0.0) }
}

/// The quants of a block for the inverse of its scale, and the sums of each half's. An inverse of zero makes all of them zero.
#[inline(always)]
pub(super) fn round_block<I: Isa>(isa: I, x: &[f32; BLOCK], inverse: f32, q: &mut [i8; BLOCK]) -> [f32; 2] {
    if inverse == 0.0 {
        *q = [0; BLOCK];
        return [0.0; 2];
    }
    let (parts, _) = x.as_chunks::<8>();
    let (inverse, limit) = (isa.splat8(inverse), isa.splat8(127.0));
    let r = unroll_array!(i in 0..4 => isa.min8(isa.round8(isa.mul8(isa.load8(&parts[i]), inverse)), limit));
    isa.to_i8(r, q);
    [isa.sum8(isa.add8(r[0], r[1])), isa.sum8(isa.add8(r[2], r[3]))]
}
