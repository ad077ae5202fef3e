//! The union of the layers' errors, for callers that only report them.

use crate::engine::EngineError;
use crate::gguf::GgufError;
use crate::model::ModelError;
use crate::sample::SampleError;
use crate::storage::ArenaError;
use crate::tokenizer::TokenizerError;

/// Any error of the core. Each is `Copy` and says which key, tensor or byte it is about.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The file is malformed.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The model is not supported, or its tensors and hyper-parameters do not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The vocabulary or a text cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A plan, an engine or a session.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Sampling a token.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The caller's memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}
