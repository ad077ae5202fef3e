//! An open-addressed hash table of u32 values, with linear probing. Keys are not stored: the caller compares.

use crate::storage::{Arena, ArenaError};

/// No value.
pub(super) const NONE: u32 = u32::MAX;

/// A hash table. The caller knows the text that each value stands for, and tells whether it is the one looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct HashIndex<'m>(&'m [u32]);

impl<'m> HashIndex<'m> {
    /// An empty table.
    pub(super) const EMPTY: Self = HashIndex(&[]);

    /// Memory for `n` values at a load factor of two thirds.
    pub(super) fn carve(arena: &mut Arena<'m>, name: &'static str, n: usize) -> Result<Builder<'m>, ArenaError> {
        let slots = arena.alloc(name, &[n.saturating_add(n / 2).saturating_add(1)])?;
        slots.fill(NONE);
        Ok(Builder { slots, probes: n.saturating_mul(8).saturating_add(1024) })
    }

    /// The value with this hash for which `is_it` is true.
    pub(super) fn find(&self, hash: u64, is_it: &dyn Fn(u32) -> bool) -> Option<u32> {
        let start = slot_of(hash, self.0.len());
        let (before, after) = self.0.split_at_checked(start)?;
        after.iter().chain(before).copied().take_while(|n| *n != NONE).find(|n| is_it(*n))
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

impl<'m> Builder<'m> {
    /// The slot of the value with this hash for which `is_it` is true, or the free slot where it belongs.
    pub(super) fn slot(&mut self, hash: u64, is_it: &dyn Fn(u32) -> bool) -> Result<&mut u32, TooManyCollisions> {
        let len = self.slots.len();
        let mut at = slot_of(hash, len);
        while let Some(n) = self.slots.get(at)
            && *n != NONE
            && !is_it(*n)
        {
            self.probes = self.probes.checked_sub(1).ok_or(TooManyCollisions)?;
            at = if at + 1 == len { 0 } else { at + 1 };
        }
        self.slots.get_mut(at).ok_or(TooManyCollisions)
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

/// The base of [`roll`].
const BASE: u32 = 0x9e37_79b1;

/// A hash of a text that can be had from those of its parts: a polynomial in [`BASE`] with the text's bytes as coefficients,
/// where `▁` counts as the blank that SentencePiece means by it.
pub(super) fn roll(text: impl Iterator<Item = u8>) -> u32 {
    text.fold(Roll::default(), Roll::with).h
}

/// A text so far.
#[derive(Clone, Copy, Default)]
struct Roll {
    h: u32,
    /// The last three bytes, the first of them highest.
    last: u32,
    /// What `h` was before the last two.
    before: [u32; 2],
}

impl Roll {
    #[inline(never)]
    fn with(self, byte: u8) -> Self {
        let last = (self.last << 8 | u32::from(byte)) & 0xff_ffff;
        let [earlier, later] = self.before;
        let h = if last == 0xe2_9681 { append(earlier, b' ') } else { append(self.h, byte) };
        Self { h, last, before: [later, self.h] }
    }
}

fn append(h: u32, byte: u8) -> u32 {
    h.wrapping_mul(BASE).wrapping_add(u32::from(byte))
}

/// The [`roll`] of a text and `len` more bytes, none of which is of a `▁`, with that of these.
pub(super) fn roll_both(left: u32, right: u32, len: u32) -> u32 {
    let (mut power, mut square, mut n) = (1u32, BASE, len);
    while n > 0 {
        if n & 1 == 1 {
            power = power.wrapping_mul(square);
        }
        (square, n) = (square.wrapping_mul(square), n / 2);
    }
    left.wrapping_mul(power).wrapping_add(right)
}

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
        let all = (0..n).try_for_each(|i| table.slot(of(text(i)), &|j| text(j) == text(i)).map(|slot| *slot = i));
        then(all.map(|()| table.finish()))
    }

    fn of(text: u64) -> u64 {
        mix(roll(text.to_le_bytes().into_iter()).into())
    }

    #[test]
    fn what_is_put_in_is_found() {
        for n in [0, 1, 2, 100, 10_000] {
            fill(n, u64::from, |table| {
                let table = table.unwrap();
                let find = |i: u32| table.find(of(i.into()), &|j| j == i);
                assert!((0..n).all(|i| find(i) == Some(i)) && (n..n + 100).all(|i| find(i).is_none()));
            });
        }
        // Every text twice: the second takes the first one's slot.
        fill(
            200,
            |i| u64::from(i % 100),
            |table| {
                let table = table.unwrap();
                assert!((0..100).all(|i| table.find(of(i), &|j| u64::from(j) % 100 == i) == Some(i as u32 + 100)));
            },
        );
        assert_eq!(HashIndex::EMPTY.find(1, &|_| true), None);
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
                let (l, r) = (roll(left.bytes()), roll(right.bytes()));
                let both = [left, right].concat();
                assert_eq!(roll_both(l, r, right.len() as u32), roll(both.bytes()));
                assert_eq!(roll(both.replace(' ', "▁").bytes()), roll(both.bytes()));
            }
        }
        assert_ne!(roll("▁".bytes()), roll("▂".bytes()));
    }
}
