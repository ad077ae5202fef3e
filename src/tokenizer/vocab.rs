//! The tokens of a vocabulary: their texts, their kinds, and look-ups by text.

use super::byte_level::ByteChars;
use super::hash_index::{HashIndex, Roll, mix};
use crate::gguf::Array;

/// What a token stands for, with its number in `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Text.
    Normal = 1,
    /// Stands for text that no token expresses.
    Unknown = 2,
    /// A control token, such as the end of a turn. Plain text never encodes to one.
    Control = 3,
    /// Text that always becomes this one token.
    UserDefined = 4,
    /// Not used.
    Unused = 5,
    /// One byte, spelled `<0xHH>`.
    Byte = 6,
}

impl TokenKind {
    pub(super) fn from_id(id: i32) -> TokenKind {
        match id {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }

    /// Whether it is matched in a text before anything else; control and unknown tokens only if the caller allows it.
    pub(super) fn is_special(self) -> bool {
        matches!(self, TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined)
    }
}

/// The tokens: their texts stay in the file, the index is in the caller's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vocab<'m> {
    pub(super) tokens: Array<'m>,
    /// (tokens) byte offset of each token's text in `tokens`
    pub(super) offsets: &'m [u32],
    /// (tokens)
    pub(super) kinds: &'m [TokenKind],
    /// Token ids by the hash of their text.
    pub(super) index: HashIndex<'m>,
}

impl<'m> Vocab<'m> {
    /// A vocabulary whose index has not been built: it finds no token. For dry runs.
    pub(super) fn without_index(tokens: Array<'m>) -> Self {
        Vocab { tokens, offsets: &[], kinds: &[], index: HashIndex::EMPTY }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// What `token` stands for; [`TokenKind::Unused`] for an id beyond the vocabulary.
    pub(super) fn kind(&self, token: u32) -> TokenKind {
        self.kinds.get(token as usize).copied().unwrap_or(TokenKind::Unused)
    }

    /// The token's text as the file has it; empty for an id beyond the vocabulary.
    pub(super) fn text(&self, token: u32) -> &'m [u8] {
        self.offsets.get(token as usize).map_or(&[], |at| self.tokens.string_at(*at as usize))
    }

    /// The token whose text is exactly `text`.
    #[inline(never)]
    pub(super) fn find(&self, text: &[u8]) -> Option<u32> {
        self.find_joined(Roll::of(text), text, &[])
    }

    /// The token whose text is exactly these two together, given the roll of that.
    #[inline(never)]
    pub(super) fn find_joined(&self, roll: Roll, left: &[u8], right: &[u8]) -> Option<u32> {
        self.find_with(roll, &|known| known.strip_prefix(left) == Some(right))
    }

    /// The token that stands for `raw` in GPT-2's letters for bytes.
    #[inline(never)]
    pub(super) fn find_bytes(&self, raw: &[u8]) -> Option<u32> {
        let text = ByteChars::new(raw);
        self.find_with(Roll::of_bytes(text.clone()), &|known| known.iter().copied().eq(text.clone()))
    }

    /// The token whose text is `raw` with `▁` for each blank, given the roll of `raw`.
    #[inline(never)]
    pub(super) fn find_escaped(&self, roll: Roll, raw: &[u8]) -> Option<u32> {
        self.find_with(roll, &|text| spells(text, raw))
    }

    /// The token with this roll for whose text `is_it` is true.
    #[inline(never)]
    fn find_with(&self, roll: Roll, is_it: &dyn Fn(&[u8]) -> bool) -> Option<u32> {
        self.index.find(mix(roll.hash.into()), |id| is_it(self.text(id)))
    }
}

/// Whether `text` is `raw` with `▁` for each blank.
fn spells(text: &[u8], raw: &[u8]) -> bool {
    let mut parts = raw.split(|byte| *byte == b' ');
    let rest = parts.next().and_then(|first| text.strip_prefix(first));
    let rest = parts.fold(rest, |rest, part| rest?.strip_prefix("▁".as_bytes())?.strip_prefix(part));
    rest.is_some_and(<[u8]>::is_empty)
}
