//! Malformed files through every command that reads one: no panic, no signal, no hang, little memory, one line.
//!
//! Files in order, of every kind, are damaged from a seed: lengths, counts, types, dimensions, offsets and texts of a GGUF
//! file, entries of its metadata, what is behind right checksums of a session, pieces of templates; and any bytes of all.
//! `cargo xtask attack` runs many with a program that is optimised, where a second of CPU time is a hang; a file that does
//! harm is kept, named after its number, and its path is printed.
//!
//! On its own, because what is resident in a process counts for those that it starts.
#![cfg(unix)]

#[path = "../common/mod.rs"]
mod common;

mod commands;
mod fields;
mod mutate;
mod process;
mod rng;
mod seeds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use commands::{Kind, Place};
use common::deep;
use process::Ended;
use rng::Rng;
use seeds::Seeds;

/// Memory that a command may have beside its file, and the pages of the program itself.
const BESIDE: u64 = 16 << 20;
/// The process that renders templates has that much of its own.
const TEMPLATES: u64 = 48 << 20;
/// Automatons of a grammar or a schema: some 1.5 KB for each byte of its texts, and what is tried has at most 24 KB.
const FORMS: u64 = 48 << 20;
/// Names the folder where the files in order are to be made.
const MAKE: &str = "ARMLET_ATTACK_MAKE";
/// CPU time that a malformed file may take beyond what files in order take, in a program that is optimised.
const HANG: Duration = Duration::from_secs(1);
/// In the tests' program, whose dependencies are not, and on a machine that does other things.
const LAX: Duration = Duration::from_secs(10);
/// How often what took too much is tried again: on a busy machine CPU time is longer, and what this process has when it starts
/// another counts for that.
const AGAIN: usize = 3;

/// What became of the files that one command was given.
#[derive(Clone, Copy, Default)]
struct Count {
    accepted: u64,
    refused: u64,
    /// The most resident memory beside the file.
    beside: u64,
    cpu: Duration,
    wall: Duration,
}

impl Count {
    /// Of one run; `own` is resident whatever is read.
    fn of(ended: &Ended, own: u64) -> Count {
        let accepted = u64::from(ended.status.success());
        let beside = ended.resident.saturating_sub(own);
        Count { accepted, refused: 1 - accepted, beside, cpu: ended.cpu, wall: ended.wall }
    }

    fn add(self, other: Count) -> Count {
        Count {
            accepted: self.accepted + other.accepted,
            refused: self.refused + other.refused,
            beside: self.beside.max(other.beside),
            cpu: self.cpu.max(other.cpu),
            wall: self.wall.max(other.wall),
        }
    }
}

/// What a run found.
#[derive(Default)]
struct Found {
    counts: BTreeMap<&'static str, Count>,
    harm: Vec<String>,
}

/// A number in the environment.
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Whether it would act on a terminal: controls but for the ends of lines, bytes that an 8-bit terminal takes for controls,
/// and what turns the direction of text.
fn acts(text: &[u8]) -> bool {
    let bidi =
        |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    let stray = |b: &u8| matches!(b, 0x80..0xa0);
    text.utf8_chunks().any(|c| c.valid().chars().any(|c| control(c) || bidi(c)) || c.invalid().iter().any(stray))
}

/// The most resident memory of a command, where `own` is that of the program and its file.
fn most(words: &str, own: u64) -> u64 {
    let renders = words.starts_with("chat") || words.starts_with("prefix");
    let has_form = words.contains("--grammar") || words.contains("--json-schema");
    own + BESIDE + if renders { TEMPLATES } else { 0 } + if has_form { FORMS } else { 0 }
}

