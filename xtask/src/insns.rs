//! `cargo xtask insns`: the instructions that a token costs, by core, phase and format.
//!
//! A cost is the difference of two runs of `armlet complete` over the tokens between them, so that the start and the
//! end of the program cancel; choosing a token and printing it are part of it. What starting costs is a whole run
//! without its tokens: from the first instruction of the process, so a little more than from `main`.
//!
//! Tables of everything also go to `benches/record/insns.md`, and of every weight format, in a model of random weights, to
//! `benches/record/insns-random.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::formats::{self, Format};
use crate::icount::{self, Run};
use crate::model;
use crate::process::{Failed, Steps, in_parallel, record, say};

/// One run: core, model, words of the prompt, tokens to generate.
type Key = (String, PathBuf, usize, u32);

/// Words of the prompt, each a token, and tokens to generate.
type Size = (usize, u32);

/// A kind of cost: a column of the table.
struct Phase {
    name: &'static str,
    /// Whether it is of panels.
    packed: bool,
    /// The short run and the long one: of the model that is shipped, and of random weights.
    runs: [[Size; 2]; 2],
    /// Millions of instructions.
    cost: fn(short: Run, long: Run) -> Option<f64>,
}

const DECODE: [[Size; 2]; 2] = [[(1, 2), (1, 6)], [(1, 4), (1, 8)]];
const PREFILL: [[Size; 2]; 2] = [[(32, 1), (64, 1)], [(64, 1), (128, 1)]];
const PHASES: [Phase; 5] = [
    Phase { name: "decode", packed: false, runs: DECODE, cost: decode },
    Phase { name: "packed", packed: true, runs: DECODE, cost: decode },
    Phase { name: "prefill", packed: false, runs: PREFILL, cost: prefill },
    Phase { name: "packed-prefill", packed: true, runs: PREFILL, cost: prefill },
    Phase { name: "start-up", packed: false, runs: DECODE, cost: start_up },
];

const CPUS: [&str; 3] = ["cortex-a72", "cortex-a76", "max"];
/// Formats of the model that is shipped: of those whose blocks its rows are made of.
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

fn decode(short: Run, long: Run) -> Option<f64> {
    per_token(short, long, |r| r.generated)
}

fn prefill(short: Run, long: Run) -> Option<f64> {
    per_token(short, long, |r| r.prompt)
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
    phases: Vec<String>,
    /// Of all formats where it is empty.
    formats: Vec<String>,
    model: Option<PathBuf>,
    random: bool,
    check: bool,
}

impl Options {
    /// # Errors
    /// What is wrong with the command line.
    pub(crate) fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(name) = args.next() {
            match *name {
                "--check" => options.check = true,
                "--random" => options.random = true,
                _ => options.set(name, args.next().ok_or(format!("{name} needs a value"))?)?,
            }
        }
        let known = PHASES.map(|p| p.name);
        if let Some(name) = options.phases.iter().find(|p| !known.contains(&p.as_str())) {
            return Err(format!("there is no {name}"));
        }
        let sources = [options.model.is_some(), options.random, options.check];
        if sources.iter().filter(|given| **given).count() > 1 || options.model.is_some() && !options.formats.is_empty()
        {
            return Err("--model names a file, --type is about those made here, --check about the one shipped".into());
        }
        Ok(options.or_default())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let list = || value.split(',').map(str::to_ascii_lowercase).collect();
        match name {
            "--cpu" => self.cpus = list(),
            "--phase" => self.phases = list(),
            "--type" => self.formats = list(),
            "--model" => self.model = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    }

    /// Everything where nothing is named; for a check one cheap combination.
    fn or_default(mut self) -> Self {
        let fill = |list: &mut Vec<String>, all: &[&str], cheap: &str| {
            if list.is_empty() {
                let names: &[&str] = if self.check { &[cheap] } else { all };
                *list = names.iter().map(|n| n.to_string()).collect();
            }
        };
        // `max` has the loops of Cortex-A76 but for prompts.
        fill(&mut self.cpus, if self.random { &CPUS[..2] } else { &CPUS }, CHEAP.0);
        // A file of one's own is packed or not; what starting costs is its vocabulary's, which random weights have none of.
        let phases = PHASES.iter().filter(|p| self.model.is_none() || !p.packed);
        let phases = phases.filter(|p| !self.random || p.name != "start-up").map(|p| p.name);
        fill(&mut self.phases, &phases.collect::<Vec<_>>(), CHEAP.1);
        match &self.model {
            // One line, of the file alone.
            Some(path) => self.formats = vec![path.file_name().unwrap_or_default().to_string_lossy().into_owned()],
            None if self.random => {}
            None => fill(&mut self.formats, &FORMATS, CHEAP.2),
        }
        self
    }

