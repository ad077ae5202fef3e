//! The steps of a forward pass that are no attention: each one parallel region over the rows or tiles of a buffer.

use core::ops::Range;

use super::buffers::{Buffers, Inputs, MAX_SERIAL_ROWS};
use super::{Layer, Model};
use crate::arch::{Activation, Activations, F16Block, Kernels, Quants, Write};
use crate::quant::{BLOCK, DType, Matrix, PANEL_ROWS};
use crate::storage::{Executor, Grid, Serial, Tile, TileShape, for_each_row, for_each_tile};
use crate::util::SliceExt;

/// Fewest tokens of a thread for which it reads all weights by itself.
const MIN_TOKENS_PER_THREAD: usize = 128;
/// Tiles of columns per thread, so that a slow core does not hold up the others.
const TILES_PER_THREAD: usize = 8;
/// Most columns of a tile, unless the kernels take more at once.
const MAX_TILE_COLS: usize = 256;

/// Is called before each matrix product, on the thread that runs the pass, with the matrix and its input: `(tokens, cols)`.
///
/// The address of [`Matrix::bytes`] says which tensor of the file it is.
#[cfg(feature = "std")]
pub type InputObserver<'o> = &'o (dyn Fn(&Matrix<'_>, &[f32]) + Sync);

/// What a pass runs on.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'p> {
    /// The model.
    pub(crate) model: &'p Model<'p>,
    /// The CPU's kernels.
    pub(crate) kernels: &'p Kernels,
    /// The threads.
    pub(crate) exec: &'p dyn Executor,
    /// Sees the inputs of matrices; not in firmware, which has no room for it.
    #[cfg(feature = "std")]
    pub(crate) observer: Option<InputObserver<'p>>,
}

impl Pass<'_> {
    /// Shows `x`, the input of `matrices`, to the observer.
    #[inline(always)]
    fn observe(&self, matrices: &[&Matrix<'_>], x: &Activations<'_>) {
        #[cfg(feature = "std")]
        if let Some(observer) = self.observer {
            matrices.iter().for_each(|m| observer(m, x.floats));
        }
        #[cfg(not(feature = "std"))]
        let _ = (matrices, x);
    }

    /// Copies the tokens' rows of the embedding to the residual stream.
    pub(super) fn embed(&self, buffers: &mut Buffers<'_>, tokens: &[u32]) {
        let (cols, table) = (self.model.hparams.n_embd, &self.model.weights.token_embd);
        for (token, x) in tokens.iter().zip(buffers.x.rows_mut(cols)) {
            table.decode_row(*token as usize, x);
        }
    }

    /// The threads for element-wise work on `rows` rows: the calling one alone when there are few, because a barrier
    /// would cost more.
    pub(super) fn executor_for(&self, rows: usize) -> &dyn Executor {
        if rows <= MAX_SERIAL_ROWS { &Serial } else { self.exec }
    }

    /// The tile of a product `(tokens, cols)` that is one work item: all tokens, and as many columns as give each
    /// thread several items, a multiple of what the kernels compute at once.
    ///
    /// With very many tokens each thread has its own, mostly the same from step to step: reading all weights for them
    /// then costs less than reading activations that another core has written.
    fn tile(&self, tokens: usize, cols: usize) -> TileShape {
        let workers = self.exec.workers().clamp(1, 1024);
        let share = tokens.div_ceil(workers);
        let width = (cols / workers / TILES_PER_THREAD).next_multiple_of(PANEL_ROWS);
        let unit = self.kernels.rows_at_once(tokens).max(1);
        TileShape {
            rows: if share >= MIN_TOKENS_PER_THREAD { share } else { tokens },
            cols: (width / unit * unit).min(MAX_TILE_COLS).max(unit),
        }
    }

    /// RMS norm of each row of `x`, `(tokens, n_embd)`, prepared as the input of `matrices`.
    pub(super) fn norm<'x>(
        &self,
        x: &[f32],
        tokens: usize,
        weight: &[u8],
        floats: &'x mut [f32],
        inputs: &'x mut Inputs<'_>,
        matrices: &[&Matrix<'_>],
    ) -> Activations<'x> {
        let (cols, eps) = (self.model.hparams.n_embd, self.model.hparams.rms_eps);
        let floats = floats.first_n_mut(x.len());
        let norm = |i: usize, out: &mut [f32]| self.kernels.rms_norm(x.row(i, cols), weight, eps, out);
        if !matrices.iter().any(|m| m.dtype().is_quantised()) {
            for_each_row(self.executor_for(tokens), floats, cols, norm);
            return self.prepare_input(floats, tokens, inputs, matrices);
        }
        // Norm and quantisation of a row are one item: a barrier less.
        let outputs = ([Grid::rows(floats, cols)], inputs.quants.columns(cols / BLOCK, tokens));
        for_each_tile(self.executor_for(tokens), outputs, |i, ([mut floats], mut quants)| {
            norm(i, floats.row(0));
            self.kernels.quantise(floats.row(0), &mut quants);
        });
        let quants = inputs.quants.view(cols / BLOCK, tokens);
        Activations { tokens, floats, quants, f16: self.f16_input(floats, tokens, inputs.f16, matrices) }
    }

    /// The rows of `x`, `(tokens, cols)`, as the input of `matrices`: floats, and int8 or binary16 if the kernel of one
    /// of them takes those.
    pub(super) fn prepare_input<'x>(
        &self,
        x: &'x [f32],
        tokens: usize,
        inputs: &'x mut Inputs<'_>,
        matrices: &[&Matrix<'_>],
    ) -> Activations<'x> {
        let quants = match matrices.iter().any(|m| m.dtype().is_quantised()) {
            true => self.kernels.quantise_tokens(self.executor_for(tokens), x, tokens, &mut inputs.quants),
            false => Quants::default(),
        };
        Activations { tokens, floats: x, quants, f16: self.f16_input(x, tokens, inputs.f16, matrices) }
    }

    /// The input of `matrices` as binary16; empty where none of them is binary16, and for many tokens.
    fn f16_input<'x>(
        &self,
        x: &[f32],
        tokens: usize,
        out: &'x mut [F16Block],
        matrices: &[&Matrix<'_>],
    ) -> &'x [F16Block] {
        if !self.kernels.uses_f16_products(tokens) || matrices.iter().all(|m| m.dtype() != DType::F16) {
            return &[];
        }
        let cols = x.len() / tokens.max(1);
        let blocks = cols.div_ceil(BLOCK);
        let out = out.first_n_mut(tokens * blocks);
        for (x, out) in x.rows(cols).zip(out.rows_mut(blocks)) {
            self.kernels.to_f16(x, out);
        }
        out
    }

    /// `out = [m₀; m₁; …] · x`: the results of all matrices side by side in each row.
    pub(super) fn matmul(&self, matrices: &[&Matrix<'_>], x: &Activations<'_>, out: &mut [f32]) {
        self.observe(matrices, x);
        let cols = matrices.iter().map(|m| m.rows()).sum();
        let grid = Grid::new(out.first_n_mut(x.tokens * cols), cols, self.tile(x.tokens, cols));
        for_each_tile(self.exec, [grid], |_, [mut tile]| {
            let covered = tile.columns();
            let mut first = 0;
            for m in matrices {
                let (start, end) = (covered.start.max(first), covered.end.min(first + m.rows()));
                if start < end {
                    let mut part = tile.sub(start - covered.start..end - covered.start);
                    self.multiply(m, start - first..end - first, x, &mut part);
                }
                first += m.rows();
            }
        });
    }

    /// The product of some of a matrix's rows, scaled.
    #[inline(never)]
    fn multiply(&self, m: &Matrix<'_>, rows: Range<usize>, x: &Activations<'_>, out: &mut Tile<'_, f32>) {
        self.kernels.matmul(m, rows, x, out, Write::Set);
        if m.scale() != 1.0 {
            for t in 0..out.rows().len() {
                out.row(t).iter_mut().for_each(|y| *y *= m.scale());
            }
        }
    }

    /// `out += m · x`; `product` has room for `m · x`.
    pub(super) fn matmul_add(&self, m: &Matrix<'_>, x: &Activations<'_>, out: &mut [f32], product: &mut [f32]) {
        if m.scale() != 1.0 {
            // Kernels that add cannot scale.
            self.matmul(&[m], x, product);
            out.iter_mut().zip(product.first_n(x.tokens * m.rows())).for_each(|(out, y)| *out += *y);
            return;
        }
        self.observe(&[m], x);
        let grid = Grid::new(out.first_n_mut(x.tokens * m.rows()), m.rows(), self.tile(x.tokens, m.rows()));
        for_each_tile(self.exec, [grid], |_, [mut tile]| {
            self.kernels.matmul(m, tile.columns(), x, &mut tile, Write::Add);
        });
    }

    /// `gate = silu(W_gate · x) * (W_up · x)`.
    pub(super) fn gate_up(&self, layer: &Layer<'_>, x: &Activations<'_>, gate: &mut [f32], up: &mut [f32]) {
        self.observe(&[&layer.gate, &layer.up], x);
        let cols = layer.gate.rows();
        let outputs =
            [gate, up].map(|out| Grid::new(out.first_n_mut(x.tokens * cols), cols, self.tile(x.tokens, cols)));
        for_each_tile(self.exec, outputs, |_, [mut gate, mut up]| {
            self.multiply(&layer.gate, gate.columns(), x, &mut gate);
            self.multiply(&layer.up, up.columns(), x, &mut up);
            for t in 0..gate.rows().len() {
                self.kernels.activate(Activation::Silu, gate.row(t), up.row(t));
            }
        });
    }
}
