//! Activations, and their quantisation to int8.

use crate::arch::isa::Isa;
use crate::quant::BLOCK;
use crate::storage::Plain;

/// 32 activations as int8: `x[i] = d·q[i]`.
///
/// The sum of the quants is what a format with a minimum or an offset needs of a block, once for all its rows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Block {
    /// Quants, within ±127.
    pub q: [i8; BLOCK],
    /// Scale.
    pub d: f32,
    /// Sum of `q`, exact.
    pub sum: f32,
}

// SAFETY: two f32 after 32 bytes: no padding, every bit pattern is a value.
unsafe impl Plain for Block {}

impl Block {
    /// A block of zeros.
    pub const ZERO: Block = Block { q: [0; BLOCK], d: 0.0, sum: 0.0 };
}

/// The input of a matrix, one row for each token, as floats and, for quantised weights, as int8.
#[derive(Clone, Copy)]
pub struct Activations<'a> {
    /// Number of tokens.
    pub tokens: usize,
    /// `(tokens, cols)`.
    pub floats: &'a [f32],
    /// `(tokens, cols / 32)`; may be empty when no matrix they meet is quantised.
    pub blocks: &'a [Block],
}

/// Quantises `x` to `out`, as far as the shorter goes.
///
/// The scale is the largest magnitude / 127, so that −128 never occurs: the kernels rely on it to add two products
/// in 16 bits. A block with a NaN or an infinity gives a NaN or infinite scale, which shows in the result.
#[inline(always)]
pub(in crate::arch) fn quantise<I: Isa>(isa: I, x: &[f32], out: &mut [Block]) {
    for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out) {
        let parts: [&[f32; 8]; 4] = {
            let (parts, _) = x.as_chunks::<8>();
            core::array::from_fn(|i| &parts[i])
        };
        let v = parts.map(|p| isa.load8(p));
        let a = v.map(|v| isa.abs8(v));
        let largest = isa.hmax8(isa.max8(isa.max8(a[0], a[1]), isa.max8(a[2], a[3])));
        let total = isa.sum8(isa.add8(isa.add8(a[0], a[1]), isa.add8(a[2], a[3])));
        // `max` drops a NaN, the sum keeps it.
        if !total.is_finite() {
            *out = Block { d: f32::NAN, ..Block::ZERO };
            continue;
        }
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        // A subnormal block: its reciprocal overflows, and its weight in any sum is nothing.
        if !inverse.is_finite() {
            *out = Block::ZERO;
            continue;
        }
        let inverse = isa.splat8(inverse);
        let limit = isa.splat8(127.0);
        let r = v.map(|v| isa.min8(isa.round8(isa.mul8(v, inverse)), limit));
        isa.to_i8(r, &mut out.q);
        out.d = largest / 127.0;
        out.sum = isa.sum8(isa.add8(isa.add8(r[0], r[1]), isa.add8(r[2], r[3])));
    }
}
