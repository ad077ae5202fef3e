//! A chat in the terminal: what it is told, and what it shows.

use std::io::Write;

use super::answer::Answer;
use super::conversation::{Answered, Conversation, Show};
use super::input::{Input, Lines};
use crate::error::Failure;
use crate::generate::Stats;
use crate::inspect::Summary;
use crate::interrupt;
use crate::terminal::{Quiet, columns, is_dumb, note, tell};
use crate::visible;

/// What happens after a message or a command.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    GoOn,
    Quit,
}

/// A chat in the terminal.
pub(super) struct Repl<'l, 's> {
    pub(super) chat: Conversation<'l, 's>,
    lines: Lines,
    /// A line of statistics follows each answer.
    pub(super) stats: bool,
    pub(super) hide_thinking: bool,
    /// `on` or `off`: what the template was told.
    pub(super) think: &'static str,
    /// Of the last answer.
    pub(super) last: Option<Stats>,
    /// Bytes of the KV cache.
    pub(super) cache_bytes: usize,
    /// Text that goes before the next message.
    attached: String,
}

impl<'l, 's> Repl<'l, 's> {
    pub(super) fn new(chat: Conversation<'l, 's>, lines: Lines, hide_thinking: bool, cache_bytes: usize) -> Self {
        Repl { chat, lines, stats: true, hide_thinking, think: "on", last: None, cache_bytes, attached: String::new() }
    }

    /// What is said at the start.
    pub(super) fn greet(&self) {
        let mut out = std::io::stderr();
        let _ = writeln!(out, "{}\n/help lists commands, Ctrl-D quits", self.title());
        if is_dumb() {
            let _ = writeln!(out, "this terminal (TERM) moves no cursor: lines are read without editing or history");
        }
        if let Some(path) = self.chat.file.filter(|_| !self.chat.transcript.read.is_empty()) {
            let (n, path) = (self.chat.transcript.messages.len(), path.display().to_string());
            note(&format!("the conversation of {n} messages in {} goes on", visible::line(&path)));
        }
    }

    /// Reads a message, with what was attached to it, or a command.
    pub(super) fn read(&mut self) -> Result<Input, Failure> {
        Ok(match self.lines.read()? {
            Input::Message(text) => Input::Message(std::mem::take(&mut self.attached) + &text),
            other => other,
        })
    }

    /// The model's name, what it is, and its context.
    pub(super) fn title(&self) -> String {
        let loaded = self.chat.loaded;
        let name = loaded.path.file_stem().unwrap_or_default().to_string_lossy();
        let (kind, context) = (Summary::new(loaded.file).kind(), self.chat.runner.context);
        visible::line(&format!("{name}: {kind}, context of {context} tokens")).into_owned()
    }

    /// Prints an answer as it comes, and then what is to be said of it.
    pub(super) fn reply(
        &mut self,
        ask: impl FnOnce(&mut Conversation<'l, 's>, Show<'_>) -> Answered,
    ) -> Result<Next, Failure> {
        // Ignore a Ctrl-C that came between two answers.
        interrupt::take();
        let quiet = Quiet::new();
        let mut answer = Answer::new(self.hide_thinking);
        let result = ask(&mut self.chat, &mut |piece| answer.show(piece));
        let finished = answer.finish();
        drop(quiet);
        let (end, stats) = result?;
        finished?;
        if let Some(text) = end.note(&stats) {
            tell(&text);
        }
        if self.stats {
            stats.report(false);
        }
        self.chat.tell_eviction();
        self.last = Some(stats);
        if interrupt::ending() { Err(Failure::Interrupted) } else { Ok(Next::GoOn) }
    }

    /// Lets a message be edited; `None` if it was given up.
    pub(super) fn edit(&mut self, message: &str) -> Result<Option<String>, Failure> {
        if is_dumb() {
            return Err(Failure::Error("this terminal cannot edit: /edit TEXT gives the whole message".into()));
        }
        match self.lines.read_from(message)? {
            Input::Message(text) | Input::Command(text) => Ok(Some(text)),
            Input::Nothing | Input::End => Ok(None),
        }
    }

    pub(super) fn attach(&mut self, text: String) {
        self.attached += &text;
        if !self.attached.ends_with('\n') {
            self.attached.push('\n');
        }
    }

    /// The reply to a command.
    pub(super) fn note(&self, text: &str) -> Result<Next, Failure> {
        note(text);
        Ok(Next::GoOn)
    }

    /// A table of names and texts, as the reply to a command.
    pub(super) fn say(&self, rows: &[(String, String)]) -> Result<Next, Failure> {
        let _ = write!(std::io::stderr(), "{}", table(rows, columns()));
        Ok(Next::GoOn)
    }
}

/// Two columns, the second of which is wrapped at words.
fn table(rows: &[(String, String)], columns: usize) -> String {
    let first = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 2;
    let width = columns.saturating_sub(first + 2).max(16);
    let mut out = String::new();
    for (name, text) in rows {
        let (mut name, room) = (name.as_str(), if name.is_empty() { width + first } else { width });
        let indent = if name.is_empty() { 0 } else { first };
        for line in wrap(text, room) {
            out += format!("{name:indent$}{line}").trim_end();
            out.push('\n');
            name = "";
        }
    }
    out
}

/// A text in lines of at most `width` characters, broken between words; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_wrapped_at_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("extraordinary as it is\n\nx", 7), ["extraordinary", "as it", "is", "", "x"]);
        let rows = [("/a".to_string(), "one two three four".to_string()), (String::new(), "five six".into())];
        assert_eq!(table(&rows, 20), "/a  one two three\n    four\nfive six\n");
    }
}
