//! Pointers and threads of `storage` under Miri, which sees undefined behaviour that a CPU hides.
//!
//! Miri takes a thousand times as long as a CPU: it runs tests of small shapes, by name. Kernels and the C API do not run
//! on x86-64, where `libm` detects the CPU with assembly.

use std::process::Command;

use crate::process::{Failed, Steps, outcome, say};

const GATE: [&str; 4] = [
    "storage::arena::tests::plan_and_use_agree_to_the_byte",
    "storage::arena::tests::refuses_what_it_cannot_hold",
    "storage::executor::tests::each_worker_starts_with_its_own_share",
    "storage::tiles::tests::rows_are_tiles_and_the_last_may_be_shorter",
];
/// In full size only.
const DEEP: [&str; 1] = ["storage::tiles::tests::every_element_is_written_once_whatever_the_executor_does"];

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    let names = if steps.deep { [&GATE[..], &DEEP].concat() } else { GATE.to_vec() };
    steps.step("pointers and threads under Miri", || tests(&names))
}

fn tests(names: &[&str]) -> Result<(), Failed> {
    let mut cargo = Command::new("rustup");
    cargo.args(["run", "nightly", "cargo", "miri", "test", "--lib", "--no-default-features", "--features", "std"]);
    cargo.args(["--target-dir", "target/miri", "--", "--exact"]).args(names);
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
