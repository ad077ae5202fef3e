//! Options of the encoder.

use core::ops::Range;

/// Options of [`Tokenizer::encode`](super::Tokenizer::encode).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions<'o> {
    /// Add the BOS and EOS tokens, if the model asks for them.
    pub add_special: bool,
    /// Parse text such as `<|im_end|>` as a control token. Not for text that a user wrote.
    pub parse_special: bool,
    /// Byte ranges of the text in which control tokens are not parsed all the same: what a user wrote within a template.
    pub literal: &'o [Range<usize>],
}
