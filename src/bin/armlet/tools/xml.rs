//! Calls as `<function=name>` with an element `<parameter=name>` for each argument.

use serde_json::Value;

use super::Tool;

const VALUE: &str = "</parameter>";

/// A call, of which the first `<` has been read.
#[derive(Clone, Debug)]
pub(super) struct Xml {
    /// What has come of a tag or a value.
    held: String,
    name: Option<String>,
    argument: Option<String>,
    first: bool,
}

/// What has become certain.
pub(super) enum Made {
    Nothing,
    Name(String),
    /// A part of the arguments' JSON.
    Arguments(String),
    /// The same, and the last.
    End(String),
    /// It is no call.
    Wrong,
}

impl Xml {
    pub(super) fn new() -> Self {
        Xml { held: "<".into(), name: None, argument: None, first: true }
    }

    pub(super) fn push(&mut self, c: char, tools: &[Tool]) -> Made {
        self.held.push(c);
        if let Some(argument) = &self.argument {
            let Some(value) = self.held.strip_suffix(VALUE) else { return Made::Nothing };
            let value = value.strip_prefix('\n').unwrap_or(value);
            let value = value.strip_suffix('\n').unwrap_or(value);
            let schema =
                tools.iter().find(|tool| Some(&tool.name) == self.name.as_ref()).and_then(|t| t.argument(argument));
            let between = if self.first { "{" } else { ", " };
            let made = format!("{between}{}: {}", Value::from(argument.as_str()), typed(value, schema));
            (self.argument, self.first) = (None, false);
            self.held.clear();
            return Made::Arguments(made);
        }
        if c != '>' {
            return Made::Nothing;
        }
        let tag = std::mem::take(&mut self.held);
        let tag = tag.trim();
        let named = |kind: &str| tag.strip_prefix(kind)?.strip_suffix('>').map(String::from);
        match (&self.name, named("<function="), named("<parameter=")) {
            (None, Some(name), _) => {
                self.name = Some(name.clone());
                Made::Name(name)
            }
            (Some(_), _, Some(argument)) => {
                self.argument = Some(argument);
                Made::Nothing
            }
            (Some(_), ..) if tag.ends_with("</function>") => Made::End(if self.first { "{}" } else { "}" }.into()),
            (Some(_), ..) => Made::Nothing,
            (None, ..) => Made::Wrong,
        }
    }
}

/// The value of a text: itself where that is what the schema wants, else what it is as JSON.
fn typed(text: &str, schema: Option<&Value>) -> Value {
    let texts = |list: &Value| list.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let is_text = schema
        .is_some_and(|schema| schema["type"] == "string" || schema["const"].is_string() || texts(&schema["enum"]));
    let word = match text.trim() {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        other => other,
    };
    match serde_json::from_str(word) {
        Ok(value) if !is_text => value,
        _ => text.into(),
    }
}
