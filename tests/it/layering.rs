//! The folder tree is the architecture: imports go down only, and no two files import each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Layers from the bottom up. A module may use those in lines above its own, and in its own line those before it.
const LAYERS: [&[&str]; 10] = [
    &["util"],
    &["storage", "quant"],
    &["gguf", "arch", "boards"],
    &["tokenizer", "model", "sample"],
    &["engine"],
    &["error"],
    &["generation"],
    &["capi"],
    &["host"],
    &["bin"],
];

/// Modules that may hold `unsafe`, as files or folders under `src`.
const UNSAFE: [&str; 9] = [
    "arch",
    "capi",
    "storage/arena.rs",
    "storage/tiles.rs",
    "host/mmap.rs",
    "host/pool.rs",
    // Open maps.
    "bin/armlet/model.rs",
    "bin/armlet/parts",
    // A signal handler and an allocator that end the program in one line.
    "bin/armlet/fatal.rs",
];

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
        assert!(
            island || !["allow(unsafe_code", "expect(unsafe_code"].iter().any(|a| text.contains(a)),
            "{file} allows unsafe code"
        );
    }
}

/// The wall clock may jump, or stand before 1970, where chrono's own `now` panics.
#[test]
fn one_file_reads_the_wall_clock() {
    let reads = |text: &str| ["SystemTime::now", "Utc::now", "Local::now"].iter().any(|now| text.contains(now));
    let found: Vec<_> = all().into_iter().filter(|(_, text)| reads(text)).map(|(file, _)| file).collect();
    assert_eq!(found, ["bin/armlet/clock.rs"]);
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
    let operates = |body: &str| {
        ["isa.", "self.load", "_mm", "(isa,", "(isa)", "simd!(", ".avx2()"].iter().any(|o| body.contains(o))
    };
    code.filter(|line| closure(line).is_some_and(|at| operates(&line[at..]))).collect()
}

#[test]
fn no_vector_operation_is_called_in_a_closure() {
    let generic = |f: &str| {
        let folder = f.starts_with("arch/generic/") || f.starts_with("arch/x86_64/");
        folder || f == "arch/isa.rs" || f == "arch/f32x16.rs"
    };
    let files: Vec<_> = all().into_iter().filter(|(f, _)| generic(f)).collect();
    let wrong: Vec<_> =
        files.iter().flat_map(|(f, t)| operations_in_closures(t).into_iter().map(move |l| (f, l))).collect();
    assert!(files.len() > 10 && wrong.is_empty(), "{wrong:#?}");
    assert_eq!(operations_in_closures("let x = v.map(|v| isa.abs8(v));").len(), 1);
    assert_eq!(operations_in_closures("let m = at.map_or(d, |at| isa.scales(at));").len(), 1);
    assert_eq!(operations_in_closures("let x = acc.map(|acc| acc.first(isa));").len(), 1);
    assert_eq!(operations_in_closures("let x = unroll_array!(i in 0..4 => isa.abs8(v[i]));").len(), 0);
}

/// The import graph of source files.
///
/// A path is followed to the file that defines its first name that is no module: through re-exports, and through what a
/// module imports for itself, because its children see that too. A re-export is no edge of the file that has it. Only
/// paths count, so what a method of a type in another file needs is that file's business.
#[derive(Default)]
struct Graph {
    /// Modules by their path; the program's start with `bin`.
    modules: BTreeMap<Vec<String>, Module>,
}

struct Module {
    file: String,
    text: String,
    uses: Vec<Use>,
}

/// One name of a `use`, with braces expanded; `*` for all names.
#[derive(Clone, Debug, PartialEq)]
struct Use {
    path: Vec<String>,
    name: String,
    exported: bool,
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(|s| s.trim().to_string()).filter(|s| !s.is_empty()).collect()
}

/// `a::{b, c::d as e}` as its paths, each with the name that it gets.
fn expand(prefix: &[String], tree: &str, exported: bool, found: &mut Vec<Use>) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let prefix = [prefix, &segments(head)].concat();
        let (mut depth, mut start) = (0, 0);
        let group = &group[..group.rfind('}').unwrap()];
        for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&prefix, &group[start..at], exported, found);
                    start = at + 1;
                }
                _ => {}
            }
        }
    } else if !tree.is_empty() {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path = [prefix, &segments(path)].concat();
        if path.len() > 1 && path.last().is_some_and(|s| s == "self") {
            path.pop();
        }
        let name = if alias.is_empty() { path.last().unwrap().clone() } else { alias.trim().to_string() };
        found.push(Use { path, name, exported });
    }
}

