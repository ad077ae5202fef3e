//! A chat in the terminal: what it is told, and what it shows.

use std::io::Write;

use super::answer::Answer;
use super::conversation::{Answered, Conversation, Piece, Show};
use super::events::{self, Events};
use super::input::{Input, Lines};
use crate::args::Json;
use crate::error::{Failure, print};
use crate::generate::Stats;
use crate::inspect::Summary;
use crate::interrupt;
use crate::numbers;
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
    /// `None` if a program holds the conversation, in JSON.
    lines: Option<Lines>,
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
    pub(super) fn new(
        chat: Conversation<'l, 's>,
        lines: Option<Lines>,
        hide_thinking: bool,
        cache_bytes: usize,
    ) -> Self {
        Repl { chat, lines, stats: true, hide_thinking, think: "on", last: None, cache_bytes, attached: String::new() }
    }

    /// What is said at the start.
    pub(super) fn greet(&self) -> Result<(), Failure> {
        let messages = self.chat.transcript.messages.len();
        if self.lines.is_none() {
            return events::ready(&self.title(), self.chat.runner.context, messages);
        }
        let mut out = std::io::stderr();
        let _ = writeln!(out, "{}\n/help lists commands, Ctrl-D quits", self.title());
        if is_dumb() {
            let _ = writeln!(out, "this terminal (TERM) moves no cursor: lines are read without editing or history");
        }
        if let Some(path) = self.chat.file.filter(|_| !self.chat.transcript.read.is_empty()) {
            let path = path.display().to_string();
            let messages = numbers::of(messages, "message");
            note(&format!("the conversation of {messages} in {} goes on", visible::line(&path)));
        }
        Ok(())
    }

    /// Reads a message or a command.
    pub(super) fn read(&mut self) -> Result<Input, Failure> {
        match &mut self.lines {
            Some(lines) => lines.read(),
            None => events::read(),
        }
    }

    /// Asks, with what was attached before the message. That stays for the next one where this one is not answered.
    pub(super) fn ask(&mut self, text: &str) -> Result<Next, Failure> {
        let (attached, messages) = (std::mem::take(&mut self.attached), self.chat.transcript.messages.len());
        let text = format!("{attached}{text}");
        let result = self.reply(|chat, show| chat.ask(&text, show));
        if self.chat.transcript.messages.len() == messages && !attached.is_empty() {
            self.attached = attached;
            // To a program, nothing comes behind the end of an answer.
            if self.lines.is_some() {
                note("what was read goes before the next message; /read alone drops it");
            }
        }
        result
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
        let stats = if self.lines.is_some() { self.show(ask)? } else { self.print_events(ask)? };
        self.chat.tell_eviction();
        self.last = Some(stats);
        if interrupt::ending() { Err(Failure::Interrupted) } else { Ok(Next::GoOn) }
    }

    fn show(&mut self, ask: impl FnOnce(&mut Conversation<'l, 's>, Show<'_>) -> Answered) -> Result<Stats, Failure> {
        let quiet = Quiet::new();
        let mut answer = Answer::new(self.hide_thinking, self.chat.template.tags());
        let result = ask(&mut self.chat, &mut |piece| answer.show(piece));
        let finished = answer.finish();
        drop(quiet);
        let (end, stats) = result?;
        finished?;
        if let Some(text) = end.note(&stats, true) {
            tell(&text);
        }
        if self.stats {
            stats.report(false);
        }
        Ok(stats)
    }

    fn print_events(
        &mut self,
        ask: impl FnOnce(&mut Conversation<'l, 's>, Show<'_>) -> Answered,
    ) -> Result<Stats, Failure> {
        let mut pieces = Events::new(self.hide_thinking, self.chat.template.tags());
        let (end, stats) = ask(&mut self.chat, &mut |piece| pieces.show(piece))?;
        pieces.show(Piece::End)?;
        events::end(Json::Events, &mut self.chat, self.hide_thinking, end, &stats)?;
        Ok(stats)
    }

    /// Lets a message be edited; `None` if it was given up.
    pub(super) fn edit(&mut self, message: &str) -> Result<Option<String>, Failure> {
        let Some(lines) = self.lines.as_mut().filter(|lines| lines.can_edit()) else {
            return Err(Failure::Error("nothing can be edited here: /edit TEXT gives the whole message".into()));
        };
        lines.edit(message)
    }

    /// Drops what was attached; whether there was something.
    pub(super) fn detach(&mut self) -> bool {
        !std::mem::take(&mut self.attached).is_empty()
    }

    pub(super) fn attach(&mut self, text: String) {
        self.attached += &text;
        if !self.attached.ends_with('\n') {
            self.attached.push('\n');
        }
    }

    /// The reply to a command.
    pub(super) fn note(&self, text: &str) -> Result<Next, Failure> {
        match self.lines {
            Some(_) => note(text),
            None => events::reply(text)?,
        }
        Ok(Next::GoOn)
    }

    /// A line of text as the reply to a command.
    pub(super) fn print(&self, text: &str) -> Result<Next, Failure> {
        match self.lines {
            Some(_) => print(format!("{}\n", visible::text(text)).as_bytes())?,
            None => events::reply(text)?,
        }
        Ok(Next::GoOn)
    }

    /// A message or a command failed; the conversation goes on.
    pub(super) fn failed(&self, text: String) -> Result<(), Failure> {
        match self.lines {
            Some(_) => drop(Failure::Error(text).report()),
            None => events::error(&text)?,
        }
        Ok(())
    }

    /// A table of names and texts, as the reply to a command.
    pub(super) fn say(&self, rows: &[(String, String)]) -> Result<Next, Failure> {
        match self.lines {
            Some(_) => drop(write!(std::io::stderr(), "{}", table(rows, columns()))),
            None => events::reply(table(rows, usize::MAX).trim_end())?,
        }
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
