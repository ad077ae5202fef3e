//! Renders a conversation with the file's Jinja chat template, or with a built-in chat format.
//!
//! Templates are untrusted: their size, steps and recursion are limited. Control tokens in a message must not be parsed, so
//! the byte ranges of messages in the result go to the tokenizer as literal text.

use std::ops::Range;

use armlet::gguf::{File, Value};
use armlet::tokenizer::{ChatFormat, Role, Tokenizer, Turn};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, context};

use crate::error::Failure;

/// The largest template, in bytes.
const TEMPLATE_CAP: usize = 256 << 10;
/// The most steps of the template engine: enough for every public template and a long conversation.
const FUEL: u64 = 20_000_000;
/// Marks around a message in the rendered text: private-use characters, which templates do not produce.
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) text: String,
}

/// How a conversation is rendered.
pub(crate) enum Template<'m> {
    Jinja {
        environment: Box<Environment<'m>>,
        bos: String,
        eos: String,
        /// The tokenizer adds BOS itself, so the template's must go.
        strip_bos: bool,
    },
    BuiltIn(ChatFormat),
    /// No known format: one message on each line.
    Plain,
}

/// A conversation as text.
#[derive(Debug, PartialEq)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    /// Byte ranges of the messages in `text`.
    pub(crate) literal: Vec<Range<usize>>,
}

impl<'m> Template<'m> {
    /// The file's chat template; else the built-in format whose control tokens the vocabulary has.
    pub(crate) fn new(file: &File<'m>, tokenizer: &Tokenizer<'_>) -> Result<Self, Failure> {
        let source = match file.get("tokenizer.chat_template") {
            Some(Value::String(s)) => s,
            _ => return Ok(ChatFormat::detect(tokenizer).map_or(Template::Plain, Template::BuiltIn)),
        };
        let fail = |why: &str| Failure::new("the model's chat template", why);
        if source.len() > TEMPLATE_CAP {
            return Err(fail("it is longer than 256 KiB"));
        }
        let source = std::str::from_utf8(source).map_err(|_| fail("it is not UTF-8"))?;
        let text = |token: Option<u32>| {
            token.map_or(String::new(), |t| String::from_utf8_lossy(tokenizer.text(t)).into_owned())
        };
        let environment = environment(source).map_err(|e| Failure::new("the model's chat template", e))?;
        Ok(Template::Jinja {
            environment: Box::new(environment),
            bos: text(tokenizer.bos()),
            eos: text(tokenizer.eos()),
            strip_bos: tokenizer.adds_bos(),
        })
    }

    /// Renders the conversation and the start of an answer.
    pub(crate) fn render(&self, messages: &[Message]) -> Result<Rendered, Failure> {
        let marked: Vec<Message> = messages.iter().map(mark).collect();
        let turns: Vec<_> = marked.iter().map(|m| Turn { role: m.role, text: &m.text }).collect();
        let text = match self {
            Template::Jinja { environment, bos, eos, strip_bos } => {
                let messages: Vec<_> =
                    turns.iter().map(|t| context! { role => t.role.name(), content => t.text }).collect();
                let rendered = environment.get_template("chat").and_then(|t| {
                    t.render(context! { messages, add_generation_prompt => true, bos_token => bos, eos_token => eos })
                });
                let text = rendered.map_err(|e| Failure::new("the model's chat template", e))?;
                match text.strip_prefix(bos.as_str()) {
                    Some(tail) if *strip_bos => tail.to_string(),
                    _ => text,
                }
            }
            Template::BuiltIn(format) => {
                let mut text = String::new();
                // Writing to a String cannot fail.
                let _ = format.write(&turns, &mut text);
                text
            }
            Template::Plain => turns.iter().map(|t| format!("{}\n", t.text)).collect(),
        };
        unmark(&text)
            .ok_or_else(|| Failure::Error("the model's chat template splits messages, which is not supported".into()))
    }
}

/// The Jinja environment that Hugging Face templates expect.
fn environment(source: &str) -> Result<Environment<'_>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(100);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_template("chat", source)?;
    Ok(environment)
}

/// A message with marks within its outer white space, so that a template's `trim` still works.
fn mark(message: &Message) -> Message {
    let clean: String = message.text.chars().map(|c| if c == OPEN || c == CLOSE { '\u{fffd}' } else { c }).collect();
    let inner = clean.trim();
    let start = clean.len() - clean.trim_start().len();
    let (before, after) = (&clean[..start], &clean[start + inner.len()..]);
    let text = if inner.is_empty() { clean } else { format!("{before}{OPEN}{inner}{CLOSE}{after}") };
    Message { role: message.role, text }
}

/// Removes the marks and returns the ranges between them. `None` if a template dropped one of a pair: a message could
/// then pass for text of the template.
fn unmark(marked: &str) -> Option<Rendered> {
    let mut rendered = Rendered { text: String::with_capacity(marked.len()), literal: Vec::new() };
    let mut open = None;
    for c in marked.chars() {
        match c {
            OPEN if open.is_some() => return None,
            OPEN => open = Some(rendered.text.len()),
            CLOSE => rendered.literal.push(open.take()?..rendered.text.len()),
            c => rendered.text.push(c),
        }
    }
    open.is_none().then_some(rendered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jinja(source: &str) -> Template<'_> {
        let environment = Box::new(environment(source).unwrap());
        Template::Jinja { environment, bos: "<s>".into(), eos: "</s>".into(), strip_bos: true }
    }

    fn say(text: &str) -> Vec<Message> {
        vec![Message { role: Role::User, text: text.into() }]
    }

    #[test]
    fn a_template_renders_and_knows_where_the_messages_are() {
        let t = jinja("{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m.content | trim }}{% endfor %}!");
        let r = t.render(&say("  hi <|im_end|>\n")).unwrap();
        assert_eq!(r.text, "[user]hi <|im_end|>!");
        assert_eq!(&r.text[r.literal[0].clone()], "hi <|im_end|>");
    }

    #[test]
    fn a_message_cannot_forge_a_mark() {
        let r = jinja("{{ messages[0].content }}").render(&say("a\u{e001}<b>\u{e000}c")).unwrap();
        assert_eq!((r.literal.len(), r.literal[0].clone()), (1, 0..r.text.len()));
    }

    #[test]
    fn hostile_templates_end_in_an_error() {
        for source in [
            "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{{ raise_exception('no') }}",
            "{{ messages[0].content.nothing.more }}",
        ] {
            assert!(jinja(source).render(&say("x")).is_err(), "{source}");
        }
        assert!(environment("{% for %}").is_err());
    }

    #[test]
    fn python_methods_work() {
        let r = jinja("{{ messages[0].content.replace('x', '').strip().upper() }}").render(&say("ab x")).unwrap();
        assert_eq!(r.text, "AB ");
    }

    #[test]
    fn a_template_that_cuts_a_message_cannot_lose_its_marks() {
        for cut in ["split('q')[0]", "split('q')[1]"] {
            let t = format!("{{{{ messages[0].content.{cut} }}}}");
            assert!(jinja(&t).render(&say("<|im_end|>q<|im_end|>")).is_err(), "{cut}");
        }
    }
}
