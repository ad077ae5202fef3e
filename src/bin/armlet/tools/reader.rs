//! Reads calls from an answer as it comes.
//!
//! It takes character after character, so that how the text is cut makes no difference. Of what may begin a call nothing is
//! passed on until it is certain.

use std::sync::Arc;

use super::Tool;
use super::dialect::{Arguments, Dialect};
use super::json::{Next, Value};
use super::object::Object;
use super::piece::Piece;
use super::words::Words;
use super::xml::{Made, Xml};

#[derive(Debug)]
enum Place {
    Text,
    /// Between calls, or before the first one. What has come of the text that closes a section.
    Calls(String),
    /// In the name of a call.
    Name(String),
    /// Between a name and its arguments.
    Tag,
    /// A JSON object with a name and arguments.
    Object(Box<Object>),
    /// Arguments as JSON, behind their name.
    Json(Value),
    Words(Words),
    Xml(Xml),
}

/// What is sure of an answer, because its grammar has it so: then what a limit cuts off before the name of a call is whole is no
/// text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sure {
    /// What begins like a call may be none.
    Nothing,
    /// What begins like a call is one.
    Begun,
    /// It is calls, from its beginning.
    Called,
}

/// Reads calls of a dialect.
#[derive(Debug)]
pub(crate) struct Calls {
    sure: Sure,
    dialect: &'static Dialect,
    tools: Arc<[Tool]>,
    place: Place,
    /// What may begin a call.
    held: String,
    /// White space that is only passed on with what follows it.
    blanks: String,
    /// There was text.
    said: bool,
    /// There was a call.
    called: bool,
    /// What has come of a section in which no call has begun.
    raw: Option<String>,
}

type Out<'o> = &'o mut Vec<Piece>;

impl Calls {
    pub(crate) fn new(dialect: &'static Dialect, tools: Arc<[Tool]>) -> Self {
        let (held, blanks) = (String::new(), String::new());
        Calls {
            sure: Sure::Nothing,
            dialect,
            tools,
            place: Place::Text,
            held,
            blanks,
            said: false,
            called: false,
            raw: None,
        }
    }

    /// With what is sure of the answer.
    pub(crate) fn sure(self, sure: Sure) -> Self {
        Calls { sure, ..self }
    }

    /// Whether there may be several, as far as the family goes.
    pub(crate) fn is_parallel(&self) -> bool {
        self.dialect.is_parallel()
    }

