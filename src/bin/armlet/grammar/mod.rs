//! Structured output: answers that a JSON schema or a grammar allows, and no others.
//!
//! llguidance (<https://github.com/guidance-ai/llguidance>) says which tokens may follow; here are the vocabulary as it wants it,
//! GBNF in the language that it reads, and a [`Constraint`] for each answer.

#[cfg(feature = "serve")]
mod arguments;
mod bounds;
#[cfg(feature = "serve")]
pub(crate) mod calls;
#[cfg(feature = "serve")]
mod count;
mod expansion;
mod gbnf;
#[cfg(feature = "serve")]
mod gemma;
mod kinds;
#[cfg(feature = "serve")]
mod lenient;
#[cfg(feature = "serve")]
mod patterns;
mod schema;
mod trouble;
mod vocabulary;
mod writer;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;

use armlet::tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, SimpleVob, TokEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value};

use crate::args;
use crate::error::Failure;
use crate::model::read_file;
#[cfg(feature = "serve")]
pub(crate) use lenient::lenient;
pub(crate) use trouble::Trouble;

/// The longest schema or grammar, in bytes.
const LONGEST: usize = 1 << 20;

/// The stack on which a schema or a grammar is read: its rules are followed one within the other.
pub(crate) const STACK: usize = 64 << 20;
/// The most states of the automaton of an answer's words, which take a KiB or two each, and the most symbols of its grammar, which
/// has room for 65,525.
const STATES: usize = 16_384;
const SYMBOLS: usize = 40_000;
/// The most places of the grammar at which an answer is at a time: four for each property that may be next.
const PLACES: usize = 8192;
/// The most of them that are looked at for what may follow, over all tokens.
const LOOKED_AT: usize = 50_000;

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

/// What an option gives, or the text of the file that it names; - is stdin.
fn given_or_file(given: &str, is_text: impl Fn(&str) -> bool, option: &str) -> Result<String, Failure> {
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
        let limits = factory.quiet().limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = STATES;
        limits.max_grammar_size = SYMBOLS;
        limits.max_items_in_row = PLACES;
        limits.step_max_items = LOOKED_AT;
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
            Form::Schema(schema) => {
                bounds::Bounds::default().add(schema)?;
                TopLevelGrammar::from_json_schema(compact(schema)?)
            }
            Form::Gbnf(text) => TopLevelGrammar::from_lark(gbnf::to_lark(text)?),
            #[cfg(feature = "serve")]
            Form::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
        };
        Ok(Grammar { vocabulary, grammar })
    }

    /// For the next answer.
    ///
    /// # Errors
    /// What is wrong with the schema or the grammar, or that no answer would do; or that there is no room for it now.
    pub(crate) fn start(&self) -> Result<Constraint, Trouble> {
        deep(|| self.start_here())
    }

    fn start_here(&self) -> Result<Constraint, Trouble> {
        let mut matcher = Matcher::new(self.vocabulary.0.create_parser(self.grammar.clone()));
        if let Some(error) = matcher.get_error() {
            return Err(Trouble::at_start(&error));
        }
        Ok(Constraint {
            mask: RefCell::new(Some(matcher.compute_mask().map_err(|e| Trouble::at_start(&e.to_string()))?)),
            trie: matcher.tok_env().map_err(|e| Trouble::Failed(e.to_string()))?,
            matcher: RefCell::new(matcher),
            asked: Cell::new(0),
            trouble: RefCell::new(None),
        })
    }
}

/// Runs on a stack of its own, where what is followed has room.
fn deep<T: Send>(f: impl FnOnce() -> Result<T, Trouble> + Send) -> Result<T, Trouble> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("grammar".into()).stack_size(STACK).spawn_scoped(scope, f);
        let thread = thread.map_err(|e| Trouble::Busy(format!("cannot start a thread for a grammar: {e}")))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
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

/// Tokens that are looked at one by one before all are: the likeliest is often enough, and a mask is of the whole vocabulary.
const ONE_BY_ONE: usize = 8;

/// What may follow in one answer.
pub(crate) struct Constraint {
    matcher: RefCell<Matcher>,
    trie: TokEnv,
    /// Of all tokens, once it is needed.
    mask: RefCell<Option<SimpleVob>>,
    /// Tokens that were looked at.
    asked: Cell<usize>,
    /// Why there is no mask.
    trouble: RefCell<Option<Trouble>>,
}

