//! Generation: an answer, token by token.
//!
//! [`Generation::step`] is the one loop of sampling that programs drive: each call gives a token or says why no more come, and
//! passes on the text that has become certain. It allocates nothing, and holds no more than the end of the text that may be a
//! stop string. Where an answer repeats the conversation, [`Speculation`] has several tokens read in one pass. A [`Scheduler`]
//! answers many at a time. It and the C API, which reads each token as soon as it is chosen, take [`Generation::choose`] alone.

mod scheduler;
mod slot;
mod speculation;
mod stops;

use crate::Error;
use crate::engine::{Engine, Session};
use crate::sample::{Rules, SampleError, Sampler};
use crate::storage::Executor;
use crate::tokenizer::{Detokenizer, Tokenizer};
pub use scheduler::{Clients, Load, MAX_ANSWERS, Scheduler, SubmitError, Tick};
pub use slot::{Place, Slot};
use speculation::Ahead;
pub use speculation::{Lookup, MAX_BATCH, MAX_DRAFT, Speculation};
pub use stops::MAX_STOP;
use stops::{Held, fits};

/// What ends an answer, beside the model: the same in every step of it.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'g> {
    /// The most tokens.
    pub tokens: usize,
    /// Texts that end it, and are no part of it; of 1 to [`MAX_STOP`] bytes each, see [`check`](Limits::check).
    pub stops: &'g [&'g str],
}

impl Limits<'_> {
    /// Checks the stop strings: others are never found.
    ///
    /// # Errors
    /// [`StopError`].
    pub fn check(&self) -> Result<(), StopError> {
        self.stops.iter().position(|stop| !fits(stop)).map_or(Ok(()), |bad| Err(StopError(bad)))
    }
}

/// What a step gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A token of the answer. The session reads it in the next step.
    Token(u32),
    /// There are no more.
    End(End),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended its turn, with this token, which is no part of the answer.
    Turn(u32),
    /// As many tokens as asked for.
    Tokens,
    /// A stop string, by its number.
    Stop(usize),
    /// The context is full.
    Context,
}

/// A stop string that is empty or longer than [`MAX_STOP`] bytes, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stop string {0} is empty, or longer than {MAX_STOP} bytes")]
pub struct StopError(pub usize);

/// What a step works with.
pub struct Run<'r, 'e, 's> {
    /// It has the logits behind the prompt, or behind the token of the last step. With a lookup, the same one in every step.
    pub engine: &'r mut Engine<'e>,
    /// The threads.
    pub exec: &'r dyn Executor,
    /// The conversation.
    pub session: &'r mut Session<'s>,
    /// The sampler, which has accepted the prompt's tokens.
    pub sampler: &'r mut Sampler,
    /// To read several tokens in one pass where the answer repeats the conversation.
    pub lookup: Option<Lookup<'r>>,
}

/// The most control tokens that an answer may show.
pub const MAX_SHOWN: usize = 8;

/// An answer in the making.
#[derive(Clone, Debug)]
pub struct Generation {
    generated: usize,
    /// The token that the session has not read yet.
    pending: Option<u32>,
    /// What the last pass has read beyond it.
    ahead: Ahead,
    ended: Option<End>,
    detokenizer: Detokenizer,
    held: Held,
    /// Control tokens whose text is a part of the answer's.
    shown: [Option<u32>; MAX_SHOWN],
}

impl Default for Generation {
    fn default() -> Self {
        Self::new()
    }
}

impl Generation {
    /// An answer of which there is nothing yet.
    pub const fn new() -> Self {
        let (detokenizer, held) = (Detokenizer::new(), Held::new());
        let shown = [None; MAX_SHOWN];
        Generation { generated: 0, pending: None, ahead: Ahead::NONE, ended: None, detokenizer, held, shown }
    }

    /// Has the text of a control token be a part of the answer's: one that marks a call of a tool, for who looks for it. Of more
    /// than [`MAX_SHOWN`], those that came first stay.
    pub fn show(&mut self, token: u32) {
        if let Some(free) = self.shown.iter_mut().find(|shown| shown.is_none()) {
            *free = Some(token);
        }
    }

    /// Tokens so far, with the one that ended the turn.
    pub fn generated(&self) -> usize {
        self.generated
    }

