//! Encoding: text to tokens.

use super::byte_level::Escaped;
use super::hash_index::NONE;
use super::merge::{Merge, Merger, Symbol};
use super::options::EncodeOptions;
use super::special::{Fragment, Fragments};
use super::tokenizer::{Algorithm, Tokenizer};
use super::{TokenizerError, unicode};
use crate::storage::{Arena, ArenaError};
use crate::util::SliceExt;

/// The longest text, in bytes: symbols have 32-bit positions, and sizes must not overflow.
const TEXT_CAP: usize = 1 << 30;

/// Tokens written so far.
struct Output<'o> {
    tokens: &'o mut [u32],
    len: usize,
}

impl Output<'_> {
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
    /// Bytes of scratch memory that [`encode`](Tokenizer::encode) needs for `text`.
    ///
    /// # Errors
    /// [`TokenizerError::TextTooLong`].
    pub fn scratch_bytes(&self, text: &str) -> Result<usize, TokenizerError> {
        let mut arena = Arena::dry_run();
        arena.alloc::<u32>("special marks", &[text.len()])?;
        self.scratch(text, &mut arena)?;
        Ok(arena.used())
    }

    /// Bytes of scratch memory that suffice for every text of `bytes` bytes.
    ///
    /// # Errors
    /// [`TokenizerError::Scratch`] if they exceed the address space.
    pub fn most_scratch_bytes(&self, bytes: usize) -> Result<usize, TokenizerError> {
        let mut arena = Arena::dry_run();
        arena.alloc::<u32>("special marks", &[bytes])?;
        let longest = bytes + char::MAX_LEN_UTF8;
        match self.algorithm {
            Algorithm::Bpe { .. } => Scratch::new(0, longest, &mut arena)?,
            Algorithm::SentencePiece { .. } => Scratch::new(longest, longest, &mut arena)?,
        };
        Ok(arena.used())
    }

    /// The most tokens that a text of `bytes` bytes can have.
    pub fn max_tokens(&self, bytes: usize) -> usize {
        match self.algorithm {
            Algorithm::Bpe { .. } => bytes + 2,
            // A space that is not a token becomes `▁`, three byte tokens, and every piece of text may get one in front.
            Algorithm::SentencePiece { .. } => bytes.saturating_mul(6).saturating_add(5),
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
        let mut arena = Arena::new(scratch)?;
        let fragments = Fragments::new(&self.vocab, &self.specials, text, &options, &mut arena)?;
        let mut scratch = self.scratch(text, &mut arena)?;
        let mut out = Output { tokens: out, len: 0 };
        if options.add_special
            && self.add_bos
            && let Some(bos) = self.bos()
        {
            out.push(bos)?;
        }
        let mut after_special = true;
        for fragment in fragments {
            match fragment {
                Fragment::Token(token) => out.push(token)?,
                Fragment::Text(text) => self.encode_text(text, after_special, &mut scratch, &mut out)?,
            }
            after_special = matches!(fragment, Fragment::Token(_));
        }
        if options.add_special
            && self.add_eos
            && let Some(eos) = self.eos()
        {
            out.push(eos)?;
        }
        Ok(out.len)
    }

    fn scratch<'s>(&self, text: &str, arena: &mut Arena<'s>) -> Result<Scratch<'s>, TokenizerError> {
        if text.len() > TEXT_CAP {
            return Err(TokenizerError::TextTooLong);
        }
        Ok(match self.algorithm {
            Algorithm::Bpe { .. } => Scratch::new(0, longest_word(text), arena)?,
            Algorithm::SentencePiece { .. } => Scratch::new(text.len() + 1, text.len() + 1, arena)?,
        })
    }

    fn encode_text(
        &self,
        text: &str,
        after_special: bool,
        scratch: &mut Scratch<'_>,
        out: &mut Output<'_>,
    ) -> Result<(), TokenizerError> {
        match self.algorithm {
            Algorithm::Bpe { words, whole_words_first } => words
                .words(text)
                .try_for_each(|word| self.encode_word(word, whole_words_first, &mut scratch.merger, out)),
            Algorithm::SentencePiece { space_prefix } => {
                let normal = normalise(text, space_prefix && after_special, scratch.text);
                self.encode_sentence(normal, &mut scratch.merger, out)
            }
        }
    }

    /// Byte-level BPE of one word. A byte without a token is dropped, as in llama.cpp.
    fn encode_word(
        &self,
        word: &str,
        whole_first: bool,
        merger: &mut Merger<'_>,
        out: &mut Output<'_>,
    ) -> Result<(), TokenizerError> {
        if whole_first && let Some(token) = self.find_raw(word.as_bytes()) {
            return out.push(token);
        }
        merger.clear();
        for (i, byte) in word.bytes().enumerate() {
            merger.push(i, 1, self.byte_token(byte))?;
        }
        merger.merge_all(|left, right| self.merge(left.token, right.token));
        merger.symbols().filter(|s| s.token != NONE).try_for_each(|s| out.push(s.token))
    }

    /// SentencePiece of a normalised text. A symbol without a token becomes byte tokens.
    fn encode_sentence(&self, text: &str, merger: &mut Merger<'_>, out: &mut Output<'_>) -> Result<(), TokenizerError> {
        let bytes = text.as_bytes();
        let slice = |s: &Symbol, len: u32| bytes.part(s.start as usize..(s.start + len) as usize);
        merger.clear();
        for (i, c) in text.char_indices() {
            merger.push(i, c.len_utf8(), self.find_raw(bytes.part(i..i + c.len_utf8())))?;
        }
        merger.merge_all(|left, right| {
            let token = self.find_raw(slice(left, left.len + right.len))?;
            Some(Merge { rank: rank(self.score(token)), token })
        });
        for symbol in merger.symbols() {
            if symbol.token != NONE {
                out.push(symbol.token)?;
            } else {
                let unknown = Escaped::new(slice(symbol, symbol.len));
                unknown.filter_map(|b| self.byte_token(b)).try_for_each(|t| out.push(t))?;
            }
        }
        Ok(())
    }
}

/// An upper bound of the bytes of the longest word of `text`, whatever special tokens split it.
///
/// A word has at most one character, then a run without white space, then a run of white space.
fn longest_word(text: &str) -> usize {
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
