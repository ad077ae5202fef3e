//! Any bytes, cut anywhere, and any token ids as text.

#![no_main]

#[path = "../shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shared::fuzzed::detokenizer(bytes));