/// The code of a file without comments and tests, and its `use` declarations, which are cut out of the code.
fn parse(text: &str) -> (String, Vec<Use>) {
    let text = text.split("mod tests {").next().unwrap();
    let (mut code, mut uses, mut pending) = (String::new(), Vec::new(), None::<String>);
    for line in text.lines().map(|line| line.split("//").next().unwrap()) {
        let words = line.trim_start();
        let public = words.starts_with("pub");
        let visibility = words.find(if words.starts_with("pub(") { ") " } else { " " }).map_or(0, |at| at + 1);
        let item = if public { words[visibility..].trim_start() } else { words };
        if pending.is_none() && item.starts_with("use ") {
            pending = Some(if public { "pub".into() } else { String::new() });
        }
        let Some(declaration) = &mut pending else {
            code += if public { item } else { line };
            code.push('\n');
            continue;
        };
        declaration.push_str(if line.contains("use ") { item } else { line });
        if let Some(tree) = declaration.strip_suffix(';').map(str::to_string) {
            let (exported, tree) = tree.split_once("use ").unwrap();
            expand(&[], tree, !exported.is_empty(), &mut uses);
            pending = None;
        }
    }
    (code, uses)
}

impl Graph {
    fn new(files: &[(String, String)]) -> Self {
        let mut graph = Graph::default();
        for (file, text) in files.iter().filter(|(f, _)| !f.contains("/tests/") && !f.ends_with("tests.rs")) {
            let path = file.trim_end_matches(".rs").replace("bin/armlet", "bin");
            let mut path: Vec<String> = path.split('/').map(str::to_string).collect();
            if path.last().is_some_and(|s| ["mod", "lib", "main"].contains(&s.as_str())) {
                path.pop();
            }
            let (text, uses) = parse(text);
            graph.modules.insert(path, Module { file: file.clone(), text, uses });
        }
        graph
    }

    /// The path from the root of what `path` says in `module`; none for another crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let (first, tail) = path.split_first()?;
        let start = match first.as_str() {
            "crate" => &module[..usize::from(module.first().is_some_and(|m| m == "bin"))],
            "self" => module,
            "super" => &module[..module.len().checked_sub(1)?],
            _ if self.modules.contains_key(&[module, std::slice::from_ref(first)].concat()) => {
                return Some([module, path].concat());
            }
            _ => return None,
        };
        if tail.first().is_some_and(|s| s == "super") {
            self.absolute(start, tail)
        } else {
            Some([start, tail].concat())
        }
    }

    /// The file in which what has this absolute path is defined.
    fn resolve(&self, path: &[String], depth: usize) -> Option<&Module> {
        let known = (0..=path.len()).rev().find(|n| self.modules.contains_key(&path[..*n]))?;
        let (own, module) = (&path[..known], &self.modules[&path[..known]]);
        let Some(name) = path.get(known).filter(|name| !module.defines(name) && depth < 8) else { return Some(module) };
        let follow = |u: &Use| self.resolve(&self.absolute(own, &u.path)?, depth + 1);
        if let Some(target) = module.uses.iter().filter(|u| u.name == *name).find_map(follow) {
            return Some(target);
        }
        let globs = module.uses.iter().filter(|u| u.name == "*").filter_map(|u| {
            let from = self.absolute(own, u.path.split_last()?.1)?;
            self.resolve(&[&from[..], std::slice::from_ref(name)].concat(), depth + 1).filter(|m| m.defines(name))
        });
        globs.into_iter().next().or(Some(module))
    }

    /// (file, file that it uses)
    fn edges(&self) -> BTreeSet<(&str, &str)> {
        let mut edges = BTreeSet::new();
        for (own, module) in &self.modules {
            let imports = module.uses.iter().filter(|u| !u.exported).map(|u| u.path.clone());
            for path in imports.chain(module.paths()) {
                let target = self.absolute(own, &path).and_then(|path| self.resolve(&path, 0));
                edges.extend(target.map(|t| (module.file.as_str(), t.file.as_str())));
            }
        }
        edges.retain(|(from, to)| from != to);
        edges
    }

    /// The edges between files that use each other, directly or through others.
    fn circles(&self) -> Vec<String> {
        let edges = self.edges();
        let reaches = |from: &str, to: &str| {
            let (mut seen, mut queue) = (BTreeSet::new(), vec![from]);
            while let Some(file) = queue.pop() {
                queue.extend(edges.iter().filter(|(f, t)| *f == file && seen.insert(*t)).map(|(_, t)| *t));
            }
            seen.contains(to)
        };
        edges.iter().filter(|(from, to)| reaches(to, from)).map(|(from, to)| format!("{from} uses {to}")).collect()
    }
}

