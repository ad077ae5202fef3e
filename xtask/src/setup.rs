//! Installs what the tests need, or says exactly what to install.

use std::process::Command;

use crate::model;
use crate::process::{Failed, Steps, command, outcome, output};

/// The everyday aarch64 target: a static program, linked without a C toolchain.
pub(crate) const LINUX: &str = "aarch64-unknown-linux-musl";
/// The aarch64 target of programs in C.
pub(crate) const GNU: &str = "aarch64-unknown-linux-gnu";
/// The target of firmware.
pub(crate) const NONE: &str = "aarch64-unknown-none";

/// Everything.
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    tools(steps)?;
    program(steps)
}

/// The program for this machine, and the model that it fetches.
pub(crate) fn program(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("the program", model::build)?;
    steps.step("the model", || output(model::native().args(["pull", "smollm2"])).map(drop))
}

/// What needs no model.
pub(crate) fn tools(steps: &mut Steps) -> Result<(), Failed> {
    rust(steps)?;
    steps.step("Debian packages", || packages(&[&NEEDED[..], &MPI].concat()))
}

/// What clippy needs.
pub(crate) fn lint(steps: &mut Steps) -> Result<(), Failed> {
    rust(steps)?;
    steps.step("Open MPI", || packages(&MPI))
}

/// Rust's targets and components, and a nightly compiler for Miri.
pub(crate) fn rust(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("Rust's targets and components", || {
        rustup(&["target", "add", LINUX, GNU, NONE])?;
        rustup(&["component", "add", "rustfmt", "clippy"])?;
        // Not updated if it is there.
        if !works(&["rustup", "run", "nightly", "cargo", "--version"]) {
            rustup(&["toolchain", "install", "nightly", "--profile", "minimal", "--no-self-update"])?;
        }
        rustup(&["component", "add", "--toolchain", "nightly", "miri", "rust-src"])
    })
}

pub(crate) fn rustup(args: &[&str]) -> Result<(), Failed> {
    command("rustup", args, &[]).map_err(|Failed(why)| {
        Failed(format!(
            "{why}; without rustup, install the standard libraries of {LINUX}, {GNU} and {NONE}, rustfmt, clippy, Miri"
        ))
    })
}

/// What several boards need, and clippy of their program.
const MPI: [Need; 3] = [
    (&["mpirun", "--version"], "openmpi-bin"),
    (&["mpicc", "--version"], "libopenmpi-dev"),
    (&["sh", "-c", "ls /usr/lib/llvm-*/lib/libclang.so*"], "libclang-dev"),
];

/// What the other tests need.
const NEEDED: [Need; 14] = [
    (&["qemu-aarch64", "--version"], "qemu-user"),
    (&["qemu-system-aarch64", "--version"], "qemu-system-arm"),
    (&["python3", "-m", "pip", "--version"], "python3-pip"),
    (&["gcc", "--version"], "gcc"),
    (&["g++", "--version"], "g++"),
    (&["aarch64-linux-gnu-gcc", "--version"], "gcc-aarch64-linux-gnu"),
    (&["aarch64-linux-gnu-g++", "--version"], "g++-aarch64-linux-gnu"),
    (&["test", "-e", "/usr/aarch64-linux-gnu/lib/libc.a"], "libc6-dev-arm64-cross"),
    (&["make", "--version"], "make"),
    (&["cmake", "--version"], "cmake"),
    (&["pkg-config", "--version"], "pkg-config"),
    (&["readelf", "--version"], "binutils"),
    (&["valgrind", "--version"], "valgrind"),
    // Without the symbols of the C library valgrind starts nothing.
    (&["valgrind", "--quiet", "true"], "libc6-dbg"),
];

/// A command that must run, and Debian's package of it.
pub(crate) type Need = (&'static [&'static str], &'static str);

/// Installs the packages of those commands that do not run.
pub(crate) fn packages(needed: &[Need]) -> Result<(), Failed> {
    let missing = || needed.iter().filter(|(check, _)| !works(check)).map(|(_, package)| *package).collect::<Vec<_>>();
    let wanted = missing();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut install = vec!["apt-get", "install", "--yes", "--no-install-recommends"];
    install.extend(&wanted);
    // As root directly; else through sudo if it asks for no password.
    let sudo: &[&str] = if works(&["sh", "-c", "test $(id -u) = 0"]) { &[] } else { &["sudo", "--non-interactive"] };
    for words in [&["apt-get", "update"][..], &install] {
        let words = [sudo, words].concat();
        // What is still missing is reported below, whatever the reason.
        let _ = command(words[0], &words[1..], &[("DEBIAN_FRONTEND", "noninteractive")]);
    }
    match missing()[..] {
        [] => Ok(()),
        ref still => Err(Failed(format!(
            "missing, and could not be installed from here: {0}; on Debian: sudo apt-get install {0}",
            still.join(" ")
        ))),
    }
}

pub(crate) fn works(words: &[&str]) -> bool {
    outcome(Command::new(words[0]).args(&words[1..])).is_ok_and(|output| output.status.success())
}
