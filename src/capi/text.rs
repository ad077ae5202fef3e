//! Tokenize, chat turns, detokenize.

#![allow(unsafe_code)]

use core::ffi::c_char;

use super::armlet_status::{self, *};
use super::context::Context;
use super::lifecycle::with;
use super::pointers::{self, Span};
use super::status::CallError;
use super::{ARMLET_ADD_SPECIAL, ARMLET_CLOSE_ANSWER, ARMLET_OPEN_ANSWER, ARMLET_PARSE_SPECIAL};
use super::{ARMLET_NO_TOKEN, ARMLET_SHOW_SPECIAL, armlet_ctx};
use crate::tokenizer::{ChatFormat, EncodeOptions, Role, TokenizerError};
use crate::util::SliceExt;

/// Tokenizes a text. `flags`: `ARMLET_ADD_SPECIAL`, `ARMLET_PARSE_SPECIAL`.
///
/// `text` is `len` bytes of UTF-8; it need not be zero-terminated. `tokens` has room for `cap`; `*n` becomes their
/// number. On BUFFER, `*n` becomes a capacity that suffices.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, CONFIG (flags), TEXT, BUFFER.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Readable*: `text` for `len`. *Writable*: `tokens` for `cap`, `n` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_tokenize(
    ctx: *mut armlet_ctx,
    text: *const c_char,
    len: usize,
    flags: u32,
    tokens: *mut u32,
    cap: usize,
    n: *mut usize,
) -> armlet_status {
    let tokenize = |c: &mut Context| {
        // SAFETY: `text` is readable for `len`.
        let text = unsafe { c.text(text, len)? };
        c.apart(&[
            Span::read(text.as_ptr(), text.len()),
            Span::written(tokens.cast_const(), cap),
            Span::written(n.cast_const(), 1),
        ])?;
        let options = EncodeOptions {
            add_special: flags & ARMLET_ADD_SPECIAL != 0,
            parse_special: flags & ARMLET_PARSE_SPECIAL != 0,
            literal: &[],
        };
        allowed(flags, ARMLET_ADD_SPECIAL | ARMLET_PARSE_SPECIAL)?;
        // SAFETY: `tokens` is writable for `cap`, and apart.
        let tokens = unsafe { pointers::output(tokens, cap)? };
        let result = c.model.tokenizer.encode(text, options, c.scratch, tokens);
        // SAFETY: `n` is writable for one, and apart.
        unsafe { counted(result, c.model.tokenizer.max_tokens(text.len()), n) }
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, tokenize) }
}

/// Tokenizes one turn of a conversation in the model's chat format: ChatML, Llama 3, Gemma, Gemma 4, Phi-3, Phi-4, Mistral,
/// Zephyr, Granite or SmolLM3. No format adds a default system prompt except SmolLM3's. Gemma has no system role: what is to
/// be its system prompt goes before the user's text. Gemma 4 and SmolLM3 open an answer with an empty thinking block.
///
/// `role`: an `armlet_role`. `flags`: `ARMLET_CLOSE_ANSWER`, `ARMLET_OPEN_ANSWER`. Control tokens in `text` are not
/// parsed: they stay text. At position 0 the BOS token comes first. Otherwise as `armlet_tokenize`.
///
/// Errors: those of `armlet_tokenize`, CONFIG (role), CHAT.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Readable*: `text` for `len`. *Writable*: `tokens` for `cap`, `n` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_chat_turn(
    ctx: *mut armlet_ctx,
    role: u32,
    text: *const c_char,
    len: usize,
    flags: u32,
    tokens: *mut u32,
    cap: usize,
    n: *mut usize,
) -> armlet_status {
    let turn = |c: &mut Context| {
        // SAFETY: `text` is readable for `len`.
        let text = unsafe { c.text(text, len)? };
        c.apart(&[
            Span::read(text.as_ptr(), text.len()),
            Span::written(tokens.cast_const(), cap),
            Span::written(n.cast_const(), 1),
        ])?;
        allowed(flags, ARMLET_CLOSE_ANSWER | ARMLET_OPEN_ANSWER)?;
        let role = match role {
            0 => Role::System,
            1 => Role::User,
            2 => Role::Assistant,
            _ => return Err(ARMLET_ERR_CONFIG.into()),
        };
        // SAFETY: `tokens` is writable for `cap`, and apart.
        let tokens = unsafe { pointers::output(tokens, cap)? };
        let result = c.encode_turn(role, text, flags, tokens);
        let most = c.model.tokenizer.max_tokens(c.text.len());
        // SAFETY: `n` is writable for one, and apart.
        unsafe { counted(result?, most, n) }
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, turn) }
}

