//! The tables of `docs/untrusted-input.md` against the code: each rule has tests, and each test of a rule is in a table.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files whose tests are named after their rules.
const NAMED: [&str; 3] = ["gguf_rules.rs", "model_rules.rs", "vocabulary_rules.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.clone(), std::fs::read_to_string(path).unwrap()));
        }
    }
}

/// The names of the functions of a text that are tests.
fn tests(text: &str) -> impl Iterator<Item = &str> {
    let tests = text.split("#[test]\n").skip(1);
    tests.filter_map(|test| test.split_once("fn ")?.1.split('(').next())
}

/// Whether a text is a rule's name: a letter and a number.
fn is_rule(text: &str) -> bool {
    let digits = text.strip_prefix(|c: char| "HKTMVCSRF".contains(c)).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The rules of a page: name, and what its last column says of tests.
fn rules(page: &str) -> Vec<(&str, &str)> {
    let row = |line| {
        let mut cells = str::trim(line).strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        Some((cells.next()?, cells.last()?))
    };
    page.lines().filter_map(row).filter(|(rule, _)| is_rule(rule)).collect()
}

/// The names between backquotes that are no paths.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).filter(|name| !name.contains(['/', '.', '(', ' '])).collect()
}

/// What is wrong with a page, given the names of all tests, and of those that are named after rules.
fn wrong(page: &str, all: &BTreeSet<&str>, named: &BTreeSet<&str>) -> Vec<String> {
    const NUMBERS: [&str; 13] =
        ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for (rule, cell) in rules(page) {
        let names = quoted(cell);
        if names.is_empty() {
            wrong.push(format!("{rule} has no test"));
        }
        for name in names {
            // Many tests: how their names begin, and how many there are.
            let listed: Vec<_> = match name.strip_suffix('…') {
                Some(begin) => all.iter().filter(|test| test.starts_with(begin)).copied().collect(),
                None => all.get(name).copied().into_iter().collect(),
            };
            let count = NUMBERS.get(listed.len()).copied().unwrap_or("many");
            if listed.is_empty() || (name.ends_with('…') && !cell.contains(&format!("({count} tests)"))) {
                wrong.push(format!("{rule}: {name} is {count} test"));
            }
            seen.extend(listed);
        }
    }
    wrong.extend(named.difference(&seen).map(|test| format!("{test} is in no table")));
    wrong
}

#[test]
fn each_rule_has_its_tests() {
    let page = std::fs::read_to_string(root().join("docs/untrusted-input.md")).unwrap();
    let mut files = Vec::new();
    ["src", "tests/it"].iter().for_each(|folder| sources(&root().join(folder), &mut files));
    let all: BTreeSet<_> = files.iter().flat_map(|(_, text)| tests(text)).collect();
    let is_named = |path: &Path| NAMED.iter().any(|name| path.ends_with(name));
    let of_rules = files.iter().filter(|(path, _)| is_named(path)).flat_map(|(_, text)| tests(text));
    let named = of_rules.filter(|name| is_rule(&name.split('_').next().unwrap().to_ascii_uppercase())).collect();
    assert!(rules(&page).len() > 40);
    let wrong = wrong(&page, &all, &named);
    assert!(wrong.is_empty(), "{wrong:#?}");

    // What comments call a rule is one.
    let known: BTreeSet<_> = rules(&page).into_iter().map(|(rule, _)| rule).collect();
    for (path, text) in &files {
        for (at, _) in text.match_indices("(rule ") {
            let rule = text[at + 6..].split([')', ',', ' ']).next().unwrap();
            assert!(!is_rule(rule) || known.contains(rule), "{}: there is no rule {rule}", path.display());
        }
    }
}

#[test]
fn the_check_sees_what_is_missing() {
    let all: BTreeSet<_> = ["k1_a", "m1_a", "m1_b", "other"].into();
    let named: BTreeSet<_> = ["k1_a", "m1_a", "m1_b"].into();
    let page = "| K1 | a `| b` | `k1_a`, `tests/it/x.rs` |\n| M1 | b | `m1_…` (two tests) |\n| F1 | c | `other` |";
    assert_eq!(wrong(page, &all, &named), Vec::<String>::new());
    for (from, to, what) in [
        ("`k1_a`", "`k1_b`", "k1_b is no test"),
        ("(two tests)", "(three tests)", "m1_… is two test"),
        ("`other`", "", "F1 has no test"),
        ("| K1 |", "| rule |", "k1_a is in no table"),
    ] {
        let wrong = wrong(&page.replace(from, to), &all, &named);
        assert!(wrong.iter().any(|why| why.contains(what)), "{wrong:?}");
    }
}
