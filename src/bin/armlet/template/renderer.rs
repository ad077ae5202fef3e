//! The process that renders: it is this program once more, with limits of its own.
//!
//! A template comes with a file, and no count of steps bounds one: a dozen filters copy or compare as much as they are given
//! in one step, and values that are nested deeply enough overflow the stack when they are printed, compared or dropped. So the
//! system bounds it. Jobs and answers are JSON behind their length (a little-endian u32), on stdin and stdout.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, Thread};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value as Json, json};

use super::engine::Job;

/// The argument that makes this program the process that renders.
const ARGUMENT: &str = "--render-templates";
/// Memory that rendering may take, in MiB.
const MEMORY: u64 = 48;
/// Stack that rendering may take, in MiB: part of the memory.
const STACK: u64 = 8;
/// CPU time that rendering may take, in milliseconds: with what else a command does, less than a second.
const TIME: u64 = 900;
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The longest text that may come of a conversation, in bytes: so much, and four times what went in.
const TEXT: usize = 1 << 20;

/// Starts the process when it is first needed, and keeps it.
#[derive(Default)]
pub(super) struct Renderer {
    process: RefCell<Option<Process>>,
    refused: RefCell<Option<Box<Refused>>>,
}

/// A conversation that took too much: its length, the variables of the template, and why.
struct Refused {
    length: usize,
    variables: Map<String, Json>,
    why: String,
}

/// Conversations whose lengths in bytes differ by less than this take about as much.
const ALIKE: usize = 64;

impl Renderer {
    /// Forgets what took too much.
    #[cfg(feature = "serve")]
    pub(super) fn forget_refusal(&self) {
        *self.refused.borrow_mut() = None;
    }

    /// Starts the process, if there is none; an error where the system lets no process be made.
    pub(super) fn start(&self) -> io::Result<()> {
        let mut process = self.process.borrow_mut();
        if !cfg!(test) && !process.as_ref().is_some_and(Process::is_alive) {
            *process = Some(Process::start()?);
        }
        Ok(())
    }

    /// What [`Job::render`] gives, or the reason why there is nothing.
    pub(super) fn render(&self, job: &Job) -> Result<String, String> {
        if cfg!(test) {
            // The program that unit tests are does not render for others.
            return job.render().map_err(|e| e.to_string());
        }
        let length = job.to_json()["messages"].to_string().len();
        // Each try would take as long as the first.
        if let Some(refused) = &*self.refused.borrow()
            && length + ALIKE > refused.length
            && refused.variables == job.variables
        {
            return Err(refused.why.clone());
        }
        let mut kept = self.process.borrow_mut();
        let mut process = match kept.take().filter(Process::is_alive) {
            Some(process) => process,
            None => Process::start().map_err(|e| format!("cannot start the process that renders it: {e}"))?,
        };
        // On an error the process ends with its handle.
        let answer = match process.ask(job) {
            Ok(answer) => answer,
            Err(_) => {
                let (why, limit) = process.why();
                if limit {
                    let refused = Refused { length, variables: job.variables.clone(), why: why.clone() };
                    *self.refused.borrow_mut() = Some(Box::new(refused));
                }
                return Err(why);
            }
        };
        *kept = Some(process);
        match (answer["text"].as_str(), answer["error"].as_str()) {
            (Some(text), _) => Ok(text.to_string()),
            (_, why) => Err(why.unwrap_or("no answer").to_string()),
        }
    }
}

