//! Where in a GGUF file what is: so that damage can hit a length, a count or a type as often as the data.

use std::ops::Range;

/// What some bytes of a header mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Count,
    Length,
    Type,
    Dim,
    Offset,
    Number,
    Text,
}

impl Kind {
    pub(crate) const ALL: [Kind; 7] =
        [Kind::Count, Kind::Length, Kind::Type, Kind::Dim, Kind::Offset, Kind::Number, Kind::Text];
}

/// A GGUF file taken apart; of one that is damaged, as far as it can be read.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) fields: Vec<(Kind, Range<usize>)>,
    /// Entries of the metadata.
    pub(crate) entries: Vec<Range<usize>>,
    /// Descriptions of tensors.
    pub(crate) tensors: Vec<Range<usize>>,
    /// Where the header ends.
    pub(crate) end: usize,
}

impl Parts {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut reader = Reader { bytes, at: 4, parts: Parts::default() };
        // What was read before the end is known.
        let _ = reader.file();
        reader.parts.end = reader.at.min(bytes.len());
        reader.parts
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    parts: Parts,
}

impl Reader<'_> {
    fn file(&mut self) -> Option<()> {
        self.take(Kind::Number, 4)?;
        let tensors = self.take(Kind::Count, 8)?;
        let entries = self.take(Kind::Count, 8)?;
        for _ in 0..entries {
            let start = self.at;
            self.string()?;
            let kind = self.take(Kind::Type, 4)?;
            self.value(kind)?;
            self.parts.entries.push(start..self.at);
        }
        for _ in 0..tensors {
            let start = self.at;
            self.string()?;
            let dims = self.take(Kind::Count, 4)?;
            (0..dims).try_for_each(|_| self.take(Kind::Dim, 8).map(drop))?;
            self.take(Kind::Type, 4)?;
            self.take(Kind::Offset, 8)?;
            self.parts.tensors.push(start..self.at);
        }
        Some(())
    }

    /// A little-endian number.
    fn take(&mut self, kind: Kind, n: usize) -> Option<u64> {
        let bytes = self.bytes.get(self.at..self.at + n)?;
        self.parts.fields.push((kind, self.at..self.at + n));
        self.at += n;
        Some(bytes.iter().rev().fold(0, |x, b| x << 8 | u64::from(*b)))
    }

    fn string(&mut self) -> Option<()> {
        let len = usize::try_from(self.take(Kind::Length, 8)?).ok()?;
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        if len > 0 {
            self.parts.fields.push((Kind::Text, self.at..end));
        }
        self.at = end;
        Some(())
    }

    fn value(&mut self, kind: u64) -> Option<()> {
        match kind {
            0 | 1 | 7 => self.take(Kind::Number, 1).map(drop),
            2 | 3 => self.take(Kind::Number, 2).map(drop),
            4..=6 => self.take(Kind::Number, 4).map(drop),
            10..=12 => self.take(Kind::Number, 8).map(drop),
            8 => self.string(),
            9 => {
                let kind = self.take(Kind::Type, 4)?;
                let n = self.take(Kind::Count, 8)?;
                (0..n).try_for_each(|_| self.value(kind))
            }
            _ => None,
        }
    }
}
