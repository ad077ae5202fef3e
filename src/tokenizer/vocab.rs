//! The vocabulary of a file, and an index of it in the arena.

use super::pretok::PreTokenizer;
use super::{TokenizerError, special};
use crate::gguf::{Array, File, Label, Value, ValueType};
use crate::storage::{Arena, ArenaError, unpadded};

/// No token.
pub(super) const NONE: u32 = u32::MAX;

/// What a token stands for, with its number in `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Normal = 1,
    /// What cannot be expressed.
    Unknown = 2,
    /// A mark with a meaning to the model, as the end of a turn. No plain text makes one.
    Control = 3,
    /// Text that is always one token.
    UserDefined = 4,
    /// Nothing.
    Unused = 5,
    /// One byte, written `<0xHH>`.
    Byte = 6,
}

impl Kind {
    fn from_id(id: i64) -> Kind {
        match id {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => Kind::Normal,
        }
    }

    /// Whether it is cut out of a text before anything else; control tokens only when asked for.
    pub(super) fn is_special(self) -> bool {
        matches!(self, Kind::Unknown | Kind::Control | Kind::UserDefined)
    }
}

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Byte-level BPE, over words of this kind.
    Bpe { words: PreTokenizer, whole_words_first: bool },
    /// SentencePiece.
    SentencePiece { space_prefix: bool },
}

/// A pair of tokens that BPE joins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merge {
    left: u32,
    right: u32,
    rank: u32,
    result: u32,
}

unpadded!(Merge: [u32; 4]);

impl Merge {
    const EMPTY: Merge = Merge { left: NONE, right: NONE, rank: NONE, result: NONE };
}

/// A vocabulary: text in the file, index in the caller's memory.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'m> {
    pub(super) algorithm: Algorithm,
    /// The file's strings, each with its length before it.
    text: &'m [u8],
    /// (vocab) where each token's length starts in `text`
    offsets: &'m [u32],
    /// (vocab)
    kinds: &'m [Kind],
    /// (vocab) little-endian f32; empty for BPE
    scores: &'m [u8],
    /// Open-addressed: token ids by the hash of their text.
    index: &'m [u32],
    /// Open-addressed: merges by the hash of their pair.
    merges: &'m [Merge],
    /// Tokens that are cut out of a text, longest first.
    pub(super) specials: &'m [u32],
    /// (256) the token of each byte
    bytes: &'m [u32],
    /// Tokens that end an answer.
    end: &'m [u32],
    len: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    /// End of a turn and of a message, where the file names them.
    turn_end: [Option<u32>; 2],
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
}

