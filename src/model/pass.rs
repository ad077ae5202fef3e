//! The steps of a forward pass that are no attention: each one parallel region over the rows or tiles of a buffer.

use core::ops::Range;

use super::batch::Batch;
use super::buffers::{Buffers, Inputs, MAX_SERIAL_ROWS};
use super::{Hparams, Layer, Linear, Model, Norm, NormKind, NormPlaces, Share, Split, norm};
use crate::arch::{Activations, F16Block, Kernels, Quants, Write};
#[cfg(feature = "boards")]
use crate::boards::Comm;
use crate::boards::CommError;
use crate::quant::{BLOCK, DType, Matrix, PANEL_ROWS};
use crate::storage::{Executor, Grid, Serial, Tile, TileShape, for_each_row, for_each_tile};
use crate::util::SliceExt;
use crate::util::soft_cap::soft_cap;

/// Fewest tokens of a thread for which it reads all weights by itself.
const MIN_TOKENS_PER_THREAD: usize = 128;
/// Tiles of columns per thread, so that a slow core does not hold up the others.
const TILES_PER_THREAD: usize = 8;
/// Most columns of a tile, unless the kernels take more at once.
const MAX_TILE_COLS: usize = 256;

/// Is called before each matrix product, on the thread that runs the pass, with the matrix and its input: `(tokens, cols)`.
///
/// The address of [`Matrix::bytes`] says which tensor of the file it is, or a part of which fused one.
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
    /// What of the model this board computes.
    pub(crate) share: Share,
    /// Sizes of that: those of the model where there is one board.
    pub(crate) own: &'p Hparams,
    /// The other boards.
    #[cfg(feature = "boards")]
    pub(crate) comm: &'p dyn Comm,
    /// How many of the best logits are enough; none where all are needed.
    #[cfg(feature = "boards")]
    pub(crate) best: Option<usize>,
    /// Sees the inputs of matrices; not in firmware, which has no room for it.
    #[cfg(feature = "std")]
    pub(crate) observer: Option<InputObserver<'p>>,
}

/// What a product is added to, and the buffers on the way there.
pub(super) struct Residual<'r> {
    /// (tokens, n_embd): the product, where it is not added at once
    pub(super) floats: &'r mut [f32],
    /// (tokens, n_embd): what boards exchange; empty for one board
    pub(super) exchange: &'r mut [f32],
    /// (tokens, n_embd): the residual stream
    pub(super) x: &'r mut [f32],
}