    /// The next token: reads the last one, and samples by the rules from what follows. Text that has become certain goes to
    /// `show`; at the end of the answer, all that is left.
    ///
    /// # Errors
    /// [`Error::Engine`] where the session is not of the engine's model; [`Error::Sample`]. The session is then as before, or has
    /// read the last token.
    pub fn step(
        &mut self,
        run: &mut Run<'_, '_, '_>,
        limits: Limits<'_>,
        rules: Rules<'_>,
        show: &mut dyn FnMut(&str),
    ) -> Result<Event, Error> {
        if let Some(end) = self.ends(limits, run.session) {
            return Ok(self.end(end, show));
        }
        if let Some(token) = self.pending {
            let Run { engine, exec, session, lookup, .. } = run;
            // No draft is longer than the answer.
            let most = limits.tokens.saturating_sub(self.generated + 1);
            #[cfg(feature = "boards")]
            engine.need(needed(engine.tokenizer(), run.sampler, rules));
            let read = self.ahead.read(engine, *exec, session, token, lookup.as_mut(), most);
            #[cfg(feature = "boards")]
            engine.need(None);
            read?;
            self.pending = None;
        }
        let (tokenizer, logits) = (run.engine.tokenizer(), run.engine.logits_of(self.ahead.row()));
        Ok(self.choose(tokenizer, logits, run.sampler, limits, rules, show)?)
    }

    /// Why there is nothing more to be sampled, before the last token is read.
    pub fn ends(&self, limits: Limits<'_>, session: &Session<'_>) -> Option<End> {
        let full = self.pending.is_some() && session.remaining() == 0;
        match self.ended {
            None if self.generated >= limits.tokens => Some(End::Tokens),
            None if full => Some(End::Context),
            ended => ended,
        }
    }

    /// The token that the session is to read next, if there is one.
    pub fn pending(&self) -> Option<u32> {
        self.pending
    }

    /// Samples from the logits behind the last token, which the session has read: for who reads those of several answers in one
    /// pass.
    ///
    /// # Errors
    /// [`SampleError`].
    pub fn choose(
        &mut self,
        tokenizer: &Tokenizer<'_>,
        logits: &[f32],
        sampler: &mut Sampler,
        limits: Limits<'_>,
        rules: Rules<'_>,
        show: &mut dyn FnMut(&str),
    ) -> Result<Event, SampleError> {
        let token = sample(tokenizer, logits, sampler, rules)?;
        self.generated += 1;
        self.pending = None;
        if tokenizer.is_end(token) {
            return Ok(self.end(End::Turn(token), show));
        }
        sampler.accept(token);
        let (held, stops, mut stop) = (&mut self.held, limits.stops, None);
        let is_shown = self.shown.contains(&Some(token));
        self.detokenizer.push(tokenizer.piece(token, is_shown), |text| {
            if stop.is_none() {
                stop = held.push(text, stops, show);
            }
        });
        if let Some(stop) = stop {
            // What was left of a character is behind the stop string.
            self.detokenizer = Detokenizer::new();
            self.ended = Some(End::Stop(stop));
            return Ok(Event::End(End::Stop(stop)));
        }
        self.pending = Some(token);
        Ok(Event::Token(token))
    }

    /// Passes text that is left to `show`: of an answer that its caller ends. [`step`](Generation::step) does so at any other end.
    pub fn finish(&mut self, show: &mut dyn FnMut(&str)) {
        self.held.finish(show);
        self.detokenizer.finish(show);
    }

    /// Ends the answer: passes text that is left to `show`, and has every further step say so.
    pub fn end(&mut self, end: End, show: &mut dyn FnMut(&str)) -> Event {
        if self.ended.is_none() {
            self.finish(show);
        }
        self.ended = Some(end);
        Event::End(end)
    }
}

/// How many of the best logits are enough for [`sample`]; none where all are needed.
#[cfg(feature = "boards")]
fn needed(tokenizer: &Tokenizer<'_>, sampler: &Sampler, rules: Rules<'_>) -> Option<usize> {
    let lowers = rules.lowers.map(|tokens| tokens.saturating_add(tokenizer.suppressed().count()));
    sampler.needs(Rules { lowers, ..rules })
}

/// A token by the rules, of those that the model's vocabulary does not suppress.
///
/// # Errors
/// [`SampleError`].
fn sample(
    tokenizer: &Tokenizer<'_>,
    logits: &[f32],
    sampler: &mut Sampler,
    rules: Rules<'_>,
) -> Result<u32, SampleError> {
    let adjust = |token, logit| if tokenizer.is_suppressed(token) { None } else { (rules.adjust)(token, logit) };
    sampler.sample_by(logits, Rules { adjust: &adjust, ..rules })
}
