//! Progress bars for commands that read or write a whole model.

use indicatif::{ProgressBar, ProgressStyle};

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