    /// The formats to measure.
    fn formats(&self) -> Result<Vec<Format>, Failed> {
        // Without the table, which takes a build of the library: what is shipped has those that are named, and a file its own.
        let packs = |name: &str| FORMATS.contains(&name) && name != "f16";
        let named = |name: &String| Format { name: name.clone(), bytes_of_256: 0, packs: packs(name), is_float: false };
        if !self.random && self.formats.iter().all(|name| self.model.is_some() || FORMATS.contains(&name.as_str())) {
            return Ok(self.formats.iter().map(named).collect());
        }
        let all = formats::all()?;
        if let Some(name) = self.formats.iter().find(|name| !all.iter().any(|f| f.name == **name)) {
            return Err(Failed(format!("there is no format {name}")));
        }
        Ok(all.into_iter().filter(|f| self.formats.is_empty() || self.formats.contains(&f.name)).collect())
    }

    /// The file with a format's weights for a phase, if there is one.
    fn file(&self, format: &Format, phase: &Phase) -> Result<Option<PathBuf>, Failed> {
        let plain = match (&self.model, self.random) {
            (Some(file), _) => return Ok(Some(file.clone())),
            _ if phase.packed && !format.packs => return Ok(None),
            (None, true) => model::random(&format.name)?,
            (None, false) => model::in_format(&format.name)?,
        };
        if phase.packed { model::packed(&plain).map(Some) } else { Ok(Some(plain)) }
    }
}

/// A figure of the table.
struct Cell<'a> {
    cpu: &'a str,
    phase: &'a Phase,
    format: String,
    /// None where there is nothing to measure.
    file: Option<PathBuf>,
    /// The short run and the long one.
    runs: [Size; 2],
}

impl Cell<'_> {
    fn runs(&self) -> Option<[Key; 2]> {
        let file = self.file.as_ref()?;
        Some(self.runs.map(|(words, tokens)| (self.cpu.into(), file.clone(), words, tokens)))
    }

    fn cost(&self, counts: &BTreeMap<Key, Run>) -> Option<f64> {
        let [short, long] = self.runs()?.map(|run| counts.get(&run).copied());
        (self.phase.cost)(short?, long?)
    }

    /// What a check lets it cost, where there is a limit.
    fn limit(&self) -> Option<f64> {
        let (_, _, limits) = LIMITS.iter().find(|(cpu, phase, _)| *cpu == self.cpu && *phase == self.phase.name)?;
        FORMATS.iter().position(|f| *f == self.format).map(|i| limits[i])
    }
}

/// The check of one cheap cell.
pub(crate) fn gate(steps: &mut Steps) -> Result<(), Failed> {
    run(steps, &Options::parse(&["--check"]).map_err(Failed)?)
}

pub(crate) fn run(steps: &mut Steps, options: &Options) -> Result<(), Failed> {
    let mut formats = Vec::new();
    steps.step("the program for aarch64", || {
        formats = options.formats()?;
        model::build_for_aarch64()
    })?;
    let mut plugin = PathBuf::new();
    steps.step("the plugin that counts", || {
        plugin = icount::plugin()?;
        Ok(())
    })?;
    let mut cells = Vec::new();
    steps.step("the models", || {
        for (cpu, format) in options.cpus.iter().flat_map(|cpu| formats.iter().map(move |format| (cpu, format))) {
            for phase in PHASES.iter().filter(|p| options.phases.iter().any(|name| name == p.name)) {
                let (file, runs) = (options.file(format, phase)?, phase.runs[usize::from(options.random)]);
                cells.push(Cell { cpu, phase, format: format.name.clone(), file, runs });
            }
        }
        Ok(())
    })?;
    let mut counts = BTreeMap::new();
    steps.step("counting", || {
        counts = count_all(&plugin, cells.iter().filter_map(Cell::runs).flatten().collect())?;
        Ok(())
    })?;
    let text = format!("Millions of guest instructions per token, one thread.\n{}", tables(&cells, &counts));
    say(format!("\n{text}"));
    if *options == Options::default().or_default() {
        record("insns", "Instructions of SmolLM2-135M", "counted under QEMU", &text)?;
    }
    if *options == (Options { random: true, ..Options::default() }.or_default()) {
        record("insns --random", "Instructions by weight format", "counted under QEMU", &format!("{RANDOM}{text}"))?;
    }
    if options.check { check(&cells, &counts) } else { Ok(()) }
}

