//! Errors of the core as statuses, and as a line for the caller's log.

use core::fmt::{self, Write};

use super::armlet_status::{self, *};
use crate::engine::{EngineError, SnapshotError};
use crate::error::Error;
use crate::gguf::Problem;
use crate::model::ModelError;
use crate::sample::SampleError;
use crate::storage::ArenaError;
use crate::tokenizer::TokenizerError;
use crate::util::SliceExt;

/// Why a function fails.
#[derive(Clone, Copy, Debug)]
pub(super) enum CallError {
    /// A status without details.
    Plain(armlet_status),
    /// An error with details, which the log gets.
    Core(Error),
}

impl CallError {
    pub(super) fn status(&self) -> armlet_status {
        match self {
            CallError::Plain(status) => *status,
            CallError::Core(error) => status(error),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Plain(status) => f.write_str(text(*status as i32).to_str().unwrap_or("")),
            CallError::Core(error) => error.fmt(f),
        }
    }
}

impl From<armlet_status> for CallError {
    fn from(status: armlet_status) -> Self {
        CallError::Plain(status)
    }
}

impl<E: Into<Error>> From<E> for CallError {
    fn from(error: E) -> Self {
        CallError::Core(error.into())
    }
}

fn status(error: &Error) -> armlet_status {
    match error {
        Error::Gguf(e) if matches!(e.problem, Problem::Version(_) | Problem::BigEndian) => ARMLET_ERR_UNSUPPORTED,
        Error::Gguf(_) => ARMLET_ERR_MODEL,
        Error::Model(e) => match e {
            ModelError::Architecture(_)
            | ModelError::Feature(_)
            | ModelError::UnsupportedKey(_)
            | ModelError::UnknownTensor(_)
            | ModelError::TensorScale(_)
            | ModelError::TensorType { .. }
            | ModelError::PackVersion(_)
            | ModelError::Panels(_)
            | ModelError::Packed { .. } => ARMLET_ERR_UNSUPPORTED,
            ModelError::Tokenizer(e) => tokenizer_status(e),
            ModelError::Arena(_) => ARMLET_ERR_ARENA,
            _ => ARMLET_ERR_MODEL,
        },
        Error::Tokenizer(e) => tokenizer_status(e),
        Error::Engine(e) => engine_status(e),
        Error::Sample(SampleError::Empty) => ARMLET_ERR_ORDER,
        Error::Sample(SampleError::NotANumber) => ARMLET_ERR_NUMBER,
        Error::Arena(_) => ARMLET_ERR_ARENA,
    }
}

fn tokenizer_status(error: &TokenizerError) -> armlet_status {
    match error {
        TokenizerError::Model(_) | TokenizerError::PreTokenizer(_) => ARMLET_ERR_UNSUPPORTED,
        TokenizerError::OutputTooSmall(_) => ARMLET_ERR_BUFFER,
        TokenizerError::TextTooLong => ARMLET_ERR_TEXT,
        TokenizerError::Scratch(_) => ARMLET_ERR_ARENA,
        _ => ARMLET_ERR_MODEL,
    }
}

fn engine_status(error: &EngineError) -> armlet_status {
    match error {
        EngineError::Budget { .. } => ARMLET_ERR_BUDGET,
        EngineError::ContextFull { .. } => ARMLET_ERR_FULL,
        EngineError::Gone { .. } => ARMLET_ERR_GONE,
        EngineError::NoTokens => ARMLET_ERR_EMPTY,
        EngineError::UnknownToken(_) => ARMLET_ERR_TOKEN,
        EngineError::Stopped => ARMLET_ERR_STOPPED,
        EngineError::Snapshot(
            SnapshotError::Magic
            | SnapshotError::Checksum(_)
            | SnapshotError::Truncated { .. }
            | SnapshotError::Impossible,
        ) => ARMLET_ERR_STATE,
        EngineError::Snapshot(_) => ARMLET_ERR_OTHER_STATE,
        EngineError::Arena(ArenaError::Misaligned) => ARMLET_ERR_ALIGN,
        EngineError::Arena(_) => ARMLET_ERR_ARENA,
        _ => ARMLET_ERR_CONFIG,
    }
}

/// A status in a few words.
pub(super) fn text(status: i32) -> &'static core::ffi::CStr {
    const TEXTS: [(armlet_status, &core::ffi::CStr); 28] = [
        (ARMLET_OK, c"done"),
        (ARMLET_END, c"the model ended its turn"),
        (ARMLET_ERR_NULL, c"a pointer is NULL that must not be"),
        (ARMLET_ERR_ALIGN, c"a pointer is misaligned"),
        (ARMLET_ERR_OVERLAP, c"memory that the call writes overlaps other memory"),
        (ARMLET_ERR_LENGTH, c"a length exceeds the address space"),
        (ARMLET_ERR_STRUCT, c"struct_size differs from the size of this library's struct"),
        (ARMLET_ERR_ABI, c"the caller was compiled for another version of this interface"),
        (ARMLET_ERR_CONFIG, c"a value is out of range"),
        (ARMLET_ERR_BUDGET, c"the budget is too small for even the smallest KV cache"),
        (ARMLET_ERR_ARENA, c"the arena is smaller than the plan"),
        (ARMLET_ERR_BUFFER, c"an output buffer is too small"),
        (ARMLET_ERR_HANDLE, c"the pointer is not a context"),
        (ARMLET_ERR_MODEL, c"the model's file is malformed"),
        (ARMLET_ERR_UNSUPPORTED, c"the model is of a kind that is not supported"),
        (ARMLET_ERR_BACKEND, c"this CPU or this build has no such backend"),
        (ARMLET_ERR_TEXT, c"the text is not UTF-8 or too long"),
        (ARMLET_ERR_TOKEN, c"a token is not in the vocabulary"),
        (ARMLET_ERR_EMPTY, c"there are no tokens to prefill"),
        (ARMLET_ERR_FULL, c"the context is full"),
        (ARMLET_ERR_GONE, c"tokens so far back have been evicted"),
        (ARMLET_ERR_ORDER, c"there are no logits: prefill tokens first"),
        (ARMLET_ERR_NUMBER, c"a logit is NaN or infinite: the weights are damaged"),
        (ARMLET_ERR_CHAT, c"the vocabulary has the control tokens of no built-in chat format"),
        (ARMLET_ERR_STATE, c"not a saved state, or a damaged one"),
        (ARMLET_ERR_OTHER_STATE, c"the saved state belongs to another model or configuration"),
        (ARMLET_ERR_STOPPED, c"a callback asked to stop"),
        (ARMLET_ERR_BUSY, c"called from a callback"),
    ];
    TEXTS.iter().find(|(s, _)| *s as i32 == status).map_or(c"not a status of this library", |(_, text)| text)
}

/// A line for the log; a longer one is truncated.
pub(super) struct Line {
    bytes: [u8; 240],
    len: usize,
}

impl Line {
    pub(super) fn new(what: &impl fmt::Display) -> Self {
        let mut line = Line { bytes: [0; 240], len: 0 };
        // An error means that the line is full: the text is truncated.
        let _ = write!(line, "{what}");
        line
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.first_n(self.len)
    }
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            let room = self.bytes.get_mut(self.len..).filter(|room| room.len() >= c.len_utf8()).ok_or(fmt::Error)?;
            self.len += c.encode_utf8(room).len();
        }
        Ok(())
    }
}
