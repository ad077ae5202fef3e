//! Running commands, and saying what ran.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Why a step failed.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

/// The steps so far.
#[derive(Default)]
pub(crate) struct Steps {
    passed: usize,
}

impl Steps {
    /// Runs one step, with a line before and after it.
    pub(crate) fn step(&mut self, name: &str, run: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
        println!("==> {name}");
        let start = Instant::now();
        run().map_err(|Failed(why)| Failed(format!("{name}: {why}")))?;
        println!("==> {name}: passed in {:.0} s", start.elapsed().as_secs_f64());
        self.passed += 1;
        Ok(())
    }

    /// The last lines, and the exit code.
    pub(crate) fn end(self, result: Result<(), Failed>) -> ExitCode {
        if let Err(Failed(why)) = &result {
            eprintln!("xtask: {why}");
        }
        println!("{} passed, {} failed", self.passed, usize::from(result.is_err()));
        if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or(PathBuf::from("."), Path::to_path_buf)
}

/// The library's version: major, minor, patch.
pub(crate) fn version() -> Result<[String; 3], Failed> {
    let manifest =
        std::fs::read_to_string(root().join("Cargo.toml")).map_err(|e| Failed(format!("Cargo.toml: {e}")))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    let parts = version.unwrap_or_default().split('.').map(String::from).collect::<Vec<_>>();
    parts.try_into().map_err(|_| Failed("Cargo.toml: no version of three numbers".into()))
}

/// Runs a command in the project's folder; its output is the user's to see.
pub(crate) fn command(program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<(), Failed> {
    let status = Command::new(program).args(args).envs(env.iter().copied()).current_dir(root()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed(format!("`{program} {}` ended with {status}", args.join(" ")))),
        Err(e) => Err(Failed(format!("cannot run {program}: {e}"))),
    }
}

/// Runs a command and gives its stdout.
pub(crate) fn output(command: &mut Command) -> Result<String, Failed> {
    Ok(outputs(command)?.0)
}

/// Runs a command, in the project's folder if it names no other, and gives its stdout and its stderr.
pub(crate) fn outputs(command: &mut Command) -> Result<(String, String), Failed> {
    let shown = format!("{command:?}");
    if command.get_current_dir().is_none() {
        command.current_dir(root());
    }
    let output = command.output().map_err(|e| Failed(format!("cannot run {shown}: {e}")))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(Failed(format!("{shown} ended with {}: {}", output.status, stderr.trim())));
    }
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), stderr))
}

/// Writes a record to `benches/record`: a title, the command, of what code, and the text.
pub(crate) fn record(name: &str, title: &str, tools: &str, text: &str) -> Result<(), Failed> {
    let commit = output(Command::new("git").args(["rev-parse", "--short", "HEAD"]))?;
    let changes = output(Command::new("git").args(["status", "--porcelain", "src", "Cargo.lock"]))?;
    let changed = if changes.is_empty() { "" } else { " with changes" };
    let rustc = output(Command::new("rustc").arg("--version"))?;
    let (commit, rustc) = (commit.trim(), rustc.trim());
    let text = format!("# {title}\n\n`cargo xtask {name}`, commit {commit}{changed}, {rustc}, {tools}.\n\n{text}");
    let path = root().join("benches/record").join(name).with_extension("md");
    std::fs::write(&path, text).map_err(|e| Failed(format!("{}: {e}", path.display())))
}

pub(crate) fn cargo(args: &[&str]) -> Result<(), Failed> {
    cargo_with(args, &[])
}

pub(crate) fn cargo_with(args: &[&str], env: &[(&str, &str)]) -> Result<(), Failed> {
    command(env!("CARGO"), args, env)
}