/// Writes the text of `n` tokens. `flags`: `ARMLET_SHOW_SPECIAL`.
///
/// `text` has room for `cap` bytes; no terminating zero is added. `*len` becomes the length of the text, also on BUFFER.
/// A whole text is UTF-8; a single token may be a part of a character: see `armlet_piece`.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, CONFIG (flags), TOKEN, BUFFER.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Readable*: `tokens` for `n`. *Writable*: `text` for `cap`, `len` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_detokenize(
    ctx: *mut armlet_ctx,
    tokens: *const u32,
    n: usize,
    flags: u32,
    text: *mut c_char,
    cap: usize,
    len: *mut usize,
) -> armlet_status {
    let detokenize = |c: &mut Context| {
        // SAFETY: `tokens` is readable for `n`.
        let tokens = unsafe { pointers::input(tokens, n)? };
        let spans = [
            Span::read(tokens.as_ptr(), tokens.len()),
            Span::written(text.cast_const(), cap),
            Span::written(len.cast_const(), 1),
        ];
        c.apart(&spans)?;
        allowed(flags, ARMLET_SHOW_SPECIAL)?;
        c.known(tokens.iter().copied())?;
        // SAFETY: `text` is writable for `cap`, and apart.
        let mut out = Writer::new(unsafe { pointers::output(text.cast::<u8>(), cap)? });
        for token in tokens {
            c.model.tokenizer.piece(*token, flags & ARMLET_SHOW_SPECIAL != 0).for_each(|byte| out.push(&[byte]));
        }
        // SAFETY: `len` is writable for one, and apart.
        unsafe { out.end(len) }
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, detokenize) }
}

/// Writes what `token` adds to a text that is streamed: whole characters only; an incomplete one is kept for the next
/// token.
///
/// `ARMLET_NO_TOKEN` ends the text. Control tokens add nothing. `text` has room for `cap` bytes; no terminating zero is
/// added; `*len` becomes the length, also on BUFFER, when the call can be repeated with more room.
///
/// Errors: NULL, ALIGN, OVERLAP, LENGTH, HANDLE, TOKEN, BUFFER.
///
/// # Safety
/// *Writable* and *alive*: `ctx`. *Writable*: `text` for `cap`, `len` for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn armlet_piece(
    ctx: *mut armlet_ctx,
    token: u32,
    text: *mut c_char,
    cap: usize,
    len: *mut usize,
) -> armlet_status {
    let piece = |c: &mut Context| {
        c.apart(&[Span::written(text.cast_const(), cap), Span::written(len.cast_const(), 1)])?;
        // SAFETY: `text` is writable for `cap`, and apart.
        let mut out = Writer::new(unsafe { pointers::output(text.cast::<u8>(), cap)? });
        let mut detokenizer = c.detokenizer;
        if token == ARMLET_NO_TOKEN {
            detokenizer.finish(|s| out.push(s.as_bytes()));
        } else {
            c.known([token])?;
            detokenizer.push(c.model.tokenizer.piece(token, false), |s| out.push(s.as_bytes()));
        }
        // SAFETY: `len` is writable for one, and apart.
        let status = unsafe { out.end(len)? };
        c.detokenizer = detokenizer;
        Ok(status)
    };
    // SAFETY: `ctx` is writable and alive.
    unsafe { with(ctx, piece) }
}

/// Checks that only flags of `these` are set.
fn allowed(flags: u32, these: u32) -> Result<(), CallError> {
    if flags & !these == 0 { Ok(()) } else { Err(ARMLET_ERR_CONFIG.into()) }
}

