//! The project's chores: `cargo xtask setup` installs what the tests need, `cargo xtask test` runs all of them.

mod asm;
mod c_examples;
mod dist;
mod firmware;
mod header;
mod icount;
mod insns;
mod mca;
mod model;
mod process;
mod rust_firmware;
mod setup;

use process::{Failed, Steps, cargo};

/// Cores whose instructions the aarch64 tests are restricted to: Armv8.0 twice, with the dot product, and all there is.
const CPUS: [&str; 4] = ["cortex-a53", "cortex-a72", "cortex-a76", "max"];

const HELP: &str = "usage: cargo xtask COMMAND

  setup     install what the tests need: QEMU, C compilers, valgrind, Rust's aarch64 targets, the model
  test      setup, then every test: what CI runs
  lint      formatting, clippy, every combination of features that must build
  firmware  the library for firmware and the firmware of targets/, built, examined, and run under QEMU
  header    writes include/armlet.h from src/capi
  dist      the library for C, static and shared, with what pkg-config and CMake want, to target/dist/TRIPLE
            [--target TRIPLE]; by default for this machine
  c         dist here and for aarch64, and the examples in C and C++: built in every way, run, checked
  quick     the tests that need neither QEMU nor the model
  insns     millions of instructions per token on emulated cores, as a table
            [--cpu LIST] [--phase LIST] [--type LIST | --model FILE]; everything takes ten minutes;
            --check compares with what is allowed, by default one cheap cell
  model     what the real model says and scores, on every backend and emulated core
  mca       bytes of weights per cycle of each decode loop, by llvm-mca, to benches/record/mca.md
";

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut steps = Steps::default();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["setup"] => setup::run(&mut steps),
        ["test"] => test(&mut steps),
        ["lint"] => lint(&mut steps),
        ["quick"] => quick(&mut steps),
        ["dist"] => dist::run(&mut steps, None),
        ["dist", "--target", triple] => dist::run(&mut steps, Some(triple)),
        ["c"] => setup::run(&mut steps).and_then(|()| c_examples::run(&mut steps)),
        ["firmware"] => setup::run(&mut steps).and_then(|()| firmware::run(&mut steps)),
        ["model"] => setup::run(&mut steps).and_then(|()| model::run(&mut steps)),
        ["header"] => steps.step("include/armlet.h", header::write),
        ["mca"] => mca::run(&mut steps),
        ["insns", ref options @ ..] => match insns::Options::parse(options) {
            Ok(options) => insns::run(&mut steps, &options),
            Err(why) => return usage(&why),
        },
        ["help" | "--help" | "-h"] | [] => {
            print!("{HELP}");
            return std::process::ExitCode::SUCCESS;
        }
        _ => return usage("no such command"),
    };
    steps.end(result)
}

fn usage(why: &str) -> std::process::ExitCode {
    eprint!("xtask: {why}\n\n{HELP}");
    std::process::ExitCode::from(2)
}

/// Everything. Nothing is skipped: what is missing fails.
fn test(steps: &mut Steps) -> Result<(), Failed> {
    setup::run(steps)?;
    lint(steps)?;
    steps.step("tests on this machine", || cargo(&["test", "--workspace"]))?;
    steps.step("every order in which threads can meet", || {
        let command = ["test", "--release", "--lib", "--no-default-features", "--features", "std", "host::pool"];
        // A folder of its own, because the flag is every crate's and would have all of them built anew each time.
        process::cargo_with(&command, &[("RUSTFLAGS", "--cfg loom"), ("CARGO_TARGET_DIR", "target/loom")])
    })?;
    for cpu in CPUS {
        steps.step(&format!("kernels and core on {cpu}"), || {
            let runner = format!("qemu-aarch64 -cpu {cpu}");
            let command = ["test", "--lib", "--no-default-features", "--features", "std", "--target", setup::LINUX];
            process::cargo_with(&command, &[("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER", &runner)])
        })?;
    }
    // All that have kernels of their own run there, and the whole model on each.
    steps.step("the model in f64 on all of aarch64", || {
        let command = [
            "test",
            "--test",
            "it",
            "--no-default-features",
            "--features",
            "std",
            "--target",
            setup::LINUX,
            "oracle::",
        ];
        process::cargo_with(&command, &[("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER", "qemu-aarch64 -cpu max")])
    })?;
    c_examples::run(steps)?;
    model::run(steps)?;
    firmware::run(steps)?;
    insns::run(steps, &insns::Options::parse(&["--check"]).map_err(process::Failed)?)
}

/// What a change must pass before anything else.
fn lint(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("the C header", header::check)?;
    steps.step("formatting", || cargo(&["fmt", "--all", "--check"]))?;
    let deny = ["--", "--deny", "warnings"];
    steps.step("clippy", || cargo(&[&["clippy", "--workspace", "--all-targets"][..], &deny].concat()))?;
    steps.step("clippy on aarch64", || {
        let args = ["clippy", "--lib", "--no-default-features", "--features", "std,log", "--target", setup::LINUX];
        cargo(&[&args[..], &deny].concat())
    })?;
    steps.step("core without an operating system", || {
        let target = ["--target", setup::NONE];
        cargo(&[&["check", "--lib", "--no-default-features"][..], &target].concat())?;
        cargo(&[&["check", "--lib", "--no-default-features", "--features", "log,defmt"][..], &target].concat())
    })?;
    steps.step("the firmware in Rust: formatting and clippy", rust_firmware::lint)?;
    steps.step("all features", || cargo(&["build", "--all-features"]))?;
    steps.step("documentation", || {
        process::cargo_with(&["doc", "--no-deps", "--lib"], &[("RUSTDOCFLAGS", "--deny warnings")])
    })
}

fn quick(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("unit tests", || cargo(&["test", "--lib", "--no-default-features", "--features", "std,log"]))?;
    steps.step("oracle", || cargo(&["test", "--no-default-features", "--features", "std", "--test", "it", "oracle::"]))
}
