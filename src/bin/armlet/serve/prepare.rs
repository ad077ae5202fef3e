//! The thread that makes tokens of conversations and texts, beside the engine: templates and tokenizers take their time.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use armlet::gguf::File;
use armlet::tokenizer::{EncodeOptions, Tokenizer};
use axum::http::StatusCode;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::problem::{Names, Problem};
use crate::args;
use crate::clock;
use crate::error::Failure;
use crate::grammar::calls::{Frame, lark};
use crate::grammar::{Constraint, Form, Grammar, Trouble, Vocabulary};
use crate::model::{encode, encode_prompt};
use crate::template::{Message, Part, Template};
use crate::thinking::Tags;
use crate::tools::{Calls, Choice, Sure, Tool, Tools};

/// Requests that may wait for it.
const WAITING: usize = 64;
/// The most variables of the template in a request.
const VARIABLES: usize = 64;

/// What a request starts from.
#[derive(Debug)]
pub(super) enum Source {
    /// A conversation, and variables of the template.
    Chat(Vec<Message>, Map<String, Value>),
    /// A text, whose control tokens count as such.
    Text(String),
    Tokens(Vec<u32>),
}

/// A prompt as tokens.
pub(super) struct Prompt {
    pub(super) tokens: Vec<u32>,
    /// It ended with `<think>`: what follows is thought.
    pub(super) thinking: bool,
}

/// What it works with.
pub(super) struct Preparation<'m> {
    pub(super) file: &'m File<'m>,
    pub(super) tokenizer: &'m Tokenizer<'m>,
    template: Template<'m>,
    /// For forms, once one was asked for.
    vocabulary: Option<Vocabulary>,
}

type Job = Box<dyn for<'m> FnOnce(&mut Preparation<'m>) + Send>;

/// The way to the thread, which ends when all of these are gone.
#[derive(Clone)]
pub(super) struct Handle(SyncSender<Job>);

pub(super) struct Inbox(Receiver<Job>);

pub(super) fn channel() -> (Handle, Inbox) {
    let (sender, receiver) = sync_channel(WAITING);
    (Handle(sender), Inbox(receiver))
}

impl Inbox {
    /// Runs until all handles are gone.
    pub(super) fn run(&self, preparation: &mut Preparation<'_>) {
        self.0.iter().for_each(|job| job(preparation));
    }
}

impl Handle {
    /// Has `f` run there.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        f: impl for<'m> FnOnce(&mut Preparation<'m>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |preparation| {
            // Nothing is done for who has gone.
            if !reply.is_closed() {
                let _ = reply.send(f(preparation));
            }
        });
        self.0.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => Problem::unavailable("Too many requests at once; try again later."),
            TrySendError::Disconnected(_) => Problem::unavailable("The server is about to end."),
        })?;
        result.await.unwrap_or_else(|_| Err(Problem::unavailable("The server is about to end.")))
    }
}

impl<'m> Preparation<'m> {
    pub(super) fn new(
        file: &'m File<'m>,
        tokenizer: &'m Tokenizer<'m>,
        args: &args::Template,
    ) -> Result<Self, Failure> {
        let template = Template::new(file, tokenizer, args)?;
        // With the variables of no request, and before there are any, which might have it fail.
        template.abilities();
        template.forget_refusal();
        Ok(Preparation { file, tokenizer, template, vocabulary: None })
    }

    /// The tokens that a request starts from.
    pub(super) fn prompt(&mut self, source: Source, tools: Option<&Tools>, names: Names) -> Result<Prompt, Problem> {
        match source {
            Source::Chat(messages, variables) => {
                let tools = tools.map_or(&[][..], |tools| &tools.list);
                self.chat(&messages, variables, tools)?.map_err(|why| Problem::invalid(why).of(names.prompt))
            }
            Source::Text(text) => {
                let options = EncodeOptions { add_special: true, parse_special: true, literal: &[] };
                let tokens = encode_prompt(self.tokenizer, &text, options).map_err(internal)?;
                Ok(Prompt { tokens, thinking: false })
            }
            Source::Tokens(tokens) => Ok(Prompt { tokens, thinking: false }),
        }
    }