impl<'m> Tokenizer<'m> {
    /// Checks the vocabulary of `file` (rules V1 to V5) and builds its index.
    ///
    /// # Errors
    /// [`TokenizerError`].
    pub fn new<'a>(file: &File<'m>, arena: &mut Arena<'a>) -> Result<Tokenizer<'a>, TokenizerError>
    where
        'm: 'a,
    {
        let tokens = array(file, "tokenizer.ggml.tokens", ValueType::String)?;
        let len = tokens.len();
        // Ids and offsets are u32.
        if tokens.is_empty() || u32::try_from(tokens.bytes().len()).is_err() {
            return Err(TokenizerError::Key("tokenizer.ggml.tokens"));
        }
        let algorithm = algorithm(file)?;
        let (merges, scores) = match algorithm {
            Algorithm::Bpe { .. } => (Some(array(file, "tokenizer.ggml.merges", ValueType::String)?), None),
            Algorithm::SentencePiece { .. } => (None, Some(array(file, "tokenizer.ggml.scores", ValueType::F32)?)),
        };
        if scores.is_some_and(|s| s.len() != len) {
            return Err(TokenizerError::Key("tokenizer.ggml.scores"));
        }
        let types = match file.get("tokenizer.ggml.token_type") {
            Some(_) => Some(array(file, "tokenizer.ggml.token_type", ValueType::I32)?),
            None => None,
        };
        if types.is_some_and(|t| t.len() != len) {
            return Err(TokenizerError::Key("tokenizer.ggml.token_type"));
        }
        let defaults = Defaults::new(algorithm);
        let kinds = || kinds(tokens, types);
        let specials = || (0..).zip(kinds()).filter(|(_, k)| k.is_special()).map(|(id, _)| id);
        let end = || (0..).zip(tokens.strings()).filter(|(_, text)| special::ends_an_answer(text)).map(|(id, _)| id);

        let mut tokenizer = Tokenizer {
            algorithm,
            text: tokens.bytes(),
            offsets: collect(arena, "token offsets", len, offsets(tokens))?,
            kinds: collect(arena, "token kinds", len, kinds())?,
            scores: scores.map_or(&[], |s| s.bytes()),
            index: &[],
            merges: &[],
            specials: &[],
            bytes: &[],
            end: collect(arena, "end tokens", end().count(), end())?,
            len,
            bos: special_id(file, "tokenizer.ggml.bos_token_id", defaults.bos, len)?,
            eos: special_id(file, "tokenizer.ggml.eos_token_id", defaults.eos, len)?,
            turn_end: [
                special_id(file, "tokenizer.ggml.eot_token_id", None, len)?,
                special_id(file, "tokenizer.ggml.eom_token_id", None, len)?,
            ],
            add_bos: flag(file, "tokenizer.ggml.add_bos_token", defaults.add_bos)?,
            add_eos: flag(file, "tokenizer.ggml.add_eos_token", false)?,
        };
        let longest_first = collect(arena, "special tokens", specials().count(), specials())?;
        longest_first.sort_unstable_by_key(|id| (core::cmp::Reverse(tokenizer.text(*id).len()), *id));
        tokenizer.specials = longest_first;
        let index = arena.build("token index", table_len(len), |_| Ok::<_, ArenaError>(NONE))?;
        tokenizer.fill_index(index);
        tokenizer.index = index;
        if let Some(merges) = merges {
            let table = arena.build("merges", table_len(merges.len()), |_| Ok::<_, ArenaError>(Merge::EMPTY))?;
            tokenizer.fill_merges(merges, table);
            tokenizer.merges = table;
        }
        let unknown = match algorithm {
            Algorithm::Bpe { .. } => None,
            Algorithm::SentencePiece { .. } => special_id(file, "tokenizer.ggml.unknown_token_id", Some(0), len)?,
        };
        let bytes = arena.build("byte tokens", 256, |b| tokenizer.find_byte_token(b as u8))?;
        if let Some(unknown) = unknown {
            // Without a full set, what is missing becomes the unknown token.
            bytes.iter_mut().filter(|b| **b == NONE).for_each(|b| *b = unknown);
        }
        tokenizer.bytes = bytes;
        Ok(tokenizer)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a vocabulary has tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The token that starts a text, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether a text is to start with [`bos`](Tokenizer::bos).
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// Whether `token` ends an answer.
    pub fn is_end(&self, token: u32) -> bool {
        self.eos == Some(token) || self.turn_end.contains(&Some(token)) || self.end.contains(&token)
    }

    /// What `token` stands for.
    pub fn kind(&self, token: u32) -> Kind {
        self.kinds.get(token as usize).copied().unwrap_or(Kind::Unused)
    }

    /// The token's text as the file has it.
    pub fn text(&self, token: u32) -> &'m [u8] {
        let at = |at: usize| self.text.get(at..);
        let entry = self.offsets.get(token as usize).and_then(|at_len| at(*at_len as usize));
        let Some((len, text)) = entry.and_then(|e| e.split_first_chunk::<8>()) else { return &[] };
        usize::try_from(u64::from_le_bytes(*len)).ok().and_then(|len| text.get(..len)).unwrap_or(&[])
    }

