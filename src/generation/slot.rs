//! Where a scheduler keeps a request: a slot with a session, and a place in the queue.

use super::speculation::{Ahead, Lookup, Speculation};
use crate::engine::{Engine, EngineError, Session};
use crate::storage::Executor;
use crate::util::SliceExt;

/// What a slot does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing: its tokens are those of earlier requests.
    Free,
    /// Its prompt is being read.
    Reading,
    /// The next token of its answer is to be read.
    Decoding(u32),
}

/// A session, and the tokens that it has read or is to read.
pub struct Slot<'s> {
    session: Session<'s>,
    /// The first of them, as many as there is room for.
    tokens: &'s mut [u32],
    len: usize,
    /// How many of these the session has read.
    read: usize,
    /// How many of these it has read in the passes of a prompt.
    prefilled: usize,
    /// What the last pass has read beyond them, of which nothing counts as read before the answer has it.
    ahead: Ahead,
    state: State,
    request: u64,
    /// The ticket of its request, or when it became free.
    since: u64,
    /// How many tokens of prompts shall have been read when its own is.
    due: u64,
}

impl<'s> Slot<'s> {
    /// A free slot. `tokens` is room for the tokens of a conversation: what a prompt has at most. A session with a shared prefix
    /// comes with the tokens of that, and is new: `None` if it has not read just these, or there is no room for them.
    pub fn new(session: Session<'s>, tokens: &'s mut [u32], prefix: &[u32]) -> Option<Self> {
        let len = prefix.len();
        if session.position() != len as u64 || session.start() != len as u64 {
            return None;
        }
        tokens.get_mut(..len)?.copy_from_slice(prefix);
        let (read, prefilled, ahead) = (len, len, Ahead::NONE);
        Some(Slot { session, tokens, len, read, prefilled, ahead, state: State::Free, request: 0, since: 0, due: 0 })
    }

    /// The most tokens of a prompt.
    pub(super) fn most_tokens(&self) -> usize {
        let limit = self.session.position().saturating_add(self.session.remaining());
        self.tokens.len().min(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn request(&self) -> Option<u64> {
        (self.state != State::Free).then_some(self.request)
    }

    pub(super) fn since(&self) -> u64 {
        self.since
    }

    pub(super) fn due(&self) -> u64 {
        self.due
    }

    /// Its prompt may wait as long as it takes itself, from now on, when so many tokens of prompts were read.
    pub(super) fn set_due(&mut self, read: u64) {
        self.due = read + self.unread().len() as u64;
    }

    pub(super) fn session(&self) -> &Session<'s> {
        &self.session
    }

    pub(super) fn session_mut(&mut self) -> &mut Session<'s> {
        &mut self.session
    }

    /// Tokens that the session has read.
    pub(super) fn read(&self) -> usize {
        self.read
    }

    pub(super) fn unread(&self) -> &[u32] {
        self.tokens.part(self.read..self.len)
    }

    pub(super) fn session_and_unread(&mut self) -> (&mut Session<'s>, &[u32]) {
        (&mut self.session, self.tokens.part(self.read..self.len))
    }

    /// Tokens of a shared prefix.
    pub(super) fn prefix(&self) -> &[u32] {
        let start = usize::try_from(self.session.start()).unwrap_or(usize::MAX);
        self.tokens.first_n(start.min(self.len))
    }

    /// Whether a prompt goes on from the shared prefix, if there is one.
    pub(super) fn can_start(&self, prompt: &[u32]) -> bool {
        prompt.len() > self.prefix().len() && prompt.starts_with(self.prefix())
    }

    /// How many of a prompt's first tokens the session has read.
    pub(super) fn common(&self, prompt: &[u32]) -> usize {
        prompt.iter().zip(self.tokens.first_n(self.read)).take_while(|(a, b)| a == b).count()
    }

