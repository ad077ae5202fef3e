//! Errors of plans, engines, sessions and snapshots.

use crate::boards::CommError;
use crate::storage::ArenaError;

/// Version of the file format of saved sessions and prefixes.
pub(super) const SNAPSHOT_VERSION: u32 = 2;

/// Why an engine or a session cannot be created, or tokens cannot be run. Both stay usable after any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EngineError {
    /// A configuration value out of range.
    #[error("{name} must be from {min} to {max}, not {value}")]
    Config {
        /// Which value.
        name: &'static str,
        /// What it was.
        value: usize,
        /// The smallest allowed.
        min: usize,
        /// The largest allowed.
        max: usize,
    },
    /// A KV cache in a format that this build leaves out.
    #[error("this build has no kernels for keys and values in binary32; choose the feature kv_f32")]
    KvType,
    /// The memory budget is too small for the smallest context.
    #[error("a budget of {budget} bytes is too small: the smallest context, {least} tokens, needs {needed} bytes")]
    Budget {
        /// Bytes given.
        budget: usize,
        /// The smallest context, in tokens.
        least: usize,
        /// Bytes it needs.
        needed: usize,
    },
    /// The context is full.
    #[error(
        "the context is full: it has {used} of {capacity} tokens, and {more} more do not fit; use a larger -c or another --pattern"
    )]
    ContextFull {
        /// Tokens in it.
        used: u64,
        /// Tokens to add.
        more: usize,
        /// Tokens that fit.
        capacity: u64,
    },
    /// A position to which a session cannot be rewound.
    #[error(
        "the session cannot be rewound to token {position}: tokens that it attended to have been evicted; start a new session"
    )]
    Gone {
        /// The position.
        position: u64,
    },
    /// A shared prefix for a model with sliding windows.
    #[error("a shared prefix is not supported for a model with sliding windows")]
    PrefixAndWindows,
    /// More rows of logits than planned, for scoring or for a batch.
    #[error("{asked} rows of logits were requested, but only {planned} are planned")]
    LogitRows {
        /// Rows asked for.
        asked: usize,
        /// Rows planned.
        planned: usize,
    },
    /// A session of another model than the engine's.
    #[error("the session belongs to another model than the engine")]
    OtherModel,
    /// A plan for another board, or for another number of them.
    #[error("the plan is not for this board of so many")]
    Shared,
    /// A model that several boards cannot share so.
    #[error("{0}; share the model by layers")]
    Split(&'static str),
    /// Several sessions at a time on several boards.
    #[error("several boards run one session at a time, not {0}")]
    SharedSessions(usize),
    /// Boards that do not go on together.
    #[error(transparent)]
    Boards(#[from] CommError),
    /// A batch without exactly one token for each session.
    #[error("a batch takes one token for each session, not {tokens} tokens for {sessions} sessions")]
    Batch {
        /// Sessions in it.
        sessions: usize,
        /// Tokens given.
        tokens: usize,
    },
    /// Stopped by the caller between two passes.
    #[error("stopped by the caller")]
    Stopped,
    /// Nothing to run.
    #[error("there are no tokens to run")]
    NoTokens,
    /// A token beyond the vocabulary.
    #[error("token {0} is not in the vocabulary")]
    UnknownToken(u32),
    /// A saved session or prefix.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The caller's memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// Why a saved session or prefix cannot be used. The session that was to be restored is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SnapshotError {
    /// No header of a saved session or prefix.
    #[error("it is not a saved session or prefix")]
    Magic,
    /// Another version of the file format.
    #[error("its format version is {0}; this program reads version {SNAPSHOT_VERSION}")]
    Version(u32),
    /// A prefix in place of a session (`true`), or the reverse.
    #[error("it is a saved {}, not a {}", kind(*.0), kind(!*.0))]
    Kind(bool),
    /// A checksum that does not match.
    #[error("its {0} is damaged: the checksum does not match")]
    Checksum(&'static str),
    /// Another length than the header gives.
    #[error("it has {len} bytes instead of {needed}: it was truncated or extended")]
    Truncated {
        /// Bytes that it should have.
        needed: u64,
        /// Bytes that there are.
        len: u64,
    },
    /// A model with other weights, sizes or rotation.
    #[error("it was saved with another model")]
    OtherModel,
    /// A KV cache of another size or format.
    #[error("it was saved with another {0}; use the options that it was saved with")]
    OtherShape(&'static str),
    /// Numbers that no session can have.
    #[error("its header has impossible values")]
    Impossible,
    /// A session that cannot be saved as a prefix.
    #[error("only a session that has read exactly its sinks can be saved as a prefix")]
    NotAPrefix,
}

fn kind(prefix: bool) -> &'static str {
    if prefix { "prefix" } else { "session" }
}
