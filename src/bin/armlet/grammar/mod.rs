//! Structured output: answers that a JSON schema or a grammar allows, and no others.
//!
//! llguidance (<https://github.com/guidance-ai/llguidance>) says which tokens may follow; here are the vocabulary as it wants it,
//! GBNF in the language that it reads, and a [`Constraint`] for each answer.

#[cfg(feature = "serve")]
pub(crate) mod calls;
mod gbnf;
mod vocabulary;

use std::path::Path;
use std::sync::Arc;

use armlet::tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, SimpleVob};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value};

use crate::args;
use crate::error::Failure;
use crate::model::read_file;

/// The longest schema or grammar, in bytes.
const LONGEST: usize = 1 << 20;

/// What an answer may be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    /// A document that a JSON schema allows.
    Schema(Value),
    /// A text of a GBNF grammar.
    Gbnf(String),
    /// A text of a grammar in llguidance's own language.
    #[cfg(feature = "serve")]
    Lark(String),
}

/// The vocabulary of a model, ready for forms.
#[derive(Clone)]
pub(crate) struct Vocabulary(Arc<ParserFactory>);

/// A form, ready for a vocabulary.
#[derive(Clone)]
pub(crate) struct Grammar {
    vocabulary: Vocabulary,
    grammar: TopLevelGrammar,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.grammar.fmt(f)
    }
}

/// What the options say.
pub(crate) fn form(args: &args::Sampling) -> Result<Option<Form>, Failure> {
    match (&args.json_schema, &args.grammar) {
        (Some(given), _) => {
            let text = given_or_file(given, |text| text.trim_start().starts_with('{'), "--json-schema")?;
            let schema = serde_json::from_str(&text).map_err(|e| Failure::new("--json-schema", e))?;
            Ok(Some(Form::Schema(schema)))
        }
        (None, Some(given)) => Ok(Some(Form::Gbnf(given_or_file(given, |text| text.contains("::="), "--grammar")?))),
        (None, None) => Ok(None),
    }
}

/// What an option gives, or the text of the file that it names.
fn given_or_file(given: &str, is_text: impl Fn(&str) -> bool, option: &str) -> Result<String, Failure> {
    if given == "-" {
        return Err(Failure::Usage(format!("{option}: give a file; the text comes from stdin")));
    }
    let is_file = Path::new(given).exists();
    let text = if is_text(given) && !is_file { given.to_string() } else { read_file(Path::new(given))? };
    match text.len() {
        0..=LONGEST => Ok(text),
        n => Err(Failure::new(option, format!("{n} bytes, more than {LONGEST}"))),
    }
}

impl Vocabulary {
    /// Builds it, which takes some hundredths of a second.
    pub(crate) fn new(tokenizer: &Tokenizer<'_>) -> Result<Self, String> {
        let slices = SlicedBiasComputer::json_slices();
        let factory = ParserFactory::new(&vocabulary::of(tokenizer)?, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|e| e.to_string())?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Vocabulary(Arc::new(factory)))
    }
}

impl Grammar {
    /// Translates a form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(vocabulary: Vocabulary, form: &Form) -> Result<Self, String> {
        let grammar = match form {
            Form::Schema(schema) => TopLevelGrammar::from_json_schema(compact(schema)?),
            Form::Gbnf(text) => TopLevelGrammar::from_lark(gbnf::to_lark(text)?),
            #[cfg(feature = "serve")]
            Form::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
        };
        Ok(Grammar { vocabulary, grammar })
    }

    /// For the next answer.
    ///
    /// # Errors
    /// What is wrong with the schema or the grammar, or that no answer would do.
    pub(crate) fn start(&self) -> Result<Constraint, String> {
        let mut matcher = Matcher::new(self.vocabulary.0.create_parser(self.grammar.clone()));
        match matcher.get_error() {
            Some(error) => Err(error),
            None => Ok(Constraint { mask: matcher.compute_mask().map_err(|e| e.to_string())?, matcher }),
        }
    }
}

/// A schema without choices of white space, in which a small model loses itself.
fn compact(schema: &Value) -> Result<Value, String> {
    let mut schema = match schema {
        Value::Object(object) => object.clone(),
        Value::Bool(true) => Map::new(),
        _ => return Err("a JSON schema is an object".into()),
    };
    let spaces = serde_json::json!({ "item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false });
    schema.entry("x-guidance").or_insert(spaces);
    Ok(Value::Object(schema))
}

/// What may follow in one answer.
pub(crate) struct Constraint {
    matcher: Matcher,
    mask: SimpleVob,
}

impl Constraint {
    /// Whether a token may follow.
    pub(crate) fn allows(&self, tokenizer: &Tokenizer<'_>, token: u32) -> bool {
        let is_end = tokenizer.is_end(token);
        self.mask.is_allowed(if is_end { vocabulary::end(tokenizer).unwrap_or(token) } else { token })
    }

    /// Takes the next token of the answer.
    pub(crate) fn accept(&mut self, token: u32) -> Result<(), String> {
        self.matcher.consume_token(token).map_err(|e| e.to_string())?;
        if !self.matcher.is_stopped() {
            self.mask = self.matcher.compute_mask().map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Whether the answer is complete, and nothing may follow.
    pub(crate) fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }

    /// Whether the answer may end here.
    pub(crate) fn may_end(&mut self) -> bool {
        self.matcher.is_stopped() || self.matcher.is_accepting().unwrap_or(false)
    }
}
