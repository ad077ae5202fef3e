//! The tests on emulated cores of aarch64.
//!
//! All of them run on all the instructions that QEMU has, where every kernel runs; on older cores those run that see
//! which kernels there are.

use std::path::PathBuf;
use std::process::Command;

use crate::model::EMULATED;
use crate::process::{Failed, Steps, in_parallel, output, show, tests};
use crate::setup::LINUX;

/// Emulated cores and the backends that they have: Armv8.0 twice, with the dot product, and all there is.
pub(crate) const CPUS: [(&str, &str); 4] = [
    ("cortex-a53", "scalar neon"),
    ("cortex-a72", "scalar neon"),
    ("cortex-a76", "scalar neon dotprod"),
    ("max", "scalar neon dotprod i8mm"),
];

/// Tests of whole models, in full size. The gate has the hashes on record: they were taken of models that agree with f64, of
/// which this machine compares the same.
const MODELS: &str = "oracle::";
/// Tests of the library that have no code of their own for a CPU and take their time: in full size alone.
const PORTABLE: [&str; 4] = ["--skip", "tokenizer::", "--skip", "quant::encode::"];

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    let deep = steps.deep;
    let sizes = steps.sizes();
    let test = |cpu: &str, program: &PathBuf, args: &[&str]| {
        tests(Command::new("qemu-aarch64").args(["-cpu", cpu]).arg(program).args(args).envs([sizes]))
    };
    let mut lib = PathBuf::new();
    steps.step("tests of the library for aarch64", || {
        // Built once for all cores; checks cost emulated cores as much as what they check, so that they are on in full size
        // alone, and on this machine.
        let checked = ["--lib", "--no-default-features", "--features", "std", "--profile", "dev"];
        lib = test_program("armlet", if deep { &checked } else { &EMULATED })?;
        Ok(())
    })?;
    // All backends of the others run on the last, and the programs of firmware on all.
    for (cpu, _) in CPUS.iter().skip(if deep { 0 } else { CPUS.len() - 1 }) {
        steps.step(&format!("kernels and core on {cpu}"), || test(cpu, &lib, if deep { &[] } else { &PORTABLE }))?;
    }
    let mut hashes = PathBuf::new();
    steps.step("tests of models for aarch64", || {
        hashes = test_program("logit_hashes", &EMULATED)?;
        Ok(())
    })?;
    steps.step("backends of each core", || CPUS.iter().try_for_each(|(cpu, names)| has(cpu, names, &hashes)))?;
    steps.step("hashes of logits on all of aarch64", || test("max", &hashes, &["--skip", "common::"]))?;
    if !deep {
        return Ok(());
    }
    steps.step("whole models on all of aarch64", || {
        // The same features, so that the library is that of the hashes.
        let it = test_program("it", &[&["--test", "it"], &EMULATED[3..]].concat())?;
        // Each alone: QEMU keeps some of the memory of every thread that has ended, and these start very many.
        let listed = output(Command::new("qemu-aarch64").arg(&it).args([MODELS, "--list"]))?;
        let models: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        if models.is_empty() {
            return Err(Failed(format!("there are no tests of {MODELS}")));
        }
        in_parallel(&models, |model| test("max", &it, &[model, "--exact"])).map(drop)
    })
}

/// Builds a program of tests for aarch64, and says where it is.
fn test_program(name: &str, what: &[&str]) -> Result<PathBuf, Failed> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--no-run", "--target", LINUX]).args(what);
    show(&mut cargo)?;
    let messages = output(cargo.args(["--message-format", "json"]))?;
    let target = format!("\"name\":\"{name}\"");
    let executable = |line: &str| Some(PathBuf::from(line.split_once("\"executable\":\"")?.1.split('"').next()?));
    // The program has the library's name, and is not in the folder of what else is built.
    let is_test = |path: &PathBuf| path.parent().is_some_and(|folder| folder.ends_with("deps"));
    let found = messages.lines().filter(|line| line.contains(&target)).filter_map(executable).find(is_test);
    found.ok_or_else(|| Failed(format!("cargo did not say where the tests {name} are")))
}

/// A core has just these backends: what runs on one need not run on another that has the same.
fn has(cpu: &str, names: &str, hashes: &PathBuf) -> Result<(), Failed> {
    let mut test = Command::new("qemu-aarch64");
    test.args(["-cpu", cpu]).arg(hashes).args(["--exact", "backends_of_this_cpu", "--nocapture"]);
    let said = output(&mut test)?;
    let found = said.lines().find_map(|line| line.split_once("backends: ")).map_or("none", |(_, names)| names.trim());
    if found == names { Ok(()) } else { Err(Failed(format!("{cpu} has the backends {found}, not {names}"))) }
}
