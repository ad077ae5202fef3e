//! The forward pass of a llama-family transformer (Touvron et al. 2023, arXiv 2302.13971), for one token or many.
//!
//! It reads like the textbook because everything else is elsewhere: what may be written by whom is `storage`'s,
//! how a row is multiplied is `arch`'s. Each step is one parallel region; the regions' ends are the barriers.

use super::{Hparams, Layer, Model, RopePairs, Shape, State};
use crate::arch::{Activations, Cache, Kernels, Quants, QuantsMut, Write};
use crate::math;
use crate::quant::{BLOCK, Matrix, PANEL_ROWS};
use crate::storage::{Columns, Executor, for_each_row, for_each_tile};

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

/// Runs `tokens` at positions `position..`, writes their keys and values to the cache, and leaves the logits of the
/// last `outputs` of them in `state.logits`.
///
/// The caller has checked that the tokens exist and that they fit the chunk, the cache and the logits.
pub(crate) fn forward(
    run: Forward<'_>,
    s: &mut State<'_>,
    shape: &Shape,
    position: u64,
    tokens: &[u32],
    outputs: usize,
) {
    let h = &run.model.hparams;
    let w = &run.model.weights;
    let n = tokens.len();

    embed(run, s, tokens);
    rotations(w.rope_frequencies, s, h, position, n);
    for (index, layer) in w.layers.iter().enumerate() {
        // x += Wo · attention(norm(x))
        run.norm(&s.x[..n * h.n_embd], layer.attn_norm, s.normed);
        let x = run.input(&s.normed[..n * h.n_embd], &mut s.quants, n, &[&layer.q, &layer.k, &layer.v]);
        run.project(&[&layer.q, &layer.k, &layer.v], &x, s.qkv);
        run.bias_and_rotate(layer, s, n);
        run.remember(s, shape, index, position, n);
        run.attend(s, shape, index, position, n);
        let x = run.input(&s.attended[..n * h.q_dim()], &mut s.quants, n, &[&layer.attn_output]);
        run.add(&layer.attn_output, &x, s.x);

        // x += W_down · (silu(W_gate · norm(x)) * (W_up · norm(x)))
        run.norm(&s.x[..n * h.n_embd], layer.ffn_norm, s.normed);
        let x = run.input(&s.normed[..n * h.n_embd], &mut s.quants, n, &[&layer.gate, &layer.up]);
        run.gated(layer, &x, s.gate, s.up);
        let x = run.input(&s.gate[..n * h.n_ff], &mut s.quants, n, &[&layer.down]);
        run.add(&layer.down, &x, s.x);
    }

    if outputs == 0 {
        return;
    }
    // logits = W_out · norm(x), for the tokens that are asked for
    let last = &s.x[(n - outputs) * h.n_embd..n * h.n_embd];
    run.norm(last, w.output_norm, s.normed);
    let x = run.input(&s.normed[..outputs * h.n_embd], &mut s.quants, outputs, &[&w.output]);
    run.project(&[&w.output], &x, s.logits);
}

/// Rows of the embedding to the residual stream.
fn embed(run: Forward<'_>, s: &mut State<'_>, tokens: &[u32]) {
    let (n, table) = (run.model.hparams.n_embd, &run.model.weights.token_embd);
    for (token, x) in tokens.iter().zip(s.x.chunks_exact_mut(n)) {
        table.decode_row(*token as usize, x);
    }
}

/// Cosine and sine of position · frequency, once for all layers and heads.
fn rotations(frequencies: &[u64], s: &mut State<'_>, h: &Hparams, position: u64, n: usize) {
    for (i, row) in s.rope.chunks_exact_mut(h.rope_dims).take(n).enumerate() {
        for (pair, frequency) in row.as_chunks_mut::<2>().0.iter_mut().zip(frequencies) {
            let (sin, cos) = math::sin_cos(frequency.wrapping_mul(position.wrapping_add(i as u64)));
            *pair = [cos, sin];
        }
    }
}

/// Turns the first dimensions of a head by the angles of its position.
fn rotate(head: &mut [f32], angles: &[f32], pairs: RopePairs) {
    let half = angles.len() / 2;
    for (i, [cos, sin]) in angles.as_chunks::<2>().0.iter().enumerate() {
        let (a, b) = match pairs {
            RopePairs::Adjacent => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + half),
        };
        let (x, y) = (head[a], head[b]);
        head[a] = x * cos - y * sin;
        head[b] = x * sin + y * cos;
    }
}