    /// The token whose text in the file is exactly `text`.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        self.find_bytes(text.iter().copied())
    }

    /// The token of some bytes of a prompt, or of a word.
    pub(super) fn find_raw(&self, raw: &[u8]) -> Option<u32> {
        match self.algorithm {
            Algorithm::Bpe { .. } => self.find_bytes(ByteChars::new(raw)),
            Algorithm::SentencePiece { .. } => self.find_bytes(Escaped::new(raw)),
        }
    }

    /// The rank and result of joining two tokens by BPE.
    pub(super) fn merge(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        probe(self.merges.len(), hash_pair(left, right))
            .map_while(|i| self.merges.get(i).filter(|m| m.rank != NONE))
            .find(|m| m.left == left && m.right == right)
            .map(|m| (m.rank, m.result))
    }

    /// The score of a SentencePiece token.
    pub(super) fn score(&self, token: u32) -> f32 {
        self.scores.as_chunks::<4>().0.get(token as usize).map_or(f32::NEG_INFINITY, |s| f32::from_le_bytes(*s))
    }

    /// The token of one byte, if there is one.
    pub(super) fn byte_token(&self, byte: u8) -> Option<u32> {
        self.bytes.get(usize::from(byte)).copied().filter(|t| *t != NONE)
    }

    fn find_bytes(&self, text: impl Iterator<Item = u8> + Clone) -> Option<u32> {
        probe(self.index.len(), hash(text.clone()))
            .map_while(|i| self.index.get(i).copied().filter(|id| *id != NONE))
            .find(|id| self.text(*id).iter().copied().eq(text.clone()))
    }

    /// Later tokens win over earlier ones of the same text, as in llama.cpp.
    fn fill_index(&self, index: &mut [u32]) {
        if index.is_empty() {
            return;
        }
        for id in 0..self.len as u32 {
            let text = self.text(id);
            if text.is_empty() {
                continue;
            }
            for i in probe(index.len(), hash(text.iter().copied())) {
                let Some(slot) = index.get_mut(i) else { break };
                if *slot == NONE || self.text(*slot) == text {
                    *slot = id;
                    break;
                }
            }
        }
    }

    /// Earlier merges win over later ones of the same pair. One whose parts or result are no tokens can never join
    /// anything and is left out (rule V3).
    fn fill_merges(&self, merges: Array<'_>, table: &mut [Merge]) {
        if table.is_empty() {
            return;
        }
        for (rank, text) in (0..).zip(merges.strings()) {
            let Some(merge) = self.parse_merge(text, rank) else { continue };
            for i in probe(table.len(), hash_pair(merge.left, merge.right)) {
                let Some(slot) = table.get_mut(i) else { break };
                if slot.rank == NONE {
                    *slot = merge;
                    break;
                }
                if (slot.left, slot.right) == (merge.left, merge.right) {
                    break;
                }
            }
        }
    }

    fn parse_merge(&self, text: &[u8], rank: u32) -> Option<Merge> {
        // A part may itself start with a blank, but is not empty.
        let blank = 1 + text.get(1..)?.iter().position(|b| *b == b' ')?;
        let (left, right) = (text.get(..blank)?, text.get(blank + 1..)?);
        let joined = left.iter().chain(right).copied();
        Some(Merge { left: self.find(left)?, right: self.find(right)?, rank, result: self.find_bytes(joined)? })
    }

    /// Rule V2: a byte token of SentencePiece is `<0xHH>` and nothing else.
    fn find_byte_token(&self, byte: u8) -> Result<u32, TokenizerError> {
        let found = match self.algorithm {
            Algorithm::Bpe { .. } => self.find_raw(&[byte]),
            Algorithm::SentencePiece { .. } => {
                let hex = |n: u8| b"0123456789ABCDEF"[usize::from(n & 15)];
                self.find(&[b'<', b'0', b'x', hex(byte >> 4), hex(byte), b'>'])
            }
        };
        Ok(found.unwrap_or(NONE))
    }
}

