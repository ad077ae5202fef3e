//! The forward pass of a llama-family transformer (Touvron et al. 2023, arXiv 2302.13971), for one token or many.
//!
//! It reads like the textbook because everything else is elsewhere: what may be written by whom is `storage`'s,
//! how a row is multiplied is `arch`'s. Each step is one parallel region; the regions' ends are the barriers.

use super::state::Inputs;
use super::{KvCache, Layer, Model, RopePairs, Work};
use crate::arch::{Activations, HalfBlock, Kernels, Quants, Write};
use crate::math;
use crate::quant::{BLOCK, DType, Matrix, PANEL_ROWS};
use crate::storage::{Columns, Executor, Serial, for_each_row, for_each_tile};

/// Rows of light work that the caller does alone.
const FEW: usize = 8;

/// What a pass runs on.
#[derive(Clone, Copy)]
pub(crate) struct Forward<'r> {
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
    run: Forward<'_>,
    work: &mut Work<'_>,
    caches: &mut [C],
    tokens: &[u32],
    outputs: usize,
) {
    let h = &run.model.hparams;
    let w = &run.model.weights;
    let n = tokens.len();
    if n == 0 || caches.is_empty() {
        return;
    }

    run.embed(work, tokens);
    run.rotations(work, caches, n);
    for (index, layer) in w.layers.iter().enumerate() {
        // x += Wo · attention(norm(x))
        let x = &work.x[..n * h.n_embd];
        let x = run.norm(x, layer.attn_norm, work.normed, &mut work.inputs, &[&layer.q, &layer.k, &layer.v]);
        run.project(&[&layer.q, &layer.k, &layer.v], &x, work.qkv);
        run.bias_and_rotate(layer, work, n);
        run.remember(work, caches, index, n);
        run.attend(work, caches, index, n);
        let x = run.input(&work.attended[..n * h.q_dim()], &mut work.inputs, n, &[&layer.attn_output]);
        run.add(&layer.attn_output, &x, work.x);

        // x += W_down · (silu(W_gate · norm(x)) * (W_up · norm(x)))
        let x = &work.x[..n * h.n_embd];
        let x = run.norm(x, layer.ffn_norm, work.normed, &mut work.inputs, &[&layer.gate, &layer.up]);
        run.gated(layer, &x, work.gate, work.up);
        let x = run.input(&work.gate[..n * h.n_ff], &mut work.inputs, n, &[&layer.down]);
        run.add(&layer.down, &x, work.x);
    }
    let each = n / caches.len();
    caches.iter_mut().for_each(|c| c.as_mut().advance(each));

    if outputs == 0 {
        return;
    }
    // logits = W_out · norm(x), for the tokens that are asked for
    let last = &work.x[(n - outputs) * h.n_embd..n * h.n_embd];
    let x = run.norm(last, w.output_norm, work.normed, &mut work.inputs, &[&w.output]);
    run.project(&[&w.output], &x, work.logits);
}

/// The cache of row `row` of `n`, and its position there.
fn place<'b, 'c: 'b, C: AsRef<KvCache<'c>>>(caches: &'b [C], n: usize, row: usize) -> (&'b KvCache<'c>, usize) {
    let each = n / caches.len();
    let cache = caches[row / each].as_ref();
    (cache, cache.position() + row % each)
}