impl Forward<'_> {
    /// Columns of a result that one item of work covers: several items for each thread, so that a slow core does not
    /// hold up the others, and whole tiles of rows.
    fn width(&self, cols: usize) -> usize {
        (cols / (self.exec.workers().clamp(1, 1024) * 8)).next_multiple_of(PANEL_ROWS).clamp(PANEL_ROWS, 256)
    }

    fn norm(&self, x: &[f32], weight: &[u8], out: &mut [f32]) {
        let (n, eps) = (self.model.hparams.n_embd, self.model.hparams.rms_eps);
        for_each_row(self.exec, &mut out[..x.len()], n, |i, out| {
            self.kernels.rms_norm(&x[i * n..][..n], weight, eps, out);
        });
    }

    /// The input of `matrices`: as it is, and quantised if one of them needs it so.
    fn input<'x>(
        &self,
        x: &'x [f32],
        quants: &'x mut QuantsMut<'_>,
        n: usize,
        matrices: &[&Matrix<'_>],
    ) -> Activations<'x> {
        let cols = x.len() / n;
        if !matrices.iter().any(|m| m.dtype().is_quantised()) {
            return Activations { tokens: n, floats: x, quants: Quants::default() };
        }
        for_each_tile(self.exec, quants.columns(cols / BLOCK, n), |mut tile| {
            let token = tile.0[0].columns().start;
            self.kernels.quantise(&x[token * cols..][..cols], &mut tile);
        });
        Activations { tokens: n, floats: x, quants: quants.view(cols / BLOCK, n) }
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
    fn bias_and_rotate(&self, layer: &Layer<'_>, s: &mut State<'_>, n: usize) {
        let h = &self.model.hparams;
        let width = h.q_dim() + 2 * h.kv_dim();
        let rope = &*s.rope;
        for_each_row(self.exec, &mut s.qkv[..n * width], width, |t, row| {
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

    /// Writes the new keys and values to the cache of layer `index`.
    fn remember(&self, s: &mut State<'_>, shape: &Shape, index: usize, position: u64, n: usize) {
        let h = &self.model.hparams;
        let row = h.head_dim * shape.element.bytes();
        let head = shape.capacity * row;
        let layer = index * h.n_kv_heads * head..(index + 1) * h.n_kv_heads * head;
        let cols = layer.len();
        let outputs = [&mut s.k[layer.clone()], &mut s.v[layer]].map(|cache| Columns::new(cache, cols, head));
        let width = h.q_dim() + 2 * h.kv_dim();
        for_each_tile(self.exec, outputs, |[mut k, mut v]| {
            let kv_head = k.columns().start / head;
            for t in 0..n {
                let new = &s.qkv[t * width + h.q_dim() + kv_head * h.head_dim..];
                // Checked by the caller to be below the capacity.
                let slot = (position as usize + t) * row;
                self.kernels.store(shape.element, &new[..h.head_dim], &mut k.row(0)[slot..][..row]);
                self.kernels.store(shape.element, &new[h.kv_dim()..][..h.head_dim], &mut v.row(0)[slot..][..row]);
            }
        });
    }

    /// Causal attention: each token to all positions up to its own, a group of query heads at a time.
    fn attend(&self, s: &mut State<'_>, shape: &Shape, index: usize, position: u64, n: usize) {
        let h = &self.model.hparams;
        let row = h.head_dim * shape.element.bytes();
        let group = h.group() * h.head_dim;
        let width = h.q_dim() + 2 * h.kv_dim();
        let scale = 1.0 / libm::sqrtf(h.head_dim as f32);
        for_each_row(self.exec, &mut s.attended[..n * h.q_dim()], group, |i, out| {
            let (t, kv_head) = (i / h.n_kv_heads, i % h.n_kv_heads);
            let q = &s.qkv[t * width + kv_head * group..][..group];
            let start = (index * h.n_kv_heads + kv_head) * shape.capacity * row;
            let rows = start..start + (position as usize + t + 1) * row;
            let k = Cache { element: shape.element, rows: &s.k[rows.clone()] };
            let v = Cache { element: shape.element, rows: &s.v[rows] };
            self.kernels.attend(q, h.head_dim, scale, k, v, out);
        });
    }
}
