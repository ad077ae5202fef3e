//! Text to tokens and back: byte-level BPE and SentencePiece, as the model's file describes them.
//!
//! The vocabulary stays in the file; only its index lies in the arena. Encoding allocates nothing: it works in scratch
//! memory from the caller, as long as the text needs. Token ids are those of llama.cpp, quirks included, for a model
//! was trained and is served with them.
//!
//! ```text
//! load       from a file to a vocabulary                        hash_index   numbers by the hash of a text
//! vocab      tokens, their kinds, and look-ups by text          byte_level   how vocabularies write bytes
//! special    cuts special tokens out of a text                  pretok       BPE: text to words
//! merge      joins symbols pair by pair: the one                unicode      character classes
//!            algorithm behind BPE and SentencePiece             chat         built-in chat formats
//! detok      bytes to characters, never splitting one
//! ```

mod byte_level;
mod chat;
mod detok;
mod encode;
mod hash_index;
mod load;
mod merge;
mod options;
mod pretok;
mod special;
mod tokenizer;
mod unicode;
mod vocab;

pub use chat::{ChatFormat, Role, Turn};
pub use detok::Detokenizer;
pub use options::EncodeOptions;
pub use pretok::{PreTokenizer, Words};
pub use tokenizer::Tokenizer;
pub use vocab::TokenKind;

use crate::gguf::Label;
use crate::storage::ArenaError;

/// Why a vocabulary or a text cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TokenizerError {
    /// A tokenizer that is not implemented.
    #[error("tokenizer model \"{0}\" is not supported; supported are gpt2 (BPE) and llama (SentencePiece)")]
    Model(Label),
    /// A pre-tokeniser that is not implemented; another one would give other tokens.
    #[error("pre-tokeniser \"{0}\" is not supported; supported are gpt-2, smollm, llama-bpe, qwen2 and default")]
    PreTokenizer(Label),
    /// A metadata entry that is missing, or of the wrong type or length.
    #[error("metadata key {0} is missing, or has the wrong type or length")]
    Key(&'static str),
    /// A special token beyond the vocabulary, or a byte token that is not `<0xHH>`.
    #[error("metadata key {0} names a token that is not there")]
    Token(&'static str),
    /// Strings that were chosen to collide in a hash table: no accident.
    #[error("the strings of {0} would take too long to index; the file was made for that")]
    TooManyCollisions(&'static str),
    /// The output is shorter than the tokens.
    #[error("the text has more than {0} tokens")]
    OutputTooSmall(usize),
    /// The scratch memory is too small.
    #[error(transparent)]
    Scratch(#[from] ArenaError),
    /// The text is too long to number its bytes.
    #[error("the text is longer than 1 GiB")]
    TextTooLong,
}
