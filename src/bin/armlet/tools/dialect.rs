//! How each family of models writes calls.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{Call, Tool};

/// What Gemma quotes texts with.
pub(crate) const GEMMAS_QUOTE: &str = "<|\"|>";

/// How the arguments of a call are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// A JSON object.
    Json,
    /// `name="text", other=[1, True]`, as in Python.
    Python,
    /// `name:<|"|>text<|"|>,other:[1,true]`, with names in the order of the alphabet.
    Gemma,
    /// An element `<parameter=name>` for each, with its text in lines of its own.
    Xml,
}

/// How a family writes calls: sections with `gap` between them, of which each is
/// `open`, calls with `between` between them, `close`; and a call is `name`, its name, `arguments`, its arguments, `end`.
#[derive(Debug)]
pub(crate) struct Dialect {
    pub(crate) family: &'static str,
    /// A template that has all of these texts is of it.
    known_by: &'static [&'static str],
    /// What begins a section, at most as much as is always there; its text begins with the first, which a model may spell in
    /// other ways, too.
    pub(crate) marks: &'static [&'static str],
    /// A call is all of an answer: its mark counts only at the start, and is a part of the call.
    pub(crate) alone: bool,
    pub(crate) open: &'static str,
    pub(crate) name: &'static str,
    pub(crate) arguments: &'static str,
    pub(crate) kind: Arguments,
    pub(crate) end: &'static str,
    /// Between calls of a section, of which there is one; else each call has its own.
    pub(crate) between: Option<&'static str>,
    /// Between sections; else there is one.
    pub(crate) gap: Option<&'static str>,
    pub(crate) close: &'static str,
    /// Behind the arguments there is an `id` of nine letters.
    pub(crate) has_ids: bool,
    /// Texts of these that may be control tokens.
    pub(crate) tokens: &'static [&'static str],
}

const HERMES: Dialect = Dialect {
    family: "Hermes",
    known_by: &["<tool_call>\n{\"name\": "],
    marks: &["<tool_call>"],
    alone: false,
    open: "<tool_call>\n",
    name: "{\"name\": \"",
    arguments: "\", \"arguments\": ",
    kind: Arguments::Json,
    end: "}",
    between: None,
    gap: Some("\n"),
    close: "\n</tool_call>",
    has_ids: false,
    tokens: &["<tool_call>", "</tool_call>"],
};

/// How a model is told to call whose template has no tools.
pub(crate) static GENERIC: Dialect = Dialect { family: "generic", known_by: &[], ..HERMES };

/// All families, the more particular ones first.
pub(crate) static DIALECTS: [Dialect; 9] = [
    Dialect {
        family: "Gemma 4",
        known_by: &["<|tool_call>call:"],
        marks: &["<|tool_call>"],
        open: "<|tool_call>",
        name: "call:",
        arguments: "{",
        kind: Arguments::Gemma,
        end: "}",
        gap: Some(""),
        close: "<tool_call|>",
        tokens: &["<|tool_call>", "<tool_call|>", "<|\"|>"],
        ..HERMES
    },
    Dialect {
        family: "Qwen3-Coder, Qwen3.5",
        known_by: &["<tool_call>", "<function=", "<parameter="],
        name: "<function=",
        arguments: ">\n",
        kind: Arguments::Xml,
        end: "</function>",
        ..HERMES
    },
    Dialect {
        family: "Mistral, since 2025",
        known_by: &["[TOOL_CALLS]", "[ARGS]"],
        marks: &["[TOOL_CALLS]"],
        open: "[TOOL_CALLS]",
        name: "",
        arguments: "[ARGS]",
        end: "",
        gap: Some(""),
        close: "",
        tokens: &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
        ..HERMES
    },
    Dialect {
        family: "Mistral",
        known_by: &["[TOOL_CALLS]"],
        marks: &["[TOOL_CALLS]"],
        open: "[TOOL_CALLS][",
        between: Some(", "),
        gap: None,
        close: "]",
        has_ids: true,
        tokens: &["[TOOL_CALLS]"],
        ..HERMES
    },
    Dialect {
        family: "LFM2",
        known_by: &["List of tools: "],
        marks: &["<|tool_call_start|>"],
        open: "<|tool_call_start|>[",
        name: "",
        arguments: "(",
        kind: Arguments::Python,
        end: ")",
        between: Some(", "),
        gap: None,
        close: "]<|tool_call_end|>",
        tokens: &["<|tool_call_start|>", "<|tool_call_end|>"],
        ..HERMES
    },
    Dialect {
        family: "Phi-4-mini",
        known_by: &["<|tool|>"],
        marks: &["<|tool_call|>"],
        open: "<|tool_call|>[",
        between: Some(", "),
        gap: None,
        close: "]<|/tool_call|>",
        tokens: &["<|tool_call|>", "<|/tool_call|>"],
        ..HERMES
    },
    Dialect {
        family: "Granite 3",
        known_by: &["<|start_of_role|>", "<|tool_call|>"],
        marks: &["<|tool_call|>", "<tool_call>"],
        open: "<|tool_call|>[",
        between: Some(", "),
        gap: None,
        close: "]",
        tokens: &["<|tool_call|>"],
        ..HERMES
    },
    Dialect {
        family: "Llama 3",
        known_by: &["<|start_header_id|>", "\"parameters\": "],
        marks: &["{\"name\": \"", "<|python_tag|>"],
        alone: true,
        open: "",
        arguments: "\", \"parameters\": ",
        gap: None,
        close: "",
        tokens: &["<|python_tag|>"],
        ..HERMES
    },
    HERMES,
];