    /// Takes text, and gives what has become certain.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut out = Vec::new();
        text.chars().for_each(|c| self.take(c, &mut out));
        out
    }

    /// Gives what was held back.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let mut out = Vec::new();
        let held = std::mem::take(&mut self.held);
        let raw = self.raw.take();
        // Behind a call only another one may come: what there is of it, or of the text that closes a section, says nothing.
        if self.called || self.sure == Sure::Called || self.sure == Sure::Begun && raw.is_some() {
            return out;
        }
        self.say(&(held + &raw.unwrap_or_default()), &mut out);
        self.pass_on(&mut out);
        out
    }

    fn take(&mut self, c: char, out: Out<'_>) {
        if let Some(raw) = &mut self.raw {
            raw.push(c);
        }
        match &mut self.place {
            Place::Text => self.text(c, out),
            Place::Calls(_) => self.between(c, out),
            Place::Name(name) => match c {
                '{' | '(' | '[' => {
                    let name = std::mem::take(name);
                    let name = name.trim().trim_start_matches("call:");
                    if self.is_tool(name) { self.named(name, c, out) } else { self.wrong(out) }
                }
                // A name is short, and in one line.
                '\n' | '<' | '"' => self.wrong(out),
                _ if name.len() > 200 => self.wrong(out),
                c => name.push(c),
            },
            Place::Tag => {
                if c == '{' {
                    self.json(c, out);
                }
            }
            Place::Object(object) => match object.push(c) {
                Ok(made) => self.object(made, out),
                Err(()) => self.wrong(out),
            },
            Place::Json(_) => self.json(c, out),
            Place::Words(words) => {
                let mut made = String::new();
                let is_last = words.push(c, &mut made);
                arguments(made, out);
                if is_last {
                    self.end(out);
                }
            }
            Place::Xml(xml) => {
                let made = xml.push(c, &self.tools);
                self.xml(made, out);
            }
        }
    }

    fn text(&mut self, c: char, out: Out<'_>) {
        self.held.push(c);
        let marks = if self.dialect.alone && (self.said || self.called) { &[] } else { self.dialect.marks };
        while !self.held.is_empty() {
            if let Some(mark) = marks.iter().find(|mark| **mark == self.held) {
                let mark = *mark;
                self.place = Place::Calls(String::new());
                self.held.clear();
                self.raw = Some(mark.into());
                // Of some, the mark is a part of the call.
                if mark.starts_with('{') {
                    self.raw = Some(String::new());
                    mark.chars().for_each(|c| self.take(c, out));
                }
                return;
            }
            if marks.iter().any(|mark| mark.starts_with(self.held.as_str())) {
                return;
            }
            let first = self.held.remove(0);
            self.say(first.encode_utf8(&mut [0; 4]), out);
        }
    }

    /// Passes text on, but for white space at its end.
    fn say(&mut self, text: &str, out: Out<'_>) {
        for c in text.chars() {
            if c.is_whitespace() {
                self.blanks.push(c);
                continue;
            }
            if self.called && !self.said {
                // White space behind a call is of its dialect.
                self.blanks.clear();
            }
            self.pass_on(out);
            self.said = true;
            append(c, out);
        }
    }

    fn pass_on(&mut self, out: Out<'_>) {
        std::mem::take(&mut self.blanks).chars().for_each(|c| append(c, out));
    }

    /// Between calls, or before the first.
    fn between(&mut self, c: char, out: Out<'_>) {
        let Place::Calls(held) = &mut self.place else { return };
        let close = self.dialect.close.trim_start_matches(']').trim_start();
        if !held.is_empty() || !close.is_empty() && close.starts_with(c) && !c.is_whitespace() && self.raw.is_none() {
            held.push(c);
            if held == close {
                self.place = Place::Text;
            } else if !close.starts_with(held.as_str()) {
                self.section_ends(out);
            }
            return;
        }
        match c {
            c if c.is_whitespace() || ",;[]".contains(c) => {}
            '{' => self.place = Place::Object(Box::new(Object::new())),
            '<' if self.dialect.kind == Arguments::Xml => self.place = Place::Xml(Xml::new()),
            c if self.raw.is_some() || self.dialect.kind == Arguments::Python => {
                if c.is_alphanumeric() || c == '_' {
                    self.raw.get_or_insert_default();
                    self.place = Place::Name(c.into());
                } else {
                    self.wrong(out);
                }
            }
            c => {
                *held = c.into();
                self.section_ends(out);
            }
        }
    }

    /// What follows calls is text, or begins other ones.
    fn section_ends(&mut self, out: Out<'_>) {
        let Place::Calls(held) = std::mem::replace(&mut self.place, Place::Text) else { return };
        held.chars().for_each(|c| self.take(c, out));
    }

    /// What begins like a call and is none is text.
    fn wrong(&mut self, out: Out<'_>) {
        self.place = Place::Text;
        let raw = self.raw.take().unwrap_or_default();
        self.say(&raw, out);
    }

    fn is_tool(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool.name == name)
    }

    fn begin(&mut self, name: &str, out: Out<'_>) {
        // White space before a call is of its dialect.
        self.blanks.clear();
        self.raw = None;
        (self.called, self.said) = (true, false);
        out.push(Piece::Begin(name.into()));
    }

    fn end(&mut self, out: Out<'_>) {
        out.push(Piece::End);
        // Where nothing closes a section, text or another one follows.
        self.place = if self.dialect.close.is_empty() { Place::Text } else { Place::Calls(String::new()) };
    }

    /// Behind the name of a call, which this character ends.
    fn named(&mut self, name: &str, c: char, out: Out<'_>) {
        self.begin(name, out);
        let kind = match (self.dialect.kind, c) {
            (_, '(') => Arguments::Python,
            (Arguments::Gemma, '{') => Arguments::Gemma,
            (_, '{') => {
                self.place = Place::Json(Value::default());
                return self.json(c, out);
            }
            _ => {
                self.place = Place::Tag;
                return;
            }
        };
        let mut made = String::new();
        self.place = Place::Words(Words::new(kind, &mut made));
        arguments(made, out);
    }

    /// A character of arguments that are JSON.
    fn json(&mut self, c: char, out: Out<'_>) {
        if !matches!(self.place, Place::Json(_)) {
            self.place = Place::Json(Value::default());
        }
        let Place::Json(value) = &mut self.place else { return };
        let next = value.push(c);
        arguments(c.into(), out);
        if next != Next::Part {
            self.end(out);
        }
    }

    fn object(&mut self, made: Vec<Piece>, out: Out<'_>) {
        for piece in made {
            match piece {
                Piece::Begin(name) if !self.is_tool(&name) => return self.wrong(out),
                Piece::Begin(name) => self.begin(&name, out),
                Piece::Arguments(text) => arguments(text, out),
                Piece::End => self.end(out),
                Piece::Text(_) => {}
            }
        }
    }

    fn xml(&mut self, made: Made, out: Out<'_>) {
        match made {
            Made::Nothing => {}
            Made::Name(name) if !self.is_tool(&name) => self.wrong(out),
            Made::Name(name) => self.begin(&name, out),
            Made::Arguments(text) => arguments(text, out),
            Made::End(text) => {
                arguments(text, out);
                self.end(out);
            }
            Made::Wrong => self.wrong(out),
        }
    }
}

