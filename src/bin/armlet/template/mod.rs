//! Renders a conversation with a Jinja chat template, or with a built-in chat format.
//!
//! Templates are untrusted: they are rendered in a process with limits. What a person writes makes no control tokens.

#[cfg(feature = "serve")]
mod abilities;
mod engine;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod golden;
mod json;
pub(crate) mod renderer;
mod stand_ins;
#[cfg(feature = "serve")]
mod tools;

use std::cell::Cell;

use armlet::gguf::{File, Value};
use armlet::tokenizer::{ChatFormat, Role, Tokenizer, Turn};
use chrono::NaiveDateTime;
use serde_json::{Map, Value as Json, json};

use crate::args;
use crate::error::Failure;
use crate::model::{read_bytes, read_stdin};
use crate::thinking::Tags;
#[cfg(feature = "serve")]
use crate::tools::Call;
use engine::Job;
use renderer::Renderer;
pub(crate) use stand_ins::Rendered;
use stand_ins::{Spellings, StandIns};

/// The largest template, in bytes.
const TEMPLATE_CAP: usize = 256 << 10;
const KEY: &str = "tokenizer.chat_template";

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) text: String,
    #[cfg(feature = "serve")]
    pub(crate) part: Part,
}

/// What a message has to do with tools.
#[cfg(feature = "serve")]
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Part {
    #[default]
    Text,
    /// Behind its text, the model called these.
    Calls(Vec<Call>),
    /// It is the result of the call with this id, of the tool of this name; not of a person, whatever its role.
    Result { id: String, name: String },
}

impl Message {
    /// A message that is only text.
    pub(crate) fn new(role: Role, text: String) -> Self {
        Message {
            role,
            text,
            #[cfg(feature = "serve")]
            part: Part::Text,
        }
    }
}

/// How a conversation is rendered.
pub(crate) struct Template<'m> {
    kind: Kind,
    spellings: Spellings<'m>,
    /// The built-in format that stands for the file's template where that cannot be rendered, if it may.
    instead: Option<ChatFormat>,
    /// Whether it does: from then on, so that all of a conversation has one format.
    is_instead: Cell<bool>,
    /// Once they were asked for.
    #[cfg(feature = "serve")]
    abilities: std::cell::OnceCell<abilities::Abilities>,
}

enum Kind {
    Jinja {
        /// What it is, for errors.
        name: String,
        /// A job without messages and time.
        job: Box<Job>,
        renderer: Renderer,
        /// The tokenizer adds this text, BOS, itself, so the template's must go.
        bos: Option<String>,
    },
    BuiltIn(ChatFormat),
    /// No known format: one message on each line.
    Plain,
}

impl<'m> Template<'m> {
    /// The template that the command line names; else the file's; else the built-in format whose control tokens the
    /// vocabulary has.
    pub(crate) fn new(file: &File<'_>, tokenizer: &Tokenizer<'m>, args: &args::Template) -> Result<Self, Failure> {
        let kind = match &args.chat_template {
            Some(name) => chosen(name, file, tokenizer, args)?,
            None => match file.get(KEY) {
                Some(Value::String(source)) if !source.trim_ascii().is_empty() => {
                    jinja("the model's chat template", source, tokenizer, args)?
                }
                _ => ChatFormat::detect(tokenizer).map_or(Kind::Plain, Kind::BuiltIn),
            },
        };
        if args.chat_template_kwargs.is_some() && !matches!(kind, Kind::Jinja { .. }) {
            log::warn!("--chat-template-kwargs changes nothing: the chat format is built in, and has no variables");
        }
        Ok(Template {
            kind,
            spellings: Spellings::new(tokenizer),
            instead: None,
            is_instead: Cell::new(false),
            #[cfg(feature = "serve")]
            abilities: std::cell::OnceCell::new(),
        })
    }

    /// Lets the built-in format whose control tokens the vocabulary has stand for the file's own template, where the system lets
    /// no process be made that renders it. One that was chosen, or has variables that were, is used or refused.
    pub(crate) fn or_built_in(mut self, tokenizer: &Tokenizer<'_>, args: &args::Template) -> Self {
        let is_the_files = args.chat_template.is_none() && args.chat_template_kwargs.is_none();
        self.instead = ChatFormat::detect(tokenizer).filter(|_| is_the_files);
        self
    }

