//! `armlet chat`: a conversation in the terminal, or one answer to `-p` or piped text.

use std::io::{IsTerminal, Write};

use std::path::Path;

use armlet::engine::{Config, EngineError, Pattern, Plan, Prefix};
use armlet::sample::Sampler;
use armlet::tokenizer::{EncodeOptions, Role};
use chrono::NaiveDateTime;
use rustyline::error::ReadlineError;

use crate::args::{self, Chat};
use crate::atomic_file::replace;
use crate::error::{Failure, print};
use crate::generate::{End, Stats, generate};
use crate::interrupt;
use crate::model::{
    Loaded, Runner, argument, encode_prompt, map, plan, read_stdin, session_memory, text, with_model, without_line_end,
};
use crate::sampling::sampler;
use crate::template::{Message, Template};

const HELP: &str = "/help: this; /clear: start a new conversation; /regen: regenerate the last answer; /system TEXT: new system prompt; \
                    /exit: quit; \\ at the end of a line: continue on the next; Ctrl-C: stop the answer";

pub(crate) fn run(args: &Chat) -> Result<(), Failure> {
    let one_shot = match &args.prompt {
        Some(text) => Some(argument(text)?),
        None if !std::io::stdin().is_terminal() => Some(without_line_end(read_stdin()?)),
        None => None,
    };
    if args.json && one_shot.is_none() {
        return Err(Failure::Usage("--json needs -p or piped text".into()));
    }
    let prefix = args.prefix.as_deref().map(map).transpose()?;
    with_model(&args.model, |loaded| {
        let start = match (&args.prefix, &prefix) {
            (Some(path), Some(bytes)) => {
                let fail = |e: &dyn std::fmt::Display| Failure::file(path, e);
                let prefix = Prefix::new_checked(bytes, &loaded.model).map_err(|e| fail(&e))?;
                let transcript =
                    Transcript::decode(prefix.extra()).filter(|transcript| transcript.read.len() == prefix.len());
                Some((prefix, transcript.ok_or_else(|| fail(&"its system prompt is damaged"))?))
            }
            _ => None,
        };
        let plan = plan(&loaded.model.hparams, &args.cache, start.as_ref().map(|s| &s.0))?;
        let mut memory = session_memory(&plan)?;
        let runner = Runner::with_prefix(loaded, &plan, start.as_ref().map(|s| &s.0), &mut memory)?;
        let mut chat = Conversation {
            loaded,
            runner,
            sampler: sampler(&args.sampling, loaded.file)?,
            template: Template::new(loaded.file, &loaded.model.tokenizer, &args.template)?,
            limit: args.sampling.n_predict.unwrap_or(plan.context()),
            transcript: start.map_or_else(Transcript::default, |s| s.1),
            file: args.session.as_deref(),
        };
        if let Some(text) = args.system.as_deref() {
            chat.system(Some(text));
        }
        chat.restore()?;
        interrupt::catch()?;
        match one_shot {
            Some(text) => once(&mut chat, &text, args.json),
            None => converse(&mut chat),
        }
    })
}

