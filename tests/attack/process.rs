//! A process with limits, and what it took.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// What became of a process.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// What it showed on a terminal.
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// The most memory that was resident, in bytes.
    pub(crate) resident: u64,
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

/// Seconds of CPU time after which a process is ended by SIGXCPU: it hangs.
const CPU: u64 = 30;
/// Seconds after which it is ended by SIGALRM, because it waits for what does not come; on a busy machine all take long.
const PATIENCE: u32 = 600;
/// Bytes of addresses, so that no mistake takes the machine.
const ADDRESSES: u64 = 4 << 30;

/// Of what a command writes, as much is looked at.
const SHOWN: u64 = 1 << 20;

/// A terminal that changes nothing of what is written to it: its own end, and that of the program.
fn terminal() -> std::io::Result<(File, File)> {
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&own)?;
    unlockpt(&own)?;
    let name = ptsname(&own, Vec::new())?;
    let theirs = File::options().read(true).write(true).open(name.to_str().unwrap())?;
    let mut modes = tcgetattr(&theirs)?;
    modes.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &modes)?;
    Ok((own.into(), theirs))
}

/// The first bytes of a file; the rest is read, so that nobody waits.
fn start_of(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A terminal that nobody has open any more is an error.
    let _ = file.take(SHOWN).read_to_end(&mut bytes);
    let _ = std::io::copy(file, &mut std::io::sink());
    bytes
}

/// Gives back what this process has free: what is resident here when it starts another, or was at its most, counts for that
/// (the kernel's `exec_mmap`).
#[allow(unsafe_code)]
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: these take and return numbers.
    unsafe {
        // Else glibc keeps as much at the end of a thread's heap as was ever freed at once.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
        libc::malloc_trim(0);
    }
    // Forgets the most. Where it cannot, what is reported is no less than what was taken.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Runs a command to its end, its stdout a terminal: generated text is exact in a pipe, and made harmless where it is shown.
#[allow(unsafe_code)]
pub(crate) fn run(command: &mut Command) -> Ended {
    let (mut own, theirs) = terminal().unwrap();
    let mut errors = tempfile::tempfile().unwrap();
    command.stdin(Stdio::null()).stdout(theirs).stderr(errors.try_clone().unwrap()).env("TERM", "dumb");
    // SAFETY: system calls, which allocate nothing and take no lock.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: ADDRESSES, rlim_max: ADDRESSES };
            libc::setrlimit(libc::RLIMIT_AS, &limit);
            libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
            libc::setrlimit(libc::RLIMIT_CPU, &libc::rlimit { rlim_cur: CPU, rlim_max: CPU });
            libc::alarm(PATIENCE);
            Ok(())
        })
    };
    give_back();
    let start = Instant::now();
    #[expect(clippy::zombie_processes, reason = "wait4 waits for it, below")]
    let child = command.spawn().unwrap();
    // The command holds the terminal's other end open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let stdout = start_of(&mut own);
    let mut status = 0;
    // SAFETY: zeros are a value of this type.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the process is our child, and nobody else waits for it; both pointers are of variables here.
    let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) };
    assert_eq!(waited, child.id() as libc::pid_t);
    errors.rewind().unwrap();
    let stderr = start_of(&mut errors);
    let time = |t: libc::timeval| Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64);
    Ended {
        status: ExitStatus::from_raw(status),
        stdout,
        stderr,
        resident: usage.ru_maxrss as u64 * 1024,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        wall: start.elapsed(),
    }
}