    /// The value of a variable of the template.
    pub(crate) fn variable(&self, name: &str) -> Option<Json> {
        match &self.kind {
            Kind::Jinja { job, .. } => job.variables.get(name).cloned(),
            _ => None,
        }
    }

    /// Sets a variable of the template, or removes it; returns whether the template uses it.
    pub(crate) fn set(&mut self, name: &str, value: Option<Json>) -> bool {
        match &mut self.kind {
            Kind::Jinja { job, .. } if !self.is_instead.get() && job.template.contains(name) => {
                self.instead = None;
                match value {
                    Some(value) => job.variables.insert(name.into(), value),
                    None => job.variables.shift_remove(name),
                };
                true
            }
            _ => false,
        }
    }

    /// The text of the template, if it is no built-in format.
    pub(crate) fn source(&self) -> Option<&str> {
        match &self.kind {
            Kind::Jinja { job, .. } => Some(&job.template),
            _ => None,
        }
    }

    /// What the model's thoughts are between.
    pub(crate) fn tags(&self) -> Tags {
        self.source().map_or_else(Tags::default, Tags::of)
    }

    /// Tries again what took too much before.
    #[cfg(feature = "serve")]
    pub(crate) fn forget_refusal(&self) {
        if let Kind::Jinja { renderer, .. } = &self.kind {
            renderer.forget_refusal();
        }
    }

    /// Renders the conversation and the start of an answer.
    ///
    /// `began` is the time of `strftime_now`.
    pub(crate) fn render(&self, messages: &[Message], began: NaiveDateTime) -> Result<Rendered, Failure> {
        let mut texts: Vec<String> = messages.iter().map(|m| m.text.clone()).collect();
        let stand_ins = self.stand_ins(&mut texts);
        let message = |(m, text): (&Message, &String)| json!({ "role": m.role.name(), "content": text });
        self.print(messages.iter().zip(&texts).map(message).collect(), Map::new(), began, &stand_ins)
    }

    /// Replaces what would make control tokens in texts that a template is given.
    fn stand_ins(&self, texts: &mut [String]) -> StandIns {
        let others = match &self.kind {
            Kind::Jinja { job, .. } => vec![job.template.clone(), Json::from(job.variables.clone()).to_string()],
            _ => Vec::new(),
        };
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        StandIns::put(&self.spellings, texts, &others)
    }

    /// The text of messages as a template has them, with more variables.
    fn print(
        &self,
        messages: Vec<Json>,
        more: Map<String, Json>,
        began: NaiveDateTime,
        stand_ins: &StandIns,
    ) -> Result<Rendered, Failure> {
        let turns = || messages.iter().map(turn);
        let text = match &self.kind {
            Kind::Jinja { name, job, renderer, bos } => {
                if let Some(format) = self.without_process(name, renderer)? {
                    return Ok(stand_ins.take(&written(format, &messages)));
                }
                let mut job = Job { messages, now: began, stand_ins: stand_ins.chars(), ..Job::clone(job) };
                job.variables.extend(more);
                let text = renderer.render(&job).map_err(|why| Failure::new(name, why))?;
                match bos.as_ref().and_then(|bos| text.strip_prefix(bos.as_str())) {
                    Some(tail) => tail.to_string(),
                    None => text,
                }
            }
            Kind::BuiltIn(format) => written(*format, &messages),
            Kind::Plain => turns().map(|t| format!("{}\n", t.text)).collect(),
        };
        Ok(stand_ins.take(&text))
    }

    /// The built-in format, where it stands for a template that cannot be rendered.
    fn without_process(&self, name: &str, renderer: &Renderer) -> Result<Option<ChatFormat>, Failure> {
        if self.is_instead.get() {
            return Ok(self.instead);
        }
        let Err(e) = renderer.start() else { return Ok(None) };
        let why = format!("cannot start the process that renders it: {e}");
        if self.instead.is_none() {
            return Err(Failure::new(name, why));
        }
        log::warn!("{name}: {why}; the built-in format is used instead");
        self.is_instead.set(true);
        Ok(self.instead)
    }
}

