//! Decoding: tokens to text, one at a time.

use super::byte_level::char_byte;
use super::tokenizer::Tokenizer;
use super::vocab::TokenKind;
use crate::util::SliceExt;

/// The bytes of one token.
#[derive(Clone, Debug)]
enum Piece<'m> {
    Nothing,
    Byte(core::iter::Once<u8>),
    Raw(core::slice::Iter<'m, u8>),
    /// Byte-level text: one byte for each character.
    Characters(core::str::Chars<'m>),
    /// SentencePiece text: a space for each `▁`.
    Escaped(&'m [u8]),
}

impl Iterator for Piece<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        match self {
            Piece::Nothing => None,
            Piece::Byte(byte) => byte.next(),
            Piece::Raw(bytes) => bytes.next().copied(),
            // The caller has checked that every character stands for a byte.
            Piece::Characters(chars) => chars.next().and_then(char_byte),
            Piece::Escaped(bytes) => {
                if let Some(tail) = bytes.strip_prefix("▁".as_bytes()) {
                    *bytes = tail;
                    return Some(b' ');
                }
                let (first, tail) = bytes.split_first()?;
                *bytes = tail;
                Some(*first)
            }
        }
    }
}

impl<'m> Tokenizer<'m> {
    /// The bytes that `token` stands for; none for control and unknown tokens unless `special`.
    pub fn piece(&self, token: u32, special: bool) -> impl Iterator<Item = u8> + use<'m> {
        let text = self.text(token);
        match (self.kind(token), self.algorithm) {
            (TokenKind::Control | TokenKind::Unknown, _) if !special => Piece::Nothing,
            (TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined, _) => Piece::Raw(text.iter()),
            (TokenKind::Byte, _) => byte_value(text).map_or(Piece::Nothing, |b| Piece::Byte(core::iter::once(b))),
            (TokenKind::Unused, _) => Piece::Nothing,
            (TokenKind::Normal, algorithm) if algorithm.escapes_blanks() => Piece::Escaped(text),
            (TokenKind::Normal, _) => match core::str::from_utf8(text) {
                Ok(text) if text.chars().all(|c| char_byte(c).is_some()) => Piece::Characters(text.chars()),
                _ => Piece::Raw(text.iter()),
            },
        }
    }
}

/// The byte of `<0xHH>`.
fn byte_value(text: &[u8]) -> Option<u8> {
    let hex = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let hex = core::str::from_utf8(hex).ok().filter(|h| h.len() == 2 && !h.starts_with(['+', '-']))?;
    u8::from_str_radix(hex, 16).ok()
}

/// Joins the bytes of tokens to whole characters: an incomplete character is kept until its last byte has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detokenizer {
    pending: [u8; 4],
    len: usize,
}

impl Detokenizer {
    /// A detokenizer without pending bytes.
    pub const fn new() -> Self {
        Self { pending: [0; 4], len: 0 }
    }

    /// Takes bytes, and passes the text that they complete to `show`, piece by piece. Bytes that are not valid UTF-8
    /// become U+FFFD.
    pub fn push(&mut self, bytes: impl Iterator<Item = u8>, mut show: impl FnMut(&str)) {
        for byte in bytes {
            self.push_byte(byte, &mut show);
        }
    }

    /// Ends the text: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self, mut show: impl FnMut(&str)) {
        if self.len > 0 {
            show("\u{fffd}");
            self.len = 0;
        }
    }

    fn push_byte(&mut self, byte: u8, show: &mut impl FnMut(&str)) {
        // A character has at most four bytes, so the fourth always empties the buffer.
        if let Some(slot) = self.pending.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
        loop {
            let pending = self.pending.first_n(self.len);
            match core::str::from_utf8(pending) {
                Ok("") => return,
                Ok(text) => {
                    show(text);
                    self.len = 0;
                    return;
                }
                Err(e) => match e.error_len() {
                    None => return,
                    Some(bad) => {
                        show("\u{fffd}");
                        self.pending.rotate_left(bad.min(4));
                        self.len = self.len.saturating_sub(bad);
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn decode(bytes: &[u8]) -> (String, Vec<String>) {
        let (mut text, mut pieces) = (String::new(), Vec::new());
        let mut d = Detokenizer::new();
        let mut show = |s: &str| {
            text.push_str(s);
            pieces.push(String::from(s));
        };
        for b in bytes {
            d.push([*b].into_iter(), &mut show);
        }
        d.finish(&mut show);
        (text, pieces)
    }

    #[test]
    fn shows_whole_characters_only() {
        let (text, pieces) = decode("aé漢😀".as_bytes());
        assert_eq!(text, "aé漢😀");
        assert_eq!(pieces, ["a", "é", "漢", "😀"]);
    }

    #[test]
    fn rubbish_becomes_replacement_characters_as_in_the_standard_library() {
        let cases: [&[u8]; 6] =
            [b"\xff", b"a\xc3", b"\xe2\x28\xa1", b"\xf0\x9f\x98", b"\xf0\x9f\x98a\x80", b"\xed\xa0\x80\xc0\xaf"];
        for bytes in cases {
            assert_eq!(decode(bytes).0, String::from_utf8_lossy(bytes), "{bytes:x?}");
        }
    }

    #[test]
    fn byte_tokens_are_strict() {
        assert_eq!(byte_value(b"<0x0A>"), Some(10));
        for bad in ["<0x-1>", "<0x0A", "<0xA>", "<0x0AA>", "0x0A", "<0x+1>"] {
            assert_eq!(byte_value(bad.as_bytes()), None, "{bad}");
        }
    }
}
