//! A conversation and its session: messages are answered, and taken back, and what has not changed is not read again.

use std::path::Path;

use armlet::engine::{EngineError, Saved, SnapshotError};
use armlet::sample::{PENALTY_WINDOW, Sampler, SamplerConfig};
use armlet::tokenizer::Role;

use super::transcript::{Transcript, beginning, common, encode_rendered, going_on, start};
use crate::atomic_file::replace;
use crate::error::Failure;
use crate::generate::{End, Request, Said, Stats, generate};
use crate::model::{Loaded, Runner, map, saved_with};
use crate::progress::Part;
use crate::template::{Message, Template};
use crate::terminal;
use crate::token_rules::TokenRules;

/// A piece of an answer, as it comes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece<'a> {
    /// The prompt ended with `<think>`, or what the family has instead: what follows is thought.
    Thinking,
    /// So many tokens of the prompt were read, and not all.
    Read(Part),
    Text(&'a str),
    /// No more comes.
    End,
}

/// Tokens that a template may add beside those of each turn, whatever the context: public ones add up to two thousand.
const ADDED: usize = 4096;
/// Tokens that it may add to each message.
const TURN: usize = 64;

/// Takes the pieces of an answer.
pub(super) type Show<'a> = &'a mut dyn FnMut(Piece<'_>) -> Result<(), Failure>;

/// Why an answer ended, and its timings.
pub(super) type Answered = Result<(End, Stats), Failure>;

/// A conversation and its session.
pub(super) struct Conversation<'l, 's> {
    pub(super) loaded: &'l Loaded<'l>,
    pub(super) runner: Runner<'s>,
    pub(super) sampler: Sampler,
    /// The settings of the sampler.
    pub(super) sampling: SamplerConfig,
    /// What is said of the tokens of answers.
    pub(super) rules: TokenRules,
    pub(super) template: Template<'l>,
    /// The most tokens of an answer.
    pub(super) limit: usize,
    pub(super) transcript: Transcript,
    /// Where the conversation is saved.
    pub(super) file: Option<&'l Path>,
    /// Tokens that stay when older ones are evicted; `None` with a pattern that does not evict.
    pub(super) stay: Option<u64>,
    /// It starts from a prefix, whose KV cache holds the system prompt.
    pub(super) has_prefix: bool,
    /// The transcript is a file's, of which nothing was answered yet.
    pub(super) from_file: bool,
    /// How many tokens were read when an answer was cut: the last of them are the model's.
    pub(super) cut: Option<usize>,
    /// Messages were taken back whose tokens the session still has: the next one is read in their place.
    pub(super) shortened: bool,
    /// It was said that tokens are evicted.
    pub(super) told: bool,
}

impl Conversation<'_, '_> {
    /// Forgets all messages but the system prompt; returns whether there is one.
    pub(super) fn clear(&mut self) -> bool {
        (self.told, self.from_file, self.shortened) = (false, false, true);
        self.transcript.messages.retain(|m| m.role == Role::System);
        !self.transcript.messages.is_empty()
    }

    /// Starts a new conversation with this system prompt.
    pub(super) fn set_system(&mut self, text: Option<&str>) {
        (self.told, self.from_file, self.shortened) = (false, false, true);
        self.transcript.messages = text.map(|t| Message::new(Role::System, t.to_string())).into_iter().collect();
    }

    /// Restores the conversation from a file.
    pub(super) fn load(&mut self, path: &Path) -> Result<(), Failure> {
        let bytes = map(path)?;
        let Runner { engine, session, .. } = &mut self.runner;
        let extra = engine.restore(session, &bytes).map_err(|e| Failure::file(path, refusal(e, &bytes)))?;
        (self.told, self.cut, self.from_file) = (false, None, true);
        match Transcript::decode(extra).filter(|transcript| transcript.read.len() as u64 == session.position()) {
            Some(transcript) => {
                self.transcript = transcript;
                if self.file == Some(path) {
                    self.loaded.boards.keep(session.position());
                }
                self.shortened = self.transcript.messages.last().is_none_or(|m| m.role != Role::Assistant);
                Ok(())
            }
            None => {
                // Which tokens the session has now is not known: it is emptied, and the conversation that was there is read
                // again.
                let start = session.start();
                session.rewind(start)?;
                self.transcript.read.truncate(usize::try_from(start).unwrap_or(0));
                Err(Failure::file(path, "it is damaged"))
            }
        }
    }

    /// Saves the conversation to its file, if it has one.
    pub(super) fn save(&mut self) -> Result<(), Failure> {
        let Some(path) = self.file else { return Ok(()) };
        self.save_to(path)?;
        self.loaded.boards.keep(self.runner.session.position());
        Ok(())
    }

    pub(super) fn save_to(&mut self, path: &Path) -> Result<(), Failure> {
        let extra = self.transcript.encode();
        let Runner { engine, session, .. } = &mut self.runner;
        replace(path, |out| {
            let written = engine.save(session, &extra, |part| out.write_all(part));
            written.unwrap_or_else(|e| Err(std::io::Error::other(e)))
        })
    }

    /// Adds a message and lets the model answer it.
    pub(super) fn ask(&mut self, text: &str, show: Show<'_>) -> Answered {
        if text.trim().is_empty() {
            return Err(Failure::Error("the message is empty".into()));
        }
        let before = self.transcript.messages.clone();
        self.transcript.messages.push(Message::new(Role::User, text.to_string()));
        self.answer_or(before, show)
    }

    /// Drops the last answer, and generates another.
    pub(super) fn again(&mut self, show: Show<'_>) -> Answered {
        if self.transcript.messages.last().is_none_or(|m| m.role != Role::Assistant) {
            return Err(Failure::Error("there is no answer to regenerate".into()));
        }
        let before = self.transcript.messages.clone();
        self.transcript.messages.pop();
        self.answer_or(before, show)
    }

    /// The last message of the user.
    pub(super) fn last_message(&self) -> Option<&str> {
        self.transcript.messages.iter().rfind(|m| m.role == Role::User).map(|m| m.text.as_str())
    }

    /// Takes the last message of the user back, and its answer; returns it.
    pub(super) fn undo(&mut self) -> Result<String, Failure> {
        let at = self.transcript.messages.iter().rposition(|m| m.role == Role::User);
        let at = at.ok_or_else(|| Failure::Error("there is no message to take back".into()))?;
        let message = self.transcript.messages.drain(at..).next();
        self.shortened = true;
        Ok(message.map_or_else(String::new, |m| m.text))
    }

    /// Replaces the last message of the user, and lets the model answer it.
    pub(super) fn edit(&mut self, text: &str, show: Show<'_>) -> Answered {
        let before = self.transcript.messages.clone();
        self.undo()?;
        self.transcript.messages.push(Message::new(Role::User, text.to_string()));
        self.answer_or(before, show)
    }

    /// Lets the model answer the last message, and saves the conversation. Without an answer, messages are reset to
    /// `before`.
    fn answer_or(&mut self, before: Vec<Message>, show: Show<'_>) -> Answered {
        let (messages, read) = (self.transcript.messages.len(), self.transcript.read.len());
        let result = self.answer(show);
        let answered = self.transcript.messages.len() > messages;
        if answered {
            self.shortened = false;
        } else {
            self.transcript.messages = before;
            self.shortened |= self.transcript.read.len() != read;
        }
        // An answer that could not be shown to its end, because the terminal is gone, is kept.
        let saved = if answered || result.is_ok() { self.save() } else { Ok(()) };
        let result = result?;
        saved?;
        Ok(result)
    }

    /// Lets the model answer the last message. Only tokens that the session does not have yet are prefilled.
    fn answer(&mut self, show: Show<'_>) -> Answered {
        let Transcript { messages, read, began } = &self.transcript;
        let rendered = self.template.render(messages, *began)?;
        let mut tokens = encode_rendered(self.loaded, &rendered)?;
        if common(read, &tokens) < read.len()
            && let Some(longer) = going_on(self.loaded, &rendered, read, self.cut == Some(read.len()))?
        {
            tokens = longer;
        }
        self.check_length(tokens.len())?;
        let tags = self.template.tags();
        if rendered.text.trim_end().ends_with(tags.open) {
            show(Piece::Thinking)?;
        }
        // At least one token is prefilled, to have logits.
        let same = common(&self.transcript.read, &tokens).min(tokens.len().saturating_sub(1));
        // If tokens there have been evicted, the session cannot rewind: everything is prefilled again.
        let same = match self.runner.session.rewind(same as u64) {
            Ok(()) => same,
            Err(_) => self.start_over(&tokens)?,
        };
        self.transcript.read.truncate(same);
        // The penalty is on tokens that are there, not on those of an answer that was taken back.
        self.sampler.forget();
        let recent = &self.transcript.read[same.saturating_sub(PENALTY_WINDOW)..];
        recent.iter().for_each(|token| self.sampler.accept(*token));
        let mut text = String::new();
        let tokenizer = &self.loaded.model.tokenizer;
        let shown: Vec<u32> = tags.tokens.iter().filter_map(|tag| tokenizer.find(tag.as_bytes())).collect();
        let (prompt, limit) = (&tokens[same..], self.limit);
        let request = Request { prompt, limit, rules: &self.rules, shown: &shown, stop_loops: true };
        let read = &mut self.transcript.read;
        let result = generate(&mut self.runner, &mut self.sampler, request, read, |said| match said {
            Said::Read(part) => show(Piece::Read(part)),
            Said::Text(piece) => {
                text.push_str(piece);
                show(Piece::Text(piece))
            }
        });
        let nothing = match &result {
            Ok((end, _)) => *end == End::Interrupted,
            Err(_) => true,
        };
        let was_cut = !text.is_empty() && matches!(&result, Ok((end, _)) if *end != End::Stop);
        self.cut = was_cut.then_some(self.transcript.read.len());
        if !(text.is_empty() && nothing) {
            self.from_file = false;
            self.transcript.messages.push(Message::new(Role::Assistant, text));
        }
        result
    }

    /// What a file makes the model read is bounded. A template may add to the messages as much as fits the context, or a few
    /// pages (rule C6).
    ///
    /// So is a file's transcript (rule S5): a conversation is read once, and again where another
    /// template is used; what was not read yet fits the context. The last message is not the file's.
    fn check_length(&self, tokens: usize) -> Result<(), Failure> {
        let messages = &self.transcript.messages;
        let said: usize = messages.iter().map(|m| m.text.len() + TURN).sum();
        let added = tokens.saturating_sub(said);
        if added > self.runner.context.max(ADDED) {
            return Err(Failure::Error(format!(
                "the chat template adds {added} tokens to the messages, more than the context of {}; \
                 --chat-template chatml is another",
                self.runner.context
            )));
        }
        let (read, own) = (self.transcript.read.len(), messages.last().map_or(0, |m| m.text.len()));
        let most = [read, self.runner.context, own].into_iter().fold(read, usize::saturating_add);
        if !self.from_file || tokens <= most {
            return Ok(());
        }
        Err(Failure::Error(format!(
            "the saved conversation has {tokens} tokens, but its KV cache {read}: armlet did not save it so; \
             leave --session or --prefix out, or /clear it"
        )))
    }

    /// Rewinds the session to its start, or to the end of a prefix; returns how many of the tokens it then has.
    fn start_over(&mut self, tokens: &[u32]) -> Result<usize, Failure> {
        let start = self.runner.session.start();
        let same = common(&self.transcript.read, tokens);
        match usize::try_from(start) {
            Ok(at) if at <= same => {
                terminal::tell("tokens of the conversation were evicted: it is read again from its start");
                self.runner.session.rewind(start).map(|()| at).map_err(Failure::from)
            }
            _ => Err(Failure::Error("the conversation no longer starts with the prefix; leave --prefix out".into())),
        }
    }

    /// Tokens with which the conversation begins: those of its system prompt.
    pub(super) fn start_tokens(&self) -> Result<u64, Failure> {
        let Transcript { messages, began, .. } = &self.transcript;
        let Some(system) = messages.first().filter(|m| m.role == Role::System) else { return Ok(0) };
        start(self.loaded, &self.template, system, *began).map(|tokens| tokens.len() as u64)
    }

    /// Tells the template whether the model is to think; returns whether it has a switch for that.
    pub(super) fn think(&mut self, on: bool) -> Result<bool, String> {
        const SWITCH: &str = "enable_thinking";
        let before = self.template.variable(SWITCH);
        if !self.template.set(SWITCH, Some(on.into())) {
            return Ok(false);
        }
        let start = self.runner.session.start();
        if start > 0 && self.start_tokens().map_err(|_| "the template fails")? < start {
            self.template.set(SWITCH, before);
            return Err("the prefix of --prefix was made with the other setting".into());
        }
        Ok(true)
    }

    /// Tokens of the conversation that were read.
    pub(super) fn tokens_in_use(&self) -> usize {
        let Transcript { messages, read, began } = &self.transcript;
        let same = match messages.last() {
            _ if !self.shortened => return read.len(),
            None => return 0,
            Some(system) if system.role == Role::System => {
                start(self.loaded, &self.template, system, *began).map(|start| common(read, &start))
            }
            Some(_) => self.template.render(messages, *began).map(|all| beginning(self.loaded, &all, read)),
        };
        // What a template says against it is said when there is a message.
        same.unwrap_or(0)
    }

    /// Tokens of the conversation that are in the KV cache, and those that were evicted.
    pub(super) fn in_cache(&self) -> (usize, usize) {
        let used = self.tokens_in_use();
        let held = used.min(self.runner.context);
        (held, used - held)
    }

    /// Tokens that the next one does not attend to any more.
    pub(super) fn evicted(&self) -> u64 {
        let context = self.runner.context as u64;
        self.stay.map_or(0, |_| self.runner.session.position().saturating_sub(context))
    }

    /// Tokens that were evicted, the first time that there are some.
    pub(super) fn first_evicted(&mut self) -> Option<u64> {
        let evicted = Some(self.evicted()).filter(|evicted| *evicted > 0 && !self.told);
        self.told |= evicted.is_some();
        evicted
    }

    /// Says once that the ring has begun to evict.
    pub(super) fn tell_eviction(&mut self) {
        let Some(evicted) = self.first_evicted() else { return };
        let (context, stay) = (self.runner.context, self.stay.unwrap_or(0));
        let kept = if stay > 0 { format!("; the first {stay} stay") } else { String::new() };
        terminal::tell(&format!(
            "the context of {context} tokens is full: the oldest {evicted} were evicted, and more will be{kept}; \
             /clear starts a new conversation"
        ));
    }
}

/// Why a session is not restored; of one of other options, with which it would be.
fn refusal(e: EngineError, bytes: &[u8]) -> String {
    match (e, Saved::new_checked(bytes)) {
        (EngineError::Snapshot(SnapshotError::OtherShape(what)), Ok(saved)) if what.starts_with("context") => {
            format!("{e}: {}", saved_with(&saved))
        }
        _ => e.to_string(),
    }
}
