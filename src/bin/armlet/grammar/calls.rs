//! The grammar of an answer that may call tools, in llguidance's language.
//!
//! Text is free, but for what begins a call: from there on it is a call of one of the tools, whose arguments their schemas allow.
//! A thought before it is free, whatever it says of calls.

use std::fmt::Write;

use armlet::tokenizer::{TokenKind, Tokenizer};
use serde_json::{Map, Value};

use super::arguments::named;
use super::bounds::Bounds;
use super::count::Count;
use super::gemma::check;
use super::schema::within;
use super::writer::{MOST, Made, TOO_LARGE, Writer, as_map, quoted, regex};
use super::{Trouble, compact, deep};
use crate::thinking::Tags;
use crate::tools::{Arguments, Choice, Dialect, Tool, Tools};

/// Any text.
const ANY: &str = "/(.|\\n)*/";

/// The most calls of an answer: small models do not find an end.
const CALLS: usize = 16;
/// White space in which no model loses itself.
const SPACE: &str = "/\\s{0,4}/";
/// The most members of an object, times how many of them there must be.
const MEMBERS: usize = 8192;

/// What an answer is made of beside calls.
pub(crate) struct Frame {
    pub(crate) dialect: &'static Dialect,
    /// What is around thoughts, of a model that may have some.
    pub(crate) tags: Option<Tags>,
    /// The answer begins within a thought.
    pub(crate) thinking: bool,
    /// What it is if it calls nothing; any text if there is none.
    pub(crate) document: Option<Value>,
}

/// The grammar of an answer with these tools.
///
/// # Errors
/// A schema that is none, or that takes too much; or that there is no room for it now.
pub(crate) fn lark(tools: &Tools, frame: &Frame, tokenizer: &Tokenizer<'_>) -> Result<String, Trouble> {
    deep(|| write(tools, frame, tokenizer).map_err(Trouble::Form))
}

fn write(tools: &Tools, frame: &Frame, tokenizer: &Tokenizer<'_>) -> Result<String, String> {
    let mut writer = Writer {
        dialect: frame.dialect,
        tokenizer,
        rules: String::new(),
        n: 0,
        any: false,
        gemma: Made::default(),
        bounds: Bounds::default(),
        roots: Bounds::default(),
    };
    let answer = match (&tools.choice, &frame.document) {
        (Choice::Auto, None) => writer.text_or_calls(tools, frame)?,
        (Choice::Auto, Some(schema)) => {
            format!("{} | {}", writer.json(&as_map(schema)?, None)?, writer.calls(tools, "")?)
        }
        (Choice::Required | Choice::Named(_), _) => writer.calls(tools, "")?,
    };
    let thought = writer.thought(frame);
    writer.fits()?;
    Ok(format!("start: {thought}\nanswer: {answer}\n{}", writer.rules))
}

impl Writer<'_, '_> {
    /// The control token that begins a text, and its length.
    fn control(&self, text: &str, among: &[&str]) -> Option<(u32, usize)> {
        let spelled = among.iter().filter(|token| text.starts_with(**token));
        let control = |token: &&str| Some((self.tokenizer.find(token.as_bytes())?, token.len()));
        spelled.filter_map(control).find(|(id, _)| self.tokenizer.kind(*id) == TokenKind::Control)
    }

