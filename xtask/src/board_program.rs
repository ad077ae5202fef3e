//! The program `armlet-mpi` with a model, for `cargo xtask boards`: what boards answer, what of the file they have in memory,
//! and what becomes of an answer when a board is killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::boards::{Job, built, failed, job_on_cores, killed, succeeded};
use crate::dist::at;
use crate::launcher::{PATIENCE, launcher, mpirun};
use crate::model;
use crate::process::{Failed, finish, outcome, outcome_of_input, root, say};

pub(crate) const QUESTION: &str = "The capital of France is";
/// Messages of a conversation.
const FIRST: &str = "What is the capital of France?";
const SECOND: &str = "And of Italy?";
/// Tokens of an answer.
const ANSWER: u64 = 24;
/// Of the file and of what else a board touches: the metadata, which have the vocabulary, and around each row of the embedding
/// that a token meets the pages that the system maps with it.
const METADATA: u64 = 2 << 20;
const AROUND: u64 = 64 << 10;
/// The most that a board may have resident of the file, in percent, beside those: of SmolLM2, which has 3 KV heads, and of a
/// model with 8.
const RESIDENT: [(&str, usize, u64); 2] = [("layers", 4, 27), ("rows", 3, 36)];
const RESIDENT_OF_8: [(&str, usize, u64); 1] = [("rows", 4, 27)];

/// Boards that are not alike, as they are told or as they find; by tokens they are always.
const UNEVEN: [(&str, usize, &str); 4] =
    [("layers", 3, "3,1,2"), ("rows", 2, "2,1"), ("rows", 2, "auto"), ("tokens", 2, "auto")];

/// An answer of so many boards.
fn complete(boards: usize, split: &str, file: &Path, tokens: u64) -> Command {
    let mut job = mpirun();
    job.args(["-n", &boards.to_string()]).arg(built("armlet-mpi"));
    job.args(options(split, tokens, QUESTION)).arg("-m").arg(file);
    job
}

pub(crate) fn options(split: &str, tokens: u64, question: &str) -> Vec<String> {
    // Blocks of positions for four boards; the model of random weights has half as many.
    let (tokens, context) = (tokens.to_string(), if split == "tokens" { "8192" } else { "4096" });
    let options = ["complete", "--split", split, "-t", "1", "--temp", "0", "-c", context, "--kv-type", "int8"];
    options.iter().chain(&["-n", &tokens, "-p", question]).map(|word| word.to_string()).collect()
}

/// The answer of the model that is shipped is the same on one board and on several, however they share it: on as many as can be, or
/// on all numbers of them.
pub(crate) fn answers(all: bool) -> Result<(), Failed> {
    let file = model::shipped()?;
    let answer = |boards: usize, split: &str| {
        let said = outcome(&mut complete(boards, split, &file, ANSWER))?;
        succeeded(&format!("{boards} boards by {split}"), &said)
    };
    let expected = answer(1, "layers")?;
    for (split, most) in [("layers", 4), ("rows", 3), ("tokens", 4)] {
        for boards in if all { 2 } else { most }..=most {
            if answer(boards, split)? != expected {
                return Err(Failed(format!("{boards} boards by {split} answer otherwise than one")));
            }
        }
    }
    // The program of the tests, which is not optimised, takes long to measure memory.
    for (split, boards, shares) in
        UNEVEN.into_iter().filter(|(split, _, shares)| all || *shares != "auto" || *split == "tokens")
    {
        let mut job = complete(boards, split, &file, ANSWER);
        let said = outcome(job.args(["--shares", shares, "-v"]))?;
        // Answers do not show them.
        let known = if split == "tokens" {
            "1,1"
        } else if shares == "auto" {
            ""
        } else {
            shares
        };
        if !String::from_utf8_lossy(&said.stderr).contains(&format!("; shares {known}")) {
            return Err(Failed(format!("{boards} boards by {split} have other shares than {shares}")));
        }
        if succeeded(&format!("{boards} boards by {split} in shares of {shares}"), &said)? != expected {
            return Err(Failed(format!("{boards} boards by {split} in shares of {shares} answer otherwise than one")));
        }
    }
    say("    up to 4 boards by layers and tokens, and 3 by rows, give the same answer, in uneven shares too");
    Ok(())
}

