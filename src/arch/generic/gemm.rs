//! Quantised weights times the tokens of a prompt: by panels of 16 rows, which are interleaved on the fly from a GGUF file's
//! rows, or used in place from a packed file.
//!
//! ```text
//! for each panel, or two:
//!     for each 128 tokens:
//!         sums = 0
//!         for each block of 32 columns:
//!             panel = interleave(16 rows)             once for the 128 tokens; ready in a packed file
//!             sums[token] += panel · x[token]         see [`panel`]
//! ```

use core::ops::Range;

use super::accumulators::{Accumulators, MAX_TOKENS};
use super::cursor::PanelCursor;
use super::job::Job;
use super::panel::{self, Format};
use crate::arch::isa::PanelIsa;
use crate::arch::types::Sums;
use crate::arch::unroll::unroll;
use crate::quant::PANEL_ROWS;
use crate::util::SliceExt;

/// Rows as GGUF lays them out: the blocks of a panel, or of two, are interleaved once for [`MAX_TOKENS`].
#[inline(always)]
pub(super) fn multiply_rows<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(
    isa: S,
    job: &mut Job<'_, '_, '_>,
) {
    let rows = job.rows.clone();
    let paired = if S::PANELS == 2 { rows.len() / (2 * PANEL_ROWS) * (2 * PANEL_ROWS) } else { 0 };
    if S::PANELS == 2 {
        interleave_and_multiply::<F, S, P, B, 2>(isa, job, rows.start..rows.start + paired);
    }
    interleave_and_multiply::<F, S, P, B, 1>(isa, job, rows.start + paired..rows.end);
}

/// `rows` alone, `N` panels at a time.
#[inline(always)]
fn interleave_and_multiply<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize, const N: usize>(
    isa: S,
    job: &mut Job<'_, '_, '_>,
    rows: Range<usize>,
) {
    let mut accumulators = Accumulators::<[Sums; N]>::new();
    let (all, stride) = (job.w.rows_bytes(rows.clone()), job.w.row_bytes());
    for (first, rows) in rows.step_by(N * PANEL_ROWS).zip(all.chunks_of(N * PANEL_ROWS * stride)) {
        for token in (0..job.x.tokens).step_by(MAX_TOKENS) {
            let sums = accumulators.zeroed(job.x.tokens - token);
            let mut rows = PanelCursor::new(rows, stride);
            let mut b = 0;
            while let Some(rows) = rows.next::<S, N>(isa) {
                let mut blocks = [[0; P]; N];
                unroll!(n in 0..N => { blocks[n] = panel::interleave::<F, S, P, B>(isa, rows[n]) });
                panel::add::<F, S, P, B, N>(isa, &blocks, b, &job.x, token, sums);
                b += 1;
            }
            panel::restore_row_order(isa, sums);
            for (t, sums) in sums.iter().enumerate() {
                unroll!(n in 0..N => { job.write_sums(first + n * PANEL_ROWS, token + t, &sums[n]) });
            }
        }
    }
}

/// One token and a packed file's panels, in place.
#[inline(always)]
pub(super) fn multiply_panels_by_one<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(
    isa: S,
    job: &mut Job<'_, '_, '_>,
) {
    let mut row = job.rows.start;
    while let Some(panel) = panel_of(job, row) {
        let sums = panel::gemv::<F, S::Single, P, B>(isa.single(), panel.blocks, &job.x, 0);
        job.write_sums(row, 0, sums.get(panel.skip..).unwrap_or(&[]));
        row += PANEL_ROWS - panel.skip;
    }
}

/// Several tokens and a packed file's panels, in place.
#[inline(always)]
pub(super) fn multiply_panels<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(
    isa: S,
    job: &mut Job<'_, '_, '_>,
) {
    let mut accumulators = Accumulators::<[Sums; 1]>::new();
    let mut row = job.rows.start;
    while let Some(panel) = panel_of::<P>(job, row) {
        for token in (0..job.x.tokens).step_by(MAX_TOKENS) {
            let sums = accumulators.zeroed(job.x.tokens - token);
            for (b, block) in panel.blocks.iter().enumerate() {
                panel::add::<F, S, P, B, 1>(isa, core::array::from_ref(block), b, &job.x, token, sums);
            }
            panel::restore_row_order(isa, sums);
            for (t, [sums]) in sums.iter().enumerate() {
                job.write_sums(row, token + t, sums.get(panel.skip..).unwrap_or(&[]));
            }
        }
        row += PANEL_ROWS - panel.skip;
    }
}

/// A panel of a packed matrix.
struct Panel<'w, const P: usize> {
    /// Its blocks, one for each 32 columns.
    blocks: &'w [[u8; P]],
    /// Rows of it before the one asked for.
    skip: usize,
}

/// The panel that `row` is in; none behind the last row.
#[inline(always)]
fn panel_of<'w, const P: usize>(job: &Job<'_, '_, 'w>, row: usize) -> Option<Panel<'w, P>> {
    (row < job.rows.end).then(|| Panel { blocks: job.w.panel(row / PANEL_ROWS).as_chunks().0, skip: row % PANEL_ROWS })
}
