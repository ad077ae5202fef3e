//! Pointers and threads of `storage`, the scalar kernels and the C API under Miri, which sees undefined behaviour that a CPU
//! hides.
//!
//! Miri takes a thousand times as long as a CPU: it runs tests of small shapes, by name. It interprets a target on which
//! `libm` has no assembly: on x86-64 and aarch64 that detects the CPU or uses its instructions, which Miri refuses.

use std::process::Command;

use crate::process::{Failed, Steps, in_parallel, outcome, say};

const TARGET: &str = "riscv64gc-unknown-linux-gnu";

const SMALL: [&str; 5] = [
    "capi::tests::a_conversation_in_byte_level_bpe",
    "storage::arena::tests::plan_and_use_agree_to_the_byte",
    "storage::arena::tests::refuses_what_it_cannot_hold",
    "storage::executor::tests::each_worker_starts_with_its_own_share",
    "storage::tiles::tests::rows_are_tiles_and_the_last_may_be_shorter",
];
/// In full size only.
const DEEP: [&str; 3] = [
    "capi::tests::a_conversation_in_sentence_piece",
    "capi::tests::a_conversation_with_a_packed_model",
    "storage::tiles::tests::every_element_is_written_once_whatever_the_executor_does",
];

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    let names = if steps.deep { [&SMALL[..], &DEEP].concat() } else { SMALL.to_vec() };
    // The first is a conversation: it takes as long as the others together.
    steps.step("storage, scalar kernels and the C API under Miri", || {
        let (conversation, others) = names.split_at(1);
        in_parallel(&[conversation, others], |names| tests(names)).map(drop)
    })
}

fn tests(names: &[&str]) -> Result<(), Failed> {
    let mut cargo = Command::new("rustup");
    cargo.args(["run", "nightly", "cargo", "miri", "test", "--lib", "--no-default-features", "--features", "std,capi"]);
    cargo.args(["--target", TARGET, "--target-dir", "target/miri", "--", "--exact"]).args(names);
    // Files of this machine may be read.
    let output = outcome(cargo.env("MIRIFLAGS", "-Zmiri-disable-isolation"))?;
    let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    say(said.trim());
    if !output.status.success() {
        return Err(Failed(format!("{cargo:?} ended with {}: {}", output.status, errors.trim())));
    }
    // A test of another name would be left out without a word.
    let passed = format!(" {} passed", names.len());
    if said.contains(&passed) { Ok(()) } else { Err(Failed(format!("not{passed}: some of {names:?} are not there"))) }
}
