//! `cargo xtask attack`: malformed files through every command that reads one (`tests/attack`), as many as wanted.
//!
//! The program is optimised, with overflow checks and debug assertions, or any that `--program` names.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{Failed, Steps, cargo, root, show};

/// What files, and through how many commands.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    files: u64,
    seed: u64,
    /// Every file goes through every command that reads it, instead of through one of them.
    every: bool,
    program: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse(options: &[&str]) -> Result<Self, String> {
        let mut found = Options { files: 100_000, seed: 1, every: false, program: None };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let mut text = || options.next().ok_or(format!("attack: {option} needs a value"));
            let mut number = || {
                let text = text()?;
                text.parse().map_err(|_| format!("attack: {option} {text} is no number"))
            };
            match *option {
                "--files" => found.files = number()?,
                "--seed" => found.seed = number()?,
                "--program" => found.program = Some(std::path::absolute(text()?).map_err(|e| e.to_string())?),
                "--every" => found.every = true,
                other => return Err(format!("attack: {other} is not an option")),
            }
        }
        Ok(found)
    }
}

pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<(), Failed> {
    let Options { files, seed, every, program } = options;
    let program = match program {
        Some(program) => program.clone(),
        None => optimised(steps)?,
    };
    steps.step(&format!("{files} malformed files of seed {seed}"), || {
        let mut command = Command::new(env!("CARGO"));
        command.args(["test", "--test", "attack", "--", "--nocapture", "malformed_files_do_no_harm"]);
        command.env("ARMLET_ATTACK_FILES", files.to_string()).env("ARMLET_ATTACK_SEED", seed.to_string());
        command.env("ARMLET_ATTACK_PROGRAM", program).env("ARMLET_ATTACK_OPTIMISED", "1");
        if *every {
            command.env("ARMLET_ATTACK_EVERY", "1");
        }
        show(&mut command)
    })
}

/// The program as it is released, with every check on, in a folder of its own.
fn optimised(steps: &mut Steps) -> Result<PathBuf, Failed> {
    let folder = "target/attack";
    let checks = ["overflow-checks", "debug-assertions"].map(|c| format!("profile.release.package.armlet.{c}=true"));
    let words = ["build", "--release", "--bin", "armlet", "--target-dir", folder];
    let more = checks.iter().flat_map(|check| ["--config", check]);
    steps.step("the program, with checks", || cargo(&words.into_iter().chain(more).collect::<Vec<_>>()))?;
    Ok(root().join(folder).join("release/armlet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parsed = Options::parse(&["--seed", "7", "--every", "--files", "12", "--program", "/x"]);
        assert_eq!(parsed, Ok(Options { files: 12, seed: 7, every: true, program: Some("/x".into()) }));
        for bad in [&["--files"][..], &["--files", "x"], &["--more"]] {
            assert!(Options::parse(bad).is_err(), "{bad:?}");
        }
    }
}
