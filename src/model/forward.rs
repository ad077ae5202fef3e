//! The forward pass of a llama-family transformer (Touvron et al. 2023, arXiv 2302.13971), for one token or many.
//!
//! It reads like the textbook because each step is elsewhere: matrices and norms in `pass`, queries, keys and values in
//! `qkv`, attention in `attention`. A step is one parallel region; the ends of the regions are the barriers.

use super::batch::Batch;
use super::buffers::Buffers;
use super::pass::Pass;
use super::rope;
use crate::util::SliceExt;

/// Runs `tokens`, those of each session of the batch in turn: a chunk of one session's, or one token of each of
/// several. Writes their keys and values to the caches, and the logits of the last `outputs` of them to
/// `buffers.logits`.
///
/// The caller has checked that the tokens exist and that they fit the chunk, the caches and the logits.
pub(crate) fn forward(
    pass: Pass<'_>,
    buffers: &mut Buffers<'_>,
    batch: &mut Batch<'_, '_>,
    tokens: &[u32],
    outputs: usize,
) {
    let (h, w) = (&pass.model.hparams, &pass.model.weights);
    let n = batch.tokens();

    pass.embed(buffers, tokens);
    rope::fill_table(pass.model, batch, buffers.rope);
    for (index, layer) in w.layers.iter().enumerate() {
        // x += Wo · attention(norm(x))
        let (x, qkv) = (buffers.x.first_n(n * h.n_embd), [&layer.q, &layer.k, &layer.v]);
        let x = pass.norm(x, n, layer.attn_norm, buffers.normed, &mut buffers.inputs, &qkv);
        pass.matmul(&qkv, &x, buffers.qkv);
        pass.prepare_qkv(index, buffers, batch);
        pass.write_new_kv(buffers, batch);
        pass.attend(index, buffers, batch);
        // After attention, because the new rows overwrite positions that this pass still reads.
        batch.commit(h, &buffers.new_kv, index);
        let x = buffers.attended.first_n(n * h.q_dim());
        let x = pass.prepare_input(x, n, &mut buffers.inputs, &[&layer.attn_output]);
        pass.matmul_add(&layer.attn_output, &x, buffers.x, buffers.normed);

        // x += W_down · (silu(W_gate · norm(x)) * (W_up · norm(x)))
        let x = buffers.x.first_n(n * h.n_embd);
        let x = pass.norm(x, n, layer.ffn_norm, buffers.normed, &mut buffers.inputs, &[&layer.gate, &layer.up]);
        pass.gate_up(layer, &x, buffers.gate, buffers.up);
        let x = pass.prepare_input(buffers.gate.first_n(n * h.n_ff), n, &mut buffers.inputs, &[&layer.down]);
        pass.matmul_add(&layer.down, &x, buffers.x, buffers.normed);
    }
    batch.advance();

    if outputs == 0 {
        return;
    }
    // logits = W_out · norm(x), for the tokens that are asked for
    let x = buffers.x.part((n - outputs) * h.n_embd..n * h.n_embd);
    let x = pass.norm(x, outputs, w.output_norm, buffers.normed, &mut buffers.inputs, &[&w.output]);
    pass.matmul(&[&w.output], &x, buffers.logits);
}