/// Defaults of special tokens, as llama.cpp has them; rule V1 checks them like the file's own.
struct Defaults {
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
}

impl Defaults {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Bpe { words, .. } => Self { bos: None, eos: None, add_bos: words == PreTokenizer::LlamaBpe },
            Algorithm::SentencePiece { .. } => Self { bos: Some(1), eos: Some(2), add_bos: true },
        }
    }
}

fn algorithm(file: &File<'_>) -> Result<Algorithm, TokenizerError> {
    let string = |key| match file.get(key) {
        Some(Value::String(s)) => Ok(s),
        _ => Err(TokenizerError::Key(key)),
    };
    match string("tokenizer.ggml.model")? {
        b"gpt2" => {
            let name = string("tokenizer.ggml.pre")?;
            let words = core::str::from_utf8(name).ok().and_then(PreTokenizer::from_name);
            let words = words.ok_or(TokenizerError::PreTokenizer(Label::from_bytes(name)))?;
            Ok(Algorithm::Bpe { words, whole_words_first: words == PreTokenizer::LlamaBpe })
        }
        b"llama" => {
            let space_prefix = flag(file, "tokenizer.ggml.add_space_prefix", true)?;
            Ok(Algorithm::SentencePiece { space_prefix })
        }
        other => Err(TokenizerError::Model(Label::from_bytes(other))),
    }
}

fn array<'m>(file: &File<'m>, key: &'static str, kind: ValueType) -> Result<Array<'m>, TokenizerError> {
    match file.get(key) {
        Some(Value::Array(a)) if a.kind() == kind => Ok(a),
        _ => Err(TokenizerError::Key(key)),
    }
}

fn flag(file: &File<'_>, key: &'static str, default: bool) -> Result<bool, TokenizerError> {
    match file.get(key) {
        None => Ok(default),
        Some(Value::Bool(b)) => Ok(b),
        Some(_) => Err(TokenizerError::Key(key)),
    }
}

/// Rule V1. A default beyond the vocabulary counts as none.
fn special_id(
    file: &File<'_>,
    key: &'static str,
    default: Option<u32>,
    len: usize,
) -> Result<Option<u32>, TokenizerError> {
    match file.get(key) {
        None => Ok(default.filter(|id| (*id as usize) < len)),
        Some(Value::Unsigned(id)) if id < len as u64 => Ok(Some(id as u32)),
        Some(Value::Unsigned(_)) => Err(TokenizerError::Token(key)),
        Some(_) => Err(TokenizerError::Key(key)),
    }
}

/// Where each string's length starts.
fn offsets<'m>(tokens: Array<'m>) -> impl Iterator<Item = u32> + use<'m> {
    tokens.strings().scan(0u32, |at, s| {
        let start = *at;
        // The whole array is shorter than 2³².
        *at += 8 + s.len() as u32;
        Some(start)
    })
}

/// Kinds as the file has them, but for tokens whose names mark them as control tokens whatever their type says.
fn kinds<'m>(tokens: Array<'m>, types: Option<Array<'m>>) -> impl Iterator<Item = Kind> + use<'m> {
    let types = types.into_iter().flat_map(|t| t.iter()).map(|v| if let Value::Signed(n) = v { n } else { 1 });
    tokens
        .strings()
        .zip(types.chain(core::iter::repeat(1)))
        .map(|(text, id)| if special::is_control_name(text) { Kind::Control } else { Kind::from_id(id) })
}

fn collect<'a, T: Copy>(
    arena: &mut Arena<'a>,
    name: &'static str,
    n: usize,
    mut items: impl Iterator<Item = T>,
) -> Result<&'a mut [T], TokenizerError> {
    // The iterators here yield `n` items: the file was checked to have them.
    arena.build(name, n, |_| items.next().ok_or(TokenizerError::Key(name)))
}

