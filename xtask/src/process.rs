//! Running commands, and steps of them: what ran, how long it took, and what it printed.
//!
//! Steps may run beside each other ([`Steps::beside`], [`in_parallel`]). What one prints then comes in one piece when it
//! ends; so everything here prints through [`say`], and commands through this module.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Why a step failed.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

thread_local! {
    /// What this thread's steps printed, if it is kept until they end; else they print at once.
    static KEPT: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Seconds of CPU time, user and system, of the commands that this thread ran.
    static CPU: Cell<f64> = const { Cell::new(0.0) };
}

/// Prints a line.
pub(crate) fn say(line: impl AsRef<str>) {
    let line = line.as_ref();
    KEPT.with_borrow_mut(|kept| match kept {
        Some(text) => text.extend([line, "\n"]),
        None => println!("{line}"),
    });
}

/// Runs `f` and gives what it printed, and the CPU seconds of its commands.
fn kept<T>(f: impl FnOnce() -> T) -> (T, String, f64) {
    let before = (KEPT.replace(Some(String::new())), CPU.replace(0.0));
    let result = f();
    let text = KEPT.replace(before.0).unwrap_or_default();
    (result, text, CPU.replace(before.1))
}

/// Takes over what another thread printed and used.
fn take_over(text: &str, cpu: f64) {
    if !text.is_empty() {
        say(text.trim_end_matches('\n'));
    }
    CPU.set(CPU.get() + cpu);
}

/// A step that has passed.
struct Passed {
    name: String,
    seconds: f64,
    cpu: f64,
}

/// The steps so far.
#[derive(Default)]
pub(crate) struct Steps {
    /// Whether the tests run in their full sizes.
    pub(crate) deep: bool,
    passed: Vec<Passed>,
    failed: usize,
}

/// A list of steps, which a thread of its own runs.
type List<'f> = &'f (dyn Fn(&mut Steps) -> Result<(), Failed> + Sync);

impl Steps {
    pub(crate) fn new(deep: bool) -> Self {
        Steps { deep, ..Steps::default() }
    }

    /// What tells the tests their size: `deep` of `tests/common` reads it.
    pub(crate) fn sizes(&self) -> (&'static str, &'static str) {
        ("ARMLET_DEEP", if self.deep { "1" } else { "0" })
    }

