//! A process with limits, and what it took.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What became of a process.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
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

/// Runs a command to its end.
#[allow(unsafe_code)]
pub(crate) fn run(command: &mut Command) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
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
    let start = Instant::now();
    #[expect(clippy::zombie_processes, reason = "wait4 waits for it, below")]
    let mut child = command.spawn().unwrap();
    let mut stderr = Vec::new();
    // More than this is no line.
    let _ = child.stderr.take().unwrap().take(1 << 20).read_to_end(&mut stderr);
    let mut status = 0;
    // SAFETY: zeros are a value of this type.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the process is our child, and nobody else waits for it; both pointers are of variables here.
    let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) };
    assert_eq!(waited, child.id() as libc::pid_t);
    let time = |t: libc::timeval| Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64);
    Ended {
        status: ExitStatus::from_raw(status),
        stderr,
        resident: usage.ru_maxrss as u64 * 1024,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        wall: start.elapsed(),
    }
}
