//! What ends the program in the middle of anything, with one line and exit 1: a mapped file whose bytes are gone, and no
//! memory. The file that was being written is deleted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};
use rustix::stdio::stderr;
use signal_hook::consts::SIGBUS;

use crate::error::Failure;
use crate::terminal;

const GONE: &str = "armlet: the file of the model, session or prefix was cut short, or its disk failed, while it was in use; \
                    fetch it again, and replace files by renaming them\n";
/// More than a line takes to be written.
const TIME_TO_SAY: Duration = Duration::from_secs(2);
const NO_MEMORY: &str = "armlet: out of memory; a smaller -c or --kv-budget needs less\n";

/// The temporary file that is written.
static PARTIAL: Mutex<Option<CString>> = Mutex::new(None);

/// The files of the locks that are held.
static LOCKS: Mutex<Vec<CString>> = Mutex::new(Vec::new());

/// Files were deleted because the program ends.
static CLEANED: AtomicBool = AtomicBool::new(false);

/// Whether this process ends by itself where there is no memory.
static CAUGHT: AtomicBool = AtomicBool::new(false);

/// The file at `path` is deleted if the program ends at once. A path where nothing is any more does no harm.
pub(crate) fn partial(path: &Path) {
    if let (Ok(path), Ok(mut partial)) = (CString::new(path.as_os_str().as_bytes()), PARTIAL.lock()) {
        *partial = Some(path);
    }
}

/// The lock's file at `path` is deleted if the program ends at once.
pub(crate) fn locked(path: &Path) {
    if let (Ok(path), Ok(mut locks)) = (CString::new(path.as_os_str().as_bytes()), LOCKS.lock()) {
        locks.push(path);
    }
}

/// It may be another program's from now on. Whether the file is still there to be deleted.
pub(crate) fn unlocked(path: &Path) -> bool {
    if let Ok(mut locks) = LOCKS.lock() {
        locks.retain(|lock| lock.as_bytes() != path.as_os_str().as_bytes());
    }
    !CLEANED.load(Ordering::SeqCst)
}

/// Deletes the file that is being written, and those of locks. The program ends then: who still holds a lock leaves its file alone.
pub(crate) fn clean_up() {
    CLEANED.store(true, Ordering::SeqCst);
    if let Ok(Some(path)) = PARTIAL.try_lock().as_deref() {
        let _ = rustix::fs::unlink(path.as_c_str());
    }
    if let Ok(locks) = LOCKS.try_lock() {
        for lock in locks.iter() {
            let _ = rustix::fs::unlink(lock.as_c_str());
        }
    }
}

/// One thread is ending the program.
static ENDS: AtomicBool = AtomicBool::new(false);

/// Ends the program. Everything here may be called by a signal handler: nothing allocates or takes a lock that is held.
///
/// All threads read the same file: where several come here at once, the first says why, and the others give it the time.
fn end(line: &str) -> ! {
    if ENDS.swap(true, Ordering::SeqCst) {
        std::thread::sleep(TIME_TO_SAY);
        signal_hook::low_level::exit(1)
    }
    clean_up();
    terminal::restore();
    let _ = rustix::io::write(stderr(), line.as_bytes());
    signal_hook::low_level::exit(1)
}

/// What the main thread's stack takes, and more.
const STACK: usize = 1 << 20;
/// It is touched in pieces of so many bytes.
const PIECE: usize = 32 << 10;
/// With less, nothing works.
const LEAST_STACK: u64 = 512 << 10;
const SMALL_STACK: &str = "armlet: the stack is limited to less than 512 KiB; ulimit -s 1024 is enough\n";

/// Bytes of addresses that this process may still take, where they are limited (`ulimit -v`).
pub(crate) fn addresses_left() -> Option<u64> {
    let limit = getrlimit(Resource::As).current?;
    let pages = || std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').next()?.parse().ok();
    Some(limit.saturating_sub(pages().unwrap_or(0u64).saturating_mul(page_size() as u64)))
}

/// Where addresses are limited (`ulimit -v`) and used up, the stack cannot grow, and that would be a signal: so it grows now,
/// or is refused in one line.
fn grow_stack() {
    let stack = getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
    if stack < LEAST_STACK {
        end(SMALL_STACK);
    }
    let Some(left) = addresses_left() else { return };
    if left < 2 * STACK as u64 {
        end(NO_MEMORY);
    }
    #[inline(never)]
    fn grow(pieces: u64) {
        std::hint::black_box(&mut [0u8; PIECE]);
        if pieces > 1 {
            grow(pieces - 1);
        }
        // Not before it has returned: this is no loop.
        std::hint::black_box(pieces);
    }
    // With room for what is there already: arguments and the environment.
    grow((stack / 2).min(STACK as u64) / PIECE as u64);
}

/// Whether stdout was closed when the program was started.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Before `main`, because Rust opens /dev/null where a standard stream is closed: what is written there is lost.
#[cfg(target_os = "linux")]
extern "C" fn look_at_stdout() {
    CLOSED.store(rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err(), Ordering::Relaxed);
}

// SAFETY: functions of this section are called once, before `main`; this one is of the type that they have, makes a system
// call and stores a flag, and needs nothing that is not there yet.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look_at_stdout;

/// An error if what is printed would be lost.
pub(crate) fn check_stdout() -> Result<(), Failure> {
    match CLOSED.load(Ordering::Relaxed) {
        true => Err(Failure::Error(
            "stdout is closed, so that there is no place for the output; > /dev/null drops it".into(),
        )),
        false => Ok(()),
    }
}

/// From now on, what this module is about ends in one line.
#[allow(unsafe_code)]
pub(crate) fn catch() {
    CAUGHT.store(true, Ordering::Relaxed);
    grow_stack();
    // What was there before is called first: Rust's own gives the signal its default back, which would be the end of the
    // process if a second thread came to such a page before the first has said why.
    // SAFETY: the default is no function of ours, and no other thread has been started.
    unsafe { libc::signal(SIGBUS, libc::SIG_DFL) };
    // SAFETY: `end` does only what a signal handler may: it takes no lock that is held, writes, unlinks, and leaves the
    // process without running anything else.
    let registered = unsafe { signal_hook::low_level::register(SIGBUS, || end(GONE)) };
    if let Err(e) = registered {
        log::debug!("a model that is cut short while it is mapped will end the program by a signal: {e}");
    }
}

/// The system's allocator; where it has no memory, the program ends as above once [`catch`] has been called.
pub(crate) struct Allocator;

fn checked(memory: *mut u8) -> *mut u8 {
    if memory.is_null() && CAUGHT.load(Ordering::Relaxed) {
        end(NO_MEMORY);
    }
    memory
}

// SAFETY: each call is passed on to the system's allocator under the contract that the caller keeps; what comes back is
// returned as it is, or not at all.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.realloc(memory, layout, bytes) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}
