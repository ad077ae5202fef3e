//! Pre-tokenisers: split a text into words, within which BPE merges.
//!
//! The words are those that llama.cpp gets from the regexes that its
//! `llama-vocab.cpp` lists for each name, without a regex engine, allocation or
//! panic, in time linear in the text. Joined, the words of a text are the text;
//! none is empty.
//!
//! A pre-tokeniser is a list of stages; each splits the pieces of the one before
//! it, and sees no more than one piece at a time. A stage is a regex: a list of
//! alternatives, of which the first that matches counts. Matches and the text
//! between two matches both become pieces. An alternative is a function named
//! after what it matches; its comment gives the regex.

use core::iter::FusedIterator;

use super::unicode::{Class, class};

/// A pre-tokeniser, as `tokenizer.ggml.pre` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreTokenizer {
    /// GPT-2's.
    Gpt2,
    /// GPT-2's, with every digit a word of its own.
    Smollm,
    /// Llama 3's: up to three digits a word, contractions in any case.
    LlamaBpe,
    /// Qwen 2's: Llama 3's, with every digit a word of its own.
    Qwen2,
    /// llama.cpp's default, for files that do not name a known one.
    Default,
}

impl PreTokenizer {
    /// The pre-tokeniser that a GGUF file names; `None` for an unknown name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "gpt-2" => Some(Self::Gpt2),
            "smollm" => Some(Self::Smollm),
            "llama-bpe" | "llama3" | "llama-v3" => Some(Self::LlamaBpe),
            "qwen2" => Some(Self::Qwen2),
            "default" => Some(Self::Default),
            _ => None,
        }
    }

    /// Splits `text` into words: none is empty, and joined they are the text.
    #[must_use]
    pub fn words(self, text: &str) -> Words<'_> {
        let mut tails = [""; MAX_STAGES];
        tails[0] = text;
        Words { stages: self.stages(), tails }
    }

    fn stages(self) -> &'static [Stage] {
        match self {
            Self::Gpt2 => &[GPT2],
            Self::Smollm => &[&[number], GPT2],
            Self::LlamaBpe => &[LLAMA3],
            Self::Qwen2 => &[QWEN2],
            Self::Default => &[&[signs], GPT2, &[numbers], &[three_ascii_digits]],
        }
    }
}

/// The words of a text, from [`PreTokenizer::words`].
#[derive(Clone, Debug)]
pub struct Words<'t> {
    stages: &'static [Stage],
    /// For each stage, the unsplit tail of the piece that it got.
    tails: [&'t str; MAX_STAGES],
}

impl<'t> Iterator for Words<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        next_piece(self.stages, self.tails.get_mut(..self.stages.len())?)
    }
}

impl FusedIterator for Words<'_> {}

/// The next piece of the last of `stages`. It asks the stage before it for a
/// piece only when its own is used up, so no list of pieces is kept.
fn next_piece<'t>(stages: &[Stage], tails: &mut [&'t str]) -> Option<&'t str> {
    let (stage, earlier_stages) = stages.split_last()?;
    let (piece_tail, earlier_tails) = tails.split_last_mut()?;
    if piece_tail.is_empty() {
        *piece_tail = next_piece(earlier_stages, earlier_tails)?;
    }
    let (piece, tail) = piece_tail.split_at_checked(first_piece(stage, piece_tail)).unwrap_or((piece_tail, ""));
    *piece_tail = tail;
    Some(piece)
}

/// The length of a stage's first piece: a match, or the text before one.
///
/// Linear over the pieces of a text: an alternative that does not match fails
/// at once, except in a stage that matches everywhere.
fn first_piece(stage: Stage, text: &str) -> usize {
    text.char_indices()
        .find_map(|(at, _)| match first_match(stage, after(text, at))? {
            len if at == 0 => Some(len),
            _ => Some(at),
        })
        .unwrap_or(text.len())
}

