//! The firmware in Rust: built, run by QEMU on whole emulated machines, and its `defmt` log read back.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::model::in_format;
use crate::process::{Failed, Steps, finish, in_parallel, root, show, wait};
use crate::setup::NONE;

/// Cores of the boards that the firmware is for.
const CPUS: [&str; 3] = ["cortex-a53", "cortex-a72", "cortex-a76"];
/// Where the loader puts the model and its length: `targets/rust/src/board.rs`.
const MODEL: (&str, &str) = ("0x48000000", "0x401ffff0");
/// A machine that hangs is stopped after this many seconds; an answer takes ten.
const PATIENCE: &str = "600";

/// How lines begin and end that an answer logs: armlet's own messages, an error as a value, and the answer.
const ANSWER: [(&str, &str); 4] = [
    ("DEBUG model: ", " bytes of tables"),
    ("DEBUG kernels: neon", ""),
    ("WARN refused: Engine(Config { name: \"context\", value: 8193, min: 1, max: 8192 })", ""),
    ("INFO answer: The capital of France is Paris.", ""),
];
/// Without a model: a panic, and what it says.
const NO_MODEL: [(&str, &str); 2] =
    [("ERROR panicked at src/board.rs:", ""), ("no model at 0x48000000, or no length at 0x401ffff0", "")];
/// With a file that is none: an error of armlet, which ends the program.
const NO_GGUF: [(&str, &str); 1] = [("ERROR Gguf(GgufError { problem: Magic, offset: 0 })", "")];

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("the firmware in Rust", || {
        show(cargo().args(["build", "--release"]))?;
        show(cargo().args(["build", "--package", "decode", "--target", "host-tuple"]))?;
        ends(CPUS[0], None, 101, &NO_MODEL)?;
        ends(CPUS[0], Some(&root().join("README.md")), 1, &NO_GGUF)
    })?;
    let model = in_format("q4_1")?;
    steps.step("an answer of the firmware in Rust", || {
        in_parallel(&CPUS, |cpu| ends(cpu, Some(&model), 0, &ANSWER)).map(drop)
    })
}

/// Formatting and clippy, for the firmware and, in full size, for the decoder of its log.
pub(crate) fn lint(deep: bool) -> Result<(), Failed> {
    // By name: `--all` would format armlet, too.
    show(cargo().args(["fmt", "--package", "armlet-firmware", "--package", "decode", "--check"]))?;
    let deny = ["--", "--deny", "warnings"];
    show(cargo().args(["clippy", "--release"]).args(deny))?;
    // Half a minute for the crates that thirty lines need.
    if deep {
        show(cargo().args(["clippy", "--package", "decode", "--target", "host-tuple"]).args(deny))
    } else {
        Ok(())
    }
}

/// Cargo in the firmware's folder, with the flags configured there: those of the environment would replace them.
fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root().join("targets/rust")).env_remove("RUSTFLAGS").env_remove("DEFMT_LOG");
    command
}

fn elf() -> PathBuf {
    root().join("targets/rust/target").join(NONE).join("release/armlet-firmware")
}

/// Runs the firmware, with a file where it expects the model: it must exit with `code` and log `lines`.
fn ends(cpu: &str, model: Option<&Path>, code: i32, lines: &[(&str, &str)]) -> Result<(), Failed> {
    let mut qemu = Command::new("timeout");
    qemu.args([PATIENCE, "qemu-system-aarch64", "-M", "virt", "-cpu", cpu, "-m", "256M"]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "none", "-nic", "none"]);
    qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(elf());
    if let Some(file) = model {
        let bytes = file.metadata().map_err(|e| Failed(format!("{}: {e}", file.display())))?.len();
        qemu.args(["-device", &format!("loader,file={},addr={},force-raw=on", file.display(), MODEL.0)]);
        qemu.args(["-device", &format!("loader,addr={},data={bytes},data-len=8", MODEL.1)]);
    }
    let failed = |e| Failed(format!("cannot run qemu-system-aarch64 and the decoder: {e}"));
    let mut machine = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    // The decoder fails if a frame is not one of this ELF file.
    let frames = machine.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let mut decode = cargo();
    decode.arg("decode").arg(elf()).stdin(frames).stdout(Stdio::piped()).stderr(Stdio::piped());
    let decoded = decode.spawn().and_then(finish).map_err(failed)?;
    let log = String::from_utf8_lossy(&decoded.stdout).into_owned();
    if !decoded.status.success() {
        let why = String::from_utf8_lossy(&decoded.stderr);
        return Err(Failed(format!("the log's decoder ended with {}: {}", decoded.status, why.trim())));
    }
    let status = wait(machine).map_err(failed)?;
    if status.code() != Some(code) {
        return Err(Failed(format!("the firmware ended with {status}, not {code}; its log: {log}")));
    }
    for (start, end) in lines {
        // Before the level is the time; a message may have several lines.
        let said = |line: &str| {
            let message = line.split_once(' ').filter(|(time, _)| time.contains(':')).map_or(line, |(_, rest)| rest);
            message.starts_with(start) && message.ends_with(end)
        };
        if !log.lines().any(said) {
            return Err(Failed(format!("the firmware did not log \"{start}…{end}\"; its log: {log}")));
        }
    }
    Ok(())
}