/// Slots of an open-addressed table: two thirds full.
fn table_len(n: usize) -> usize {
    n + n / 2 + 1
}

/// The places of a table to look at for a hash, in order; each once.
fn probe(len: usize, hash: u64) -> impl Iterator<Item = usize> {
    // The high bits choose the place, so that any length will do (Lemire 2019, arXiv 1805.10941).
    let start = ((u128::from(hash) * len as u128) >> 64) as usize;
    (start..len).chain(0..start)
}

/// FNV-1a, with a last multiplication to spread it to the high bits.
fn hash(text: impl Iterator<Item = u8>) -> u64 {
    let h = text.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (h ^ (h >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn hash_pair(left: u32, right: u32) -> u64 {
    let h = (u64::from(left) << 32 | u64::from(right)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (h ^ (h >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The character that stands for a byte in a byte-level vocabulary: itself where it prints, else one from U+0100 on.
pub(super) fn byte_char(byte: u8) -> char {
    let shifted = |first: u8, base: u32| char::from_u32(base + u32::from(byte - first)).unwrap_or('\0');
    match byte {
        0..=32 => shifted(0, 256),
        127..=160 => shifted(127, 256 + 33),
        173 => '\u{143}',
        printable => char::from(printable),
    }
}

/// The byte that a character of a byte-level vocabulary stands for.
pub(super) fn char_byte(c: char) -> Option<u8> {
    let byte = match u32::from(c) {
        n @ 256..=288 => n - 256,
        n @ 289..=322 => n - 289 + 127,
        323 => 173,
        n => n,
    };
    u8::try_from(byte).ok().filter(|b| byte_char(*b) == c)
}

/// Raw bytes as a byte-level vocabulary writes them.
#[derive(Clone)]
struct ByteChars<'t> {
    raw: core::slice::Iter<'t, u8>,
    second: Option<u8>,
}

impl<'t> ByteChars<'t> {
    fn new(raw: &'t [u8]) -> Self {
        Self { raw: raw.iter(), second: None }
    }
}

impl Iterator for ByteChars<'_> {
    type Item = u8;
    fn next(&mut self) -> Option<u8> {
        if let Some(byte) = self.second.take() {
            return Some(byte);
        }
        let mut utf8 = [0; 4];
        let encoded = byte_char(*self.raw.next()?).encode_utf8(&mut utf8).as_bytes();
        self.second = encoded.get(1).copied();
        encoded.first().copied()
    }
}

/// Raw bytes as SentencePiece writes them: `▁` for a blank.
#[derive(Clone)]
pub(super) struct Escaped<'t> {
    raw: core::slice::Iter<'t, u8>,
    rest: &'static [u8],
}

impl<'t> Escaped<'t> {
    pub(super) fn new(raw: &'t [u8]) -> Self {
        Self { raw: raw.iter(), rest: &[] }
    }
}

impl Iterator for Escaped<'_> {
    type Item = u8;
    fn next(&mut self) -> Option<u8> {
        if let Some((first, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Some(*first);
        }
        match self.raw.next()? {
            b' ' => {
                self.rest = &"▁".as_bytes()[1..];
                Some("▁".as_bytes()[0])
            }
            byte => Some(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn bytes_and_their_characters_go_round() {
        for byte in 0..=255 {
            assert_eq!(char_byte(byte_char(byte)), Some(byte));
        }
        assert_eq!((byte_char(b' '), byte_char(b'\n'), byte_char(b'a')), ('Ġ', 'Ċ', 'a'));
        assert_eq!((char_byte('\u{144}'), char_byte('漢'), char_byte(' ')), (None, None, None));
    }

    #[test]
    fn a_table_is_probed_everywhere_once() {
        let mut seen: Vec<usize> = probe(7, u64::MAX / 2).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(probe(0, 5).count(), 0);
    }
}
