//! Reads a tokenizer from a file: checks its metadata, and builds its tables in the arena.

use super::TokenizerError;
use super::hash_index::{Builder, HashIndex, NONE, TooManyCollisions, hash};
use super::pretok::PreTokenizer;
use super::special::{self, Specials};
use super::tokenizer::{Algorithm, Merges, Tokenizer};
use super::vocab::{TokenKind, Vocab};
use crate::gguf::{Array, File, Label, Value, ValueType};
use crate::storage::{Arena, ArenaError};
use crate::util::SliceExt;

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Keys of the tokens that end an answer, besides EOS.
const END: [&str; 5] = [
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

impl<'m> Tokenizer<'m> {
    /// Checks the vocabulary of `file` (rules V1 to V5) and builds its index in the arena, in time linear in the
    /// vocabulary but for the sorting of its special tokens.
    ///
    /// # Errors
    /// [`TokenizerError`]. A dry run reads no token's text, so it cannot find [`TokenizerError::TooManyCollisions`].
    pub fn new<'a>(file: &File<'m>, arena: &mut Arena<'a>) -> Result<Tokenizer<'a>, TokenizerError>
    where
        'm: 'a,
    {
        let source = Source::new(file)?;
        let tables = Tables::carve(&source, arena)?;
        let mut tokenizer = source.tokenizer();
        if arena.is_dry() {
            return Ok(tokenizer);
        }
        let vocab = &mut tokenizer.vocab;
        let mut index = tables.index;
        index_tokens(source.tokens, tables.offsets, &mut index)
            .map_err(|TooManyCollisions| TokenizerError::TooManyCollisions(TOKENS))?;
        (vocab.offsets, vocab.index) = (tables.offsets, index.finish());
        let indexed = *vocab;
        let named = || special::named(|name| indexed.find(name.bytes()));
        for token in named() {
            if let Some(kind) = tables.kinds.get_mut(token.id as usize) {
                *kind = TokenKind::Control;
            }
        }
        vocab.kinds = tables.kinds;
        let named_ends = named().filter(|token| token.ends_answer).map(|token| token.id);
        tokenizer.end = fill(tables.end, source.end.into_iter().flatten().chain(named_ends));
        tokenizer.specials = Specials::new(&tokenizer.vocab, tables.special_ids, tables.special_prefixes);
        if let (Some(list), Some(mut index)) = (source.merges, tables.merges) {
            index_merges(list, &mut index).map_err(|TooManyCollisions| TokenizerError::TooManyCollisions(MERGES))?;
            tokenizer.merges = Some(Merges { list, index: index.finish() });
        }
        for (byte, slot) in (0..=255).zip(&mut *tables.byte_tokens) {
            *slot = tokenizer.find_byte(byte).or(source.unknown).unwrap_or(NONE);
        }
        tokenizer.byte_tokens = tables.byte_tokens;
        Ok(tokenizer)
    }

    /// Rule V2: a byte token of SentencePiece is `<0xHH>` and nothing else.
    fn find_byte(&self, byte: u8) -> Option<u32> {
        match self.algorithm {
            Algorithm::Bpe { .. } => self.find_raw(&[byte]),
            Algorithm::SentencePiece { .. } => {
                let hex = |n: u8| b"0123456789ABCDEF"[usize::from(n & 15)];
                self.find(&[b'<', b'0', b'x', hex(byte >> 4), hex(byte), b'>'])
            }
        }
    }
}

/// What the file says of its tokenizer, checked.
struct Source<'m> {
    algorithm: Algorithm,
    tokens: Array<'m>,
    /// BPE only.
    merges: Option<Array<'m>>,
    /// (tokens) SentencePiece only.
    scores: Option<Array<'m>>,
    /// (tokens) little-endian i32; empty if all are normal
    types: &'m [[u8; 4]],
    bos: Option<u32>,
    eos: Option<u32>,
    /// Tokens that end an answer by their keys.
    end: [Option<u32>; 1 + END.len()],
    /// SentencePiece only: stands for a byte that has no token.
    unknown: Option<u32>,
    add_bos: bool,
    add_eos: bool,
}

impl<'m> Source<'m> {
    fn new(file: &File<'m>) -> Result<Self, TokenizerError> {
        let tokens = list(file, TOKENS, ValueType::String)?;
        let len = tokens.len();
        if tokens.is_empty() {
            return Err(TokenizerError::Key(TOKENS));
        }
        let algorithm = algorithm(file)?;
        let (merges, scores) = match algorithm {
            Algorithm::Bpe { .. } => (Some(list(file, MERGES, ValueType::String)?), None),
            Algorithm::SentencePiece { .. } => (None, Some(list(file, SCORES, ValueType::F32)?)),
        };
        let types = file.get(TYPES).map(|_| list(file, TYPES, ValueType::I32)).transpose()?;
        for (list, key) in [(scores, SCORES), (types, TYPES)] {
            if list.is_some_and(|list| list.len() != len) {
                return Err(TokenizerError::Key(key));
            }
        }
        let defaults = Defaults::new(algorithm);
        let eos = special_id(file, "tokenizer.ggml.eos_token_id", defaults.eos, len)?;
        let mut end = [eos; 1 + END.len()];
        for (id, key) in end.iter_mut().skip(1).zip(END) {
            *id = special_id(file, key, None, len)?;
        }
        let unknown = match algorithm {
            Algorithm::Bpe { .. } => None,
            Algorithm::SentencePiece { .. } => special_id(file, "tokenizer.ggml.unknown_token_id", Some(0), len)?,
        };
        Ok(Source {
            algorithm,
            tokens,
            merges,
            scores,
            types: types.map_or(&[][..], |types| types.bytes()).as_chunks::<4>().0,
            bos: special_id(file, "tokenizer.ggml.bos_token_id", defaults.bos, len)?,
            eos,
            end,
            unknown,
            add_bos: flag(file, "tokenizer.ggml.add_bos_token", defaults.add_bos)?,
            add_eos: flag(file, "tokenizer.ggml.add_eos_token", false)?,
        })
    }

