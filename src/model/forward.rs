//! The forward pass of a llama-family transformer (Touvron et al. 2023, arXiv 2302.13971), for one token or many.
//!
//! It reads like the textbook because everything else is elsewhere: what may be written by whom is `storage`'s,
//! how a row is multiplied is `arch`'s. Each step is one parallel region; the regions' ends are the barriers.

use core::ops::Range;

use super::buffers::{Buffers, Inputs, MAX_SERIAL_ROWS, MIN_TOKENS_PER_THREAD, TILES_PER_PART};
use super::cache::{KvBuffer, KvCache, KvShape, KvSpans};
use super::{Hparams, Layer, Model, RopeKind};
use crate::arch::{Activations, F16Block, Kernels, KvType, Quants, Queries, QueryBlock, SoftmaxState, Write};
use crate::quant::{BLOCK, DType, Matrix, PANEL_ROWS};
use crate::storage::{Executor, Grid, Serial, TileShape, for_each_row, for_each_tile};
use crate::util::{SliceExt, phase, rest, times};

/// What a pass runs on.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'r> {
    /// The model.
    pub(crate) model: &'r Model<'r>,
    /// The CPU's kernels.
    pub(crate) kernels: &'r Kernels,
    /// The threads.
    pub(crate) exec: &'r dyn Executor,
}

/// Runs `tokens`, the same number for each of `caches` in turn: a piece of one conversation, or one token of each of
/// several. Writes their keys and values to the caches, and leaves the logits of the last `outputs` of them in
/// `work.logits`.
///
/// The caller has checked that the tokens exist and that they fit the chunk, the caches and the logits.
pub(crate) fn forward<'c, C: AsRef<KvCache<'c>> + AsMut<KvCache<'c>> + Sync>(
    pass: Pass<'_>,
    buffers: &mut Buffers<'_>,
    caches: &mut [C],
    tokens: &[u32],
    outputs: usize,
) {
    let h = &pass.model.hparams;
    let w = &pass.model.weights;
    let n = tokens.len();
    if n == 0 || caches.is_empty() {
        return;
    }

    pass.embed(buffers, tokens);
    pass.rope_table(buffers, caches, n);
    for (index, layer) in w.layers.iter().enumerate() {
        // x += Wo · attention(norm(x))
        let x = buffers.x.first_n(n * h.n_embd);
        let x = pass.norm(x, layer.attn_norm, buffers.normed, &mut buffers.inputs, &[&layer.q, &layer.k, &layer.v]);
        pass.matmul(&[&layer.q, &layer.k, &layer.v], &x, buffers.qkv);
        pass.bias_and_rotate(index, buffers, caches, n);
        pass.write_new_kv(buffers, caches, n);
        pass.attend(buffers, caches, index, n);
        pass.commit(buffers, caches, index, n);
        let x =
            pass.prepare_input(buffers.attended.first_n(n * h.q_dim()), &mut buffers.inputs, n, &[&layer.attn_output]);
        pass.matmul_add(&layer.attn_output, &x, buffers.x);

        // x += W_down · (silu(W_gate · norm(x)) * (W_up · norm(x)))
        let x = buffers.x.first_n(n * h.n_embd);
        let x = pass.norm(x, layer.ffn_norm, buffers.normed, &mut buffers.inputs, &[&layer.gate, &layer.up]);
        pass.gate_up(layer, &x, buffers.gate, buffers.up);
        let x = pass.prepare_input(buffers.gate.first_n(n * h.n_ff), &mut buffers.inputs, n, &[&layer.down]);
        pass.matmul_add(&layer.down, &x, buffers.x);
    }
    let each = times(n, caches.len());
    caches.iter_mut().for_each(|c| c.as_mut().advance(each));

    if outputs == 0 {
        return;
    }
    // logits = W_out · norm(x), for the tokens that are asked for
    let last = buffers.x.part((n - outputs) * h.n_embd..n * h.n_embd);
    let x = pass.norm(last, w.output_norm, buffers.normed, &mut buffers.inputs, &[&w.output]);
    pass.matmul(&[&w.output], &x, buffers.logits);
}

