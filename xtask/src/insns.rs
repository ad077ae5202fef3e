//! `cargo xtask insns`: the instructions that a token costs, by core, phase and format.
//!
//! A cost is the difference of two runs of `armlet complete` over the tokens between them, so that the start and the
//! end of the program cancel; choosing a token and printing it are part of it. What starting costs is a whole run
//! without its tokens: from the first instruction of the process, so a little more than from `main`.
//!
//! A table of everything also goes to `benches/record/insns.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::icount::{self, Run};
use crate::model;
use crate::process::{Failed, Steps, in_parallel, record, say};

/// One run: core, model, words of the prompt, tokens to generate.
type Key = (String, PathBuf, usize, u32);

/// A kind of cost: a row of the table for each core.
struct Row {
    name: &'static str,
    /// The file that is measured of a format, if the row has one.
    file: fn(format: &str) -> Result<Option<PathBuf>, Failed>,
    /// Words of the prompt, each a token, and tokens to generate, of the short run and of the long one.
    runs: [(usize, u32); 2],
    /// Millions of instructions.
    cost: fn(short: Run, long: Run) -> Option<f64>,
}

const DECODE: [(usize, u32); 2] = [(1, 2), (1, 6)];
const ROWS: [Row; 4] = [
    Row { name: "decode", file: shipped, runs: DECODE, cost: decode },
    Row { name: "packed", file: packed, runs: DECODE, cost: decode },
    Row {
        name: "prefill",
        file: shipped,
        runs: [(32, 1), (64, 1)],
        cost: |short, long| per_token(short, long, |r| r.prompt),
    },
    Row { name: "start-up", file: shipped, runs: DECODE, cost: start_up },
];

const CPUS: [&str; 3] = ["cortex-a72", "cortex-a76", "max"];
const FORMATS: [&str; 4] = ["q8_0", "q4_0", "q4_1", "f16"];

/// The most that `--check` lets a cell cost, in the order of [`FORMATS`].
const LIMITS: [(&str, &str, [f64; 4]); 7] = [
    ("cortex-a72", "decode", [58.0, 60.0, 64.0, 100.0]),
    ("cortex-a72", "prefill", [36.0, 33.0, 34.0, 40.0]),
    ("cortex-a76", "decode", [42.0, 50.0, 54.0, 62.0]),
    ("cortex-a76", "packed", [28.0, 34.0, 36.0, 0.0]),
    ("cortex-a76", "prefill", [16.0, 16.5, 17.0, 38.0]),
    ("max", "prefill", [13.0, 13.5, 14.0, 38.0]),
    ("cortex-a72", "start-up", [60.0; 4]),
];
/// What `--check` measures when it is told nothing else: two short runs of the model as it is shipped.
const CHEAP: (&str, &str, &str) = ("cortex-a72", "decode", "q4_1");

fn shipped(format: &str) -> Result<Option<PathBuf>, Failed> {
    model::in_format(format).map(Some)
}

/// Only matrices of quants have panels.
fn packed(format: &str) -> Result<Option<PathBuf>, Failed> {
    (format != "f16").then(|| model::packed(format)).transpose()
}

fn decode(short: Run, long: Run) -> Option<f64> {
    per_token(short, long, |r| r.generated)
}

/// Millions of instructions of one of the tokens that the long run has more.
fn per_token(short: Run, long: Run, tokens: fn(Run) -> u64) -> Option<f64> {
    let more = tokens(long).checked_sub(tokens(short)).filter(|n| *n > 0)?;
    Some(long.instructions.checked_sub(short.instructions)? as f64 / more as f64 / 1e6)
}

/// Millions of instructions of a run without its passes: the prompt's token and all generated ones but the last.
fn start_up(short: Run, long: Run) -> Option<f64> {
    let token = decode(short, long)?;
    (short.prompt == 1).then(|| short.instructions as f64 / 1e6 - short.generated as f64 * token)
}

/// What to measure.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    cpus: Vec<String>,
    rows: Vec<String>,
    formats: Vec<String>,
    model: Option<PathBuf>,
    check: bool,
}

