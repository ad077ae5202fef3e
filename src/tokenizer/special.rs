//! Special tokens: those known by name, and finding them in a text.

use super::hash_index::NONE;
use super::options::EncodeOptions;
use super::vocab::{TokenKind, Vocab};
use crate::storage::unpadded;
use crate::util::{SliceExt, binary_heap};
use core::cmp::Reverse;

/// Names from llama.cpp, with a blank between them: one string takes two thirds of the memory of an array. First those of
/// tokens that end an answer, since many files do not say which of theirs do, the last of which end a file or a repository
/// in fill-in-the-middle formats; then other tokens of such formats, which are control tokens too.
static NAMED: &str = "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> \
    <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> \
    <｜end▁of▁sentence｜> [e~[ \
    <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|> \
    <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|> <|fim_suffix|> \
    <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|> <|fim_middle|> <fim-middle> \
    <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>";

/// How many of the names are those of tokens that end an answer.
const ENDS: usize = 33;

/// Tokens that divide an answer into its parts, and are shown. llama.cpp makes them user-defined; that a text may spell them
/// where it may not spell control tokens is left out here, so that a person's text starts no part of its own.
pub(super) static SHOWN: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// How many names there are.
pub(super) const NAMES: usize = words(NAMED);

const fn words(text: &str) -> usize {
    let (mut n, mut i) = (1, 0);
    while i < text.len() {
        n += (text.as_bytes()[i] == b' ') as usize;
        i += 1;
    }
    n
}

/// A token whose name says what it is, whatever the file does.
pub(super) struct Named {
    pub(super) id: u32,
    pub(super) kind: TokenKind,
    /// None: the name says nothing of that.
    pub(super) ends_answer: Option<bool>,
}

/// Calls `f` for each token of a vocabulary whose name says what it is.
#[inline(never)]
pub(super) fn for_each_named(vocab: &Vocab<'_>, f: &mut dyn FnMut(Named)) {
    let has = |name: &str| vocab.find(name.as_bytes()).is_some();
    // Two exceptions, as in llama.cpp: in vocabularies with tokens for calls, `<|end|>` only ends a part of an answer; and
    // in some, `</s>` is an HTML tag. Not even a key makes them ends then.
    let end_is_part = (has("<|call|>") || has("<|calls|>")) && (has("<|return|>") || has("<|flush|>"));
    let s_is_text = has("<|tool_response>") || has("<|plamo:eos|>");
    for (i, name) in NAMED.as_bytes().split(|b| *b == b' ').enumerate() {
        let (kind, ends_answer) = match name {
            b"</s>" if s_is_text => (TokenKind::Normal, Some(false)),
            b"<|end|>" => (TokenKind::Control, Some(!end_is_part)),
            _ => (TokenKind::Control, (i < ENDS).then_some(true)),
        };
        if let Some(id) = vocab.find(name) {
            f(Named { id, kind, ends_answer });
        }
    }
}

/// The special tokens as a tree: the parent of a token is the longest other one that its text starts with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Specials<'m> {
    /// Sorted by text, so that the longest match is found by binary search; of tokens with the same text, the first id
    /// comes last.
    nodes: &'m [Node],
    /// Bytes with which a special token starts, one bit for each.
    starts: [u32; 8],
}

/// A special token. Others are named by their index, or [`NONE`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    id: u32,
    /// Bytes of its text.
    len: u32,
    parent: u32,
    /// An ancestor further up, such that one of any length is found in a number of steps logarithmic in how many there are
    /// (Myers 1983, skew-binary jumps).
    jump: u32,
    /// How many ancestors it has.
    depth: u32,
    /// Itself or the nearest ancestor that is user-defined.
    user_defined: u32,
}

unpadded!(Node: [u32; 6]);

impl Node {
    pub(super) const EMPTY: Self = Node { id: NONE, len: 0, parent: NONE, jump: NONE, depth: 0, user_defined: NONE };
}

impl<'m> Specials<'m> {
    /// No special tokens.
    pub(super) const NONE: Self = Specials { nodes: &[], starts: [0; 8] };

