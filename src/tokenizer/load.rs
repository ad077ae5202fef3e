//! Reads a tokenizer from a file: checks its metadata, and builds its tables in the arena.

use super::TokenizerError;
use super::hash_index::{Builder, HashIndex, NONE, Roll, TooManyCollisions, mix};
use super::mended::{BOS, EOS, Mended, SPECIAL, UNKNOWN};
use super::pretok::{PreTokenizer, Whole};
use super::special::{self, Node, Specials};
use super::tokenizer::{Algorithm, MAX_TOKENS, Merges, PackedMerge, Tokenizer};
use super::vocab::{TokenKind, Vocab};
use crate::gguf::{Array, File, Label, Value, ValueType};
use crate::storage::{Arena, ArenaError};
use crate::util::SliceExt;

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const SUPPRESSED: &str = "tokenizer.ggml.suppress_tokens";
const PRE: &str = "tokenizer.ggml.pre";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// The longest token that is taken, in bytes, so that a file cannot make encoding slow: those of real vocabularies have a
/// few hundred.
pub(super) const LONGEST_TOKEN: usize = 4096;
/// The most suppressed tokens, each of which may be compared with every token of the vocabulary; real files name a few.
const MOST_SUPPRESSED: usize = 1024;

impl<'m> Tokenizer<'m> {
    /// Checks the vocabulary of `file` (rules V1 to V5) and builds its index in the arena, in time linear in the
    /// vocabulary but for the sorting of its special tokens.
    ///
    /// # Errors
    /// [`TokenizerError`]. A dry run reads no token's text, so it cannot find [`TokenizerError::TooManyCollisions`] and
    /// [`TokenizerError::TokenTooLong`].
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
        let distinct = index_tokens(source.tokens, tables.offsets, &mut index)?;
        (vocab.offsets, vocab.index) = (tables.offsets, index.finish());
        let indexed = *vocab;
        special::for_each_named(&indexed, &mut |token| {
            if let Some(kind) = tables.kinds.get_mut(token.id as usize) {
                *kind = token.kind;
            }
        });
        let specials = Specials::new(&Vocab { kinds: &*tables.kinds, ..indexed }, tables.specials);
        for name in special::SHOWN {
            if let Some(kind) = indexed.find(name.as_bytes()).and_then(|id| tables.kinds.get_mut(id as usize)) {
                *kind = TokenKind::UserDefined;
            }
        }
        vocab.kinds = tables.kinds;
        let says_no = |id: u32| {
            let mut says = false;
            special::for_each_named(&indexed, &mut |token| says |= token.id == id && token.ends_answer == Some(false));
            says
        };
        let by_key = source.special.into_iter().skip(EOS).flatten().filter(|id| !says_no(*id));
        let mut ends = tables.end.iter_mut();
        let mut n = 0;
        let mut add = |id: u32| {
            if let Some(end) = ends.next() {
                *end = id;
                n += 1;
            }
        };
        by_key.for_each(&mut add);
        special::for_each_named(&indexed, &mut |token| {
            if token.ends_answer == Some(true) {
                add(token.id);
            }
        });
        tokenizer.end = tables.end.first_n(n);
        tokenizer.specials = specials;
        if let (Some(list), Some((merges, mut index))) = (source.merges, tables.merges) {
            index_merges(list, &tokenizer.vocab, distinct, merges, &mut index)
                .map_err(|TooManyCollisions| TokenizerError::TooManyCollisions(MERGES))?;
            tokenizer.merges = Some(Merges { list: merges, index: index.finish() });
        }
        let unknown = source.special[UNKNOWN].filter(|_| source.merges.is_none());
        for (byte, slot) in (0..=255).zip(&mut *tables.byte_tokens) {
            *slot = tokenizer.find_byte(byte).or(unknown).unwrap_or(NONE);
        }
        tokenizer.byte_tokens = tables.byte_tokens;
        Ok(tokenizer)
    }

    /// Rule V2: a byte token of SentencePiece is `<0xHH>` and nothing else.
    fn find_byte(&self, byte: u8) -> Option<u32> {
        if !self.algorithm.escapes_blanks() {
            return self.find_raw(&[byte]);
        }
        let hex = |n: u8| b"0123456789ABCDEF"[usize::from(n & 15)];
        self.find(&[b'<', b'0', b'x', hex(byte >> 4), hex(byte), b'>'])
    }
}