impl Options {
    /// # Errors
    /// What is wrong with the command line.
    pub(crate) fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(name) = args.next() {
            if *name == "--check" {
                options.check = true;
                continue;
            }
            let value = args.next().ok_or(format!("{name} needs a value"))?;
            let list = || value.split(',').map(str::to_ascii_lowercase).collect();
            match *name {
                "--cpu" => options.cpus = list(),
                "--phase" => options.rows = list(),
                "--type" => options.formats = list(),
                "--model" => options.model = Some(PathBuf::from(value)),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        let unknown = |given: &[String], known: &[&str]| given.iter().find(|g| !known.contains(&g.as_str())).cloned();
        if let Some(name) = unknown(&options.rows, &ROWS.map(|r| r.name)).or(unknown(&options.formats, &FORMATS)) {
            return Err(format!("there is no {name}"));
        }
        if options.model.is_some() && (options.check || !options.formats.is_empty()) {
            return Err("--model names a file, --type and --check are about those made here".into());
        }
        Ok(options.or_default())
    }

    /// Everything where nothing is named; for a check one cheap combination.
    fn or_default(mut self) -> Self {
        let fill = |list: &mut Vec<String>, all: &[&str], cheap: &str| {
            if list.is_empty() {
                let names: &[&str] = if self.check { &[cheap] } else { all };
                *list = names.iter().map(|n| n.to_string()).collect();
            }
        };
        fill(&mut self.cpus, &CPUS, CHEAP.0);
        // A file of one's own is packed or not.
        let rows = ROWS.iter().map(|r| r.name).filter(|name| self.model.is_none() || *name != "packed");
        fill(&mut self.rows, &rows.collect::<Vec<_>>(), CHEAP.1);
        match &self.model {
            // One column, of the file alone.
            Some(path) => self.formats = vec![path.file_name().unwrap_or_default().to_string_lossy().into_owned()],
            None => fill(&mut self.formats, &FORMATS, CHEAP.2),
        }
        self
    }
}

/// A figure of the table.
struct Cell<'a> {
    cpu: &'a str,
    row: &'a Row,
    column: &'a str,
    /// None where there is nothing to measure.
    file: Option<PathBuf>,
}

impl Cell<'_> {
    /// The short run and the long one.
    fn runs(&self) -> Option<[Key; 2]> {
        let file = self.file.as_ref()?;
        Some(self.row.runs.map(|(words, tokens)| (self.cpu.into(), file.clone(), words, tokens)))
    }

    fn cost(&self, counts: &BTreeMap<Key, Run>) -> Option<f64> {
        let [short, long] = self.runs()?.map(|run| counts.get(&run).copied());
        (self.row.cost)(short?, long?)
    }

    /// What a check lets it cost, where there is a limit.
    fn limit(&self) -> Option<f64> {
        let (_, _, limits) = LIMITS.iter().find(|(cpu, row, _)| *cpu == self.cpu && *row == self.row.name)?;
        FORMATS.iter().position(|f| *f == self.column).map(|i| limits[i])
    }
}

/// The check of one cheap cell.
pub(crate) fn gate(steps: &mut Steps) -> Result<(), Failed> {
    run(steps, &Options::parse(&["--check"]).map_err(Failed)?)
}

pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<(), Failed> {
    steps.step("the program for aarch64", model::build_for_aarch64)?;
    let mut plugin = PathBuf::new();
    steps.step("the plugin that counts", || {
        plugin = icount::plugin()?;
        Ok(())
    })?;
    let mut cells = Vec::new();
    steps.step("the models", || {
        for (cpu, row) in options.cpus.iter().flat_map(|cpu| ROWS.iter().map(move |row| (cpu, row))) {
            for column in options.formats.iter().filter(|_| options.rows.iter().any(|name| name == row.name)) {
                let file = options.model.clone().map_or_else(|| (row.file)(column), |file| Ok(Some(file)))?;
                cells.push(Cell { cpu, row, column, file });
            }
        }
        Ok(())
    })?;
    let mut counts = BTreeMap::new();
    steps.step("counting", || {
        counts = count_all(&plugin, cells.iter().filter_map(Cell::runs).flatten().collect())?;
        Ok(())
    })?;
    let text = format!("Millions of guest instructions per token, one thread.\n\n{}", table(&cells, &counts));
    say(format!("\n{text}"));
    if *options == Options::default().or_default() {
        record("insns", "Instructions of SmolLM2-135M", "counted under QEMU", &text)?;
    }
    if options.check { check(&cells, &counts) } else { Ok(()) }
}

