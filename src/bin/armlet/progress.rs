//! Progress: bars for commands that read or write a whole model, and a line while a prompt is read.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

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
    let bar = ProgressBar::new(len);
    if terminal::is_dumb() && io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::term_like_with_hz(Box::new(Dumb::default()), 1));
    }
    bar.with_style(style.progress_chars("=> ")).with_message(what)
}

/// A terminal that has nothing but a carriage return: the line is written over itself.
#[derive(Debug, Default)]
struct Dumb {
    /// Columns of the line that stands there.
    width: AtomicUsize,
}

impl TermLike for Dumb {
    fn width(&self) -> u16 {
        (terminal::columns() - 1).try_into().unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.write_str(line)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.width.fetch_add(text.chars().count(), SeqCst);
        write!(io::stderr(), "{text}")
    }

    fn clear_line(&self) -> io::Result<()> {
        let width = self.width.swap(0, SeqCst);
        write!(io::stderr(), "\r{:width$}\r", "")
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What takes less is not worth a line.
const PATIENCE: Duration = Duration::from_millis(400);

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(200);

/// A part of a whole: of the bytes of a model, say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) done: usize,
    pub(crate) of: usize,
}

/// A line on stderr, if that is a terminal, that says how much of a prompt was read; it is gone when this is dropped. It
/// needs nothing of a terminal but a carriage return.
pub(crate) struct Reading {
    tokens: Part,
    start: Instant,
    /// When the line was last drawn, or would have been.
    drawn: Instant,
    /// Columns of the line that stands there.
    width: usize,
    is_shown: bool,
}

impl Reading {
    pub(crate) fn new(tokens: usize) -> Self {
        let tokens = Part { done: 0, of: tokens };
        let now = Instant::now();
        Reading { tokens, start: now, drawn: now, width: 0, is_shown: io::stderr().is_terminal() }
    }

    /// Reads so many tokens by `f`, and says meanwhile how far that is: while pages of the model are missing, `missing` gives
    /// how many of its bytes are there.
    pub(crate) fn during<T>(
        &mut self,
        tokens: usize,
        missing: &(dyn Fn() -> Option<Part> + Sync),
        f: impl FnOnce() -> T,
    ) -> T {
        if !self.is_shown {
            return f();
        }
        let (working, ended) = mpsc::channel::<()>();
        let line = &mut *self;
        let result = thread::scope(|scope| {
            let ticks = move || {
                while ended.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    line.draw(missing());
                }
            };
            // Without a thread nothing is shown.
            let _ = thread::Builder::new().name("progress".into()).spawn_scoped(scope, ticks);
            let _working = working;
            f()
        });
        self.tokens.done += tokens;
        // Passes may all be shorter than a tick.
        if self.drawn.elapsed() >= TICK {
            self.draw(missing());
        }
        result
    }

    fn draw(&mut self, missing: Option<Part>) {
        self.drawn = Instant::now();
        let elapsed = self.start.elapsed();
        if elapsed < PATIENCE {
            return;
        }
        let mut line = match missing {
            Some(bytes) => loading(bytes, elapsed),
            None => reading(self.tokens, elapsed),
        };
        line.truncate(terminal::columns() - 1);
        self.put(&line);
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

/// The line of a model whose pages are not all there: the first pass over its layers waits for them.
fn loading(bytes: Part, elapsed: Duration) -> String {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    format!("reading the model: {} of {} MiB, {}", mib(bytes.done), mib(bytes.of), share(bytes, elapsed))
}

/// The line of a prompt.
fn reading(tokens: Part, elapsed: Duration) -> String {
    format!("reading the prompt: {} of {} tokens, {}", tokens.done, tokens.of, share(tokens, elapsed))
}

/// Per cent, and the time left: the rest takes as long for each piece as what is done.
fn share(part: Part, elapsed: Duration) -> String {
    let percent = 100 * part.done / part.of.max(1);
    if part.done == 0 {
        return format!("{percent} %");
    }
    let left = elapsed.as_secs_f64() * part.of.saturating_sub(part.done) as f64 / part.done as f64;
    let left = if left < 90.0 { format!("{left:.0} s") } else { format!("{:.0} min", left / 60.0) };
    format!("{percent} %, {left} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_in_proportion() {
        let line = |done, seconds| reading(Part { done, of: 2000 }, Duration::from_secs(seconds));
        assert_eq!(line(500, 10), "reading the prompt: 500 of 2000 tokens, 25 %, 30 s left");
        assert_eq!(line(128, 60), "reading the prompt: 128 of 2000 tokens, 6 %, 15 min left");
        assert_eq!(line(1999, 60), "reading the prompt: 1999 of 2000 tokens, 99 %, 0 s left");
        assert_eq!(line(0, 60), "reading the prompt: 0 of 2000 tokens, 0 %");
        let bytes = Part { done: 30 << 20, of: 90 << 20 };
        assert_eq!(loading(bytes, Duration::from_secs(2)), "reading the model: 30 of 90 MiB, 33 %, 4 s left");
    }
}