    /// Those of a vocabulary, in a list that is long enough for all of them.
    pub(super) fn new(vocab: &Vocab<'_>, nodes: &'m mut [Node]) -> Self {
        let special = (0..).zip(vocab.kinds).filter(|(id, kind)| kind.is_special() && !vocab.text(*id).is_empty());
        let n = nodes.iter_mut().zip(special).map(|(slot, (id, _))| slot.id = id).count();
        let nodes = nodes.first_n_mut(n);
        let key = |node: &Node| (vocab.text(node.id), Reverse(node.id));
        binary_heap::sort(nodes, |a, b| key(a) < key(b));
        let mut starts = [0; 8];
        for i in 0..n as u32 {
            let tree = Specials { nodes: &*nodes, starts };
            let Some(node) = tree.node(i) else { continue };
            let text = vocab.text(node.id);
            // Those left out on the way up are no prefixes of later texts either, so all ways together are short.
            let mut up = core::iter::successors(i.checked_sub(1), |i| tree.node(*i).map(|node| node.parent));
            let parent = up.find(|i| tree.node(*i).is_none_or(|n| text.starts_with(vocab.text(n.id)))).unwrap_or(NONE);
            let above = tree.node(parent);
            let (jump, user_defined) = (tree.jump_below(parent), above.map_or(NONE, |above| above.user_defined));
            let is_user_defined = vocab.kind(node.id) == TokenKind::UserDefined;
            if let Some(slot) = nodes.get_mut(i as usize) {
                *slot = Node {
                    len: text.len() as u32,
                    parent,
                    jump,
                    depth: above.map_or(0, |above| above.depth + 1),
                    user_defined: if is_user_defined { i } else { user_defined },
                    ..node
                };
            }
            if let Some(first) = text.first() {
                starts[usize::from(first / 32)] |= 1 << (first % 32);
            }
        }
        Self { nodes, starts }
    }

    fn node(&self, i: u32) -> Option<Node> {
        #[cfg(test)]
        tests::LOOK_UPS.with(|n| n.set(n.get() + 1));
        self.nodes.get(i as usize).copied()
    }

    /// The jump of a child of `parent`.
    fn jump_below(&self, parent: u32) -> u32 {
        let depth = |i| self.node(i).map_or(-1, |node| i64::from(node.depth));
        let jump = |i| self.node(i).map_or(NONE, |node| node.jump);
        let (first, second) = (jump(parent), jump(jump(parent)));
        if depth(parent) - depth(first) == depth(first) - depth(second) { second } else { parent }
    }

    /// The longest of token `i` and its ancestors that has at most `most` bytes.
    #[inline(never)]
    fn fit(&self, mut i: u32, most: usize) -> u32 {
        while let Some(node) = self.node(i).filter(|node| node.len as usize > most) {
            let far = self.node(node.jump).is_some_and(|ancestor| ancestor.len as usize > most);
            i = if far { node.jump } else { node.parent };
        }
        i
    }

    /// The index of the longest token that `text` starts with.
    ///
    /// In sorted order, all texts between a prefix of `text` and `text` itself start with that prefix. So all tokens that
    /// `text` starts with are among the last token that is not greater than `text`, and that token's ancestors: those that
    /// are no longer than what it has in common with `text`.
    fn longest(&self, vocab: &Vocab<'_>, text: &[u8]) -> u32 {
        let Some(first) = text.first() else { return NONE };
        if self.starts[usize::from(first / 32)] >> (first % 32) & 1 == 0 {
            return NONE;
        }
        let after = self.nodes.partition_point(|node| vocab.text(node.id) <= text);
        let Some(last) = after.checked_sub(1).map(|last| last as u32) else { return NONE };
        self.fit(last, self.node(last).map_or(0, |node| common_prefix(vocab.text(node.id), text)))
    }

    /// The longest of token `i` and its ancestors in `room` bytes, of which the first `free` may be part of a control token;
    /// and whether that is more than such a token could have.
    fn allowed(&self, i: u32, room: usize, free: usize) -> (u32, bool) {
        let any = self.fit(i, room.min(free));
        let user_defined = self.node(self.fit(i, room)).map_or(NONE, |node| node.user_defined);
        let len = |i| self.node(i).map_or(0, |node| node.len);
        if len(user_defined) > len(any) { (user_defined, true) } else { (any, false) }
    }
}

