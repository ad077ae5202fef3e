//! A saved session, with right checksums or not, restored, and gone on from.

#![no_main]

#[path = "../shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shared::fuzzed::restore(bytes));
