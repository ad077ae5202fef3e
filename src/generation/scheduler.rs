//! Many answers at a time, in a number of sessions that is fixed.
//!
//! ```text
//! tick:  requests that wait go to free slots, in order, each to the one that has most of its prompt already
//!        one pass reads the next token of every answer whose client takes it, and the next chunk of the prompt that is due
//! ```
//!
//! A prompt is due when as many tokens of prompts were read, since it got its slot, as it has itself: so a short one passes a long
//! one, equals are read in order, and nothing waits for ever (earliest deadline first: Liu and Layland 1973).
//!
//! So a long prompt costs others a chunk between two tokens, and no more (Sarathi: Agrawal et al. 2023, arXiv 2308.16369).
//! An answer that has the tick for itself may have what is likely to follow read in its pass ([`Clients::speculation`]).
//! Weights are read once for all of a tick, which is what many users at once gain by; their K/V are their own. Everything is the
//! caller's memory, and an answer has the bits that it has alone (`tests/it/scheduler.rs`).

use super::slot::{Place, Slot, State};
use super::speculation::{MAX_BATCH, Speculation};
use crate::engine::Engine;
use crate::model::{Caches, KvCache};
use crate::storage::Executor;
use crate::util::SliceExt;

/// Most answers that one pass decodes.
pub const MAX_ANSWERS: usize = 32;
/// Most tokens of a pass that reads a prompt beside answers.
const MAX_MIXED: usize = 512;

/// The clients of a scheduler.
pub trait Clients {
    /// Whether a request's client takes another token now. One that does not holds up nobody else. It is not asked for the first
    /// token, which comes with the end of the prompt.
    fn is_ready(&mut self, request: u64) -> bool;

    /// The token to follow, given the logits behind all that the session of a request has read, `(vocab)`; none if the answer
    /// ends. [`Generation::choose`](super::Generation::choose) gives it.
    fn next(&mut self, request: u64, logits: &[f32]) -> Option<u32>;

    /// The context is full: the answer has ended with the token before.
    fn is_full(&mut self, request: u64);

    /// What makes an answer's drafts, the same from its first token to its last, and the most tokens that it may have behind the
    /// next; none if there are to be no drafts. It is asked for where no other answer goes on, and no prompt is read. The engine
    /// is then the same in every tick.
    fn speculation(&mut self, _request: u64) -> Option<(&mut Speculation, usize)> {
        None
    }

    /// A request has got a slot, which has so many tokens of its prompt already.
    fn starts(&mut self, _request: u64, _kept: usize) {}
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many requests wait as may.
    #[error("too many requests are waiting")]
    QueueFull,
    /// No tokens.
    #[error("the prompt is empty")]
    Empty,
    /// More tokens than a slot has room for.
    #[error("the prompt has {tokens} tokens, more than {most}")]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The most.
        most: usize,
    },
    /// A token that the vocabulary does not have.
    #[error("token {0} is not in the vocabulary")]
    UnknownToken(u32),
    /// There is such a request already.
    #[error("there is a request {0} already")]
    Duplicate(u64),
    /// The slots' sessions are of another model than the engine.
    #[error("the slots belong to another model than the engine")]
    OtherModel,
    /// Every slot starts with a prefix, with which the prompt does not.
    #[error("the prompt does not start with the shared prefix")]
    OtherPrefix,
}

/// What a tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Tokens of answers that were read.
    pub decoded: usize,
    /// Tokens of a prompt that were read.
    pub prefilled: usize,
}

/// How many requests there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// In slots.
    pub running: usize,
    /// In the queue.
    pub waiting: usize,
}

/// Slots, and a queue for them.
pub struct Scheduler<'s> {
    slots: &'s mut [Slot<'s>],
    queue: &'s mut [Place<'s>],
    /// Counts requests and ends: what has the smaller number came first.
    clock: u64,
    /// Tokens of prompts that were read.
    prefilled: u64,
    /// The slot that the next pass of answers starts with, where there are more than fit one.
    first: usize,
}

