//! Writing the rules of a grammar, whatever they are of.

use std::collections::HashMap;
use std::fmt::Write;

use armlet::tokenizer::Tokenizer;
use serde_json::{Map, Value};

use super::bounds::Bounds;
use super::gbnf::escaped;
use crate::tools::Dialect;

/// The most bytes of a grammar: definitions may be copied.
pub(super) const MOST: usize = 4 << 20;
pub(super) const TOO_LARGE: &str = "it is too large for a grammar";

/// What was made of the schemas of a tool.
#[derive(Default)]
pub(super) struct Made {
    /// By the text of schemas that hold together, the rule of their values; none if there are no such values.
    pub(super) rules: HashMap<String, Option<String>>,
    /// References that are being followed.
    pub(super) followed: Vec<String>,
    /// Values that were copied, once for each level above them.
    pub(super) copied: u64,
    /// Items and members that have a place.
    pub(super) placed: usize,
    /// What no grammar can say has no effect.
    pub(super) is_lenient: bool,
}

/// Writes rules, which have numbers for names.
pub(super) struct Writer<'w, 'm> {
    pub(super) dialect: &'static Dialect,
    pub(super) tokenizer: &'w Tokenizer<'m>,
    pub(super) rules: String,
    pub(super) n: usize,
    /// There is a rule for any value in Gemma's words.
    pub(super) any: bool,
    pub(super) gemma: Made,
    /// What the schemas take together that are JSON's.
    pub(super) bounds: Bounds,
    /// What those of tools take, whose arguments are in words of the family's own.
    pub(super) roots: Bounds,
}

impl Writer<'_, '_> {
    /// A new rule; its name.
    pub(super) fn rule(&mut self, options: &str, body: &str) -> String {
        let name = self.name();
        // Writing to a String cannot fail.
        let _ = writeln!(self.rules, "{name}{options}: {body}");
        name
    }

    /// The name of a rule that is yet to be written.
    pub(super) fn name(&mut self) -> String {
        self.n += 1;
        format!("r{}", self.n)
    }

    /// Writes it.
    pub(super) fn define(&mut self, name: &str, body: &str) -> Result<(), String> {
        let _ = writeln!(self.rules, "{name}: {body}");
        self.fits()
    }

    /// Whether there is room for more.
    pub(super) fn fits(&self) -> Result<(), String> {
        if self.rules.len() > MOST { Err(TOO_LARGE.into()) } else { Ok(()) }
    }

    /// A new terminal; its name.
    pub(super) fn terminal(&mut self, body: &str) -> String {
        self.n += 1;
        let _ = writeln!(self.rules, "T{}: {body}", self.n);
        format!("T{}", self.n)
    }
}

/// A schema that is an object.
pub(super) fn as_map(schema: &Value) -> Result<Map<String, Value>, String> {
    schema.as_object().cloned().ok_or_else(|| "a JSON schema is an object".into())
}

/// A text as a string of the grammar.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text within a regular expression.
pub(super) fn regex(text: &str) -> String {
    text.chars().map(escaped).collect()
}
