//! Text to tokens and back: byte-level BPE and SentencePiece, as the model's file describes them.
//!
//! The vocabulary's text stays in the file; its index is built in the arena. Encoding allocates nothing: it works in
//! scratch memory from the caller, whose size depends on the text. Token ids are those of llama.cpp, quirks included,
//! because models are trained and served with them.
//!
//! ```text
//! tokenizer    the tokenizer of a file
//! load         reads it from the file, builds its tables      pretok       pre-tokenisers of BPE: text to words
//! encode       text to tokens                                 merge        merges pairs of symbols, for BPE and
//! detok        tokens to text, whole characters only                       SentencePiece alike
//! special      finds special tokens in a text                 byte_level   how vocabularies spell bytes
//! vocab        tokens, kinds, look-ups by text                unicode      character classes
//! hash_index   a hash table of token ids                      chat         built-in chat formats
//! mended       what is wrong in a file and does no harm
//! ```

mod byte_level;
mod chat;
mod detok;
mod encode;
mod hash_index;
mod load;
mod mended;
mod merge;
mod options;
mod pretok;
mod special;
#[allow(clippy::module_inception, reason = "it is the file of the type that the folder is named after")]
mod tokenizer;
mod unicode;
mod vocab;

#[cfg(feature = "capi")]
pub(crate) use chat::MOST_ADDED;
pub use chat::{ChatFormat, Role, Turn};
pub use detok::Detokenizer;
pub use mended::TokenizerWarning;
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
    #[error("tokenizer model \"{0}\" is not supported; supported are gpt2 and gemma4 (BPE) and llama (SentencePiece)")]
    Model(Label),
    /// A pre-tokeniser that is not implemented; another one would give other tokens.
    #[error(
        "pre-tokeniser \"{0}\" is not known, so text would be split wrongly; if a known one splits alike, name it with \
         --override-kv tokenizer.ggml.pre=str:NAME"
    )]
    PreTokenizer(Label),
    /// A metadata entry that is missing, or of the wrong type or length.
    #[error("metadata key {0} is missing, or has the wrong type or length")]
    Key(&'static str),
    /// A token that is longer than any in a real vocabulary.
    #[error("token {0} has more than 4096 bytes; the file was made to be slow")]
    TokenTooLong(u32),
    /// Strings that collide in the hash index far more often than chance would make them.
    #[error("the strings of {0} have too many hash collisions to be indexed; the file was made to be slow")]
    TooManyCollisions(&'static str),
    /// The output is shorter than the tokens.
    #[error("the output has room for {0} tokens, and the text has more")]
    OutputTooSmall(usize),
    /// The scratch memory is too small.
    #[error(transparent)]
    Scratch(#[from] ArenaError),
    /// The text is too long for 32-bit positions.
    #[error("the text is longer than 1 GiB")]
    TextTooLong,
}
