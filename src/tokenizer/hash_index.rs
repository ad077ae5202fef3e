//! An open-addressed hash table of numbers, with linear probing. Keys are not stored: the caller compares.

use crate::storage::{Arena, ArenaError};

/// No value.
pub(super) const NONE: u32 = u32::MAX;

/// Bits of a value in a slot. The others are those of its hash, so that next to no text is compared but the one looked for.
const VALUE_BITS: u32 = 21;

/// Every value is below; this one would make a free slot with the right hash.
pub(super) const MAX_VALUES: usize = (1 << VALUE_BITS) - 1;

/// The most slots that are looked at for one value. Chance needs some dozens among millions of values, at a load of two thirds.
const LONGEST_PROBE: usize = 1024;

/// A slot without a value.
const FREE: u32 = u32::MAX;

/// A hash table. The caller knows the text that each value stands for, and tells whether it is the one looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct HashIndex<'m>(&'m [u32]);

impl<'m> HashIndex<'m> {
    /// An empty table.
    pub(super) const EMPTY: Self = HashIndex(&[]);

    /// Memory for `n` values at a load factor of two thirds.
    pub(super) fn carve(arena: &mut Arena<'m>, name: &'static str, n: usize) -> Result<Builder<'m>, ArenaError> {
        let slots = arena.alloc(name, &[n.saturating_add(n / 2).saturating_add(1)])?;
        slots.fill(FREE);
        Ok(Builder { slots, probes: n.saturating_mul(8).saturating_add(1024) })
    }

    /// The value with this hash for which `is_it` is true.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut probe = Probe::new(hash, self.0.len());
        while let Some(value) = probe.next(self.0) {
            if is_it(value) {
                return Some(value);
            }
        }
        None
    }
}

/// A walk over the slots in which values with a hash may be.
struct Probe {
    hash: u64,
    /// The last slot that was looked at.
    at: usize,
    /// How many were.
    n: usize,
}

impl Probe {
    fn new(hash: u64, len: usize) -> Self {
        let first = slot_of(hash, len);
        Probe { hash, at: if first == 0 { len } else { first }.wrapping_sub(1), n: 0 }
    }

    /// The next value whose hash may be this one; `None` at a free slot, and after the last one.
    #[inline(never)]
    fn next(&mut self, slots: &[u32]) -> Option<u32> {
        while self.n < slots.len() {
            self.n += 1;
            self.at = if self.at + 1 >= slots.len() { 0 } else { self.at + 1 };
            let slot = *slots.get(self.at)?;
            let value = slot ^ tag_of(self.hash);
            if slot == FREE {
                return None;
            } else if value >> VALUE_BITS == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// Far more collisions than chance makes: the file was made to be slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyCollisions;

/// A hash table that is being filled.
pub(super) struct Builder<'m> {
    slots: &'m mut [u32],
    /// Occupied slots that may still be probed while filling. Chance needs two for each value; eight, and some more for
    /// small tables, keep the time linear whatever the texts are.
    probes: usize,
}

/// Where a value with some hash is, or belongs.
pub(super) struct Slot<'s> {
    slot: &'s mut u32,
    hash: u64,
}

impl Slot<'_> {
    pub(super) fn is_free(&self) -> bool {
        *self.slot == FREE
    }

    /// Puts a value below [`MAX_VALUES`] here.
    pub(super) fn set(&mut self, value: u32) {
        *self.slot = tag_of(self.hash) | value;
    }
}

impl<'m> Builder<'m> {
    /// The slot of the value with this hash for which `is_it` is true, or the free slot where it belongs.
    pub(super) fn slot(&mut self, hash: u64, is_it: impl Fn(u32) -> bool) -> Result<Slot<'_>, TooManyCollisions> {
        let mut probe = Probe::new(hash, self.slots.len());
        while let Some(value) = probe.next(self.slots) {
            if is_it(value) {
                break;
            }
        }
        if probe.n > LONGEST_PROBE {
            return Err(TooManyCollisions);
        }
        // The last one is free, or has the value.
        self.probes = (self.probes + 1).checked_sub(probe.n).ok_or(TooManyCollisions)?;
        Ok(Slot { slot: self.slots.get_mut(probe.at).ok_or(TooManyCollisions)?, hash })
    }

    /// The filled table.
    pub(super) fn finish(self) -> HashIndex<'m> {
        HashIndex(self.slots)
    }
}

/// The first slot to probe: hash · len / 2⁶⁴, which works for any length (Lemire 2019, arXiv 1805.10941).
fn slot_of(hash: u64, len: usize) -> usize {
    ((u128::from(hash) * len as u128) >> 64) as usize
}

/// The low bits of a hash, as a slot has them.
fn tag_of(hash: u64) -> u32 {
    (hash as u32) << VALUE_BITS
}

/// A hash of a text that can be had from those of its parts: a polynomial in [`BASE`](Roll::BASE) with the text's bytes as
/// coefficients, where `▁` counts as the blank that SentencePiece means by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Roll {
    pub(super) hash: u32,
    /// The number of coefficients.
    pub(super) len: u32,
}

impl Roll {
    const BASE: u32 = 0x9e37_79b1;

    #[inline(never)]
    pub(super) fn of(text: &[u8]) -> Self {
        let mut roll = Roll::default();
        let mut bytes = text.iter();
        while let Some(byte) = bytes.next() {
            let mut byte = *byte;
            if byte == BLANK[0] && bytes.as_slice().starts_with(&BLANK[1..]) {
                byte = b' ';
                bytes.nth(BLANK.len() - 2);
            }
            roll = roll.with(byte);
        }
        roll
    }

