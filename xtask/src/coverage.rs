//! `cargo xtask coverage`: the share of lines that tests run, of what reads files that are not trusted.
//!
//! Lines of tests that stand beside the code do not count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dist::at;
use crate::package::anew;
use crate::process::{Failed, Steps, outcome, output, outputs, root, say, tests};
use crate::setup;

/// A part of the code, and the files of it: one, or all of a folder.
struct Group {
    name: &'static str,
    files: &'static [&'static str],
}

const GROUPS: [Group; 3] = [
    Group { name: "gguf", files: &["src/gguf/"] },
    Group { name: "restore", files: &["src/engine/header.rs", "src/engine/snapshot.rs", "src/engine/prefix.rs"] },
    Group {
        name: "template limits",
        files: &["src/bin/armlet/template/renderer.rs", "src/bin/armlet/template/engine.rs"],
    },
];
/// The least share of lines of each.
const LEAST: f64 = 0.95;

/// The tests that are about it: of the library and the program beside their code, and of `tests/it`.
const TESTS: [(&str, &[&str]); 3] = [
    ("--lib", &["gguf::", "engine::"]),
    ("--bin=armlet", &["template::"]),
    ("--test=it", &["gguf_rules::", "saving::", "templates::", "capi::", "split_files::", "fuzz::"]),
];

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("LLVM's tools", || setup::rustup(&["component", "add", "llvm-tools"]))?;
    steps.step("coverage of what reads files", || check(&measure()?))
}

/// Runs the tests, and gives how often each line of each file ran.
fn measure() -> Result<BTreeMap<String, Lines>, Failed> {
    let target = root().join("target/coverage");
    let profiles = target.join("profiles");
    anew(&profiles)?;
    let cargo = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.arg("test").args(words).env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
        // A file for each process: one that is ended while it writes spoils no other's.
        command.env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"));
        command.env("RUSTFLAGS", "-C instrument-coverage");
        command
    };
    let kinds = TESTS.map(|(kind, _)| kind);
    let (_, built) = outputs(&mut cargo(&[&["--no-run"][..], &kinds].concat()))?;
    let mut programs = executables(&built);
    programs.push(target.join("debug/armlet"));
    for (kind, names) in TESTS {
        tests(&mut cargo(&[&[kind, "--"], names].concat()))?;
    }
    let profile = merge(&profiles)?;
    let mut export = Command::new(tool("llvm-cov")?);
    export.args(["export", "--format=lcov", "--instr-profile"]).arg(&profile);
    // The first is the program where it is not behind an option, so not one of the sources.
    let (first, others) = programs.split_last().ok_or_else(|| Failed("no program with tests was built".into()))?;
    others.iter().for_each(|program| {
        export.arg("--object").arg(program);
    });
    let sources = GROUPS.iter().flat_map(|group| group.files).map(|file| root().join(file));
    Ok(lines(&output(export.arg(first).args(sources))?))
}

/// The programs of tests that `cargo test --no-run` names: `Executable tests/it/main.rs (target/debug/deps/it-0123)`.
fn executables(said: &str) -> Vec<PathBuf> {
    let named = said.lines().filter(|line| line.trim_start().starts_with("Executable "));
    named.filter_map(|line| line.rsplit_once('(')?.1.strip_suffix(')')).map(|path| root().join(path)).collect()
}

/// All that ran, as one profile. What a process that was ended left unfinished is left out.
fn merge(profiles: &Path) -> Result<PathBuf, Failed> {
    let merged = profiles.join("all.profdata");
    let entries = fs::read_dir(profiles).map_err(at(profiles))?.filter_map(|entry| Some(entry.ok()?.path()));
    let whole: Vec<PathBuf> = entries.filter(|path| path.metadata().is_ok_and(|found| found.len() > 0)).collect();
    let list = profiles.join("list");
    let text: String = whole.iter().map(|path| format!("{}\n", path.display())).collect();
    fs::write(&list, text).map_err(at(&list))?;
    let mut merge = Command::new(tool("llvm-profdata")?);
    merge.args(["merge", "--sparse", "--failure-mode=all", "--input-files"]).arg(&list).arg("--output").arg(&merged);
    let result = outcome(&mut merge)?;
    if result.status.success() { Ok(merged) } else { Err(Failed(String::from_utf8_lossy(&result.stderr).into_owned())) }
}