/// Messages in a built-in format.
fn written(format: ChatFormat, messages: &[Json]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = format.write(&messages.iter().map(turn).collect::<Vec<_>>(), &mut text);
    text
}

/// A message as the built-in formats have it.
fn turn(message: &Json) -> Turn<'_> {
    let roles = [Role::System, Role::Assistant];
    let role = roles.into_iter().find(|role| message["role"] == role.name()).unwrap_or(Role::User);
    Turn { role, text: message["content"].as_str().unwrap_or_default() }
}

/// The template of `--chat-template`: a built-in format, another of the file's templates, or a file of its own.
fn chosen(
    name: &std::ffi::OsStr,
    file: &File<'_>,
    tokenizer: &Tokenizer<'_>,
    args: &args::Template,
) -> Result<Kind, Failure> {
    let known = name.to_str().unwrap_or_default();
    if let Some((_, format)) = FORMATS.iter().find(|(name, _)| *name == known) {
        return Ok(Kind::BuiltIn(*format));
    }
    if let Some(Value::String(source)) = file.get(&format!("{KEY}.{known}")) {
        return jinja(&format!("the model's chat template {known}"), source, tokenizer, args);
    }
    let path = std::path::Path::new(name);
    if known == "-" {
        return jinja("stdin", read_stdin()?.as_bytes(), tokenizer, args);
    }
    if !path.exists() {
        let formats = FORMATS.map(|(name, _)| name).join(", ");
        return Err(Failure::Usage(format!("--chat-template {known:?} is not a file, and not one of {formats}")));
    }
    let source = read_bytes(path)?;
    jinja(&path.display().to_string(), &source, tokenizer, args)
}

fn jinja(name: &str, source: &[u8], tokenizer: &Tokenizer<'_>, args: &args::Template) -> Result<Kind, Failure> {
    if source.len() > TEMPLATE_CAP {
        return Err(Failure::new(name, "it is longer than 256 KiB"));
    }
    let template = std::str::from_utf8(source).map_err(|_| Failure::new(name, "it is not UTF-8"))?.to_string();
    let text = |token: Option<u32>| token.map(|t| String::from_utf8_lossy(tokenizer.text(t)).into_owned());
    let (bos, eos) = (text(tokenizer.bos()), text(tokenizer.eos()));
    let mut variables = Map::new();
    variables.insert("tools".into(), Json::Null);
    variables.insert("documents".into(), Json::Null);
    variables.insert("add_generation_prompt".into(), true.into());
    variables.extend(bos.clone().map(|bos| ("bos_token".to_string(), bos.into())));
    variables.extend(eos.map(|eos| ("eos_token".to_string(), eos.into())));
    variables.extend(args.chat_template_kwargs.clone().unwrap_or_default());
    Ok(Kind::Jinja {
        name: name.to_string(),
        job: Box::new(Job {
            template,
            messages: Vec::new(),
            variables,
            now: NaiveDateTime::default(),
            stand_ins: String::new(),
        }),
        renderer: Renderer::default(),
        bos: bos.filter(|_| tokenizer.adds_bos()),
    })
}

/// Names of the built-in formats, llama.cpp's where it has them.
const FORMATS: [(&str, ChatFormat); 12] = [
    ("chatml", ChatFormat::ChatMl),
    ("lfm2", ChatFormat::ChatMl),
    ("llama3", ChatFormat::Llama3),
    ("gemma", ChatFormat::Gemma),
    ("gemma4", ChatFormat::Gemma4),
    ("phi3", ChatFormat::Phi3),
    ("phi4", ChatFormat::Phi4),
    ("phi4-mini", ChatFormat::Phi4Mini),
    ("mistral-v7-tekken", ChatFormat::Mistral),
    ("zephyr", ChatFormat::Zephyr),
    ("granite", ChatFormat::Granite),
    ("smollm3", ChatFormat::SmolLm3),
];
