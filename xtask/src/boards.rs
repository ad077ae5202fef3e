//! `cargo xtask boards`: several boards over MPI, as far as one machine can be several: ranks on this machine, and with
//! `--deep` ranks on emulated cores in the same job, and hosts that are network namespaces.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::board_hosts;
use crate::board_insns;
use crate::board_program;
use crate::dist::at;
use crate::launcher::{Launcher, launcher, mpirun};
use crate::model;
use crate::process::{Failed, Steps, cargo, outcome, output, root, say, show, wait};
use crate::setup::GNU;

/// A process that is there so long after something went wrong is left for ever.
const LEFT: Duration = Duration::from_secs(60);
/// Cores of the ranks that are not this machine's.
const CORES: [&str; 2] = ["cortex-a72", "max"];
/// How much of a core a board may take that waits for a command, in percent.
const IDLE: f64 = 2.0;

/// # Errors
/// What this needs and is not here, or what went wrong.
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("armlet-mpi", || cargo(&[&["test", "--no-run"], &model::PACKAGES[..]].concat()))?;
    let deep = steps.deep;
    steps.step("a model on up to 4 boards", || board_program::answers(deep))?;
    steps.step("commands on several boards", board_program::commands)?;
    steps.step("a conversation moves between boards", board_program::sessions)?;
    steps.step("what of a model is in a board's memory", || board_program::resident(deep))?;
    steps.step("what boards may rely on", contract)?;
    steps.step("boards that do not fit together", cards)?;
    steps.step("boards that cannot run a model together", board_program::apart)?;
    steps.step("a board is killed", killed_exchanging)?;
    steps.step("a board is killed in an answer", board_program::killed_answering)?;
    steps.step("a board is silent", silent)?;
    steps.step("boards that wait for a command", idle)?;
    if !steps.deep {
        return Ok(());
    }
    steps.step("a long prompt on 3 boards", board_program::prompts)?;
    let mut arm = PathBuf::new();
    steps.step("exchanges for arm64", || {
        arm = libraries()?;
        cross(&arm, &["--example", "exchanges", "--no-default-features"])
    })?;
    steps.step("three kinds of CPU in one job", || mixed(&arm))?;
    steps.step("armlet-mpi for arm64", || cross(&arm, &["--bins"]))?;
    steps.step("an answer of three kinds of CPU", || board_program::mixed(&arm))?;
    board_hosts::run(steps)?;
    board_insns::run(steps, false)
}

/// What was built: `armlet-mpi`, or `examples/exchanges`.
pub(crate) fn built(name: &str) -> PathBuf {
    root().join("target/debug").join(name)
}

/// Runs the example on so many boards.
fn exchanges(boards: usize, args: &[&str]) -> Result<Output, Failed> {
    outcome(mpirun().args(["-n", &boards.to_string()]).arg(built("examples/exchanges")).args(args))
}

/// What a job said, if it ended well.
pub(crate) fn succeeded(what: &str, output: &Output) -> Result<String, Failed> {
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        return Ok(said.into_owned());
    }
    Err(Failed(format!("{what} ended with {}: {said}{errors}", output.status)))
}

/// That a job failed with this exit code, and said this once.
pub(crate) fn failed(what: &str, output: &Output, code: i32, why: &str) -> Result<(), Failed> {
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(code) && errors.matches(why).count() == 1 {
        return Ok(());
    }
    Err(Failed(format!("{what} ended with {}, not with {code} and \"{why}\": {errors}", output.status)))
}

fn contract() -> Result<(), Failed> {
    for boards in 1..=4 {
        succeeded("the contract", &exchanges(boards, &["contract"])?)?;
    }
    say("    1 to 4 boards exchange what they should, and as many bytes");
    succeeded("a thread", &exchanges(2, &["thread"])?).map(drop)
}

