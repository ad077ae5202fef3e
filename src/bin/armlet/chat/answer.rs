//! An answer on stdout, as it comes: thoughts are dim on a terminal, or hidden.

use std::io::stdout;

use super::conversation::Piece;
use crate::error::{Failure, print};
use crate::terminal::{has_colours, print_text, tell};
use crate::thinking::{Tags, Thinking};

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Prints an answer.
pub(super) struct Answer {
    thinking: Thinking,
    colours: bool,
    hide: bool,
    state: State,
}

/// What was printed.
#[derive(Default)]
struct State {
    dim: bool,
    /// Thoughts were hidden, and nothing of the answer has come.
    hidden: bool,
}

impl Answer {
    pub(super) fn new(hide: bool, tags: Tags) -> Self {
        Answer { thinking: Thinking::new(tags), colours: has_colours(&stdout()), hide, state: State::default() }
    }

    pub(super) fn show(&mut self, piece: Piece<'_>) -> Result<(), Failure> {
        match piece {
            Piece::Thinking => {
                self.thinking.begin();
                Ok(())
            }
            // The line of progress shows it.
            Piece::Read(_) => Ok(()),
            Piece::Text(text) => self.each(|thinking, f| thinking.push(text, f)),
            Piece::End => self.each(|thinking, f| thinking.finish(f)),
        }
    }

    /// Prints what was held back, and ends the line.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.show(Piece::End)?;
        let end = if std::mem::take(&mut self.state.dim) { PLAIN } else { "" };
        print(format!("{end}\n").as_bytes())
    }

    fn each(&mut self, push: impl FnOnce(&mut Thinking, &mut dyn FnMut(bool, &str))) -> Result<(), Failure> {
        let (colours, hide, state) = (self.colours, self.hide, &mut self.state);
        let mut result = Ok(());
        push(&mut self.thinking, &mut |is_thought, text| {
            if result.is_ok() {
                result = state.put(is_thought, text, colours, hide);
            }
        });
        result
    }
}

impl Drop for Answer {
    /// The terminal does not stay dim after an answer that fails.
    fn drop(&mut self) {
        if self.state.dim {
            let _ = print(PLAIN.as_bytes());
        }
    }
}

impl State {
    fn put(&mut self, is_thought: bool, text: &str, colours: bool, hide: bool) -> Result<(), Failure> {
        if is_thought && hide {
            if !self.hidden {
                tell("thinking");
            }
            self.hidden = true;
            return Ok(());
        }
        let text = if self.hidden { text.trim_start() } else { text };
        if text.is_empty() {
            return Ok(());
        }
        self.hidden = false;
        if colours && self.dim != is_thought {
            self.dim = is_thought;
            print(if is_thought { DIM } else { PLAIN }.as_bytes())?;
        }
        print_text(text)
    }
}