/// Bytes that what was said takes in a saved conversation as short as these, at most; the cache is behind them.
const TEXTS: usize = 4096;

/// What is typed to a conversation: a question, and another one twice, in the same place.
fn typed(session: &Path) -> String {
    format!("{FIRST}\n/save {0}\n{SECOND}\n/load {0}\n{SECOND}\n", session.display())
}

/// Commands do on several boards what they do on one.
pub(crate) fn commands() -> Result<(), Failed> {
    let file = model::shipped()?;
    let run = |boards: usize, words: &[&str], input: Stdio| {
        let mut job = mpirun();
        job.args(["-n", &boards.to_string()]).arg(built("armlet-mpi")).args(words).arg("-m").arg(&file);
        succeeded(&format!("{boards} boards: {}", words.join(" ")), &outcome_of_input(&mut job, input)?)
    };
    let score = |boards, split: &str| {
        let words =
            ["perplexity", "--json", "-t", "1", "-f", model::TEXT, "-c", "64", "--chunks", "2", "--split", split];
        let said = run(boards, &words, Stdio::null())?;
        model::number(&said, "ppl").ok_or_else(|| Failed(format!("no perplexity in {said}")))
    };
    let alone = score(1, "layers")?;
    for (boards, split) in [(3, "layers"), (2, "rows")] {
        let found = score(boards, split)?;
        if found.to_bits() != alone.to_bits() {
            return Err(Failed(format!("perplexity on {boards} boards by {split} is {found}, and on one {alone}")));
        }
    }
    let talk = |boards: usize, split: &str| {
        let (session, input) = (session("typed")?, session("input")?);
        fs::write(&input, typed(&session)).map_err(at(&input))?;
        let input = fs::File::open(&input).map_err(at(&input))?;
        let words = ["chat", "-t", "1", "--temp", "0", "-n", "8", "-c", "8192", "--kv-type", "int8", "--split", split];
        let said = run(boards, &words, input.into())?;
        let saved = fs::read(&session).map_err(at(&session))?;
        // The time when it began differs.
        let cache = saved.get(TEXTS..).map(<[u8]>::to_vec);
        Ok::<_, Failed>((said, cache.ok_or_else(|| Failed("nothing is saved".into()))?))
    };
    // One board would take all of it for one message.
    let (said, saved) = talk(2, "layers")?;
    if said.lines().filter(|line| !line.is_empty()).count() != 3 {
        return Err(Failed(format!("not three answers: {said:?}")));
    }
    for (boards, split) in [(3, "rows"), (2, "tokens")] {
        let talked = talk(boards, split)?;
        if talked != (said.clone(), saved.clone()) {
            return Err(Failed(format!("{boards} boards by {split} say {:?}, and 2 by layers {said:?}", talked.0)));
        }
    }
    let table = run(2, &["bench", "-t", "1", "-p", "8", "-n", "2", "-r", "1", "--split", "rows"], Stdio::null())?;
    if !table.contains("| tg2 |") {
        return Err(Failed(format!("bench measures nothing: {table}")));
    }
    let mut check = mpirun();
    let said = succeeded("check", &outcome(check.args(["-n", "3"]).arg(built("armlet-mpi")).arg("check"))?)?;
    if !(0..3).all(|rank| said.contains(&format!("(rank {rank}): "))) {
        return Err(Failed(format!("check does not know three boards: {said}")));
    }
    say("    conversations, perplexity, bench and check");
    Ok(())
}