/// What the file says of its tokenizer, checked and mended.
struct Source<'m> {
    algorithm: Algorithm,
    tokens: Array<'m>,
    /// BPE only.
    merges: Option<Array<'m>>,
    /// (tokens) SentencePiece only.
    scores: Option<Array<'m>>,
    /// (tokens) little-endian i32; empty if all are normal
    types: &'m [[u8; 4]],
    /// Little-endian i32.
    suppressed: &'m [[u8; 4]],
    /// Tokens by their keys.
    special: [Option<u32>; SPECIAL.len()],
    add_bos: bool,
    add_eos: bool,
    strips_after: bool,
    is_smollm3: bool,
    mended: Mended,
}

impl<'m> Source<'m> {
    fn new(file: &File<'m>) -> Result<Self, TokenizerError> {
        let tokens = list(file, TOKENS, ValueType::String)?;
        let len = tokens.len();
        if tokens.is_empty() || len > MAX_TOKENS {
            return Err(TokenizerError::Key(TOKENS));
        }
        let mut mended = Mended::default();
        let algorithm = algorithm(file, &mut mended)?;
        let defaults = Defaults::new(file, algorithm);
        let is_bpe = matches!(algorithm, Algorithm::Bpe { .. });
        let merges = if is_bpe { Some(list(file, MERGES, ValueType::String)?) } else { None };
        if merges.is_some_and(|merges| merges.len() > MAX_TOKENS) {
            return Err(TokenizerError::Key(MERGES));
        }
        let scores = if is_bpe { None } else { scores(file, &mut mended)? };
        let types = optional_list(file, TYPES, ValueType::I32)?;
        for (list, key) in [(scores, SCORES), (types, TYPES)] {
            if list.is_some_and(|list| list.len() != len) {
                return Err(TokenizerError::Key(key));
            }
        }
        let mut special = [None; SPECIAL.len()];
        special[BOS] = defaults.bos;
        special[EOS] = defaults.eos;
        special[UNKNOWN] = if is_bpe { None } else { Some(0) };
        for (i, (id, key)) in special.iter_mut().zip(SPECIAL).enumerate() {
            // Rule V1. A default that is not in the vocabulary counts as none, and an id that is not as the default.
            *id = id.filter(|id| (*id as usize) < len);
            match file.get(key) {
                None => {}
                Some(Value::Unsigned(own)) if own < len as u64 => *id = Some(own as u32),
                Some(Value::Unsigned(_)) => mended.0 |= 1 << i,
                Some(_) => return Err(TokenizerError::Key(key)),
            }
        }
        let suppressed = numbers(optional_list(file, SUPPRESSED, ValueType::I32)?);
        if suppressed.len() > MOST_SUPPRESSED {
            return Err(TokenizerError::Key(SUPPRESSED));
        }
        let mut add_bos = flag(file, ADD_BOS, defaults.add_bos)?;
        if !add_bos && defaults.needs_bos {
            add_bos = true;
            mended.0 |= Mended::BOS_FOR_GEMMA_4;
        }
        Ok(Source {
            algorithm,
            tokens,
            merges,
            scores,
            types: numbers(types),
            suppressed,
            special,
            add_bos,
            add_eos: flag(file, "tokenizer.ggml.add_eos_token", false)?,
            strips_after: is_phi_3(file),
            is_smollm3: matches!(string(file, "general.architecture"), Ok(b"smollm3")),
            mended,
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
            scores: numbers(self.scores),
            whole_scores: self.scores.is_some_and(|scores| scores.kind() == ValueType::I32),
            merges: None,
            specials: Specials::NONE,
            byte_tokens: &[],
            end: &[],
            suppressed: self.suppressed,
            special: self.special,
            add_bos: self.add_bos,
            add_eos: self.add_eos,
            strips_after: self.strips_after,
            is_smollm3: self.is_smollm3,
            mended: self.mended,
        }
    }
}

/// Memory for the tables of a tokenizer; empty in a dry run.
struct Tables<'a> {
    offsets: &'a mut [u32],
    index: Builder<'a>,
    kinds: &'a mut [TokenKind],
    merges: Option<(&'a mut [PackedMerge], Builder<'a>)>,
    specials: &'a mut [Node],
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
                Some(list) => Some((
                    arena.build("merges", list.len(), |_| Ok::<_, ArenaError>(PackedMerge::NOTHING))?,
                    HashIndex::carve(arena, "merge index", list.len())?,
                )),
                None => None,
            },
            specials: arena.build("special tokens", specials, |_| Ok::<_, ArenaError>(Node::EMPTY))?,
            end: arena.alloc("end tokens", &[SPECIAL.len() - EOS + special::NAMES])?,
            byte_tokens: arena.alloc("byte tokens", &[256])?,
        })
    }
}