    /// The same of a conversation, or why its template refuses it.
    fn chat(
        &mut self,
        messages: &[Message],
        variables: Map<String, Value>,
        tools: &[Tool],
    ) -> Result<Result<Prompt, String>, Problem> {
        let has_tools = !tools.is_empty() || messages.iter().any(|message| message.part != Part::Text);
        if variables.len() > VARIABLES {
            let message = format!("Invalid 'chat_template_kwargs': more than {VARIABLES} variables.");
            return Err(Problem::invalid(message).of("chat_template_kwargs"));
        }
        let before: Vec<_> = variables.keys().map(|name| (name.clone(), self.template.variable(name))).collect();
        // Who wants no thoughts gets none of a model that has none, and who wants some of one that always has.
        let thinks = self.thinks();
        let needs_nothing =
            |name: &str, value: &Value| name == "enable_thinking" && (*value == false || *value == true && thinks);
        let unused = variables
            .into_iter()
            .find(|(name, value)| !self.template.set(name, Some(value.clone())) && !needs_nothing(name, value));
        let now = clock::local();
        // What one client's conversation took too long for says nothing of another's.
        self.template.forget_refusal();
        let render = || match has_tools {
            true => self.template.render_tools(messages, tools, now),
            false => self.template.render(messages, now),
        };
        let rendered = if unused.is_none() { Some(render()) } else { None };
        for (name, value) in before {
            self.template.set(&name, value);
        }
        let Some(rendered) = rendered else {
            let (name, what) =
                (unused.map_or(String::new(), |(name, _)| name), ": the model's chat template has no such variable");
            return Err(Problem::unsupported(&format!("chat_template_kwargs.{name}"), what));
        };
        let rendered = match rendered {
            Ok(rendered) => rendered,
            Err(e) => return Ok(Err(text(e))),
        };
        let options = EncodeOptions { add_special: true, parse_special: true, literal: &rendered.literal };
        let tokens = encode_prompt(self.tokenizer, &rendered.text, options).map_err(internal)?;
        Ok(Ok(Prompt { tokens, thinking: rendered.text.trim_end().ends_with(self.tags().open) }))
    }

    /// What the model's thoughts are between.
    pub(super) fn tags(&self) -> Tags {
        self.template.tags()
    }

    /// The same, if the model may have thoughts: its template knows of them, or its vocabulary.
    fn thoughts(&self) -> Option<Tags> {
        let tags = self.tags();
        let is_known = self.template.source().is_some_and(|source| source.contains(tags.close));
        (is_known || self.tokenizer.find(tags.tokens[0].as_bytes()).is_some()).then_some(tags)
    }

    /// Whether the model may think before it answers.
    pub(super) fn thinks(&self) -> bool {
        self.thoughts().is_some() || self.template.source().is_some_and(|source| source.contains("enable_thinking"))
    }

    /// Control tokens that mark thoughts, and calls if there may be some.
    pub(super) fn marks(&self, has_calls: bool) -> Vec<u32> {
        let calls = if has_calls { self.template.abilities().dialect.tokens } else { &[] };
        let texts = calls.iter().copied().chain(self.tags().tokens);
        texts.filter_map(|text| self.tokenizer.find(text.as_bytes())).collect()
    }

    /// What keeps an answer to a form.
    pub(super) fn constraint(&mut self, form: &Form, names: Names) -> Result<Constraint, Problem> {
        self.start(form)?.map_err(|why| {
            let field = if matches!(form, Form::Gbnf(_)) { "grammar" } else { names.form };
            Problem::invalid(format!("Invalid schema for {field}: {why}")).of(field).code("invalid_value")
        })
    }