    /// A text as it is, with control tokens where it spells them.
    pub(super) fn literal(&self, text: &str) -> String {
        let mut items = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            match self.control(rest, self.dialect.tokens) {
                Some((id, len)) => {
                    items.extend((!plain.is_empty()).then(|| quoted(&std::mem::take(&mut plain))));
                    items.push(format!("<[{id}]>"));
                    rest = &rest[len..];
                }
                None => {
                    plain.push(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
        items.extend((!plain.is_empty()).then(|| quoted(&plain)));
        if items.is_empty() { "\"\"".into() } else { items.join(" ") }
    }

    /// Any text up to the first of this, with it; the text may not begin with `but`, nor have one of `never` in letters.
    pub(super) fn until(&mut self, end: &str, among: &[&str], but: Option<&str>, never: &[&str]) -> String {
        let mut but = but.map_or(String::new(), |but| format!(" & ~/\\s*{}(.|\\n)*/", regex(but)));
        for never in never {
            let _ = write!(but, " & ~/(.|\\n)*{}(.|\\n)*/", regex(never));
        }
        match self.control(end, among) {
            Some((id, _)) => format!("{} <[{id}]>", self.terminal(&format!("{ANY}{but}"))),
            None => {
                let token = self.terminal(&format!("/(.|\\n)*{}/{but}", regex(end)));
                self.rule("[lazy]", &token)
            }
        }
    }

    /// A text of which all these hold, and `end` behind it, with the first `mark`.
    pub(super) fn kept(&mut self, bodies: &[String], end: &str, mark: &str, among: &[&str]) -> String {
        let control = self.control(end, among);
        let behind = if control.is_some() { String::new() } else { regex(end) };
        let all: Vec<String> = bodies.iter().map(|body| format!("/({body}){behind}/")).collect();
        let first = match control {
            Some(_) => String::new(),
            None => {
                let mark = regex(mark);
                format!(" & ~/(.|\\n)*{behind}(.|\\n)+/ & ~/(.|\\n)*{mark}(.|\\n)*{mark}(.|\\n)*/")
            }
        };
        let token = self.terminal(&format!("{}{first}", all.join(" & ")));
        match control {
            Some((id, _)) => format!("{token} <[{id}]>"),
            None => self.rule("[lazy]", &token),
        }
    }

    /// The answer, and a thought before it.
    fn thought(&mut self, frame: &Frame) -> String {
        let Some(tags) = frame.tags else { return "answer".into() };
        let marks = tags.tokens;
        if frame.thinking {
            let rest = self.until(tags.close, &marks, None, &[]);
            return format!("{rest} {SPACE} answer");
        }
        let open = match self.control(tags.open, &marks) {
            Some((id, len)) => {
                format!("<[{id}]> {}", if len < tags.open.len() { quoted(&tags.open[len..]) } else { String::new() })
            }
            None => quoted(tags.open),
        };
        let rest = self.until(tags.close, &marks, None, &[]);
        format!("answer | {SPACE} {open} {rest} {SPACE} answer")
    }

    /// Free text, calls, or both.
    fn text_or_calls(&mut self, tools: &Tools, frame: &Frame) -> Result<String, String> {
        let marks = self.dialect.marks;
        let tokens = self.dialect.tokens;
        let open = frame.tags.filter(|tags| self.control(tags.open, &tags.tokens).is_none()).map(|tags| tags.open);
        let mut tail = String::from(ANY);
        let before = if self.dialect.alone { "\\s*" } else { "(.|\\n)*" };
        // In letters too, which would be read as calls, where it is a token that begins one.
        for text in marks.iter().map(|mark| (before, *mark)).chain(open.map(|open| ("\\s*", open))) {
            let _ = write!(tail, " & ~/{}{}(.|\\n)*/", text.0, regex(text.1));
        }
        let _ = writeln!(self.rules, "TAIL: {tail}");
        if self.dialect.alone {
            return Ok(format!("TAIL | {SPACE} {}", self.calls(tools, "")?));
        }
        let is_token = self.control(marks[0], tokens).is_some();
        let lead = self.until(marks[0], tokens, open, if is_token { marks } else { &marks[1..] });
        let calls = self.calls(tools, marks[0])?;
        Ok(format!("TAIL | {lead} {calls}"))
    }

    /// Calls, of which `read` is there.
    fn calls(&mut self, tools: &Tools, read: &str) -> Result<String, String> {
        let d = self.dialect;
        let one = tools.allowed().map(|tool| self.call(tool)).collect::<Result<Vec<_>, _>>()?.join(" | ");
        let call = self.rule("", &one);
        let several = tools.parallel;
        let inner = match d.between {
            Some(between) if several => format!("{call} ({} {call}){{0,{}}}", self.literal(between), CALLS - 1),
            _ => call,
        };
        let close = self.literal(d.close);
        let mut first = self.literal(d.open.strip_prefix(read).unwrap_or(d.open));
        // Before a call that is all of an answer there may be a token that says so.
        let tags = d.marks[1..].iter().filter(|_| d.alone).filter_map(|mark| self.control(mark, d.tokens));
        for (id, _) in tags {
            first = format!("<[{id}]>? {first}");
        }
        let more = match d.gap {
            Some(gap) if several => {
                format!("({} {inner} {close}){{0,{}}}", self.literal(&format!("{gap}{}", d.open)), CALLS - 1)
            }
            _ => String::new(),
        };
        Ok(self.rule("", &format!("{first} {inner} {close} {more}")))
    }

    fn call(&mut self, tool: &Tool) -> Result<String, String> {
        let d = self.dialect;
        let head = self.literal(&format!("{}{}{}", d.name, tool.name, d.arguments));
        let root = &tool.parameters;
        if d.kind != Arguments::Json {
            self.roots.add(&root.clone().into())?;
            check(root)?;
        }
        let arguments = match d.kind {
            Arguments::Json => self.json(root, None)?,
            Arguments::Gemma => self.gemma_arguments(root)?,
            Arguments::Python | Arguments::Xml => self.one_by_one(root)?,
        };
        let id = if d.has_ids { "\", \\\"id\\\": \\\"\" /[a-zA-Z0-9]{9}/ \"\\\"\"" } else { "" };
        let end = if d.end.is_empty() { String::new() } else { self.literal(d.end) };
        Ok(self.rule("", &format!("{head} {arguments} {id} {end}")))
    }

    /// A JSON value; definitions that it names are those of `root`.
    pub(super) fn json(
        &mut self,
        schema: &Map<String, Value>,
        root: Option<&Map<String, Value>>,
    ) -> Result<String, String> {
        let mut schema = Value::Object(schema.clone());
        // Each definition counts once, however often it is copied.
        self.bounds.add(&schema)?;
        // Only what it names is copied.
        let mut more = root.map_or_else(|| Ok(Map::new()), |root| named(root, &schema))?;
        // How its values are written is said once for all.
        let options = root.and_then(|root| root.get("x-guidance"));
        more.extend(options.map(|options| ("x-guidance".into(), options.clone())));
        if let Some(of) = schema.as_object_mut() {
            more.into_iter().for_each(|(key, value)| _ = of.entry(key).or_insert(value));
        }
        Bounds::default().add(&schema)?;
        let body = format!("%json {}", compact(&schema)?);
        if self.rules.len() + body.len() > MOST {
            return Err(TOO_LARGE.into());
        }
        Ok(self.rule("", &body))
    }

    /// Members one behind the other, of which only those that are required must be there, and then others; none if there cannot
    /// be so many.
    pub(super) fn chain(
        &mut self,
        members: &[(String, bool)],
        others: Option<&str>,
        count: Count,
        between: &str,
    ) -> Result<Option<String>, String> {
        // How many there are counts as far as it makes a difference: whether there is one does.
        let is_bound = others.is_some() || count.most.is_some_and(|most| most < members.len());
        let count = Count { most: count.most.filter(|_| is_bound), ..count };
        let cap = count.most.unwrap_or(0).max(count.least).max(1).min(members.len().max(1));
        within("members to count", members.len() * cap, MEMBERS)?;
        let mut row = Vec::new();
        for n in 0..=cap {
            let left = count.behind(n);
            row.push(match others {
                Some(others) => Some(self.rule("", &left.repeated(others, between, n == 0))),
                None => (left.least == 0).then(|| "\"\"".into()),
            });
        }
        for (i, (member, is_required)) in members.iter().enumerate().rev() {
            self.fits()?;
            let mut before: Vec<Option<String>> = Vec::new();
            for n in 0..=cap.min(i) {
                let between = if n == 0 { "" } else { between };
                let may_be = count.most.is_none_or(|most| n < most);
                let with = row[cap.min(n + 1)].as_ref().filter(|_| may_be);
                let with = with.map(|rest| format!("{between} {member} {rest}"));
                let all: Vec<String> = with.into_iter().chain(row[n].clone().filter(|_| !is_required)).collect();
                before.push((!all.is_empty()).then(|| self.rule("", &all.join(" | "))));
            }
            row = before;
        }
        Ok(row.swap_remove(0))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use armlet::tokenizer::EncodeOptions;
    use serde_json::json;

    use super::super::{Form, Grammar, Vocabulary};
    use super::*;
    use crate::model::{encode, with_tokenizer};
    use crate::tools::{Call, DIALECTS, GENERIC};

    pub(crate) fn tool(name: &str, parameters: Value) -> Tool {
        Tool { name: name.into(), parameters: as_map(&parameters).unwrap(), given: json!({}) }
    }

    fn tools(choice: Choice, parallel: bool) -> Tools {
        let parameters = json!({ "type": "object", "additionalProperties": false, "required": ["a"], "properties": {
            "a": { "type": "string" }, "n": { "$ref": "#/$defs/small" }, "b": { "type": "boolean" },
            "l": { "type": "array", "items": { "type": "string", "enum": ["x", "y"] } },
        }, "$defs": { "small": { "type": "integer", "maximum": 9, "minimum": 0 } } });
        let empty = json!({ "type": "object", "additionalProperties": false, "properties": {} });
        Tools { list: vec![tool("f", parameters), tool("g", empty)], choice, parallel }
    }

    pub(crate) fn frame(dialect: &'static Dialect) -> Frame {
        Frame { dialect, tags: Some(Tags::default()), thinking: false, document: None }
    }

    /// How many bytes of a text a grammar allows, and whether it may end there.
    pub(crate) fn allowed(grammar: &Grammar, tokenizer: &Tokenizer<'_>, text: &str) -> (usize, bool) {
        let options = EncodeOptions { add_special: false, parse_special: false, literal: &[] };
        let mut constraint = grammar.start().unwrap();
        let mut bytes = 0;
        for token in encode(tokenizer, text, options).unwrap() {
            if constraint.is_complete() || !constraint.allows(tokenizer, token) {
                return (bytes, false);
            }
            constraint.accept(token).unwrap();
            bytes += tokenizer.piece(token, false).count();
        }
        (bytes, constraint.may_end())
    }

    pub(crate) fn call(name: &str, arguments: Value) -> Call {
        Call { id: "abcdefghi".into(), name: name.into(), arguments: as_map(&arguments).unwrap() }
    }

    /// What a family writes is allowed, and nothing else behind the mark; text before it is free.
    #[test]
    fn calls_are_of_their_tools_in_every_dialect() {
        with_tokenizer(|tokenizer| {
            let vocabulary = Vocabulary::new(tokenizer).unwrap();
            for dialect in &DIALECTS {
                let grammar = |tools: &Tools| {
                    let lark = lark(tools, &frame(dialect), tokenizer).unwrap();
                    Grammar::new(vocabulary.clone(), &Form::Lark(lark)).unwrap()
                };
                let one = dialect.write(&[call("f", json!({ "a": "x \"y\"", "n": 7, "b": true, "l": ["y", "x"] }))]);
                let (auto, required) = (tools(Choice::Auto, dialect.is_parallel()), tools(Choice::Required, false));
                let before = if dialect.alone { "" } else { "So < it is:\n" };
                for (grammar, text) in [(grammar(&auto), format!("{before}{one}")), (grammar(&required), one.clone())] {
                    assert_eq!(allowed(&grammar, tokenizer, &text), (text.len(), true), "{}: {text}", dialect.family);
                }
                assert_eq!(allowed(&grammar(&auto), tokenizer, "Only {text}."), (12, true));
                assert!(!allowed(&grammar(&required), tokenizer, "Only").1);
                let named = grammar(&tools(Choice::Named("g".into()), false));
                let empty = dialect.write(&[call("g", json!({}))]);
                assert_eq!(allowed(&named, tokenizer, &empty), (empty.len(), true), "{}: {empty}", dialect.family);
                assert!(!allowed(&named, tokenizer, &one).1);
                let two = dialect.write(&[call("g", json!({})), call("f", json!({ "a": "" }))]);
                let may = allowed(&grammar(&auto), tokenizer, &two).1;
                assert_eq!(may, dialect.is_parallel(), "{}: {two}", dialect.family);
                assert!(!allowed(&grammar(&required), tokenizer, &two).1);
                // Spelled in letters, a mark begins no call of what is no tool.
                let spelled = format!("{before}{}", dialect.write(&[call("h", json!({}))]));
                assert!(!allowed(&grammar(&auto), tokenizer, &spelled).1, "{}: {spelled}", dialect.family);
                for bad in
                    [json!({}), json!({ "a": "", "b": 3 }), json!({ "a": "", "l": ["z"] }), json!({ "a": "", "z": 1 })]
                {
                    let bad = format!("{before}{}", dialect.write(&[call("f", bad)]));
                    assert!(!allowed(&grammar(&auto), tokenizer, &bad).1, "{}: {bad}", dialect.family);
                }
            }
        });
    }

    /// Where a family writes texts as they are, they have the pattern and the length of their schema all the same.
    #[test]
    fn texts_that_are_no_json_have_their_pattern_and_length() {
        with_tokenizer(|tokenizer| {
            let vocabulary = Vocabulary::new(tokenizer).unwrap();
            let parameters = json!({ "type": "object", "additionalProperties": false, "required": ["a", "b"], "properties": {
                "a": { "type": "string", "pattern": "^[a-c]+/\\d$", "maxLength": 5 }, "b": { "type": "string", "minLength": 2 },
            } });
            for dialect in DIALECTS.iter().chain([&GENERIC]) {
                let tools =
                    Tools { list: vec![tool("f", parameters.clone())], choice: Choice::Required, parallel: false };
                let lark = lark(&tools, &frame(dialect), tokenizer).unwrap();
                let grammar = Grammar::new(vocabulary.clone(), &Form::Lark(lark)).unwrap();
                for (a, b, may) in [
                    ("abc/7", "xy", true),
                    ("a/7", "x\n < y", true),
                    ("abcc/7", "xy", false),
                    ("d/7", "xy", false),
                    ("a/", "xy", false),
                    ("a/7", "x", false),
                ] {
                    let text = dialect.write(&[call("f", json!({ "a": a, "b": b }))]);
                    assert_eq!(allowed(&grammar, tokenizer, &text).1, may, "{}: {text}", dialect.family);
                }
            }
        });
    }

    /// Where each argument is a grammar of its own, it has the definitions that it names, and no others.
    #[test]
    fn definitions_are_copied_where_they_are_named() {
        with_tokenizer(|tokenizer| {
            let vocabulary = Vocabulary::new(tokenizer).unwrap();
            let of = |i: usize| (format!("d{i}"), json!({ "type": "string", "enum": ["x".repeat(100)] }));
            let argument = |i: usize| (format!("a{i}"), json!({ "$ref": format!("#/$defs/d{i}") }));
            let mut definitions: Map<String, Value> = (0..50).map(of).collect();
            definitions.insert("d0".into(), json!({ "items": { "$ref": "#/$defs/e" } }));
            definitions.insert("e".into(), json!({ "anyOf": [{ "$ref": "#/$defs/d0" }, { "$ref": "#/$defs/d1" }] }));
            let properties: Map<String, Value> = (0..50).map(argument).collect();
            let parameters = json!({ "type": "object", "properties": properties, "$defs": definitions });
            let tools = Tools { list: vec![tool("f", parameters)], choice: Choice::Required, parallel: false };
            for dialect in DIALECTS.iter().filter(|dialect| matches!(dialect.kind, Arguments::Python | Arguments::Xml))
            {
                let lark = lark(&tools, &frame(dialect), tokenizer).unwrap();
                assert!(lark.len() < 50 * 500, "{}: {}", dialect.family, lark.len());
                let grammar = Grammar::new(vocabulary.clone(), &Form::Lark(lark)).unwrap();
                let text = dialect.write(&[call("f", json!({ "a0": [["x".repeat(100)]] }))]);
                assert_eq!(allowed(&grammar, tokenizer, &text), (text.len(), true), "{}", dialect.family);
            }
        });
    }

    #[test]
    fn thoughts_come_first_and_are_free() {
        with_tokenizer(|tokenizer| {
            let vocabulary = Vocabulary::new(tokenizer).unwrap();
            let grammar = |choice: Choice, thinking: bool| {
                let lark = lark(&tools(choice, true), &Frame { thinking, ..frame(&GENERIC) }, tokenizer).unwrap();
                Grammar::new(vocabulary.clone(), &Form::Lark(lark)).unwrap()
            };
            let call = GENERIC.write(&[call("g", json!({}))]);
            let thought = "I may <tool_call>\n call or not</think>\n\n";
            for (choice, thinking, text, may) in [
                (Choice::Auto, false, format!("<think>{thought}Yes."), true),
                (Choice::Auto, false, format!("<think>{thought}{call}"), true),
                (Choice::Auto, true, format!("{thought}{call}"), true),
                (Choice::Auto, true, format!("{thought}Yes."), true),
                (Choice::Required, false, format!("<think>{thought}{call}"), true),
                (Choice::Required, false, call.clone(), true),
                (Choice::Required, true, format!("{thought}{call}"), true),
                (Choice::Required, true, format!("{thought}Yes."), false),
                (Choice::Required, true, call.clone(), false),
            ] {
                let found = allowed(&grammar(choice, thinking), tokenizer, &text);
                assert_eq!(found.1, may, "{text}: {found:?}");
            }
        });
    }
}