fn cards() -> Result<(), Failed> {
    let troubles = [
        ("model", "board b2 (rank 2): the model is 0000000000000001, and on board b0 (rank 0) 0000000000000000"),
        ("refused", "(rank 2): model.gguf: no such file"),
        ("pinned", "board b2 (rank 2): 4 threads, and the launcher has pinned it to 1 of its 4 CPUs"),
        ("memory", "board b2 (rank 2): 900 MiB are needed, and 800 MiB are available"),
        // They have three names.
        ("none", "3 boards, and the launcher would not notice within minutes that one is gone"),
    ];
    // That of MPICH notices nothing, however it is told.
    let troubles = troubles.into_iter().filter(|(trouble, _)| *trouble != "none" || launcher() != Launcher::Hydra);
    for (trouble, why) in troubles {
        let start = Instant::now();
        failed(trouble, &exchanges(3, &["cards", trouble])?, 1, why)?;
        say(format!("    {trouble}: after {:.1} s", start.elapsed().as_secs_f64()));
    }
    let mut kept = mpirun();
    kept.args(["-n", "3"]).args(launcher().keepalive()).arg(built("examples/exchanges"));
    succeeded("boards with keepalive", &outcome(kept.args(["cards", "none"]))?)?;
    let mut few = mpirun();
    few.args(["-n", "3"]).arg(built("armlet-mpi")).args(["check", "--shares", "1,2"]);
    failed("too few shares", &outcome(&mut few)?, 1, "--shares 1,2: 2 shares, and 3 boards")?;
    let wrong = outcome(mpirun().args(["-n", "2"]).arg(built("armlet-mpi")).arg("chekc"))?;
    failed("wrong usage", &wrong, 2, "unrecognized subcommand")?;
    let program = built("armlet-mpi");
    let mut other = mpirun();
    other.args(["-n", "1"]).arg(&program).arg("check").args([":", "-n", "1"]).arg(&program).arg("chekc");
    failed("an older program on one board", &outcome(&mut other)?, 2, "(rank 1): unrecognized subcommand 'chekc'")
}

/// A job that runs.
pub(crate) struct Job {
    child: Child,
    /// Reads what it says on stderr, until the last process that could say something has ended.
    errors: JoinHandle<String>,
    /// The name of its program.
    program: &'static str,
    /// The processes of the boards, by rank.
    pub(crate) boards: Vec<u32>,
}

impl Job {
    /// Starts a job of `exchanges` that says when it runs, and waits for that.
    pub(crate) fn start(command: &mut Command, boards: usize) -> Result<Self, Failed> {
        Self::started(command, boards, "exchanges", |job, said| {
            for line in said.lines().map_while(Result::ok) {
                let process = line.strip_prefix("board ").and_then(|line| line.split_once(" is process "));
                if let Some((rank, pid)) = process {
                    let number = |text: &str| text.parse::<u32>().map_err(|e| Failed(format!("{line}: {e}")));
                    let board = job.boards.get_mut(number(rank)? as usize);
                    *board.ok_or_else(|| Failed(format!("{line}: there is none")))? = number(pid)?;
                }
                if line == "all run" {
                    return Ok(());
                }
            }
            Err(Failed("it does not run".into()))
        })
    }

    /// Starts a job of a program, and waits until it runs, as `runs` knows from what it says.
    pub(crate) fn started(
        command: &mut Command,
        boards: usize,
        program: &'static str,
        runs: impl FnOnce(&mut Self, &mut BufReader<ChildStdout>) -> Result<(), Failed>,
    ) -> Result<Self, Failed> {
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| Failed(format!("cannot run {command:?}: {e}")))?;
        let (said, errors) = child.stdout.take().zip(child.stderr.take()).ok_or_else(|| Failed("no pipes".into()))?;
        let errors = std::thread::spawn(move || io::read_to_string(errors).unwrap_or_default());
        let (mut job, mut said) = (Job { child, errors, program, boards: vec![0; boards] }, BufReader::new(said));
        match runs(&mut job, &mut said) {
            Ok(()) => {
                std::thread::spawn(move || io::copy(&mut said, &mut io::sink()));
                Ok(job)
            }
            Err(Failed(why)) => {
                drop(said);
                let End { errors, .. } = job.end()?;
                Err(Failed(format!("a job ended before it ran: {why}: {errors}")))
            }
        }
    }

    /// Waits for its end, and for that of all its processes.
    pub(crate) fn end(self) -> Result<End, Failed> {
        let start = Instant::now();
        let status = wait(self.child).map_err(|e| Failed(e.to_string()))?;
        let seconds = start.elapsed().as_secs_f64();
        let runs = |pid: &&u32| {
            let exe = fs::read_link(format!("/proc/{pid}/exe"));
            exe.is_ok_and(|exe| exe.ends_with(self.program))
        };
        while start.elapsed() < LEFT && (self.boards.iter().any(|pid| runs(&pid)) || !self.errors.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Some(pid) = self.boards.iter().find(runs) {
            return Err(Failed(format!("process {pid} is left")));
        }
        if !self.errors.is_finished() {
            return Err(Failed("a daemon of Open MPI is left".into()));
        }
        let all = start.elapsed().as_secs_f64();
        let errors = self.errors.join().map_err(|_| Failed("reading stderr panicked".into()))?;
        Ok(End { status, errors, seconds, all })
    }
}

