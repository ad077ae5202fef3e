//! Why a model cannot be used.

use core::fmt;

use crate::gguf::{Label, TensorType};
use crate::quant::PACK_VERSION;
use crate::storage::ArenaError;
use crate::tokenizer::TokenizerError;

/// Why a model cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ModelError {
    /// A model family that is not supported.
    #[error("architecture \"{0}\" is not supported; README.md lists those that are")]
    Architecture(Label),
    /// A metadata entry that the model needs.
    #[error("metadata key {0} is missing or has the wrong type")]
    Key(Label),
    /// A metadata entry with a value out of range.
    #[error("metadata key {0} has an impossible value")]
    Value(Label),
    /// A metadata entry with a value that some model of this kind could have, and that is not supported.
    #[error("metadata key {0} has a value that is not supported for this architecture")]
    UnsupportedKey(Label),
    /// A feature that would change the result if it were left out.
    #[error("{0} is not supported")]
    Feature(&'static str),
    /// A scale of a matrix that is an embedding.
    #[error("tensor {0} is the scale of an embedding, which is not supported")]
    TensorScale(Label),
    /// A tensor that the model needs.
    #[error("tensor {0} is missing")]
    MissingTensor(Label),
    /// A tensor that would change the result.
    #[error("tensor {0} has no place in this architecture")]
    UnknownTensor(Label),
    /// A tensor type without kernels.
    #[error("tensor {tensor} has type {kind}, which {}", kind.why_not())]
    TensorType {
        /// Its name.
        tensor: Label,
        /// Its type.
        kind: TensorType,
    },
    /// A packed file in a layout that armlet does not know.
    #[error("the file is packed in layout {0}, not {known}; pack the original file again", known = PACK_VERSION)]
    PackVersion(u64),
    /// A packed tensor that is not a matrix.
    #[error("tensor {tensor} has type {kind}, but only matrices may be packed; use the original file")]
    Packed {
        /// Its name.
        tensor: Label,
        /// Its type.
        kind: TensorType,
    },
    /// A packed tensor of several matrices, of which one ends within a panel.
    #[error("tensor {0} is packed so that its parts cannot be told apart; use the original file")]
    Panels(Label),
    /// A tensor whose shape does not fit the hyper-parameters.
    #[error("tensor {tensor} has shape {}, but the hyper-parameters say {}", Shape(found), Shape(expected))]
    TensorShape {
        /// Its name.
        tensor: Label,
        /// Columns and rows that the hyper-parameters give.
        expected: [u64; 2],
        /// Its dimensions in the file, columns first.
        found: [u64; 4],
    },
    /// The vocabulary.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The caller's memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// Numbers as their `Debug` shows them, in less code.
struct Shape<'d>(&'d [u64]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "[";
        for dim in self.0 {
            f.write_str(before)?;
            fmt::Display::fmt(dim, f)?;
            before = ", ";
        }
        f.write_str("]")
    }
}
