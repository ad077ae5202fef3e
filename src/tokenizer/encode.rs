//! Encoding: text to tokens.

use super::byte_level::Escaped;
use super::hash_index::{NONE, Roll};
use super::merge::{Merge, Merger, Symbol};
use super::options::EncodeOptions;
use super::pretok::Whole;
use super::special::{Fragment, Fragments};
use super::tokenizer::{Algorithm, Tokenizer};
use super::{TokenizerError, unicode};
use crate::storage::{ALIGN, Arena, ArenaError};
use crate::util::SliceExt;

/// The longest text, in bytes: symbols have 32-bit positions, and sizes must not overflow.
const TEXT_CAP: usize = 1 << 30;

/// Names of the scratch memory's buffers.
const MARKS: &str = "special marks";
const SYMBOLS: &str = "symbols";
const CANDIDATES: &str = "special candidates";

/// Tokens written so far.
struct Output<'o> {
    tokens: &'o mut [u32],
    len: usize,
}

impl Output<'_> {
    #[inline(never)]
    fn push(&mut self, token: u32) -> Result<(), TokenizerError> {
        let cap = self.tokens.len();
        *self.tokens.get_mut(self.len).ok_or(TokenizerError::OutputTooSmall(cap))? = token;
        self.len += 1;
        Ok(())
    }
}

/// Scratch memory of one encoding.
struct Scratch<'s> {
    /// (text + 1) SentencePiece's normalised text
    text: &'s mut [u8],
    merger: Merger<'s>,
}

impl<'s> Scratch<'s> {
    fn new(text: usize, longest_word: usize, arena: &mut Arena<'s>) -> Result<Self, ArenaError> {
        Ok(Self { text: arena.alloc("text", &[text])?, merger: Merger::new(longest_word, arena)? })
    }
}

