//! The alternatives of a pre-tokeniser's regex as data, and what they match.
//!
//! Regexes repeat few forms, so that there is no need for an engine: nearly every alternative is a list of runs, each of
//! characters that the run before does not take. None backtracks further than over an optional first character, and so
//! each takes a time linear in what it looks at.

use super::set::{ANY, BLANK, DIGIT, LETTER, LINE_END, LOWER, MARK, NUMBER, SPACE, Script, Set, UPPER, kind};

/// A run of characters: as many of a class as there are, up to `most`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    class: Set,
    /// The class's characters in these ranges only.
    ranges: Option<Script>,
    /// The class's characters outside the ranges.
    outside: bool,
    least: u8,
    /// 255: without limit.
    most: u8,
}

impl Run {
    /// `X+`
    pub(super) const fn some(class: Set) -> Self {
        Self { class, ranges: None, outside: false, least: 1, most: u8::MAX }
    }

    /// `X*`
    pub(super) const fn any(set: Set) -> Self {
        Self { least: 0, ..Self::some(set) }
    }

    /// `X?`
    pub(super) const fn maybe(set: Set) -> Self {
        Self { most: 1, ..Self::any(set) }
    }

    /// `X{1,most}`
    pub(super) const fn up_to(most: u8, set: Set) -> Self {
        Self { most, ..Self::some(set) }
    }

    /// `X{n}`
    pub(super) const fn exactly(n: u8, set: Set) -> Self {
        Self { least: n, ..Self::up_to(n, set) }
    }

    /// `X+`, where X is a character of this script.
    pub(super) const fn within(script: Script) -> Self {
        Self { ranges: Some(script), ..Self::some(ANY & !SPACE) }
    }

    /// `X{1,most}`, where X is a character of this script.
    pub(super) const fn up_to_within(most: u8, script: Script) -> Self {
        Self { most, ..Self::within(script) }
    }

    /// `X+`, where X is of this set and not of this script.
    pub(super) const fn outside(script: Script, set: Set) -> Self {
        Self { ranges: Some(script), outside: true, ..Self::some(set) }
    }

    fn has(&self, c: char) -> bool {
        kind(c) & self.class != 0 && self.ranges.is_none_or(|script| script.has(c) != self.outside)
    }

    /// The length of the run at the start of `text`, if it is long enough.
    #[inline(never)]
    fn len(&self, text: &str) -> Option<usize> {
        let most = if self.most == u8::MAX { usize::MAX } else { usize::from(self.most) };
        let (mut n, mut len) = (0, 0);
        for c in text.chars().take_while(|c| self.has(*c)).take(most) {
            (n, len) = (n + 1, len + c.len_utf8());
        }
        (n >= usize::from(self.least)).then_some(len)
    }
}