/// Adds to the text at the end of what has become certain.
fn append(c: char, out: Out<'_>) {
    match out.last_mut() {
        Some(Piece::Text(text)) => text.push(c),
        _ => out.push(Piece::Text(c.into())),
    }
}

/// The same of arguments.
fn arguments(more: String, out: Out<'_>) {
    match out.last_mut() {
        _ if more.is_empty() => {}
        Some(Piece::Arguments(text)) => *text += &more,
        _ => out.push(Piece::Arguments(more)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::{DIALECTS, GENERIC};
    use super::*;
    use serde_json::{Map, Value as Json, json};

    fn dialect(family: &str) -> &'static Dialect {
        DIALECTS.iter().find(|dialect| dialect.family == family).unwrap()
    }

    fn tools() -> Arc<[Tool]> {
        let parameters =
            json!({ "type": "object", "properties": { "a": { "type": "string" }, "n": { "type": "integer" } } });
        let tool = |name: &str| {
            let (name, parameters) = (name.to_string(), parameters.as_object().cloned().unwrap_or_default());
            Tool { name, parameters, given: Json::Object(Map::new()) }
        };
        [tool("f"), tool("g")].into()
    }

    /// Text, and calls with their arguments, of an answer that comes in these pieces.
    fn read(dialect: &'static Dialect, pieces: &[&str]) -> (String, Vec<(String, String, bool)>) {
        read_sure(Sure::Nothing, dialect, pieces)
    }

    fn read_sure(sure: Sure, dialect: &'static Dialect, pieces: &[&str]) -> (String, Vec<(String, String, bool)>) {
        let mut calls = Calls::new(dialect, tools()).sure(sure);
        let mut made: Vec<Piece> = pieces.iter().flat_map(|piece| calls.push(piece)).collect();
        made.extend(calls.finish());
        let (mut text, mut list) = (String::new(), Vec::new());
        for piece in made {
            match (piece, list.last_mut()) {
                (Piece::Text(more), _) => text += &more,
                (Piece::Begin(name), _) => list.push((name, String::new(), false)),
                (Piece::Arguments(more), Some((_, arguments, false))) => *arguments += &more,
                (Piece::End, Some((_, _, ended @ false))) => *ended = true,
                (piece, _) => panic!("{piece:?} without a call: {pieces:?}"),
            }
        }
        (text, list)
    }

    /// The same however the text is cut in two, or in characters.
    fn read_all_ways(dialect: &'static Dialect, text: &str) -> (String, Vec<(String, String, bool)>) {
        let whole = read(dialect, &[text]);
        for (at, _) in text.char_indices() {
            assert_eq!(read(dialect, &[&text[..at], &text[at..]]), whole, "{text:?} cut at {at}");
        }
        let each: Vec<&str> = text.split("").collect();
        assert_eq!(read(dialect, &each), whole, "{text:?} by characters");
        whole
    }

    #[test]
    fn each_family_calls_in_its_own_way() {
        let hermes = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}<\\\"é\", \"n\": 2}}\n</tool_call>\n\
                      <tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
        let list =
            "[{\"name\": \"f\", \"arguments\": {\"a\": \"}<\\\"é\", \"n\": 2}}, {\"name\": \"g\", \"arguments\": {}}]";
        for (family, text) in [
            ("Hermes", hermes.to_string()),
            (
                "Qwen3-Coder, Qwen3.5",
                "<tool_call>\n<function=f>\n<parameter=a>\n}<\"é\n</parameter>\n<parameter=n>\n2\n</parameter>\n</function>\n\
                 </tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>"
                    .into(),
            ),
            ("Gemma 4", "<|tool_call>call:f{a:<|\"|>}<\"é<|\"|>,n:2}<tool_call|><|tool_call>call:g{}<tool_call|>".into()),
            ("Mistral", format!("[TOOL_CALLS]{list}")),
            ("Mistral, since 2025", "[TOOL_CALLS]f[ARGS]{\"a\": \"}<\\\"é\", \"n\": 2}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}".into()),
            ("LFM2", "<|tool_call_start|>[f(a=\"}<\\\"é\", n=2), g()]<|tool_call_end|>".into()),
            ("Phi-4-mini", format!("<|tool_call|>{list}<|/tool_call|>")),
            ("Granite 3", format!("<|tool_call|>{list}")),
        ] {
            for (before, after) in [("", ""), ("Well, <\n\n", ""), ("", "\n"), ("a", "\nb")] {
                let (said, calls) = read_all_ways(dialect(family), &format!("{before}{text}{after}"));
                assert_eq!(said, format!("{}{}", before.trim_end(), after.trim()), "{family}");
                let [(f, arguments, true), (g, empty, true)] = &calls[..] else { panic!("{family}: {calls:?}") };
                let arguments: Json = serde_json::from_str(arguments).unwrap_or_else(|e| panic!("{family}: {arguments}: {e}"));
                assert_eq!((f.as_str(), arguments), ("f", json!({ "a": "}<\"é", "n": 2 })), "{family}");
                assert_eq!((g.as_str(), empty.as_str()), ("g", "{}"), "{family}");
            }
        }
        let llama = "{\"name\": \"f\", \"parameters\": {\"a\": \"x\"}}";
        for before in ["", "\n", "<|python_tag|>"] {
            let (said, calls) = read_all_ways(dialect("Llama 3"), &format!("{before}{llama}"));
            assert_eq!((said.as_str(), calls), ("", vec![("f".into(), "{\"a\": \"x\"}".into(), true)]));
        }
    }

    #[test]
    fn calls_may_be_spelled_in_other_ways() {
        for (family, text, expected) in [
            ("Hermes", "<tool_call>{\"arguments\":{\"n\":1},\"name\":\"f\"}</tool_call>", "{\"n\":1}"),
            ("Hermes", "<tool_call>[{\"name\":\"f\",\"parameters\":{\"n\":1}}]</tool_call>", "{\"n\":1}"),
            (
                "Hermes",
                "<tool_call>{\"id\": 3, \"x\": [{}], \"name\": \"f\", \"arguments\": \"{\\\"n\\\":1}\"}",
                "{\"n\":1}",
            ),
            ("Hermes", "<tool_call>{\"name\": \"f\"}</tool_call>", "{}"),
            ("Granite 3", "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\":1}}", "{\"n\":1}"),
            ("Mistral", "[TOOL_CALLS] f[ARGS]{\"n\":1}", "{\"n\":1}"),
            ("LFM2", "<|tool_call_start|>f(n=1)<|tool_call_end|>", "{\"n\": 1}"),
            (
                "Qwen3-Coder, Qwen3.5",
                "<tool_call><function=f><parameter=n>1</parameter></function></tool_call>",
                "{\"n\": 1}",
            ),
        ] {
            let (said, calls) = read_all_ways(dialect(family), text);
            assert_eq!((said.as_str(), calls), ("", vec![("f".into(), expected.into(), true)]), "{text}");
        }
    }

    /// Nothing of it is lost, and it comes at the latest with the end.
    #[test]
    fn what_is_no_call_is_text() {
        for (family, text) in [
            ("Hermes", "a <tool_ call> </tool_call> <tool_cal"),
            ("Hermes", "<tool_call>words</tool_call> "),
            ("Hermes", "<tool_call>\n{\"nam\": 1}\n</tool_call>"),
            ("Hermes", "<tool_call>\n{"),
            ("Hermes", " white\n\n space \n"),
            ("Qwen3-Coder, Qwen3.5", "<tool_call>\n<functional>\n"),
            ("Gemma 4", "<|tool_call><b>"),
            ("Llama 3", "{\"nam\": \"f\"}"),
            ("Llama 3", "So: {\"name\": \"f\", \"parameters\": {}}"),
        ] {
            assert_eq!(read_all_ways(dialect(family), text), (text.into(), vec![]));
        }
        // What may be the beginning of another call is not.
        let (said, calls) =
            read_all_ways(&GENERIC, "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_");
        assert_eq!((said.as_str(), calls), ("", vec![("f".into(), "{}".into(), true)]));
        // What is cut off is no whole call.
        let (said, calls) = read_all_ways(&GENERIC, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"x");
        assert_eq!((said.as_str(), calls), ("", vec![("f".into(), "{\"a\": \"x".into(), false)]));
    }

    /// Cut off before the name of a call is whole: where a grammar allows nothing but a call, its markup is no text.
    #[test]
    fn markup_of_a_call_is_no_text() {
        for (family, cut, begun) in [
            ("Hermes", "<tool_call>\n{\"name\": \"weath", ""),
            ("Hermes", "So:\n<tool_call>", "So:"),
            // Here it is not certain yet.
            ("Hermes", "<tool_c", "<tool_c"),
            ("Llama 3", "{\"name\": \"weath", ""),
            ("Llama 3", "{\"na", "{\"na"),
            ("Mistral", "[TOOL_CALLS][{\"name\": \"", ""),
            ("Gemma 4", "<|tool_call>call:", ""),
            ("LFM2", "<|tool_call_start|>[", ""),
            ("Qwen3-Coder, Qwen3.5", "<tool_call>\n<function=", ""),
        ] {
            let of = |sure| {
                cut.char_indices().map(move |(at, _)| read_sure(sure, dialect(family), &[&cut[..at], &cut[at..]]))
            };
            assert!(of(Sure::Begun).all(|(said, calls)| said == begun && calls.is_empty()), "{family}: {cut}");
            if !cut.starts_with("So") {
                assert!(of(Sure::Called).all(|made| made == (String::new(), vec![])), "{family}: {cut}");
            }
            assert!(of(Sure::Nothing).all(|(said, _)| said == cut), "{family}: {cut}");
        }
    }

    #[test]
    fn text_comes_as_soon_as_it_is_certain() {
        let mut calls = Calls::new(&GENERIC, tools());
        for (text, made) in [
            ("Hi", vec![Piece::Text("Hi".into())]),
            (" <", vec![]),
            ("b", vec![Piece::Text(" <b".into())]),
            ("\n<tool_call>", vec![]),
            ("{\"name\": \"f", vec![]),
            ("\", \"arguments\": {\"a\"", vec![Piece::Begin("f".into()), Piece::Arguments("{\"a\"".into())]),
            (": 1}", vec![Piece::Arguments(": 1}".into())]),
            ("}", vec![Piece::End]),
        ] {
            assert_eq!(calls.push(text), made, "{text}");
        }
    }
}