/// The cache of row `row` of `n`, and its position there.
fn locate<'b, 'c: 'b, C: AsRef<KvCache<'c>>>(caches: &'b [C], n: usize, row: usize) -> Option<(&'b KvCache<'c>, u64)> {
    let each = times(n, caches.len());
    let cache = caches.get(times(row, each))?.as_ref();
    Some((cache, cache.position() + rest(row, each) as u64))
}

/// Where in the buffers for new keys and values those of the `i`-th cache with `each` rows are, and as what segment.
fn new_kv(h: &Hparams, element: KvType, i: usize, each: usize) -> (KvShape, [Range<usize>; 2]) {
    let shape = KvShape { layers: 1, kv_heads: h.n_kv_heads, slots: each, head_dim: h.head_dim, element };
    let (row, scale) = (each * 2 * h.kv_dim() * size_of::<f32>(), each * 2 * h.n_kv_heads * 2);
    (shape, [i * row..(i + 1) * row, i * scale..(i + 1) * scale])
}

/// Changes the basis to one in which what is large in few dimensions is spread over all: the Walsh-Hadamard transform
/// of each block of a power of two, which leaves products of two vectors as they are (Ashkboos et al. 2024, QuaRot,
/// arXiv 2404.00456).
fn hadamard(head: &mut [f32]) {
    let size = 1 << head.len().trailing_zeros();
    for block in head.rows_mut(size) {
        let mut half = 1;
        while half < size {
            for pair in block.rows_mut(2 * half) {
                let (a, b) = pair.split_at_mut_checked(half).unwrap_or_default();
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        let scale = 1.0 / libm::sqrtf(size as f32);
        block.iter_mut().for_each(|x| *x *= scale);
    }
}

/// Turns the first dimensions of a head by the angles of its position. Written for a compiler to vectorise.
fn apply_rope(head: &mut [f32], angles: &[f32], pairs: RopeKind) {
    let turn = |x: &mut f32, y: &mut f32, [cos, sin]: [f32; 2]| (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
    let head = head.first_n_mut(angles.len());
    let angles = angles.as_chunks().0;
    match pairs {
        RopeKind::Interleaved => {
            for ([x, y], angle) in head.as_chunks_mut().0.iter_mut().zip(angles) {
                turn(x, y, *angle);
            }
        }
        RopeKind::NeoX => {
            let (x, y) = head.split_at_mut_checked(angles.len()).unwrap_or_default();
            for ((x, y), angle) in x.iter_mut().zip(y).zip(angles) {
                turn(x, y, *angle);
            }
        }
    }
}

impl Pass<'_> {
    /// Rows of the embedding to the residual stream.
    fn embed(&self, buffers: &mut Buffers<'_>, tokens: &[u32]) {
        let (n, table) = (self.model.hparams.n_embd, &self.model.weights.token_embd);
        for (token, x) in tokens.iter().zip(buffers.x.rows_mut(n)) {
            table.decode_row(*token as usize, x);
        }
    }

    /// Cosine and sine of position · frequency, once for all layers and heads: at a token's position, and at that which
    /// is as far from the pinned positions as these seem to be, for each set of frequencies.
    fn rope_table<'c, C: AsRef<KvCache<'c>>>(&self, buffers: &mut Buffers<'_>, caches: &[C], n: usize) {
        let h = &self.model.hparams;
        let rows = buffers.rope.rows_mut(h.rope_bases() * 2 * h.rope_dims).take(n);
        for (r, row) in rows.enumerate() {
            let Some((cache, position)) = locate(caches, n, r) else { return };
            let positions = [position, position - cache.sink_offset(position)];
            let sets = self.model.weights.rope_frequencies.rows(h.rope_dims / 2);
            for (row, frequencies) in row.rows_mut(2 * h.rope_dims).zip(sets) {
                for (row, position) in row.rows_mut(h.rope_dims).zip(positions) {
                    for (pair, frequency) in row.as_chunks_mut::<2>().0.iter_mut().zip(frequencies) {
                        let (sin, cos) = phase::sin_cos(frequency.wrapping_mul(position));
                        *pair = [cos, sin];
                    }
                }
            }
        }
    }

    /// Rows and columns of a product of `n` tokens that one item of work covers: several items for each thread, so that a
    /// slow core does not hold up the others.
    ///
    /// A thread's tokens are mostly its own from step to step, where they are so many that reading all weights for them
    /// alone costs less than what other threads wrote of the tokens. Columns come in as many as the kernels take at once.
    fn tile(&self, n: usize, cols: usize) -> TileShape {
        let workers = self.exec.workers().clamp(1, 1024);
        let height =
            Some(times(n + workers - 1, workers)).filter(|height| *height >= MIN_TOKENS_PER_THREAD).unwrap_or(n);
        let (width, unit) = (times(cols, workers * 8).next_multiple_of(PANEL_ROWS), self.kernels.rows_at_once(n));
        TileShape { rows: height, cols: (times(width, unit) * unit).min(256).max(unit) }
    }

    /// What shares `n` rows of work that is linear in a row's width: the caller alone where there are few, because that
    /// is sooner done than a barrier.
    fn executor_for(&self, n: usize) -> &dyn Executor {
        if n <= MAX_SERIAL_ROWS { &Serial } else { self.exec }
    }

    /// The norm of each row as the input of `matrices`, as in [`prepare_input`](Pass::prepare_input).
    fn norm<'x>(
        &self,
        x: &[f32],
        weight: &[u8],
        floats: &'x mut [f32],
        inputs: &'x mut Inputs<'_>,
        matrices: &[&Matrix<'_>],
    ) -> Activations<'x> {
        let (cols, eps) = (self.model.hparams.n_embd, self.model.hparams.rms_eps);
        let tokens = times(x.len(), cols);
        let floats = floats.first_n_mut(x.len());
        let norm = |i: usize, out: &mut [f32]| self.kernels.rms_norm(x.row(i, cols), weight, eps, out);
        if !matrices.iter().any(|m| m.dtype().is_quantised()) {
            for_each_row(self.executor_for(tokens), floats, cols, norm);
            return self.prepare_input(floats, inputs, tokens, matrices);
        }
        let outputs = ([Grid::rows(floats, cols)], inputs.quants.columns(cols / BLOCK, tokens));
        for_each_tile(self.executor_for(tokens), outputs, |i, ([mut floats], mut quants)| {
            norm(i, floats.row(0));
            self.kernels.quantise(floats.row(0), &mut quants);
        });
        let quants = inputs.quants.view(cols / BLOCK, tokens);
        Activations { tokens, floats, quants, f16: self.halves(floats, tokens, inputs.halves, matrices) }
    }

    /// The input of `matrices`: as it is, and as int8 and binary16 if one of them needs it so.
    fn prepare_input<'x>(
        &self,
        x: &'x [f32],
        inputs: &'x mut Inputs<'_>,
        n: usize,
        matrices: &[&Matrix<'_>],
    ) -> Activations<'x> {
        let quantised = matrices.iter().any(|m| m.dtype().is_quantised());
        let quants = match quantised {
            true => self.kernels.quantise_tokens(self.executor_for(n), x, n, &mut inputs.quants),
            false => Quants::default(),
        };
        Activations { tokens: n, floats: x, quants, f16: self.halves(x, n, inputs.halves, matrices) }
    }

    /// The input of `matrices` as binary16; empty where none needs it, and for many tokens.
    fn halves<'x>(&self, x: &[f32], n: usize, out: &'x mut [F16Block], matrices: &[&Matrix<'_>]) -> &'x [F16Block] {
        if !self.kernels.uses_f16_products(n) || matrices.iter().all(|m| m.dtype() != DType::F16) {
            return &[];
        }
        let cols = times(x.len(), n);
        let blocks = cols.div_ceil(BLOCK);
        let out = out.first_n_mut(n * blocks);
        for (x, out) in x.rows(cols).zip(out.rows_mut(blocks)) {
            self.kernels.to_f16(x, out);
        }
        out
    }

    /// `out = [m₀; m₁; …] · x`: the matrices' results side by side in each row.
    fn matmul(&self, matrices: &[&Matrix<'_>], x: &Activations<'_>, out: &mut [f32]) {
        let cols = matrices.iter().map(|m| m.rows()).sum();
        let grid = Grid::new(out.first_n_mut(x.tokens * cols), cols, self.tile(x.tokens, cols));
        for_each_tile(self.exec, [grid], |_, [mut tile]| {
            let covered = tile.columns();
            let mut first = 0;
            for m in matrices {
                let (start, end) = (covered.start.max(first), covered.end.min(first + m.rows()));
                if start < end {
                    let mut part = tile.sub(start - covered.start..end - covered.start);
                    self.kernels.matmul(m, start - first..end - first, x, &mut part, Write::Set);
                }
                first += m.rows();
            }
        });
    }

    /// `out += m · x`.
    fn matmul_add(&self, m: &Matrix<'_>, x: &Activations<'_>, out: &mut [f32]) {
        let grid = Grid::new(out.first_n_mut(x.tokens * m.rows()), m.rows(), self.tile(x.tokens, m.rows()));
        for_each_tile(self.exec, [grid], |_, [mut tile]| {
            self.kernels.matmul(m, tile.columns(), x, &mut tile, Write::Add);
        });
    }

    /// `gate = silu(W_gate · x) * (W_up · x)`.
    fn gate_up(&self, layer: &Layer<'_>, x: &Activations<'_>, gate: &mut [f32], up: &mut [f32]) {
        let cols = layer.gate.rows();
        let outputs =
            [gate, up].map(|out| Grid::new(out.first_n_mut(x.tokens * cols), cols, self.tile(x.tokens, cols)));
        for_each_tile(self.exec, outputs, |_, [mut gate, mut up]| {
            self.kernels.matmul(&layer.gate, gate.columns(), x, &mut gate, Write::Set);
            self.kernels.matmul(&layer.up, up.columns(), x, &mut up, Write::Set);
            for t in 0..gate.rows().len() {
                self.kernels.silu_mul(gate.row(t), up.row(t));
            }
        });
    }

    /// Adds the biases that there are, rotates the heads of q and k, makes the queries for pinned positions, and int8 ones
    /// for caches that are so.
    fn bias_and_rotate<'c, C: AsRef<KvCache<'c>> + Sync>(
        &self,
        layer: usize,
        buffers: &mut Buffers<'_>,
        caches: &[C],
        n: usize,
    ) {
        let h = &self.model.hparams;
        let (width, blocks) = (h.q_dim() + 2 * h.kv_dim(), 2 * h.n_heads * h.head_dim.div_ceil(BLOCK));
        let Some(bias) = self.model.weights.layers.get(layer).map(|l| l.qkv_bias) else { return };
        let rope = &*buffers.rope;
        let set = h.rope_set(layer);
        let queries = [
            Grid::rows(buffers.qkv.first_n_mut(n * width), width),
            Grid::rows(buffers.sink_q.first_n_mut(n * h.q_dim()), h.q_dim()),
        ];
        let outputs = (queries, [Grid::rows(buffers.query_blocks.first_n_mut(n * blocks), blocks)]);
        for_each_tile(self.executor_for(n), outputs, |t, ([mut qkv, mut sink_q], [mut blocks])| {
            let (row, sink_q, blocks) = (qkv.row(0), sink_q.row(0), blocks.row(0));
            for (bias, first) in bias.iter().zip([0, h.q_dim(), h.q_dim() + h.kv_dim()]) {
                for (x, b) in row.iter_mut().skip(first).zip(bias.as_chunks::<4>().0) {
                    *x += f32::from_le_bytes(*b);
                }
            }
            let Some((cache, _)) = locate(caches, n, t) else { return };
            let angles = rope.row(t * h.rope_bases() + set, 2 * h.rope_dims);
            let turn = |heads: &mut [f32], set: usize| {
                let angles = angles.row(set, h.rope_dims);
                for head in heads.rows_mut(h.head_dim) {
                    apply_rope(head, angles, h.family.rope);
                    if cache.hadamard() {
                        hadamard(head);
                    }
                }
            };
            sink_q.iter_mut().zip(&*row).for_each(|(to, from)| *to = *from);
            turn(row.first_n_mut(h.q_dim() + h.kv_dim()), 0);
            turn(sink_q, 1);
            if cache.element() == KvType::Int8 {
                let (own, sinks) = blocks.split_at_mut_checked(blocks.len() / 2).unwrap_or_default();
                self.kernels.quantise_query(row.first_n(h.q_dim()), h.head_dim, own);
                self.kernels.quantise_query(sink_q, h.head_dim, sinks);
            }
        });
    }

    /// Converts new keys and values to what the caches store: so little work that sharing it would cost more.
    fn write_new_kv<'c, C: AsRef<KvCache<'c>>>(&self, buffers: &mut Buffers<'_>, caches: &[C], n: usize) {
        let h = &self.model.hparams;
        let each = times(n, caches.len());
        let mut rows = buffers.qkv.rows(h.q_dim() + 2 * h.kv_dim());
        for (s, cache) in caches.iter().enumerate() {
            let element = cache.as_ref().element();
            let (shape, [k_v, scales]) = new_kv(h, element, s, each);
            let memory = (buffers.fresh.part_mut(k_v), buffers.fresh_scales.part_mut(scales));
            let Some(mut fresh) = KvBuffer::over(shape, memory.0, memory.1) else { return };
            for (i, row) in rows.by_ref().take(each).enumerate() {
                for (kv, x) in row.get(h.q_dim()..).unwrap_or(&[]).rows(h.kv_dim()).enumerate() {
                    for (head, x) in x.rows(h.head_dim).enumerate() {
                        let [row, scale] = fresh.slot(kv, 0, head, i);
                        self.kernels.encode_kv(element, x, row, scale);
                    }
                }
            }
        }
    }

    /// Keeps the new keys and values in the caches: when all have been looked at that they take the place of.
    fn commit<'c, C: AsMut<KvCache<'c>>>(&self, buffers: &mut Buffers<'_>, caches: &mut [C], layer: usize, n: usize) {
        let h = &self.model.hparams;
        let each = times(n, caches.len());
        for (s, cache) in caches.iter_mut().enumerate() {
            let cache = cache.as_mut();
            let (shape, [k_v, scales]) = new_kv(h, cache.element(), s, each);
            let position = cache.position();
            let (group, index) = cache.group_mut(h, layer);
            if let Some(fresh) = KvBuffer::over(shape, buffers.fresh.part(k_v), buffers.fresh_scales.part(scales)) {
                group.commit(index, position, each, &fresh);
            }
        }
    }

    /// Attention of each token to what it looks at, a group of query heads at a time.
    ///
    /// Tiles are added up in parts of [`SPLIT`], and these in order. Where a few rows' heads are too
    /// few to share out evenly, each part is an item of work; else each row and head is, with all its parts. Those are the
    /// same sums in the same order.
    fn attend<'c, C: AsRef<KvCache<'c>> + Sync>(
        &self,
        buffers: &mut Buffers<'_>,
        caches: &[C],
        layer: usize,
        n: usize,
    ) {
        let h = &self.model.hparams;
        let (heads, group) = (h.n_kv_heads, h.group());
        let (wide, width) = (group * h.head_dim, group * (h.head_dim + 2));
        let Buffers { qkv, sink_q, query_blocks, fresh, fresh_scales, partials, stats, attended, .. } = buffers;
        let attention = AttentionPass { pass: self, caches, layer, n, qkv, sink_q, query_blocks, fresh, fresh_scales };
        let parts = (0..n).map(|r| attention.parts(r)).max().unwrap_or(0);
        // Parts of all rows, in units of the longest row's.
        let rows = times((0..n).map(|r| attention.parts(r)).sum(), parts);
        let (attended, stats) = (attended.first_n_mut(n * heads * wide), stats.first_n_mut(n * heads * 2 * group));
        let whole = n > MAX_SERIAL_ROWS || times(rows * heads, 8) >= self.exec.workers();
        match partials.get_mut(..n * heads * parts * width).filter(|_| !whole) {
            Some(partials) => {
                for_each_row(self.exec, partials, width, |i, memory| {
                    attention.attend_part(times(i, parts), rest(i, parts), &mut SoftmaxState::new(memory, group));
                });
                let outs = attended.rows_mut(wide).zip(stats.rows_mut(2 * group)).enumerate();
                for ((item, (out, stats)), parts) in outs.zip(partials.rows_mut(parts * width)) {
                    let mut sum = SoftmaxState::over(out, stats);
                    for part in parts.rows_mut(width).take(attention.parts(times(item, heads))) {
                        sum.merge(&SoftmaxState::view(part, group));
                    }
                    sum.finish();
                }
            }
            None => {
                let items = n * heads;
                let outputs = [(attended, wide), (partials.first_n_mut(items * width), width), (stats, 2 * group)]
                    .map(|(data, width)| Grid::rows(data, width));
                for_each_tile(self.exec, outputs, |item, [mut out, mut part, mut stats]| {
                    let mut sum = SoftmaxState::over(out.row(0), stats.row(0));
                    for i in 0..attention.parts(times(item, heads)) {
                        let mut part = SoftmaxState::new(part.row(0), group);
                        attention.attend_part(item, i, &mut part);
                        sum.merge(&part);
                    }
                    sum.finish();
                });
            }
        }
    }
}

/// What attention of a layer works on.
struct AttentionPass<'l, C> {
    pass: &'l Pass<'l>,
    caches: &'l [C],
    layer: usize,
    n: usize,
    qkv: &'l [f32],
    sink_q: &'l [f32],
    query_blocks: &'l [QueryBlock],
    fresh: &'l [u8],
    fresh_scales: &'l [u8],
}

impl<'c, C: AsRef<KvCache<'c>>> AttentionPass<'_, C> {
    /// Parts into which the attention of a row is split.
    fn parts(&self, row: usize) -> usize {
        let tiles = |(cache, position): (&KvCache<'c>, u64)| {
            cache.group(&self.pass.model.hparams, self.layer).0.ring.tiles(position)
        };
        locate(self.caches, self.n, row).map_or(0, tiles).div_ceil(TILES_PER_PART)
    }

    /// The queries of a group of heads.
    fn queries(&self, row: usize, head: usize) -> Queries<'_> {
        let h = &self.pass.model.hparams;
        let (wide, width) = (h.group() * h.head_dim, h.q_dim() + 2 * h.kv_dim());
        let per_group = h.group() * h.head_dim.div_ceil(BLOCK);
        let per_set = h.n_kv_heads * per_group;
        let blocks = |set: usize| {
            let first = (2 * row + set) * per_set + head * per_group;
            self.query_blocks.part(first..first + per_group)
        };
        Queries {
            floats: [self.qkv.row(row, width).row(head, wide), self.sink_q.row(row, h.q_dim()).row(head, wide)],
            blocks: [blocks(0), blocks(1)],
            head_dim: h.head_dim,
            scale: 1.0 / libm::sqrtf(h.head_dim as f32),
        }
    }

    /// Adds part `split` of the attention of item `item`: of row `item / heads` and a KV head.
    fn attend_part(&self, item: usize, part: usize, out: &mut SoftmaxState<'_>) {
        let h = &self.pass.model.hparams;
        let (row, head) = (times(item, h.n_kv_heads), rest(item, h.n_kv_heads));
        let each = times(self.n, self.caches.len());
        let Some((cache, position)) = locate(self.caches, self.n, row) else { return };
        let (group, index) = cache.group(h, self.layer);
        let (shape, [k_v, scales]) = new_kv(h, cache.element(), times(row, each), each);
        let Some(fresh) = KvBuffer::over(shape, self.fresh.part(k_v), self.fresh_scales.part(scales)) else { return };
        let queries = self.queries(row, head);
        for tile in (part * TILES_PER_PART..group.ring.tiles(position)).take(TILES_PER_PART) {
            let mut runs = KvSpans::new();
            group.runs((index, head), position, tile, (&fresh, cache.position()), &mut runs);
            self.pass.kernels.attend(cache.element(), &queries, runs.as_slice(), out);
        }
    }
}