struct Process {
    child: RefCell<Child>,
    /// Closed to end the process.
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Process {
    fn start() -> io::Result<Self> {
        // On Linux this is the program even if its file has been replaced.
        let linux = Path::new("/proc/self/exe");
        let named = || std::env::args_os().next().map(PathBuf::from).filter(|name| name.components().count() > 1);
        let program = if linux.exists() { Some(linux.to_path_buf()) } else { named() };
        let program =
            program.ok_or_else(|| io::Error::other("there is no /proc, and the program was started without a path"))?;
        let mut command = Command::new(program);
        command.arg(ARGUMENT).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Ctrl-C in the terminal is for the program, not for this process.
        let mut child = command.process_group(0).spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Process { child: RefCell::new(child), input: Some(input), output }),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn is_alive(&self) -> bool {
        matches!(self.child.borrow_mut().try_wait(), Ok(None))
    }

    fn ask(&mut self, job: &Job) -> io::Result<Json> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        write_frame(input, &job.to_json())?;
        read_frame(&mut self.output)?.ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    /// Why there is no answer, and whether the template met a limit of its own: then it would the next time, too. What the
    /// system ends, as when its memory is all taken, may go well later. The process is at its end, or ends when its input does.
    fn why(&mut self) -> (String, bool) {
        self.input = None;
        let status = match self.child.borrow_mut().wait() {
            Ok(status) => status,
            Err(e) => return (format!("the process that renders it is lost: {e}"), false),
        };
        match status.signal() {
            Some(signal) if signal == Signal::PROF.as_raw() => {
                (format!("it takes too long: more than {TIME} ms of CPU time"), true)
            }
            Some(signal) if signal == Signal::XCPU.as_raw() => ("it takes too long: more than a second".into(), true),
            Some(signal) if signal == Signal::SEGV.as_raw() || signal == Signal::ABORT.as_raw() => {
                (format!("it needs more than {MEMORY} MiB of memory, or {STACK} MiB of stack"), true)
            }
            Some(signal) => (format!("the process that renders it was ended by signal {signal}"), false),
            None => (format!("the process that renders it ended: {status}"), false),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // If it has ended, that was the aim.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Whether this process was started to render.
pub(crate) fn is_this() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT)
}

/// Renders what stdin asks for, until it is closed.
pub(crate) fn serve() -> ExitCode {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut serve = || -> io::Result<()> {
        let watch = Watch::start();
        limit_memory()?;
        loop {
            limit_time()?;
            let Some(job) = read_frame(&mut input)? else { return Ok(()) };
            let _watched = watch.as_ref().map(Watch::job);
            let text = match Job::from_json(&job) {
                Some(job) => job.render().map_err(|e| e.to_string()),
                None => Err("it is no job".to_string()),
            };
            let most = TEXT + 4 * job.to_string().len();
            let text = text.and_then(|text| {
                let fits = text.len() <= most;
                fits.then_some(text).ok_or_else(|| format!("it makes more than {most} bytes of text"))
            });
            write_frame(&mut output, &text.map_or_else(|why| json!({ "error": why }), |text| json!({ "text": text })))?;
        }
    };
    if serve().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Limits memory beyond what the program has already, and stack; and has no core dumped where that is exceeded.
fn limit_memory() -> io::Result<()> {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = pages.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(4096);
    lower(Resource::As, pages * rustix::param::page_size() as u64 + (MEMORY << 20))?;
    lower(Resource::Stack, STACK << 20)?;
    lower(Resource::Core, 0)
}

fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let most = [current, maximum].into_iter().flatten().fold(most, u64::min);
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum })?)
}

/// Milliseconds of CPU time that this process has taken.
fn cpu_time() -> u64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(used.tv_sec).unwrap_or(0) * 1000 + u64::try_from(used.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Ends this process when a job takes more than its time; sleeps between jobs.
struct Watch {
    /// The CPU time at which the job has had its share; 0: there is no job.
    until: Arc<AtomicU64>,
    thread: Thread,
}

/// A job that is watched, until it is dropped.
struct Watched<'w>(&'w Watch);

impl Watch {
    /// `None` where no thread may be made: the system's limit of whole seconds is left.
    fn start() -> Option<Self> {
        let until = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&until);
        let ready = Arc::new(Barrier::new(2));
        let is_ready = Arc::clone(&ready);
        // Little of the memory that rendering may take.
        let started = thread::Builder::new().stack_size(64 << 10).spawn(move || {
            // glibc reserves addresses for a thread at its first allocation, which is not to be later: they would be missing to what
            // is rendered, whose limit counts from what there is when it is set.
            drop(std::hint::black_box(Box::new(0)));
            is_ready.wait();
            loop {
                match seen.load(Ordering::Acquire) {
                    0 => thread::park(),
                    // As a timer of the system would; not the signal of the system's own limit, which is later.
                    until if cpu_time() > until => kill_process(getpid(), Signal::PROF).unwrap_or_default(),
                    _ => thread::park_timeout(LOOK),
                }
            }
        });
        let thread = started.ok()?.thread().clone();
        ready.wait();
        Some(Watch { until, thread })
    }

    fn job(&self) -> Watched<'_> {
        self.until.store(cpu_time() + TIME, Ordering::Release);
        self.thread.unpark();
        Watched(self)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.until.store(0, Ordering::Release);
    }
}

/// Allows the next answer one to two seconds of CPU time, whatever watches it: the system counts whole ones.
fn limit_time() -> io::Result<()> {
    let seconds = cpu_time() / 1000 + 2;
    let maximum = getrlimit(Resource::Cpu).maximum;
    let current = Some(maximum.map_or(seconds, |maximum| maximum.min(seconds)));
    Ok(setrlimit(Resource::Cpu, Rlimit { current, maximum })?)
}

fn write_frame(out: &mut impl Write, json: &Json) -> io::Result<()> {
    let text = json.to_string();
    let len = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// None: there is no more.
fn read_frame(input: &mut impl Read) -> io::Result<Option<Json>> {
    let mut len = [0; 4];
    match input.read_exact(&mut len) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut text = Vec::new();
    input.take(u32::from_le_bytes(len).into()).read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let mut bytes = Vec::new();
        for json in [json!({ "a": "é" }), json!(null)] {
            write_frame(&mut bytes, &json).unwrap();
        }
        let mut input = &bytes[..];
        assert_eq!(read_frame(&mut input).unwrap(), Some(json!({ "a": "é" })));
        assert_eq!(read_frame(&mut input).unwrap(), Some(Json::Null));
        assert_eq!(read_frame(&mut input).unwrap(), None);
        assert!(read_frame(&mut &bytes[..7]).is_err());
    }
}
