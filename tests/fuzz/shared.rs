//! What the targets share with the tests.

#![allow(dead_code, unreachable_pub, reason = "each target uses a part of it")]

#[path = "../common/c_context.rs"]
pub mod c_context;
#[path = "../common/fuzzed.rs"]
pub mod fuzzed;
#[path = "../common/gguf.rs"]
pub mod gguf;
#[path = "../common/untrusted.rs"]
pub mod untrusted;
