//! Signals that ask the program to stop. Long work polls them, so that it ends between two steps and leaves nothing half
//! done: an answer that SIGTERM cuts is still saved.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::sync::{Once, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::Failure;
use crate::{fatal, terminal};

/// Ctrl-C was pressed, and nothing has polled it yet.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Another signal, which ends the program; 0 if none came.
static ENDING: AtomicI32 = AtomicI32::new(0);
/// Work polls these flags. Before, there is nothing to finish.
static POLLED: AtomicBool = AtomicBool::new(false);
/// The program waits for a line, and has nothing to finish.
static AT_PROMPT: AtomicBool = AtomicBool::new(false);
/// Ctrl-C was pressed at this prompt, or at the one before and no line has come since.
static HINTED: AtomicBool = AtomicBool::new(false);

/// Another board says what is done.
static FOLLOWS: AtomicBool = AtomicBool::new(false);
/// How long it may take to save what there is.
const GRACE: Duration = Duration::from_secs(3);

/// What else is told of a signal.
#[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "only the server waits for a signal"))]
static NOTIFIED: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// From now on these signals set flags, which work polls. A second Ctrl-C that comes before anything has polled the first one
/// ends the program at once.
pub(crate) fn catch() -> Result<(), Failure> {
    POLLED.store(true, SeqCst);
    leave_at_once()
}

/// From now on these signals end the program in a while: where all boards get one, the first saves what they have, and needs the
/// others for that.
pub(crate) fn follow() -> Result<(), Failure> {
    FOLLOWS.store(true, SeqCst);
    leave_at_once()
}

/// [`catch`], until it is dropped.
pub(crate) struct Caught {
    before: bool,
}

impl Caught {
    pub(crate) fn new() -> Result<Self, Failure> {
        let before = POLLED.load(SeqCst);
        catch()?;
        Ok(Caught { before })
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        POLLED.store(self.before, SeqCst);
        // A signal that nothing has polled.
        if !self.before && pending() {
            leave(exit_code().into());
        }
    }
}

/// From now on, and until [`catch`], these signals end the program with an exit code that says so.
pub(crate) fn leave_at_once() -> Result<(), Failure> {
    static CAUGHT: Once = Once::new();
    let mut result = Ok(());
    CAUGHT.call_once(|| result = install());
    result.map_err(|e| Failure::new("cannot catch Ctrl-C", e))
}

/// What a thread takes of addresses when it starts, and some more.
const THREAD: usize = 3 << 20;

/// Addresses for so many bytes, or an error where they are limited and used up.
fn room(bytes: usize) -> io::Result<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(room)
}

fn install() -> io::Result<()> {
    let ignored = ignored();
    // `nohup` and shells that start a job in the background have signals ignored, and they stay so.
    let wanted = [SIGINT, SIGTERM, SIGHUP, SIGQUIT].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(wanted.chain([SIGCONT]))?;
    let handle = signals.handle();
    let (started, starts) = std::sync::mpsc::channel::<()>();
    let thread = move || {
        drop(started);
        signals.forever().for_each(received);
    };
    // A thread that finds no room for the stack of its signal handlers ends the program in more than a line.
    drop(room(THREAD)?);
    let spawned = std::thread::Builder::new().name("signals".into()).spawn(thread);
    // What else takes memory comes after that. An error says that it has started.
    let _ = spawned.is_ok() && starts.recv().is_ok();
    if let Err(e) = spawned {
        // The signals do again what they do by default.
        handle.close();
        log::warn!("Ctrl-C ends the program at once, because a thread for it cannot be made: {e}");
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT].into_iter().filter(|s| ignored >> (s - 1) & 1 == 0) {
            let always = std::sync::Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_default(signal, always)?;
        }
    }
    Ok(())
}