impl Tokenizer<'_> {
    /// Bytes of scratch memory that [`encode`](Tokenizer::encode) needs for `text`: at most 24 for each of its bytes, and a
    /// few hundred.
    ///
    /// # Errors
    /// [`TokenizerError::TextTooLong`].
    pub fn scratch_bytes(&self, text: &str) -> Result<usize, TokenizerError> {
        self.workspace(text.len(), self.longest_word(text))
    }

    /// Bytes of scratch memory that suffice for every text of `bytes` bytes.
    ///
    /// # Errors
    /// [`TokenizerError::Scratch`] if they exceed the address space.
    pub fn most_scratch_bytes(&self, bytes: usize) -> Result<usize, TokenizerError> {
        self.workspace(bytes, bytes)
    }

    fn workspace(&self, text: usize, longest_word: usize) -> Result<usize, TokenizerError> {
        let (mut arena, mut search, mut merge) = (Arena::dry_run(), Arena::dry_run(), Arena::dry_run());
        search.alloc::<u32>(CANDIDATES, &[text])?;
        self.scratch(text, longest_word, &mut merge)?;
        arena.alloc::<u32>(MARKS, &[text])?;
        arena.alloc::<u8>(SYMBOLS, &[search.used().max(merge.used())])?;
        Ok(arena.used())
    }

    /// The most tokens that a text of `bytes` bytes can have.
    pub fn max_tokens(&self, bytes: usize) -> usize {
        match self.algorithm {
            Algorithm::Bpe { .. } if !self.algorithm.escapes_blanks() => bytes + 2,
            // A space that is not a token becomes `▁`, three byte tokens, and every piece of text may get one in front.
            _ => bytes.saturating_mul(6).saturating_add(5),
        }
    }

    /// Encodes `text` to `out` and returns the number of tokens.
    ///
    /// `scratch` starts at a multiple of [`ALIGN`](crate::storage::ALIGN) and has
    /// [`scratch_bytes`](Tokenizer::scratch_bytes); `out` never needs more than [`max_tokens`](Tokenizer::max_tokens).
    ///
    /// # Errors
    /// [`TokenizerError`] if the scratch memory or the output is too small.
    pub fn encode(
        &self,
        text: &str,
        options: EncodeOptions<'_>,
        scratch: &mut [u8],
        out: &mut [u32],
    ) -> Result<usize, TokenizerError> {
        if text.len() > TEXT_CAP {
            return Err(TokenizerError::TextTooLong);
        }
        let all = scratch.len();
        let mut arena = Arena::new(scratch)?;
        let marks = arena.alloc(MARKS, &[text.len()])?;
        // Candidates are needed no more when symbols are merged, which takes the same memory.
        let rest = arena.alloc::<u8>(SYMBOLS, &[all.saturating_sub(arena.used()) / ALIGN * ALIGN])?;
        let candidates = Arena::new(&mut *rest)?.alloc(CANDIDATES, &[text.len()])?;
        let fragments = Fragments::new(&self.vocab, &self.specials, text, &options, marks, candidates);
        let mut scratch = self.scratch(text.len(), self.longest_word(text), &mut Arena::new(rest)?)?;
        let mut out = Output { tokens: out, len: 0 };
        if options.add_special
            && self.add_bos
            && let Some(bos) = self.bos()
        {
            out.push(bos)?;
        }
        let (mut after_special, mut strip) = (true, false);
        for fragment in fragments {
            match fragment {
                Fragment::Token(token) => {
                    out.push(token)?;
                    (after_special, strip) = (true, self.strips_after(token));
                }
                Fragment::Text(text) => {
                    let text = if strip { text.trim_start_matches(is_ascii_space) } else { text };
                    if !text.is_empty() {
                        self.encode_text(text, after_special, &mut scratch, &mut out)?;
                        after_special = false;
                    }
                }
            }
        }
        if options.add_special
            && self.add_eos
            && let Some(eos) = self.eos()
        {
            out.push(eos)?;
        }
        Ok(out.len)
    }

    /// Whether a special token takes the white space behind it.
    fn strips_after(&self, token: u32) -> bool {
        self.strips_after && !matches!(self.text(token), b"<unk>" | b"<s>" | b"<|endoftext|>")
    }

    fn scratch<'s>(
        &self,
        text: usize,
        longest_word: usize,
        arena: &mut Arena<'s>,
    ) -> Result<Scratch<'s>, TokenizerError> {
        if text > TEXT_CAP {
            return Err(TokenizerError::TextTooLong);
        }
        Ok(match self.algorithm {
            Algorithm::Bpe { .. } => Scratch::new(0, longest_word, arena)?,
            // A blank in front. If there is another piece, it has the room of the special token before it.
            Algorithm::SentencePiece { .. } => Scratch::new(text + 1, text + 1, arena)?,
        })
    }

    /// An upper bound of the bytes of the longest word of `text`, whatever special tokens split it.
    fn longest_word(&self, text: &str) -> usize {
        match self.algorithm {
            Algorithm::Bpe { words } if words.ends_words_at_blanks() => longest_between_blanks(text).min(text.len()),
            _ => text.len(),
        }
    }

    fn encode_text(
        &self,
        text: &str,
        after_special: bool,
        scratch: &mut Scratch<'_>,
        out: &mut Output<'_>,
    ) -> Result<(), TokenizerError> {
        match self.algorithm {
            Algorithm::Bpe { words } => {
                words.words(text).try_for_each(|word| self.encode_word(word, words.whole(), &mut scratch.merger, out))
            }
            Algorithm::SentencePiece { space_prefix } => {
                let normal = normalise(text, space_prefix && after_special, scratch.text);
                self.encode_sentence(normal, &mut scratch.merger, out)
            }
        }
    }

    /// BPE of one word. A byte without a token is dropped, as in llama.cpp.
    fn encode_word(
        &self,
        word: &str,
        whole: Whole,
        merger: &mut Merger<'_>,
        out: &mut Output<'_>,
    ) -> Result<(), TokenizerError> {
        let may_be_whole = match whole {
            Whole::Never => false,
            Whole::LineFeeds => word.starts_with('\n'),
            Whole::Always => true,
        };
        if may_be_whole && let Some(token) = self.find_raw(word.as_bytes()) {
            return out.push(token);
        }
        merger.clear();
        if self.algorithm.escapes_blanks() {
            for c in characters(word) {
                merger.push(c.len(), self.find_raw(c).unwrap_or(NONE))?;
            }
        } else {
            word.bytes().try_for_each(|byte| merger.push(1, self.byte_token(byte).unwrap_or(NONE)))?;
        }
        merger.merge_all(&|left, right| self.merge(left.value, right.value));
        merger.symbols().try_for_each(|symbol| match symbol.value {
            NONE if self.algorithm.escapes_blanks() => self.spell(bytes_of(word, symbol), out),
            NONE => Ok(()),
            token => out.push(token),
        })
    }

    /// SentencePiece of a normalised text. A symbol without a token becomes byte tokens.
    fn encode_sentence(&self, text: &str, merger: &mut Merger<'_>, out: &mut Output<'_>) -> Result<(), TokenizerError> {
        merger.clear();
        for c in characters(text) {
            merger.push(c.len(), Roll::of(c).hash)?;
        }
        merger.merge_all(&|left, right| {
            let roll = roll_of(left).then(roll_of(right));
            let token = self.vocab.find_escaped(roll, bytes_of(text, Symbol { len: roll.len, ..left }))?;
            Some(Merge { rank: rank(self.score(token)), value: roll.hash })
        });
        merger.symbols().try_for_each(|symbol| {
            let raw = bytes_of(text, symbol);
            match self.vocab.find_escaped(roll_of(symbol), raw) {
                Some(token) => out.push(token),
                None => self.spell(raw, out),
            }
        })
    }

    /// The bytes of what no token expresses, `▁` for each blank.
    fn spell(&self, raw: &[u8], out: &mut Output<'_>) -> Result<(), TokenizerError> {
        Escaped::new(raw).filter_map(|b| self.byte_token(b)).try_for_each(|token| out.push(token))
    }
}