impl Module {
    fn defines(&self, name: &str) -> bool {
        let kinds = ["struct", "enum", "union", "trait", "fn", "const", "static", "type", "macro_rules!", "mod"];
        let ends = |text: &str| !text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        kinds.iter().any(|kind| {
            let item = format!("{kind} {name}");
            // `*const name` is a pointer's type.
            let defined = |at: usize| !self.text[..at].ends_with('*') && ends(&self.text[at + item.len()..]);
            self.text.match_indices(&item).any(|(at, _)| defined(at))
        })
    }

    /// Paths in the code that start with a word.
    fn paths(&self) -> impl Iterator<Item = Vec<String>> {
        let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        self.text.split(move |c| !part(c)).filter(|word| word.contains("::") && !word.starts_with(':')).map(segments)
    }
}

#[test]
fn no_files_use_each_other() {
    let graph = Graph::new(&all());
    assert!(graph.modules.len() > 80 && graph.edges().len() > 200, "{:#?}", graph.edges());
    let circles = graph.circles();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_check_sees_a_circle() {
    let file = |name: &str, text: &str| (name.to_string(), text.to_string());
    let circles = |files: &[(String, String)]| Graph::new(files).circles();
    let sound = [
        file("lib.rs", "pub mod a;\npub mod b;"),
        file("a/mod.rs", "mod x;\nmod y;\npub use x::X;\npub use y::*;"),
        file("a/x.rs", "use super::Y;\npub struct X(Y);"),
        file("a/y.rs", "//! See super::X.\npub struct Y;\n#[cfg(test)]\nmod tests {\n    use super::super::X;\n}"),
        file("b.rs", "use crate::a::{X, y::{Y as Z}};\npub fn f(_: X) -> Z { crate::a::Y }"),
    ];
    assert_eq!(circles(&sound), [""; 0]);
    let edges: Vec<(String, String)> =
        Graph::new(&sound).edges().iter().map(|(f, t)| (f.to_string(), t.to_string())).collect();
    assert_eq!(edges, [file("a/x.rs", "a/y.rs"), file("b.rs", "a/x.rs"), file("b.rs", "a/y.rs")]);
    // Each of these closes a circle: two files, through a re-export, through mod.rs, through another folder.
    let mut direct = sound.clone();
    direct[3].1 = "use super::x::X;\npub struct Y;".into();
    assert_eq!(circles(&direct), ["a/x.rs uses a/y.rs", "a/y.rs uses a/x.rs"]);
    let mut exported = sound.clone();
    exported[3].1 = "pub struct Y;\nfn f() -> super::X { todo!() }".into();
    assert_eq!(circles(&exported), circles(&direct));
    let mut parent = sound.clone();
    parent[1].1 += "\nuse x::X as Own;\npub const N: usize = 1;";
    parent[2].1 = "use super::N;\npub struct X;".into();
    assert_eq!(circles(&parent), ["a/mod.rs uses a/x.rs", "a/x.rs uses a/mod.rs"]);
    let mut far = sound.clone();
    far[3].1 = "pub struct Y;\npub fn g() { crate::b::f() }".into();
    assert_eq!(circles(&far), ["a/x.rs uses a/y.rs", "a/y.rs uses b.rs", "b.rs uses a/x.rs", "b.rs uses a/y.rs"]);
}