/// Records the offset of each token and indexes it; returns whether there are none with the same text. Of these the last one
/// counts, as in llama.cpp.
fn index_tokens(tokens: Array<'_>, offsets: &mut [u32], index: &mut Builder<'_>) -> Result<bool, TokenizerError> {
    let (mut at, mut distinct) = (0, true);
    for (id, text) in (0..).zip(tokens.strings()) {
        if text.len() > LONGEST_TOKEN {
            return Err(TokenizerError::TokenTooLong(id));
        }
        if let Some(offset) = offsets.get_mut(id as usize) {
            *offset = at;
        }
        let same = |id: u32| offsets.get(id as usize).is_some_and(|at| tokens.string_at(*at as usize) == text);
        if !text.is_empty() {
            let slot = index.slot(mix(Roll::of(text).hash.into()), same);
            let mut slot = slot.map_err(|TooManyCollisions| TokenizerError::TooManyCollisions(TOKENS))?;
            distinct &= slot.is_free();
            slot.set(id);
        }
        // The whole list is shorter than 2³².
        at += 8 + text.len() as u32;
    }
    Ok(distinct)
}

/// Looks the parts of each merge up and indexes it. A merge whose parts or result are no tokens joins nothing (rule V3), and
/// of merges of the same pair the first one counts. `distinct` says that no two tokens have the same text.
fn index_merges(
    list: Array<'_>,
    vocab: &Vocab<'_>,
    distinct: bool,
    merges: &mut [PackedMerge],
    index: &mut Builder<'_>,
) -> Result<(), TooManyCollisions> {
    // Vocabularies have the tokens that merges give in the order of these.
    let mut next = NONE;
    for (rank, text) in (0..).zip(list.strings()) {
        let Some((left, right)) = split_merge(text) else { continue };
        let (left_roll, right_roll) = (Roll::of(left), Roll::of(right));
        let Some(l) = vocab.find_joined(left_roll, left, &[]) else { continue };
        let Some(r) = vocab.find_joined(right_roll, right, &[]) else { continue };
        let joined = if is_joined(vocab.text(next), left, right) {
            Some(next)
        } else {
            vocab.find_joined(left_roll.then(right_roll), left, right)
        };
        let Some(joined) = joined else { continue };
        next = if distinct { joined.wrapping_add(1) } else { NONE };
        let merge = PackedMerge::new(l, r, joined);
        let same = |rank: u32| merges.get(rank as usize).is_some_and(|known| known.pair() == merge.pair());
        let mut slot = index.slot(mix(merge.pair()), same)?;
        if slot.is_free() {
            slot.set(rank);
            if let Some(known) = merges.get_mut(rank as usize) {
                *known = merge;
            }
        }
    }
    Ok(())
}

/// Whether a text is these two, one after the other.
fn is_joined(text: &[u8], left: &[u8], right: &[u8]) -> bool {
    text.len() == left.len() + right.len() && text.starts_with(left) && text.ends_with(right)
}

/// The two parts of a merge. A part may itself start with a space, but is not empty.
fn split_merge(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = 1 + text.get(1..)?.iter().position(|b| *b == b' ')?;
    Some((text.get(..blank)?, text.get(blank + 1..).filter(|right| !right.is_empty())?))
}

/// llama.cpp's defaults of special tokens. Rule V1 applies to them as to the file's own.
struct Defaults {
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    /// Whatever the file says.
    needs_bos: bool,
}