    /// The same, or why there is none.
    fn start(&mut self, form: &Form) -> Result<Result<Constraint, String>, Problem> {
        let vocabulary = match &self.vocabulary {
            Some(vocabulary) => vocabulary.clone(),
            None => self.vocabulary.insert(Vocabulary::new(self.tokenizer).map_err(Problem::internal)?).clone(),
        };
        of_form(Grammar::new(vocabulary, form).map_err(Trouble::Form).and_then(|grammar| grammar.start()))
    }

    /// What keeps an answer to tools, or to the form if it calls none; and what reads its calls.
    pub(super) fn calls(
        &mut self,
        tools: &Tools,
        form: Option<Form>,
        thinking: bool,
        names: Names,
    ) -> Result<(Constraint, Calls), Problem> {
        let document = match form {
            None => None,
            Some(Form::Schema(schema)) => Some(schema),
            Some(_) => return Err(Problem::unsupported("grammar", " with 'tools'")),
        };
        let dialect = self.template.abilities().dialect;
        let frame = Frame { dialect, tags: self.thoughts(), thinking, document };
        let parallel = tools.parallel && dialect.is_parallel();
        let tools = Tools { parallel, ..tools.clone() };
        let constraint = match self.try_calls(&tools, &frame)? {
            Ok(constraint) => constraint,
            Err(why) => return Err(self.blame(&tools, frame, &why, names)?),
        };
        let sure = match (&tools.choice, &frame.document) {
            (Choice::Required | Choice::Named(_), _) => Sure::Called,
            (Choice::Auto, None) => Sure::Begun,
            // A document may begin as a call does.
            (Choice::Auto, Some(_)) => Sure::Nothing,
        };
        Ok((constraint, Calls::new(dialect, tools.list.into()).sure(sure)))
    }

    fn try_calls(&mut self, tools: &Tools, frame: &Frame) -> Result<Result<Constraint, String>, Problem> {
        match of_form(lark(tools, frame, self.tokenizer))? {
            Ok(lark) => self.start(&Form::Lark(lark)),
            Err(why) => Ok(Err(why)),
        }
    }

    /// Which tool, or what else, has the schema for which there is no grammar.
    fn blame(&mut self, tools: &Tools, mut frame: Frame, why: &str, names: Names) -> Result<Problem, Problem> {
        let of = |field: &str, what: &str, why: &str| {
            Problem::invalid(format!("Invalid schema for {what}: {why}")).of(field).code("invalid_function_parameters")
        };
        if let Some(schema) = frame.document.take() {
            self.constraint(&Form::Schema(schema), names)?;
        }
        for (i, tool) in tools.list.iter().enumerate() {
            let alone = Tools { list: vec![tool.clone()], choice: Choice::Required, parallel: false };
            if let Err(why) = self.try_calls(&alone, &frame)? {
                let field = format!("tools[{i}].{}", names.parameters);
                return Ok(of(&field, &format!("function '{}'", tool.name), &why));
            }
        }
        Ok(of("tools", "tools", why))
    }

    /// The tokens of a text as it is.
    pub(super) fn tokenize(&self, text: &str, options: EncodeOptions<'_>) -> Result<Vec<u32>, Problem> {
        encode(self.tokenizer, text, options).map_err(internal)
    }
}

/// What there is of a form, or what is wrong with it; all else that is wrong is no fault of its.
fn of_form<T>(made: Result<T, Trouble>) -> Result<Result<T, String>, Problem> {
    match made {
        Ok(made) => Ok(Ok(made)),
        Err(Trouble::Form(why)) => Ok(Err(why)),
        Err(Trouble::Busy(why)) => Err(Problem::unavailable(&why)),
        Err(Trouble::Failed(why)) => Err(Problem::internal(why)),
    }
}

/// What failed here.
pub(super) fn internal(failure: Failure) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, text(failure))
}

fn text(failure: Failure) -> String {
    match failure {
        Failure::Error(text) | Failure::Usage(text) => text,
        Failure::Interrupted | Failure::BrokenPipe | Failure::Followed => "The request was interrupted.".into(),
    }
}
