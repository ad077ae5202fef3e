//! The terminal: what it can do, and its modes, which are put back whatever ends the program.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock};

use crate::error::{Failure, print};
use crate::network;
use crate::visible;
use rustix::process::getpgrp;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr};

/// The terminal on stdin, as it was at first.
static ORIGINAL: OnceLock<Original> = OnceLock::new();

/// The modes of a [`Quiet`], while there is one.
static QUIET: Mutex<Option<Termios>> = Mutex::new(None);

struct Original {
    modes: Termios,
    dumb: bool,
}

/// Whether the terminal moves no cursor, as on some serial consoles: lines are then read without editing.
pub(crate) fn is_dumb() -> bool {
    // Those that rustyline takes for such.
    let dumb = ["dumb", "cons25", "emacs"];
    std::env::var("TERM").is_ok_and(|term| dumb.iter().any(|name| term.eq_ignore_ascii_case(name)))
}

/// Whether what goes to `out` may have colours: a terminal that has them, and no NO_COLOR (https://no-color.org).
pub(crate) fn has_colours(out: &impl IsTerminal) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    out.is_terminal() && !no_color && !is_dumb()
}

/// Columns of the terminal on stderr; 80 if it does not tell.
pub(crate) fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).map(|size| usize::from(size.ws_col));
    size.ok().filter(|columns| *columns >= 20).unwrap_or(80)
}

/// Nothing that is typed is echoed, so that it does not end up in the middle of an answer; the next prompt shows it.
/// Signals of keys still work. Until it is dropped.
pub(crate) struct Quiet(());

impl Quiet {
    /// `None` if stdin is no terminal.
    pub(crate) fn new() -> Option<Self> {
        let mut modes = tcgetattr(io::stdin()).ok()?;
        let _ = ORIGINAL.set(Original { modes: modes.clone(), dumb: is_dumb() });
        modes.local_modes.remove(LocalModes::ECHO);
        // Ctrl-C stops the answer, and drops nothing of what was typed.
        modes.local_modes.insert(LocalModes::NOFLSH);
        if !is_dumb() {
            // The kernel drops what does not fit a line of 4096 bytes. The line editor does not need lines.
            modes.local_modes.remove(LocalModes::ICANON);
        }
        set_quiet(Some(modes)).then_some(Quiet(()))
    }
}

/// Sets these modes and remembers them, or puts back those of before.
fn set_quiet(modes: Option<Termios>) -> bool {
    let Ok(mut quiet) = QUIET.lock() else { return false };
    let is_set = modes.as_ref().or(ORIGINAL.get().map(|original| &original.modes)).is_some_and(set);
    *quiet = modes.filter(|_| is_set);
    is_set
}

/// After a stop (Ctrl-Z) the terminal has the shell's modes: sets those of a [`Quiet`] again. Not in the background, where
/// that would stop the program once more.
pub(crate) fn go_on() {
    let in_front = || tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp());
    if let Ok(quiet) = QUIET.lock()
        && let Some(modes) = quiet.as_ref().filter(|_| in_front())
    {
        set(modes);
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        set_quiet(None);
    }
}

/// Remembers the modes that [`restore`] puts back.
pub(crate) fn remember() {
    if let Ok(modes) = tcgetattr(io::stdin()) {
        let _ = ORIGINAL.set(Original { modes, dumb: is_dumb() });
    }
}

/// Puts the modes back before the program ends in the middle of something. A signal handler may call this: nothing
/// allocates, waits, or reads the environment.
pub(crate) fn restore() {
    let Some(Original { modes, dumb }) = ORIGINAL.get() else { return };
    let _ = tcsetattr(stdin(), OptionalActions::Now, modes);
    // Answers may go to a file.
    let out = if isatty(stdout()) { stdout() } else { stderr() };
    if isatty(out) && !dumb {
        // No bracketed paste, no colour. A terminal that is gone does not matter, and nobody may hold the lock for ever.
        let _ = rustix::io::write(out, b"\x1b[?2004l\x1b[0m\n");
    }
}

fn set(modes: &Termios) -> bool {
    tcsetattr(io::stdin(), OptionalActions::Now, modes).is_ok()
}

/// Writes a note to stderr: `[ … ]`, dim where there are colours. Nothing depends on it.
pub(crate) fn note(text: &str) {
    let (dim, plain) = if has_colours(&io::stderr()) { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
    let _ = writeln!(io::stderr(), "{dim}[ {text} ]{plain}");
}

/// The same, if stderr is a terminal, or the launcher of several boards passes it on.
pub(crate) fn tell(text: &str) {
    if io::stderr().is_terminal() || network::is_job() {
        note(text);
    }
}

/// Writes generated text to stdout: as it is to a file or a pipe, and to a terminal with what would act on it made
/// visible.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print(visible::text(text).as_bytes()) } else { print(text.as_bytes()) }
}
