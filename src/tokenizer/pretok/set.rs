//! Sets of characters, as the regexes of pre-tokenisers tell them apart.

use super::super::unicode::{Class, class};

/// A set of the [kinds](kind) that a character can be of: one bit for each.
pub(super) type Set = u32;

/// Control, format, private use, unassigned.
pub(super) const OTHER: Set = 1;
/// Letters outside ASCII. They have no case: llama.cpp's regexes see them as one class.
const FOREIGN_LETTER: Set = 1 << 1;
pub(super) const LOWER: Set = 1 << 2;
pub(super) const UPPER: Set = 1 << 3;
const FOREIGN_NUMBER: Set = 1 << 4;
pub(super) const DIGIT: Set = 1 << 5;
/// `\p{M}`
pub(super) const MARK: Set = 1 << 6;
const FOREIGN_PUNCTUATION: Set = 1 << 7;
const FOREIGN_SYMBOL: Set = 1 << 8;
const OTHER_SPACE: Set = 1 << 9;
pub(super) const BLANK: Set = 1 << 10;
const RETURN: Set = 1 << 11;
pub(super) const FEED: Set = 1 << 12;
pub(super) const SLASH: Set = 1 << 13;
const ASCII_PUNCTUATION: Set = 1 << 14;
/// `[$+<=>^~|]`
pub(super) const ASCII_SYMBOL: Set = 1 << 15;
pub(super) const GRAVE: Set = 1 << 16;
pub(super) const TAB: Set = 1 << 17;

/// `.`, line ends included.
pub(super) const ANY: Set = (1 << 18) - 1;
/// `\p{L}`
pub(super) const LETTER: Set = FOREIGN_LETTER | LOWER | UPPER;
/// `\p{N}`
pub(super) const NUMBER: Set = FOREIGN_NUMBER | DIGIT;
/// `\p{P}`
pub(super) const PUNCTUATION: Set = FOREIGN_PUNCTUATION | ASCII_PUNCTUATION | SLASH;
/// `\p{S}`
pub(super) const SYMBOL: Set = FOREIGN_SYMBOL | ASCII_SYMBOL | GRAVE;
/// `[!-/:-@\[-`{-~]`: the punctuation and the symbols of ASCII
pub(super) const ASCII_SIGN: Set = ASCII_PUNCTUATION | SLASH | ASCII_SYMBOL | GRAVE;
/// `\s`
pub(super) const SPACE: Set = OTHER_SPACE | TAB | BLANK | LINE_END;
/// `[\r\n]`
pub(super) const LINE_END: Set = RETURN | FEED;

/// The set of the one kind that `c` is of.
#[inline(never)]
pub(super) fn kind(c: char) -> Set {
    #[cfg(test)]
    tests::LOOK_UPS.with(|n| n.set(n.get() + 1));
    match c {
        'a'..='z' => LOWER,
        'A'..='Z' => UPPER,
        '0'..='9' => DIGIT,
        ' ' => BLANK,
        '\t' => TAB,
        '\r' => RETURN,
        '\n' => FEED,
        '/' => SLASH,
        '`' => GRAVE,
        _ => match (class(c), c.is_ascii()) {
            (Class::Letter, _) => FOREIGN_LETTER,
            (Class::Number, _) => FOREIGN_NUMBER,
            (Class::Mark, _) => MARK,
            (Class::Punctuation, true) => ASCII_PUNCTUATION,
            (Class::Punctuation, false) => FOREIGN_PUNCTUATION,
            (Class::Symbol, true) => ASCII_SYMBOL,
            (Class::Symbol, false) => FOREIGN_SYMBOL,
            (Class::Whitespace, _) => OTHER_SPACE,
            (Class::Other, _) => OTHER,
        },
    }
}

/// Calls of [`kind`] since the last time that this was asked: it is what all rules spend their time on.
#[cfg(test)]
pub(super) fn look_ups() -> usize {
    tests::LOOK_UPS.take()
}

/// Characters that a regex lists by ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Script {
    ChineseOrKana,
    Hangul,
    ChinesePunctuation,
    Bopomofo,
    Asian,
    DeepSeekAsian,
    BloomSigns,
    DeepSeekSigns,
    DeepSeekLetters,
    Han,
    AToI,
}

