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
use super::cursor::{PanelCursor, Prefetcher, RowCursor, RowQuad};
use super::job::Job;
use super::packed::{self, Interleaved};
use super::panel::{self, Packed, PanelUnit, UnitPanel, Units};
use crate::arch::formats::{Format, Quants, Unit};
use crate::arch::isa::PanelIsa;
use crate::arch::types::{ROWS, Sums};
use crate::arch::unroll::unroll;
use crate::quant::{BLOCK, Block, PANEL_ROWS};
use crate::util::SliceExt;

/// Rows as GGUF lays them out: the blocks of a panel, or of two, are interleaved once for [`MAX_TOKENS`].
#[inline(always)]
pub(super) fn multiply_rows<F: Interleaved, S: PanelIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
    let rows = job.rows.clone();
    let paired = if S::PANELS == 2 { rows.len() / (2 * PANEL_ROWS) * (2 * PANEL_ROWS) } else { 0 };
    if S::PANELS == 2 {
        interleave_and_multiply::<F, S, 2>(isa, job, rows.start..rows.start + paired);
    }
    interleave_and_multiply::<F, S, 1>(isa, job, rows.start + paired..rows.end);
}

/// `rows` alone, `N` panels at a time.
#[inline(always)]
fn interleave_and_multiply<F: Interleaved, S: PanelIsa, const N: usize>(
    isa: S,
    job: &mut Job<'_, '_, '_>,
    rows: Range<usize>,
) {
    let mut accumulators = Accumulators::<[Sums; N]>::new();
    let mut blocks = [F::Block::ZERO; N];
    let (all, stride) = (job.w.rows_bytes(rows.clone()), job.w.row_bytes());
    for (first, rows) in rows.step_by(N * PANEL_ROWS).zip(all.chunks_of(N * PANEL_ROWS * stride)) {
        for token in (0..job.x.tokens).step_by(MAX_TOKENS) {
            let sums = accumulators.zeroed(job.x.tokens - token);
            let mut rows = PanelCursor::<F::Row>::new(rows, stride);
            let mut b = 0;
            while let Some(rows) = rows.next::<S, N>(isa) {
                unroll!(n in 0..N => { packed::interleave::<F, S>(isa, rows[n], &mut blocks[n]) });
                let units = blocks.each_ref().map(F::last);
                panel::add::<F, S, N>(isa, units, b, &job.x, token, sums);
                b += 1;
            }
            panel::restore_row_order(isa, sums);
            for (t, sums) in sums.iter().enumerate() {
                unroll!(n in 0..N => { job.write_sums(first + n * PANEL_ROWS, token + t, &sums[n]) });
            }
        }
    }
}

/// Rows of a format that is not [`Interleaved`]: a block of the rows of `N` panels is unpacked once for [`MAX_TOKENS`].
#[inline(always)]
pub(super) fn multiply_units<F: Format, S: PanelIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
    if S::PANELS == 2 {
        unpack_and_multiply::<F, S, 2>(isa, job);
    } else {
        unpack_and_multiply::<F, S, 1>(isa, job);
    }
}

/// `N` panels at a time; beyond the last row, it is repeated.
#[inline(always)]
fn unpack_and_multiply<F: Format, S: PanelIsa, const N: usize>(isa: S, job: &mut Job<'_, '_, '_>) {
    let rows = job.rows.clone();
    const { assert!(F::LEN.is_multiple_of(BLOCK) && F::LEN / BLOCK <= MAX_UNITS) };
    let units = F::LEN / BLOCK;
    let mut accumulators = Accumulators::<[Sums; N]>::new();
    let mut panels = [[UnitPanel::ZERO; N]; MAX_UNITS];
    let (all, stride) = (job.w.rows_bytes(rows.clone()), job.w.row_bytes());
    for (first, rows) in rows.step_by(N * PANEL_ROWS).zip(all.chunks_of(N * PANEL_ROWS * stride)) {
        for token in (0..job.x.tokens).step_by(MAX_TOKENS) {
            let sums = accumulators.zeroed(job.x.tokens - token);
            let mut quads: [[_; PANEL_ROWS / ROWS]; N] =
                core::array::from_fn(|n| core::array::from_fn(|g| quad::<F>(rows, stride, n * PANEL_ROWS + g * ROWS)));
            let mut ahead = Prefetcher::behind(rows);
            let mut b = 0;
            while unpack::<F, S, N>(isa, &mut quads, &mut panels) {
                for panels in panels.first_n(units) {
                    // A share of the next rows' block: a CPU that is asked for many lines at once stalls.
                    ahead.prefetch_far(isa, N * PANEL_ROWS * size_of::<F::Block>() / units);
                    let units = panels.each_ref().map(|unit| PanelUnit { head: &(), unit });
                    panel::add::<Units<F>, S, N>(isa, units, b, &job.x, token, sums);
                    b += 1;
                }
            }
            panel::restore_row_order(isa, sums);
            for (t, sums) in sums.iter().enumerate() {
                unroll!(n in 0..N => { job.write_sums(first + n * PANEL_ROWS, token + t, &sums[n]) });
            }
        }
    }
}

