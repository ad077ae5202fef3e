//! Writes a tiny model that runs fast and knows nothing: random weights, one token per byte, ChatML's control tokens.
//!
//! ```text
//! cargo run --example tiny -- tiny.gguf [SEED]
//! ```

#[path = "../tests/common/gguf.rs"]
#[allow(dead_code, unreachable_pub, reason = "only the tests use all of it")]
mod gguf;

use std::process::ExitCode;

use armlet::quant::DType;
use gguf::{Tiny, Val};

/// Control tokens; their ids follow those of the 256 bytes.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// The text of each byte's token in a byte-level BPE vocabulary (GPT-2): printable bytes stand for themselves, the others
/// for characters from U+0100 on.
fn bytes() -> impl Iterator<Item = String> {
    let mut next = '\u{100}'..;
    (0..=255u8).map(move |byte| {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let shown = if printable { Some(char::from(byte)) } else { next.next() };
        shown.unwrap_or_default().to_string()
    })
}

/// The model's file.
pub fn model(seed: u64) -> Vec<u8> {
    let tokens: Vec<String> = bytes().chain(CONTROL.map(String::from)).collect();
    // 1 is text, 3 a control token.
    let kinds = (0..tokens.len()).map(|i| if i < 256 { 1 } else { 3 }).collect();
    let end = tokens.len() as u32 - 1;
    let tiny = Tiny { vocab: tokens.len(), dtype: DType::Q8_0, seed, ..Tiny::default() };
    let mut model = tiny.gguf();
    model
        .set("tokenizer.ggml.tokens", Val::Strs(tokens))
        .set("tokenizer.ggml.token_type", Val::I32s(kinds))
        .set("tokenizer.ggml.merges", Val::Strs(vec!["A B".into()]))
        .set("tokenizer.ggml.eos_token_id", Val::U32(end));
    model.build()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seed = args.get(1).map_or(Ok(1), |seed| seed.parse());
    let ([path, ..], Ok(seed)) = (args.as_slice(), seed) else {
        eprintln!("usage: tiny FILE [SEED]");
        return ExitCode::from(2);
    };
    match std::fs::write(path, model(seed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tiny: {path}: {e}");
            ExitCode::FAILURE
        }
    }
}
