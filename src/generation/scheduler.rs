//! Many answers at a time, in a number of sessions that is fixed.
//!
//! ```text
//! tick:  requests that wait go to free slots, in order, each to the one that has most of its prompt already
//!        one pass reads the next token of every answer whose client takes it
//!        one pass reads the next chunk of the oldest prompt
//! ```
//!
//! So a long prompt costs others a chunk between two tokens, and no more. Weights are read once for all answers of a tick,
//! which is what many users at once gain by; their K/V are their own. Everything is the caller's memory, and an answer has the
//! bits that it has alone (`tests/it/scheduler.rs`).

use super::slot::{Place, Slot, State};
use crate::engine::Engine;
use crate::model::{Caches, KvCache};
use crate::storage::Executor;
use crate::util::SliceExt;

/// Most answers that one pass decodes: up to so many, no bit depends on how many there are.
pub const MAX_BATCH: usize = 8;

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
    /// The slot that the next pass of answers starts with, where there are more than fit one.
    first: usize,
}

impl<'s> Scheduler<'s> {
    /// A scheduler of these slots and places.
    pub fn new(slots: &'s mut [Slot<'s>], queue: &'s mut [Place<'s>]) -> Self {
        Scheduler { slots, queue, clock: 0, first: 0 }
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

    /// One pass for all answers, and one for a prompt, as far as there is something to do.
    pub fn tick(&mut self, engine: &mut Engine<'_>, exec: &dyn Executor, clients: &mut dyn Clients) -> Tick {
        self.assign(engine, clients);
        let decoded = self.decode(engine, exec, clients);
        let prefilled = self.prefill(engine, exec, clients);
        Tick { decoded, prefilled }
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
                clients.starts(request, kept);
                place.clear();
            }
        }
    }

    /// Reads the next token of every answer whose client takes it, in one pass.
    fn decode(&mut self, engine: &mut Engine<'_>, exec: &dyn Executor, clients: &mut dyn Clients) -> usize {
        let (mut chosen, mut tokens, mut n) = ([0; MAX_BATCH], [0; MAX_BATCH], 0);
        let (slots, most) = (self.slots.len(), engine.logit_rows().min(engine.chunk()).min(MAX_BATCH));
        for i in 0..slots {
            let at = (self.first + i) % slots.max(1);
            let Some(slot) = self.slots.get_mut(at).filter(|_| n < most) else { continue };
            let (State::Decoding(token), Some(request)) = (slot.state(), slot.request()) else { continue };
            if slot.session().remaining() == 0 {
                clients.is_full(request);
                self.clock += 1;
                slot.release(self.clock);
            } else if clients.is_ready(request)
                && let (Some(to), Some(next)) = (chosen.get_mut(n), tokens.get_mut(n))
            {
                (*to, *next) = (at, token);
                n += 1;
            }
        }
        let chosen = chosen.first_n(n);
        if let Some(last) = chosen.last() {
            self.first = last + 1;
            engine.step_all(exec, &mut Chosen { slots: self.slots, chosen }, tokens.first_n(n));
        }
        for (row, at) in chosen.iter().enumerate() {
            let Some(slot) = self.slots.get_mut(*at) else { continue };
            slot.has_read_answer(tokens.part(row..row + 1));
            self.clock += 1;
            follow(slot, self.clock, engine.logits_of(row), clients);
        }
        n
    }

    /// Reads the next chunk of the oldest prompt.
    fn prefill(&mut self, engine: &mut Engine<'_>, exec: &dyn Executor, clients: &mut dyn Clients) -> usize {
        let reading = self.slots.iter_mut().filter(|slot| slot.state() == State::Reading);
        let Some(slot) = reading.min_by_key(|slot| slot.since()) else { return 0 };
        // Behind a prefix, chunks start at multiples of their length, whatever was there before: floats are summed in another
        // order in long passes than in short ones.
        let position = slot.read() - slot.prefix().len().min(slot.read());
        let n = (engine.chunk() - position % engine.chunk().max(1)).min(slot.unread().len());
        let is_last = n == slot.unread().len();
        let (session, tokens) = slot.session_and_unread();
        engine.read(exec, session, tokens.first_n(n), is_last);
        slot.has_read_prompt(n);
        if is_last {
            self.clock += 1;
            follow(slot, self.clock, engine.logits(), clients);
        }
        n
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

/// Some of the slots, as a batch.
struct Chosen<'c, 's> {
    slots: &'c mut [Slot<'s>],
    chosen: &'c [usize],
}

impl<'s> Caches<'s> for Chosen<'_, 's> {
    fn len(&self) -> usize {
        self.chosen.len()
    }

    fn get(&self, i: usize) -> Option<&KvCache<'s>> {
        self.slots.get(*self.chosen.get(i)?).map(|slot| slot.session().cache())
    }

    fn get_mut(&mut self, i: usize) -> Option<&mut KvCache<'s>> {
        self.slots.get_mut(*self.chosen.get(i)?).map(|slot| slot.session_mut().cache_mut())
    }
}
