//! `cargo xtask board-insns`: instructions of the board that has most to do, beside those of one board alone, to
//! `benches/record/board-insns.md`.
//!
//! Boards are threads of `examples/boards.rs`, not ranks of MPI: a thread that waits for another executes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::icount;
use crate::model;
use crate::process::{Failed, Steps, cargo, in_parallel, record, root, say};
use crate::setup::LINUX;

const CPU: &str = "cortex-a76";
const FORMAT: &str = "q8_0";

/// What a token costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// One of an answer.
    Decode,
    /// One of a prompt of 1,024, on average.
    Prompt,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Decode => "decode",
            Phase::Prompt => "prompt of 1,024",
        }
    }

    /// Tokens of the prompt and of the answer in a short run and in a long one, whose difference is this.
    fn runs(self) -> [[usize; 2]; 2] {
        match self {
            Phase::Decode => [[1, 2], [1, 6]],
            Phase::Prompt => [[1, 1], [1024, 1]],
        }
    }

    fn tokens(self) -> usize {
        let [short, long] = self.runs().map(|[prompt, answer]| prompt + answer);
        long - short
    }
}

/// What is measured: the split, how many boards, of what, and the most that one of them may cost of what one board alone
/// does. Where a split divides no work there is no limit.
type Row = (&'static str, usize, Phase, Option<f64>);

const ROWS: [Row; 8] = [
    ("rows", 2, Phase::Decode, Some(0.56)),
    ("rows", 3, Phase::Decode, Some(0.38)),
    ("layers", 2, Phase::Decode, None),
    ("layers", 4, Phase::Decode, Some(0.30)),
    ("tokens", 2, Phase::Decode, None),
    ("tokens", 4, Phase::Decode, None),
    ("tokens", 2, Phase::Prompt, Some(0.53)),
    ("tokens", 4, Phase::Prompt, Some(0.29)),
];

/// The most that one board alone may execute with the feature `boards`, of what it does without.
const FEATURE: f64 = 1.002;

/// One run: the split, boards, tokens of the prompt and of the answer.
type Key = (&'static str, usize, [usize; 2]);

/// The instructions of each board, by run.
type Counts = BTreeMap<Key, Vec<u64>>;

/// # Errors
/// What went wrong, or costs more than it may.
pub(crate) fn run(steps: &mut Steps, keep: bool) -> Result<(), Failed> {
    let (mut plugin, mut file) = (PathBuf::new(), PathBuf::new());
    steps.step("boards in one process, for aarch64", || {
        let features = ["--no-default-features", "--features", "std,boards"];
        cargo(&[&["build", "--release", "--target", LINUX, "--example", "boards"][..], &features].concat())?;
        plugin = icount::plugin()?;
        file = model::in_format(FORMAT)?;
        Ok(())
    })?;
    let mut counts = Counts::new();
    steps.step("instructions of each board", || {
        counts = count_all(&plugin, &file)?;
        Ok(())
    })?;
    let mut answers = [0; 2];
    steps.step("one board, without the feature and with it", || {
        for (instructions, features) in answers.iter_mut().zip(["std", "std,boards"]) {
            *instructions = answer(&plugin, &file, features)?;
        }
        Ok(())
    })?;
    let [without, with] = answers.map(|n| n as f64 / 1e6);
    let text = format!(
        "SmolLM2-135M in {}, {CPU}, one thread a board: millions of guest instructions per token of the board that executes \
         most, and what part that is of one board alone.\n\n{}\nOne board alone answers a question (`examples/chat.rs`) with \
         {without:.2} million instructions where the library has no feature `boards`, and {with:.2} million where it has: \
         {:.5}, at most {FEATURE}.\n",
        FORMAT.to_uppercase(),
        table(&counts),
        with / without
    );
    say(format!("\n{text}"));
    if keep {
        record("board-insns", "Instructions of several boards", "counted under QEMU", &text)?;
    }
    if with > FEATURE * without {
        return Err(Failed(format!(
            "one board: {with} million instructions with the feature boards, {without} without"
        )));
    }
    check(&counts)
}

/// The instructions of an answer on one board, by the library with these features.
fn answer(plugin: &Path, file: &Path, features: &str) -> Result<u64, Failed> {
    let build = ["build", "--release", "--target", LINUX, "--example", "chat", "--no-default-features", "--features"];
    cargo(&[&build[..], &[features]].concat())?;
    // As many threads as CPUs: one, since others would execute what they do while they wait.
    let mut run = Command::new("sh");
    run.args([
        "-c",
        "exec taskset -c $(taskset -cp $$ | sed 's/.*: *\\([0-9]*\\).*/\\1/') \"$@\"",
        "sh",
        "qemu-aarch64",
    ]);
    run.args(["-cpu", CPU, "-plugin"]).arg(plugin).arg(root().join("target").join(LINUX).join("release/examples/chat"));
    icount::counted(run.arg(file).arg("What is the capital of France?"))
}

/// Counts each run once.
fn count_all(plugin: &Path, file: &Path) -> Result<Counts, Failed> {
    let alone = ROWS.map(|(.., phase, _)| ("layers", 1, phase));
    let all = ROWS.iter().map(|(split, boards, phase, _)| (*split, *boards, *phase)).chain(alone);
    let mut keys: Vec<Key> =
        all.flat_map(|(split, boards, phase)| phase.runs().map(|run| (split, boards, run))).collect();
    keys.sort_unstable();
    keys.dedup();
    let program = root().join("target").join(LINUX).join("release/examples/boards");
    let counts = in_parallel(&keys, |(split, boards, [prompt, answer])| {
        let numbers = [boards, prompt, answer].map(|n| n.to_string());
        let mut args = vec![file.as_os_str(), split.as_ref()];
        args.extend(numbers.iter().map(std::ffi::OsStr::new));
        let threads = icount::threads(plugin, CPU, &program, &args)?;
        // The first one loads the model.
        match threads.get(1..).filter(|rest| rest.len() == *boards) {
            Some(boards) => Ok(boards.to_vec()),
            None => Err(Failed(format!("{} threads, for {boards} boards", threads.len()))),
        }
    })?;
    Ok(keys.into_iter().zip(counts).collect())
}

/// Millions of instructions per token of the board that executes most.
fn most(counts: &Counts, split: &'static str, boards: usize, phase: Phase) -> Option<f64> {
    let [short, long] = phase.runs().map(|run| counts.get(&(split, boards, run)));
    let more = short?.iter().zip(long?).map(|(short, long)| long.saturating_sub(*short)).max()?;
    Some(more as f64 / phase.tokens() as f64 / 1e6)
}

/// That, and what part it is of one board alone.
fn cost(counts: &Counts, (split, boards, phase, _): Row) -> Option<(f64, f64)> {
    let (most, alone) = (most(counts, split, boards, phase)?, most(counts, "layers", 1, phase)?);
    Some((most, most / alone))
}

fn table(counts: &Counts) -> String {
    let mut out = String::from(
        "| a token of | split | boards | millions | of one board | at most |\n|---|---|---:|---:|---:|---:|\n",
    );
    for phase in [Phase::Decode, Phase::Prompt] {
        let alone = most(counts, "layers", 1, phase).unwrap_or(f64::NAN);
        out += &format!("| {} | | 1 | {alone:.2} | 1 | |\n", phase.name());
        for row in ROWS.into_iter().filter(|row| row.2 == phase) {
            let (millions, part) = cost(counts, row).unwrap_or((f64::NAN, f64::NAN));
            let limit = row.3.map_or(String::new(), |limit| format!("{limit:.2}"));
            out += &format!("| {} | {} | {} | {millions:.2} | {part:.3} | {limit} |\n", phase.name(), row.0, row.1);
        }
    }
    out
}

/// Fails where a board costs more than it may.
fn check(counts: &Counts) -> Result<(), Failed> {
    let over = ROWS.into_iter().filter_map(|row| {
        let limit = row.3?;
        let part = cost(counts, row).map_or(f64::NAN, |(_, part)| part);
        let (split, boards, phase, _) = row;
        (part.is_nan() || part > limit)
            .then(|| format!("{boards} boards by {split}, {}: {part:.3}, more than {limit}", phase.name()))
    });
    let over: Vec<String> = over.collect();
    if over.is_empty() { Ok(()) } else { Err(Failed(over.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The board with most counts, without what all runs have, and not the sum of all.
    #[test]
    fn the_largest_difference_counts() {
        let mut counts = Counts::from([
            (("layers", 1, [1, 2]), vec![80_000_000]),
            (("layers", 1, [1, 6]), vec![240_000_000]),
            (("rows", 2, [1, 2]), vec![50_000_000, 40_000_000]),
            (("rows", 2, [1, 6]), vec![126_000_000, 124_000_000]),
        ]);
        assert_eq!(cost(&counts, ROWS[0]), Some((21.0, 0.525)));
        // What was not counted is no success.
        assert!(check(&counts).is_err());
        counts.insert(("layers", 1, [1, 1]), vec![0]);
        counts.insert(("layers", 1, [1024, 1]), vec![40_000_000 * 1023]);
        for (split, boards, phase, limit) in ROWS {
            let cost = 40e6 * limit.unwrap_or(1.0) * phase.tokens() as f64;
            counts.insert((split, boards, phase.runs()[0]), vec![0; boards]);
            counts.insert((split, boards, phase.runs()[1]), vec![cost as u64 - 1; boards]);
        }
        assert!(check(&counts).is_ok());
        counts.insert(("rows", 3, [1, 6]), vec![0, 0, 64_000_000]);
        assert!(check(&counts).is_err_and(|Failed(why)| why.starts_with("3 boards by rows, decode: 0.400")));
    }
}
