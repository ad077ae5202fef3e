//! Ctrl-C: a flag that long work polls, so that it ends between two steps and leaves nothing half done.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Failure;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C sets the flag. If it is set already, because nothing has polled it since the last Ctrl-C, the
/// program exits at once.
pub(crate) fn catch() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })
    .map_err(|e| Failure::new("cannot catch Ctrl-C", e))
}

/// Whether Ctrl-C was pressed.
pub(crate) fn pending() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Whether Ctrl-C was pressed; clears the flag.
pub(crate) fn take() -> bool {
    INTERRUPTED.swap(false, Ordering::SeqCst)
}

/// An I/O error if Ctrl-C was pressed: a file that is being written is then abandoned, and its temporary file deleted.
pub(crate) fn check() -> io::Result<()> {
    if pending() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}
