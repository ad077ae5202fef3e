//! The forward pass of a transformer (Vaswani et al. 2017, arXiv 1706.03762; Touvron et al. 2023, arXiv 2302.13971), for one
//! token or many. Families differ in what their layers have, not in code.
//!
//! It reads like the textbook because each step is elsewhere: matrices and norms in `pass`, queries, keys and values in
//! `qkv`, attention in `attention`. A step is one parallel region; the ends of the regions are the barriers.

use super::batch::Batch;
use super::buffers::Buffers;
use super::exchange::Computed;
use super::pass::{Pass, Residual};
use super::rope;
use crate::boards::CommError;
use crate::util::SliceExt;

/// Runs `tokens`, those of each session of the batch in turn: a chunk of the first, and one token of each other. Writes their
/// keys and values to the caches, and the logits of the last `outputs` of them to `buffers.logits`.
///
/// The caller has checked that the tokens exist and that they fit the chunk, the caches and the logits.
///
/// # Errors
/// [`CommError`], never of one board alone; the caches are then of no use.
pub(crate) fn forward(
    pass: Pass<'_>,
    buffers: &mut Buffers<'_>,
    batch: &mut Batch<'_, '_>,
    tokens: &[u32],
    outputs: usize,
) -> Result<(), CommError> {
    let (h, w) = (&pass.model.hparams, &pass.model.weights);
    let n = batch.rows();

    pass.enter(buffers, batch, tokens)?;
    rope::fill_table(pass.model, batch, buffers.rope);
    for index in pass.share.layers(h) {
        let own = pass.own_layer(index);
        let Some(layer) = own.as_ref().or(w.layers.get(index)) else { break };
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
        pass.prepare_qkv(index, layer, buffers, batch);
        pass.write_new_kv(index, buffers, batch);
        pass.gather_new_kv(index, buffers, batch)?;
        pass.attend(index, buffers, batch)?;
        // After attention, because the new rows overwrite positions that this pass still reads.
        batch.commit(pass.own, &buffers.new_kv, index);
        let attended = Computed { x: buffers.attended, tokens: n, columns: &|share| share.q_columns(h, index) };
        let output = &layer.attn_output.weight;
        let x = pass.gather_input(attended, layer.attn_sub_norm, &mut buffers.inputs, buffers.exchange, output)?;
        let residual = Residual { floats: buffers.normed, exchange: buffers.exchange, x: buffers.x };
        pass.add_to_residual(&layer.attn_output, layer.attn_post_norm, &x, residual)?;

        // x += W_down · (f(W_gate · norm(x)) * (W_up · norm(x)))
        if !parallel {
            let x = buffers.x.first_n(n * h.n_embd);
            let x = pass.norm(x, n, &layer.ffn_norm, buffers.normed, &mut buffers.inputs, &ffn);
            pass.gate_up(layer, &x, buffers.gate, buffers.up);
        }
        let gate = Computed { x: buffers.gate, tokens: n, columns: &|share| share.rows(h.n_ff) };
        let down = &layer.down.weight;
        let x = pass.gather_input(gate, layer.ffn_sub_norm, &mut buffers.inputs, buffers.exchange, down)?;
        let residual = Residual { floats: buffers.normed, exchange: buffers.exchange, x: buffers.x };
        pass.add_to_residual(&layer.down, layer.ffn_post_norm, &x, residual)?;
    }
    pass.leave(buffers.x.first_n_mut(n * h.n_embd), outputs)?;
    batch.advance();

    if outputs == 0 || !pass.share.has_head() {
        return Ok(());
    }
    logits(pass, buffers, n, outputs)
}

/// logits = W_out · norm(x), for the last `outputs` of `n` tokens.
fn logits(pass: Pass<'_>, buffers: &mut Buffers<'_>, n: usize, outputs: usize) -> Result<(), CommError> {
    let (h, w) = (&pass.model.hparams, &pass.model.weights);
    let x = buffers.x.part((n - outputs) * h.n_embd..n * h.n_embd);
    let own = pass.own_output();
    let output = [&own.as_ref().unwrap_or(&w.output).weight];
    let x = pass.norm(x, outputs, &w.output_norm, buffers.normed, &mut buffers.inputs, &output);
    pass.matmul(&output, &x, buffers.logits);
    pass.gather_logits(buffers.logits.first_n_mut(outputs * h.vocab), buffers.exchange)
}