/// `armlet prefix`: prefills a system prompt and saves its KV cache.
pub(crate) fn prefix(args: &args::Prefix) -> Result<(), Failure> {
    let text = text(&args.text)?;
    with_model(&args.model, |loaded| {
        let template = Template::new(loaded.file, &loaded.model.tokenizer, &args.template)?;
        let system = Message { role: Role::System, text: text.trim_end_matches('\n').to_string() };
        let began = now();
        // The tokens with which all conversations with this system prompt begin.
        let tokens = |word: &str| {
            let user = Message { role: Role::User, text: word.to_string() };
            tokens(loaded, &template, &[system.clone(), user], began)
        };
        let (a, b) = (tokens("Yes.")?, tokens("42")?);
        let common = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
        let read = a[..common].to_vec();
        if read.is_empty() {
            return Err(Failure::Error("the model's chat template does not start with a system prompt".into()));
        }
        let h = &loaded.model.hparams;
        if h.window.is_some() {
            return Err(EngineError::PrefixAndWindows.into());
        }
        if common >= h.context_length {
            let most = h.context_length - 1;
            return Err(Failure::Error(format!(
                "the system prompt has {common} tokens, but at most {most} fit: shorten it"
            )));
        }
        let config = Config { context: (common + 1).min(h.context_length), sinks: common, ..args.kv.config() };
        let plan = Plan::new(h, &Config { pattern: Pattern::Sinks, ..config })?;
        let mut memory = session_memory(&plan)?;
        let mut runner = Runner::new(loaded, &plan, &mut memory)?;
        runner.eval(&read)?;
        let extra = Transcript { messages: vec![system], read, began }.encode();
        replace(&args.output, |out| {
            let written = runner.session.save_prefix(&extra, |part| out.write_all(part));
            written.unwrap_or_else(|e| Err(std::io::Error::other(e)))
        })?;
        let _ = writeln!(std::io::stderr(), "{common} tokens in {}", args.output.display());
        Ok(())
    })
}

/// A conversation as token ids.
fn tokens(
    loaded: &Loaded<'_>,
    template: &Template<'_>,
    messages: &[Message],
    began: NaiveDateTime,
) -> Result<Vec<u32>, Failure> {
    let rendered = template.render(messages, began)?;
    let options = EncodeOptions { add_special: true, parse_special: true, literal: &rendered.literal };
    encode_prompt(&loaded.model.tokenizer, &rendered.text, options)
}

/// The messages of a conversation, and the tokens of it that are in the session. Saved beside the KV cache.
struct Transcript {
    messages: Vec<Message>,
    read: Vec<u32>,
    /// The time that templates are given throughout, so that what was prefilled stays as it is.
    began: NaiveDateTime,
}

impl Default for Transcript {
    fn default() -> Self {
        Transcript { messages: Vec::new(), read: Vec::new(), began: now() }
    }
}

/// The local time.
fn now() -> NaiveDateTime {
    chrono::Local::now().naive_local()
}

impl Transcript {
    fn encode(&self) -> Vec<u8> {
        let message = |m: &Message| serde_json::json!({ "role": m.role.name(), "text": m.text });
        let messages: Vec<_> = self.messages.iter().map(message).collect();
        let began = format!("{:?}", self.began);
        serde_json::json!({ "messages": messages, "read": self.read, "began": began }).to_string().into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let message = |m: &serde_json::Value| {
            let role = [Role::System, Role::User, Role::Assistant].into_iter().find(|r| m["role"] == r.name())?;
            Some(Message { role, text: m["text"].as_str()?.to_string() })
        };
        let read = |t: &serde_json::Value| u32::try_from(t.as_u64()?).ok();
        let messages = value["messages"].as_array()?.iter().map(message).collect::<Option<_>>()?;
        let read = value["read"].as_array()?.iter().map(read).collect::<Option<_>>()?;
        let began = value["began"].as_str().map_or_else(|| Some(now()), |began| began.parse().ok())?;
        Some(Transcript { messages, read, began })
    }
}

/// A conversation and its session.
struct Conversation<'l, 's> {
    loaded: &'l Loaded<'l>,
    runner: Runner<'s>,
    sampler: Sampler,
    template: Template<'l>,
    limit: usize,
    transcript: Transcript,
    /// Where the conversation is saved.
    file: Option<&'l Path>,
}

impl Conversation<'_, '_> {
    /// Starts a new conversation with this system prompt.
    fn system(&mut self, text: Option<&str>) {
        self.transcript.messages =
            text.map(|t| Message { role: Role::System, text: t.to_string() }).into_iter().collect();
    }

