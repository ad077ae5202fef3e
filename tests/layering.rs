//! The folder tree is the architecture: imports go down only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Layers from the bottom up. A module may use those in lines above its own, and in its own line those before it.
const LAYERS: [&[&str]; 9] = [
    &["util"],
    &["storage", "quant"],
    &["gguf", "arch"],
    &["tokenizer", "model", "sample"],
    &["engine"],
    &["error"],
    &["capi"],
    &["host"],
    &["bin"],
];

/// Modules that may hold `unsafe`, as files or folders under `src`.
const UNSAFE: [&str; 6] = ["arch", "capi", "storage/arena.rs", "storage/parallel.rs", "host/mmap.rs", "host/pool.rs"];

fn rank(module: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(i, layer)| Some((i, layer.iter().position(|m| *m == module)?)))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// (path under src, text) of every source file.
fn all() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let name = |p: &Path| p.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
    files.iter().map(|p| (name(p), std::fs::read_to_string(p).unwrap())).collect()
}

/// The top module of a file: its folder, or its name.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Modules that a text names after `crate::` (or, in the program, after `armlet::`).
fn imports<'t>(text: &'t str, root: &str) -> BTreeSet<&'t str> {
    let names = text.match_indices(root).map(|(at, _)| &text[at + root.len()..]);
    names.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()).collect()
}

fn check(file: &str, text: &str) -> Vec<String> {
    let own = module(file);
    let Some(own_rank) = rank(own) else { return vec![format!("{file}: {own} is in no layer")] };
    let root = if own == "bin" { "armlet::" } else { "crate::" };
    let known = imports(text, root).into_iter().filter_map(|m| Some((m, rank(m)?)));
    known.filter(|(m, r)| *m != own && *r >= own_rank).map(|(m, _)| format!("{file} uses {m}")).collect()
}

#[test]
fn imports_go_down_only() {
    let files = all();
    let wrong: Vec<_> = files
        .iter()
        .filter(|(f, _)| !["lib.rs", "fmt.rs"].contains(&f.as_str()))
        .flat_map(|(f, t)| check(f, t))
        .collect();
    assert!(files.len() > 40 && wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_check_sees_an_import_that_goes_up() {
    assert_eq!(check("quant/mod.rs", "use crate::model::Model;"), ["quant/mod.rs uses model"]);
    assert_eq!(check("tokenizer/mod.rs", "use crate::model::Model;"), ["tokenizer/mod.rs uses model"]);
    assert!(check("model/mod.rs", "use crate::tokenizer::Tokenizer; use crate::storage::Arena;").is_empty());
    assert!(!check("newcomer.rs", "").is_empty());
}

#[test]
fn unsafe_code_stays_on_its_islands() {
    for (file, text) in all() {
        let island = UNSAFE.iter().any(|u| file == *u || file.starts_with(&format!("{u}/")));
        assert!(island || !text.contains("allow(unsafe_code)"), "{file} allows unsafe code");
    }
}

#[test]
fn the_core_is_no_std_and_has_no_alloc() {
    for (file, text) in all() {
        let hosted = ["host", "bin"].contains(&module(&file)) || file == "lib.rs";
        // Tests of the core may use std; they are the last item of a file, or a file of their own.
        let core = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let exempt = hosted || file.ends_with("tests.rs") || file.contains("/tests/") || file == "arch/aarch64/cpu.rs";
        assert!(exempt || !core.contains("std::"), "{file} uses std");
        assert!(!text.contains("extern crate alloc"), "{file} uses alloc");
    }
}

/// Calls of vector operations within closures: `unroll.rs` says what they cost.
fn operations_in_closures(text: &str) -> Vec<&str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let closure = |line: &str| {
        // After `|arguments|`, which a bitwise or has not.
        let start = line.find("(|").or_else(|| line.find(", |")).or_else(|| line.find("= |"))?;
        line[start + 3..].find('|').map(|end| start + 3 + end)
    };
    let operates = |body: &str| ["isa.", "self.load", "_mm", "(isa,", "(isa)"].iter().any(|o| body.contains(o));
    code.filter(|line| closure(line).is_some_and(|at| operates(&line[at..]))).collect()
}

#[test]
fn no_vector_operation_is_called_in_a_closure() {
    let generic = |f: &str| {
        let folder = f.starts_with("arch/generic/") || f.starts_with("arch/x86_64/");
        folder || f == "arch/isa.rs" || f == "arch/pair.rs"
    };
    let files: Vec<_> = all().into_iter().filter(|(f, _)| generic(f)).collect();
    let wrong: Vec<_> =
        files.iter().flat_map(|(f, t)| operations_in_closures(t).into_iter().map(move |l| (f, l))).collect();
    assert!(files.len() > 10 && wrong.is_empty(), "{wrong:#?}");
    assert_eq!(operations_in_closures("let x = v.map(|v| isa.abs8(v));").len(), 1);
    assert_eq!(operations_in_closures("let m = at.map_or(d, |at| isa.scales(at));").len(), 1);
    assert_eq!(operations_in_closures("let x = acc.map(|acc| acc.first(isa));").len(), 1);
    assert_eq!(operations_in_closures("let x = array!(i in 0..4 => isa.abs8(v[i]));").len(), 0);
}
