//! Any bytes as a file: checked, walked, and its model run.

#![no_main]

#[path = "../shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shared::fuzzed::gguf(bytes));