/// How a job ended.
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    /// What it said on stderr.
    pub(crate) errors: String,
    /// Seconds until the launcher ended, and until the last process did.
    pub(crate) seconds: f64,
    pub(crate) all: f64,
}

fn killed_exchanging() -> Result<(), Failed> {
    let mut command = mpirun();
    killed(Job::start(command.args(["-n", "3"]).arg(built("examples/exchanges")).args(["passes", "60"]), 3)?)
}

/// The last of three boards is killed: the job ends, and says which it was.
pub(crate) fn killed(job: Job) -> Result<(), Failed> {
    let pid =
        job.boards.get(2).filter(|pid| **pid > 0).ok_or_else(|| Failed("no process of board 2 was found".into()))?;
    let pid = pid.to_string();
    show(Command::new("kill").args(["-9", &pid]))?;
    let End { status, errors, seconds, .. } = job.end()?;
    let host = Command::new("uname").arg("-n").output().map_err(|e| Failed(e.to_string()))?.stdout;
    let which = if launcher() == Launcher::Hydra { format!("PID {pid} ") } else { "rank 2".into() };
    let host = String::from_utf8_lossy(&host).trim().to_string();
    // The launcher has seen it; boards that wait for each other would say so only when their patience is over.
    let is_seen = |line: &&str| line.contains(&which) && line.contains(&host) && !line.contains("has not answered");
    match errors.lines().find(is_seen).filter(|_| !status.success()) {
        Some(line) => {
            say(format!("    after {seconds:.1} s: {line}"));
            Ok(())
        }
        None => Err(Failed(format!("the job ended with {status}: {errors}"))),
    }
}

/// Board 1 does not answer board 2, which does not answer board 0. Both give up, and name board 1.
fn silent() -> Result<(), Failed> {
    let start = Instant::now();
    // A second, or more where others have the CPU.
    let why = "board b1 (rank 1) has not answered for ";
    // They have three names.
    let mut command = mpirun();
    command.args(["-n", "3"]).args(launcher().keepalive()).arg(built("examples/exchanges"));
    let ended = outcome(command.args(["silent", "1"]))?;
    failed("the job", &ended, 1, why)?;
    failed("the job", &ended, 1, "s; the conversation is kept up to token 2")?;
    say(format!("    after {:.1} s: {why}", start.elapsed().as_secs_f64()));
    Ok(())
}

fn idle() -> Result<(), Failed> {
    let said = succeeded("the job", &exchanges(3, &["idle", "5"])?)?;
    let percent = |line: &str| line.strip_prefix("idle: ")?.strip_suffix(" % of a core")?.parse::<f64>().ok();
    let used: Vec<f64> = said.lines().filter_map(percent).collect();
    say(format!("    {used:?} % of a core"));
    // What else runs here makes it more, never less.
    match used.iter().copied().reduce(f64::min) {
        Some(least) if least <= IDLE => Ok(()),
        _ => Err(Failed(format!("boards that wait take {used:?} % of a core"))),
    }
}

