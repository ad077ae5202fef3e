//! Tests under AddressSanitizer and ThreadSanitizer, which see what Miri is too slow for: the kernels of this machine, whole
//! models, and threads as the system schedules them.
//!
//! The standard library is built with them, too, else ThreadSanitizer would not see its locks.

use std::process::Command;

use crate::dist;
use crate::process::{Failed, Steps, tests};

/// A sanitizer, what must be set for it, and the tests that run under it: unit tests, and those of `tests/it`.
struct Sanitizer {
    name: &'static str,
    options: (&'static str, &'static str),
    unit: &'static [&'static str],
    whole: &'static [&'static str],
}

const SANITIZERS: [Sanitizer; 2] = [
    Sanitizer {
        name: "address",
        // What lives as long as the process is no leak.
        options: ("ASAN_OPTIONS", "detect_leaks=0"),
        unit: &[],
        whole: &["capi::", "corrupt::", "fuzz::", "saving::", "generation::", "scheduler::", "gguf_rules::"],
    },
    Sanitizer {
        name: "thread",
        options: ("TSAN_OPTIONS", "halt_on_error=1"),
        unit: &["host::", "storage::", "capi::"],
        whole: &["capi::", "barriers::", "generation::", "scheduler::"],
    },
];

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    let host = dist::host()?;
    for Sanitizer { name, options, unit, whole } in SANITIZERS {
        steps
            .step(&format!("unit tests under the sanitizer of {name}"), || test(name, options, &host, "--lib", unit))?;
        steps.step(&format!("whole models under the sanitizer of {name}"), || {
            test(name, options, &host, "--test=it", whole)
        })?;
    }
    Ok(())
}

fn test(name: &str, options: (&str, &str), host: &str, kind: &str, names: &[&str]) -> Result<(), Failed> {
    let mut cargo = Command::new("rustup");
    cargo.args(["run", "nightly", "cargo", "test", "-Zbuild-std", "--target", host, kind]);
    cargo.args(["--no-default-features", "--features", "std,capi,log,boards"]);
    cargo.arg("--target-dir").arg(format!("target/sanitizer-{name}")).arg("--").args(names);
    // Flags of build scripts stay as they are: there is a target.
    cargo.env("RUSTFLAGS", format!("-Zsanitizer={name}")).env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    tests(cargo.env(options.0, options.1))
}
