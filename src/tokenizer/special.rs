//! Special tokens: which there are by name, and where they stand in a text.

use core::ops::Range;

use super::vocab::Tokenizer;
use super::{EncodeOptions, Kind};
use crate::storage::{Arena, ArenaError};

/// A byte of plain text.
const PLAIN: u32 = u32::MAX;
/// A byte of a special token, after its first.
const INSIDE: u32 = u32::MAX - 1;

/// Names of tokens that end an answer, as llama.cpp lists them. Many files do not say which theirs is.
const END: [&str; 19] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
];

/// Names of tokens for filling in the middle of a text: control tokens too.
const FILL_IN_THE_MIDDLE: [&str; 9] = [
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
];

/// Whether a token of this text ends an answer.
pub(super) fn ends_an_answer(text: &[u8]) -> bool {
    END.iter().any(|name| name.as_bytes() == text)
}

/// Whether a token of this text is a control token whatever its type says.
pub(super) fn is_control_name(text: &[u8]) -> bool {
    // Cheap for the tens of thousands of tokens that are none.
    let may_be = matches!(text.first(), Some(b'<' | b'_' | b'['));
    may_be && (ends_an_answer(text) || FILL_IN_THE_MIDDLE.iter().any(|name| name.as_bytes() == text))
}

/// A stretch of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    /// Text to encode.
    Text(&'t str),
    /// A special token.
    Token(u32),
}

/// A text cut at its special tokens.
pub(super) struct Fragments<'t, 's> {
    text: &'t str,
    /// (text.len()) for each byte: a special token that starts there, or one of the marks above
    marks: &'s [u32],
    at: usize,
}

impl<'t, 's> Fragments<'t, 's> {
    /// Marks the special tokens of `text`: the longest token first, each from left to right, wherever it fits between
    /// those already found. Control and unknown tokens only where the options allow them (rule V8).
    pub(super) fn new(
        tokenizer: &Tokenizer<'_>,
        text: &'t str,
        options: &EncodeOptions<'_>,
        scratch: &mut Arena<'s>,
    ) -> Result<Self, ArenaError> {
        let marks = scratch.alloc("special marks", &[text.len()])?;
        marks.fill(PLAIN);
        let mut present = [false; 256];
        text.bytes().for_each(|b| present[usize::from(b)] = true);
        for id in tokenizer.specials {
            let pattern = tokenizer.text(*id);
            let is_text = tokenizer.kind(*id) == Kind::UserDefined;
            let literal = if is_text { &[] } else { options.literal };
            let wanted = is_text || options.parse_special;
            if wanted && pattern.first().is_some_and(|b| present[usize::from(*b)]) {
                mark(text.as_bytes(), pattern, *id, literal, marks);
            }
        }
        Ok(Self { text, marks, at: 0 })
    }
}

fn mark(text: &[u8], pattern: &[u8], id: u32, literal: &[Range<usize>], marks: &mut [u32]) {
    let mut at = 0;
    while let Some(start) = find(text, pattern, at) {
        at = start + 1;
        let end = start + pattern.len();
        if literal.iter().any(|l| l.start < end && start < l.end) {
            continue;
        }
        if let Some(place) = marks.get_mut(start..end)
            && place.iter().all(|m| *m == PLAIN)
        {
            place.fill(INSIDE);
            place[0] = id;
            at = end;
        }
    }
}

fn find(text: &[u8], pattern: &[u8], from: usize) -> Option<usize> {
    let first = *pattern.first()?;
    let mut at = from;
    loop {
        at += text.get(at..)?.iter().position(|b| *b == first)?;
        if text.get(at..)?.starts_with(pattern) {
            return Some(at);
        }
        at += 1;
    }
}

impl<'t> Iterator for Fragments<'t, '_> {
    type Item = Fragment<'t>;

    fn next(&mut self) -> Option<Fragment<'t>> {
        let start = self.at;
        let mark = *self.marks.get(start)?;
        let rest = self.marks.get(start + 1..).unwrap_or(&[]);
        let (fragment, same) = if mark == PLAIN {
            let n = 1 + rest.iter().take_while(|m| **m == PLAIN).count();
            // A token's text may start or end inside a character only if the vocabulary is broken; then the text
            // between is lost rather than wrong.
            (Fragment::Text(self.text.get(start..start + n).unwrap_or("")), n)
        } else {
            (Fragment::Token(mark), 1 + rest.iter().take_while(|m| **m == INSIDE).count())
        };
        self.at = start + same;
        Some(fragment)
    }
}
