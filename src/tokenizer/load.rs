//! From a file to a vocabulary: its entries checked, its index built in the arena.

use super::TokenizerError;
use super::hash_index::{Builder, HashIndex, NONE, TooManyCollisions, hash};
use super::pretok::PreTokenizer;
use super::special::{self, Specials};
use super::vocab::{Algorithm, Merges, TokenKind, Tokenizer};
use crate::gguf::{Array, File, Label, Value, ValueType};
use crate::storage::{Arena, ArenaError};

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Keys of the tokens that end an answer, but for that of the end of a text.
const END: [&str; 5] = [
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

impl<'m> Tokenizer<'m> {
    /// Checks the vocabulary of `file` (rules V1 to V5) and builds its index, in a time linear in the vocabulary but for
    /// the sorting of its special tokens.
    ///
    /// # Errors
    /// [`TokenizerError`]. A dry run, which looks at no token's text, cannot find [`TokenizerError::TooManyCollisions`].
    pub fn new<'a>(file: &File<'m>, arena: &mut Arena<'a>) -> Result<Tokenizer<'a>, TokenizerError>
    where
        'm: 'a,
    {
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
        let types = types.map_or(&[][..], |types| types.bytes()).as_chunks::<4>().0;
        let kind = |bytes: &[u8; 4]| TokenKind::from_id(i32::from_le_bytes(*bytes));
        let n_special = types.iter().filter(|bytes| kind(bytes).is_special()).count() + special::NAMES;
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

        let mut tokenizer = Tokenizer {
            algorithm,
            tokens,
            offsets: &[],
            kinds: &[],
            scores: scores.map_or(&[], |s| s.bytes()),
            index: HashIndex::EMPTY,
            merges: None,
            specials: Specials::NONE,
            bytes: &[],
            end: &[],
            bos: special_id(file, "tokenizer.ggml.bos_token_id", defaults.bos, len)?,
            eos,
            add_bos: flag(file, "tokenizer.ggml.add_bos_token", defaults.add_bos)?,
            add_eos: flag(file, "tokenizer.ggml.add_eos_token", false)?,
        };
        let offsets = arena.alloc("token offsets", &[len])?;
        let mut index = HashIndex::carve(arena, "token index", len)?;
        let kinds =
            arena.build("token kinds", len, |i| Ok::<_, ArenaError>(types.get(i).map_or(TokenKind::Normal, kind)))?;
        let merges = match merges {
            Some(list) => Some((list, HashIndex::carve(arena, "merge index", list.len())?)),
            None => None,
        };
        let specials = [arena.alloc("special tokens", &[n_special])?, arena.alloc("special prefixes", &[n_special])?];
        let ends = arena.alloc("end tokens", &[end.len() + special::NAMES])?;
        let bytes = arena.alloc("byte tokens", &[256])?;
        if arena.is_dry() {
            return Ok(tokenizer);
        }

        index_tokens(tokens, offsets, &mut index)
            .map_err(|TooManyCollisions| TokenizerError::TooManyCollisions(TOKENS))?;
        (tokenizer.offsets, tokenizer.index) = (offsets, index.finish());
        let named = || special::named(|name| tokenizer.find(name.as_bytes()));
        for (id, _) in named() {
            if let Some(kind) = kinds.get_mut(id as usize) {
                *kind = TokenKind::Control;
            }
        }
        tokenizer.end =
            fill(ends, end.into_iter().flatten().chain(named().filter(|(_, ends)| *ends).map(|(id, _)| id)));
        tokenizer.kinds = kinds;
        tokenizer.specials = Specials::new(&tokenizer, specials);
        if let Some((list, mut index)) = merges {
            index_merges(list, &mut index).map_err(|TooManyCollisions| TokenizerError::TooManyCollisions(MERGES))?;
            tokenizer.merges = Some(Merges { list, index: index.finish() });
        }
        for (byte, slot) in (0..=255).zip(&mut *bytes) {
            *slot = tokenizer.find_byte(byte).or(unknown).unwrap_or(NONE);
        }
        tokenizer.bytes = bytes;
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

/// Notes where each token lies, and puts it into the index. Later tokens win over earlier ones of the same text, as in
/// llama.cpp.
fn index_tokens(tokens: Array<'_>, offsets: &mut [u32], index: &mut Builder<'_>) -> Result<(), TooManyCollisions> {
    for (id, (at, text)) in places(tokens).enumerate() {
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

/// Puts where each merge lies into the index. Earlier merges win over later ones of the same pair.
fn index_merges(merges: Array<'_>, index: &mut Builder<'_>) -> Result<(), TooManyCollisions> {
    for (at, text) in places(merges) {
        let slot = index.slot(hash(text.iter().copied()), |at| merges.string_at(at as usize) == text)?;
        *slot = (*slot).min(at);
    }
    Ok(())
}

/// The strings of a list, each with where it lies.
fn places<'m>(list: Array<'m>) -> impl Iterator<Item = (u32, &'m [u8])> {
    list.strings().scan(0, |next, text| {
        let at = *next;
        // The whole list is shorter than 2³².
        *next += 8 + text.len() as u32;
        Some((at, text))
    })
}

/// Puts `items` into `slots`, and gives those that are filled.
fn fill(slots: &mut [u32], items: impl Iterator<Item = u32>) -> &[u32] {
    let n = slots.iter_mut().zip(items).map(|(slot, item)| *slot = item).count();
    slots.get(..n).unwrap_or(&[])
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

/// A list of this type. Places in a list of strings are u32.
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