/// Boards that cannot run together: the first one's options, the second one's, and what one of them says for both.
const APART: [(&[&str], &[&str], &str); 4] = [
    (&["--shares", "2,1"], &["--shares", "auto"], "(rank 1): --shares is auto, and on board"),
    (&["--split", "layers"], &["--split", "tokens"], "(rank 1): --split is tokens, and on board"),
    (&["-c", "4096"], &["-c", "2048"], "(rank 1): context is 2048, and on board"),
    (&["--kv-type", "f16"], &["--kv-type", "int8"], "(rank 1): KV type is int8, and on board"),
];

/// They say so in one line, and all of them end.
pub(crate) fn apart() -> Result<(), Failed> {
    let (one, other) = (model::shipped()?, model::in_format("q8_0")?);
    let job = |first: &[&str], second: &[&str], files: [&Path; 2]| {
        let mut job = mpirun();
        for (options, (file, before)) in [first, second].into_iter().zip(files.into_iter().zip([None, Some(":")])) {
            job.args(before).args(["-n", "1"]).arg(built("armlet-mpi")).args(["complete", "-t", "1", "-p", QUESTION]);
            job.args(options).arg("-m").arg(file);
        }
        outcome(&mut job)
    };
    for (first, second, why) in APART {
        failed(why, &job(first, second, [&one; 2])?, 1, why)?;
    }
    failed("another model", &job(&[], &[], [&one, &other])?, 1, "(rank 1): the model is ")?;
    let many = outcome(&mut complete(4, "rows", &one, 1))?;
    failed("too many boards", &many, 1, "4 boards: a split by rows has no use for more than 3")?;
    let short = job(&["--split", "tokens", "-c", "512"], &["--split", "tokens", "-c", "512"], [&one; 2])?;
    failed("a short context", &short, 1, "a split by tokens has no use for more than 1 in a context of 512 tokens")?;
    // As Open MPI pins two ranks if it is not told.
    let mut pinned = Command::new("timeout");
    pinned.args([PATIENCE, "mpirun", "--bind-to", "hwthread", "-n", "2"]).stdin(Stdio::null());
    pinned.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1").arg(built("armlet-mpi"));
    let said = outcome(pinned.args(["complete", "-p", QUESTION, "-m"]).arg(&one))?;
    failed("pinned boards", &said, 1, "threads, and the launcher has pinned it to 1 of its ")
}

/// A prompt that boards divide, some of which is in the cache of the second one, is read as by one.
pub(crate) fn prompts() -> Result<(), Failed> {
    let file = model::shipped()?;
    let text = "Small boards read a long text together, and none of them has all of it. ".repeat(140) + QUESTION;
    let answer = |boards: usize| {
        let mut job = mpirun();
        job.args(["-n", &boards.to_string()]).arg(built("armlet-mpi")).args(options("tokens", 4, &text));
        let said = outcome(job.args(["--chunk", "64", "-m"]).arg(&file))?;
        succeeded(&format!("{boards} boards with a long prompt"), &said)
    };
    if answer(1)? != answer(3)? {
        return Err(Failed("3 boards read a long prompt otherwise than one".into()));
    }
    say("    3 boards read a long prompt as one does");
    Ok(())
}

/// A board has its own weights in memory, and not those of others: as an answer ends, each has read all that it reads.
pub(crate) fn resident(deep: bool) -> Result<(), Failed> {
    let (file, session) = (mapped_as(model::in_format("q8_0")?)?, session("resident")?);
    // A conversation that goes on: all of the model has a fingerprint, which is compared.
    let begun = outcome(&mut chat_with(&file, 1, "layers", &session, 8, FIRST))?;
    succeeded("a conversation", &begun)?;
    resident_of(&file, &RESIDENT, |boards, split| chat_with(&file, boards, split, &session, ANSWER, SECOND))?;
    if !deep {
        return Ok(());
    }
    let file = mapped_as(model::random("q8_0")?)?;
    resident_of(&file, &RESIDENT_OF_8, |boards, split| complete(boards, split, &file, ANSWER))
}

