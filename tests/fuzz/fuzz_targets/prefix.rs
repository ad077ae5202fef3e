//! A prefix, with right checksums or not, and a session that starts with it.

#![no_main]

#[path = "../shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shared::fuzzed::prefix(bytes));
