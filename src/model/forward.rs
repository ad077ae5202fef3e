//! The forward pass of a transformer (Vaswani et al. 2017, arXiv 1706.03762; Touvron et al. 2023, arXiv 2302.13971), for one
//! token or many. Families differ in what their layers have, not in code.
//!
//! It reads like the textbook because each step is elsewhere: matrices and norms in `pass`, queries, keys and values in
//! `qkv`, attention in `attention`. A step is one parallel region; the ends of the regions are the barriers.

use super::batch::Batch;
use super::buffers::Buffers;
use super::pass::Pass;
use super::rope;
use crate::util::SliceExt;

/// Runs `tokens`, those of each session of the batch in turn: a chunk of the first, and one token of each other. Writes their keys and values to the caches, and the logits of the last `outputs` of them to
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
        let (x, qkv) = (buffers.x.first_n(n * h.n_embd), [&layer.q.weight, &layer.k.weight, &layer.v.weight]);
        let ffn = [&layer.gate.weight, &layer.up.weight];
        let parallel = pass.is_parallel(layer);
        let [q, k, v] = qkv;
        let readers = [q, k, v, ffn[0], ffn[1]];
        let readers = readers.first_n(if parallel { 5 } else { 3 });
        let x = pass.norm(x, n, &layer.attn_norm, buffers.normed, &mut buffers.inputs, readers);
        pass.matmul(&qkv, &x, buffers.qkv);
        if parallel {
            pass.gate_up(layer, &x, buffers.gate, buffers.up);
        }
        pass.prepare_qkv(index, buffers, batch);
        pass.write_new_kv(index, buffers, batch);
        pass.attend(index, buffers, batch);
        // After attention, because the new rows overwrite positions that this pass still reads.
        batch.commit(h, &buffers.new_kv, index);
        let q_dim = h.q_dim(index);
        let attended = buffers.attended.first_n_mut(n * q_dim);
        attended.rows_mut(q_dim).for_each(|row| pass.norm_in_place(row, layer.attn_sub_norm));
        let x = pass.prepare_input(attended, n, &mut buffers.inputs, &[&layer.attn_output.weight]);
        pass.add_to_residual(&layer.attn_output, layer.attn_post_norm, &x, buffers.normed, buffers.x);

        // x += W_down · (f(W_gate · norm(x)) * (W_up · norm(x)))
        if !parallel {
            let x = buffers.x.first_n(n * h.n_embd);
            let x = pass.norm(x, n, &layer.ffn_norm, buffers.normed, &mut buffers.inputs, &ffn);
            pass.gate_up(layer, &x, buffers.gate, buffers.up);
        }
        let gate = buffers.gate.first_n_mut(n * h.n_ff);
        gate.rows_mut(h.n_ff).for_each(|row| pass.norm_in_place(row, layer.ffn_sub_norm));
        let x = pass.prepare_input(gate, n, &mut buffers.inputs, &[&layer.down.weight]);
        pass.add_to_residual(&layer.down, layer.ffn_post_norm, &x, buffers.normed, buffers.x);
    }
    batch.advance();

    if outputs == 0 {
        return;
    }
    // logits = W_out · norm(x), for the tokens that are asked for
    let x = buffers.x.part((n - outputs) * h.n_embd..n * h.n_embd);
    let output = [&w.output.weight];
    let x = pass.norm(x, outputs, &w.output_norm, buffers.normed, &mut buffers.inputs, &output);
    pass.matmul(&output, &x, buffers.logits);
    pass.finish_logits(buffers.logits.first_n_mut(outputs * h.vocab));
}
