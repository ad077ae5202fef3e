//! Any text through the two vocabularies of the golden tests, there and back.

#![no_main]

#[path = "../shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shared::fuzzed::tokenizer(bytes));
