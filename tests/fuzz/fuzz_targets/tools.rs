//! Answers with calls of tools, cut anywhere.

#![no_main]

#[allow(dead_code, reason = "seeds are for the tests")]
#[path = "../../common/fuzzed_tools.rs"]
mod fuzzed_tools;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzed_tools::tools(bytes));
