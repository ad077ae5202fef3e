//! The tests on emulated cores of aarch64.
//!
//! All of them run on all the instructions that QEMU has, where every kernel runs; on older cores those run that see
//! which kernels there are.

use std::path::PathBuf;
use std::process::Command;

use crate::model::{EMULATED, TESTED};
use crate::process::{Failed, Steps, in_parallel, output, show, tests};
use crate::setup::LINUX;

/// Emulated cores and the backends that they have: Armv8.0 twice, with the dot product, and all there is.
pub(crate) const CPUS: [(&str, &str); 4] = [
    ("cortex-a53", "scalar neon"),
    ("cortex-a72", "scalar neon"),
    ("cortex-a76", "scalar neon dotprod"),
    ("max", "scalar neon dotprod i8mm"),
];

/// Tests of whole models. The gate has the hashes on record: they were taken of models that agree with f64, of which
/// this machine compares the same.
const HASHES: &str = "logit_hashes::";
const MODELS: &str = "oracle::";

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    let deep = steps.deep;
    let mut programs = [PathBuf::new(), PathBuf::new()];
    steps.step("tests for aarch64", || {
        programs = build(deep)?;
        Ok(())
    })?;
    let [lib, it] = &programs;
    let sizes = steps.sizes();
    let test = |cpu: &str, program: &PathBuf, filter: &[Option<&str>]| {
        let filter = filter.iter().flatten();
        tests(Command::new("qemu-aarch64").args(["-cpu", cpu]).arg(program).args(filter).envs([sizes]))
    };
    steps.step("backends of each core", || CPUS.iter().try_for_each(|(cpu, names)| has(cpu, names, it)))?;
    // All backends of the others run on the last, and the programs of firmware on all.
    for (cpu, _) in CPUS.iter().skip(if deep { 0 } else { CPUS.len() - 1 }) {
        steps.step(&format!("kernels and core on {cpu}"), || test(cpu, lib, &[]))?;
    }
    steps.step("whole models on all of aarch64", || {
        let mut models = vec![HASHES.to_owned()];
        if deep {
            // Each alone: QEMU keeps some of the memory of every thread that has ended, and these start very many.
            let listed = output(Command::new("qemu-aarch64").arg(it).args([MODELS, "--list"]))?;
            models.extend(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned));
        }
        // A whole name is that of one test, and not the beginning of others.
        let exact = |filter: &String| if filter == HASHES { None } else { Some("--exact") };
        in_parallel(&models, |filter| test("max", it, &[Some(filter.as_str()), exact(filter)])).map(drop)
    })
}

/// The library's tests, and the integration tests, of whose time most is arithmetic: these share the library with the gate's
/// program for aarch64. Built once for all cores, and with the same dependencies; checks cost emulated cores as much as what
/// they check, so that they are on in full size alone, and on this machine.
fn build(deep: bool) -> Result<[PathBuf; 2], Failed> {
    let lib = ["--lib", "--no-default-features", "--features", "std", "--profile", if deep { "dev" } else { TESTED }];
    Ok([test_program("armlet", &lib)?, test_program("it", &EMULATED)?])
}

/// Builds a program of tests for aarch64, and says where it is.
fn test_program(name: &str, what: &[&str]) -> Result<PathBuf, Failed> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--no-run", "--target", LINUX]).args(what);
    show(&mut cargo)?;
    let messages = output(cargo.args(["--message-format", "json"]))?;
    let target = format!("\"name\":\"{name}\"");
    let executable = |line: &str| Some(PathBuf::from(line.split_once("\"executable\":\"")?.1.split('"').next()?));
    let found = messages.lines().filter(|line| line.contains(&target)).find_map(executable);
    found.ok_or_else(|| Failed(format!("cargo did not say where the tests {name} are")))
}

/// A core has just these backends: what runs on one need not run on another that has the same.
fn has(cpu: &str, names: &str, it: &PathBuf) -> Result<(), Failed> {
    let mut test = Command::new("qemu-aarch64");
    test.args(["-cpu", cpu]).arg(it).args(["--exact", "oracle::backends_of_this_cpu", "--nocapture"]);
    let said = output(&mut test)?;
    let found = said.lines().find_map(|line| line.split_once("backends: ")).map_or("none", |(_, names)| names.trim());
    if found == names { Ok(()) } else { Err(Failed(format!("{cpu} has the backends {found}, not {names}"))) }
}