/// Turns the first dimensions of a head by the angles of its position. Written for a compiler to vectorise.
fn rotate(head: &mut [f32], angles: &[f32], pairs: RopePairs) {
    let turn = |x: &mut f32, y: &mut f32, [cos, sin]: [f32; 2]| (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
    let head = &mut head[..angles.len()];
    let angles = angles.as_chunks().0;
    match pairs {
        RopePairs::Adjacent => {
            for ([x, y], angle) in head.as_chunks_mut().0.iter_mut().zip(angles) {
                turn(x, y, *angle);
            }
        }
        RopePairs::Halves => {
            let (x, y) = head.split_at_mut(angles.len());
            for ((x, y), angle) in x.iter_mut().zip(y).zip(angles) {
                turn(x, y, *angle);
            }
        }
    }
}

impl Forward<'_> {
    /// Rows of the embedding to the residual stream.
    fn embed(&self, work: &mut Work<'_>, tokens: &[u32]) {
        let (n, table) = (self.model.hparams.n_embd, &self.model.weights.token_embd);
        for (token, x) in tokens.iter().zip(work.x.chunks_exact_mut(n)) {
            table.decode_row(*token as usize, x);
        }
    }

    /// Cosine and sine of position · frequency, once for all layers and heads.
    fn rotations<'c, C: AsRef<KvCache<'c>>>(&self, work: &mut Work<'_>, caches: &[C], n: usize) {
        let rows = work.rope.chunks_exact_mut(self.model.hparams.rope_dims).take(n);
        for (r, row) in rows.enumerate() {
            let position = place(caches, n, r).1 as u64;
            for (pair, frequency) in row.as_chunks_mut::<2>().0.iter_mut().zip(self.model.weights.rope_frequencies) {
                let (sin, cos) = math::sin_cos(frequency.wrapping_mul(position));
                *pair = [cos, sin];
            }
        }
    }

    /// Columns of a result that one item of work covers: several items for each thread, so that a slow core does not
    /// hold up the others, and whole tiles of rows.
    fn width(&self, cols: usize) -> usize {
        (cols / (self.exec.workers().clamp(1, 1024) * 8)).next_multiple_of(PANEL_ROWS).clamp(PANEL_ROWS, 256)
    }

    /// What shares `n` rows of work that is linear in a row's width: the caller alone where there are few, because that
    /// is sooner done than a barrier.
    fn light(&self, n: usize) -> &dyn Executor {
        if n <= FEW { &Serial } else { self.exec }
    }

    /// The norm of each row as the input of `matrices`, as in [`input`](Forward::input).
    fn norm<'x>(
        &self,
        x: &[f32],
        weight: &[u8],
        floats: &'x mut [f32],
        inputs: &'x mut Inputs<'_>,
        matrices: &[&Matrix<'_>],
    ) -> Activations<'x> {
        let (cols, eps) = (self.model.hparams.n_embd, self.model.hparams.rms_eps);
        let tokens = x.len() / cols;
        let floats = &mut floats[..x.len()];
        let norm = |i: usize, out: &mut [f32]| self.kernels.rms_norm(&x[i * cols..][..cols], weight, eps, out);
        if !matrices.iter().any(|m| m.dtype().is_quantised()) {
            for_each_row(self.light(tokens), floats, cols, norm);
            return self.input(floats, inputs, tokens, matrices);
        }
        let outputs = ([Columns::new(floats, tokens * cols, cols)], inputs.quants.columns(cols / BLOCK, tokens));
        for_each_tile(self.light(tokens), outputs, |([mut floats], mut quants)| {
            norm(floats.columns().start / cols, floats.row(0));
            self.kernels.quantise(floats.row(0), &mut quants);
        });
        let quants = inputs.quants.view(cols / BLOCK, tokens);
        Activations { tokens, floats, quants, halves: self.halves(floats, tokens, inputs.halves, matrices) }
    }

    /// The input of `matrices`: as it is, and as int8 and binary16 if one of them needs it so.
    fn input<'x>(
        &self,
        x: &'x [f32],
        inputs: &'x mut Inputs<'_>,
        n: usize,
        matrices: &[&Matrix<'_>],
    ) -> Activations<'x> {
        let quantised = matrices.iter().any(|m| m.dtype().is_quantised());
        let quants = match quantised {
            true => self.kernels.quantise_tokens(self.light(n), x, n, &mut inputs.quants),
            false => Quants::default(),
        };
        Activations { tokens: n, floats: x, quants, halves: self.halves(x, n, inputs.halves, matrices) }
    }

    /// The input of `matrices` as binary16; empty where none needs it, and for many tokens.
    fn halves<'x>(&self, x: &[f32], n: usize, out: &'x mut [HalfBlock], matrices: &[&Matrix<'_>]) -> &'x [HalfBlock] {
        if !self.kernels.multiplies_halves(n) || matrices.iter().all(|m| m.dtype() != DType::F16) {
            return &[];
        }
        let (cols, blocks) = (x.len() / n, (x.len() / n).div_ceil(BLOCK));
        let out = &mut out[..n * blocks];
        for (x, out) in x.chunks(cols).zip(out.chunks_mut(blocks)) {
            self.kernels.halve(x, out);
        }
        out
    }

    /// `out = [m₀; m₁; …] · x`: the matrices' results side by side in each row.
    fn project(&self, matrices: &[&Matrix<'_>], x: &Activations<'_>, out: &mut [f32]) {
        let cols = matrices.iter().map(|m| m.rows()).sum();
        let columns = Columns::new(&mut out[..x.tokens * cols], cols, self.width(cols));
        for_each_tile(self.exec, [columns], |[mut tile]| {
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
    fn add(&self, m: &Matrix<'_>, x: &Activations<'_>, out: &mut [f32]) {
        let columns = Columns::new(&mut out[..x.tokens * m.rows()], m.rows(), self.width(m.rows()));
        for_each_tile(self.exec, [columns], |[mut tile]| {
            self.kernels.matmul(m, tile.columns(), x, &mut tile, Write::Add);
        });
    }

    /// `gate = silu(W_gate · x) * (W_up · x)`.
    fn gated(&self, layer: &Layer<'_>, x: &Activations<'_>, gate: &mut [f32], up: &mut [f32]) {
        let cols = layer.gate.rows();
        let columns = |out| Columns::new(out, cols, self.width(cols));
        let outputs = [columns(&mut gate[..x.tokens * cols]), columns(&mut up[..x.tokens * cols])];
        for_each_tile(self.exec, outputs, |[mut gate, mut up]| {
            self.kernels.matmul(&layer.gate, gate.columns(), x, &mut gate, Write::Set);
            self.kernels.matmul(&layer.up, up.columns(), x, &mut up, Write::Set);
            for t in 0..x.tokens {
                self.kernels.silu_mul(gate.row(t), up.row(t));
            }
        });
    }

    /// Adds the biases that there are, then rotates the heads of q and k.
    fn bias_and_rotate(&self, layer: &Layer<'_>, work: &mut Work<'_>, n: usize) {
        let h = &self.model.hparams;
        let width = h.q_dim() + 2 * h.kv_dim();
        let rope = &*work.rope;
        for_each_row(self.light(n), &mut work.qkv[..n * width], width, |t, row| {
            let bias = layer.qkv_bias.iter().zip([0, h.q_dim(), h.q_dim() + h.kv_dim()]);
            for (bias, first) in bias {
                for (x, b) in row[first..].iter_mut().zip(bias.as_chunks::<4>().0) {
                    *x += f32::from_le_bytes(*b);
                }
            }
            let angles = &rope[t * h.rope_dims..][..h.rope_dims];
            for head in row[..h.q_dim() + h.kv_dim()].chunks_exact_mut(h.head_dim) {
                rotate(head, angles, h.family.rope_pairs);
            }
        });
    }

    /// Writes the new keys and values to the caches of layer `index`: so little work that sharing it would cost more.
    fn remember<'c, C: AsMut<KvCache<'c>>>(&self, work: &Work<'_>, caches: &mut [C], index: usize, n: usize) {
        let h = &self.model.hparams;
        let each = n / caches.len();
        let rows = work.qkv.chunks_exact(h.q_dim() + 2 * h.kv_dim()).take(n);
        for (r, row) in rows.enumerate() {
            let cache = caches[r / each].as_mut();
            let (element, position) = (cache.element(), cache.position() + r % each);
            let (new_k, new_v) = row[h.q_dim()..].split_at(h.kv_dim());
            let heads = new_k.chunks_exact(h.head_dim).zip(new_v.chunks_exact(h.head_dim));
            for (head, (new_k, new_v)) in heads.enumerate() {
                let [k, v] = cache.slots(index, head, position);
                self.kernels.store(element, new_k, k);
                self.kernels.store(element, new_v, v);
            }
        }
    }

    /// Causal attention: each token to all positions up to its own, a group of query heads at a time.
    fn attend<'c, C: AsRef<KvCache<'c>> + Sync>(&self, work: &mut Work<'_>, caches: &[C], index: usize, n: usize) {
        let h = &self.model.hparams;
        let group = h.group() * h.head_dim;
        let width = h.q_dim() + 2 * h.kv_dim();
        let scale = 1.0 / libm::sqrtf(h.head_dim as f32);
        let qkv = &*work.qkv;
        for_each_row(self.exec, &mut work.attended[..n * h.q_dim()], group, |i, out| {
            let (r, head) = (i / h.n_kv_heads, i % h.n_kv_heads);
            let q = &qkv[r * width + head * group..][..group];
            let (cache, position) = place(caches, n, r);
            let [k, v] = cache.rows(index, head, position + 1);
            self.kernels.attend(q, h.head_dim, scale, k, v, out);
        });
    }
}
