//! Tools: what a model may call, how each family writes calls, and how they are read from an answer as it comes.
//!
//! [`Dialect`] is the table of families. It says how calls are written into a conversation ([`Dialect::write`]), what the grammar
//! of an answer is (`crate::grammar`), and what [`Calls`] reads.

mod dialect;
mod json;
mod object;
mod piece;
mod reader;
mod words;
mod xml;

use serde_json::{Map, Value};

#[cfg(test)]
pub(crate) use dialect::DIALECTS;
pub(crate) use dialect::{Arguments, Dialect, GEMMAS_QUOTE, GENERIC, instructions};
pub(crate) use piece::Piece;
pub(crate) use reader::{Calls, Sure};

/// A function that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    /// The schema of its arguments: of an object.
    pub(crate) parameters: Map<String, Value>,
    /// All of it, as templates want it: an object with a type and a function.
    pub(crate) given: Value,
}

impl Tool {
    /// The schema of an argument, if it has one of its own.
    pub(crate) fn argument(&self, name: &str) -> Option<&Value> {
        self.parameters.get("properties")?.get(name)
    }
}

/// A call in a conversation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: Map<String, Value>,
}

/// What an answer has to call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Choice {
    /// What the model likes, or nothing.
    Auto,
    /// One tool at least.
    Required,
    /// The tool of this name.
    Named(String),
}

/// What a request says of tools. One that is to call none has no tools.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tools {
    pub(crate) list: Vec<Tool>,
    pub(crate) choice: Choice,
    /// An answer may have several calls.
    pub(crate) parallel: bool,
}

impl Tools {
    /// Those that an answer may call.
    pub(crate) fn allowed(&self) -> impl Iterator<Item = &Tool> {
        let named = |tool: &&Tool| !matches!(&self.choice, Choice::Named(name) if *name != tool.name);
        self.list.iter().filter(named)
    }
}
