//! Prefill, step, sampling, logits.

#![allow(unsafe_code)]

use super::armlet_status::{self, *};
use super::context::Context;
use super::lifecycle::with;
use super::pointers::{self, Span};
use super::status::CallError;
use super::{ARMLET_NO_TOKEN, armlet_ctx, armlet_sampling};
use crate::generation::{End, Event, Generation, Limits};
use crate::sample::{Rules, SamplerConfig};

/// Prefill: appends `n` tokens to the context, in forward passes of at most `chunk`, and computes the logits after the
/// last one.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, EMPTY, TOKEN, FULL: none was appended. STOPPED: some were, see
/// `armlet_info.position`; prefill the remaining ones to continue.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Readable*: `tokens` for `n`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_prefill(ctx: *mut armlet_ctx, tokens: *const u32, n: usize) -> armlet_status {
    let read = |c: &mut Context| {
        // SAFETY: `tokens` is readable for `n`.
        let tokens = unsafe { pointers::input(tokens, n)? };
        c.apart(&[Span::read(tokens.as_ptr(), tokens.len())])?;
        c.append(tokens)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, read) }
}

/// Decodes one token: samples it from the logits, writes it to `*token`, and appends it to the context, which takes one
/// forward pass.
///
/// It is `armlet_generate` without limits and text: see `armlet_piece` for that.
///
/// END: the token ends the model's turn and was not appended. The next turn starts with `armlet_chat_turn` and
/// `ARMLET_CLOSE_ANSWER`.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE, ORDER, FULL, NUMBER, STOPPED: the context is unchanged, and `*token` is
/// `ARMLET_NO_TOKEN` if `token` itself is not in error.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Writable*: `token` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_step(ctx: *mut armlet_ctx, token: *mut u32) -> armlet_status {
    let step = |c: &mut Context| {
        c.apart(&[Span::written(token.cast_const(), 1)])?;
        // Before anything is sampled, so that a bad pointer changes nothing.
        // SAFETY: `token` is writable for one, and apart.
        unsafe { pointers::write_out(token, ARMLET_NO_TOKEN)? };
        // The answer under way, if there is one, ends with `armlet_generate` or `armlet_finish`.
        if c.ready && c.session.remaining() == 0 {
            return Err(ARMLET_ERR_FULL.into());
        }
        let limits = Limits { tokens: usize::MAX, stops: &[] };
        let (next, status) = match c.next(limits, Rules::NONE, false, &mut |_| {})?.event {
            Event::Token(next) => (next, ARMLET_OK),
            Event::End(End::Turn(next)) => (next, ARMLET_END),
            Event::End(_) => return Err(ARMLET_ERR_FULL.into()),
        };
        // SAFETY: as above.
        unsafe { pointers::write_out(token, next)? };
        Ok(status)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, step) }
}

/// Sets the sampling parameters; the random numbers start from the seed. NULL: greedy decoding, as after `armlet_init`.
///
/// Errors: NULL (`ctx`), ALIGN, HANDLE, STRUCT, CONFIG (a value that is negative, infinite or not a number).
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Readable*: `sampling` for its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_set_sampling(ctx: *mut armlet_ctx, sampling: *const armlet_sampling) -> armlet_status {
    let set = |c: &mut Context| {
        let given = if sampling.is_null() {
            armlet_sampling::default()
        } else {
            // SAFETY: `sampling` is readable for its size.
            unsafe { pointers::sized(sampling)? }
        };
        let values = [given.temperature, given.top_p, given.min_p, given.repeat_penalty];
        let more = [given.presence_penalty, given.frequency_penalty];
        if values.iter().any(|v| !(v.is_finite() && *v >= 0.0)) || more.iter().any(|v| !v.is_finite()) {
            return Err(ARMLET_ERR_CONFIG.into());
        }
        let or_one = |v: f32| if v == 0.0 { 1.0 } else { v };
        c.sampler.configure(SamplerConfig {
            temperature: given.temperature,
            top_k: given.top_k as usize,
            top_p: or_one(given.top_p),
            min_p: given.min_p,
            repeat_penalty: or_one(given.repeat_penalty),
            presence_penalty: given.presence_penalty,
            frequency_penalty: given.frequency_penalty,
            seed: given.seed,
        });
        Ok(ARMLET_OK)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, set) }
}

/// The logits after the last token: `*logits` points to `*n` of them, one for each token of the vocabulary. They are in
/// the arena, and valid until the next prefill, step, rewind, reset or restore.
///
/// Errors: NULL, ALIGN, OVERLAP, HANDLE, ORDER.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Writable*: `logits` and `n` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_logits(ctx: *mut armlet_ctx, logits: *mut *const f32, n: *mut usize) -> armlet_status {
    let give = |c: &mut Context| {
        c.apart(&[Span::written(logits.cast_const(), 1), Span::written(n.cast_const(), 1)])?;
        let row = c.current()?;
        // SAFETY: `logits` and `n` are writable for one, and apart.
        unsafe {
            pointers::write_out(logits, row.as_ptr())?;
            pointers::write_out(n, row.len())?;
        }
        Ok(ARMLET_OK)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, give) }
}

impl Context {
    /// Appends tokens, to which an answer begins. If it stops before the last one, there are no logits.
    fn append(&mut self, tokens: &[u32]) -> Result<armlet_status, CallError> {
        self.session.fits(tokens)?;
        self.ready = false;
        self.generation = Generation::new();
        let before = self.session.position();
        let result =
            self.engine.eval_while(&self.executor, &mut self.session, tokens, &mut || self.caller.keeps_going());
        let read = self.session.position() - before;
        // The repeat penalty applies to a prompt's tokens too.
        tokens.iter().take(read as usize).for_each(|token| self.sampler.accept(*token));
        result?;
        self.ready = true;
        Ok(ARMLET_OK)
    }

    fn current(&self) -> Result<&[f32], armlet_status> {
        if self.ready { Ok(self.engine.logits()) } else { Err(ARMLET_ERR_ORDER) }
    }
}