impl Constraint {
    /// Whether a token may follow.
    pub(crate) fn allows(&self, tokenizer: &Tokenizer<'_>, token: u32) -> bool {
        let is_end = tokenizer.is_end(token);
        let token = if is_end { vocabulary::end(tokenizer).unwrap_or(token) } else { token };
        let mut mask = self.mask.borrow_mut();
        if self.trouble.borrow().is_some() {
            return false;
        }
        if mask.is_none() {
            self.asked.set(self.asked.get() + 1);
            if self.asked.get() <= ONE_BY_ONE {
                return self.allows_alone(token);
            }
            match self.matcher.borrow_mut().compute_mask() {
                Ok(all) => *mask = Some(all),
                Err(e) => drop(self.trouble.replace(Some(Trouble::within(&e.to_string())))),
            }
        }
        mask.as_ref().is_some_and(|mask| mask.is_allowed(token))
    }

    fn allows_alone(&self, token: u32) -> bool {
        let mut matcher = self.matcher.borrow_mut();
        // A token without bytes would change nothing.
        !self.trie.tok_trie().token(token).is_empty() && matcher.validate_tokens(&[token]).is_ok_and(|valid| valid == 1)
    }

    /// Whether it could be said what may follow, after it was asked.
    ///
    /// # Errors
    /// Why not: the answer cannot go on.
    pub(crate) fn check(&self) -> Result<(), Trouble> {
        self.trouble.borrow().clone().map_or(Ok(()), Err)
    }

    /// Takes the next token of the answer.
    ///
    /// # Errors
    /// Which limit that would exceed.
    pub(crate) fn accept(&mut self, token: u32) -> Result<(), Trouble> {
        self.matcher.get_mut().consume_token(token).map_err(|e| Trouble::within(&e.to_string()))?;
        self.mask.replace(None);
        self.asked.set(0);
        Ok(())
    }

    /// Whether the answer is complete, and nothing may follow.
    pub(crate) fn is_complete(&self) -> bool {
        self.matcher.borrow().is_stopped()
    }

    /// Whether the answer may end here.
    pub(crate) fn may_end(&mut self) -> bool {
        let matcher = self.matcher.get_mut();
        matcher.is_stopped() || matcher.is_accepting().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::with_tokenizer;

    /// A token that is looked at alone is allowed where the mask has it, and nowhere else.
    #[test]
    fn one_by_one_as_all_at_once() {
        with_tokenizer(|tokenizer| {
            let vocabulary = Vocabulary::new(tokenizer).unwrap();
            let schema = serde_json::json!({ "type": "object", "required": ["a", "n"], "properties": {
                "a": { "type": "string", "maxLength": 9 }, "n": { "type": "number" }, "l": { "type": "array", "items": { "enum": ["x", 7] } },
            } });
            let gbnf = "root ::= [a-z\\n]{1,40} | \"\u{e9}\" [^a] root";
            let forms = [Form::Schema(schema), Form::Gbnf(gbnf.into())].into_iter();
            #[cfg(feature = "serve")]
            let forms = forms.chain(std::iter::once(Form::Lark(
                "start: TAIL | lead \"x\"\nlead[lazy]: /(.|\\n)*<t>/\nTAIL: /(.|\\n)*/ & ~/(.|\\n)*<t>(.|\\n)*/".into(),
            )));
            let mut state = 9u64;
            for form in forms {
                let grammar = Grammar::new(vocabulary.clone(), &form).unwrap();
                let mut constraint = grammar.start().unwrap();
                for step in 0..40 {
                    if constraint.is_complete() {
                        break;
                    }
                    let mask = constraint.matcher.get_mut().compute_mask().unwrap();
                    let all: Vec<u32> = (0..tokenizer.len() as u32).collect();
                    let alone: Vec<bool> = all.iter().map(|token| constraint.allows_alone(*token)).collect();
                    let masked: Vec<bool> = all.iter().map(|token| mask.is_allowed(*token)).collect();
                    assert!(alone == masked, "{form:?}: step {step}");
                    let allowed: Vec<u32> =
                        all.into_iter().filter(|t| masked[*t as usize] && !tokenizer.is_end(*t)).collect();
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let Some(token) = allowed.get((state >> 33) as usize % allowed.len().max(1)) else { break };
                    constraint.accept(*token).unwrap();
                }
            }
        });
    }
}
