//! How vocabularies spell the bytes of a text.

/// The character that stands for a byte in a byte-level vocabulary: the byte itself if printable, else one from U+0100 on
/// (GPT-2's `bytes_to_unicode`).
pub(super) fn byte_char(byte: u8) -> char {
    let shifted = |first: u8, base: u32| char::from_u32(base + u32::from(byte - first)).unwrap_or('\0');
    match byte {
        0..=32 => shifted(0, 256),
        127..=160 => shifted(127, 256 + 33),
        173 => '\u{143}',
        printable => char::from(printable),
    }
}

/// The byte that a character of a byte-level vocabulary stands for.
pub(super) fn char_byte(c: char) -> Option<u8> {
    let byte = match u32::from(c) {
        n @ 256..=288 => n - 256,
        n @ 289..=322 => n - 289 + 127,
        323 => 173,
        n => n,
    };
    u8::try_from(byte).ok().filter(|b| byte_char(*b) == c)
}

/// Raw bytes as a byte-level vocabulary spells them.
#[derive(Clone)]
pub(super) struct ByteChars<'t> {
    raw: core::slice::Iter<'t, u8>,
    second: Option<u8>,
}

impl<'t> ByteChars<'t> {
    pub(super) fn new(raw: &'t [u8]) -> Self {
        Self { raw: raw.iter(), second: None }
    }
}

impl Iterator for ByteChars<'_> {
    type Item = u8;
    fn next(&mut self) -> Option<u8> {
        if let Some(byte) = self.second.take() {
            return Some(byte);
        }
        let mut utf8 = [0; 4];
        let encoded = byte_char(*self.raw.next()?).encode_utf8(&mut utf8).as_bytes();
        self.second = encoded.get(1).copied();
        encoded.first().copied()
    }
}

/// Raw bytes as SentencePiece spells them: `▁` for a space.
#[derive(Clone)]
pub(super) struct Escaped<'t> {
    raw: core::slice::Iter<'t, u8>,
    tail: &'static [u8],
}

impl<'t> Escaped<'t> {
    pub(super) fn new(raw: &'t [u8]) -> Self {
        Self { raw: raw.iter(), tail: &[] }
    }
}

impl Iterator for Escaped<'_> {
    type Item = u8;
    fn next(&mut self) -> Option<u8> {
        if let Some((first, tail)) = self.tail.split_first() {
            self.tail = tail;
            return Some(*first);
        }
        match self.raw.next()? {
            b' ' => {
                self.tail = &"▁".as_bytes()[1..];
                Some("▁".as_bytes()[0])
            }
            byte => Some(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_their_characters_go_round() {
        for byte in 0..=255 {
            assert_eq!(char_byte(byte_char(byte)), Some(byte));
        }
        assert_eq!((byte_char(b' '), byte_char(b'\n'), byte_char(b'a')), ('Ġ', 'Ċ', 'a'));
        assert_eq!((char_byte('\u{144}'), char_byte('漢'), char_byte(' ')), (None, None, None));
    }
}
