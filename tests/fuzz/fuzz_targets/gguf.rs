//! Any bytes as a file: checked, walked, and its model run. The promises are asserted in `untrusted.rs`.

#![no_main]

#[allow(dead_code, reason = "shared with the tests, which use all of it")]
#[path = "../../common/untrusted.rs"]
mod untrusted;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    untrusted::digest(bytes);
});
