//! Conversations over one shared model.
//!
//! A [`Session`] is one conversation: what it has read, as keys and values. An [`Engine`] reads for it. One engine
//! serves any number of sessions, in turn or several in one pass, so that each of them costs its cache and no more.

#[allow(clippy::module_inception, reason = "the type `Engine` is what this layer is named after")]
mod engine;
mod plan;
mod session;
mod snapshot;

pub use engine::Engine;
pub use plan::{Config, Pattern, Plan};
pub use session::Session;
pub use snapshot::{Prefix, SnapshotError};

use crate::storage::ArenaError;

/// Why an engine or a session cannot be made, or a session cannot go on. Both stay usable after any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EngineError {
    /// A configuration that cannot be.
    #[error("{name} must be from {min} to {max}, not {value}")]
    Config {
        /// Which value.
        name: &'static str,
        /// What it was.
        value: usize,
        /// The least it can be.
        min: usize,
        /// The most it can be.
        max: usize,
    },
    /// The memory budget holds not even the smallest context.
    #[error("a budget of {budget} bytes is too small: a context of {least} tokens, the smallest, takes {needed}")]
    Budget {
        /// What was given.
        budget: usize,
        /// The least context.
        least: usize,
        /// What it takes.
        needed: usize,
    },
    /// The context is full.
    #[error(
        "the context is full: {used} tokens are in it, {more} more do not fit its {capacity}; use a larger -c or another --pattern"
    )]
    ContextFull {
        /// Tokens in it.
        used: u64,
        /// Tokens to add.
        more: usize,
        /// Tokens that it holds.
        capacity: u64,
    },
    /// A position that a session cannot be taken back to.
    #[error("the session cannot go back to token {position}: what it looked at has been given up; start anew")]
    Gone {
        /// The position.
        position: u64,
    },
    /// A prefix for a model in which some layers have a window of their own.
    #[error("a shared prefix is not supported for a model with sliding windows")]
    PrefixAndWindows,
    /// More tokens to score or to decode at once than were planned for.
    #[error("{asked} rows of logits are asked for, {planned} were planned")]
    LogitRows {
        /// Rows asked for.
        asked: usize,
        /// Rows planned.
        planned: usize,
    },
    /// A session of a model that is not the engine's.
    #[error("the session belongs to another model than the engine")]
    OtherModel,
    /// A batch that has not one token for each session.
    #[error("a batch takes one token for each session; there are {tokens} tokens for {sessions} sessions")]
    Batch {
        /// Sessions in it.
        sessions: usize,
        /// Tokens given.
        tokens: usize,
    },
    /// The caller asked to stop between two passes.
    #[error("it was asked to stop")]
    Stopped,
    /// Nothing to run.
    #[error("there are no tokens to run")]
    NoTokens,
    /// A token beyond the vocabulary.
    #[error("token {0} is not in the vocabulary")]
    UnknownToken(u32),
    /// Saved bytes.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The memory given.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}