/// The most units of a block.
const MAX_UNITS: usize = 8;

/// Four of `rows` from row `first` on; beyond the last one, it is repeated.
#[inline(always)]
fn quad<F: Format>(rows: &[u8], stride: usize, first: usize) -> RowCursor<'_, F::Block> {
    let last = rows.len().saturating_sub(stride);
    let rows = rows.get((first * stride).min(last)..).unwrap_or(&[]);
    RowCursor::new(RowQuad::new(rows, stride), usize::MAX)
}

/// Unpacks the next block of each row; `false` when there is none.
#[inline(always)]
fn unpack<F: Format, S: PanelIsa, const N: usize>(
    isa: S,
    quads: &mut [[RowCursor<'_, F::Block>; PANEL_ROWS / ROWS]; N],
    panels: &mut [[UnitPanel; N]; MAX_UNITS],
) -> bool {
    for n in 0..N {
        for (g, quad) in quads[n].iter_mut().enumerate() {
            let Some(blocks) = quad.next() else { return false };
            let head = F::head(isa, blocks);
            if S::UNROLL_UNITS {
                unroll!(u in 0..F::LEN / BLOCK => { store::<F, S>(isa, &F::unit(isa, &head, u), &mut panels[u][n], g) });
            } else {
                for u in 0..F::LEN / BLOCK {
                    store::<F, S>(isa, &F::unit(isa, &head, u), &mut panels[u & (MAX_UNITS - 1)][n], g);
                }
            }
        }
    }
    true
}

/// Writes the unit of rows `4·g..4·g + 4` to its place in a panel.
#[inline(always)]
fn store<F: Format, S: PanelIsa>(isa: S, unit: &Unit<S>, panel: &mut UnitPanel, g: usize) {
    let halves = matches!(F::QUANTS, Quants::Halves | Quants::FloatHalves);
    let less = if halves { F::OFFSET } else { 0 };
    let columns = isa.interleave(&isa.panel_quants(unit.q, unit.form, less));
    let g = g & (PANEL_ROWS / ROWS - 1);
    unroll!(k in 0..8 => { panel.q[ROWS * k + g] = columns[k] });
    panel.d[0].as_chunks_mut::<ROWS>().0[g] = isa.store4(unit.d[0]);
    if F::MINIMUM || matches!(F::QUANTS, Quants::FloatHalves) {
        panel.d[1].as_chunks_mut::<ROWS>().0[g] = isa.store4(unit.d[1]);
    }
    if matches!(F::QUANTS, Quants::Halves) {
        unroll!(h in 0..2 => {
            panel.s[0][h].as_chunks_mut::<ROWS>().0[g] = isa.store_words(unit.s[0][h]);
            if F::MINIMUM {
                panel.s[1][h].as_chunks_mut::<ROWS>().0[g] = isa.store_words(unit.s[1][h]);
            }
        });
    }
}

/// One token and a packed file's panels, in place.
#[inline(always)]
pub(super) fn multiply_panels_by_one<F: Packed, S: PanelIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
    let mut row = job.rows.start;
    while let Some(panel) = panel_of::<F::Block>(job, row) {
        let sums = panel::gemv::<F, S::Single>(isa.single(), panel.blocks, &job.x);
        job.write_sums(row, 0, sums.get(panel.skip..).unwrap_or(&[]));
        row += PANEL_ROWS - panel.skip;
    }
}

/// Several tokens and a packed file's panels, in place.
#[inline(always)]
pub(super) fn multiply_panels<F: Packed, S: PanelIsa>(isa: S, job: &mut Job<'_, '_, '_>) {
    let mut accumulators = Accumulators::<[Sums; 1]>::new();
    let mut row = job.rows.start;
    while let Some(panel) = panel_of::<F::Block>(job, row) {
        for token in (0..job.x.tokens).step_by(MAX_TOKENS) {
            let sums = accumulators.zeroed(job.x.tokens - token);
            let mut b = 0;
            for block in panel.blocks {
                let (head, units) = F::split(block);
                for unit in units {
                    panel::add::<F, S, 1>(isa, [PanelUnit { head, unit }], b, &job.x, token, sums);
                    b += 1;
                }
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
struct Panel<'w, B> {
    /// Its blocks.
    blocks: &'w [B],
    /// Rows of it before the one asked for.
    skip: usize,
}

/// The panel that `row` is in; none behind the last row.
#[inline(always)]
fn panel_of<'w, B: Block>(job: &Job<'_, '_, 'w>, row: usize) -> Option<Panel<'w, B>> {
    let panel = |row| Panel { blocks: B::slice_of(job.w.panel(row / PANEL_ROWS)), skip: row % PANEL_ROWS };
    (row < job.rows.end).then(|| panel(row))
}