/// What is wrong with how a command ended; `None` if nothing is.
fn wrong(ended: &Ended, words: &str, own: u64) -> Option<String> {
    let text = String::from_utf8_lossy(&ended.stderr);
    let last = text.lines().last().unwrap_or_default();
    let most = most(words, own);
    match ended.status.code() {
        None => return Some(format!("it ended by {}", ended.status)),
        Some(1) if !last.starts_with("armlet: ") => return Some("its last line is not armlet's".into()),
        Some(0 | 1) => {}
        Some(code) => return Some(format!("it ended with {code}")),
    }
    if acts(&ended.stderr) {
        Some("it writes control characters to stderr".into())
    } else if acts(&ended.stdout) {
        Some("it shows control characters".into())
    } else if last.contains("out of memory") {
        Some("it runs out of memory".into())
    } else if ended.resident > most {
        Some(format!("it took {} MiB", ended.resident >> 20))
    } else {
        None
    }
}

/// One thread's part: takes numbers of files until there are no more.
fn attack(folder: PathBuf, seeds: &Seeds, run: &Run) -> Found {
    let place = Place::new(folder, seeds);
    let mut found = Found::default();
    loop {
        let number = run.next.fetch_add(1, Ordering::Relaxed);
        if number >= run.end {
            return found;
        }
        if number.is_multiple_of(10_000) {
            println!("from file {number} on");
        }
        let mut rng = Rng::new(run.seed, number);
        let kind = Kind::choose(&mut rng);
        let bytes = kind.file(seeds, &mut rng);
        let all = kind.commands();
        let chosen = if run.every { all } else { std::slice::from_ref(rng.of(all)) };
        for words in chosen {
            place.write(kind, &bytes, seeds);
            let start = rng.clone();
            let mut ended = process::run(&mut place.command(words, &mut rng));
            let allowed = run.hang + run.good.get(words).copied().unwrap_or_default();
            let own = run.own + bytes.len() as u64;
            for _ in 0..AGAIN {
                if (ended.cpu > allowed || ended.resident > most(words, own)) && ended.status.code().is_some() {
                    let again = process::run(&mut place.command(words, &mut start.clone()));
                    (ended.cpu, ended.resident) = (ended.cpu.min(again.cpu), ended.resident.min(again.resident));
                }
            }
            let sum = found.counts.entry(words).or_default();
            *sum = sum.add(Count::of(&ended, own));
            let left = place.left().map(|path| format!("it left {path}"));
            let slow = (ended.cpu > allowed).then(|| format!("it took {:.1} s of CPU", ended.cpu.as_secs_f64()));
            place.clear();
            if let Some(why) = wrong(&ended, words, own).or(left).or(slow) {
                let kept = run.kept.join(number.to_string());
                place.keep(&bytes, &kept);
                let said = [&ended.stderr[..], &ended.stdout].concat();
                let said = String::from_utf8_lossy(&said).chars().take(400).collect::<String>();
                let harm = format!("{}: {words}: {why}: {}", kept.display(), said.escape_debug());
                println!("{harm}");
                found.harm.push(harm);
            }
        }
    }
}

/// The most CPU time that each command takes for files in order.
fn good(folder: PathBuf, seeds: &Seeds, seed: u64) -> BTreeMap<&'static str, Duration> {
    let place = Place::new(folder, seeds);
    let mut longest = BTreeMap::<_, Duration>::new();
    for number in 0..4 {
        for kind in Kind::all() {
            let mut rng = Rng::new(seed, number);
            let bytes = kind.whole(seeds, &mut rng);
            for words in kind.commands() {
                place.write(kind, &bytes, seeds);
                let took = process::run(&mut place.command(words, &mut rng)).cpu;
                let most = longest.entry(*words).or_default();
                *most = took.max(*most);
                place.clear();
            }
        }
    }
    longest
}

/// Which files are to be made, and which is next.
struct Run {
    seed: u64,
    next: AtomicU64,
    end: u64,
    /// Each file goes through every command that reads it; else through one of them.
    every: bool,
    /// What is resident in a program that reads no file.
    own: u64,
    /// CPU time that each command may take beyond what it takes for files in order, which is in `good`.
    hang: Duration,
    good: BTreeMap<&'static str, Duration>,
    kept: PathBuf,
}