    /// The kind that the file gives token `id`.
    fn kind(&self, id: usize) -> TokenKind {
        self.types.get(id).map_or(TokenKind::Normal, |bytes| TokenKind::from_id(i32::from_le_bytes(*bytes)))
    }

    /// The most special tokens that there can be: those by type, and those by name.
    fn max_specials(&self) -> usize {
        (0..self.types.len()).filter(|id| self.kind(*id).is_special()).count() + special::NAMES
    }

    /// The tokenizer before its tables are built: it finds no token.
    fn tokenizer(&self) -> Tokenizer<'m> {
        Tokenizer {
            vocab: Vocab::without_index(self.tokens),
            algorithm: self.algorithm,
            scores: self.scores.map_or(&[], |scores| scores.bytes()),
            merges: None,
            specials: Specials::NONE,
            byte_tokens: &[],
            end: &[],
            bos: self.bos,
            eos: self.eos,
            add_bos: self.add_bos,
            add_eos: self.add_eos,
        }
    }
}

/// Memory for the tables of a tokenizer; empty in a dry run.
struct Tables<'a> {
    offsets: &'a mut [u32],
    index: Builder<'a>,
    kinds: &'a mut [TokenKind],
    merges: Option<Builder<'a>>,
    special_ids: &'a mut [u32],
    special_prefixes: &'a mut [u32],
    end: &'a mut [u32],
    byte_tokens: &'a mut [u32],
}

impl<'a> Tables<'a> {
    fn carve(source: &Source<'_>, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        let (len, specials) = (source.tokens.len(), source.max_specials());
        // In this order: it is the order of the plan's regions.
        Ok(Tables {
            offsets: arena.alloc("token offsets", &[len])?,
            index: HashIndex::carve(arena, "token index", len)?,
            kinds: arena.build("token kinds", len, |id| Ok::<_, ArenaError>(source.kind(id)))?,
            merges: match source.merges {
                Some(list) => Some(HashIndex::carve(arena, "merge index", list.len())?),
                None => None,
            },
            special_ids: arena.alloc("special tokens", &[specials])?,
            special_prefixes: arena.alloc("special prefixes", &[specials])?,
            end: arena.alloc("end tokens", &[source.end.len() + special::NAMES])?,
            byte_tokens: arena.alloc("byte tokens", &[256])?,
        })
    }
}

/// Records the offset of each token and indexes it. Of tokens with the same text the last one counts, as in llama.cpp.
fn index_tokens(tokens: Array<'_>, offsets: &mut [u32], index: &mut Builder<'_>) -> Result<(), TooManyCollisions> {
    for (id, (at, text)) in offsets_of(tokens).enumerate() {
        if let Some(offset) = offsets.get_mut(id) {
            *offset = at;
        }
        let same = |id: u32| offsets.get(id as usize).is_some_and(|at| tokens.string_at(*at as usize) == text);
        if !text.is_empty() {
            *index.slot(hash(text.iter().copied()), same)? = id as u32;
        }
    }
    Ok(())
}

/// Indexes the offset of each merge. Of merges of the same pair the first one counts.
fn index_merges(merges: Array<'_>, index: &mut Builder<'_>) -> Result<(), TooManyCollisions> {
    for (at, text) in offsets_of(merges) {
        let slot = index.slot(hash(text.iter().copied()), |at| merges.string_at(at as usize) == text)?;
        *slot = (*slot).min(at);
    }
    Ok(())
}

/// The strings of a list, each with its byte offset in the list.
fn offsets_of<'m>(list: Array<'m>) -> impl Iterator<Item = (u32, &'m [u8])> {
    list.strings().scan(0, |next, text| {
        let at = *next;
        // The whole list is shorter than 2³².
        *next += 8 + text.len() as u32;
        Some((at, text))
    })
}

/// Copies `items` to `slots`; returns the slots that were filled.
fn fill(slots: &mut [u32], items: impl Iterator<Item = u32>) -> &[u32] {
    let n = slots.iter_mut().zip(items).map(|(slot, item)| *slot = item).count();
    slots.first_n(n)
}

/// llama.cpp's defaults of special tokens. Rule V1 applies to them as to the file's own.
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

/// A list of this type, whose offsets fit a u32.
fn list<'m>(file: &File<'m>, key: &'static str, kind: ValueType) -> Result<Array<'m>, TokenizerError> {
    match file.get(key) {
        Some(Value::Array(a)) if a.kind() == kind && u32::try_from(a.bytes().len()).is_ok() => Ok(a),
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

/// Rule V1. A default that is not in the vocabulary counts as none.
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
