//! Answers: tokens, their text, and what ends it all.

#![allow(unsafe_code)]

use core::ffi::c_void;

use super::armlet_event_kind::*;
use super::armlet_status::{self, *};
use super::context::Context;
use super::lifecycle::with;
use super::pointers::{self, Span};
use super::status::CallError;
use super::{ARMLET_MAX_STOPS, ARMLET_NO_TOKEN, armlet_answer, armlet_bias, armlet_ctx, armlet_event, armlet_show};
use crate::generation::{End, Event, Generation, Limits};
use crate::sample::{Rules, log_probability};

/// The next token of an answer: samples it from the logits, passes on the text that has become certain, and appends the token
/// to the context, which takes one forward pass. `*event` says which token it is, or why no more come.
///
/// END: the answer has ended, `event->kind` says by what, and its text has been passed on to the end. The context has all tokens
/// that events have told of; the one that ends the model's turn, or completes a stop string, is not appended. The next call
/// begins another answer, as does `armlet_prefill`.
///
/// `answer` may differ from call to call; NULL: only the model and the context end it. `show` gets whole characters, none of
/// which can be the beginning of a stop string any more; NULL: the text is dropped.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, STRUCT, CONFIG (a stop string that is empty or too long, too many of them, a
/// bias that is not a number, a flag), TEXT, TOKEN (a bias), ORDER, NUMBER, STOPPED: the context is unchanged, and so is
/// `*event`.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Readable*: `answer` for its size, `stops` and `biases` in it for their numbers, each stop
/// string for its length. *Callback*: `show`. *Writable*: `event` for its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_generate(
    ctx: *mut armlet_ctx,
    answer: *const armlet_answer,
    show: armlet_show,
    user: *mut c_void,
    event: *mut armlet_event,
) -> armlet_status {
    let generate = |c: &mut Context| {
        // SAFETY: `answer` is readable for its size, and what it points to is.
        let asked = unsafe { Asked::new(answer)? };
        c.apart(&asked.spans(Span::written(event.cast_const(), 1)))?;
        c.known(asked.biases.iter().map(|bias| bias.token))?;
        // SAFETY: `event` is writable for its size, and apart.
        unsafe { pointers::sized(event.cast_const())? };
        let adjust = |token, logit| asked.adjust(token, logit);
        let rules = Rules { adjust: &adjust, most_raised: asked.most_raised(), lowers: Some(asked.biases.len()) };
        let next = c.next(asked.limits(), rules, asked.log_probabilities, &mut |text| give(show, user, text))?;
        // SAFETY: as above.
        unsafe { pointers::write_out(event, next.as_event())? };
        Ok(next.status())
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, generate) }
}

/// Ends an answer before it has ended: passes on what was held of its text because it could have been the beginning of a stop
/// string, or is an incomplete character, which becomes U+FFFD. Changes nothing where no answer is under way.
///
/// Errors: NULL, ALIGN, HANDLE.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Callback*: `show`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_finish(ctx: *mut armlet_ctx, show: armlet_show, user: *mut c_void) -> armlet_status {
    let finish = |c: &mut Context| {
        c.generation.finish(&mut |text| give(show, user, text));
        c.generation = Generation::new();
        Ok(ARMLET_OK)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, finish) }
}

fn give(show: armlet_show, user: *mut c_void, text: &str) {
    if let Some(show) = show {
        // SAFETY: callback; the bytes outlive the call.
        unsafe { show(user, text.as_ptr().cast(), text.len()) };
    }
}

/// What the caller asks of an answer, checked but for the tokens of biases.
struct Asked<'c> {
    tokens: usize,
    stops: [&'c str; ARMLET_MAX_STOPS as usize],
    n_stops: usize,
    biases: &'c [armlet_bias],
    log_probabilities: bool,
    /// The struct itself, its stop strings, and its biases.
    at: [Span; 3],
}