    /// Restores the conversation from its file.
    fn restore(&mut self) -> Result<(), Failure> {
        let Some(path) = self.file.filter(|path| path.exists()) else { return Ok(()) };
        let bytes = map(path)?;
        let extra = self.runner.session.restore(&bytes).map_err(|e| Failure::file(path, e))?;
        let fits = |transcript: &Transcript| transcript.read.len() as u64 == self.runner.session.position();
        self.transcript = Transcript::decode(extra).filter(fits).ok_or_else(|| Failure::file(path, "it is damaged"))?;
        Ok(())
    }

    /// Saves the conversation to its file.
    fn save(&self) -> Result<(), Failure> {
        let Some(path) = self.file else { return Ok(()) };
        let extra = self.transcript.encode();
        replace(path, |out| self.runner.session.save(&extra, |part| out.write_all(part)))
    }

    /// Adds a message and lets the model answer it.
    fn ask(&mut self, text: &str, show: impl FnMut(&str) -> Result<(), Failure>) -> Result<(End, Stats), Failure> {
        if text.trim().is_empty() {
            return Err(Failure::Error("the message is empty".into()));
        }
        let before = self.transcript.messages.clone();
        self.transcript.messages.push(Message { role: Role::User, text: text.to_string() });
        self.answer_or(before, show)
    }

    /// Lets the model answer the last message, and saves the conversation. Without an answer, messages are reset to
    /// `before`.
    fn answer_or(
        &mut self,
        before: Vec<Message>,
        show: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(End, Stats), Failure> {
        let messages = self.transcript.messages.len();
        let result = self.answer(show);
        if self.transcript.messages.len() == messages {
            self.transcript.messages = before;
        }
        let result = result?;
        self.save()?;
        Ok(result)
    }

    /// Lets the model answer the last message. Only tokens that the session does not have yet are prefilled.
    fn answer(&mut self, mut show: impl FnMut(&str) -> Result<(), Failure>) -> Result<(End, Stats), Failure> {
        let tokens = tokens(self.loaded, &self.template, &self.transcript.messages, self.transcript.began)?;
        let common = self.transcript.read.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        // At least one token is prefilled, to have logits.
        let common = common.min(tokens.len().saturating_sub(1));
        // If tokens there have been evicted, the session cannot rewind: everything is prefilled again.
        let common = match self.runner.session.rewind(common as u64) {
            Ok(()) => common,
            Err(_) => self.start_over(&tokens)?,
        };
        self.transcript.read.truncate(common);
        let mut text = String::new();
        let result = generate(
            self.loaded,
            &mut self.runner,
            &mut self.sampler,
            &tokens[common..],
            self.limit,
            &mut self.transcript.read,
            |piece| {
                text.push_str(piece);
                show(piece)
            },
        )?;
        if !(text.is_empty() && result.0 == End::Interrupted) {
            self.transcript.messages.push(Message { role: Role::Assistant, text });
        }
        Ok(result)
    }

    /// Rewinds the session to its start, or to the end of a prefix; returns how many of the tokens it then has.
    fn start_over(&mut self, tokens: &[u32]) -> Result<usize, Failure> {
        let start = self.runner.session.start();
        let common = self.transcript.read.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        match usize::try_from(start) {
            Ok(at) if at <= common => self.runner.session.rewind(start).map(|()| at).map_err(Failure::from),
            _ => Err(Failure::Error("the conversation no longer starts with the prefix; leave --prefix out".into())),
        }
    }

    /// Drops the last answer, and generates another.
    fn again(&mut self, show: impl FnMut(&str) -> Result<(), Failure>) -> Result<(End, Stats), Failure> {
        if self.transcript.messages.last().is_none_or(|m| m.role != Role::Assistant) {
            return Err(Failure::Error("there is no answer to regenerate".into()));
        }
        let before = self.transcript.messages.clone();
        self.transcript.messages.pop();
        self.answer_or(before, show)
    }
}

/// One question, one answer, on stdout.
fn once(chat: &mut Conversation<'_, '_>, text: &str, json: bool) -> Result<(), Failure> {
    let show = |piece: &str| if json { Ok(()) } else { print(piece.as_bytes()) };
    let (end, stats) = chat.ask(text, show)?;
    if json {
        let answer = chat.transcript.messages.last().map_or("", |m| &m.text);
        let object = serde_json::json!({ "text": answer, "stop": end.name(), "timings": stats.json() });
        print(format!("{object}\n").as_bytes())?;
    } else {
        print(b"\n")?;
    }
    stats.report(log::log_enabled!(log::Level::Info));
    if end == End::Interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

/// Answers messages from the terminal until the user quits.
fn converse(chat: &mut Conversation<'_, '_>) -> Result<(), Failure> {
    let fail = |e: ReadlineError| Failure::new("cannot read the terminal", e);
    let mut editor = rustyline::DefaultEditor::new().map_err(fail)?;
    let _ = writeln!(std::io::stderr(), "{}\n/help for commands, Ctrl-D to quit", chat.loaded.path.display());
    loop {
        let line = match read_message(&mut editor) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                let _ = writeln!(std::io::stderr(), "Ctrl-D or /exit to quit");
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(fail(e)),
        };
        // An error of the line history is no reason to stop.
        let _ = editor.add_history_entry(&line);
        match command(chat, line.trim()) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // These errors are about one message; the conversation goes on.
            Err(failure @ Failure::Error(_)) => drop(failure.report()),
            Err(failure) => return Err(failure),
        }
    }
}

