//! Writes a tiny model that runs fast and knows nothing: random weights, one token per byte, ChatML's control tokens.
//!
//! ```text
//! cargo run --example tiny -- tiny.gguf [SEED]
//! ```

#[path = "../tests/common/gguf.rs"]
#[allow(dead_code, unreachable_pub, reason = "only the tests use all of it")]
mod gguf;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seed = args.get(1).map_or(Ok(1), |seed| seed.parse());
    let ([path, ..], Ok(seed)) = (args.as_slice(), seed) else {
        eprintln!("usage: tiny FILE [SEED]");
        return ExitCode::from(2);
    };
    match std::fs::write(path, gguf::byte_level_model(seed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tiny: {path}: {e}");
            ExitCode::FAILURE
        }
    }
}
