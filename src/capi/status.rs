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

/// Why a function ends without success.
#[derive(Clone, Copy, Debug)]
pub(super) enum CallError {
    /// A status that says all there is to say.
    Plain(armlet_status),
    /// An error with numbers and names.
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
            | ModelError::TensorType { .. }
            | ModelError::PackVersion(_)
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

/// What a status means.
pub(super) fn text(status: i32) -> &'static core::ffi::CStr {
    const TEXTS: [(armlet_status, &core::ffi::CStr); 27] = [
        (ARMLET_OK, c"done"),
        (ARMLET_END, c"the model ended its turn"),
        (ARMLET_ERR_NULL, c"a pointer is NULL"),
        (ARMLET_ERR_ALIGN, c"a pointer is misaligned"),
        (ARMLET_ERR_OVERLAP, c"memory that is written overlaps other memory"),
        (ARMLET_ERR_LENGTH, c"a length is larger than any memory"),
        (ARMLET_ERR_STRUCT, c"struct_size is not that of this library"),
        (ARMLET_ERR_ABI, c"the caller was compiled for another version of this interface"),
        (ARMLET_ERR_CONFIG, c"a value is out of range"),
        (ARMLET_ERR_BUDGET, c"the budget holds not even the smallest cache"),
        (ARMLET_ERR_ARENA, c"the arena is smaller than the plan"),
        (ARMLET_ERR_BUFFER, c"an output has too little room"),
        (ARMLET_ERR_HANDLE, c"the pointer is no context"),
        (ARMLET_ERR_MODEL, c"the model's file is corrupt"),
        (ARMLET_ERR_UNSUPPORTED, c"the model is of a kind that cannot be run"),
        (ARMLET_ERR_BACKEND, c"this CPU or this build has no such backend"),
        (ARMLET_ERR_TEXT, c"the text is not UTF-8 or too long"),
        (ARMLET_ERR_TOKEN, c"a token is not in the vocabulary"),
        (ARMLET_ERR_EMPTY, c"there are no tokens to read"),
        (ARMLET_ERR_FULL, c"the context is full"),
        (ARMLET_ERR_GONE, c"what lies so far back has been given up"),
        (ARMLET_ERR_ORDER, c"there is nothing to go on from: read tokens first"),
        (ARMLET_ERR_NUMBER, c"the model computed something that is not a number"),
        (ARMLET_ERR_CHAT, c"the vocabulary has no built-in chat format"),
        (ARMLET_ERR_STATE, c"the saved state is damaged or none"),
        (ARMLET_ERR_OTHER_STATE, c"the saved state is of another model or configuration"),
        (ARMLET_ERR_STOPPED, c"a callback asked to stop"),
    ];
    TEXTS.iter().find(|(s, _)| *s as i32 == status).map_or(c"not a status of this library", |(_, text)| text)
}

/// A line for a log, cut where it gets too long.
pub(super) struct Line {
    bytes: [u8; 240],
    len: usize,
}

impl Line {
    pub(super) fn new(what: &impl fmt::Display) -> Self {
        let mut line = Line { bytes: [0; 240], len: 0 };
        // Too long a text is cut, and that is all.
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