/// An alternative of a regex.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// These runs. The first may be one that is optional; no other two neighbours have a character in common.
    Runs(&'static [Run]),
    /// `Runs(…)(?i:'s|'t|'re|'ve|'m|'ll|'d)?`
    Contracted(&'static [Run]),
    /// `'s|'t|'re|'ve|'m|'ll|'d`
    Contraction,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`. No letter outside ASCII has one of these as its small letter, so ASCII's cases are all.
    ContractionInAnyCase,
    /// `[^\r\n\p{L}\p{N}]?U*l+|[^\r\n\p{L}\p{N}]?U+l*`, where U and l are the letters of this set that are not `[a-z]` and
    /// not `[A-Z]`. Letters outside ASCII are both, so these two are the only words with a case.
    Cased(Set),
    /// `Cased(…)(?i:'s|'t|'re|'ve|'m|'ll|'d)?`
    CasedContracted(Set),
    /// `[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+`: words with single blanks between them.
    Phrase,
    /// `\s*[\r\n]+`, to which `\s*[\r\n]` comes as well.
    Lines,
    /// `\s+(?!\S)|\s+`: all white space at the end of a piece; before text, all but the last, with which the next word begins.
    Spaces,
    /// `\s+$`
    SpacesAtEnd,
    /// `\s{512}(?!\S)|\s{256}(?!\S)|…|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}`
    SpacesByPowers,
    /// Numbers cut from the right into threes. What stands before a number stays with its first one to three digits.
    NumberFromRight,
    /// `(?=(\d{3})+(?!\d))`: as well by places that match no text, which cut off what stands before three digits, too.
    DigitsFromRight,
    /// A run between two spellings.
    Between(&'static Enclosed),
}

/// A run between two spellings; apart, because it is large, and rules are many.
#[derive(Debug)]
pub(super) struct Enclosed {
    pub(super) open: &'static str,
    pub(super) run: Run,
    pub(super) close: &'static str,
}

/// What may precede a word: `[^\r\n\p{L}\p{N}]`.
pub(super) const LEAD: Set = ANY & !(LINE_END | LETTER | NUMBER);

impl Rule {
    /// The length of the match at byte `at` of a piece, if there is one. A match is never empty.
    #[inline(never)]
    pub(super) fn len(&self, piece: &str, at: usize) -> Option<usize> {
        let (before, text) = piece.split_at_checked(at)?;
        let follows = |set| before.chars().next_back().is_some_and(|c| kind(c) & set != 0);
        let len = match *self {
            Rule::Runs(runs) => of_runs(runs, text)?,
            Rule::Contracted(runs) => with_contraction(text, of_runs(runs, text)?),
            Rule::Contraction => contraction(text, false)?,
            Rule::ContractionInAnyCase => contraction(text, true)?,
            Rule::Cased(letters) => cased(text, letters)?,
            Rule::CasedContracted(letters) => with_contraction(text, cased(text, letters)?),
            Rule::Phrase => phrase(text)?,
            // White space that is no line end comes before only if this rule has found no line end in the same white space.
            Rule::Lines if follows(SPACE & !LINE_END) => return None,
            Rule::Lines => last_of(LINE_END, text, run(text, SPACE))?,
            Rule::Spaces => spaces(text)?,
            // Likewise: what did not reach the end then does not reach it now.
            Rule::SpacesAtEnd if follows(SPACE) => return None,
            Rule::SpacesAtEnd => Some(run(text, SPACE)).filter(|len| *len == text.len())?,
            Rule::SpacesByPowers => spaces_by_powers(text),
            Rule::NumberFromRight => number_from_right(text, follows(NUMBER)),
            Rule::DigitsFromRight => digits_from_right(text, follows(DIGIT)),
            Rule::Between(Enclosed { open, run, close }) => {
                let inner = text.strip_prefix(open)?;
                let len = run.len(inner)?;
                after(inner, len).starts_with(close).then_some(open.len() + len + close.len())?
            }
        };
        (len > 0).then_some(len)
    }
}

fn of_runs(runs: &[Run], text: &str) -> Option<usize> {
    let (first, more) = runs.split_first()?;
    let whole =
        first.len(text).and_then(|len| more.iter().try_fold(len, |len, run| Some(len + run.len(after(text, len))?)));
    whole.or_else(|| if first.least == 0 { of_runs(more, text) } else { None })
}

/// `X*`: the length of the run at the start of `text`.
#[inline(never)]
fn run(text: &str, set: Set) -> usize {
    Run::any(set).len(text).unwrap_or(0)
}

/// What follows the apostrophe of an English contraction. None begins another.
const CONTRACTIONS: [&str; 7] = ["s", "t", "re", "ve", "m", "ll", "d"];

fn contraction(text: &str, in_any_case: bool) -> Option<usize> {
    let ending = text.as_bytes().strip_prefix(b"'")?;
    let same = |start: &[u8], known: &str| {
        if in_any_case { start.eq_ignore_ascii_case(known.as_bytes()) } else { start == known.as_bytes() }
    };
    let known = CONTRACTIONS.iter().find(|known| ending.get(..known.len()).is_some_and(|start| same(start, known)))?;
    Some(1 + known.len())
}

/// A match of `len` bytes, with the contraction that may follow it.
fn with_contraction(text: &str, len: usize) -> usize {
    len + contraction(after(text, len), true).unwrap_or(0)
}

/// The last character of a set among the first `len` bytes: where it ends.
fn last_of(set: Set, text: &str, len: usize) -> Option<usize> {
    text.get(..len)?.char_indices().rfind(|(_, c)| kind(*c) & set != 0).map(|(at, c)| at + c.len_utf8())
}

/// The first alternative ends in a small letter: after all that follow the capitals, or, if none does, after the last capital
/// that is a small letter too. The second one matters where there is none at all.
fn cased(text: &str, letters: Set) -> Option<usize> {
    let lead = Run::maybe(LEAD).len(text)?;
    let capitals = |start| start + run(after(text, start), letters & !LOWER);
    let small = |end| end + run(after(text, end), letters & !UPPER);
    let starts = [lead, 0];
    for start in starts {
        let end = capitals(start);
        let all = small(end);
        let both = last_of(letters & !UPPER, text, end).filter(|last| *last > start);
        if let Some(len) = if all > end { Some(all) } else { both } {
            return Some(len);
        }
    }
    starts.into_iter().find(|start| capitals(*start) > *start).map(capitals)
}

fn phrase(text: &str) -> Option<usize> {
    let mut len = Run::maybe(LEAD).len(text)?;
    let mut next = of_runs(&[Run::exactly(1, LETTER), Run::any(MARK)], after(text, len))?;
    while next > 0 {
        len += next;
        next = of_runs(&[Run::maybe(BLANK), Run::exactly(1, LETTER), Run::any(MARK)], after(text, len)).unwrap_or(0);
    }
    Some(len)
}

fn spaces(text: &str) -> Option<usize> {
    let spaces = text.get(..run(text, SPACE))?;
    let last = spaces.char_indices().next_back()?.0;
    Some(if spaces.len() == text.len() || last == 0 { spaces.len() } else { last })
}

fn spaces_by_powers(text: &str) -> usize {
    let (mut len, mut best) = (0, 0);
    for (n, c) in text.chars().take(512).enumerate().take_while(|(_, c)| kind(*c) & SPACE != 0) {
        len += c.len_utf8();
        let next = after(text, len).chars().next();
        if n == 0 || (n + 1).is_power_of_two() && next.is_none_or(|c| kind(c) & SPACE != 0) {
            best = len;
        }
    }
    best
}

/// `inside` if a number goes on here, of which the first digits are cut off: then the rest is a multiple of three.
fn number_from_right(text: &str, inside: bool) -> usize {
    let before = run(text, ANY & !NUMBER);
    let number = after(text, before);
    let first = if inside && before == 0 { 3 } else { first_group(number, NUMBER) };
    before + Run::up_to(first, NUMBER).len(number).unwrap_or(0)
}

/// Up to the next place from which on the digits are a multiple of three; `inside` as above.
fn digits_from_right(text: &str, inside: bool) -> usize {
    let mut len = 0;
    loop {
        len += run(after(text, len), ANY & !DIGIT);
        let digits = after(text, len);
        let first = if inside && len == 0 { 3 } else { first_group(digits, DIGIT) };
        if first == 3 && len > 0 {
            return len;
        }
        len += Run::up_to(first, DIGIT).len(digits).unwrap_or(0);
        let is_cut = Run::exactly(1, DIGIT).len(after(text, len)).is_some();
        if is_cut || len == text.len() {
            return len;
        }
    }
}

/// How many of the digits at the start of `text` are before as many threes as there can be; three if none are.
fn first_group(mut text: &str, digits: Set) -> u8 {
    while let Some(len) = Run::exactly(3, digits).len(text) {
        text = after(text, len);
    }
    let has = |n| Run::exactly(n, digits).len(text).is_some();
    if has(2) {
        2
    } else if has(1) {
        1
    } else {
        3
    }
}

/// What follows the first `len` bytes, which end a character.
#[inline(never)]
pub(super) fn after(text: &str, len: usize) -> &str {
    debug_assert!(text.is_char_boundary(len));
    text.get(len..).unwrap_or_default()
}
