//! Each fuzz target for a few seconds under libFuzzer and AddressSanitizer; `tests/it/fuzz.rs` gives the same functions damaged
//! seeds in the gate, without libFuzzer, which is C++ and needs nightly.

use std::fs;
use std::process::Command;

use crate::dist::at;
use crate::process::{Failed, Steps, cargo, root, show};
use crate::setup::works;

/// Seconds of each target.
const SECONDS: u32 = 10;

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("cargo-fuzz", || {
        if works(&["cargo", "fuzz", "--version"]) { Ok(()) } else { cargo(&["install", "--locked", "cargo-fuzz"]) }
    })?;
    let folder = root().join("tests/fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).map_err(at(&folder))?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut names: Vec<String> = entries.filter_map(|path| Some(path.file_stem()?.to_str()?.to_string())).collect();
    names.sort();
    let mut step = |name: &str, features| steps.step(&format!("the fuzz target {name}"), || fuzz(name, features));
    names.iter().try_for_each(|name| step(name, &[]))?;
    // The program itself.
    step("requests", &["--features", "program"])
}

fn fuzz(name: &str, features: &[&str]) -> Result<(), Failed> {
    // What is found on the way is of no use to the next run; what breaks goes to tests/fuzz/artifacts.
    let corpus = root().join("target/fuzz-corpus").join(name);
    fs::create_dir_all(&corpus).map_err(at(&corpus))?;
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir", "tests/fuzz"])
        .args(features)
        .arg(name)
        .arg(corpus);
    let seeds = root().join("tests/fuzz/seeds").join(name);
    if seeds.exists() {
        command.arg(seeds);
    }
    show(command.args(["--", &format!("-max_total_time={SECONDS}")]))
}