/// A line, or several joined by a `\` at their ends.
fn read_message(editor: &mut rustyline::DefaultEditor) -> Result<String, ReadlineError> {
    let mut text = editor.readline("> ")?;
    while text.ends_with('\\') {
        text.pop();
        text.push('\n');
        text += &editor.readline(". ")?;
    }
    Ok(text)
}

/// Executes one line; returns false to quit.
fn command(chat: &mut Conversation<'_, '_>, line: &str) -> Result<bool, Failure> {
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match name {
        "" => {}
        "/exit" | "/quit" | "/bye" => return Ok(false),
        "/help" | "/?" => {
            let _ = writeln!(std::io::stderr(), "{HELP}");
        }
        "/clear" => chat.transcript.messages.retain(|m| m.role == Role::System),
        "/system" => chat.system(Some(argument.trim()).filter(|t| !t.is_empty())),
        "/regen" => reply(chat, |chat, show| chat.again(show))?,
        unknown if unknown.starts_with('/') => {
            return Err(Failure::Error(format!("{unknown} is not a command; /help lists them")));
        }
        _ => reply(chat, |chat, show| chat.ask(line, show))?,
    }
    Ok(true)
}

/// Prints an answer as it comes, and its timings.
fn reply(
    chat: &mut Conversation<'_, '_>,
    ask: impl FnOnce(
        &mut Conversation<'_, '_>,
        &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(End, Stats), Failure>,
) -> Result<(), Failure> {
    // Ignore a Ctrl-C that came between two answers.
    interrupt::take();
    let (end, stats) = ask(chat, &mut |piece| print(piece.as_bytes()))?;
    print(b"\n")?;
    if end == End::ContextFull {
        let _ = writeln!(
            std::io::stderr(),
            "the context is full: /clear starts a new conversation; or restart with a larger -c"
        );
    }
    stats.report(false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A template that tells the date sees the same one when a conversation goes on the next day.
    #[test]
    fn the_time_of_a_conversation_is_saved() {
        let transcript =
            Transcript { read: vec![7], began: "2026-07-06T05:04:03.002001".parse().unwrap(), ..Default::default() };
        let saved = Transcript::decode(&transcript.encode()).unwrap();
        assert_eq!((saved.began, saved.read), (transcript.began, vec![7]));
        assert!(Transcript::decode(br#"{"messages":[],"read":[1]}"#).is_some());
        assert!(Transcript::decode(br#"{"messages":[],"read":[1],"began":"x"}"#).is_none());
    }
}