/// Counts each run once, as many at a time as there are CPUs: counts do not depend on what else runs.
fn count_all(plugin: &Path, runs: BTreeSet<Key>) -> Result<BTreeMap<Key, Run>, Failed> {
    let runs: Vec<Key> = runs.into_iter().collect();
    let counts = in_parallel(&runs, |(cpu, file, words, tokens)| {
        // One token a word, in every vocabulary that knows the letter with a space before it.
        icount::complete(plugin, cpu, file, &vec!["a"; *words].join(" "), *tokens)
    })?;
    Ok(runs.into_iter().zip(counts).collect())
}

fn table(cells: &[Cell<'_>], counts: &BTreeMap<Key, Run>) -> String {
    let rows: Vec<_> = cells.chunk_by(|a, b| (a.cpu, a.row.name) == (b.cpu, b.row.name)).collect();
    let columns: Vec<_> = rows.first().into_iter().flat_map(|row| row.iter().map(|cell| cell.column)).collect();
    let mut out = format!("| CPU | phase | {} |\n|---|---|{}\n", columns.join(" | "), "---:|".repeat(columns.len()));
    for row in rows {
        let costs = row.iter().map(|cell| cell.cost(counts).map_or("–".into(), |cost| format!("{cost:.1}")));
        out += &format!("| {} | {} | {} |\n", row[0].cpu, row[0].row.name, costs.collect::<Vec<_>>().join(" | "));
    }
    out
}

/// Fails for the cells that cost more than their limit.
fn check(cells: &[Cell<'_>], counts: &BTreeMap<Key, Run>) -> Result<(), Failed> {
    let mut over = Vec::new();
    for cell in cells.iter().filter(|cell| cell.file.is_some()) {
        let limit =
            cell.limit().ok_or_else(|| Failed(format!("there is no limit for {} {}", cell.cpu, cell.row.name)))?;
        if cell.cost(counts).is_none_or(|cost| cost > limit) {
            over.push(format!("{} {} {} costs more than {limit} million", cell.cpu, cell.row.name, cell.column));
        }
    }
    if over.is_empty() { Ok(()) } else { Err(Failed(over.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_differences() {
        let run = |instructions, prompt, generated| Run { instructions, prompt, generated };
        // 88 million to start, 72 million a pass.
        let (short, long) = (run(232_000_000, 1, 2), run(520_000_000, 1, 6));
        assert_eq!((ROWS[0].cost)(short, long), Some(72.0));
        assert_eq!((ROWS[3].cost)(short, long), Some(88.0));
        // An answer that ended at once says nothing, and a longer prompt is not one pass of decode.
        assert_eq!((ROWS[0].cost)(short, short), None);
        assert_eq!((ROWS[3].cost)(run(1, 2, 2), run(9, 2, 6)), None);
        assert_eq!((ROWS[2].cost)(run(2_000_000, 32, 1), run(34_000_000, 64, 1)), Some(1.0));
    }

    #[test]
    fn options_are_lists_of_known_names() {
        let parsed = Options::parse(&["--cpu", "cortex-a53,max", "--phase", "decode"]).unwrap();
        assert_eq!((parsed.cpus.len(), parsed.rows.len(), parsed.formats.len()), (2, 1, FORMATS.len()));
        let check = Options::parse(&["--check"]).unwrap();
        assert_eq!([check.cpus, check.rows, check.formats], [[CHEAP.0], [CHEAP.1], [CHEAP.2]]);
        assert_eq!(Options::parse(&["--model", "/tmp/a.gguf"]).unwrap().formats, ["a.gguf"]);
        let bad: [&[&str]; 5] = [
            &["--cpu"],
            &["--phase", "think"],
            &["--type", "q9"],
            &["--speed", "1"],
            &["--model", "x", "--type", "f16"],
        ];
        for bad in bad {
            assert!(Options::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_limit_is_of_a_cell() {
        for (cpu, row, _) in LIMITS {
            assert!(CPUS.contains(&cpu) && ROWS.iter().any(|r| r.name == row), "{cpu} {row}");
        }
        assert!(LIMITS.iter().any(|(cpu, row, _)| (*cpu, *row) == (CHEAP.0, CHEAP.1)) && FORMATS.contains(&CHEAP.2));
    }
}
