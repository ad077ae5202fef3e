//! Installs what the tests need, or says exactly what to install.

use std::process::{Command, Stdio};

use crate::process::{Failed, Steps, cargo, command};

/// The everyday aarch64 target: a static program, linked without a C toolchain.
pub(crate) const LINUX: &str = "aarch64-unknown-linux-musl";
/// The aarch64 target of programs in C.
pub(crate) const GNU: &str = "aarch64-unknown-linux-gnu";
/// The target of firmware.
pub(crate) const NONE: &str = "aarch64-unknown-none";

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("Rust's aarch64 targets", targets)?;
    steps.step("Debian packages", || packages(&NEEDED))?;
    // With the tests' own profile the model's program would be built twice; this one is the one that is measured.
    steps.step("the program", || cargo(&["build", "--release"]))?;
    steps.step("the model", || command("target/release/armlet", &["pull", "smollm2"], &[]))
}

fn targets() -> Result<(), Failed> {
    let add = command("rustup", &["target", "add", LINUX, GNU, NONE], &[]);
    let components = command("rustup", &["component", "add", "rustfmt", "clippy"], &[]);
    add.and(components).map_err(|Failed(why)| {
        Failed(format!(
            "{why}; without rustup, install the standard libraries of {LINUX}, {GNU} and {NONE}, rustfmt, clippy"
        ))
    })
}

/// What the tests need.
const NEEDED: [Need; 13] = [
    (&["qemu-aarch64", "--version"], "qemu-user"),
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

fn works(words: &[&str]) -> bool {
    let quiet = |c: &mut Command| c.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    quiet(Command::new(words[0]).args(&words[1..]))
}