impl Dialect {
    /// The dialect of a template that has tools, if it is of a known family.
    pub(crate) fn of(template: &str) -> Option<&'static Dialect> {
        // Within texts of a template, quotes and line ends may be escaped.
        let template = template.replace("\\n", "\n").replace('\\', "");
        DIALECTS.iter().find(|dialect| dialect.known_by.iter().all(|text| template.contains(text)))
    }

    /// Whether an answer may have several calls.
    pub(crate) fn is_parallel(&self) -> bool {
        self.between.is_some() || self.gap.is_some()
    }

    /// Calls as a model of this family writes them.
    pub(crate) fn write(&self, calls: &[Call]) -> String {
        let mut out = String::from(self.open);
        for (i, call) in calls.iter().enumerate() {
            match (i, self.between, self.gap) {
                (0, ..) => {}
                (_, Some(between), _) => out += between,
                (_, None, gap) => out.extend([self.close, gap.unwrap_or("\n"), self.open]),
            }
            out.extend([self.name, &call.name, self.arguments]);
            self.write_arguments(&call.arguments, &mut out);
            if self.has_ids {
                // Writing to a String cannot fail.
                let _ = write!(out, ", \"id\": {}", Value::from(call.id.as_str()));
            }
            out += self.end;
        }
        out + self.close
    }

    fn write_arguments(&self, arguments: &Map<String, Value>, out: &mut String) {
        let mut each = |between: &str, f: &mut dyn FnMut(&String, &Value, &mut String)| {
            for (i, (name, value)) in arguments.iter().enumerate() {
                *out += if i > 0 { between } else { "" };
                f(name, value, out);
            }
        };
        match self.kind {
            Arguments::Json => json(&Value::Object(arguments.clone()), out),
            Arguments::Python => each(", ", &mut |name, value, out| {
                out.extend([name, "="]);
                match value {
                    Value::Bool(true) => *out += "True",
                    Value::Bool(false) => *out += "False",
                    Value::Null => *out += "None",
                    other => json(other, out),
                }
            }),
            Arguments::Gemma => gemma_members(arguments, out),
            Arguments::Xml => each("", &mut |name, value, out| {
                let mut text = String::new();
                match value.as_str() {
                    Some(plain) => text += plain,
                    None => json(value, &mut text),
                }
                out.extend(["<parameter=", name, ">\n", &text, "\n</parameter>\n"]);
            }),
        }
    }
}