/// How many bytes two texts have in common at their start.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 16;
    let steps = STEP * a.chunks_exact(STEP).zip(b.chunks_exact(STEP)).take_while(|(a, b)| a == b).count();
    steps + a.iter().zip(b).skip(steps).take_while(|(a, b)| a == b).count()
}

// What a mark says of its byte of the text: beside these, that the special token with this id starts here.

/// Plain text.
const PLAIN: u32 = u32::MAX;
/// Plus an index: a special token may start here.
const CANDIDATE: u32 = 1 << 31;
/// Added to a candidate: it is longer than a control token may be here.
const USER_DEFINED: u32 = 1 << 30;
/// Plus a distance: inside a special token that started so many bytes before.
const INSIDE: u32 = 1 << 30;
/// While candidates are looked for: in a range of literal text.
const LITERAL: u32 = 0;

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
    /// (text.len())
    marks: &'s [u32],
    at: usize,
}

impl<'t, 's> Fragments<'t, 's> {
    /// Finds the special tokens of `text`, as llama.cpp does: the longest token first, each from left to right, wherever
    /// it does not overlap those already assigned. Control and unknown tokens only where the options allow them (rule V8).
    ///
    /// ```text
    /// at each byte, the candidate is the longest special token that may start there
    /// queue all candidates, the longest first, and those of one length from left to right
    /// for each: if it does not overlap an assigned token, assign it
    ///           else the candidate is the longest that does not
    /// ```
    ///
    /// A candidate that overlaps one assigned before has its last byte in it, for that one is no shorter. The next candidate
    /// ends before it; and if one that is assigned meanwhile gets in its way again, it takes more than half of its room. So
    /// each byte is queued a number of times logarithmic in the length of tokens, and all takes O(n log n).
    ///
    /// `marks` and `queue` have room for each byte of the text.
    pub(super) fn new(
        vocab: &Vocab<'_>,
        specials: &Specials<'_>,
        text: &'t str,
        options: &EncodeOptions<'_>,
        marks: &'s mut [u32],
        queue: &mut [u32],
    ) -> Self {
        let mut search = Search { vocab, specials, text: text.as_bytes(), options, marks };
        let mut n = search.queue_candidates(queue);
        while let Some(at) = queue.first_n(n).first().copied() {
            let again = search.settle(at as usize);
            if !again {
                n -= 1;
                let last = queue.get(n).copied().unwrap_or_default();
                if let Some(top) = queue.first_mut() {
                    *top = last;
                }
            }
            binary_heap::sift_down(queue.first_n_mut(n), |a, b| search.below(*a, *b));
        }
        Self { text, marks: search.marks, at: 0 }
    }
}

/// The search for special tokens.
struct Search<'a, 's> {
    vocab: &'a Vocab<'a>,
    specials: &'a Specials<'a>,
    text: &'a [u8],
    options: &'a EncodeOptions<'a>,
    marks: &'s mut [u32],
}

impl Search<'_, '_> {
    /// Marks the longest candidate at every byte and queues those bytes; returns how many.
    fn queue_candidates(&mut self, queue: &mut [u32]) -> usize {
        self.marks.fill(PLAIN);
        let n = self.text.len();
        if self.specials.nodes.is_empty() {
            return 0;
        }
        for literal in self.options.literal {
            self.marks.part_mut(literal.start.min(n)..literal.end.clamp(literal.start.min(n), n)).fill(LITERAL);
        }
        let (mut queued, mut free) = (0, if self.options.parse_special { n } else { 0 });
        for at in (0..n).rev() {
            let mark = self.marks.get(at).copied().unwrap_or(PLAIN);
            free = if mark == LITERAL || !self.options.parse_special { 0 } else { free + 1 };
            let tail = self.text.part(at..n);
            let longest = self.specials.longest(self.vocab, tail);
            self.mark(at, longest, tail.len(), free);
            if let (Some(slot), Some(_)) = (queue.get_mut(queued), self.candidate(at)) {
                (*slot, queued) = (at as u32, queued + 1);
            }
        }
        for i in 1..=queued {
            binary_heap::sift_up(queue.first_n_mut(i), |a, b| self.below(*a, *b));
        }
        queued
    }