impl Pass<'_> {
    /// This board's rows of a layer's matrices, where it does not have all of them.
    #[inline(always)]
    pub(super) fn own_layer(&self, index: usize) -> Option<Layer<'_>> {
        let layer = self.model.weights.layers.get(index).filter(|_| self.share.is(Split::Rows))?;
        self.share.layer(&self.model.hparams, index, layer)
    }

    /// This board's rows of the matrix behind the layers, where it does not have all of them.
    #[inline(always)]
    pub(super) fn own_output(&self) -> Option<Linear<'_>> {
        if self.share.is(Split::Rows) {
            self.share.output(&self.model.hparams, &self.model.weights.output)
        } else {
            None
        }
    }

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

    /// Copies the rows of the embedding of this board's tokens to the residual stream.
    pub(super) fn embed(&self, buffers: &mut Buffers<'_>, batch: &Batch<'_, '_>, tokens: &[u32]) {
        let (cols, table) = (self.model.hparams.n_embd, &self.model.weights.token_embd);
        let scale = self.model.hparams.scales.embedding;
        let tokens = (0..batch.rows()).filter_map(|row| tokens.get(batch.stripe().token(row)));
        for (token, x) in tokens.zip(buffers.x.rows_mut(cols)) {
            table.decode_row(*token as usize, x);
            norm::multiply(x, scale);
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

    /// The norm of each row of `x`, `(tokens, n_embd)`, prepared as the input of `matrices`; `x` itself if there is no norm.
    pub(super) fn norm<'x>(
        &self,
        x: &'x [f32],
        tokens: usize,
        norm: &Norm<'_>,
        floats: &'x mut [f32],
        inputs: &'x mut Inputs<'_>,
        matrices: &[&Matrix<'_>],
    ) -> Activations<'x> {
        let h = &self.model.hparams;
        let (cols, eps) = (h.n_embd, h.eps);
        if norm.weight.is_empty() {
            return self.prepare_input(x, tokens, inputs, matrices);
        }
        let floats = floats.first_n_mut(x.len());
        let norm = |i: usize, out: &mut [f32]| match h.family.norm {
            NormKind::Rms => self.kernels.rms_norm(x.row(i, cols), norm.weight, eps, out),
            NormKind::Layer => {
                norm::copy(x.row(i, cols), out);
                norm::normalise(out, h.family.norm, eps, norm.weight, norm.bias);
            }
        };
        if !matrices.iter().any(|m| m.dtype().is_quantised()) {
            for_each_row(self.executor_for(tokens), floats, cols, norm);
            return self.prepare_input(floats, tokens, inputs, matrices);
        }
        // Norm and quantisation of a row are one item: a barrier less.
        let outputs = ([Grid::rows(floats, cols)], inputs.quants.columns(0..cols / BLOCK, tokens));
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
    #[inline(never)]
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

    /// `x += scale · norm(m · input + bias)`, with what of these the model has.
    ///
    /// What follows the product is little beside it, so the calling thread does it.
    ///
    /// # Errors
    /// [`CommError`].
    pub(super) fn add_to_residual(
        &self,
        m: &Linear<'_>,
        post_norm: &[u8],
        input: &Activations<'_>,
        Residual { floats, exchange, x }: Residual<'_>,
    ) -> Result<(), CommError> {
        let h = &self.model.hparams;
        let (tokens, cols, scale) = (input.tokens, m.weight.rows(), h.scales.residual);
        self.observe(&[&m.weight], input);
        let plain = m.weight.scale() == 1.0 && m.bias.is_empty() && post_norm.is_empty() && scale == 1.0;
        let plain = plain && !self.share.is(Split::Rows);
        let out = if plain { &mut *x } else { &mut *floats };
        let grid = Grid::new(out.first_n_mut(tokens * cols), cols, self.tile(tokens, cols));
        for_each_tile(self.exec, [grid], |_, [mut tile]| {
            let columns = tile.columns();
            match plain {
                true => self.kernels.matmul(&m.weight, columns, input, &mut tile, Write::Add),
                false => self.multiply(&m.weight, columns, input, &mut tile),
            }
        });
        if plain {
            return Ok(());
        }
        let cols = h.n_embd;
        self.gather(floats, tokens, cols, &|share| share.rows(cols), exchange)?;
        let rows = floats.first_n_mut(tokens * cols).rows_mut(cols).zip(x.first_n_mut(tokens * cols).rows_mut(cols));
        for (y, x) in rows {
            norm::add(y, m.bias, 0);
            self.norm_in_place(y, post_norm);
            norm::add_scaled(x, y, scale);
        }
        Ok(())
    }

    /// `gate = f(W_gate · x) * (W_up · x)`, or `gate = f(W_up · x)` if there is no W_gate; each with its bias.
    pub(super) fn gate_up(&self, layer: &Layer<'_>, x: &Activations<'_>, gate: &mut [f32], up: &mut [f32]) {
        let (cols, activation) = (layer.up.weight.rows(), self.model.hparams.family.activation);
        let gated = layer.gate.weight.rows() > 0;
        let both = [&layer.up.weight, &layer.gate.weight];
        self.observe(both.first_n(1 + usize::from(gated)), x);
        let first = if gated { &layer.gate } else { &layer.up };
        let outputs =
            [gate, up].map(|out| Grid::new(out.first_n_mut(x.tokens * cols), cols, self.tile(x.tokens, cols)));
        for_each_tile(self.exec, outputs, |_, [mut gate, mut up]| {
            let columns = gate.columns();
            self.multiply(&first.weight, columns.clone(), x, &mut gate);
            if gated {
                self.multiply(&layer.up.weight, columns.clone(), x, &mut up);
            }
            for t in 0..gate.rows().len() {
                norm::add(gate.row(t), first.bias, columns.start);
                if gated {
                    norm::add(up.row(t), layer.up.bias, columns.start);
                }
                self.kernels.activate(activation, gate.row(t), if gated { up.row(t) } else { &[] });
            }
        });
    }

    /// Whether attention and the FFN of a layer have the same input, since no norm is between them.
    #[inline(never)]
    pub(super) fn is_parallel(&self, layer: &Layer<'_>) -> bool {
        self.model.hparams.family.norms == NormPlaces::BeforeOrParallel && layer.ffn_norm.weight.is_empty()
    }

    /// The norm of one row in its place, if there is one.
    #[inline(never)]
    pub(super) fn norm_in_place(&self, x: &mut [f32], weight: &[u8]) {
        let h = &self.model.hparams;
        if !weight.is_empty() {
            norm::normalise(x, h.family.norm, h.eps, weight, &[]);
        }
    }

    /// Bias of the output matrix, the model's own scale, and its bound, as far as the model does any of it: to `logits`, `(rows,
    /// width)`, those of the tokens from `first` on.
    #[inline(never)]
    pub(super) fn finish_logits(&self, logits: &mut [f32], width: usize, first: usize) {
        let h = &self.model.hparams;
        for logits in logits.rows_mut(width) {
            norm::add(logits, self.model.weights.output.bias, first);
            norm::multiply(logits, h.scales.logits);
            if h.caps.logits > 0.0 {
                soft_cap(logits, h.caps.logits);
            }
        }
    }
}