    /// Starts a request: what the session has of its prompt stays, but for the last token, whose logits are needed. `exact` says
    /// that tokens must have been read in passes that start where those of this prompt will, of so many. Returns how many stay.
    pub(super) fn start(&mut self, request: u64, ticket: u64, prompt: &[u32], exact: Option<usize>) -> usize {
        let mut keep = self.common(prompt).min(prompt.len().saturating_sub(1));
        let start = self.prefix().len();
        if let Some(chunk) = exact {
            keep = keep.min(self.prefilled);
            keep -= keep.saturating_sub(start).checked_rem(chunk).unwrap_or(0);
        }
        keep = keep.max(start);
        if self.session.rewind(keep as u64).is_err() {
            // Tokens there have been evicted: all is read again.
            keep = start;
            // The start can always be rewound to.
            let _ = self.session.rewind(keep as u64);
        }
        let n = prompt.len().min(self.tokens.len());
        self.tokens.first_n_mut(n).copy_from_slice(prompt.first_n(n));
        (self.len, self.read, self.prefilled) = (n, keep, keep.min(self.prefilled));
        (self.state, self.request, self.since) = (State::Reading, request, ticket);
        self.ahead = Ahead::NONE;
        keep
    }

    /// The session has read the next `n` tokens of the prompt.
    pub(super) fn has_read_prompt(&mut self, n: usize) {
        if self.prefilled == self.read {
            self.prefilled += n;
        }
        self.read += n;
    }

    /// Has the session read `token`, the answer's last, and at most `most` tokens that are likely to follow it, or finds that the
    /// last pass has done so; returns the row of the logits behind it.
    pub(super) fn read_ahead(
        &mut self,
        engine: &mut Engine<'_>,
        exec: &dyn Executor,
        token: u32,
        (speculation, most): (&mut Speculation, usize),
    ) -> Result<usize, EngineError> {
        // Beyond the room, the end of the conversation is not known.
        let known = if self.read as u64 == self.session.position() { self.read } else { 0 };
        let mut lookup = Lookup { speculation, tokens: self.tokens.first_n(known) };
        self.ahead.read(engine, exec, &mut self.session, token, Some(&mut lookup), most)?;
        Ok(self.ahead.row())
    }

    /// The session has read a token of the answer; beyond the room, it is not kept.
    pub(super) fn has_read_answer(&mut self, token: &[u32]) {
        if self.read == self.len && self.len < self.tokens.len() {
            self.tokens.part_mut(self.len..self.len + 1).copy_from_slice(token);
            self.len += 1;
            self.read += 1;
        }
    }

    /// `token` is to be read next.
    pub(super) fn decode(&mut self, token: u32) {
        self.state = State::Decoding(token);
    }

    /// The request has ended; the session keeps what it has.
    pub(super) fn release(&mut self, now: u64) {
        (self.state, self.since, self.len) = (State::Free, now, self.read);
    }
}

/// A place in the queue: room for the tokens of a prompt.
pub struct Place<'s> {
    tokens: &'s mut [u32],
    len: usize,
    request: u64,
    /// 0 if it is free.
    ticket: u64,
}

impl<'s> Place<'s> {
    /// A free place, with room for the tokens of a prompt.
    pub fn new(tokens: &'s mut [u32]) -> Self {
        Place { tokens, len: 0, request: 0, ticket: 0 }
    }

    pub(super) fn is_free(&self) -> bool {
        self.ticket == 0
    }

    pub(super) fn most_tokens(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    pub(super) fn request(&self) -> Option<u64> {
        (self.ticket > 0).then_some(self.request)
    }

    pub(super) fn tokens(&self) -> &[u32] {
        self.tokens.first_n(self.len)
    }

    pub(super) fn set(&mut self, request: u64, ticket: u64, prompt: &[u32]) {
        self.tokens.first_n_mut(prompt.len()).copy_from_slice(prompt);
        (self.len, self.request, self.ticket) = (prompt.len(), request, ticket);
    }

    pub(super) fn clear(&mut self) {
        self.ticket = 0;
    }
}
