//! Progress bars for commands that read or write a whole model.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `bytes` bytes, labelled `what`. It is drawn on stderr, and only if that is a terminal.
pub(crate) fn progress(bytes: u64, what: &'static str) -> ProgressBar {
    let template = "{msg} [{bar:40}] {bytes}/{total_bytes} {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style.progress_chars("=> ")).with_message(what)
}