fn first_match(stage: Stage, text: &str) -> Option<usize> {
    stage.iter().find_map(|alternative| alternative(text))
}

/// The length of a match at the start of a text, if there is one. A match is
/// never empty.
type Alternative = fn(&str) -> Option<usize>;

/// A regex: the first alternative that matches counts.
type Stage = &'static [Alternative];

/// The most stages a pre-tokeniser has.
const MAX_STAGES: usize = 4;

/// Matches everywhere.
const GPT2: Stage = &[contraction, spaced_letters, spaced_numbers, spaced_others, spaces_but_one_before_text, spaces];

/// Matches everywhere.
const LLAMA3: Stage = &[
    contraction_in_any_case,
    led_letters,
    numbers_up_to_three,
    spaced_others_and_newlines,
    spaces_to_last_newline,
    spaces_but_one_before_text,
    spaces,
];

/// Matches everywhere.
const QWEN2: Stage = &[
    contraction_in_any_case,
    led_letters,
    number,
    spaced_others_and_newlines,
    spaces_to_last_newline,
    spaces_but_one_before_text,
    spaces,
];

/// What follows the apostrophe of an English contraction. None begins another.
const CONTRACTIONS: [&str; 7] = ["s", "t", "re", "ve", "m", "ll", "d"];

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(text: &str) -> Option<usize> {
    let ending = text.strip_prefix('\'')?;
    CONTRACTIONS.iter().find(|known| ending.starts_with(**known)).map(|known| 1 + known.len())
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`. No letter outside ASCII has one of these as
/// its small letter, so ASCII's cases are all.
fn contraction_in_any_case(text: &str) -> Option<usize> {
    let ending = text.strip_prefix('\'')?;
    let is_ending = |known: &str| ending.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known));
    CONTRACTIONS.iter().find(|known| is_ending(known)).map(|known| 1 + known.len())
}

/// ` ?\p{L}+`
fn spaced_letters(text: &str) -> Option<usize> {
    spaced(text, is_letter)
}

/// `[^\r\n\p{L}\p{N}]?\p{L}+`
fn led_letters(text: &str) -> Option<usize> {
    led(text, |c| !(is_newline(c) || is_letter(c) || is_number(c)), is_letter)
}

/// `\p{N}`
fn number(text: &str) -> Option<usize> {
    some(up_to(1, text, is_number))
}

/// `\p{N}{1,3}`
fn numbers_up_to_three(text: &str) -> Option<usize> {
    some(up_to(3, text, is_number))
}

/// `\p{N}+`
fn numbers(text: &str) -> Option<usize> {
    some(zero_or_more(text, is_number))
}

/// ` ?\p{N}+`
fn spaced_numbers(text: &str) -> Option<usize> {
    spaced(text, is_number)
}

/// `[0-9][0-9][0-9]`: the digits of other scripts do not count here.
fn three_ascii_digits(text: &str) -> Option<usize> {
    (up_to(3, text, |c| c.is_ascii_digit()) == 3).then_some(3)
}

/// `[\p{P}\$\+<=>\^~\|]+`: of the symbols only these, so not even the grave accent.
fn signs(text: &str) -> Option<usize> {
    some(zero_or_more(text, |c| {
        class(c) == Class::Punctuation || matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|')
    }))
}

/// ` ?[^\s\p{L}\p{N}]+`
fn spaced_others(text: &str) -> Option<usize> {
    spaced(text, |c| !(is_space(c) || is_letter(c) || is_number(c)))
}

/// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
fn spaced_others_and_newlines(text: &str) -> Option<usize> {
    let others = spaced_others(text)?;
    Some(others + zero_or_more(after(text, others), is_newline))
}

/// `\s*[\r\n]+`
fn spaces_to_last_newline(text: &str) -> Option<usize> {
    text.get(..zero_or_more(text, is_space))?.rfind(is_newline).map(|newline| newline + 1)
}

/// `\s+(?!\S)`: all white space at the end of a piece; before text, all but the
/// last, with which the next word begins.
fn spaces_but_one_before_text(text: &str) -> Option<usize> {
    let spaces = text.get(..zero_or_more(text, is_space))?;
    if spaces.len() == text.len() {
        return some(spaces.len());
    }
    spaces.char_indices().next_back().and_then(|(last, _)| some(last))
}

/// `\s+`
fn spaces(text: &str) -> Option<usize> {
    some(zero_or_more(text, is_space))
}

/// ` ?X+`, where `is_x` matches an X.
fn spaced(text: &str, is_x: impl Fn(char) -> bool) -> Option<usize> {
    led(text, |c| c == ' ', is_x)
}

/// `L?X+`, where `is_lead` matches an L and `is_x` an X. No character may be
/// both, so that there is no need to backtrack.
fn led(text: &str, is_lead: impl Fn(char) -> bool, is_x: impl Fn(char) -> bool) -> Option<usize> {
    let lead = up_to(1, text, is_lead);
    some(zero_or_more(after(text, lead), is_x)).map(|len| lead + len)
}

/// `X*`, where `is_x` matches an X: the length in bytes.
fn zero_or_more(text: &str, is_x: impl Fn(char) -> bool) -> usize {
    up_to(usize::MAX, text, is_x)
}

/// `X{0,most}`, where `is_x` matches an X: the length in bytes.
fn up_to(most: usize, text: &str, is_x: impl Fn(char) -> bool) -> usize {
    text.chars().take(most).take_while(|&c| is_x(c)).map(char::len_utf8).sum()
}

/// A match is never empty.
fn some(len: usize) -> Option<usize> {
    (len > 0).then_some(len)
}

/// What follows the first `len` bytes, which end a character.
fn after(text: &str, len: usize) -> &str {
    debug_assert!(text.is_char_boundary(len));
    text.get(len..).unwrap_or_default()
}

fn is_letter(c: char) -> bool {
    class(c) == Class::Letter
}

fn is_number(c: char) -> bool {
    class(c) == Class::Number
}

fn is_space(c: char) -> bool {
    class(c) == Class::Whitespace
}

fn is_newline(c: char) -> bool {
    c == '\r' || c == '\n'
}

#[cfg(test)]
mod tests {
    use super::PreTokenizer::{Default, Gpt2, LlamaBpe, Qwen2, Smollm};
    use super::*;

    const ALL: [PreTokenizer; 5] = [Gpt2, Smollm, LlamaBpe, Qwen2, Default];

    #[track_caller]
    fn cuts(pre: PreTokenizer, text: &str, expected: &[&str]) {
        let mut words = pre.words(text);
        for (at, want) in expected.iter().enumerate() {
            assert_eq!(words.next(), Some(*want), "{pre:?}: word {at} of {text:?}");
        }
        assert_eq!(words.next(), None, "{pre:?}: after the last word of {text:?}");
    }

    #[test]
    fn names_are_exactly_those_of_gguf() {
        let names = ["gpt-2", "smollm", "llama-bpe", "llama3", "llama-v3", "qwen2", "default"];
        let found = names.map(PreTokenizer::from_name);
        let expected = [Gpt2, Smollm, LlamaBpe, LlamaBpe, LlamaBpe, Qwen2, Default];
        assert_eq!(found, expected.map(Some));
        for unknown in ["", "gpt2", "GPT-2", "qwen2 ", "qwen35", "llama"] {
            assert_eq!(PreTokenizer::from_name(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn no_text_has_no_words() {
        for pre in ALL {
            cuts(pre, "", &[]);
            cuts(pre, " ", &[" "]);
            cuts(pre, "\0", &["\0"]);
        }
    }

    #[test]
    fn a_space_goes_with_the_word_after_it() {
        for pre in ALL {
            cuts(pre, "Hello big world", &["Hello", " big", " world"]);
            cuts(pre, "a   b", &["a", "  ", " b"]);
            cuts(pre, "a  ", &["a", "  "]);
            cuts(pre, "  ", &["  "]);
        }
    }

    #[test]
    fn other_leads_go_with_letters_in_llama_only() {
        cuts(Gpt2, "a\tb\u{3000}c(d", &["a", "\t", "b", "\u{3000}", "c", "(", "d"]);
        cuts(LlamaBpe, "a\tb\u{3000}c(d", &["a", "\tb", "\u{3000}c", "(d"]);
        // Not so a newline, a number, or a second lead.
        cuts(Qwen2, "a\nb1c((d", &["a", "\n", "b", "1", "c", "((", "d"]);
    }

    #[test]
    fn contractions_are_cut_off() {
        cuts(Gpt2, "I'm we'll 'tis", &["I", "'m", " we", "'ll", " '", "tis"]);
        cuts(Gpt2, "'sad'", &["'s", "ad", "'"]);
        cuts(LlamaBpe, "we'll 'tis 'Sad", &["we", "'ll", " '", "tis", " '", "Sad"]);
    }

    #[test]
    fn the_case_of_a_contraction_matters_in_gpt2_only() {
        cuts(Gpt2, "I'M I'vE", &["I", "'", "M", " I", "'", "vE"]);
        cuts(LlamaBpe, "I'M I'vE", &["I", "'M", " I", "'vE"]);
        // The long s has S for its capital, but S has s for its small letter.
        cuts(Qwen2, "a'ſ", &["a", "'ſ"]);
    }

    #[test]
    fn half_a_contraction_is_an_apostrophe() {
        cuts(Gpt2, "'l 'r '", &["'", "l", " '", "r", " '"]);
        cuts(LlamaBpe, "'l' 'rx", &["'l", "'", " '", "rx"]);
        cuts(Qwen2, "'é'é", &["'é", "'é"]);
    }

    #[test]
    fn numbers_are_cut_each_in_its_way() {
        cuts(Gpt2, "a 12345", &["a", " 12345"]);
        cuts(Smollm, "a 123", &["a", " ", "1", "2", "3"]);
        cuts(LlamaBpe, "a 12345", &["a", " ", "123", "45"]);
        cuts(Qwen2, "a 123", &["a", " ", "1", "2", "3"]);
        cuts(Default, "a 12345", &["a", " ", "123", "45"]);
    }

    #[test]
    fn all_numbers_are_numbers() {
        cuts(Gpt2, " ½Ⅳ٣1", &[" ½Ⅳ٣1"]);
        cuts(Smollm, "½Ⅳ٣", &["½", "Ⅳ", "٣"]);
        cuts(LlamaBpe, "½Ⅳ٣1", &["½Ⅳ٣", "1"]);
        // The last stage knows the digits of ASCII only.
        cuts(Default, "١٢٣٤", &["١٢٣٤"]);
        cuts(Default, "12٣4567", &["12٣", "456", "7"]);
    }

    #[test]
    fn a_piece_ends_what_its_stage_can_see() {
        // "a  " is a piece of smollm's first stage, so its spaces stay together.
        cuts(Smollm, "a  1", &["a", "  ", "1"]);
        cuts(Gpt2, "a  1", &["a", " ", " 1"]);
        cuts(Default, "a  !b", &["a", "  ", "!", "b"]);
        cuts(Default, "I'm", &["I", "'", "m"]);
    }

    #[test]
    fn default_takes_only_some_symbols_for_signs() {
        cuts(Default, " !?$+~ €`a", &[" ", "!?$+~", " €`", "a"]);
        cuts(Default, "«a»`$`", &["«", "a", "»", "`", "$", "`"]);
        cuts(Gpt2, " !?$+~ €`a", &[" !?$+~", " €`", "a"]);
    }

    #[test]
    fn newlines_end_a_run_of_others_or_spaces_in_llama() {
        cuts(LlamaBpe, "a;\r\n\n b", &["a", ";\r\n\n", " b"]);
        cuts(LlamaBpe, "a \t\n \n  b", &["a", " \t\n \n", " ", " b"]);
        cuts(LlamaBpe, "a\u{85}\u{2028} b", &["a", "\u{85}\u{2028}", " b"]);
        cuts(Gpt2, "a;\r\n\n b", &["a", ";", "\r\n\n", " b"]);
    }

    #[test]
    fn marks_and_joiners_are_no_letters() {
        cuts(Gpt2, "e\u{301}e", &["e", "\u{301}", "e"]);
        cuts(LlamaBpe, "e\u{301}e", &["e", "\u{301}e"]);
        cuts(Gpt2, "हिन्दी", &["ह", "ि", "न", "्", "द", "ी"]);
        cuts(Qwen2, "ที่ 👨\u{200D}👩", &["ท", "ี่", " 👨\u{200D}👩"]);
        cuts(Gpt2, "a\u{200B}b", &["a", "\u{200B}", "b"]);
    }

    /// What the random texts are made of: a few of each kind that a regex
    /// tells from the others, and of each length in UTF-8.
    const KINDS: &str = "  \n\r\t\u{A0}\u{3000}\u{85}\u{200B}'''stremvldSTREaZéß中あعहท\
                         019٣½Ⅳ\u{301}ि\u{FE0F}\u{200D}😀€$`!.—。\0\u{7F}\u{10FFFF}";

    /// A text of KINDS, written into `room`.
    fn random_text<'r>(seed: &mut u64, room: &'r mut [u8; 128]) -> &'r str {
        let mut next = |below: usize| {
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            usize::try_from(*seed >> 33).unwrap_or_default() % below
        };
        let mut len = 0;
        for _ in 0..next(32) {
            let kind = KINDS.chars().nth(next(KINDS.chars().count())).unwrap_or(' ');
            len += room.get_mut(len..).map_or(0, |free| kind.encode_utf8(free).len());
        }
        room.get(..len).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Checks that the words of `text` are not empty and are together the text.
    #[track_caller]
    fn rejoins(pre: PreTokenizer, text: &str) {
        let mut tail = text;
        for word in pre.words(text) {
            assert!(!word.is_empty(), "{pre:?}: an empty word of {text:?}");
            let found = tail.strip_prefix(word);
            assert!(found.is_some(), "{pre:?}: {word:?} is not next in {text:?}");
            tail = found.unwrap_or_default();
        }
        assert_eq!(tail, "", "{pre:?}: left over of {text:?}");
    }

    #[test]
    fn words_join_to_the_text() {
        let (mut seed, mut room) = (0x9E37_79B9_7F4A_7C15, [0; 128]);
        for _ in 0..20_000 {
            let text = random_text(&mut seed, &mut room);
            for pre in ALL {
                rejoins(pre, text);
            }
        }
    }

    #[test]
    fn a_char_alone_is_a_word() {
        // A prime step visits every kind, in a fraction of the time of them all.
        for c in ('\0'..=char::MAX).step_by(13) {
            let mut room = [0; 4];
            let text: &str = c.encode_utf8(&mut room);
            for pre in ALL {
                cuts(pre, text, &[text]);
            }
        }
    }

    #[test]
    fn long_runs_take_no_longer_than_others() {
        const LEN: usize = 1 << 19;
        static RUNS: [[u8; LEN]; 6] = [[b' '; LEN], [b'\n'; LEN], [b'a'; LEN], [b'1'; LEN], [b'!'; LEN], [b'\''; LEN]];
        // Were the time not linear, this would take minutes and more.
        for run in &RUNS {
            let text = str::from_utf8(run).unwrap_or_default();
            for pre in ALL {
                rejoins(pre, text);
            }
        }
    }
}
