//! What a caller chooses for one encoding.

use core::ops::Range;

/// How a text is to be encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions<'o> {
    /// Add the tokens that the model wants at the start and the end of a text.
    pub add_special: bool,
    /// Let text such as `<|im_end|>` become a control token. Off for text that a user wrote.
    pub parse_special: bool,
    /// Bytes of the text that never become control tokens all the same: what a user wrote inside a template.
    pub literal: &'o [Range<usize>],
}