/// A file by the name that its mappings have.
fn mapped_as(file: PathBuf) -> Result<PathBuf, Failed> {
    fs::canonicalize(&file).map_err(at(&file))
}

fn resident_of(file: &Path, rows: &[(&str, usize, u64)], job: impl Fn(usize, &str) -> Command) -> Result<(), Failed> {
    let size = file.metadata().map_err(at(file))?.len();
    for (split, boards, most) in rows {
        let mut job = job(*boards, split);
        let child = job.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(|e| Failed(format!("cannot run {job:?}: {e}")))?;
        let ends = std::thread::spawn(|| finish(child));
        let mut last = BTreeMap::new();
        while !ends.is_finished() {
            last.extend(ranks().into_iter().filter_map(|(rank, pid)| Some((rank, mapped(pid, file)?))));
            std::thread::sleep(Duration::from_millis(20));
        }
        let ended = ends.join().map_err(|_| Failed("waiting for the job panicked".into()))?;
        succeeded("the job", &ended.map_err(|e| Failed(e.to_string()))?)?;
        let percent: Vec<f64> = last.values().map(|bytes| *bytes as f64 / size as f64 * 100.0).collect();
        say(format!("    {boards} boards by {split}: {percent:.1?} % of the file"));
        let limit = size * most / 100 + METADATA + AROUND * (ANSWER + QUESTION.len() as u64 + SECOND.len() as u64);
        if last.len() != *boards || last.values().any(|bytes| *bytes > limit) {
            return Err(Failed(format!("{last:?} bytes are resident on {boards} boards, of {limit} that may be")));
        }
    }
    Ok(())
}

/// A board is killed in the middle of an answer: the conversation is as it was saved before, and goes on on one board.
pub(crate) fn killed_answering() -> Result<(), Failed> {
    let session = session("killed")?;
    succeeded("an answer", &outcome(&mut chat(3, "layers", &session, 8, FIRST)?)?)?;
    let saved = fs::read(&session).map_err(at(&session))?;
    let mut command = chat(3, "layers", &session, 4000, SECOND)?;
    command.arg("--ignore-eos");
    let job = Job::started(&mut command, 3, "armlet-mpi", |job, lines| {
        // So much of the answer is there.
        lines.read_exact(&mut [0; 64]).map_err(|e| Failed(format!("no answer: {e}")))?;
        ranks().into_iter().for_each(|(rank, pid)| {
            if let Some(board) = job.boards.get_mut(rank) {
                *board = pid;
            }
        });
        Ok(())
    })?;
    killed(job)?;
    if fs::read(&session).map_err(at(&session))? != saved {
        return Err(Failed("the conversation is not what was saved last".into()));
    }
    succeeded("one board", &outcome(&mut chat(1, "layers", &session, 8, SECOND)?)?).map(drop)
}

/// A rank on this machine and two on emulated cores give the text that one board gives, however they share the model.
pub(crate) fn mixed(arm: &Path) -> Result<(), Failed> {
    let file = model::shipped()?;
    let one = succeeded("one board", &outcome(&mut complete(1, "layers", &file, 8))?)?;
    for split in ["layers", "rows", "tokens"] {
        let mut args = options(split, 8, QUESTION);
        args.extend(["-m".into(), file.display().to_string()]);
        let three = job_on_cores(arm, "armlet-mpi", &args)?;
        say(format!("    three boards by {split}: {:?}", three.trim_end()));
        if three != one {
            return Err(Failed(format!("three boards by {split} say {three:?}, and one {one:?}")));
        }
    }
    Ok(())
}

/// The processes of the program's boards, by rank.
fn ranks() -> BTreeMap<usize, u32> {
    let program = built("armlet-mpi");
    let rank = |pid: u32| {
        let is_board = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
        let environment = fs::read(format!("/proc/{pid}/environ")).ok().filter(|_| is_board)?;
        let mut words = environment.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
        words.find_map(|word| word.strip_prefix(launcher().rank())?.strip_prefix('=')?.parse().ok())
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter_map(|pid| Some((rank(pid)?, pid))).collect()
}

/// Bytes of a file's mappings that a process has resident, if it has any.
fn mapped(pid: u32, file: &Path) -> Option<u64> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    Some(resident_in(&smaps, file.to_str()?)).filter(|bytes| *bytes > 0)
}