    /// Runs one step, with a line before and after it.
    pub(crate) fn step(&mut self, name: &str, run: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
        let (start, before) = (Instant::now(), CPU.get());
        if KEPT.with_borrow(Option::is_some) {
            // What runs now; the rest comes when it ends.
            println!("... {name}");
        }
        say(format!("==> {name}"));
        let result = run().map_err(|Failed(why)| Failed(format!("{name}: {why}")));
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), CPU.get() - before);
        let ended = if result.is_ok() { "passed" } else { "failed" };
        say(format!("==> {name}: {ended} in {seconds:.0} s ({cpu:.0} s CPU)"));
        // Beside another thread's steps, each comes in one piece.
        if let Some(text) = KEPT.with_borrow_mut(|kept| kept.as_mut().map(std::mem::take)) {
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
        }
        match result {
            Ok(()) => self.passed.push(Passed { name: name.into(), seconds, cpu }),
            Err(_) => self.failed += 1,
        }
        result
    }

    /// Runs lists of steps beside each other. If a step fails, the other lists still run to their ends.
    pub(crate) fn beside<const N: usize>(&mut self, lists: [List<'_>; N]) -> Result<(), Failed> {
        let deep = self.deep;
        let lists = thread::scope(|s| lists.map(|run| s.spawn(move || list(deep, run))).map(|thread| thread.join()));
        let mut all = Ok(());
        for joined in lists {
            let ((result, steps), text, cpu) = joined.map_err(|_| Failed("a list of steps panicked".into()))?;
            take_over(&text, cpu);
            self.passed.extend(steps.passed);
            self.failed += steps.failed;
            all = match (all, result) {
                (Err(Failed(one)), Err(Failed(two))) => Err(Failed(format!("{one}\nxtask: {two}"))),
                (one, two) => one.and(two),
            };
        }
        all
    }

    /// The last lines, and the exit code.
    pub(crate) fn end(self, result: Result<(), Failed>) -> ExitCode {
        if let Err(Failed(why)) = &result {
            eprintln!("xtask: {why}");
        }
        let mut slowest: Vec<&Passed> = self.passed.iter().collect();
        slowest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        if slowest.len() > 1 {
            println!("The slowest steps:");
            for Passed { name, seconds, cpu } in slowest.iter().take(5) {
                println!("    {seconds:4.0} s ({cpu:4.0} s CPU)  {name}");
            }
        }
        println!("{} passed, {} failed", self.passed.len(), self.failed.max(usize::from(result.is_err())));
        if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Runs a list of steps, and keeps what it prints.
fn list(deep: bool, run: impl FnOnce(&mut Steps) -> Result<(), Failed>) -> ((Result<(), Failed>, Steps), String, f64) {
    kept(|| {
        let mut steps = Steps::new(deep);
        (run(&mut steps), steps)
    })
}

/// Runs `f` of each item, on as many threads as there are CPUs; gives the results in order, or the first failure.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    f: impl Fn(&T) -> Result<R, Failed> + Sync,
) -> Result<Vec<R>, Failed> {
    let next = Mutex::new(0..items.len());
    let worker = || {
        let take = || next.lock().ok()?.next();
        std::iter::from_fn(take).map(|i| (i, kept(|| f(&items[i])))).collect::<Vec<_>>()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let mut found = thread::scope(|s| {
        let workers: Vec<_> = (0..threads).map(|_| s.spawn(worker)).collect();
        let lists = workers.into_iter().map(|w| w.join().map_err(|_| Failed("a worker panicked".into())));
        Ok(lists.collect::<Result<Vec<_>, Failed>>()?.into_iter().flatten().collect::<Vec<_>>())
    })?;
    found.sort_by_key(|(i, _)| *i);
    let take = |(_, (result, text, cpu)): (usize, (Result<R, Failed>, String, f64))| {
        take_over(&text, cpu);
        result
    };
    // All of them, so that each says what it printed.
    found.into_iter().map(take).collect::<Vec<_>>().into_iter().collect()
}

/// Waits for a child to end, and counts its CPU time.
pub(crate) fn wait(mut child: Child) -> std::io::Result<ExitStatus> {
    // Between its end and `wait` a process still has its record, where the system has such records.
    let record = format!("/proc/{}/stat", child.id());
    while let Ok(stat) = std::fs::read_to_string(&record) {
        // After the name in brackets: state … user and system time, its own and that of the children it waited for.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        if fields.first() == Some(&"Z") {
            let ticks = fields.iter().skip(11).take(4).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>();
            CPU.set(CPU.get() + ticks / 100.0);
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.wait()
}

/// Reads all that a child prints to its pipes, waits for its end, and counts its CPU time.
pub(crate) fn finish(mut child: Child) -> std::io::Result<Output> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::scope(|s| {
        let reader = s.spawn(|| err.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut stderr)));
        let read = out.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut stdout));
        read.and(reader.join().unwrap_or(Ok(0)))
    })?;
    Ok(Output { status: wait(child)?, stdout, stderr })
}

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or(PathBuf::from("."), Path::to_path_buf)
}

/// The library's version: major, minor, patch.
pub(crate) fn version() -> Result<[String; 3], Failed> {
    let manifest =
        std::fs::read_to_string(root().join("Cargo.toml")).map_err(|e| Failed(format!("Cargo.toml: {e}")))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    let parts = version.unwrap_or_default().split('.').map(String::from).collect::<Vec<_>>();
    parts.try_into().map_err(|_| Failed("Cargo.toml: no version of three numbers".into()))
}

/// Runs a command in the project's folder; its output is the user's to see.
pub(crate) fn command(program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<(), Failed> {
    let mut command = Command::new(program);
    show(command.args(args).envs(env.iter().copied())).map_err(|Failed(why)| {
        // As it would be typed, without the environment.
        Failed(why.replace(&format!("{command:?}"), &format!("`{program} {}`", args.join(" "))))
    })
}

/// Runs a command, in the project's folder if it names no other; its output is the user's to see.
pub(crate) fn show(command: &mut Command) -> Result<(), Failed> {
    let shown = format!("{command:?}");
    let cannot = |e: std::io::Error| Failed(format!("cannot run {shown}: {e}"));
    if command.get_current_dir().is_none() {
        command.current_dir(root());
    }
    if KEPT.with_borrow(Option::is_some) {
        let (mut pipe, writer) = std::io::pipe().map_err(cannot)?;
        command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(cannot)?).stderr(writer);
        let child = command.spawn().map_err(cannot)?;
        // The command holds the pipe's other end open.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).map_err(cannot)?;
        take_over(&String::from_utf8_lossy(&text), 0.0);
        ended(&shown, wait(child).map_err(cannot)?)
    } else {
        ended(&shown, command.spawn().and_then(wait).map_err(cannot)?)
    }
}

/// Runs a program of tests, and fails if none ran: a filter that fits no name is no success.
pub(crate) fn tests(command: &mut Command) -> Result<(), Failed> {
    let shown = format!("{command:?}");
    let output = outcome(command)?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    say(said.trim());
    if !output.status.success() {
        return Err(Failed(format!("{shown} ended with {}: {}", output.status, errors.trim())));
    }
    let passed =
        said.lines().filter_map(|l| l.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<usize>().ok());
    if passed.sum::<usize>() > 0 { Ok(()) } else { Err(Failed(format!("{shown} ran no test"))) }
}

