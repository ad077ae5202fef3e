//! binary16 weights and a few tokens, where the CPU multiplies binary16: twice the products of `f32` in an instruction,
//! and half of the widening.
//!
//! ```text
//! for each block of 32 columns:
//!     x = x̂·d, d a power of two                             once for all rows
//!     for each row, in eight lanes: p = w₀x̂₀ + w₁x̂₁ + w₂x̂₂ + w₃x̂₃     in binary16, each rounded once
//!     acc += d·p                                            in f32
//! ```
//!
//! The largest of a block's |x̂| is within 2⁻³..2⁻², so that four products with any finite weight stay finite. Each of
//! the five roundings on the way, of x̂ and of four sums, is by at most 2⁻¹¹ of what is rounded, or 2⁻²⁵ if that is
//! more: beside the exact result that is at most 5.01·2⁻¹¹·Σ|w·x|, where weights and activations are not so small that
//! the latter counts. The errors of different products do not know of each other; a row's are mostly a hundredth of
//! that. Int8 activations are eight times as coarse.

use super::activations::Activations;
use super::matmul::{Job, Write, write_to};
use super::walk::{Four, ROWS, Rows};
use crate::arch::isa::FloatIsa;

use crate::arch::unroll::{array, each};
use crate::quant::BLOCK;

/// Most tokens at once.
pub(super) const TOKENS: usize = 8;
/// Blocks of columns that are converted together; 11 KiB for all tokens.
const BLOCKS: usize = 20;

/// Activations of a block: `x[i] = d·x̂[i]`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::arch) struct HalfBlock {
    /// x̂ as binary16.
    pub(in crate::arch) x: [[u8; 16]; 4],
    pub(in crate::arch) d: f32,
}

/// Rows of `job` times at most [`TOKENS`] tokens, in pieces of columns that are added one after another: what shares a
/// piece does not show in the sums.
#[inline(always)]
pub(super) fn multiply<I: FloatIsa>(isa: I, job: &mut Job<'_, '_, '_>) {
    let mut x = [[HalfBlock { x: [[0; 16]; 4], d: 0.0 }; BLOCKS]; TOKENS];
    let (stride, cols) = (job.w.row_bytes(), job.w.cols());
    let rows = job.w.rows_bytes(job.rows.clone());
    for first in (0..cols).step_by(BLOCKS * BLOCK) {
        let columns = first..cols.min(first + BLOCKS * BLOCK);
        let blocks = columns.len().div_ceil(BLOCK);
        for (t, x) in x.iter_mut().enumerate().take(job.tokens) {
            convert(isa, floats(&job.x, t, columns.clone()), x);
        }
        let write = if first == 0 { job.write } else { Write::Add };
        for (row, rows) in (0..).step_by(ROWS).zip(rows.chunks(ROWS * stride.max(1))) {
            let rows = Four::new(rows, stride).skip(2 * first);
            for (t, x) in x.iter().enumerate().take(job.tokens) {
                let sums = tile(isa, rows, &x[..blocks]);
                let out = job.out.row(t).get_mut(row..).unwrap_or(&mut []);
                match out.first_chunk_mut::<ROWS>() {
                    Some(out) if row + ROWS <= job.rows.len() => write_to(out, &sums, write),
                    _ => write_to(out, &sums[..job.rows.len().saturating_sub(row).min(ROWS)], write),
                }
            }
        }
    }
}

/// Some columns of a token.
#[inline(always)]
fn floats<'a>(x: &Activations<'a>, token: usize, columns: core::ops::Range<usize>) -> &'a [f32] {
    let cols = x.floats.len() / x.tokens.max(1);
    x.floats.get(token * cols..).and_then(|x| x.get(columns)).unwrap_or(&[])
}

/// Activations as blocks, the last one with zeros to the end.
#[inline(always)]
fn convert<I: FloatIsa>(isa: I, x: &[f32], out: &mut [HalfBlock]) {
    let (whole, rest) = x.as_chunks::<BLOCK>();
    for (x, out) in whole.iter().zip(&mut *out) {
        *out = convert_block(isa, x);
    }
    if let (false, Some(out)) = (rest.is_empty(), out.get_mut(whole.len())) {
        let mut x = [0.0; BLOCK];
        x[..rest.len()].copy_from_slice(rest);
        *out = convert_block(isa, &x);
    }
}

#[inline(always)]
fn convert_block<I: FloatIsa>(isa: I, x: &[f32; BLOCK]) -> HalfBlock {
    let (parts, _) = x.as_chunks::<8>();
    let v = array!(i in 0..4 => isa.load8(&parts[i]));
    let a = array!(i in 0..4 => isa.abs8(v[i]));
    let largest = isa.hmax8(isa.max8(isa.max8(a[0], a[1]), isa.max8(a[2], a[3])));
    let total = isa.sum8(isa.add8(isa.add8(a[0], a[1]), isa.add8(a[2], a[3])));
    let mut out = HalfBlock { x: [[0; 16]; 4], d: f32::NAN };
    // `max` drops a NaN, the sum keeps it.
    if !total.is_finite() {
        return out;
    }
    // The exponent field, with its bias of 127: largest = 2ᵉ⁻¹²⁷·1.m. Both powers are normal numbers.
    let e = (largest.to_bits() >> 23).clamp(1, 250);
    out.d = f32::from_bits((e + 3) << 23);
    let inverse = isa.splat8(f32::from_bits((254 - 3 - e) << 23));
    each!(i in 0..4 => { isa.store8_f16(isa.mul8(v[i], inverse), &mut out.x[i]) });
    out
}

/// The products of four rows' columns with those of a token.
#[inline(always)]
fn tile<I: FloatIsa>(isa: I, rows: Four<'_>, x: &[HalfBlock]) -> [f32; ROWS] {
    let mut walk = Rows::<64>::new(rows, x.len());
    let mut acc = [isa.splat4(0.0); ROWS];
    let mut blocks = x.iter();
    while let (Some(step), Some(x)) = (walk.next(), blocks.next()) {
        isa.fma_halves(step, x, &mut acc);
    }
    // Columns beyond a multiple of 32, padded with zeros.
    let whole = (rows.row_bytes() / 64).min(x.len());
    if let Some(x) = x.get(whole) {
        let mut tails = [[0; 64]; ROWS];
        for (r, tail) in tails.iter_mut().enumerate() {
            let row = rows.row(r).get(64 * whole..).unwrap_or(&[]);
            let n = row.len().min(64);
            tail[..n].copy_from_slice(&row[..n]);
        }
        if let Some(step) = Rows::<64>::new(Four::new(tails.as_flattened(), 64), 1).next() {
            isa.fma_halves(step, x, &mut acc);
        }
    }
    isa.fold4(acc)
}