/// One of the compiler's own tools: the format of a profile is that of its LLVM.
fn tool(name: &str) -> Result<PathBuf, Failed> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let host = crate::dist::host()?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin").join(name))
}

/// How often each line ran.
type Lines = BTreeMap<usize, u64>;

/// Reads LCOV's text: `SF:` names a file, and `DA:` a line of it and how often it ran.
fn lines(lcov: &str) -> BTreeMap<String, Lines> {
    let (mut found, mut file) = (BTreeMap::<String, Lines>::new(), String::new());
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            let path = Path::new(path);
            file = path.strip_prefix(root()).unwrap_or(path).display().to_string();
        } else if let Some((number, count)) = line.strip_prefix("DA:").and_then(|rest| rest.split_once(','))
            && let (Ok(number), Ok(count)) = (number.parse(), count.parse::<u64>())
        {
            *found.entry(file.clone()).or_default().entry(number).or_default() += count;
        }
    }
    found
}

/// A share for each group, and the lines that no test runs.
fn check(found: &BTreeMap<String, Lines>) -> Result<(), Failed> {
    let mut low = Vec::new();
    for Group { name, files } in GROUPS {
        let (mut all, mut ran) = (0, 0);
        for (path, lines) in found.iter().filter(|(path, _)| files.iter().any(|file| path.starts_with(file))) {
            let source = fs::read_to_string(root().join(path)).map_err(|e| Failed(format!("{path}: {e}")))?;
            let end = own(&source);
            let lines: Vec<_> = lines.iter().filter(|(number, _)| **number <= end).collect();
            let missed: Vec<String> = lines.iter().filter(|(_, n)| **n == 0).map(|(at, _)| at.to_string()).collect();
            (all, ran) = (all + lines.len(), ran + lines.len() - missed.len());
            say(format!("    {path}: {} of {}, not {}", lines.len() - missed.len(), lines.len(), missed.join(" ")));
        }
        let share = ran as f64 / all as f64;
        say(format!("    {name}: {ran} of {all} lines, {:.1} %", 100.0 * share));
        // Also where there is nothing: a name may have changed.
        if share.is_nan() || share < LEAST {
            low.push(name);
        }
    }
    if low.is_empty() { Ok(()) } else { Err(Failed(format!("under {} %: {}", 100.0 * LEAST, low.join(", ")))) }
}

/// How many lines of a file are before its tests.
fn own(source: &str) -> usize {
    let tests = source.find("#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    source[..tests].lines().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_lcov() {
        let root = root();
        let text = format!("SF:{}/src/a.rs\nFN:1,f\nDA:1,3\nDA:2,0\nend_of_record\nSF:/b.rs\nDA:7,1\n", root.display());
        let found = lines(&text);
        assert_eq!(found["src/a.rs"], Lines::from([(1, 3), (2, 0)]));
        assert_eq!(found["/b.rs"], Lines::from([(7, 1)]));
    }

    #[test]
    fn programs_and_tests_are_told_apart() {
        let said = "   Compiling a\n  Executable unittests src/lib.rs (target/debug/deps/armlet-1)\n    Finished x\n";
        assert_eq!(executables(said), [root().join("target/debug/deps/armlet-1")]);
        assert_eq!(own("a\nb\n\n#[cfg(test)]\nmod tests {\n}\n"), 3);
        assert_eq!(own("#[cfg(test)]\nmod golden;\na\n"), 3);
    }

    #[test]
    fn too_little_coverage_fails() {
        let all = |count: u64| {
            let files = GROUPS.iter().map(|group| match group.files[0] {
                "src/gguf/" => "src/gguf/mod.rs",
                file => file,
            });
            files.map(|file| (file.to_string(), Lines::from([(1, 1), (2, count)]))).collect::<BTreeMap<_, _>>()
        };
        assert!(check(&all(1)).is_ok());
        assert!(check(&all(0)).is_err_and(|Failed(why)| why.contains("gguf, restore, template limits")));
        assert!(check(&BTreeMap::new()).is_err());
    }
}
