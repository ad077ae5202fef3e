//! `armlet chat`: a conversation in the terminal, or one answer for `-p` or piped text.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;

use armlet::sample::Sampler;
use armlet::tokenizer::{EncodeOptions, Role};
use rustyline::error::ReadlineError;

use crate::args::Chat;
use crate::failure::{Failure, print};
use crate::generate::{End, INTERRUPTED, Stats, catch_interrupts, generate, sampler};
use crate::load::{Loaded, Reader, argument, encode, plan, read_stdin, session_memory, with_model};
use crate::template::{Message, Template};

const HELP: &str = "/help this, /clear forget the conversation, /regen answer again, /system TEXT new instructions, \
                    /exit leave; end a line in \\ to go on in the next; Ctrl-C stops an answer";

pub(crate) fn run(args: &Chat) -> Result<(), Failure> {
    let one_shot = match &args.prompt {
        Some(text) => Some(argument(text)?),
        None if !std::io::stdin().is_terminal() => Some(read_stdin()?),
        None => None,
    };
    if args.json && one_shot.is_none() {
        return Err(Failure::Usage("--json is for -p or piped text".into()));
    }
    with_model(&args.model, |loaded| {
        let plan = plan(&loaded.model.hparams, &args.cache)?;
        let mut memory = session_memory(&plan)?;
        let reader = Reader::new(loaded, &plan, &mut memory)?;
        let mut chat = Conversation {
            loaded,
            reader,
            sampler: sampler(&args.sampling),
            template: Template::new(loaded.file, &loaded.model.tokenizer)?,
            limit: args.sampling.n_predict.unwrap_or(usize::MAX),
            messages: Vec::new(),
            read: Vec::new(),
        };
        chat.system(args.system.as_deref());
        catch_interrupts()?;
        match one_shot {
            Some(text) => once(&mut chat, &text, args.json),
            None => converse(&mut chat),
        }
    })
}

/// A conversation and the session that has read it.
struct Conversation<'l, 's> {
    loaded: &'l Loaded<'l>,
    reader: Reader<'s>,
    sampler: Sampler,
    template: Template<'l>,
    limit: usize,
    messages: Vec<Message>,
    /// The tokens that the session has read.
    read: Vec<u32>,
}

impl Conversation<'_, '_> {
    /// Starts anew with these instructions.
    fn system(&mut self, text: Option<&str>) {
        self.messages = text.map(|t| Message { role: Role::System, text: t.to_string() }).into_iter().collect();
    }

    /// Adds a message and lets the model answer it.
    fn ask(&mut self, text: &str, show: impl FnMut(&str) -> Result<(), Failure>) -> Result<(End, Stats), Failure> {
        if text.trim().is_empty() {
            return Err(Failure::Error("the message is empty; say something".into()));
        }
        self.messages.push(Message { role: Role::User, text: text.to_string() });
        let result = self.answer(show);
        if result.is_err() {
            self.messages.pop();
        }
        result
    }

    /// Lets the model answer the last message. What the session has read already is not read again.
    fn answer(&mut self, mut show: impl FnMut(&str) -> Result<(), Failure>) -> Result<(End, Stats), Failure> {
        let rendered = self.template.render(&self.messages)?;
        let options = EncodeOptions { add_special: true, parse_special: true, literal: &rendered.literal };
        let tokens = encode(&self.loaded.model.tokenizer, &rendered.text, options)?;
        let common = self.read.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        // At least one token is read, to have logits.
        let common = common.min(tokens.len().saturating_sub(1));
        self.read.truncate(common);
        self.reader.session.rewind(common);
        let mut text = String::new();
        let result = generate(
            self.loaded,
            &mut self.reader,
            &mut self.sampler,
            &tokens[common..],
            self.limit,
            &mut self.read,
            |piece| {
                text.push_str(piece);
                show(piece)
            },
        )?;
        if text.is_empty() && result.0 == End::Interrupted {
            // Nothing was said: as if nothing had been asked.
            self.messages.pop();
        } else {
            self.messages.push(Message { role: Role::Assistant, text });
        }
        Ok(result)
    }

    /// Takes back the last answer, and answers again.
    fn again(&mut self, show: impl FnMut(&str) -> Result<(), Failure>) -> Result<(End, Stats), Failure> {
        if self.messages.last().is_none_or(|m| m.role != Role::Assistant) {
            return Err(Failure::Error("there is no answer to do again".into()));
        }
        let old = self.messages.pop();
        let result = self.answer(show);
        if result.is_err() {
            self.messages.extend(old);
        }
        result
    }
}

/// One question, one answer, on stdout.
fn once(chat: &mut Conversation<'_, '_>, text: &str, json: bool) -> Result<(), Failure> {
    let show = |piece: &str| if json { Ok(()) } else { print(piece.as_bytes()) };
    let (end, stats) = chat.ask(text, show)?;
    if json {
        let answer = chat.messages.last().map_or("", |m| &m.text);
        let object = serde_json::json!({ "text": answer, "stop": end.name(), "timings": stats.json() });
        print(format!("{object}\n").as_bytes())?;
    } else {
        print(b"\n")?;
    }
    stats.report(log::log_enabled!(log::Level::Info));
    if end == End::Interrupted { Err(Failure::Interrupted) } else { Ok(()) }
}

/// Questions from the terminal until the person leaves.
fn converse(chat: &mut Conversation<'_, '_>) -> Result<(), Failure> {
    let fail = |e: ReadlineError| Failure::new("cannot read the terminal", e);
    let mut editor = rustyline::DefaultEditor::new().map_err(fail)?;
    let _ = writeln!(std::io::stderr(), "{}\n/help for commands, Ctrl-D to leave", chat.loaded.path.display());
    loop {
        let line = match read_message(&mut editor) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                let _ = writeln!(std::io::stderr(), "Ctrl-D or /exit to leave");
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(fail(e)),
        };
        // A history that cannot be kept is no reason to stop.
        let _ = editor.add_history_entry(&line);
        match command(chat, line.trim()) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // The conversation goes on after what can be mended by another line.
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

/// Carries out one line; false to leave.
fn command(chat: &mut Conversation<'_, '_>, line: &str) -> Result<bool, Failure> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match name {
        "" => {}
        "/exit" | "/quit" | "/bye" => return Ok(false),
        "/help" | "/?" => {
            let _ = writeln!(std::io::stderr(), "{HELP}");
        }
        "/clear" => chat.messages.retain(|m| m.role == Role::System),
        "/system" => chat.system(Some(rest.trim()).filter(|t| !t.is_empty())),
        "/regen" => reply(chat, |chat, show| chat.again(show))?,
        unknown if unknown.starts_with('/') => {
            return Err(Failure::Error(format!("{unknown} is no command; /help lists them")));
        }
        _ => reply(chat, |chat, show| chat.ask(line, show))?,
    }
    Ok(true)
}

/// Shows an answer and what it took.
fn reply(
    chat: &mut Conversation<'_, '_>,
    ask: impl FnOnce(
        &mut Conversation<'_, '_>,
        &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(End, Stats), Failure>,
) -> Result<(), Failure> {
    // A Ctrl-C that came between two answers was meant for neither.
    INTERRUPTED.store(false, Ordering::SeqCst);
    let (end, stats) = ask(chat, &mut |piece| print(piece.as_bytes()))?;
    print(b"\n")?;
    if end == End::ContextFull {
        let _ = writeln!(std::io::stderr(), "the context is full: /clear to start anew, or a larger -c");
    }
    stats.report(false);
    Ok(())
}
