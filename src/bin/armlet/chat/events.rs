//! An answer, or a whole chat, as lines of JSON.
//!
//! A program that holds a conversation (`--json=lines`) writes lines to stdin, each an object: `{"message": "…"}` is asked,
//! `{"command": "/clear"}` is a command of the chat. On stdout, each line is an event, whose `event` says what it is:
//!
//! | event | |
//! |---|---|
//! | `ready` | `model`, `context`, and `messages`, how many a session has: once, at the start |
//! | `progress` | `read`, how many of the prompt's `tokens` were read; after each pass over them but the last |
//! | `text`, `thinking` | `text`, what a token adds to the answer |
//! | `evicted` | `tokens`, how many of the oldest were evicted: once, when the context is full for the first time |
//! | `end` | `text`, the whole answer; `stop`, why it ended; `timings`, and what is in the KV cache |
//! | `reply` | `text`, what a command says |
//! | `error` | `message`: the line was not answered; the conversation goes on |
//!
//! The last event of each line is `end`, `reply` or `error`. SIGINT stops an answer; the end of stdin, or `/exit`, ends the
//! program.

use std::io::{BufRead, Read};

use armlet::tokenizer::Role;
use serde_json::{Map, Value, json};

use super::conversation::{Conversation, Piece};
use super::input::Input;
use crate::args::Json;
use crate::error::{Failure, print_json};
use crate::generate::{self, End, Said, Stats, ended};
use crate::interrupt;
use crate::thinking::{Tags, Thinking, without_thoughts};

/// Bytes of the longest line.
const LONGEST: u64 = 16 << 20;

/// Prints the pieces of an answer.
pub(super) struct Events {
    thinking: Thinking,
    hide: bool,
}

impl Events {
    pub(super) fn new(hide: bool, tags: Tags) -> Self {
        Events { thinking: Thinking::new(tags), hide }
    }

    pub(super) fn show(&mut self, piece: Piece<'_>) -> Result<(), Failure> {
        let mut result = Ok(());
        let hide = self.hide;
        let mut print = |is_thought: bool, text: &str| {
            if result.is_ok() && !(is_thought && hide) {
                let event = if is_thought { "thinking" } else { "text" };
                result = print_json(&json!({ "event": event, "text": text }), false);
            }
        };
        match piece {
            Piece::Thinking => self.thinking.begin(),
            Piece::Read(part) => return print_json(&Said::Read(part).event(), false),
            Piece::Text(text) => self.thinking.push(text, &mut print),
            Piece::End => self.thinking.finish(&mut print),
        }
        result
    }
}

/// Prints the end of an answer, with all of it, and before it that tokens were evicted.
pub(super) fn end(
    kind: Json,
    chat: &mut Conversation<'_, '_>,
    hide: bool,
    end: End,
    stats: &Stats,
) -> Result<(), Failure> {
    if kind == Json::Events
        && let Some(tokens) = chat.first_evicted()
    {
        print_json(&generate::evicted(tokens), false)?;
    }
    let whole = match chat.transcript.messages.last() {
        // Without a token there is no answer, and the last one is another's.
        Some(message) if message.role == Role::Assistant && stats.generated > 0 => message.text.as_str(),
        _ => "",
    };
    let text = if hide { without_thoughts(whole, chat.template.tags()) } else { whole.to_string() };
    print_json(&ended(kind, &text, end, stats), false)
}

/// The first event.
pub(super) fn ready(model: &str, context: usize, messages: usize) -> Result<(), Failure> {
    print_json(&json!({ "event": "ready", "model": model, "context": context, "messages": messages }), false)
}

/// What a command says.
pub(super) fn reply(text: &str) -> Result<(), Failure> {
    print_json(&json!({ "event": "reply", "text": text }), false)
}

/// Why a line was not answered.
pub(super) fn error(message: &str) -> Result<(), Failure> {
    print_json(&json!({ "event": "error", "message": message }), false)
}

/// Reads the next line. One that means nothing is answered with an error.
pub(super) fn read() -> Result<Input, Failure> {
    let mut line = Vec::new();
    let read = interrupt::at_prompt(|| std::io::stdin().lock().take(LONGEST).read_until(b'\n', &mut line))?;
    interrupt::line_came();
    match read.map_err(|e| Failure::new("stdin", e))? as u64 {
        0 => return Ok(Input::End),
        LONGEST => return Err(Failure::new("stdin", format!("a line is longer than {LONGEST} bytes"))),
        _ => {}
    }
    match meaning(&line) {
        Ok(input) => Ok(input),
        Err(why) => error(&why).map(|()| Input::Nothing),
    }
}

fn meaning(line: &[u8]) -> Result<Input, String> {
    let object: Map<String, Value> = serde_json::from_slice(line).map_err(|e| format!("not a JSON object: {e}"))?;
    let mut entries = object.into_iter();
    match (entries.next(), entries.next()) {
        (Some((key, Value::String(text))), None) if key == "message" => Ok(Input::Message(text)),
        (Some((key, Value::String(text))), None) if key == "command" => Ok(Input::Command(text.trim().into())),
        _ => Err("not {\"message\": \"…\"} or {\"command\": \"/…\"}".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_meaning() {
        let message = |text: &str| Ok(Input::Message(text.into()));
        for (line, means) in [
            (r#"{"message": "a\nb"}"#, message("a\nb")),
            (r#" {"message": "/exit"} "#, message("/exit")),
            (r#"{"message": ""}"#, message("")),
            (r#"{"command": "/clear "}"#, Ok(Input::Command("/clear".into()))),
        ] {
            assert_eq!(meaning(line.as_bytes()), means, "{line}");
        }
        for line in [&b""[..], b"\n", b"Hi", b"\"Hi\"", b"[]", b"{}", b"{\"message\": 1}", b"{\"message\": \"\xff\"}"] {
            assert!(meaning(line).is_err(), "{line:?}");
        }
        assert!(meaning(br#"{"message": "a", "command": "/b"}"#).is_err());
    }
}
