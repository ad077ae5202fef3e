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
//! between two matches both become pieces.
//!
//! ```text
//! stages   the regexes, and the names of pre-tokenisers      set   sets of characters
//! rule     what an alternative matches
//! ```

mod rule;
mod set;
mod stages;

use core::iter::FusedIterator;

use rule::after;
pub(super) use stages::Whole;
use stages::{DEFAULT, FAMILIES, Family, MAX_STAGES, Stage};

/// A pre-tokeniser, as `tokenizer.ggml.pre` names it.
#[derive(Clone, Copy, Debug)]
pub struct PreTokenizer(&'static Family);

impl PreTokenizer {
    /// That of files which name none.
    pub const DEFAULT: Self = Self(&DEFAULT);

    /// The pre-tokeniser that a GGUF file names; `None` for an unknown name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let mut families = FAMILIES.iter().chain([&DEFAULT]);
        families.find(|family| family.has(name)).map(Self)
    }

    /// Splits `text` into words: none is empty, and joined they are the text.
    #[must_use]
    pub fn words(self, text: &str) -> Words<'_> {
        let mut pieces = [Piece::default(); MAX_STAGES];
        pieces[0].text = text;
        Words { stages: self.0.stages, pieces }
    }

    /// Words that, if they are tokens as a whole, are those tokens.
    pub(super) fn whole(self) -> Whole {
        self.0.whole
    }

    /// The default of `tokenizer.ggml.add_bos_token`.
    pub(super) fn adds_bos(self) -> bool {
        self.0.add_bos
    }

    /// Whether there is a BOS token where the file names none.
    pub(super) fn has_bos(self) -> bool {
        self.0.has_bos
    }

    /// Whether a word is at most one character, then characters that are no white space, then white space.
    pub(super) fn ends_words_at_blanks(self) -> bool {
        !self.0.characters && !self.0.across_blanks
    }

    /// Whether the vocabulary spells text in characters, with `▁` for a blank, rather than in GPT-2's letters for bytes.
    pub(super) fn is_of_characters(self) -> bool {
        self.0.characters
    }
}

/// A piece that a stage splits.
#[derive(Clone, Copy, Debug, Default)]
struct Piece<'t> {
    text: &'t str,
    /// Bytes split off so far.
    at: usize,
}

/// The words of a text, from [`PreTokenizer::words`].
#[derive(Clone, Debug)]
pub struct Words<'t> {
    stages: &'static [Stage],
    /// For each stage, the piece that it got.
    pieces: [Piece<'t>; MAX_STAGES],
}

impl<'t> Iterator for Words<'t> {
    type Item = &'t str;

    /// The next piece of the last stage. A stage gets a piece only when its own is used up, so no list of pieces is kept.
    fn next(&mut self) -> Option<&'t str> {
        let last = self.stages.len().checked_sub(1)?;
        let mut at = self.pieces.iter().rposition(|piece| piece.at < piece.text.len())?;
        loop {
            let piece = self.pieces.get_mut(at)?;
            let rest = after(piece.text, piece.at);
            let next = rest.get(..first_piece(self.stages.get(at)?, piece, rest)).unwrap_or(rest);
            piece.at += next.len();
            if at == last {
                return Some(next);
            }
            at += 1;
            *self.pieces.get_mut(at)? = Piece { text: next, at: 0 };
        }
    }
}

impl FusedIterator for Words<'_> {}