impl<'s> Scheduler<'s> {
    /// A scheduler of these slots and places.
    pub fn new(slots: &'s mut [Slot<'s>], queue: &'s mut [Place<'s>]) -> Self {
        Scheduler { slots, queue, clock: 0, prefilled: 0, first: 0 }
    }

    /// Takes a request: to be answered when a slot is free and requests before it have theirs.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit(&mut self, engine: &Engine<'_>, request: u64, prompt: &[u32]) -> Result<(), SubmitError> {
        let vocab = engine.model().hparams.vocab;
        if let Some(token) = prompt.iter().find(|token| **token as usize >= vocab) {
            return Err(SubmitError::UnknownToken(*token));
        }
        if prompt.is_empty() {
            return Err(SubmitError::Empty);
        }
        if !self.slots.iter().all(|slot| slot.session().is_of(engine.model())) {
            return Err(SubmitError::OtherModel);
        }
        let running = self.slots.iter().any(|slot| slot.request() == Some(request));
        if running || self.queue.iter().any(|place| place.request() == Some(request)) {
            return Err(SubmitError::Duplicate(request));
        }
        let most = self.slots.iter().map(|slot| slot.most_tokens()).min().unwrap_or(0);
        let place = self.queue.iter_mut().find(|place| place.is_free()).ok_or(SubmitError::QueueFull)?;
        let most = most.min(place.most_tokens());
        if prompt.len() > most {
            return Err(SubmitError::TooLong { tokens: prompt.len(), most });
        }
        if !self.slots.iter().any(|slot| slot.can_start(prompt)) {
            return Err(SubmitError::OtherPrefix);
        }
        self.clock += 1;
        place.set(request, self.clock, prompt);
        Ok(())
    }

    /// Drops a request, wherever it is; returns whether it was there.
    pub fn cancel(&mut self, request: u64) -> bool {
        self.clock += 1;
        let slot = self.slots.iter_mut().find(|slot| slot.request() == Some(request));
        let place = self.queue.iter_mut().find(|place| place.request() == Some(request));
        if let Some(slot) = slot {
            slot.release(self.clock);
            return true;
        }
        place.map(Place::clear).is_some()
    }

    /// How many requests there are.
    pub fn load(&self) -> Load {
        let running = self.slots.iter().filter(|slot| slot.request().is_some()).count();
        Load { running, waiting: self.queue.iter().filter(|place| !place.is_free()).count() }
    }

    /// One pass for all answers and a prompt, as far as there is something to do. Sums of floats depend on the length of a pass,
    /// so that of matrices of floats there is one pass for each.
    pub fn tick(&mut self, engine: &mut Engine<'_>, exec: &dyn Executor, clients: &mut dyn Clients) -> Tick {
        self.assign(engine, clients);
        if !engine.model().has_float_matrices() {
            let reading = self.reading();
            return self.pass(engine, exec, clients, reading, MAX_ANSWERS);
        }
        let decoded = self.pass(engine, exec, clients, None, MAX_BATCH).decoded;
        let reading = self.reading();
        Tick { decoded, ..self.pass(engine, exec, clients, reading, 0) }
    }

    /// Gives requests that wait, oldest first, the free slots that have most of their prompts; of equals the one that has been
    /// free for longest. One that no free slot can start waits, and those behind it do not.
    fn assign(&mut self, engine: &Engine<'_>, clients: &mut dyn Clients) {
        if self.queue.iter().all(Place::is_free) {
            return;
        }
        let mut after = 0;
        // Passes of these lengths, where lengths matter.
        let exact = Some(engine.chunk()).filter(|_| engine.model().has_float_matrices());
        while let Some(place) = oldest(self.queue, after) {
            after = place.ticket();
            let Some(request) = place.request() else { continue };
            let prompt = place.tokens();
            let free = self.slots.iter_mut().filter(|slot| slot.request().is_none() && slot.can_start(prompt));
            let best = free.max_by_key(|slot| (slot.common(prompt), core::cmp::Reverse(slot.since())));
            if let Some(slot) = best {
                let kept = slot.start(request, after, prompt, exact);
                slot.set_due(self.prefilled);
                clients.starts(request, kept);
                place.clear();
            }
        }
    }

    /// The slot whose prompt is to be read next: the first that is due, and of equals the oldest.
    fn reading(&self) -> Option<usize> {
        let reading = self.slots.iter().enumerate().filter(|(_, slot)| slot.state() == State::Reading);
        reading.min_by_key(|(_, slot)| (slot.due(), slot.since())).map(|(at, _)| at)
    }

    /// Answers whose next token is to be read, at most `most`, in turn. One that has no room left ends.
    fn answers(&mut self, clients: &mut dyn Clients, most: usize) -> Answers {
        let (mut answers, slots) = (Answers::default(), self.slots.len());
        for i in 0..slots {
            let at = (self.first + i) % slots.max(1);
            let Some(slot) = self.slots.get_mut(at).filter(|_| answers.n < most) else { continue };
            let (State::Decoding(token), Some(request)) = (slot.state(), slot.request()) else { continue };
            if slot.session().remaining() == 0 {
                clients.is_full(request);
                self.clock += 1;
                slot.release(self.clock);
            } else if clients.is_ready(request) {
                answers.push(at, token);
            }
        }
        if let Some((at, _)) = answers.iter().last() {
            self.first = at + 1;
        }
        answers
    }

    /// How many tokens of a slot's prompt come next, of at most `room`.
    fn chunk(&self, engine: &Engine<'_>, at: usize, room: usize) -> usize {
        let Some(slot) = self.slots.get(at) else { return 0 };
        // Behind a prefix, chunks of floats start at multiples of their length, whatever was there before.
        let position = slot.read() - slot.prefix().len().min(slot.read());
        let behind = if engine.model().has_float_matrices() { position % engine.chunk().max(1) } else { 0 };
        room.saturating_sub(behind).min(slot.unread().len())
    }

    /// Reads the next token of at most `most` answers whose clients take it, and the next chunk of the prompt in slot `reading`,
    /// in one pass.
    fn pass(
        &mut self,
        engine: &mut Engine<'_>,
        exec: &dyn Executor,
        clients: &mut dyn Clients,
        reading: Option<usize>,
        most: usize,
    ) -> Tick {
        // A prompt has a token at least, and may have logits.
        let rows = engine.logit_rows().min(engine.chunk()).saturating_sub(usize::from(reading.is_some()));
        let answers = self.answers(clients, most.min(rows));
        if self.pass_ahead(engine, exec, clients, &answers) {
            return Tick { decoded: 1, prefilled: 0 };
        }
        let room = if answers.n == 0 { engine.chunk() } else { engine.chunk().min(MAX_MIXED) - answers.n };
        let chunk = reading.map_or(0, |at| self.chunk(engine, at, room));
        let is_last =
            chunk > 0 && reading.and_then(|at| self.slots.get(at)).is_some_and(|slot| slot.unread().len() == chunk);
        let outputs = usize::from(is_last) + answers.n;
        match reading.and_then(|at| self.slots.get_mut(at)).filter(|_| answers.n == 0) {
            Some(slot) => {
                let (session, tokens) = slot.session_and_unread();
                engine.run(exec, &mut &mut [session][..], tokens.first_n(chunk), outputs);
            }
            None => self.run(engine, exec, reading.filter(|_| chunk > 0), chunk, &answers, outputs),
        }
        if let Some(slot) = reading.and_then(|at| self.slots.get_mut(at)) {
            slot.has_read_prompt(chunk);
            self.prefilled += chunk as u64;
            if is_last {
                self.clock += 1;
                follow(slot, self.clock, engine.logits_of(0), clients);
            }
        }
        for (row, (at, token)) in (usize::from(is_last)..).zip(answers.iter()) {
            let Some(slot) = self.slots.get_mut(at) else { continue };
            slot.has_read_answer(&[token]);
            self.clock += 1;
            follow(slot, self.clock, engine.logits_of(row), clients);
        }
        Tick { decoded: answers.n, prefilled: chunk }
    }

    /// Where an answer has the tick for itself, and its client wants drafts: reads its next token, and what is likely to follow.
    /// Returns whether it has.
    fn pass_ahead(
        &mut self,
        engine: &mut Engine<'_>,
        exec: &dyn Executor,
        clients: &mut dyn Clients,
        answers: &Answers,
    ) -> bool {
        let Some((at, token)) = answers.iter().next().filter(|_| answers.n == 1 && self.reading().is_none()) else {
            return false;
        };
        let Some(slot) = self.slots.get_mut(at) else { return false };
        let Some(drafts) = slot.request().and_then(|request| clients.speculation(request)) else { return false };
        let Ok(row) = slot.read_ahead(engine, exec, token, drafts) else { return false };
        slot.has_read_answer(&[token]);
        self.clock += 1;
        follow(slot, self.clock, engine.logits_of(row), clients);
        true
    }

    /// Runs a chunk of a prompt, if there is one, and a token of each answer.
    fn run(
        &mut self,
        engine: &mut Engine<'_>,
        exec: &dyn Executor,
        reading: Option<usize>,
        chunk: usize,
        answers: &Answers,
        outputs: usize,
    ) {
        if answers.n == 0 {
            return;
        }
        let mut tokens = [0; MAX_MIXED];
        if let Some(slot) = reading.and_then(|at| self.slots.get(at)) {
            tokens.first_n_mut(chunk).copy_from_slice(slot.unread().first_n(chunk));
        }
        let n = chunk + answers.n;
        let all = tokens.first_n_mut(n);
        all.iter_mut().skip(chunk).zip(answers.iter()).for_each(|(to, (_, token))| *to = token);
        engine.run(exec, &mut Chosen { slots: self.slots, reading, answers }, tokens.first_n(n), outputs);
    }
}

