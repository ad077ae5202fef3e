//! Writes a tiny model that runs fast and knows nothing: random weights, one token per byte, ChatML's control tokens.
//!
//! ```text
//! cargo run --example tiny -- tiny.gguf [SEED]
//! ```
//!
//! With `--bench` before the file, one with the shapes of a model of a billion parameters, to measure with: every format of
//! `armlet quantize --pure` fits its rows.

#[path = "../tests/common/gguf.rs"]
#[allow(dead_code, unreachable_pub, reason = "only the tests use all of it")]
mod gguf;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let bench = args.first().is_some_and(|arg| arg == "--bench");
    args.drain(..usize::from(bench));
    let seed = args.get(1).map_or(Ok(1), |seed| seed.parse());
    let ([path, ..], Ok(seed)) = (args.as_slice(), seed) else {
        eprintln!("usage: tiny [--bench] FILE [SEED]");
        return ExitCode::from(2);
    };
    let model = if bench { gguf::bench_model(seed) } else { gguf::byte_level_model(seed) };
    match std::fs::write(path, model) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tiny: {path}: {e}");
            ExitCode::FAILURE
        }
    }
}