fn ended(shown: &str, status: ExitStatus) -> Result<(), Failed> {
    if status.success() { Ok(()) } else { Err(Failed(format!("{shown} ended with {status}"))) }
}

/// Runs a command and gives its stdout.
pub(crate) fn output(command: &mut Command) -> Result<String, Failed> {
    Ok(outputs(command)?.0)
}

/// Runs a command, in the project's folder if it names no other, and gives its stdout and its stderr.
pub(crate) fn outputs(command: &mut Command) -> Result<(String, String), Failed> {
    let shown = format!("{command:?}");
    let output = outcome(command)?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(Failed(format!("{shown} ended with {}: {}", output.status, stderr.trim())));
    }
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), stderr))
}

/// Runs a command with nothing at its stdin, in the project's folder if it names no other, and gives what became of it.
pub(crate) fn outcome(command: &mut Command) -> Result<Output, Failed> {
    outcome_of_input(command, Stdio::null())
}

/// The same, with something to read.
pub(crate) fn outcome_of_input(command: &mut Command, input: Stdio) -> Result<Output, Failed> {
    let cannot = |e: std::io::Error, command: &Command| Failed(format!("cannot run {command:?}: {e}"));
    if command.get_current_dir().is_none() {
        command.current_dir(root());
    }
    let child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.and_then(finish).map_err(|e| cannot(e, command))
}

/// Writes a record to `benches/record`: a title, the command, of what code, and the text. `insns --random` is `insns-random.md`.
pub(crate) fn record(name: &str, title: &str, tools: &str, text: &str) -> Result<(), Failed> {
    let commit = output(Command::new("git").args(["rev-parse", "--short", "HEAD"]))?;
    let changes = output(Command::new("git").args(["status", "--porcelain", "src", "Cargo.lock"]))?;
    let changed = if changes.is_empty() { "" } else { " with changes" };
    let rustc = output(Command::new("rustc").arg("--version"))?;
    let (commit, rustc) = (commit.trim(), rustc.trim());
    let text = format!("# {title}\n\n`cargo xtask {name}`, commit {commit}{changed}, {rustc}, {tools}.\n\n{text}");
    let path = root().join("benches/record").join(name.replace(" --", "-")).with_extension("md");
    std::fs::write(&path, text).map_err(|e| Failed(format!("{}: {e}", path.display())))
}

pub(crate) fn cargo(args: &[&str]) -> Result<(), Failed> {
    cargo_with(args, &[])
}

pub(crate) fn cargo_with(args: &[&str], env: &[(&str, &str)]) -> Result<(), Failed> {
    command(env!("CARGO"), args, env)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<(), Failed> {
        show(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn what_runs_in_parallel_prints_in_order_and_in_one_piece() {
        let scripts = ["sleep 0.2; echo a; echo b >&2; echo c", "echo d", "echo e; exit 3", "echo f"];
        let (result, text, _) = kept(|| in_parallel(&scripts, |script| shell(script)));
        assert_eq!(text, "a\nb\nc\nd\ne\nf\n");
        assert!(result.is_err_and(|Failed(why)| why.contains("exit 3") && why.contains("exit status: 3")));
    }

    #[test]
    fn commands_are_charged_with_the_time_of_their_children() {
        let busy = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; true";
        let (result, _, cpu) = kept(|| shell(busy));
        assert!(result.is_ok() && (cpu > 0.0 || !Path::new("/proc/self/stat").exists()), "{cpu}");
        let (result, text, more) = kept(|| in_parallel(&[(), ()], |()| shell(busy)));
        assert!(result.is_ok() && text.is_empty() && (more > 0.0) == (cpu > 0.0), "{more} and {cpu}");
    }

    #[test]
    fn a_filter_that_fits_no_test_fails() {
        let says = |line: &str| kept(|| tests(Command::new("echo").arg(line))).0;
        assert!(says("test result: ok. 3 passed; 0 failed").is_ok());
        assert!(says("test result: ok. 0 passed; 0 failed").is_err_and(|Failed(why)| why.ends_with("ran no test")));
    }

    #[test]
    fn lists_of_steps_all_run_to_their_ends() {
        let mut steps = Steps::default();
        let (result, ..) = kept(|| {
            steps.beside([&|steps| steps.step("a step that fails in a test", || Err(Failed("no".into()))), &|steps| {
                steps.step("another", || Ok(())).and_then(|()| steps.step("a third", || Ok(())))
            }])
        });
        assert!(result.is_err_and(|Failed(why)| why == "a step that fails in a test: no"));
        assert_eq!(steps.passed.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["another", "a third"]);
    }
}