    /// Makes the longest of token `i` and its ancestors that is allowed the candidate at byte `at`.
    #[inline(never)]
    fn mark(&mut self, at: usize, i: u32, room: usize, free: usize) {
        let (i, is_longer) = self.specials.allowed(i, room, free);
        let kind = if is_longer { CANDIDATE | USER_DEFINED } else { CANDIDATE };
        self.set(at, if i == NONE { PLAIN } else { kind | i });
    }

    /// Assigns the candidate at byte `at`, which is the first in the queue, or replaces it by one that overlaps no other;
    /// returns whether there is one.
    fn settle(&mut self, at: usize) -> bool {
        let Some((i, node)) = self.candidate(at) else { return false };
        let end = at + node.len as usize;
        let last = self.marks.get(end - 1).copied().unwrap_or(PLAIN);
        if last & CANDIDATE == 0 {
            let start = end - 1 - if last & INSIDE == 0 { 0 } else { (last - INSIDE) as usize };
            let is_longer = self.marks.get(at).is_some_and(|mark| mark & USER_DEFINED != 0);
            let free = if is_longer { self.free(at) } else { usize::MAX };
            self.mark(at, i, start - at, free);
            return self.candidate(at).is_some();
        }
        for distance in 1..node.len {
            self.set(at + distance as usize, INSIDE + distance);
        }
        self.set(at, node.id);
        false
    }

    /// How many bytes from `at` on may be part of a control token.
    fn free(&self, at: usize) -> usize {
        let literal = self.options.literal.iter().filter(|l| l.end > at && l.start < l.end);
        let before = literal.map(|l| l.start.saturating_sub(at)).min().unwrap_or(usize::MAX);
        if self.options.parse_special { before } else { 0 }
    }

    fn set(&mut self, at: usize, mark: u32) {
        if let Some(slot) = self.marks.get_mut(at) {
            *slot = mark;
        }
    }

    /// The index of the candidate at a byte, and the token.
    #[inline(never)]
    fn candidate(&self, at: usize) -> Option<(u32, Node)> {
        let mark = self.marks.get(at).copied().filter(|mark| *mark & CANDIDATE != 0 && *mark != PLAIN)?;
        let i = mark & !(CANDIDATE | USER_DEFINED);
        Some((i, self.specials.node(i)?))
    }