/// Open MPI for arm64, unpacked. Debian's packages are fetched beside those of this machine, which stay as they are.
fn libraries() -> Result<PathBuf, Failed> {
    let folder = root().join("target/boards");
    let (apt, arm) = (folder.join("apt"), folder.join("arm64"));
    if arm.join(MPI).exists() {
        return Ok(arm);
    }
    for lists in ["lists/partial", "archives/partial"].map(|name| apt.join(name)) {
        fs::create_dir_all(&lists).map_err(at(&lists))?;
    }
    let get = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(apt.join("archives")).arg("--quiet=2");
        for (option, value) in [("Dir::State", ""), ("Dir::Cache", ""), ("Dir::State::lists", "lists")] {
            command.arg("-o").arg(format!("{option}={}", apt.join(value).display()));
        }
        // Nothing is installed for arm64, and only it is asked for.
        for option in [
            "Dir::State::status=/dev/null",
            "APT::Architecture=arm64",
            "APT::Architectures::=arm64",
            "Debug::NoLocking=1",
            "APT::Sandbox::User=root",
        ] {
            command.args(["-o", option]);
        }
        output(command.args(args)).map(drop)
    };
    get(&["update"])?;
    get(&["install", "--download-only", "--yes", "--no-install-recommends", "libopenmpi3"])?;
    // Its headers, without the compilers that it depends on.
    get(&["download", "libopenmpi-dev"])?;
    let archives = fs::read_dir(apt.join("archives")).map_err(at(&apt))?.flatten().map(|entry| entry.path());
    for package in archives.filter(|path| path.extension().is_some_and(|e| e == "deb")) {
        output(Command::new("dpkg").arg("-x").args([&package, &arm]))?;
    }
    Ok(arm)
}

/// Where the library is that a program for arm64 is linked with.
const MPI: &str = "usr/lib/aarch64-linux-gnu/openmpi/lib/libmpi.so";

/// Builds what is named for arm64, by a compiler that knows where Open MPI is.
fn cross(arm: &Path, what: &[&str]) -> Result<(), Failed> {
    let (compiler, libs) = (root().join("target/boards/mpicc"), arm.join("usr/lib/aarch64-linux-gnu"));
    let include = format!("-I{}", libs.join("openmpi/include").display());
    let link = format!("-L{0}/openmpi/lib -L{0} -lmpi", libs.display());
    let script = format!(
        "#!/bin/sh\ntest \"$1\" = -show && exec echo aarch64-linux-gnu-gcc {include} {link}\n\
         exec aarch64-linux-gnu-gcc {include} \"$@\"\n"
    );
    fs::write(&compiler, script).map_err(at(&compiler))?;
    output(Command::new("chmod").arg("755").arg(&compiler))?;
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--package", "armlet-mpi", "--target", GNU]).args(what).env("MPICC", compiler);
    build.env("BINDGEN_EXTRA_CLANG_ARGS", "--target=aarch64-linux-gnu -I/usr/aarch64-linux-gnu/include");
    // What the library needs itself is found when the program runs.
    let flags = "-C link-arg=-Wl,--allow-shlib-undefined";
    show(build.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags))
}

/// A job of a rank on this machine and one on each of the emulated cores: what it says.
pub(crate) fn job_on_cores(arm: &Path, name: &str, args: &[String]) -> Result<String, Failed> {
    let mut command = mpirun();
    // Processes under QEMU do not see the others' memory.
    command.args(["--mca", "btl", "tcp,self", "-n", "1"]).arg(built(name)).args(args);
    for core in CORES {
        command.args([":", "-n", "1", "qemu-aarch64", "-cpu", core, "-L"]).arg(arm);
        command.arg(root().join("target").join(GNU).join("debug").join(name)).args(args);
    }
    succeeded(name, &outcome(&mut command)?)
}

/// Ranks on this machine and on emulated cores exchange what they should, and know of each other what they are.
fn mixed(arm: &Path) -> Result<(), Failed> {
    job_on_cores(arm, "examples/exchanges", &["contract".into()])?;
    let said = job_on_cores(arm, "examples/exchanges", &["check".into()])?;
    said.lines().for_each(|line| say(format!("    {line}")));
    let is_there = |rank: usize, backend: &str| said.contains(&format!("(rank {rank}):")) && said.contains(backend);
    if is_there(1, ", neon;") && is_there(2, ", i8mm;") {
        Ok(())
    } else {
        Err(Failed("not the boards that were started".into()))
    }
}