/// Slots whose answers go on, and the next token of each.
struct Answers {
    /// Slots and tokens.
    all: [(usize, u32); MAX_ANSWERS],
    n: usize,
}

impl Default for Answers {
    fn default() -> Self {
        Answers { all: [(0, 0); MAX_ANSWERS], n: 0 }
    }
}

impl Answers {
    fn push(&mut self, slot: usize, token: u32) {
        if let Some(to) = self.all.get_mut(self.n) {
            *to = (slot, token);
            self.n += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, u32)> {
        self.all.first_n(self.n).iter().copied()
    }
}

/// Asks for the token to follow, or ends the answer.
fn follow(slot: &mut Slot<'_>, now: u64, logits: &[f32], clients: &mut dyn Clients) {
    let Some(request) = slot.request() else { return };
    match clients.next(request, logits) {
        Some(token) if (token as usize) < logits.len() => slot.decode(token),
        _ => slot.release(now),
    }
}

/// The place of the oldest request behind a ticket.
fn oldest<'q, 's>(queue: &'q mut [Place<'s>], after: u64) -> Option<&'q mut Place<'s>> {
    queue.iter_mut().filter(|place| !place.is_free() && place.ticket() > after).min_by_key(|place| place.ticket())
}

/// Some of the slots, as a batch: one whose prompt is read, and answers.
struct Chosen<'c, 's> {
    slots: &'c mut [Slot<'s>],
    reading: Option<usize>,
    answers: &'c Answers,
}

impl Chosen<'_, '_> {
    /// The number of the `i`-th.
    fn at(&self, i: usize) -> Option<usize> {
        match self.reading {
            Some(at) if i == 0 => Some(at),
            reading => self.answers.iter().nth(i - usize::from(reading.is_some())).map(|(at, _)| at),
        }
    }
}

impl<'s> Caches<'s> for Chosen<'_, 's> {
    fn len(&self) -> usize {
        usize::from(self.reading.is_some()) + self.answers.n
    }

    fn get(&self, i: usize) -> Option<&KvCache<'s>> {
        self.slots.get(self.at(i)?).map(|slot| slot.session().cache())
    }

    fn get_mut(&mut self, i: usize) -> Option<&mut KvCache<'s>> {
        let at = self.at(i)?;
        self.slots.get_mut(at).map(|slot| slot.session_mut().cache_mut())
    }
}
