//! Special tokens: which there are by name, and where they stand in a text.

use core::cmp::Reverse;
use core::ops::Range;

use super::hash_index::NONE;
use super::options::EncodeOptions;
use super::vocab::{TokenKind, Vocab};
use crate::storage::{Arena, ArenaError};
use crate::util::{SliceExt, binary_heap};

/// Names of tokens that end an answer, as llama.cpp lists them. Many files do not say which theirs is.
const END: [&str; 33] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
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
    "[e~[",
    // Of a file or a repository, where a text was filled in the middle.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Names of tokens for filling in the middle of a text: control tokens too.
const FILL_IN_THE_MIDDLE: [&str; 24] = [
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];

/// How many names there are.
pub(super) const NAMES: usize = END.len() + FILL_IN_THE_MIDDLE.len();

/// A token that is a control token by its name, whatever its type says.
pub(super) struct Named {
    pub(super) id: u32,
    pub(super) ends_answer: bool,
}

/// The tokens of a vocabulary that are control tokens by their names.
pub(super) fn named(find: impl Fn(&str) -> Option<u32>) -> impl Iterator<Item = Named> {
    let has = |name| find(name).is_some();
    // Two exceptions, as in llama.cpp: where calls have marks of their own, `<|end|>` only ends a part of an answer; and
    // some vocabularies have `</s>` as a tag of HTML.
    let end_is_part = (has("<|call|>") || has("<|calls|>")) && (has("<|return|>") || has("<|flush|>"));
    let s_is_text = has("<|tool_response>") || has("<|plamo:eos|>");
    let ends = END.into_iter().filter(move |name| !(s_is_text && *name == "</s>"));
    let ends = ends.map(move |name| (name, !(end_is_part && name == "<|end|>")));
    let names = ends.chain(FILL_IN_THE_MIDDLE.into_iter().map(|name| (name, false)));
    names.filter_map(move |(name, ends_answer)| find(name).map(|id| Named { id, ends_answer }))
}

/// The special tokens, by their texts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Specials<'m> {
    /// In the order of their texts; of one text, the first token comes last.
    ids: &'m [u32],
    /// (ids) The nearest before it that its text starts with, which is the longest such; or [`NONE`].
    prefixes: &'m [u32],
}

impl<'m> Specials<'m> {
    /// No special tokens.
    pub(super) const NONE: Self = Specials { ids: &[], prefixes: &[] };

    /// Those of a vocabulary, in two lists that are long enough for all of them.
    pub(super) fn new(vocab: &Vocab<'_>, ids: &'m mut [u32], prefixes: &'m mut [u32]) -> Self {
        let special = (0..).zip(vocab.kinds).filter(|(id, kind)| kind.is_special() && !vocab.text(*id).is_empty());
        let n = ids.iter_mut().zip(special).map(|(slot, (id, _))| *slot = id).count();
        let (ids, prefixes) = (ids.first_n_mut(n), prefixes.first_n_mut(n));
        let key = |id: u32| (vocab.text(id), Reverse(id));
        binary_heap::sort(ids, |a, b| key(*a) < key(*b));
        for (i, id) in ids.iter().enumerate() {
            let text = vocab.text(*id);
            let starts = |i: &u32| ids.get(*i as usize).is_some_and(|id| text.starts_with(vocab.text(*id)));
            let mut before = core::iter::successors((i as u32).checked_sub(1), |i| prefix(prefixes, *i));
            let longest = before.find(starts).unwrap_or(NONE);
            if let Some(slot) = prefixes.get_mut(i) {
                *slot = longest;
            }
        }
        Self { ids, prefixes }
    }

    /// The place in the list of the longest token that `text` starts with.
    ///
    /// Whatever lies between a start of the text and the text itself starts with it too. So those that the text starts
    /// with are among the last token that is not after the text, and that one's prefixes.
    fn longest(&self, vocab: &Vocab<'_>, text: &[u8]) -> Option<u32> {
        let last = self.ids.partition_point(|id| vocab.text(*id) <= text).checked_sub(1)? as u32;
        let starts = |i: &u32| self.id(*i).is_some_and(|id| text.starts_with(vocab.text(id)));
        self.with_prefixes(last).find(starts)
    }

    /// A token, and those that it starts with from the longest to the shortest, as places in the list.
    fn with_prefixes(&self, i: u32) -> impl Iterator<Item = u32> {
        core::iter::successors(Some(i), |i| prefix(self.prefixes, *i))
    }

    fn id(&self, i: u32) -> Option<u32> {
        self.ids.get(i as usize).copied()
    }
}

fn prefix(prefixes: &[u32], i: u32) -> Option<u32> {
    prefixes.get(i as usize).copied().filter(|i| *i != NONE)
}