/// Writes the number of tokens, or a capacity that suffices.
///
/// # Safety
/// *Writable*: `n`, for one.
unsafe fn counted(
    result: Result<usize, TokenizerError>,
    most: usize,
    n: *mut usize,
) -> Result<armlet_status, CallError> {
    let (count, result) = match result {
        Ok(count) => (count, Ok(ARMLET_OK)),
        Err(e) => (most, Err(e.into())),
    };
    // SAFETY: `n` is writable for one.
    unsafe { pointers::write_out(n, count)? };
    result
}

/// Writes as much text as there is room for, and counts all of it.
struct Writer<'o> {
    out: &'o mut [u8],
    len: usize,
}

impl<'o> Writer<'o> {
    fn new(out: &'o mut [u8]) -> Self {
        Writer { out, len: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.out.len();
        let room = self.out.part_mut(self.len.min(room)..room);
        room.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
        self.len += bytes.len();
    }

    /// Writes the parts, as far as they fit, and counts all their bytes.
    #[inline(never)]
    fn push_all(&mut self, parts: &[&str]) {
        for byte in parts.iter().flat_map(|part| part.bytes()) {
            if let Some(slot) = self.out.get_mut(self.len) {
                *slot = byte;
            }
            self.len += 1;
        }
    }

    /// # Safety
    /// *Writable*: `len`, for one.
    unsafe fn end(&self, len: *mut usize) -> Result<armlet_status, CallError> {
        // SAFETY: `len` is writable for one.
        unsafe { pointers::write_out(len, self.len)? };
        if self.len > self.out.len() { Err(ARMLET_ERR_BUFFER.into()) } else { Ok(ARMLET_OK) }
    }
}

impl Context {
    /// The text at `at`.
    ///
    /// # Safety
    /// *Readable*: `at`, for `len` bytes, during `'c`.
    unsafe fn text<'c>(&self, at: *const c_char, len: usize) -> Result<&'c str, armlet_status> {
        // SAFETY: `at` is readable for `len`.
        let bytes = unsafe { pointers::input(at.cast::<u8>(), len)? };
        let text = core::str::from_utf8(bytes).map_err(|_| ARMLET_ERR_TEXT)?;
        if len > self.text_bytes { Err(ARMLET_ERR_TEXT) } else { Ok(text) }
    }

    pub(super) fn known(&self, tokens: impl IntoIterator<Item = u32>) -> Result<(), armlet_status> {
        let vocab = self.model.hparams.vocab;
        if tokens.into_iter().all(|t| (t as usize) < vocab) { Ok(()) } else { Err(ARMLET_ERR_TOKEN) }
    }

    /// Tokenizes a turn.
    fn encode_turn(
        &mut self,
        role: Role,
        text: &str,
        flags: u32,
        tokens: &mut [u32],
    ) -> Result<Result<usize, TokenizerError>, CallError> {
        let tokenizer = &self.model.tokenizer;
        let format = ChatFormat::detect(tokenizer).ok_or(ARMLET_ERR_CHAT)?;
        let mut out = Writer::new(self.text);
        if flags & ARMLET_CLOSE_ANSWER != 0 {
            out.push_all(&[format.closing(Role::Assistant)]);
        }
        if self.session.position() == 0 {
            out.push_all(&format.preamble(role));
        }
        out.push_all(&format.opening(role));
        let text = format.text(role, text);
        let literal = out.len..out.len + text.len();
        out.push_all(&[text, format.closing(role)]);
        if flags & ARMLET_OPEN_ANSWER != 0 {
            out.push_all(&format.answer());
        }
        let len = out.len;
        // What was pushed is UTF-8, and `MOST_ADDED` is more than any format adds.
        let turn = self.text.get(..len).and_then(|t| core::str::from_utf8(t).ok()).ok_or(ARMLET_ERR_TEXT)?;
        // BOS but never EOS: an answer follows.
        let start = tokenizer.bos().filter(|_| tokenizer.adds_bos() && self.session.position() == 0);
        let (first, tokens) = match (start, tokens) {
            (None, tokens) => (0, tokens),
            (Some(bos), [first, tail @ ..]) => {
                *first = bos;
                (1, tail)
            }
            (Some(_), []) => return Ok(Err(TokenizerError::OutputTooSmall(0))),
        };
        let options = EncodeOptions { add_special: false, parse_special: true, literal: &[literal] };
        Ok(tokenizer.encode(turn, options, self.scratch, tokens).map(|n| first + n))
    }
}
