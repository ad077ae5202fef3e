//! Counting the instructions of an emulated core, with a plugin of QEMU that is compiled here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::model::aarch64_program;
use crate::process::{Failed, output, outputs, root};
use crate::setup::{self, Need};

/// A C compiler, for the plugin.
const COMPILER: Need = (&["cc", "--version"], "gcc");

/// What a run executed, and the tokens that it read and wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) instructions: u64,
    pub(crate) prompt: u64,
    pub(crate) generated: u64,
}

/// Compiles the plugin for the QEMU that is installed.
pub(crate) fn plugin() -> Result<PathBuf, Failed> {
    setup::packages(&[COMPILER])?;
    let version = output(Command::new("qemu-aarch64").arg("--version"))?;
    let api = if major(&version).ok_or(Failed(format!("no version in {version:?}")))? < 9 { 1 } else { 2 };
    let path = root().join("target/icount.so");
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-shared", "-fPIC", &format!("-DQEMU_PLUGIN_VERSION={api}"), "xtask/plugin/icount.c", "-o"]);
    output(compile.arg(&path))?;
    Ok(path)
}

/// 7, of `qemu-aarch64 version 7.2.22 (Debian …)`.
fn major(version: &str) -> Option<u32> {
    version.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// The instructions of a whole run of a program on an emulated core.
pub(crate) fn whole(plugin: &Path, cpu: &str, program: &Path, args: &[&str]) -> Result<u64, Failed> {
    let mut command = Command::new("qemu-aarch64");
    counted(command.args(["-cpu", cpu, "-plugin"]).arg(plugin).arg(program).args(args))
}

/// The instructions of what runs under QEMU with the plugin.
pub(crate) fn counted(command: &mut Command) -> Result<u64, Failed> {
    let (_, stderr) = outputs(command)?;
    number(&stderr, COUNT).ok_or_else(|| Failed(format!("no count in {stderr:?}")))
}

/// The instructions of each thread of a program, in the order in which they began; those of threads that end before the last one
/// begins are not told apart.
pub(crate) fn threads(plugin: &Path, cpu: &str, program: &Path, args: &[&OsStr]) -> Result<Vec<u64>, Failed> {
    let mut command = Command::new("qemu-aarch64");
    command.args(["-cpu", cpu, "-plugin"]).arg(plugin).arg(program).args(args);
    let (_, stderr) = outputs(&mut command)?;
    Ok(of_threads(&stderr))
}

/// The counts of the plugin, by thread.
fn of_threads(stderr: &str) -> Vec<u64> {
    let count = |line: &str| line.strip_prefix(THREAD)?.split_once(": ")?.1.parse().ok();
    stderr.lines().filter_map(count).collect()
}

/// Continues `prompt` by `tokens` tokens on one thread of an emulated core.
pub(crate) fn complete(plugin: &Path, cpu: &str, model: &Path, prompt: &str, tokens: u32) -> Result<Run, Failed> {
    let mut command = Command::new("qemu-aarch64");
    command.args(["-cpu", cpu, "-plugin"]).arg(plugin).arg(aarch64_program());
    command.args([
        "complete",
        "-t",
        "1",
        "--temp",
        "0",
        "--json",
        "--speculate",
        "off",
        "-n",
        &tokens.to_string(),
        "-p",
        prompt,
        "-m",
    ]);
    let (json, stderr) = outputs(command.arg(model).env_remove("ARMLET_CPU"))?;
    parse(&json, &stderr).ok_or_else(|| Failed(format!("no counts in {json:?} and {stderr:?}")))
}

/// What stands before the count of the plugin.
const COUNT: &str = "guest instructions: ";
/// And before that of a thread.
const THREAD: &str = "guest instructions of thread ";

/// The number behind the last `before`.
fn number(text: &str, before: &str) -> Option<u64> {
    let text = text.rsplit_once(before)?.1.trim_start();
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn parse(json: &str, stderr: &str) -> Option<Run> {
    Some(Run {
        instructions: number(stderr, COUNT)?,
        prompt: number(json, "\"prompt_n\":")?,
        generated: number(json, "\"predicted_n\":")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_both_streams() {
        let json =
            r#"{"text":"\"prompt_n\": 7","stop":"length","timings":{"prompt_n":32,"prompt_ms":5.5,"predicted_n":2}}"#;
        let run = Run { instructions: 232944986, prompt: 32, generated: 2 };
        assert_eq!(parse(json, "a warning\nguest instructions: 232944986\n"), Some(run));
        assert_eq!(parse(json, "a warning\n"), None);
        let threads = "guest instructions of thread 0: 5\nguest instructions of thread 1: 7\nguest instructions: 12\n";
        assert_eq!((of_threads(threads), number(threads, COUNT)), (vec![5, 7], Some(12)));
        assert_eq!(parse("", "guest instructions: 1\n"), None);
    }

    #[test]
    fn the_major_version_of_qemu() {
        assert_eq!(major("qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"), Some(7));
        assert_eq!(major("qemu-aarch64 version 10.0.2"), Some(10));
        assert_eq!(major("something else"), None);
    }
}
