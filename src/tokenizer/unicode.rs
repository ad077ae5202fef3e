//! The class of a code point, for pre-tokenisers.
//!
//! The classes are those of llama.cpp: the general categories of Unicode 15.1.0
//! and its `White_Space` property. The table takes 4 KiB: a look-up walks over
//! the runs of one class among 256 code points, a dozen in most scripts and a
//! few in those with the most characters. It cannot panic.

mod table;

use table::{BLOCK_LEN, GAP_END, GAP_START, INDEX, RUNS, STARTS};

/// Size of the table, in bytes.
const TABLE_BYTES: usize = size_of_val(&INDEX) + size_of_val(&STARTS) + size_of_val(&RUNS);

const _: () = assert!(TABLE_BYTES < 4200, "the table must stay small");

/// The class of a code point; each has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A letter: `\p{L}`.
    Letter,
    /// A digit or another number, such as a fraction or a Roman numeral: `\p{N}`.
    Number,
    /// Punctuation: `\p{P}`.
    Punctuation,
    /// A symbol: `\p{S}`.
    Symbol,
    /// A combining mark: `\p{M}`.
    Mark,
    /// White space: `\s`, which is all separators, tab to carriage return, and
    /// U+0085, but not the zero-width space U+200B.
    Whitespace,
    /// All others: control, format, private use, unassigned.
    Other,
}

impl Class {
    /// The class with this code, which `src/tokenizer/unicode/generate.py` writes.
    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Letter,
            2 => Self::Number,
            3 => Self::Punctuation,
            4 => Self::Symbol,
            5 => Self::Mark,
            6 => Self::Whitespace,
            _ => Self::Other,
        }
    }
}

/// The class of `c`.
#[must_use]
pub(super) fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        ' ' => Class::Whitespace,
        _ => Class::from_code(code(c).unwrap_or_default()),
    }
}

/// The class as the table stores it; `None` if the table has no entry.
fn code(c: char) -> Option<u8> {
    let at = c as usize;
    let start = *STARTS.get(usize::from(*INDEX.get(slot(at / BLOCK_LEN)?)?))?;
    let mut left = at % BLOCK_LEN;
    for run in RUNS.get(usize::from(start)..)? {
        let len = usize::from(run / 8) + 1;
        if left < len {
            return Some(run % 8);
        }
        left -= len;
    }
    None
}

/// The index entry of a block; `None` for those that the index omits: most of
/// the code space is unassigned, and without the gap the index would take 3.5 KiB
/// more.
fn slot(block: usize) -> Option<usize> {
    match block.checked_sub(GAP_END) {
        Some(beyond) => Some(GAP_START + beyond),
        None => (block < GAP_START).then_some(block),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_char() -> impl Iterator<Item = char> {
        '\0'..=char::MAX
    }

    #[test]
    fn telling_code_points() {
        let expected = [
            (Class::Letter, "aZªµéßǅʰאعहक一あ가ﬀ𐐀𠀀\u{323AF}"),
            (Class::Number, "09²½ⅣↂⅧ٣०๓〇㉈𝟘𑁒"),
            (Class::Punctuation, "!\"#%&'()*,-./:;?@[\\]_{}¡«»—…、。।؟"),
            (Class::Symbol, "$+<=>^`|~¢©±×÷€→∞☃😀\u{FFFD}\u{1F3FB}"),
            (Class::Mark, "\u{300}\u{483}\u{93F}\u{E31}\u{20E3}\u{FE0F}\u{E0100}\u{E01EF}"),
            (Class::Whitespace, "\t\n\u{B}\u{C}\r \u{85}\u{A0}\u{1680}\u{2000}\u{2028}\u{202F}\u{3000}"),
            (Class::Other, "\0\u{1F}\u{7F}\u{AD}\u{180E}\u{200B}\u{200D}\u{FEFF}\u{E000}\u{378}"),
            // Both sides of the index's gap, and the end of the code space.
            (Class::Other, "\u{323B0}\u{40000}\u{E00FF}\u{E01F0}\u{10FFFF}"),
        ];
        for (want, chars) in expected {
            for c in chars.chars() {
                assert_eq!(class(c), want, "U+{:04X}", u32::from(c));
            }
        }
    }

    #[test]
    fn whitespace_is_the_property_white_space() {
        for c in every_char() {
            assert_eq!(class(c) == Class::Whitespace, c.is_whitespace(), "{c:?}");
        }
    }

    #[test]
    fn later_versions_of_unicode_keep_what_was_assigned() {
        for c in every_char() {
            match class(c) {
                Class::Letter => assert!(c.is_alphabetic(), "{c:?}"),
                Class::Number => assert!(c.is_numeric(), "{c:?}"),
                Class::Punctuation | Class::Symbol | Class::Whitespace => {
                    assert!(!c.is_numeric(), "{c:?}");
                }
                Class::Mark | Class::Other => {}
            }
        }
    }

    #[test]
    fn each_class_has_as_many_code_points_as_the_database() {
        // The sums of Unicode 15.1.0's general categories: a damaged table shows.
        let expected = [136_726, 1_831, 842, 7_775, 2_450, 25];
        let mut counts = [0; 7];
        for c in every_char() {
            if let Some(count) = counts.get_mut(class(c) as usize) {
                *count += 1;
            }
        }
        assert_eq!(table::UNICODE_VERSION, "15.1.0");
        assert_eq!(counts[..6], expected);
    }
}