    /// That of a text without any `▁`.
    pub(super) fn of_bytes(text: impl Iterator<Item = u8>) -> Self {
        text.fold(Roll::default(), Roll::with)
    }

    fn with(self, byte: u8) -> Self {
        Roll { hash: self.hash.wrapping_mul(Self::BASE).wrapping_add(u32::from(byte)), len: self.len + 1 }
    }

    /// That of this text and another behind it.
    #[inline(never)]
    pub(super) fn then(self, right: Roll) -> Self {
        let (mut power, mut square, mut n) = (1u32, Self::BASE, right.len);
        while n > 0 {
            if n & 1 == 1 {
                power = power.wrapping_mul(square);
            }
            (square, n) = (square.wrapping_mul(square), n / 2);
        }
        Roll { hash: self.hash.wrapping_mul(power).wrapping_add(right.hash), len: self.len + right.len }
    }
}

const BLANK: &[u8] = "▁".as_bytes();

/// A hash whose high bits depend on all of `n`.
pub(super) fn mix(n: u64) -> u64 {
    const PHI: u64 = 0x9e37_79b9_7f4a_7c15;
    let n = n.wrapping_mul(PHI);
    (n ^ (n >> 32)).wrapping_mul(PHI)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ALIGN;
    use std::vec;
    use std::vec::Vec;

    /// Fills a table with the texts that `text` gives of 0 to `n`.
    fn fill<T>(
        n: u32,
        text: impl Fn(u32) -> u64,
        then: impl FnOnce(Result<HashIndex<'_>, TooManyCollisions>) -> T,
    ) -> T {
        let mut memory: Vec<u8> = vec![0; 6 * n as usize + 4 + 2 * ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        let mut arena = Arena::new(&mut memory[start..]).unwrap();
        let mut table = HashIndex::carve(&mut arena, "test", n as usize).unwrap();
        let all = (0..n).try_for_each(|i| table.slot(of(text(i)), |j| text(j) == text(i)).map(|mut slot| slot.set(i)));
        then(all.map(|()| table.finish()))
    }

    fn of(text: u64) -> u64 {
        mix(Roll::of(&text.to_le_bytes()).hash.into())
    }

    #[test]
    fn what_is_put_in_is_found() {
        for n in [0, 1, 2, 100, 10_000] {
            fill(n, u64::from, |table| {
                let table = table.unwrap();
                let find = |i: u32| table.find(of(i.into()), |j| j == i);
                assert!((0..n).all(|i| find(i) == Some(i)) && (n..n + 100).all(|i| find(i).is_none()));
            });
        }
        // Every text twice: the second takes the first one's slot.
        fill(
            200,
            |i| u64::from(i % 100),
            |table| {
                let table = table.unwrap();
                assert!((0..100).all(|i| table.find(of(i), |j| u64::from(j) % 100 == i) == Some(i as u32 + 100)));
            },
        );
        assert_eq!(HashIndex::EMPTY.find(1, |_| true), None);
    }

    #[test]
    fn texts_chosen_to_collide_are_refused() {
        let n = 1000;
        let crowd: Vec<u64> = (0..).filter(|i| slot_of(of(*i), 1501) < 8).take(n as usize).collect();
        fill(n, |i| crowd[i as usize], |table| assert_eq!(table.err(), Some(TooManyCollisions)));
    }

    #[test]
    fn rolls_of_parts_make_that_of_the_whole() {
        let texts = ["", "a", "ab", " the", "  ", "é漢", "▂\u{2580}\u{2582}", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"];
        for left in texts {
            for right in texts {
                let both = [left, right].concat();
                assert_eq!(Roll::of(left.as_bytes()).then(Roll::of(right.as_bytes())), Roll::of(both.as_bytes()));
                assert_eq!(Roll::of(both.replace(' ', "▁").as_bytes()), Roll::of(both.as_bytes()));
                assert_eq!(Roll::of_bytes(both.bytes()), Roll::of(both.as_bytes()));
            }
        }
        assert_ne!(Roll::of("▁".as_bytes()), Roll::of("▂".as_bytes()));
        assert_eq!(Roll::of("a▁".as_bytes()).then(Roll::of("▁b".as_bytes())), Roll::of(b"a  b"));
    }

    /// Values with the same bits of their hashes are told apart by the caller, and the greatest one is not taken for none.
    #[test]
    fn values_of_one_hash() {
        let mut memory: Vec<u8> = vec![0; 1024];
        let start = memory.as_ptr().align_offset(ALIGN);
        let mut arena = Arena::new(&mut memory[start..]).unwrap();
        let mut table = HashIndex::carve(&mut arena, "test", 8).unwrap();
        let values = [0, 1, MAX_VALUES as u32 - 1];
        let hash = u64::from(u32::MAX);
        for value in values {
            let mut slot = table.slot(hash, |n| n == value).unwrap();
            assert!(slot.is_free());
            slot.set(value);
            assert!(!table.slot(hash, |n| n == value).unwrap().is_free());
        }
        let table = table.finish();
        assert!(values.iter().all(|value| table.find(hash, |n| n == *value) == Some(*value)));
        assert_eq!((table.find(hash, |_| false), table.find(hash - 1, |_| true)), (None, None));
    }
}