/// A value in Gemma's words.
fn gemma(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => out.extend([GEMMAS_QUOTE, text, GEMMAS_QUOTE]),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                *out += if i > 0 { "," } else { "" };
                gemma(item, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            gemma_members(object, out);
            out.push('}');
        }
        other => *out += &other.to_string(),
    }
}

fn gemma_members(object: &Map<String, Value>, out: &mut String) {
    let mut members: Vec<(&String, &Value)> = object.iter().collect();
    members.sort_by_key(|(name, _)| *name);
    for (i, (name, value)) in members.into_iter().enumerate() {
        out.extend([if i > 0 { "," } else { "" }, name, ":"]);
        gemma(value, out);
    }
}

/// JSON with the white space that Python's `json.dumps` has, and models have learnt.
pub(crate) fn json(value: &Value, out: &mut String) {
    let mut list = |brackets: [char; 2], n: usize, item: &mut dyn FnMut(usize, &mut String)| {
        out.push(brackets[0]);
        for i in 0..n {
            *out += if i > 0 { ", " } else { "" };
            item(i, out);
        }
        out.push(brackets[1]);
    };
    match value {
        Value::Array(items) => list(['[', ']'], items.len(), &mut |i, out| json(&items[i], out)),
        Value::Object(object) => {
            let entries: Vec<(&String, &Value)> = object.iter().collect();
            list(['{', '}'], entries.len(), &mut |i, out| {
                let (name, value) = entries[i];
                *out += &Value::from(name.as_str()).to_string();
                *out += ": ";
                json(value, out);
            });
        }
        other => *out += &other.to_string(),
    }
}

/// What the system message of a model says whose template has no tools.
pub(crate) fn instructions(tools: &[Tool]) -> String {
    let mut out = String::from("You can call these functions, each given as JSON within <tools></tools>:\n<tools>");
    for tool in tools {
        out.push('\n');
        json(&tool.given, &mut out);
    }
    out + "\n</tools>\n\nTo call one, answer with a JSON object within <tool_call></tool_call>, and with one of these for each \
           call:\n<tool_call>\n{\"name\": <function's name>, \"arguments\": <object of its arguments>}\n</tool_call>\n\
           The result comes within <tool_response></tool_response>."
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marks_begin_what_is_written() {
        for dialect in &DIALECTS {
            let written = format!("{}{}", dialect.open, dialect.name);
            assert!(written.starts_with(dialect.marks[0]), "{}", dialect.family);
        }
    }

    #[test]
    fn calls_are_written_as_their_families_do() {
        let call = |name: &str, arguments: Value| Call {
            id: "abcdefghi".into(),
            name: name.into(),
            arguments: arguments.as_object().unwrap().clone(),
        };
        let calls = [call("f", json!({ "a": "x\"y", "b": [1, true] })), call("g", json!({}))];
        for (family, written) in [
            (
                "Hermes",
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"x\\\"y\", \"b\": [1, true]}}\n</tool_call>\n\
                 <tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>",
            ),
            ("LFM2", "<|tool_call_start|>[f(a=\"x\\\"y\", b=[1, true]), g()]<|tool_call_end|>"),
            (
                "Granite 3",
                "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": \"x\\\"y\", \"b\": [1, true]}}, \
                 {\"name\": \"g\", \"arguments\": {}}]",
            ),
            (
                "Mistral",
                "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": \"x\\\"y\", \"b\": [1, true]}, \"id\": \"abcdefghi\"}, \
                 {\"name\": \"g\", \"arguments\": {}, \"id\": \"abcdefghi\"}]",
            ),
            (
                "Gemma 4",
                "<|tool_call>call:f{a:<|\"|>x\"y<|\"|>,b:[1,true]}<tool_call|><|tool_call>call:g{}<tool_call|>",
            ),
            (
                "Qwen3-Coder, Qwen3.5",
                "<tool_call>\n<function=f>\n<parameter=a>\nx\"y\n</parameter>\n<parameter=b>\n[1, true]\n</parameter>\n\
                 </function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
            ),
        ] {
            let dialect = DIALECTS.iter().find(|dialect| dialect.family == family).unwrap();
            assert_eq!(dialect.write(&calls), written);
        }
    }
}
