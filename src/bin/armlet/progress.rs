//! Progress: bars for commands that read or write a whole model, and a line while a prompt is read.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal;

/// A bar over `bytes` bytes, labelled `what`. It is drawn on stderr, and only if that is a terminal.
pub(crate) fn progress(bytes: u64, what: &'static str) -> ProgressBar {
    bar(bytes, "{msg} [{bar:40}] {bytes}/{total_bytes} {eta}", what)
}

/// The same over `n` steps.
pub(crate) fn steps(n: u64, what: &'static str) -> ProgressBar {
    bar(n, "{msg} [{bar:40}] {pos}/{len} {eta}", what)
}

fn bar(len: u64, template: &str, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style.progress_chars("=> ")).with_message(what)
}

/// What takes less is not worth a line.
const PATIENCE: Duration = Duration::from_millis(400);

/// A line on stderr, if that is a terminal, that says how much of a prompt was read; it is gone when this is dropped. It
/// needs nothing of a terminal but a carriage return.
pub(crate) struct Reading {
    tokens: usize,
    start: Instant,
    /// Columns of the line that stands there.
    width: usize,
    is_shown: bool,
}

impl Reading {
    pub(crate) fn new(tokens: usize) -> Self {
        Reading { tokens, start: Instant::now(), width: 0, is_shown: io::stderr().is_terminal() }
    }

    /// So many tokens were read.
    pub(crate) fn at(&mut self, read: usize) {
        let elapsed = self.start.elapsed();
        if self.is_shown && elapsed >= PATIENCE && read < self.tokens {
            let mut line = reading(read, self.tokens, elapsed);
            line.truncate(terminal::columns() - 1);
            self.put(&line);
        }
    }

    fn put(&mut self, line: &str) {
        // Spaces cover what is left of a longer line. Nothing depends on it.
        let _ = write!(io::stderr(), "\r{line:width$}\r", width = self.width);
        self.width = line.len();
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.width > 0 {
            self.put("");
        }
    }
}

/// The line: what is left takes as long for each token as what was read.
fn reading(read: usize, tokens: usize, elapsed: Duration) -> String {
    let percent = 100 * read / tokens.max(1);
    let left = elapsed.as_secs_f64() * tokens.saturating_sub(read) as f64 / read.max(1) as f64;
    let left = if left < 90.0 { format!("{left:.0} s") } else { format!("{:.0} min", left / 60.0) };
    format!("reading the prompt: {read} of {tokens} tokens, {percent} %, {left} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_in_proportion() {
        let line = |read, seconds| reading(read, 2000, Duration::from_secs(seconds));
        assert_eq!(line(500, 10), "reading the prompt: 500 of 2000 tokens, 25 %, 30 s left");
        assert_eq!(line(128, 60), "reading the prompt: 128 of 2000 tokens, 6 %, 15 min left");
        assert_eq!(line(1999, 60), "reading the prompt: 1999 of 2000 tokens, 99 %, 0 s left");
    }
}
