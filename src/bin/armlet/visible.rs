//! Text of a model or a file on a terminal: what would act on the terminal instead of being shown is made visible.
//!
//! ESC and the C1 controls begin sequences that move the cursor, write to the clipboard or rename the window; a backspace
//! or a carriage return writes over what stands there; bidirectional controls show text in another order than it has. They
//! are written as `less` does: `^[`, `<U+202E>`. Whatever goes to a pipe or a file stays as it is.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character acts on a terminal, or on the order or the lines of the text around it. Line ends and tabs do, too.
pub(crate) fn acts(c: char) -> bool {
    // Bidi_Control and the two separators of lines and paragraphs, of the Unicode Character Database.
    const BIDI: [std::ops::RangeInclusive<char>; 4] =
        ['\u{200e}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2066}'..='\u{2069}', '\u{61c}'..='\u{61c}'];
    c.is_control() || BIDI.iter().any(|range| range.contains(&c))
}

/// Text for a terminal; line ends and tabs stay. Characters are looked at one by one, so a text may come in pieces.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    shown(text, |c| acts(c) && c != '\n' && c != '\t')
}

/// A name or a message for one line of a terminal: line ends and tabs are made visible too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    shown(text, acts)
}

/// JSON in which nothing acts on a terminal. C0 controls are escaped already; the others that do can only be in strings, where
/// an escape stands for the same character.
pub(crate) fn json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // None of them is beyond the first 65,536. Writing to a String cannot fail.
        let _ = if acts(c) && c != '\n' { write!(out, "\\u{:04x}", c as u32) } else { out.write_char(c) };
    }
    out
}

fn shown(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            c if !hidden(c) => out.write_char(c),
            '\0'..='\x1f' => write!(out, "^{}", char::from(c as u8 + b'@')),
            '\x7f' => out.write_str("^?"),
            c => write!(out, "<U+{:04X}>", c as u32),
        };
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown() {
        for (raw, shown) in [
            ("\x1b[2J", "^[[2J"),
            ("\x1b]52;c;cm0=\x07", "^[]52;c;cm0=^G"),
            ("safe\x08\x08\x08\x08evil", "safe^H^H^H^Hevil"),
            ("secret\rpublic", "secret^Mpublic"),
            ("\u{9b}31m", "<U+009B>31m"),
            ("\u{85}\u{9d}\0\x7f", "<U+0085><U+009D>^@^?"),
            ("a\u{202e}b\u{2066}c\u{2069}\u{200f}\u{61c}", "a<U+202E>b<U+2066>c<U+2069><U+200F><U+061C>"),
            ("a\u{2028}b", "a<U+2028>b"),
        ] {
            assert_eq!((text(raw), line(raw)), (shown.into(), shown.into()));
        }
    }

    #[test]
    fn line_ends_and_tabs_stay_in_a_text_and_not_in_a_line() {
        assert_eq!(text("a\n\tb\r\n"), "a\n\tb^M\n");
        assert_eq!(line("a\n\tb"), "a^J^Ib");
    }

    #[test]
    fn json_acts_on_no_terminal_and_says_the_same() {
        let value = serde_json::json!({ "a\u{202e}": "b\u{9b}\x1b\n\u{7f}ü" });
        assert_eq!(json(&value.to_string()), r#"{"a\u202e":"b\u009b\u001b\n\u007fü"}"#);
        for shown in [json(&value.to_string()), json(&format!("{value:#}\n"))] {
            assert!(!shown.contains(|c| acts(c) && c != '\n'));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    /// Every control character there is; and letters, emoji with a joiner, combining marks and soft hyphens are none.
    #[test]
    fn nothing_else_is_touched() {
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let (shown, raw) = (text(&all), "żółw 👩‍👧 שלום a\u{301}\u{ad}\u{200d}\u{200c}\u{feff}");
        assert!(!shown.contains(|c| acts(c) && c != '\n' && c != '\t'));
        assert_eq!(all.chars().filter(|c| acts(*c)).count(), 65 + 12 + 2);
        assert!(matches!(text(raw), Cow::Borrowed(same) if same == raw));
    }
}
