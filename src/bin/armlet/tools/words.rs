//! Arguments in the words of Python or of Gemma, turned into JSON character by character.
//!
//! Whatever comes, what has been written is the beginning of a JSON object, and all of one at the end.

use std::mem::take;

use serde_json::Value;

use super::dialect::{Arguments, GEMMAS_QUOTE as GEMMAS};

/// What is expected in a list or an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// In an object: a name, or the end.
    Key,
    /// What goes with a name.
    Colon,
    Value,
    /// A comma, or the end.
    Comma,
}

/// A list or an object that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    is_object: bool,
    want: Want,
    /// Something is in it.
    filled: bool,
}

#[derive(Clone, Debug)]
enum Place {
    /// Between values, or in a word.
    Word(String),
    /// In a text that ends with this, of which the part has come.
    Text(&'static str, String),
    /// Behind a backslash in such a text.
    Escape(&'static str, String),
}

/// Arguments, of which the opening parenthesis has been read.
#[derive(Clone, Debug)]
pub(super) struct Words {
    kind: Arguments,
    open: Vec<Open>,
    place: Place,
}

impl Words {
    pub(super) fn new(kind: Arguments, out: &mut String) -> Self {
        out.push('{');
        Words {
            kind,
            open: vec![Open { is_object: true, want: Want::Key, filled: false }],
            place: Place::Word(String::new()),
        }
    }

    /// Takes a character, and writes what it makes; returns whether it was the last.
    pub(super) fn push(&mut self, c: char, out: &mut String) -> bool {
        match &mut self.place {
            Place::Word(word) => {
                word.push(c);
                if let Some(quote) = self.quote() {
                    self.place = Place::Text(quote, String::new());
                    self.before_value(out, true);
                    out.push('"');
                } else if "=:,()[]{}".contains(c) {
                    return self.delimit(c, out);
                }
            }
            Place::Text(quote, part) => {
                let quote = *quote;
                part.push(c);
                if part == quote {
                    out.push('"');
                    self.place = Place::Word(String::new());
                    self.behind_value(true);
                } else if *part == "\\" && quote != GEMMAS {
                    self.place = Place::Escape(quote, String::new());
                } else {
                    // What is not the beginning of the end is text.
                    while !quote.starts_with(part.as_str()) {
                        write_text(part.remove(0), out);
                    }
                }
            }
            Place::Escape(quote, escape) => {
                escape.push(c);
                if let Some(text) = unescaped(escape) {
                    *out += &text;
                    self.place = Place::Text(quote, String::new());
                }
            }
        }
        false
    }

    /// Whether a text begins with what has come.
    fn quote(&mut self) -> Option<&'static str> {
        let Place::Word(word) = &self.place else { return None };
        let quotes: &[&'static str] = if self.kind == Arguments::Gemma { &[GEMMAS, "\""] } else { &["\"", "'"] };
        quotes.iter().find(|quote| word.trim_start() == **quote).copied()
    }

    /// A word ends with this character; whether that ends all.
    fn delimit(&mut self, c: char, out: &mut String) -> bool {
        let Place::Word(word) = &mut self.place else { return false };
        let word = take(word);
        let word = word.strip_suffix(c).unwrap_or(&word).trim();
        if !word.is_empty() {
            self.word(word, c, out);
        }
        let Some(top) = self.open.last_mut() else { return true };
        match c {
            '=' | ':' => {
                if top.want == Want::Colon {
                    top.want = Want::Value;
                    *out += ": ";
                }
            }
            ',' => self.end_item(out),
            '(' | '[' | '{' => {
                self.before_value(out, false);
                let is_object = c == '{';
                out.push(if is_object { '{' } else { '[' });
                let want = if is_object { Want::Key } else { Want::Value };
                self.open.push(Open { is_object, want, filled: false });
            }
            _ => {
                self.end_item(out);
                out.push(if self.open.pop().is_some_and(|open| open.is_object) { '}' } else { ']' });
                self.behind_value(false);
            }
        }
        self.open.is_empty()
    }

    /// A word that is no text: a name, a number, a constant; anything else is as good as a text.
    fn word(&mut self, word: &str, behind: char, out: &mut String) {
        self.before_value(out, true);
        let is_key = self.open.last().is_some_and(|open| open.want == Want::Key);
        let constant = match word {
            "True" | "true" => Some("true".into()),
            "False" | "false" => Some("false".into()),
            "None" | "null" => Some("null".into()),
            other => other.parse::<serde_json::Number>().ok().map(|_| other.to_string()),
        };
        match constant.filter(|_| !is_key && behind != '=') {
            Some(constant) => *out += &constant,
            None => *out += &Value::from(word).to_string(),
        }
        self.behind_value(true);
    }

    /// What has to stand before a value, or before a name if it can be one.
    fn before_value(&mut self, out: &mut String, can_be_name: bool) {
        let Some(top) = self.open.last_mut() else { return };
        if top.want == Want::Comma {
            top.want = if top.is_object { Want::Key } else { Want::Value };
        }
        if top.filled && (top.want == Want::Key || !top.is_object) {
            *out += ", ";
        }
        match top.want {
            Want::Key if !can_be_name => *out += "\"\": ",
            Want::Colon => *out += ": ",
            _ => {}
        }
        if top.want == Want::Key && !can_be_name || top.want == Want::Colon {
            top.want = Want::Value;
        }
        top.filled = true;
    }

    fn behind_value(&mut self, can_be_name: bool) {
        if let Some(top) = self.open.last_mut() {
            top.want = if top.want == Want::Key && can_be_name { Want::Colon } else { Want::Comma };
        }
    }

    /// An item ends, which may lack its value.
    fn end_item(&mut self, out: &mut String) {
        let Some(top) = self.open.last_mut() else { return };
        match top.want {
            Want::Colon => *out += ": null",
            Want::Value if top.is_object => *out += "null",
            _ => {}
        }
        top.want = if top.is_object { Want::Key } else { Want::Value };
    }
}

/// A character within a JSON string.
fn write_text(c: char, out: &mut String) {
    let quoted = Value::from(c.to_string()).to_string();
    *out += quoted.get(1..quoted.len() - 1).unwrap_or_default();
}

/// What an escape of Python is in a JSON string, once it is complete.
fn unescaped(escape: &str) -> Option<String> {
    let mut out = String::new();
    let kind = escape.chars().next()?;
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        '\n' => return Some(out),
        'n' | 't' | 'r' | 'b' | 'f' | '\\' | '"' => return Some(format!("\\{kind}")),
        '\'' => return Some("'".into()),
        '/' => return Some("/".into()),
        other => {
            write_text('\\', &mut out);
            write_text(other, &mut out);
            return Some(out);
        }
    };
    let rest = &escape[1..];
    if rest.len() < digits && rest.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    // In JSON's words, a character beyond 16 bits is two of them.
    let half = rest.get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok());
    if kind == 'u' && half.is_some_and(|half| (0xd800..0xdc00).contains(&half)) {
        let (pair, form) = (rest.get(4..).unwrap_or_default(), "\\uxxxx");
        let fits = pair.chars().zip(form.chars()).all(|(c, want)| c == want || want == 'x' && c.is_ascii_hexdigit());
        if fits && pair.len() < form.len() {
            return None;
        }
        if fits && let Ok(Value::String(text)) = serde_json::from_str(&format!("\"\\{escape}\"")) {
            text.chars().for_each(|c| write_text(c, &mut out));
            return Some(out);
        }
    }
    let c = u32::from_str_radix(rest, 16).ok().and_then(char::from_u32);
    match c {
        Some(c) => write_text(c, &mut out),
        None => format!("\\{escape}").chars().for_each(|c| write_text(c, &mut out)),
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(kind: Arguments, text: &str) -> (String, String) {
        let mut out = String::new();
        let mut words = Words::new(kind, &mut out);
        let end =
            text.char_indices().find(|(_, c)| words.push(*c, &mut out)).map_or(text.len(), |(at, c)| at + c.len_utf8());
        (out, text[end..].into())
    }

    #[test]
    fn words_become_json() {
        for (kind, text, expected) in [
            (
                Arguments::Python,
                r#"a="x, \"y\"\n(", b=[1, -2.5, True, None], c={'k': 'it\'s', "l": (1, 2)},)z"#,
                r#"{"a": "x, \"y\"\n(", "b": [1, -2.5, true, null], "c": {"k": "it's", "l": [1, 2]}}"#,
            ),
            (Arguments::Python, ")z", "{}"),
            (Arguments::Python, r#"a="\ud83d\ude00\/",b="\ud83d x")z"#, r#"{"a": "😀/", "b": "\\ud83d x"}"#),
            (Arguments::Python, r#"a = "\x41\u00e9\q" , b=word one)z"#, r#"{"a": "Aé\\q", "b": "word one"}"#),
            (Arguments::Python, r#""alone", 3)z"#, r#"{"alone": null, "3": null}"#),
            (
                Arguments::Gemma,
                r#"a:<|"|>x "y" \n <|" }<|"|>,b:[1,true,<|"|>z<|"|>],c:{d:null,<|"|>e f<|"|>:{}}}z"#,
                r#"{"a": "x \"y\" \\n <|\" }", "b": [1, true, "z"], "c": {"d": null, "e f": {}}}"#,
            ),
            (Arguments::Gemma, "a:1,b:,c}z", r#"{"a": 1, "b": null, "c": null}"#),
            (Arguments::Gemma, "a:007,b:1e5}z", r#"{"a": "007", "b": 1e5}"#),
        ] {
            assert_eq!(json(kind, text), (expected.into(), "z".into()), "{text}");
            serde_json::from_str::<Value>(expected).unwrap();
        }
    }

    /// Whatever comes, the brackets of it make whole JSON.
    #[test]
    fn all_that_ends_is_json() {
        let parts = [
            "a", "=", ":", ",", "(", ")", "[", "]", "{", "}", "\"", "'", "<|\"|>", "\\", "1", " ", "True", "x41", "é",
            "<|",
        ];
        let mut state = 1u64;
        let mut ended = 0;
        for i in 0..20_000 {
            let kind = [Arguments::Python, Arguments::Gemma][i % 2];
            let mut text = String::new();
            for _ in 0..1 + i % 17 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text += parts[(state >> 33) as usize % parts.len()];
            }
            let mut out = String::new();
            let mut words = Words::new(kind, &mut out);
            if text.chars().any(|c| words.push(c, &mut out)) {
                ended += 1;
                let value = serde_json::from_str::<Value>(&out).unwrap_or_else(|e| panic!("{text}: {out}: {e}"));
                assert!(value.is_object());
            }
        }
        assert!(ended > 1000, "{ended}");
    }
}