/// The length of a stage's first piece in the rest of `piece`: a match, or the text before one.
///
/// Linear over the pieces of a text: an alternative that does not match fails
/// at once, or keeps the next ones from trying the same.
fn first_piece(stage: Stage, piece: &Piece<'_>, rest: &str) -> usize {
    let first_match = |at: usize| stage.iter().find_map(|rule| rule.len(piece.text, piece.at + at));
    rest.char_indices()
        .find_map(|(at, _)| first_match(at).map(|len| if at == 0 { len } else { at }))
        .unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::super::encode::longest_between_blanks;
    use super::*;
    use std::vec::Vec;

    const GPT2: &str = "gpt-2";
    const SMOLLM: &str = "smollm";
    const LLAMA: &str = "llama-bpe";
    const QWEN2: &str = "qwen2";
    const DEFAULT: &str = "default";
    const FIVE: [&str; 5] = [GPT2, SMOLLM, LLAMA, QWEN2, DEFAULT];

    fn words<'t>(pre: &str, text: &'t str) -> Words<'t> {
        PreTokenizer::from_name(pre).unwrap().words(text)
    }

    /// One name of each family.
    fn all() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().map(|f| f.names.split(' ').next().unwrap()).chain([DEFAULT])
    }

    #[track_caller]
    fn cuts(pre: &str, text: &str, expected: &[&str]) {
        let mut words = words(pre, text);
        for (at, want) in expected.iter().enumerate() {
            assert_eq!(words.next(), Some(*want), "{pre:?}: word {at} of {text:?}");
        }
        assert_eq!(words.next(), None, "{pre:?}: after the last word of {text:?}");
    }

    #[test]
    fn names_are_exactly_those_of_gguf() {
        let mut names: Vec<&str> = FAMILIES.iter().chain([&stages::DEFAULT]).flat_map(|f| f.names.split(' ')).collect();
        assert!(names.iter().all(|name| PreTokenizer::from_name(name).is_some() && !name.is_empty()));
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n, "a name is in two families");
        for unknown in ["", " ", "gpt2", "GPT-2", "qwen2 ", "qwen2 deepseek-r1-qwen", "llama", "whitespace"] {
            assert!(PreTokenizer::from_name(unknown).is_none(), "{unknown:?}");
        }
    }

    #[test]
    fn no_text_has_no_words() {
        for pre in all() {
            cuts(pre, "", &[]);
            cuts(pre, " ", &[" "]);
            cuts(pre, "\0", &["\0"]);
        }
    }

    #[test]
    fn a_space_goes_with_the_word_after_it() {
        for pre in FIVE {
            cuts(pre, "Hello big world", &["Hello", " big", " world"]);
            cuts(pre, "a   b", &["a", "  ", " b"]);
            cuts(pre, "a  ", &["a", "  "]);
            cuts(pre, "  ", &["  "]);
        }
    }

    #[test]
    fn other_leads_go_with_letters_in_llama_only() {
        cuts(GPT2, "a\tb\u{3000}c(d", &["a", "\t", "b", "\u{3000}", "c", "(", "d"]);
        cuts(LLAMA, "a\tb\u{3000}c(d", &["a", "\tb", "\u{3000}c", "(d"]);
        // Not so a newline, a number, or a second lead.
        cuts(QWEN2, "a\nb1c((d", &["a", "\n", "b", "1", "c", "((", "d"]);
    }

    #[test]
    fn contractions_are_cut_off() {
        cuts(GPT2, "I'm we'll 'tis", &["I", "'m", " we", "'ll", " '", "tis"]);
        cuts(GPT2, "'sad'", &["'s", "ad", "'"]);
        cuts(LLAMA, "we'll 'tis 'Sad", &["we", "'ll", " '", "tis", " '", "Sad"]);
    }

    #[test]
    fn the_case_of_a_contraction_matters_in_gpt2_only() {
        cuts(GPT2, "I'M I'vE", &["I", "'", "M", " I", "'", "vE"]);
        cuts(LLAMA, "I'M I'vE", &["I", "'M", " I", "'vE"]);
        // The long s has S for its capital, but S has s for its small letter.
        cuts(QWEN2, "a'ſ", &["a", "'ſ"]);
    }

    #[test]
    fn half_a_contraction_is_an_apostrophe() {
        cuts(GPT2, "'l 'r '", &["'", "l", " '", "r", " '"]);
        cuts(LLAMA, "'l' 'rx", &["'l", "'", " '", "rx"]);
        cuts(QWEN2, "'é'é", &["'é", "'é"]);
    }

    #[test]
    fn numbers_are_cut_each_in_its_way() {
        cuts(GPT2, "a 12345", &["a", " 12345"]);
        cuts(SMOLLM, "a 123", &["a", " ", "1", "2", "3"]);
        cuts(LLAMA, "a 12345", &["a", " ", "123", "45"]);
        cuts(QWEN2, "a 123", &["a", " ", "1", "2", "3"]);
        cuts(DEFAULT, "a 12345", &["a", " ", "123", "45"]);
    }

    #[test]
    fn all_numbers_are_numbers() {
        cuts(GPT2, " ½Ⅳ٣1", &[" ½Ⅳ٣1"]);
        cuts(SMOLLM, "½Ⅳ٣", &["½", "Ⅳ", "٣"]);
        cuts(LLAMA, "½Ⅳ٣1", &["½Ⅳ٣", "1"]);
        // The last stage knows the digits of ASCII only.
        cuts(DEFAULT, "١٢٣٤", &["١٢٣٤"]);
        cuts(DEFAULT, "12٣4567", &["12٣", "456", "7"]);
    }

    #[test]
    fn a_piece_ends_what_its_stage_can_see() {
        // "a  " is a piece of smollm's first stage, so its spaces stay together.
        cuts(SMOLLM, "a  1", &["a", "  ", "1"]);
        cuts(GPT2, "a  1", &["a", " ", " 1"]);
        cuts(DEFAULT, "a  !b", &["a", "  ", "!", "b"]);
        cuts(DEFAULT, "I'm", &["I", "'", "m"]);
    }

    #[test]
    fn default_takes_only_some_symbols_for_signs() {
        cuts(DEFAULT, " !?$+~ €`a", &[" ", "!?$+~", " €`", "a"]);
        cuts(DEFAULT, "«a»`$`", &["«", "a", "»", "`", "$", "`"]);
        cuts(GPT2, " !?$+~ €`a", &[" !?$+~", " €`", "a"]);
    }

    #[test]
    fn newlines_end_a_run_of_others_or_spaces_in_llama() {
        cuts(LLAMA, "a;\r\n\n b", &["a", ";\r\n\n", " b"]);
        cuts(LLAMA, "a \t\n \n  b", &["a", " \t\n \n", " ", " b"]);
        cuts(LLAMA, "a\u{85}\u{2028} b", &["a", "\u{85}\u{2028}", " b"]);
        cuts(GPT2, "a;\r\n\n b", &["a", ";", "\r\n\n", " b"]);
    }

    #[test]
    fn digits_are_cut_from_the_right() {
        cuts("superbpe", "a b 1234567 c", &["a b ", "1", "234", "567", " c"]);
        cuts("superbpe", "٣123 ٣1234 12٣4567٣8", &["٣", "123", " ", "٣1", "234", " ", "12٣4", "567٣8"]);
    }

    #[test]
    fn chinese_characters_are_words_of_their_own_in_kimi() {
        cuts("kimi-k2", " 漢字かな don't 漢x", &[" ", "漢字", "かな", " don't", " ", "漢", "x"]);
    }

    #[test]
    fn chameleon_keeps_its_images_together() {
        cuts("chameleon", "IMGIMGIMGABZb IMGIMGABCDEZ", &["IMG", "IMGIMGABZ", "b", " IMGIMGABCDEZ"]);
        cuts("chameleon", "<sentinel:12>", &["<", "sentinel", ":", "1", "2", ">"]);
        cuts("chameleon", "a     b\t\tc", &["a", "    ", " b", "\t", "\t", "c"]);
    }

    #[test]
    fn marks_and_joiners_are_no_letters() {
        cuts(GPT2, "e\u{301}e", &["e", "\u{301}", "e"]);
        cuts(LLAMA, "e\u{301}e", &["e", "\u{301}e"]);
        cuts(GPT2, "हिन्दी", &["ह", "ि", "न", "्", "द", "ी"]);
        cuts(QWEN2, "ที่ 👨\u{200D}👩", &["ท", "ี่", " 👨\u{200D}👩"]);
        cuts(GPT2, "a\u{200B}b", &["a", "\u{200B}", "b"]);
    }

    /// What the random texts are made of: a few of each kind that a regex
    /// tells from the others, and of each length in UTF-8.
    const KINDS: &str = "  \n\r\t\u{A0}\u{3000}\u{85}\u{200B}'''stremvldSTREaZéß中あعहท\
                         019٣½Ⅳ\u{301}ि\u{FE0F}\u{200D}😀€$`!.//—。\0\u{7F}\u{10FFFF}";

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
    fn rejoins(pre: &str, text: &str) {
        let mut tail = text;
        for word in words(pre, text) {
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
        for _ in 0..4000 {
            let text = random_text(&mut seed, &mut room);
            for pre in all() {
                rejoins(pre, text);
            }
        }
    }

    /// Memory for a text is planned by this bound of its words.
    #[test]
    fn words_are_no_longer_than_planned() {
        let (mut seed, mut room) = (0x2545_F491_4F6C_DD1D, [0; 128]);
        let lines = core::iter::repeat_n("//\n", 8).collect::<std::string::String>();
        let random = (0..4000).map(|_| std::string::String::from(random_text(&mut seed, &mut room)));
        for text in random.chain([lines.clone(), std::format!("/*\n{lines}x")]) {
            for pre in all() {
                let words = PreTokenizer::from_name(pre).unwrap();
                let bound = if words.ends_words_at_blanks() { longest_between_blanks(&text) } else { text.len() };
                let longest = words.words(&text).map(str::len).max().unwrap_or(0);
                assert!(longest <= bound, "{pre}: {longest} bytes of {text:?}, {bound} planned");
            }
        }
    }

    #[test]
    fn a_char_alone_is_a_word() {
        // A prime step visits every kind, in a fraction of the time of them all.
        for c in ('\0'..=char::MAX).step_by(101) {
            let mut room = [0; 4];
            let text: &str = c.encode_utf8(&mut room);
            for pre in all() {
                cuts(pre, text, &[text]);
            }
        }
    }

    /// Twice the text takes twice the time, whatever it repeats; and no character is looked at more than some dozens of times.
    #[test]
    fn time_is_linear_in_the_text() {
        let units = [
            " ", "\n", "a", "1", "!", "'", "É", "A", "\u{301}", "漢", "a ", " a", " \n", "\n ", "  \r", "AÉ",
            "A\u{301}", "'l", "1a", "12٣",
        ];
        for unit in units {
            for tail in ["", "1", "\n"] {
                for pre in all() {
                    let steps = |n: usize| {
                        let text = unit.repeat(n) + tail;
                        set::look_ups();
                        rejoins(pre, &text);
                        set::look_ups()
                    };
                    // Long runs of white space are cut into pieces of 512.
                    let n = if unit == " " { 1 << 12 } else { 1 << 9 };
                    let (once, twice) = (steps(n), steps(2 * n));
                    let per_character = twice / (2 * n * unit.chars().count());
                    assert!(
                        twice <= 2 * once + 2000 && per_character < 60,
                        "{pre}: {once}, {twice} for {unit:?}… {tail:?}"
                    );
                }
            }
        }
    }
}
