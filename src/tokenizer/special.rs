//! Special tokens: those known by name, and finding them in a text.

use core::cmp::Reverse;
use core::ops::Range;

use super::hash_index::NONE;
use super::options::EncodeOptions;
use super::vocab::{TokenKind, Vocab};
use crate::storage::{Arena, ArenaError};
use crate::util::{SliceExt, binary_heap};

/// Names of tokens that end an answer, from llama.cpp: many files do not say which of their tokens do.
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
    // Ends of a file or a repository, in fill-in-the-middle formats.
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

/// Names of tokens for fill-in-the-middle, which are control tokens too.
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
    // Two exceptions, as in llama.cpp: in vocabularies with tokens for calls, `<|end|>` only ends a part of an answer; and
    // in some, `</s>` is an HTML tag.
    let end_is_part = (has("<|call|>") || has("<|calls|>")) && (has("<|return|>") || has("<|flush|>"));
    let s_is_text = has("<|tool_response>") || has("<|plamo:eos|>");
    let ends = END.into_iter().filter(move |name| !(s_is_text && *name == "</s>"));
    let ends = ends.map(move |name| (name, !(end_is_part && name == "<|end|>")));
    let names = ends.chain(FILL_IN_THE_MIDDLE.into_iter().map(|name| (name, false)));
    names.filter_map(move |(name, ends_answer)| find(name).map(|id| Named { id, ends_answer }))
}

/// The special tokens, sorted by text, so that the longest match is found by binary search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Specials<'m> {
    /// Sorted by text; of tokens with the same text, the first id comes last.
    ids: &'m [u32],
    /// (ids) index of the longest other token that its text starts with; or [`NONE`]
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

    /// The index of the longest token that `text` starts with.
    ///
    /// In sorted order, all texts between a prefix of `text` and `text` itself start with that prefix. So all tokens that
    /// `text` starts with are among the last token that is not greater than `text`, and that token's prefixes.
    fn longest(&self, vocab: &Vocab<'_>, text: &[u8]) -> Option<u32> {
        let last = self.ids.partition_point(|id| vocab.text(*id) <= text).checked_sub(1)? as u32;
        let starts = |i: &u32| self.id(*i).is_some_and(|id| text.starts_with(vocab.text(id)));
        self.with_prefixes(last).find(starts)
    }

    /// The index of a token, then those of its prefixes, longest first.
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
/// Plus an index: a special token that may start at this byte.
const CANDIDATE: u32 = 1 << 31;

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    /// Text to encode.
    Text(&'t str),
    /// A special token.
    Token(u32),
}

/// A text split at its special tokens.
pub(super) struct Fragments<'t, 's> {
    text: &'t str,
    /// (text.len()) for each byte: the id of a special token that starts there, or one of the marks above
    marks: &'s [u32],
    at: usize,
}

impl<'t, 's> Fragments<'t, 's> {
    /// Finds the special tokens of `text`, as llama.cpp does: the longest token first, each from left to right, wherever
    /// it does not overlap those already assigned. Control and unknown tokens only where the options allow them (rule V8).
    ///
    /// ```text
    /// at each byte, the candidate is the longest special token that may start there
    /// for each length of candidates, longest first, and each candidate of that length, from left to right:
    ///     if it does not overlap an assigned token, assign it
    ///     else the candidate is the longest that does not
    /// ```
    ///
    /// Takes time linear in the text and in the number of different lengths of candidates, however many special tokens
    /// the vocabulary has.
    pub(super) fn new(
        vocab: &Vocab<'_>,
        specials: &Specials<'_>,
        text: &'t str,
        options: &EncodeOptions<'_>,
        scratch: &mut Arena<'s>,
    ) -> Result<Self, ArenaError> {
        let marks = scratch.alloc("special marks", &[text.len()])?;
        let candidates = Candidates { vocab, specials, text: text.as_bytes(), options };
        let mut longest = candidates.mark(marks);
        while longest > 0 {
            longest = candidates.assign(longest, marks);
        }
        Ok(Self { text, marks, at: 0 })
    }
}

/// Finds candidates: special tokens that may start at a byte of a text.
struct Candidates<'a> {
    vocab: &'a Vocab<'a>,
    specials: &'a Specials<'a>,
    text: &'a [u8],
    options: &'a EncodeOptions<'a>,
}

impl Candidates<'_> {
    /// Marks the longest candidate at every byte; returns the length of the longest of all.
    fn mark(&self, marks: &mut [u32]) -> usize {
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

    /// Assigns the candidates of `len` bytes, which are the longest; returns the length of the longest that remains.
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

    /// The mark and the length of the longest candidate at byte `at` that has at most `room` bytes: the token with index
    /// `i`, or one of its prefixes.
    fn fit(&self, i: u32, at: usize, room: usize) -> (u32, usize) {
        let tokens = self.specials.with_prefixes(i).filter_map(|i| Some((i, self.specials.id(i)?)));
        let mut marks = tokens.map(|(i, id)| (CANDIDATE + i, id, self.vocab.text(id).len()));
        let fits = |(_, id, len): &(u32, u32, usize)| *len <= room && self.may_be(*id, at..at + len);
        marks.find(fits).map_or((PLAIN, 0), |(mark, _, len)| (mark, len))
    }

    /// Whether the options allow a token in these bytes.
    fn may_be(&self, id: u32, span: Range<usize>) -> bool {
        let in_literal = || self.options.literal.iter().any(|l| l.start < span.end && span.start < l.end);
        self.vocab.kind(id) == TokenKind::UserDefined || self.options.parse_special && !in_literal()
    }
}

/// The index of the special token that a mark stands for.
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
            // The text of a token is not UTF-8 only if the vocabulary is broken. Text between tokens may then not be
            // UTF-8 either, and is dropped.
            (Fragment::Text(self.text.get(start..start + n).unwrap_or("")), n)
        } else {
            (Fragment::Token(mark), 1 + tail.iter().take_while(|m| **m == INSIDE).count())
        };
        self.at = start + same;
        Some(fragment)
    }
}
