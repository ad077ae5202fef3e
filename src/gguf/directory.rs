//! The directory: the checked descriptions of the tensors, one after the other, and their data.

use super::cursor::Cursor;
use super::tensor::{self, Tensor};

/// Consecutive tensors of a file. A look-up walks them, so a caller that looks up many of a kind first takes
/// [those that share a prefix](Self::with_prefix).
#[derive(Clone, Copy, Debug)]
pub struct Directory<'a> {
    /// At the first description.
    cursor: Cursor<'a>,
    len: usize,
    data: &'a [u8],
}

impl<'a> Directory<'a> {
    pub(super) fn new(cursor: Cursor<'a>, len: usize, data: &'a [u8]) -> Self {
        Self { cursor, len, data }
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The tensors, in the order of the file.
    pub fn tensors(self) -> impl Iterator<Item = Tensor<'a>> + use<'a> {
        let Self { mut cursor, len, data } = self;
        (0..len).map_while(move |_| tensor::read(&mut cursor, data))
    }

    /// The tensor of this name.
    #[inline(never)]
    pub fn tensor(self, name: &str) -> Option<Tensor<'a>> {
        let (_, mut at, _) = self.names().find(|(_, _, found)| *found == name.as_bytes())?;
        tensor::read(&mut at, self.data)
    }

    /// From the first tensor whose name starts with `prefix` to the last: all of them, and any that lie between.
    #[must_use]
    pub fn with_prefix(self, prefix: &str) -> Self {
        let (mut part, mut first) = (Self { len: 0, ..self }, 0);
        for (i, cursor, name) in self.names() {
            if name.starts_with(prefix.as_bytes()) {
                if part.len == 0 {
                    (part.cursor, first) = (cursor, i);
                }
                part.len = i - first + 1;
            }
        }
        part
    }

    /// (index, start, name) of each description. The rest of it is skipped, not decoded: a model of many layers looks
    /// up many tensors.
    fn names(self) -> impl Iterator<Item = (usize, Cursor<'a>, &'a [u8])> {
        let mut cursor = self.cursor;
        (0..self.len).map_while(move |i| {
            let at = cursor;
            Some((i, at, tensor::skip(&mut cursor).ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// A directory of F32 tensors of no data.
    fn directory(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in names {
            bytes.extend((name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(1u32.to_le_bytes());
            bytes.extend(1u64.to_le_bytes());
            bytes.extend([0; 12]);
        }
        bytes
    }

    #[test]
    fn a_prefix_takes_all_that_have_it_in_any_order() {
        let names = ["b.1.x", "a", "b.10.x", "b.1.y", "b.2.x", "b.1.z", "c"];
        let bytes = directory(&names);
        let all = Directory::new(Cursor::new(&bytes, 0), names.len(), &[0; 4]);
        let found = |d: Directory<'_>| d.tensors().count();
        assert_eq!(found(all), 7);
        for (prefix, len) in [("b.1.", 6), ("b.10.", 1), ("b.2.", 1), ("c", 1), ("", 7), ("d", 0)] {
            let part = all.with_prefix(prefix);
            assert_eq!(found(part), len, "{prefix}");
            for name in names.iter().filter(|name| name.starts_with(prefix)) {
                assert_eq!(part.tensor(name).unwrap().name, *name);
            }
        }
        assert!(all.with_prefix("b.2.").tensor("b.1.x").is_none());
    }
}