    /// Whether byte `a` is queued behind byte `b`. A byte that has been assigned meanwhile comes first, and is left out.
    #[inline(never)]
    fn below(&self, a: u32, b: u32) -> bool {
        let key = |at: u32| (self.candidate(at as usize).map_or(u32::MAX, |(_, node)| node.len), Reverse(at));
        key(a) < key(b)
    }
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
            (Fragment::Token(mark), 1 + tail.iter().take_while(|m| **m & (CANDIDATE | INSIDE) == INSIDE).count())
        };
        self.at = start + same;
        Some(fragment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::File;
    use crate::storage::{ALIGN, Arena};
    use crate::tokenizer::Tokenizer;
    use core::ops::Range;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    std::thread_local! {
        /// Calls of [`Specials::node`], which is what the search spends its time on.
        pub(super) static LOOK_UPS: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
    }

    /// Calls `f` with the vocabulary of (text, user-defined), all special; the first is unknown.
    fn with_specials<T>(tokens: &[(String, bool)], f: impl FnOnce(&Tokenizer<'_>) -> T) -> T {
        let mut bytes = Vec::from(*b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
        let string = |s: &str| [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat();
        let list =
            |kind: u32| [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &(tokens.len() as u64).to_le_bytes()].concat();
        bytes.extend([string("tokenizer.ggml.model"), 8u32.to_le_bytes().to_vec(), string("llama")].concat());
        bytes.extend([string("tokenizer.ggml.tokens"), list(8)].concat());
        tokens.iter().for_each(|(text, _)| bytes.extend(string(text)));
        bytes.extend([string("tokenizer.ggml.token_type"), list(5)].concat());
        tokens.iter().for_each(|(_, user)| bytes.extend(if *user { 4i32 } else { 3 }.to_le_bytes()));
        let file = File::new_checked(&bytes).unwrap();
        let mut dry = Arena::dry_run();
        Tokenizer::new(&file, &mut dry).unwrap();
        let mut memory = vec![0; dry.used() + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        f(&Tokenizer::new(&file, &mut Arena::new(&mut memory[start..]).unwrap()).unwrap())
    }

    /// The tokens found, each with where it starts.
    fn found(t: &Tokenizer<'_>, text: &str, options: &EncodeOptions<'_>) -> Vec<(usize, u32)> {
        let (mut marks, mut queue) = (vec![7; text.len()], vec![7; text.len()]);
        let fragments = Fragments::new(&t.vocab, &t.specials, text, options, &mut marks, &mut queue);
        let mut at = 0;
        let mut tokens = Vec::new();
        for fragment in fragments {
            at += match fragment {
                Fragment::Text(part) => part.len(),
                Fragment::Token(id) => {
                    tokens.push((at, id));
                    t.text(id).len()
                }
            };
        }
        assert_eq!(at, text.len());
        tokens
    }

    /// The definition: at each length, longest first, and each byte from left to right, a token that is allowed there and
    /// overlaps no other.
    fn naive(tokens: &[(String, bool)], text: &str, options: &EncodeOptions<'_>) -> Vec<(usize, u32)> {
        let mut taken = vec![false; text.len()];
        let mut found = Vec::new();
        for len in (1..=text.len()).rev() {
            for at in 0..=text.len() - len {
                let span = at..at + len;
                let literal = |l: &Range<usize>| l.start < span.end && span.start < l.end && !l.is_empty();
                let control = options.parse_special && !options.literal.iter().any(literal);
                let is_it = |(token, user): &(String, bool)| *token == text[span.clone()] && (*user || control);
                if let Some(id) = tokens.iter().position(is_it)
                    && !taken[span.clone()].contains(&true)
                {
                    taken[span.clone()].fill(true);
                    found.push((at, id as u32));
                }
            }
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn tokens_are_those_of_the_definition() {
        let mut state = 3u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for round in 0..4000 {
            let letters = 1 + random(3);
            let mut word =
                |most: usize| -> String { (0..1 + random(most)).map(|_| ['a', 'b', 'c'][random(letters)]).collect() };
            let mut texts: Vec<String> = (0..10).map(|_| word(9)).collect();
            let text = word(50);
            texts.truncate(1 + random(10));
            let tokens: Vec<(String, bool)> = texts.into_iter().map(|text| (text, random(2) == 0)).collect();
            let literal: Vec<Range<usize>> =
                (0..random(4)).map(|_| (random(50), random(8))).map(|(start, n)| start..start + n).collect();
            let options = EncodeOptions { add_special: false, parse_special: random(3) > 0, literal: &literal };
            let got = with_specials(&tokens, |t| found(t, &text, &options));
            assert_eq!(got, naive(&tokens, &text, &options), "round {round}: {tokens:?} {text} {options:?}");
        }
    }

    /// However many lengths of tokens there are, of however many prefixes: a number of steps for each byte that is
    /// logarithmic.
    #[test]
    fn time_is_linear_in_the_text() {
        let chain = |last: &str| (1..=700).map(|n| ("a".repeat(n) + last, n % 3 == 0)).collect::<Vec<_>>();
        let halves = (0..10).map(|n| ("a".repeat(1 << n), true)).collect::<Vec<_>>();
        let mut near = chain("");
        near.extend(chain("b").into_iter().map(|(text, user)| (text + "c", user)));
        let literal: Vec<Range<usize>> = (0..100).map(|i| 97 * i..97 * i + 3).collect();
        for tokens in [chain(""), chain("b"), near, halves] {
            for unit in ["a", "aaaaaaab", "b", &"a".repeat(699), &("a".repeat(701) + "b")] {
                for (parse_special, literal) in [(true, &[][..]), (true, &literal), (false, &[])] {
                    let options = EncodeOptions { add_special: false, parse_special, literal };
                    let steps = |n: usize| {
                        let text = unit.repeat(n / unit.len());
                        with_specials(&tokens, |t| {
                            LOOK_UPS.set(0);
                            found(t, &text, &options);
                            LOOK_UPS.get()
                        })
                    };
                    let (once, twice) = (steps(20_000), steps(40_000));
                    assert!(twice < 3 * once + 1000 && twice / 40_000 < 300, "{once}, {twice}: {unit} {options:?}");
                }
            }
        }
    }
}
