//! The union of the layers' errors, for a caller who only wants to say what went wrong.

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
    /// The file is no model that runs here.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The vocabulary or a text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A session.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The choice of a token.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The memory lent.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}