impl<'c> Asked<'c> {
    /// # Safety
    /// *Readable* during `'c`: `at` for its size if it is not NULL, and what it points to.
    unsafe fn new(at: *const armlet_answer) -> Result<Self, armlet_status> {
        let mut asked = Asked {
            tokens: usize::MAX,
            stops: [""; ARMLET_MAX_STOPS as usize],
            n_stops: 0,
            biases: &[],
            log_probabilities: false,
            at: [Span::read(at, 0); 3],
        };
        if at.is_null() {
            return Ok(asked);
        }
        // SAFETY: readable for its size.
        let given = unsafe { pointers::sized(at)? };
        if given.n_stops > ARMLET_MAX_STOPS || given.log_probabilities > 1 || given.reserved != 0 {
            return Err(ARMLET_ERR_CONFIG);
        }
        // SAFETY: readable for so many.
        let (stops, biases) = unsafe {
            (
                pointers::input(given.stops, given.n_stops as usize)?,
                pointers::input(given.biases, given.n_biases as usize)?,
            )
        };
        for (text, stop) in asked.stops.iter_mut().zip(stops) {
            // SAFETY: readable for its length.
            let bytes = unsafe { pointers::input(stop.bytes.cast::<u8>(), stop.len)? };
            *text = core::str::from_utf8(bytes).map_err(|_| ARMLET_ERR_TEXT)?;
        }
        asked.n_stops = stops.len();
        asked.limits().check().map_err(|_| ARMLET_ERR_CONFIG)?;
        // −∞ forbids a token.
        if biases.iter().any(|b| b.bias.is_nan() || b.bias == f32::INFINITY) {
            return Err(ARMLET_ERR_CONFIG);
        }
        (asked.biases, asked.log_probabilities) = (biases, given.log_probabilities == 1);
        if given.tokens > 0 {
            asked.tokens = given.tokens as usize;
        }
        asked.at =
            [Span::read(at, 1), Span::read(stops.as_ptr(), stops.len()), Span::read(biases.as_ptr(), biases.len())];
        Ok(asked)
    }

    /// All that a call reads, and what it writes.
    fn spans(&self, written: Span) -> [Span; 4 + ARMLET_MAX_STOPS as usize] {
        let ([a, b, c], [d, e, f, g]) = (self.at, self.stops.map(|stop| Span::read(stop.as_ptr(), stop.len())));
        [written, a, b, c, d, e, f, g]
    }

    fn limits(&self) -> Limits<'_> {
        Limits { tokens: self.tokens, stops: self.stops.get(..self.n_stops).unwrap_or(&[]) }
    }

    /// A logit with the token's biases; none if one forbids it.
    fn adjust(&self, token: u32, logit: f32) -> Option<f32> {
        let of_token = self.biases.iter().filter(|bias| bias.token == token);
        let sum = of_token.fold(logit, |sum, bias| sum + bias.bias);
        (sum > f32::NEG_INFINITY).then_some(sum.min(f32::MAX))
    }

    /// The most by which biases raise a logit.
    fn most_raised(&self) -> f32 {
        let sum: f32 = self.biases.iter().map(|bias| bias.bias.max(0.0)).sum();
        sum.min(f32::MAX)
    }
}

/// What a step gave.
pub(super) struct Next {
    pub(super) event: Event,
    /// ln p of the token, if asked for.
    log_probability: f32,
    /// Tokens of the answer so far.
    generated: usize,
}

impl Next {
    fn status(&self) -> armlet_status {
        if matches!(self.event, Event::Token(_)) { ARMLET_OK } else { ARMLET_END }
    }

    fn as_event(&self) -> armlet_event {
        let (kind, token, stop) = match self.event {
            Event::Token(token) => (ARMLET_TOKEN, token, 0),
            Event::End(End::Turn(token)) => (ARMLET_TURN_ENDED, token, 0),
            Event::End(End::Tokens) => (ARMLET_MOST_TOKENS, ARMLET_NO_TOKEN, 0),
            Event::End(End::Stop(stop)) => (ARMLET_STOP_FOUND, ARMLET_NO_TOKEN, stop as u32),
            Event::End(End::Context) => (ARMLET_CONTEXT_FULL, ARMLET_NO_TOKEN, 0),
        };
        armlet_event {
            struct_size: size_of::<armlet_event>() as u32,
            kind: kind as u32,
            token,
            stop,
            generated: self.generated as u32,
            log_probability: self.log_probability,
        }
    }
}

impl Context {
    /// The next token of the answer under way, which is then read, or the end of the answer.
    pub(super) fn next(
        &mut self,
        limits: Limits<'_>,
        rules: Rules<'_>,
        log_probabilities: bool,
        show: &mut dyn FnMut(&str),
    ) -> Result<Next, CallError> {
        if !self.ready {
            return Err(ARMLET_ERR_ORDER.into());
        }
        // Unlike elsewhere a token is read as soon as it is chosen, so that the context has all that the caller has seen.
        let full = (self.session.remaining() == 0).then_some(End::Context);
        let event = match self.generation.ends(limits, &self.session).or(full) {
            Some(end) => self.generation.end(end, show),
            None if !self.caller.keeps_going() => return Err(ARMLET_ERR_STOPPED.into()),
            None => {
                let (tokenizer, logits) = (&self.model.tokenizer, self.engine.logits());
                self.generation.choose(tokenizer, logits, &mut self.sampler, limits, rules, show)?
            }
        };
        let mut next = Next { event, log_probability: 0.0, generated: self.generation.generated() };
        match event {
            Event::Token(token) => {
                if log_probabilities {
                    next.log_probability = log_probability(self.engine.logits(), token, &mut []);
                }
                self.ready = false;
                self.engine.eval(&self.executor, &mut self.session, &[token])?;
                self.ready = true;
            }
            Event::End(_) => self.generation = Generation::new(),
        }
        Ok(next)
    }
}
