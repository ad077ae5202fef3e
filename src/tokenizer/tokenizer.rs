//! The tokenizer of a file: its vocabulary, and the rules by which text becomes tokens.

use super::byte_level::{ByteChars, Escaped};
use super::hash_index::{HashIndex, NONE, hash};
use super::merge::Merge;
use super::pretok::PreTokenizer;
use super::special::Specials;
use super::vocab::{TokenKind, Vocab};
use crate::gguf::Array;

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Byte-level BPE, over words of this kind.
    Bpe { words: PreTokenizer, whole_words_first: bool },
    /// SentencePiece.
    SentencePiece { space_prefix: bool },
}

/// The merges of BPE, each spelled as the left token, a space, the right token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merges<'m> {
    pub(super) list: Array<'m>,
    /// Byte offsets of merges in the list, by the hash of their text. Earlier merges come first, so the offset serves as
    /// the rank.
    pub(super) index: HashIndex<'m>,
}

/// A tokenizer: its texts are in the file, its tables in the caller's memory.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'m> {
    pub(super) vocab: Vocab<'m>,
    pub(super) algorithm: Algorithm,
    /// (tokens) little-endian f32; empty for BPE
    pub(super) scores: &'m [u8],
    /// None for SentencePiece.
    pub(super) merges: Option<Merges<'m>>,
    pub(super) specials: Specials<'m>,
    /// (256) the token of each byte, or [`NONE`]
    pub(super) byte_tokens: &'m [u32],
    /// Tokens that end an answer.
    pub(super) end: &'m [u32],
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
}

impl<'m> Tokenizer<'m> {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.vocab.len()
    }

    /// Always false: a vocabulary has tokens.
    pub fn is_empty(&self) -> bool {
        self.vocab.len() == 0
    }

    /// The BOS token, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The EOS token, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether a text should start with [`bos`](Tokenizer::bos).
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// Whether `token` ends an answer.
    pub fn is_end(&self, token: u32) -> bool {
        self.end.contains(&token)
    }

    /// The kind of `token`; [`TokenKind::Unused`] for an id beyond the vocabulary.
    pub fn kind(&self, token: u32) -> TokenKind {
        self.vocab.kind(token)
    }

    /// The token's text as the file spells it; empty for an id beyond the vocabulary.
    pub fn text(&self, token: u32) -> &'m [u8] {
        self.vocab.text(token)
    }

    /// The token whose text in the file is exactly `text`.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        self.vocab.find(text.iter().copied())
    }

    /// The token of some bytes of a text, which the vocabulary spells in its own way.
    pub(super) fn find_raw(&self, raw: &[u8]) -> Option<u32> {
        match self.algorithm {
            Algorithm::Bpe { .. } => self.vocab.find(ByteChars::new(raw)),
            Algorithm::SentencePiece { .. } => self.vocab.find(Escaped::new(raw)),
        }
    }

    /// The merge of two tokens by BPE, if the file has it. A merge whose parts or result are no tokens joins nothing
    /// (rule V3).
    pub(super) fn merge(&self, left: u32, right: u32) -> Option<Merge> {
        let Merges { list, index } = self.merges?;
        let (left, right) = (self.text(left), self.text(right));
        let text = left.iter().chain(b" ").chain(right).copied();
        let rank = index.find(hash(text), |at| split_merge(list.string_at(at as usize)) == Some((left, right)))?;
        Some(Merge { rank, token: self.vocab.find(left.iter().chain(right).copied())? })
    }

    /// The score of a SentencePiece token; the lowest for a token without one.
    pub(super) fn score(&self, token: u32) -> f32 {
        self.scores.as_chunks::<4>().0.get(token as usize).map_or(f32::NEG_INFINITY, |s| f32::from_le_bytes(*s))
    }

    /// The token of a single byte, if there is one.
    pub(super) fn byte_token(&self, byte: u8) -> Option<u32> {
        self.byte_tokens.get(usize::from(byte)).copied().filter(|t| *t != NONE)
    }
}

/// The two parts of a merge. A part may itself start with a space, but is not empty.
fn split_merge(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = 1 + text.get(1..)?.iter().position(|b| *b == b' ')?;
    Some((text.get(..blank)?, text.get(blank + 1..).filter(|right| !right.is_empty())?))
}
