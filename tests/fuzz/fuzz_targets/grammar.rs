//! Any text as a grammar in GBNF.

#![no_main]

#[allow(dead_code, reason = "seeds are for the tests")]
#[path = "../../common/fuzzed_grammar.rs"]
mod fuzzed_grammar;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzed_grammar::grammar(bytes));