/// Signals that this process was started with as ignored, a bit for each; none where the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn received(signal: i32) {
    if signal == SIGCONT {
        return terminal::go_on();
    }
    if let Some(notify) = NOTIFIED.get() {
        notify();
    }
    if FOLLOWS.load(SeqCst) {
        std::thread::sleep(GRACE);
        leave(128 + signal);
    }
    if signal != SIGINT {
        // A second one does not wait for what has not polled the first.
        if ENDING.swap(signal, SeqCst) != 0 || AT_PROMPT.load(SeqCst) || !POLLED.load(SeqCst) {
            leave(128 + signal);
        }
    } else if AT_PROMPT.load(SeqCst) {
        // Only where the terminal is not in raw mode: there Ctrl-C is a key like others.
        if pressed_at_prompt() {
            leave(130);
        }
        let _ = write!(io::stderr(), "> ");
    } else if !POLLED.load(SeqCst) || INTERRUPTED.swap(true, SeqCst) {
        leave(130);
    }
}

/// Has `f` called at each signal that asks the program to stop, from the signals' thread.
#[cfg(feature = "serve")]
pub(crate) fn notify(f: impl Fn() + Send + Sync + 'static) {
    if NOTIFIED.set(Box::new(f)).is_err() {
        log::debug!("signals are waited for already");
    }
    // One that came before.
    if let Some(notify) = NOTIFIED.get().filter(|_| pending()) {
        notify();
    }
}

/// Ends the program, which was asked to stop.
#[cfg(feature = "serve")]
pub(crate) fn leave_now() -> ! {
    leave(0)
}

/// Ends the program from the signals' thread; the main one waits for input, or does not end by itself.
fn leave(code: i32) -> ! {
    terminal::restore();
    // Last, because another program may take the locks then.
    fatal::clean_up();
    std::process::exit(code)
}

/// Whether the program was asked to stop.
pub(crate) fn pending() -> bool {
    INTERRUPTED.load(SeqCst) || ENDING.load(SeqCst) != 0
}

/// The same; a Ctrl-C counts as polled then, but not a signal that ends the program.
pub(crate) fn take() -> bool {
    INTERRUPTED.swap(false, SeqCst) | ending()
}

/// Whether a signal came that ends the program: SIGTERM, SIGHUP or SIGQUIT.
pub(crate) fn ending() -> bool {
    ENDING.load(SeqCst) != 0
}

/// The exit code of a program that was stopped: 130 after Ctrl-C, else 128 and the number of the signal.
pub(crate) fn exit_code() -> u8 {
    match ENDING.load(SeqCst) {
        0 => 130,
        signal => u8::try_from(128 + signal).unwrap_or(130),
    }
}

/// A failure if the program was asked to stop: for work that leaves nothing.
pub(crate) fn stop() -> Result<(), Failure> {
    if pending() { Err(Failure::Interrupted) } else { Ok(()) }
}

/// An I/O error if the program was asked to stop: a file that is being written is then abandoned, and its temporary file
/// deleted.
pub(crate) fn check() -> io::Result<()> {
    if pending() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

/// Waits for a line by `read`. Until it has come, signals that end the program do so at once.
pub(crate) fn at_prompt<T>(read: impl FnOnce() -> T) -> Result<T, Failure> {
    INTERRUPTED.store(false, SeqCst);
    AT_PROMPT.store(true, SeqCst);
    let result = if ending() { Err(Failure::Interrupted) } else { Ok(read()) };
    AT_PROMPT.store(false, SeqCst);
    result
}

/// Ctrl-C at the prompt: gives a hint the first time; true if it is the second time.
pub(crate) fn pressed_at_prompt() -> bool {
    let again = HINTED.swap(true, SeqCst);
    if !again {
        let _ = writeln!(io::stderr(), "\nCtrl-C again, Ctrl-D or /exit quits; /help lists commands");
    }
    again
}

/// A line came: the next Ctrl-C at the prompt is a first one.
pub(crate) fn line_came() {
    HINTED.store(false, SeqCst);
}
