//! How the blocks of each format become what the kernels multiply: units of 32 columns of four rows.
//!
//! A unit is the int8 quants of 32 columns, which meet one block of activations, and their scale as `f32`. Whatever a format
//! stores of its scales, their product is exact in `f32` (11 significant bits times at most 8), so nothing is rounded before
//! the dot product is scaled. Formats with a scale for each half of a unit keep it as an integer: the dot products of the
//! halves, times these, are added exactly before the one factor that is an `f32`. Rows in place and panels are made of the
//! same units, so both give the same sums.

mod iq4;
mod k_quants;
mod legacy;
mod low_bits;
mod mx;

use super::isa::{Form, UnitIsa};
use super::types::{BlockQuad, ROWS};
use crate::quant::BlockFormat;

/// Which quants a format has, and so how they are multiplied: every backend adds as many products in narrow integers as
/// these leave room for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::arch) enum Quants {
    /// int8.
    Int8,
    /// Within 0..=15.
    Nibbles,
    /// Within 0..=31.
    Five,
    /// Within 0..=63, with an integer scale for each 16 columns, and a minimum if the format has them.
    Halves,
    /// Within 0..=63, with an `f32` scale for each 16 columns.
    FloatHalves,
}

/// 32 columns of four rows.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Unit<I: UnitIsa> {
    /// Quants, of each row.
    pub(in crate::arch) q: [I::I8x32; ROWS],
    /// What these are to the format's quants.
    pub(in crate::arch) form: Form,
    /// Scale and minimum; of halves the factors of their integer scales and minima, or the two scales.
    pub(in crate::arch) d: [I::F32x4; 2],
    /// Of halves, the integer scales and minima of each.
    pub(in crate::arch) s: [[I::U32x4; 2]; 2],
}

impl<I: UnitIsa> Unit<I> {
    /// With a scale, and no minimum.
    #[inline(always)]
    fn scaled(isa: I, q: [I::I8x32; ROWS], form: Form, d: I::F32x4) -> Self {
        Self::new(isa, q, form, d, d)
    }
    /// With a scale and a minimum, or the scales of two halves.
    #[inline(always)]
    fn new(isa: I, q: [I::I8x32; ROWS], form: Form, d: I::F32x4, m: I::F32x4) -> Self {
        Unit { q, form, d: [d, m], s: [[isa.splat_words(0); 2]; 2] }
    }
}

/// A quantised format: `w = d·(q − OFFSET)`, or `d·q + m` if it has minima.
pub(in crate::arch) trait Format: BlockFormat {
    /// Its quants.
    const QUANTS: Quants;
    /// What is to be subtracted from each quant; 0 for [`Quants::Int8`].
    const OFFSET: i32 = 0;
    /// Whether there are minima.
    const MINIMUM: bool = false;
    /// Units that share bytes; see [`after`](Format::after).
    const UNITS_TOGETHER: usize = 2;
    /// Four rows' blocks, and their scales as far as they are decoded once for a block.
    type Head<'w, I: UnitIsa>: Copy;

    /// The next block of four rows.
    fn head<'w, I: UnitIsa>(isa: I, blocks: BlockQuad<'_, 'w, Self::Block, I::Places>) -> Self::Head<'w, I>;
    /// Columns `32·u..32·u + 32`.
    fn unit<I: UnitIsa>(isa: I, head: &Self::Head<'_, I>, u: usize) -> Unit<I>;
    /// As [`UnitIsa::blocks_after`], after [`UNITS_TOGETHER`](Format::UNITS_TOGETHER), for a block of so many units that
    /// registers do not hold it.
    #[inline(always)]
    fn after<I: UnitIsa>(_: I, _head: &mut Self::Head<'_, I>, _acc: I::F32x4) {}
}