/// What the record of random weights begins with.
const RANDOM: &str = "A model of random weights (`cargo run --example tiny -- --bench`), 4 layers of 1024 and 3072 with 16 query and 8 KV heads,
vocabulary 49,152: 101 million weights in a token, 50 million in one of a prompt. Each file was written by `armlet quantize
--pure`, the packed ones by `armlet pack` of it. Decode is the difference between 8 and 4 tokens of an answer, prefill that
between prompts of 128 and 64 tokens.

";

/// Counts each run once, as many at a time as there are CPUs: counts do not depend on what else runs.
fn count_all(plugin: &Path, runs: BTreeSet<Key>) -> Result<BTreeMap<Key, Run>, Failed> {
    let runs: Vec<Key> = runs.into_iter().collect();
    let counts = in_parallel(&runs, |(cpu, file, words, tokens)| {
        // One token a word, in every vocabulary that knows the letter with a space before it.
        icount::complete(plugin, cpu, file, &vec!["a"; *words].join(" "), *tokens)
    })?;
    Ok(runs.into_iter().zip(counts).collect())
}

/// A table for each core.
fn tables(cells: &[Cell<'_>], counts: &BTreeMap<Key, Run>) -> String {
    let mut out = String::new();
    for core in cells.chunk_by(|a, b| a.cpu == b.cpu) {
        let lines: Vec<_> = core.chunk_by(|a, b| a.format == b.format).collect();
        let phases: Vec<_> = lines[0].iter().map(|cell| cell.phase.name).collect();
        let rule = "---:|".repeat(phases.len());
        out += &format!("\n## {}\n\n| format | {} |\n|---|{rule}\n", core[0].cpu, phases.join(" | "));
        for line in lines {
            let costs = line.iter().map(|cell| cell.cost(counts).map_or("–".into(), |cost| format!("{cost:.1}")));
            out += &format!("| {} | {} |\n", line[0].format, costs.collect::<Vec<_>>().join(" | "));
        }
    }
    out
}

/// Fails for the cells that cost more than their limit.
fn check(cells: &[Cell<'_>], counts: &BTreeMap<Key, Run>) -> Result<(), Failed> {
    let mut over = Vec::new();
    for cell in cells.iter().filter(|cell| cell.file.is_some()) {
        let limit =
            cell.limit().ok_or_else(|| Failed(format!("there is no limit for {} {}", cell.cpu, cell.phase.name)))?;
        if cell.cost(counts).is_none_or(|cost| cost > limit) {
            over.push(format!("{} {} {} costs more than {limit} million", cell.cpu, cell.phase.name, cell.format));
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
        assert_eq!((PHASES[0].cost)(short, long), Some(72.0));
        assert_eq!((PHASES[4].cost)(short, long), Some(88.0));
        // An answer that ended at once says nothing, and a longer prompt is not one pass of decode.
        assert_eq!((PHASES[0].cost)(short, short), None);
        assert_eq!((PHASES[4].cost)(run(1, 2, 2), run(9, 2, 6)), None);
        assert_eq!((PHASES[2].cost)(run(2_000_000, 32, 1), run(34_000_000, 64, 1)), Some(1.0));
    }

    #[test]
    fn options_are_lists_of_known_names() {
        let parsed = Options::parse(&["--cpu", "cortex-a53,max", "--phase", "decode"]).unwrap();
        assert_eq!((parsed.cpus.len(), parsed.phases.len(), parsed.formats.len()), (2, 1, FORMATS.len()));
        let check = Options::parse(&["--check"]).unwrap();
        assert_eq!([check.cpus, check.phases, check.formats], [[CHEAP.0], [CHEAP.1], [CHEAP.2]]);
        assert_eq!(Options::parse(&["--model", "/tmp/a.gguf"]).unwrap().formats, ["a.gguf"]);
        let random = Options::parse(&["--random"]).unwrap();
        assert_eq!((random.cpus.len(), random.phases.len(), random.formats.len()), (2, 4, 0));
        let bad: [&[&str]; 5] = [
            &["--cpu"],
            &["--phase", "think"],
            &["--random", "--check"],
            &["--speed", "1"],
            &["--model", "x", "--type", "f16"],
        ];
        for bad in bad {
            assert!(Options::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_limit_is_of_a_cell() {
        for (cpu, phase, _) in LIMITS {
            assert!(CPUS.contains(&cpu) && PHASES.iter().any(|p| p.name == phase), "{cpu} {phase}");
        }
        assert!(
            LIMITS.iter().any(|(cpu, phase, _)| (*cpu, *phase) == (CHEAP.0, CHEAP.1)) && FORMATS.contains(&CHEAP.2)
        );
    }
}