/// The bytes of each character of `text`.
fn characters(text: &str) -> impl Iterator<Item = &[u8]> {
    text.char_indices().map(|(at, c)| text.as_bytes().part(at..at + c.len_utf8()))
}

/// The roll of a symbol of SentencePiece's normalised text, which has no `▁`.
fn roll_of(symbol: Symbol) -> Roll {
    Roll { hash: symbol.value, len: symbol.len }
}

/// The bytes of a symbol of `text`.
fn bytes_of(text: &str, symbol: Symbol) -> &[u8] {
    text.as_bytes().part(symbol.start as usize..(symbol.start + symbol.len) as usize)
}

/// White space as C has it.
fn is_ascii_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\u{b}'
}

/// An upper bound of the bytes of the longest word of `text`, whatever special tokens split it, if words end at blanks: a
/// word has at most one character, then a run without white space, then a run of white space.
pub(super) fn longest_between_blanks(text: &str) -> usize {
    let (mut longest, mut previous, mut current, mut blank) = (0, 0, 0, false);
    for c in text.chars() {
        let is_blank = unicode::class(c) == unicode::Class::Whitespace;
        if is_blank != blank {
            longest = longest.max(previous + current);
            (previous, current, blank) = (current, 0, is_blank);
        }
        current += c.len_utf8();
    }
    longest.max(previous + current) + char::MAX_LEN_UTF8
}

/// SentencePiece's normalised text: an optional space, then the text with `▁` replaced by the space that it means.
fn normalise<'s>(text: &str, prefix: bool, out: &'s mut [u8]) -> &'s str {
    let mut len = 0;
    let mut push = |bytes: &[u8]| {
        let room = out.get_mut(len..len + bytes.len());
        debug_assert!(room.is_some(), "the scratch memory was planned for this text");
        if let Some(room) = room {
            room.copy_from_slice(bytes);
            len += bytes.len();
        }
    };
    if prefix {
        push(b" ");
    }
    for (i, part) in text.split('▁').enumerate() {
        if i > 0 {
            push(b" ");
        }
        push(part.as_bytes());
    }
    core::str::from_utf8(out.first_n(len)).unwrap_or("")
}

/// A score as a rank: the highest score has the lowest rank.
fn rank(score: f32) -> u32 {
    let bits = score.to_bits();
    // The bits of negative floats order backwards; a NaN gets an extreme rank, which does no harm.
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_scores_backwards() {
        let scores = [f32::INFINITY, 3.5, 0.0, -0.0, -1e-20, -7.0, f32::NEG_INFINITY];
        assert!(scores.windows(2).all(|w| rank(w[0]) < rank(w[1])));
    }

    #[test]
    fn the_prefix_and_blanks() {
        let mut out = [0; 16];
        assert_eq!(normalise("a▁b c", true, &mut out), " a b c");
        assert_eq!(normalise("", false, &mut out), "");
    }
}
