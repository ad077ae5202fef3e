//! A model that says what a test wants, whatever it is asked.

use super::gguf::{Gguf, Tiny, Val, byte_tokens};
use armlet::quant::DType;

/// Control tokens of ChatML; their ids follow those of the 256 bytes.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const FIRST: usize = 256 + CONTROL.len();
const END: usize = FIRST - 1;

/// A model that answers with these tokens, and then ends its turn.
pub fn answering(tokens: &[&str]) -> Gguf {
    model(tokens, END)
}

/// One that begins again, and never ends.
pub fn repeating(tokens: &[&str]) -> Gguf {
    model(tokens, FIRST)
}

/// One that never ends, and does not repeat itself soon enough to be stopped for it: `w0 w1 … w299 w0 …`.
pub fn endless() -> Gguf {
    let words: Vec<_> = (0..300).map(|i| format!("w{i} ")).collect();
    repeating(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Layers add nothing to the residual stream, the embeddings are orthogonal, and the head has for each token the one that
/// follows it: a turn begins behind a line end, as ChatML has it.
fn model(tokens: &[&str], last: usize) -> Gguf {
    let bytes: Vec<_> = byte_tokens().collect();
    let text = |token: &&str| token.bytes().map(|byte| bytes[usize::from(byte)].clone()).collect::<String>();
    let vocabulary: Vec<_> =
        bytes.iter().cloned().chain(CONTROL.map(String::from)).chain(tokens.iter().map(text)).collect();
    let (vocab, n_embd) = (vocabulary.len(), vocabulary.len().next_multiple_of(32));
    let shape =
        Tiny { vocab, n_embd, n_layers: 1, n_ff: 32, context: 4096, tied: false, dtype: DType::F32, ..Tiny::default() };
    let mut gguf = shape.gguf();
    let kinds = (0..vocab).map(|i| if (256..FIRST).contains(&i) { 3 } else { 1 }).collect();
    gguf.set("tokenizer.ggml.tokens", Val::Strs(vocabulary))
        .set("tokenizer.ggml.token_type", Val::I32s(kinds))
        .set("tokenizer.ggml.eos_token_id", Val::U32(END as u32));
    let follows = |token: usize| match token {
        10 => Some(FIRST),
        token if token < FIRST => None,
        token if token + 1 == vocab => Some(last),
        token => Some(token + 1),
    };
    for tensor in &mut gguf.tensors {
        let ones: Vec<(usize, usize)> = match tensor.name.as_str() {
            "token_embd.weight" => (0..vocab).map(|token| (token, token)).collect(),
            "output.weight" => (0..vocab).filter_map(|token| Some((follows(token)?, token))).collect(),
            "blk.0.attn_output.weight" | "blk.0.ffn_down.weight" => Vec::new(),
            _ => continue,
        };
        tensor.data.fill(0);
        for (row, column) in ones {
            let at = 4 * (row * n_embd + column);
            tensor.data[at..at + 4].copy_from_slice(&1f32.to_le_bytes());
        }
    }
    gguf
}
