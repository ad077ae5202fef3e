//! The program on a pseudo-terminal, as a person has it: what is typed goes in, what is shown is waited for.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// When a test gives up; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(150);
/// What rustyline writes when it is ready for a line: bracketed paste is on.
const READY: &str = "\x1b[?2004h";

/// A terminal, and the program on it.
pub struct Terminal {
    child: Child,
    master: Option<File>,
    shown: Vec<u8>,
    /// Up to where it was waited for.
    at: usize,
    ready: &'static str,
}

impl Terminal {
    /// Runs a program on a terminal of 80 columns that can do all that rustyline wants.
    pub fn new(command: &mut Command) -> Self {
        Self::of_kind(command, "xterm", READY, None)
    }

    /// On one that moves no cursor.
    pub fn dumb(command: &mut Command) -> Self {
        Self::of_kind(command, "dumb", "> ", None)
    }

    /// With its stdout in a file.
    pub fn into_file(command: &mut Command, is_dumb: bool, file: File) -> Self {
        let (kind, ready) = if is_dumb { ("dumb", "> ") } else { ("xterm", READY) };
        Self::of_kind(command, kind, ready, Some(file))
    }

    #[allow(unsafe_code)]
    fn of_kind(command: &mut Command, kind: &str, ready: &'static str, stdout: Option<File>) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || slave.try_clone().unwrap();
        command.env("TERM", kind).stdin(end()).stdout(stdout.unwrap_or_else(end)).stderr(end());
        heeds_signals(command);
        // SAFETY: two system calls, which allocate nothing and take no lock.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            })
        };
        let child = command.spawn().unwrap();
        // It would keep the terminal open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
        Terminal { child, master: Some(File::from(master)), shown: Vec::new(), at: 0, ready }
    }

    /// All that was shown.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Types; what is shown meanwhile is taken, so that neither waits for the other.
    pub fn send(&mut self, text: &str) {
        let mut left = text.as_bytes();
        let start = Instant::now();
        while !left.is_empty() {
            assert!(start.elapsed() < PATIENCE, "{left:?} are not taken; shown is {}", self.shown());
            self.take(true);
            match self.master.as_ref().unwrap().write(left) {
                Ok(n) => left = &left[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}; shown is {}", self.shown()),
            }
        }
    }

    /// Types a line.
    pub fn line(&mut self, text: &str) {
        self.send(text);
        self.send("\r");
    }

    /// Waits until this is shown, after what was waited for before; returns what came in between.
    pub fn expect(&mut self, what: &str) -> String {
        let start = Instant::now();
        loop {
            let new = &self.shown[self.at..];
            if let Some(found) = new.windows(what.len()).position(|w| w == what.as_bytes()) {
                let before = String::from_utf8_lossy(&new[..found]).into_owned();
                self.at += found + what.len();
                return before;
            }
            let open = self.take(false);
            assert!(open && start.elapsed() < PATIENCE, "{what:?} is not shown, but {}", self.shown());
        }
    }

    /// Waits for the prompt, with the terminal in its mode for it.
    pub fn prompt(&mut self) -> String {
        self.expect(self.ready)
    }

    /// The window gets another width.
    pub fn resize(&mut self, columns: u16) {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master.as_ref().unwrap(), size).unwrap();
    }

    pub fn signal(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The terminal is gone, as when its window is closed.
    pub fn hang_up(&mut self) {
        self.master = None;
    }

    /// Waits until the program catches a signal.
    pub fn catches(&self, signal: Signal) {
        let start = Instant::now();
        let caught = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
        };
        while !caught() {
            assert!(start.elapsed() < PATIENCE, "{signal:?} is not caught");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether what is typed is shown.
    pub fn echoes(&self) -> bool {
        tcgetattr(self.master.as_ref().unwrap()).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// What is typed is shown, and comes line by line: the modes that a shell sets.
    pub fn set_echo(&self) {
        let master = self.master.as_ref().unwrap();
        let mut modes = tcgetattr(master).unwrap();
        modes.local_modes.insert(LocalModes::ECHO | LocalModes::ICANON);
        tcsetattr(master, OptionalActions::Now, &modes).unwrap();
    }

    /// Waits until what is typed is not shown.
    pub fn stops_echo(&mut self) {
        let start = Instant::now();
        while self.echoes() {
            assert!(start.elapsed() < PATIENCE, "what is typed is shown; shown is {}", self.shown());
            self.take(false);
        }
    }

    /// Waits for the end of the program; returns its exit code.
    pub fn ends(mut self) -> i32 {
        self.end()
    }

    /// The same; what is left of the terminal can be looked at.
    pub fn end(&mut self) -> i32 {
        let start = Instant::now();
        while self.take(false) {
            assert!(start.elapsed() < PATIENCE, "the program does not end; shown is {}", self.shown());
        }
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return code(status),
                None => assert!(start.elapsed() < PATIENCE, "the program does not end; shown is {}", self.shown()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes what is shown, after waiting for some; false if the program has closed the terminal.
    fn take(&mut self, or_write: bool) -> bool {
        let Some(master) = &mut self.master else { return false };
        let wanted = if or_write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let wait = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        poll(&mut [PollFd::new(master, wanted)], Some(&wait)).unwrap();
        let mut buffer = [0; 4096];
        match master.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.shown.extend(&buffer[..n]);
                true
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => true,
            // EIO: no program has it open any more.
            Err(_) => false,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Of a test that failed; it is an error where the program has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program heeds signals, however the tests were started: a shell has some ignored by what it runs in the background.
#[allow(unsafe_code)]
pub fn heeds_signals(command: &mut Command) -> &mut Command {
    // SAFETY: system calls, which allocate nothing and take no lock.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        })
    }
}

/// The exit code, or 1000 and the number of the signal that killed the program.
pub fn code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|s| 1000 + s)).unwrap()
}