fn table(counts: &BTreeMap<&str, Count>) {
    println!(
        "{:>8} {:>8} {:>8} {:>10} {:>8} {:>8}  command",
        "runs", "accepted", "refused", "MiB beside", "CPU s", "s"
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let total = counts.values().fold(Count::default(), |a, b| a.add(*b));
    for (command, c) in counts.iter().chain([(&"all", &total)]) {
        let (runs, seconds) = (c.accepted + c.refused, [c.cpu, c.wall].map(|time| time.as_secs_f64()));
        println!(
            "{runs:>8} {:>8} {:>8} {:>10.1} {:>8.2} {:>8.2}  {command}",
            c.accepted,
            c.refused,
            mib(c.beside),
            seconds[0],
            seconds[1]
        );
    }
}

#[test]
fn malformed_files_do_no_harm() {
    if let Some(folder) = std::env::var_os(MAKE) {
        return seeds::make(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    // By another process, so that this one stays small.
    let mut make = std::process::Command::new(std::env::current_exe().unwrap());
    make.args(["--exact", "malformed_files_do_no_harm"]).env(MAKE, folder.path());
    assert!(make.output().unwrap().status.success());
    let seeds = Seeds::new(folder.path().to_path_buf());
    let first = variable("ARMLET_ATTACK_FIRST").unwrap_or(0);
    let (seed, optimised) =
        (variable("ARMLET_ATTACK_SEED").unwrap_or(1), variable("ARMLET_ATTACK_OPTIMISED").is_some());
    let run = Run {
        seed,
        next: AtomicU64::new(first),
        end: first + variable("ARMLET_ATTACK_FILES").unwrap_or(deep(20_000, 200) as u64),
        every: variable("ARMLET_ATTACK_EVERY").is_some(),
        own: process::run(std::process::Command::new(commands::program()).arg("--version")).resident,
        hang: if optimised { HANG } else { LAX },
        good: if optimised { good(folder.path().join("good"), &seeds, seed) } else { BTreeMap::new() },
        kept: Path::new(env!("CARGO_TARGET_TMPDIR")).join("attack"),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = std::thread::scope(|s| {
        let start = |i: usize| {
            let (folder, seeds, run) = (folder.path().join(i.to_string()), &seeds, &run);
            s.spawn(move || attack(folder, seeds, run))
        };
        let running: Vec<_> = (0..threads).map(start).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut all = Found::default();
    for part in found {
        all.harm.extend(part.harm);
        for (command, count) in part.counts {
            let sum = all.counts.entry(command).or_default();
            *sum = sum.add(count);
        }
    }
    println!("the program itself: {:.1} MiB", run.own as f64 / f64::from(1 << 20));
    table(&all.counts);
    // The damage reaches every stage, or this would not test them.
    assert!(run.end - first < 200 || all.counts.values().any(|c| c.accepted > 0));
    assert!(all.harm.is_empty(), "{} files did harm:\n{}", all.harm.len(), all.harm.join("\n"));
}

#[test]
fn what_is_harm_is_seen() {
    use std::process::Command;
    let said = |script: &str| {
        let ended = process::run(Command::new("sh").args(["-c", script]));
        wrong(&ended, "inspect IT", 10 << 20).unwrap_or_default()
    };
    assert_eq!(said("true"), "");
    assert_eq!(said("echo 'armlet: no' >&2; exit 1"), "");
    assert!(said("kill -SEGV $$").contains("signal"));
    assert!(said("echo 'thread panicked' >&2; exit 101").contains("101"));
    assert!(said("echo 'thread panicked' >&2; exit 1").contains("last line"));
    assert!(said("printf 'armlet: \\033[1m\\n' >&2; exit 1").contains("control"));
    assert!(said("printf 'generated \\033]52;c;AAAA\\007'").contains("shows control"));
    assert!(said("printf 'generated \\302\\233'").contains("shows control"));
    assert!(said("printf '\\342\\200\\256'").contains("shows control"));
    assert!(said("echo 'armlet: out of memory; x' >&2; exit 1").contains("memory"));
    assert!(said("exec python3 -c 'print(len(b\"a\" * (40 << 20)))'").contains("it took"));
}
