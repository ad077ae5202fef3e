//! A product to compute, and how its results are written.

use core::ops::Range;

use super::activations::Activations;
use crate::quant::{Matrix, PANEL_ROWS};
use crate::storage::Tile;
use crate::util::SliceExt;

/// What to do with a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Overwrite what was there.
    Set,
    /// Add to what was there: the residual.
    Add,
}

/// A product to compute: rows of a matrix times all tokens, to the columns of `out`.
pub(in crate::arch) struct Job<'a, 'o, 'w> {
    pub(in crate::arch) w: Matrix<'w>,
    pub(super) rows: Range<usize>,
    /// By value, like the matrix, so that the compiler sees that writing results changes neither.
    pub(in crate::arch) x: Activations<'a>,
    pub(super) out: &'a mut Tile<'o, f32>,
    pub(super) write: Write,
}

impl Job<'_, '_, '_> {
    /// Writes the sums of rows `row..` of one token, as far as the job has these rows.
    #[inline(always)]
    pub(super) fn write_sums(&mut self, row: usize, token: usize, sums: &[f32]) {
        let valid = sums.len().min(self.rows.end.saturating_sub(row));
        let out = self.out.row(token).get_mut(row - self.rows.start..).unwrap_or(&mut []);
        write_to(out, sums.first_n(valid), self.write);
    }
}

/// Writes `sums` to as much of `out` as there is: a panel's rows at once, else four at a time, because a copy of unknown
/// length is a call of `memcpy`.
#[inline(always)]
pub(super) fn write_to(out: &mut [f32], sums: &[f32], write: Write) {
    if let (Some(out), Ok(sums)) = (out.first_chunk_mut(), <&[f32; PANEL_ROWS]>::try_from(sums)) {
        match write {
            Write::Set => *out = *sums,
            Write::Add => (0..PANEL_ROWS).for_each(|i| out[i] += sums[i]),
        }
        return;
    }
    let n = sums.len().min(out.len());
    let ((out, tail), (sums, last)) = (out.first_n_mut(n).as_chunks_mut::<4>(), sums.first_n(n).as_chunks::<4>());
    let chunks = out.iter_mut().zip(sums);
    let ends = tail.iter_mut().zip(last);
    match write {
        Write::Set => {
            chunks.for_each(|(out, sums)| *out = *sums);
            ends.for_each(|(out, sum)| *out = *sum);
        }
        Write::Add => {
            chunks.for_each(|(out, sums)| (0..4).for_each(|i| out[i] += sums[i]));
            ends.for_each(|(out, sum)| *out += sum);
        }
    }
}
