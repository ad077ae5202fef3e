//! The tokenizer of a file: its vocabulary, and the rules by which text becomes tokens.

use super::hash_index::{HashIndex, MAX_VALUES, NONE, Roll, mix};
use super::mended::{BOS, EOS, Mended, SPECIAL, TokenizerWarning};
use super::merge::Merge;
use super::pretok::PreTokenizer;
use super::special::{self, Specials};
use super::vocab::{TokenKind, Vocab};
use crate::storage::unpadded;

/// How text becomes tokens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Algorithm {
    /// BPE over words of this kind, in bytes or, if their vocabularies spell text in characters, in these.
    Bpe { words: PreTokenizer },
    /// SentencePiece.
    SentencePiece { space_prefix: bool },
}

impl Algorithm {
    /// Whether the vocabulary has `▁` for a blank, and `<0xHH>` for a byte, rather than GPT-2's letters for bytes.
    pub(super) fn escapes_blanks(self) -> bool {
        match self {
            Algorithm::Bpe { words } => words.is_of_characters(),
            Algorithm::SentencePiece { .. } => true,
        }
    }
}

/// The most tokens of a vocabulary, so that three of them fit 64 bits, and the most merges.
pub(super) const MAX_TOKENS: usize = MAX_VALUES;

/// A merge of two tokens, as 21 bits each: the left one, the right one, both together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedMerge(u64);

unpadded!(PackedMerge: u64);

impl PackedMerge {
    /// Joins nothing.
    pub(super) const NOTHING: Self = PackedMerge(u64::MAX);

    pub(super) fn new(left: u32, right: u32, joined: u32) -> Self {
        Self(u64::from(left) << 42 | u64::from(right) << 21 | u64::from(joined))
    }

    /// The same for all merges of one pair.
    pub(super) fn pair(self) -> u64 {
        self.0 >> 21
    }

    fn joined(self) -> u32 {
        self.0 as u32 & MAX_TOKENS as u32
    }
}

/// The merges of BPE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merges<'m> {
    /// In the file's order, which is their rank.
    pub(super) list: &'m [PackedMerge],
    /// Ranks, by the hash of the pair.
    pub(super) index: HashIndex<'m>,
}

/// A tokenizer: its texts are in the file, its tables in the caller's memory.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'m> {
    pub(super) vocab: Vocab<'m>,
    pub(super) algorithm: Algorithm,
    /// (tokens) little-endian f32; empty for BPE, and in files without them
    pub(super) scores: &'m [[u8; 4]],
    /// Scores are i32.
    pub(super) whole_scores: bool,
    /// None for SentencePiece.
    pub(super) merges: Option<Merges<'m>>,
    pub(super) specials: Specials<'m>,
    /// (256) the token of each byte, or [`NONE`]
    pub(super) byte_tokens: &'m [u32],
    /// Tokens that end an answer.
    pub(super) end: &'m [u32],
    /// Little-endian i32: tokens that no answer has.
    pub(super) suppressed: &'m [[u8; 4]],
    /// Tokens by their keys, as [`SPECIAL`] has them.
    pub(super) special: [Option<u32>; SPECIAL.len()],
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    /// Control tokens take the white space behind them (Phi-3).
    pub(super) strips_after: bool,
    pub(super) is_smollm3: bool,
    pub(super) mended: Mended,
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
        self.special[BOS]
    }

    /// The EOS token, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.special[EOS]
    }

    /// Whether a text should start with [`bos`](Tokenizer::bos).
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos().is_some()
    }

    /// Whether [`EncodeOptions::add_special`](super::EncodeOptions) ends a text with [`eos`](Tokenizer::eos).
    pub fn adds_eos(&self) -> bool {
        self.add_eos && self.eos().is_some()
    }

    /// Whether `token` ends an answer.
    pub fn is_end(&self, token: u32) -> bool {
        self.end.contains(&token)
    }

    /// Tokens that must never be sampled (`tokenizer.ggml.suppress_tokens`). Ids beyond the vocabulary are left out.
    pub fn suppressed(&self) -> impl Iterator<Item = u32> + Clone + use<'m> {
        let n = self.vocab.len();
        self.suppressed.iter().map(|id| u32::from_le_bytes(*id)).filter(move |id| (*id as usize) < n)
    }

    /// Whether `token` must never be sampled.
    pub fn is_suppressed(&self, token: u32) -> bool {
        self.suppressed.contains(&token.to_le_bytes())
    }

    /// What the file lacks or has wrong, and what was assumed instead, as llama.cpp does.
    pub fn warnings(&self) -> impl Iterator<Item = TokenizerWarning> + use<'m> {
        self.mended.warnings(self.special)
    }

    /// The kind of `token`; [`TokenKind::Unused`] for an id beyond the vocabulary.
    pub fn kind(&self, token: u32) -> TokenKind {
        self.vocab.kind(token)
    }

    /// Whether only the special tokens of a template make `token`, and no text that a person writes.
    pub fn is_reserved(&self, token: u32) -> bool {
        let shown = || special::SHOWN.iter().any(|name| self.text(token) == name.as_bytes());
        matches!(self.kind(token), TokenKind::Control | TokenKind::Unknown) || shown()
    }

    /// The token's text as the file spells it; empty for an id beyond the vocabulary.
    pub fn text(&self, token: u32) -> &'m [u8] {
        self.vocab.text(token)
    }

    /// The token whose text in the file is exactly `text`.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        self.vocab.find(text)
    }

    /// The token of some bytes of a text, which the vocabulary spells in its own way.
    pub(super) fn find_raw(&self, raw: &[u8]) -> Option<u32> {
        if self.algorithm.escapes_blanks() {
            self.vocab.find_escaped(Roll::of(raw), raw)
        } else {
            self.vocab.find_bytes(raw)
        }
    }

    /// The merge of two tokens by BPE, if the file has it.
    pub(super) fn merge(&self, left: u32, right: u32) -> Option<Merge> {
        let Merges { list, index } = self.merges?;
        let wanted = PackedMerge::new(left, right, 0);
        let merge = |rank: u32| list.get(rank as usize).filter(|merge| merge.pair() == wanted.pair());
        let rank = index.find(mix(wanted.pair()), |rank| merge(rank).is_some())?;
        merge(rank).map(|merge| Merge { rank, value: merge.joined() })
    }

    /// The score of a SentencePiece token; 0 in a file without scores.
    pub(super) fn score(&self, token: u32) -> f32 {
        let score = self.scores.get(token as usize).copied().unwrap_or_default();
        if self.whole_scores { i32::from_le_bytes(score) as f32 } else { f32::from_le_bytes(score) }
    }

    /// The token of a single byte, if there is one.
    pub(super) fn byte_token(&self, byte: u8) -> Option<u32> {
        self.byte_tokens.get(usize::from(byte)).copied().filter(|t| *t != NONE)
    }
}