impl Defaults {
    fn new(file: &File<'_>, algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Bpe { words } => {
                let id = if is_gemma_4(file) { None } else { Some(11) };
                Self {
                    bos: id.filter(|_| words.has_bos()),
                    eos: id,
                    add_bos: words.adds_bos(),
                    needs_bos: words.whole() == Whole::LineFeeds,
                }
            }
            Algorithm::SentencePiece { .. } => Self { bos: Some(1), eos: Some(2), add_bos: true, needs_bos: false },
        }
    }
}

fn string<'m>(file: &File<'m>, key: &'static str) -> Result<&'m [u8], TokenizerError> {
    match file.get(key) {
        Some(Value::String(s)) => Ok(s),
        _ => Err(TokenizerError::Key(key)),
    }
}

const MODEL: &str = "tokenizer.ggml.model";

fn is_gemma_4(file: &File<'_>) -> bool {
    string(file, MODEL) == Ok(b"gemma4")
}

fn algorithm(file: &File<'_>, mended: &mut Mended) -> Result<Algorithm, TokenizerError> {
    match string(file, MODEL)? {
        b"gpt2" | b"gemma4" => {
            let name: &[u8] = match file.get(PRE) {
                _ if is_gemma_4(file) => b"gemma4",
                None | Some(Value::String(b"")) => {
                    mended.0 |= Mended::NO_PRE_TOKENIZER;
                    b"default"
                }
                Some(_) => string(file, PRE)?,
            };
            let words = core::str::from_utf8(name).ok().and_then(PreTokenizer::from_name);
            Ok(Algorithm::Bpe { words: words.ok_or(TokenizerError::PreTokenizer(Label::from_bytes(name)))? })
        }
        b"llama" => {
            let space_prefix = flag(file, "tokenizer.ggml.add_space_prefix", true)?;
            Ok(Algorithm::SentencePiece { space_prefix })
        }
        other => Err(TokenizerError::Model(Label::from_bytes(other))),
    }
}

/// Scores, which may be integers, or missing.
fn scores<'m>(file: &File<'m>, mended: &mut Mended) -> Result<Option<Array<'m>>, TokenizerError> {
    match file.get(SCORES) {
        None => mended.0 |= Mended::NO_SCORES,
        Some(Value::Array(a)) if a.kind() == ValueType::I32 => {
            mended.0 |= Mended::WHOLE_SCORES;
            return list(file, SCORES, ValueType::I32).map(Some);
        }
        Some(_) => {}
    }
    optional_list(file, SCORES, ValueType::F32)
}

/// Whether control tokens take the white space behind them: llama.cpp goes by the model's name.
fn is_phi_3(file: &File<'_>) -> bool {
    // Of the name, "phi3" with or without a hyphen in its middle.
    let name = string(file, "general.name").unwrap_or_default();
    let ends = |rest: &[u8]| matches!(rest, [b'3', ..] | [b'-', b'3', ..]);
    name.windows(3)
        .enumerate()
        .any(|(at, part)| part.eq_ignore_ascii_case(b"phi") && name.get(at + 3..).is_some_and(ends))
}

/// A list of this type, whose offsets fit a u32.
fn list<'m>(file: &File<'m>, key: &'static str, kind: ValueType) -> Result<Array<'m>, TokenizerError> {
    match file.get(key) {
        Some(Value::Array(a)) if a.kind() == kind && u32::try_from(a.bytes().len()).is_ok() => Ok(a),
        _ => Err(TokenizerError::Key(key)),
    }
}

fn optional_list<'m>(file: &File<'m>, key: &'static str, kind: ValueType) -> Result<Option<Array<'m>>, TokenizerError> {
    file.get(key).map(|_| list(file, key, kind)).transpose()
}

/// The numbers of a list of 32-bit ones, little-endian.
fn numbers<'m>(list: Option<Array<'m>>) -> &'m [[u8; 4]] {
    list.map_or(&[][..], |list| list.bytes()).as_chunks::<4>().0
}

fn flag(file: &File<'_>, key: &'static str, default: bool) -> Result<bool, TokenizerError> {
    match file.get(key) {
        None => Ok(default),
        Some(Value::Bool(b)) => Ok(b),
        Some(_) => Err(TokenizerError::Key(key)),
    }
}
