//! `-e`: escapes in texts of the command line, as llama.cpp has them.

/// The text with each escape replaced by what it stands for: `\n`, `\r`, `\t`, `\'`, `\"`, `\\`, and `\x` with two
/// hexadecimal digits. Others stay as they are.
///
/// # Errors
/// The bytes of `\x` make no text.
pub(crate) fn unescape(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        let (byte, length) = one(escape).unwrap_or((b'\\', 0));
        out.push(byte);
        rest = escape.get(length..).unwrap_or("");
    }
    out.extend_from_slice(rest.as_bytes());
    String::from_utf8(out).map_err(|_| "the bytes that -e reads of \\x are not UTF-8".into())
}

/// The byte that the text behind a backslash begins with, and how long it is.
fn one(escape: &str) -> Option<(u8, usize)> {
    let byte = match escape.as_bytes().first()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => {
            let digits = escape.get(1..3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            return Some((u8::from_str_radix(digits, 16).ok()?, 3));
        }
        same @ (b'\'' | b'"' | b'\\') => *same,
        _ => return None,
    };
    Some((byte, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_of_llama_cpp() {
        let cases = [
            ("", ""),
            (r"a\nb\tc\r", "a\nb\tc\r"),
            (r#"\"\'\\"#, "\"'\\"),
            (r"\\n", r"\n"),
            (r"\x41\xc3\xa9", "Aé"),
            // Left as they are.
            (r"\q \x4 \xg1 \", r"\q \x4 \xg1 \"),
            (r"\é\x+1", r"\é\x+1"),
        ];
        for (text, want) in cases {
            assert_eq!(unescape(text).as_deref(), Ok(want), "{text}");
        }
        assert!(unescape(r"\xff").is_err());
    }
}