impl Script {
    /// Whether `c` lies in one of the ranges. White space counts as none of them, whatever a range says, since llama.cpp
    /// replaces all that is not ASCII before it looks: the caller leaves it out.
    pub(super) fn has(self, c: char) -> bool {
        let ranges = match self {
            Script::ChineseOrKana => CHINESE_OR_KANA,
            Script::Hangul => HANGUL,
            Script::ChinesePunctuation => CHINESE_PUNCTUATION,
            Script::Bopomofo => BOPOMOFO,
            Script::Asian => ASIAN,
            Script::DeepSeekAsian => DEEPSEEK_ASIAN,
            Script::BloomSigns => BLOOM_SIGNS,
            Script::DeepSeekSigns => DEEPSEEK_SIGNS,
            Script::DeepSeekLetters => DEEPSEEK_LETTERS,
            Script::Han => HAN,
            Script::AToI => &[('A', 'I')],
        };
        let after = ranges.partition_point(|(first, _)| *first <= c);
        let range = after.checked_sub(1).and_then(|i| ranges.get(i));
        range.is_some_and(|(_, last)| c <= *last)
    }
}

/// Ranges of characters, both ends included, in ascending order.
type Ranges = &'static [(char, char)];

/// `[一-龥぀-ヿ]`: Chinese and kana, as DeepSeek has them.
const CHINESE_OR_KANA: Ranges = &[('\u{3040}', '\u{30ff}'), ('\u{4e00}', '\u{9fa5}')];
/// `[가-힣ㄱ-ㆎ]`
const HANGUL: Ranges = &[('\u{3131}', '\u{318e}'), ('\u{ac00}', '\u{d7a3}')];
/// `[！…“”‘’—：；，、-〿︰-﹏]`
const CHINESE_PUNCTUATION: Ranges = &[
    ('\u{2014}', '\u{2014}'),
    ('\u{2018}', '\u{2019}'),
    ('\u{201c}', '\u{201d}'),
    ('\u{2026}', '\u{2026}'),
    ('\u{3001}', '\u{303f}'),
    ('\u{fe30}', '\u{fe4f}'),
    ('\u{ff01}', '\u{ff01}'),
    ('\u{ff0c}', '\u{ff0c}'),
    ('\u{ff1a}', '\u{ff1b}'),
];
/// `[ㄅ-ㄯ]`
const BOPOMOFO: Ranges = &[('\u{3105}', '\u{312f}')];
/// The scripts without blanks of AFMoE. Its third range starts at U+8C48, not at the U+F900 that looks the same.
const ASIAN: Ranges = &[
    ('\u{e40}', '\u{eff}'),
    ('\u{1000}', '\u{109f}'),
    ('\u{1100}', '\u{11ff}'),
    ('\u{1780}', '\u{17ff}'),
    ('\u{2f00}', '\u{2fdf}'),
    ('\u{3040}', '\u{30ff}'),
    ('\u{3400}', '\u{4dbf}'),
    ('\u{4e00}', '\u{faff}'),
    ('\u{ff65}', '\u{ff9f}'),
];
/// `[一-龥ࠀ-一가-퟿]`
const DEEPSEEK_ASIAN: Ranges = &[('\u{800}', '\u{9fa5}'), ('\u{ac00}', '\u{d7ff}')];
/// `[(\s|.,!?…。，、।۔،)]` of BLOOM, white space left out.
const BLOOM_SIGNS: Ranges = &[
    ('!', '!'),
    ('(', ')'),
    (',', ','),
    ('.', '.'),
    ('?', '?'),
    ('|', '|'),
    ('\u{60c}', '\u{60c}'),
    ('\u{6d4}', '\u{6d4}'),
    ('\u{964}', '\u{964}'),
    ('\u{2026}', '\u{2026}'),
    ('\u{3001}', '\u{3002}'),
    ('\u{ff0c}', '\u{ff0c}'),
];
/// `[!-/:-~！-／：-～‘-‟　-。]`
const DEEPSEEK_SIGNS: Ranges = &[
    ('!', '/'),
    (':', '~'),
    ('\u{2018}', '\u{201f}'),
    ('\u{3000}', '\u{3002}'),
    ('\u{ff01}', '\u{ff0f}'),
    ('\u{ff1a}', '\u{ff5e}'),
];
/// Chinese characters, as Kimi K2 has them.
const HAN: Ranges = &[
    ('\u{3400}', '\u{4dbf}'),
    ('\u{4e00}', '\u{9fff}'),
    ('\u{f900}', '\u{faff}'),
    ('\u{20000}', '\u{2a6df}'),
    ('\u{2a700}', '\u{2ebef}'),
    ('\u{2f800}', '\u{2fa1f}'),
];
/// The letters of DeepSeek LLM: most of those that have a case.
#[rustfmt::skip]
const DEEPSEEK_LETTERS: Ranges = &[
    ('\u{41}', '\u{5a}'), ('\u{61}', '\u{7a}'), ('\u{b5}', '\u{b5}'), ('\u{c0}', '\u{d6}'), ('\u{d8}', '\u{f6}'),
    ('\u{f8}', '\u{1ba}'), ('\u{1bc}', '\u{1bf}'), ('\u{1c4}', '\u{293}'), ('\u{295}', '\u{2af}'),
    ('\u{370}', '\u{373}'), ('\u{376}', '\u{377}'), ('\u{37b}', '\u{37d}'), ('\u{37f}', '\u{37f}'),
    ('\u{386}', '\u{386}'), ('\u{388}', '\u{38a}'), ('\u{38c}', '\u{38c}'), ('\u{38e}', '\u{3a1}'),
    ('\u{3a3}', '\u{3f5}'), ('\u{3f7}', '\u{481}'), ('\u{48a}', '\u{52f}'), ('\u{531}', '\u{556}'),
    ('\u{10a0}', '\u{10c5}'), ('\u{13a0}', '\u{13f5}'), ('\u{13f8}', '\u{13fd}'), ('\u{1c90}', '\u{1cba}'),
    ('\u{1cbd}', '\u{1cbf}'), ('\u{1d00}', '\u{1d2b}'), ('\u{1d6b}', '\u{1d77}'), ('\u{1d79}', '\u{1d9a}'),
    ('\u{1e00}', '\u{1f15}'), ('\u{1f18}', '\u{1f1d}'), ('\u{1f20}', '\u{1f45}'), ('\u{1f48}', '\u{1f4d}'),
    ('\u{1f50}', '\u{1f57}'), ('\u{1f59}', '\u{1f59}'), ('\u{1f5b}', '\u{1f5b}'), ('\u{1f5d}', '\u{1f5d}'),
    ('\u{1f5f}', '\u{1f7d}'), ('\u{1f80}', '\u{1fb4}'), ('\u{1fb6}', '\u{1fbc}'), ('\u{1fbe}', '\u{1fbe}'),
    ('\u{1fc2}', '\u{1fc4}'), ('\u{1fc6}', '\u{1fcc}'), ('\u{1fd0}', '\u{1fd3}'), ('\u{1fd6}', '\u{1fdb}'),
    ('\u{1fe0}', '\u{1fec}'), ('\u{1ff2}', '\u{1ff4}'), ('\u{1ff6}', '\u{1ffc}'), ('\u{2102}', '\u{2102}'),
    ('\u{2107}', '\u{2107}'), ('\u{210a}', '\u{2113}'), ('\u{2115}', '\u{2115}'), ('\u{2119}', '\u{211d}'),
    ('\u{2124}', '\u{2124}'), ('\u{2126}', '\u{2126}'), ('\u{2128}', '\u{2128}'), ('\u{212a}', '\u{212d}'),
    ('\u{212f}', '\u{2134}'), ('\u{2139}', '\u{2139}'), ('\u{213c}', '\u{213f}'), ('\u{2145}', '\u{2149}'),
    ('\u{214e}', '\u{214e}'), ('\u{2183}', '\u{2184}'), ('\u{2c00}', '\u{2c7b}'), ('\u{2c7e}', '\u{2ce4}'),
    ('\u{2ceb}', '\u{2cee}'), ('\u{2cf2}', '\u{2cf3}'), ('\u{a640}', '\u{a66d}'), ('\u{a680}', '\u{a69b}'),
    ('\u{a722}', '\u{a76f}'), ('\u{a771}', '\u{a787}'), ('\u{a78b}', '\u{a78e}'), ('\u{ab70}', '\u{abbf}'),
    ('\u{fb00}', '\u{fb06}'), ('\u{fb13}', '\u{fb17}'), ('\u{ff21}', '\u{ff3a}'), ('\u{ff41}', '\u{ff5a}'),
    ('\u{10400}', '\u{1044f}'), ('\u{104b0}', '\u{104d3}'), ('\u{104d8}', '\u{104fb}'), ('\u{10c80}', '\u{10cb2}'),
    ('\u{10cc0}', '\u{10cf2}'), ('\u{118a0}', '\u{118df}'), ('\u{1e900}', '\u{1e943}'),
];

#[cfg(test)]
mod tests {
    std::thread_local! {
        pub(super) static LOOK_UPS: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
    }
}