/// A byte of plain text.
const PLAIN: u32 = u32::MAX;
/// A byte of a special token, after its first.
const INSIDE: u32 = u32::MAX - 1;
/// Plus the place in the list of a special token that may start at this byte.
const CANDIDATE: u32 = 1 << 31;

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
    ///
    /// ```text
    /// at each byte, note the longest special token that may start there
    /// for each length of these, from the longest on, and each byte that has one of that length, from left to right:
    ///     if it fits between those already assigned, assign it
    ///     else note the longest that fits
    /// ```
    ///
    /// Takes a time linear in the text and in the number of lengths that occur in it, however many special tokens the
    /// vocabulary has.
    pub(super) fn new(
        vocab: &Vocab<'_>,
        specials: &Specials<'_>,
        text: &'t str,
        options: &EncodeOptions<'_>,
        scratch: &mut Arena<'s>,
    ) -> Result<Self, ArenaError> {
        let marks = scratch.alloc("special marks", &[text.len()])?;
        let candidates = Candidates { vocab, specials, text: text.as_bytes(), options };
        let mut longest = candidates.note(marks);
        while longest > 0 {
            longest = candidates.assign(longest, marks);
        }
        Ok(Self { text, marks, at: 0 })
    }
}

/// Special tokens that may start at some byte of a text.
struct Candidates<'a> {
    vocab: &'a Vocab<'a>,
    specials: &'a Specials<'a>,
    text: &'a [u8],
    options: &'a EncodeOptions<'a>,
}

impl Candidates<'_> {
    /// Notes the longest candidate at every byte; gives the length of the longest of all.
    fn note(&self, marks: &mut [u32]) -> usize {
        let mut starts = [false; 256];
        for first in self.specials.ids.iter().filter_map(|id| self.vocab.text(*id).first()) {
            starts[usize::from(*first)] = true;
        }
        let mut longest = 0;
        for (at, mark) in marks.iter_mut().enumerate() {
            let tail = self.text.part(at..self.text.len());
            let may_start = tail.first().is_some_and(|byte| starts[usize::from(*byte)]);
            let first = if may_start { self.specials.longest(self.vocab, tail) } else { None };
            let (candidate, len) = first.map_or((PLAIN, 0), |first| self.fit(first, at, tail.len()));
            *mark = candidate;
            longest = longest.max(len);
        }
        longest
    }

    /// Assigns the candidates of `len` bytes, which are the longest; gives the length of the longest of the rest.
    fn assign(&self, len: usize, marks: &mut [u32]) -> usize {
        let mut longest = 0;
        for at in 0..marks.len() {
            let Some(i) = marks.get(at).and_then(|mark| candidate(*mark)) else { continue };
            let id = self.specials.id(i).unwrap_or(NONE);
            let mut n = self.vocab.text(id).len();
            if n == len {
                let span = marks.part_mut(at..at + n);
                let room = span.iter().take_while(|mark| **mark == PLAIN || candidate(**mark).is_some()).count();
                let mark = if room == n {
                    span.fill(INSIDE);
                    n = 0;
                    id
                } else {
                    let (mark, shorter) = self.fit(i, at, room);
                    n = shorter;
                    mark
                };
                if let Some(slot) = marks.get_mut(at) {
                    *slot = mark;
                }
            }
            longest = longest.max(n);
        }
        longest
    }

    /// The mark and the length of the longest token that fits: the one at this place in the list, or one that it starts
    /// with.
    fn fit(&self, i: u32, at: usize, room: usize) -> (u32, usize) {
        let tokens = self.specials.with_prefixes(i).filter_map(|i| Some((i, self.specials.id(i)?)));
        let mut marks = tokens.map(|(i, id)| (CANDIDATE + i, id, self.vocab.text(id).len()));
        let fits = |(_, id, len): &(u32, u32, usize)| *len <= room && self.may_be(*id, at..at + len);
        marks.find(fits).map_or((PLAIN, 0), |(mark, _, len)| (mark, len))
    }

    /// Whether the options allow a token at this place.
    fn may_be(&self, id: u32, span: Range<usize>) -> bool {
        let in_literal = || self.options.literal.iter().any(|l| l.start < span.end && span.start < l.end);
        self.vocab.kind(id) == TokenKind::UserDefined || self.options.parse_special && !in_literal()
    }
}

/// The place in the list of special tokens that a mark notes.
fn candidate(mark: u32) -> Option<u32> {
    (CANDIDATE..INSIDE).contains(&mark).then(|| mark - CANDIDATE)
}

impl<'t> Iterator for Fragments<'t, '_> {
    type Item = Fragment<'t>;

    fn next(&mut self) -> Option<Fragment<'t>> {
        let start = self.at;
        let mark = *self.marks.get(start)?;
        let tail = self.marks.part(start + 1..self.marks.len());
        let (fragment, same) = if mark == PLAIN {
            let n = 1 + tail.iter().take_while(|m| **m == PLAIN).count();
            // A token's text may start or end inside a character only if the vocabulary is broken; then the text
            // between is lost rather than wrong.
            (Fragment::Text(self.text.get(start..start + n).unwrap_or("")), n)
        } else {
            (Fragment::Token(mark), 1 + tail.iter().take_while(|m| **m == INSIDE).count())
        };
        self.at = start + same;
        Some(fragment)
    }
}
