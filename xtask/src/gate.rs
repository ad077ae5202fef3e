//! `cargo xtask test`: its parts, each of which can run alone.

use std::process::Command;

use crate::process::{Failed, Steps, cargo, cargo_with, say, tests};
use crate::setup::{self, LINUX, NONE};
use crate::{
    boards, c_examples, clients, coverage, firmware, fuzz, header, insns, miri, model, page, qemu, rust_firmware,
    sanitizers,
};

/// A part of the tests.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Installs what it needs.
    setup: fn(&mut Steps) -> Result<(), Failed>,
    run: fn(&mut Steps) -> Result<(), Failed>,
}

pub(crate) const PARTS: [Part; 11] = [
    Part { name: "lint", about: "formatting, clippy, every combination of features", setup: setup::lint, run: lint },
    Part { name: "host", about: "the tests on this machine", setup: setup::run, run: host },
    Part { name: "miri", about: "pointers and threads under Miri", setup: setup::rust, run: miri::run },
    Part { name: "coverage", about: "lines that read files, run by tests", setup: setup::rust, run: coverage::run },
    Part {
        name: "sanitizers",
        about: "address and thread sanitizers on this machine, fuzz targets for ten seconds each",
        setup: setup::rust,
        run: sanitized,
    },
    Part { name: "qemu", about: "kernels and core on emulated cores", setup: setup::tools, run: qemu::run },
    Part { name: "c", about: "the library for C and its examples", setup: setup::run, run: c_examples::run },
    Part { name: "model", about: "what the real model says and scores", setup: setup::run, run: model::run },
    Part { name: "firmware", about: "the library without an operating system", setup: setup::run, run: firmware::run },
    Part { name: "boards", about: "several boards over MPI", setup: setup::run, run: boards::run },
    Part { name: "insns", about: "instructions of a token, one cheap cell", setup: setup::run, run: insns::gate },
];

pub(crate) fn part(name: &str) -> Option<&'static Part> {
    PARTS.iter().find(|part| part.name == name)
}

/// Runs all parts, or one. Nothing is skipped: what is missing fails.
pub(crate) fn run(steps: &mut Steps, part: Option<&Part>) -> Result<(), Failed> {
    say(match (steps.deep, part) {
        (false, None) => "The gate: every part in a small size. `cargo xtask test --deep` runs the full sizes.",
        (true, None) => "Full sizes: about an hour on two cores from an empty target folder.",
        (false, Some(_)) => "One part of the gate, in a small size.",
        (true, Some(_)) => "One part, in its full size.",
    });
    if !steps.deep {
        model::only_test();
    }
    match part {
        Some(part) => {
            (part.setup)(steps)?;
            (part.run)(steps)?;
        }
        None => all(steps)?,
    }
    say(if steps.deep { "The full sizes ran." } else { "The gate ran, in its small sizes." });
    Ok(())
}

/// Lists of parts beside each other, more than two CPUs would need: linking, the last function of a crate to be compiled
/// and most runs under QEMU are one thread, and some lists wait for the build of another.
fn all(steps: &mut Steps) -> Result<(), Failed> {
    setup::tools(steps)?;
    steps.beside([&setup::program, &lint])?;
    steps.beside([
        &|steps| {
            host(steps)?;
            // These wait much, and for nothing that cargo builds for the other lists.
            boards::run(steps)?;
            // Minutes, in which each of the tests has run already.
            if steps.deep {
                miri::run(steps)?;
                sanitized(steps)?;
                coverage::run(steps)
            } else {
                Ok(())
            }
        },
        &|steps| {
            qemu::run(steps)?;
            insns::gate(steps)
        },
        &|steps| {
            model::run(steps)?;
            c_examples::run(steps)?;
            // From registries, which change by themselves.
            if steps.deep {
                clients::check(steps)?;
                page::check(steps)?;
            }
            Ok(())
        },
        &firmware::run,
    ])
}

fn sanitized(steps: &mut Steps) -> Result<(), Failed> {
    sanitizers::run(steps)?;
    fuzz::run(steps)
}

/// What a change must pass before anything else.
pub(crate) fn lint(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("the C header", header::check)?;
    steps.step("formatting", || cargo(&["fmt", "--all", "--check"]))?;
    let deny = ["--", "--deny", "warnings"];
    steps.step("clippy", || {
        cargo(&[&["clippy", "--workspace", "--all-targets", "--all-features"][..], &deny].concat())
    })?;
    steps.step("clippy on aarch64", || {
        let args = ["clippy", "--lib", "--no-default-features", "--features", "std,log", "--target", LINUX];
        cargo(&[&args[..], &deny].concat())
    })?;
    steps.step("core without an operating system", || {
        let target = ["--target", NONE];
        cargo(&[&["check", "--lib", "--no-default-features"][..], &target].concat())?;
        cargo(&[&["check", "--lib", "--no-default-features", "--features", "log,defmt"][..], &target].concat())
    })?;
    let deep = steps.deep;
    steps.step("the firmware in Rust: formatting and clippy", || rust_firmware::lint(deep))?;
    steps.step("fuzz targets", || {
        // Without libFuzzer, which is C++, they do not link.
        let fuzz = ["--manifest-path", "tests/fuzz/Cargo.toml", "--target-dir", "target"];
        // The program is one of them, and takes longer than all others.
        let features = if deep { "capi,program" } else { "capi" };
        cargo(&[&["check", "--no-default-features", "--features", features][..], &fuzz].concat())
    })?;
    steps.step("documentation", || cargo_with(&["doc", "--no-deps", "--lib"], &[("RUSTDOCFLAGS", "--deny warnings")]))
}

/// Everything that needs neither QEMU nor another compiler.
fn host(steps: &mut Steps) -> Result<(), Failed> {
    let (sizes, deep) = ([steps.sizes()], steps.deep);
    steps.step("tests on this machine", || cargo_with(&[&["test"], &model::PACKAGES[..]].concat(), &sizes))?;
    if deep {
        steps.step("tests of the chores", || cargo(&["test", "--package", "xtask"]))?;
    }
    steps.step("every interleaving of the pool's threads (loom)", || {
        let command =
            ["test", "--profile", "loom", "--lib", "--no-default-features", "--features", "std", "host::pool"];
        // A folder of its own, because the flag is every crate's and would have all of them built anew each time.
        let env = [("RUSTFLAGS", "--cfg loom"), ("CARGO_TARGET_DIR", "target/loom"), sizes[0]];
        tests(Command::new(env!("CARGO")).args(command).envs(env))
    })
}

/// What needs neither QEMU nor the model.
pub(crate) fn quick(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("unit tests", || cargo(&["test", "--lib", "--no-default-features", "--features", "std,log"]))?;
    steps.step("the model in f64", || {
        let command = ["test", "--no-default-features", "--features", "std", "--test", "it", "oracle::"];
        tests(Command::new(env!("CARGO")).args(command))
    })
}