/// The sum over the mappings of a path, in bytes.
fn resident_in(smaps: &str, path: &str) -> u64 {
    let (mut is_file, mut kib) = (false, 0);
    for line in smaps.lines() {
        match line.split_once(':') {
            // Each mapping begins with its addresses; the device has a colon, too.
            Some((name, value)) if !name.contains('-') => {
                let size = value.trim().strip_suffix(" kB").and_then(|n| n.parse::<u64>().ok());
                kib += size.filter(|_| is_file && name == "Rss").unwrap_or(0);
            }
            _ => is_file = line.ends_with(&format!(" {path}")),
        }
    }
    kib * 1024
}

/// A conversation that was begun on one board goes on on others, and leaves the file that one board leaves.
pub(crate) fn sessions() -> Result<(), Failed> {
    let answer = |boards: usize, split: &str, session: &Path, question: &str| {
        succeeded(&format!("{boards} boards by {split}"), &outcome(&mut chat(boards, split, session, 8, question)?)?)
    };
    let (begun, session) = (session("begun")?, session("session")?);
    answer(1, "layers", &begun, FIRST)?;
    let mut expected = None;
    for (boards, split) in [(1, "layers"), (3, "layers"), (3, "rows"), (2, "tokens")] {
        fs::copy(&begun, &session).map_err(at(&session))?;
        answer(boards, split, &session, SECOND)?;
        let bytes = fs::read(&session).map_err(at(&session))?;
        if *expected.get_or_insert_with(|| bytes.clone()) != bytes {
            return Err(Failed(format!("{boards} boards by {split} save otherwise than one")));
        }
    }
    say("    a conversation goes on on 3 boards by layers and rows, and on 2 by tokens, in the file of one");
    fs::write(&session, "damaged").map_err(at(&session))?;
    let damaged = outcome(&mut chat(3, "layers", &session, 8, FIRST)?)?;
    failed("a damaged session", &damaged, 1, "it is not a saved session or prefix")
}

/// The file of a conversation. What an earlier run has left there would go on.
fn session(name: &str) -> Result<PathBuf, Failed> {
    let folder = root().join("target/boards/sessions");
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let _ = fs::remove_file(folder.join(name));
    Ok(folder.join(name))
}

/// A message of a conversation that is kept in a file.
fn chat(boards: usize, split: &str, session: &Path, tokens: u64, message: &str) -> Result<Command, Failed> {
    Ok(chat_with(&model::shipped()?, boards, split, session, tokens, message))
}

/// The same with a model.
fn chat_with(model: &Path, boards: usize, split: &str, session: &Path, tokens: u64, message: &str) -> Command {
    let mut job = mpirun();
    job.args(["-n", &boards.to_string()]).arg(built("armlet-mpi")).args(["chat", "--split", split, "-m"]);
    job.arg(model).args(["-t", "1", "--temp", "0", "-c", "8192", "--kv-type", "int8"]);
    job.args(["-n", &tokens.to_string(), "-p", message, "--session"]).arg(session);
    job
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_one_file_are_added() {
        let mapping = |path: &str, kib| {
            format!("7f00-7f20 r--p 00000000 fe:00 5   {path}\nSize: 99 kB\nRss: {kib} kB\nPss: 7 kB\n")
        };
        let smaps = mapping("/m.gguf", 4) + &mapping("/a/m.gguf", 8) + &mapping("", 16) + &mapping("/m.gguf", 32);
        assert_eq!(resident_in(&smaps, "/m.gguf"), 36 * 1024);
        assert_eq!(resident_in(&smaps, "/other"), 0);
    }
}
