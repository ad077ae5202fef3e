//! A short text in an error, without allocation.

/// Up to 63 bytes of text, copied; longer text is cut at a character and ends in `…`.
///
/// Errors are `Copy` and borrow nothing, but should show the name in the file that they are about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label {
    bytes: [u8; Label::CAP],
    len: u8,
}

impl Label {
    const CAP: usize = 63;

    /// The text that `args` formats to.
    pub fn new(args: core::fmt::Arguments<'_>) -> Self {
        let mut label = Label { bytes: [0; Label::CAP], len: 0 };
        // An error means that the label is full; what fits is kept.
        let _ = core::fmt::write(&mut label, args);
        label
    }

    /// Text from bytes that may not be UTF-8: invalid sequences become U+FFFD.
    #[inline(never)]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut label = Label::new(format_args!(""));
        for chunk in bytes.utf8_chunks() {
            let _ = core::fmt::Write::write_str(&mut label, chunk.valid());
            if !chunk.invalid().is_empty() {
                let _ = core::fmt::Write::write_str(&mut label, "\u{fffd}");
            }
        }
        label
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len.into()).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("")
    }
}

impl core::fmt::Write for Label {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        const MORE: char = '…';
        for c in s.chars() {
            // A name from a file must not contain escape sequences for the terminal.
            let c = if c.is_control() { '\u{fffd}' } else { c };
            let len = usize::from(self.len);
            let full = len + c.len_utf8() + MORE.len_utf8() > Label::CAP;
            let c = if full { MORE } else { c };
            let Some(room) = self.bytes.get_mut(len..).filter(|r| r.len() >= c.len_utf8()) else {
                return Err(core::fmt::Error);
            };
            // At most CAP, which fits a byte.
            self.len += c.encode_utf8(room).len() as u8;
            if full {
                return Err(core::fmt::Error);
            }
        }
        Ok(())
    }
}

impl core::fmt::Display for Label {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::fmt::Debug for Label {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Label {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=str}", self.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_short_text_and_cuts_long_text() {
        assert_eq!(Label::new(format_args!("blk.{}.é", 3)).as_str(), "blk.3.é");
        let long = Label::new(format_args!("{}", "é".repeat(50)));
        assert_eq!(long.as_str(), std::format!("{}…", "é".repeat(30)));
        assert_eq!(Label::from_bytes(b"a\xff\x1bb").as_str(), "a\u{fffd}\u{fffd}b");
    }
}
