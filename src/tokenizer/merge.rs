//! Merging pairs of symbols: the algorithm of both BPE and SentencePiece.
//!
//! ```text
//! symbols = the characters
//! queue every adjacent pair that is a token, by rank
//! pop the best pair until none is left: if both its symbols are unchanged, merge them and queue the two new pairs
//! ```
//!
//! A binary heap in scratch memory makes it O(n log n): a run of 100,000 letters is one word (rule V7). A pair is known by
//! its left symbol and its rank alone, and a symbol by the bytes where it starts and ends; so all takes 18 bytes for each
//! byte of a word.

use crate::storage::{Arena, ArenaError, unpadded};
use crate::util::{SliceExt, binary_heap};

/// A symbol: some bytes of the text, and what the caller knows them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) value: u32,
}

impl Symbol {
    fn end(self) -> u32 {
        self.start + self.len
    }
}

/// What joining two symbols gives: the value of the new one, and the order in which pairs are joined, least rank first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merge {
    pub(super) rank: u32,
    pub(super) value: u32,
}

/// The merge of two neighbours, if there is one.
pub(super) type Join<'j> = &'j dyn Fn(Symbol, Symbol) -> Option<Merge>;

/// A symbol that could be merged with the next one. Ordered by rank, then from left to right. It is outdated if the two
/// have no merge of this rank any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    rank: u32,
    left: u32,
}

unpadded!(Pair: [u32; 2]);

/// Marks the length of a symbol that starts here. The last byte of a symbol has its length too, without this mark unless
/// it is the first one.
const STARTS: u32 = 1 << 31;

/// The symbols of a word, and a queue of their pairs.
pub(super) struct Merger<'s> {
    /// (bytes) at the first byte of a symbol, its value
    values: &'s mut [u32],
    /// (bytes) at the first and the last byte of a symbol, its length
    lens: &'s mut [u32],
    /// Bytes of the word.
    len: u32,
    queue: Queue<'s>,
}

impl<'s> Merger<'s> {
    /// Memory for a word of `n` bytes. A quarter more pairs than there can be at once, since some are outdated.
    pub(super) fn new(n: usize, scratch: &mut Arena<'s>) -> Result<Self, ArenaError> {
        let pairs = n.saturating_add(n / 4);
        Ok(Self {
            values: scratch.alloc("symbols", &[n])?,
            lens: scratch.alloc("symbol lengths", &[n])?,
            len: 0,
            queue: Queue { pairs: scratch.build("pairs", pairs, |_| Ok::<_, ArenaError>(Pair::default()))?, len: 0 },
        })
    }

    /// Removes all symbols, for the next word.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.queue.len = 0;
    }

    /// Appends a symbol of `len` bytes, at least one.
    ///
    /// # Errors
    /// If there is no room, which cannot happen with memory that was planned for the text.
    pub(super) fn push(&mut self, len: usize, value: u32) -> Result<(), ArenaError> {
        let symbol = Symbol { start: self.len, len: len as u32, value };
        let (needed, room) = (symbol.end() as usize, self.lens.len());
        if needed > room {
            return Err(ArenaError::TooSmall { name: "symbols", needed, len: room });
        }
        self.set(symbol);
        self.len = symbol.end();
        Ok(())
    }

    /// Merges pairs until none is left.
    pub(super) fn merge_all(&mut self, join: Join<'_>) {
        self.queue_all(join);
        while let Some(pair) = self.queue.pop() {
            let Some(left) = self.starting_at(pair.left) else { continue };
            let Some(right) = self.starting_at(left.end()) else { continue };
            let Some(Merge { value, .. }) = join(left, right).filter(|merge| merge.rank == pair.rank) else { continue };
            if let Some(len) = self.lens.get_mut(right.start as usize) {
                *len &= !STARTS;
            }
            let merged = Symbol { len: left.len + right.len, value, ..left };
            self.set(merged);
            if let Some(before) = self.ending_at(merged.start) {
                self.propose(before, merged, join);
            }
            if let Some(after) = self.starting_at(merged.end()) {
                self.propose(merged, after, join);
            }
        }
    }

    /// The symbols, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = Symbol> {
        core::iter::successors(self.starting_at(0), |symbol| self.starting_at(symbol.end()))
    }

    #[inline(never)]
    fn set(&mut self, symbol: Symbol) {
        let (first, last) = (symbol.start as usize, symbol.end() as usize - 1);
        for (at, len) in [(last, symbol.len), (first, symbol.len | STARTS)] {
            if let Some(slot) = self.lens.get_mut(at) {
                *slot = len;
            }
        }
        if let Some(slot) = self.values.get_mut(first) {
            *slot = symbol.value;
        }
    }

    #[inline(never)]
    fn starting_at(&self, start: u32) -> Option<Symbol> {
        let at = (start as usize..self.len as usize).next()?;
        let len = self.lens.get(at).filter(|len| **len & STARTS != 0)? & !STARTS;
        Some(Symbol { start, len, value: *self.values.get(at)? })
    }

    fn ending_at(&self, end: u32) -> Option<Symbol> {
        let len = self.lens.get(end.checked_sub(1)? as usize)? & !STARTS;
        self.starting_at(end.checked_sub(len)?)
    }

    #[inline(never)]
    fn propose(&mut self, left: Symbol, right: Symbol, join: Join<'_>) {
        if let Some(Merge { rank, .. }) = join(left, right)
            && !self.queue.push(Pair { rank, left: left.start })
        {
            // Full: of those in the queue, so many are outdated that what is left takes at most four fifths of the room.
            self.queue_all(join);
        }
    }

    /// Queues the pairs that there are now, and no others.
    fn queue_all(&mut self, join: Join<'_>) {
        self.queue.len = 0;
        let mut left = self.starting_at(0);
        while let Some(symbol) = left {
            left = self.starting_at(symbol.end());
            if let Some(Merge { rank, .. }) = left.and_then(|right| join(symbol, right)) {
                self.queue.push(Pair { rank, left: symbol.start });
            }
        }
    }
}

/// A binary heap, least first.
struct Queue<'s> {
    pairs: &'s mut [Pair],
    len: usize,
}

impl Queue<'_> {
    /// Whether there was room.
    fn push(&mut self, pair: Pair) -> bool {
        let Some(slot) = self.pairs.get_mut(self.len) else { return false };
        *slot = pair;
        self.len += 1;
        binary_heap::sift_up(self.pairs.first_n_mut(self.len), |a, b| a > b);
        true
    }

    fn pop(&mut self) -> Option<Pair> {
        let least = self.pairs.first_n(self.len).first().copied()?;
        self.len -= 1;
        let last = self.pairs.get(self.len).copied()?;
        if let Some(top) = self.pairs.first_mut() {
            *top = last;
        }
        binary_heap::sift_down(self.pairs.first_n_mut(self.len), |a, b| a > b);
        Some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ALIGN;
    use std::collections::HashMap;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn the_heap_sorts() {
        let mut pairs = [Pair::default(); 100];
        let mut queue = Queue { pairs: &mut pairs, len: 0 };
        let ranks: Vec<u32> = (0..100).map(|i| i * 37 % 101).collect();
        for rank in &ranks {
            assert!(queue.push(Pair { rank: *rank, left: 1 }));
        }
        assert!(!queue.push(Pair { rank: 0, left: 0 }));
        let mut sorted = ranks.clone();
        sorted.sort_unstable();
        assert_eq!(core::iter::from_fn(|| queue.pop()).map(|p| p.rank).collect::<Vec<_>>(), sorted);
    }

    /// Merges of (left value, right value): rank and value.
    type Table = HashMap<(u32, u32), (u32, u32)>;

    /// The values that `symbols` (bytes, value) merge to, and how often a pair was looked up.
    fn merged(symbols: &[(usize, u32)], table: &Table) -> (Vec<u32>, usize) {
        let n: usize = symbols.iter().map(|s| s.0).sum();
        let mut dry = Arena::dry_run();
        Merger::new(n, &mut dry).unwrap();
        assert!(dry.used() <= 18 * n + 3 * ALIGN);
        let mut memory = vec![0xa5; dry.used() + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        let mut merger = Merger::new(n, &mut Arena::new(&mut memory[start..]).unwrap()).unwrap();
        for (len, value) in symbols {
            merger.push(*len, *value).unwrap();
        }
        let look_ups = core::cell::Cell::new(0);
        merger.merge_all(&|left, right| {
            look_ups.set(look_ups.get() + 1);
            table.get(&(left.value, right.value)).map(|(rank, value)| Merge { rank: *rank, value: *value })
        });
        (merger.symbols().map(|s| s.value).collect(), look_ups.get())
    }

    /// The definition: again and again the leftmost of the pairs of least rank.
    fn naive(symbols: &[(usize, u32)], table: &Table) -> Vec<u32> {
        let mut values: Vec<u32> = symbols.iter().map(|s| s.1).collect();
        loop {
            let pairs = (1..values.len()).filter_map(|i| Some((table.get(&(values[i - 1], values[i]))?, i)));
            let Some(((_, value), i)) = pairs.min_by_key(|((rank, _), i)| (*rank, *i)) else { return values };
            values[i - 1] = *value;
            values.remove(i);
        }
    }

    fn random(state: &mut u64, below: usize) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize % below
    }

    /// Random merges of few values, of equal ranks as well, so that pairs are outdated in every way.
    #[test]
    fn merges_are_those_of_the_definition() {
        let mut state = 1;
        let mut r = |below| random(&mut state, below);
        for round in 0..3000 {
            let (values, ranks) = (2 + r(5), 1 + r(12));
            let table: Table = (0..r(30))
                .map(|_| ((r(values) as u32, r(values) as u32), (r(ranks) as u32, r(values) as u32)))
                .collect();
            // Of one byte each, there may be more pairs than the queue has room for.
            let longest = 1 + r(3);
            let symbols: Vec<(usize, u32)> = (0..r(60)).map(|_| (1 + r(longest), r(values) as u32)).collect();
            assert_eq!(merged(&symbols, &table).0, naive(&symbols, &table), "round {round}: {table:?} {symbols:?}");
        }
    }

    /// Each merge queues one more pair of the first symbol, which comes last: the queue must overflow.
    #[test]
    fn an_overflowing_queue_loses_no_pair() {
        let n = 400;
        let mut table: Table = (0..n).map(|v| ((1000, v), (9, 2000 + v))).collect();
        table.extend((0..n).map(|v| ((v, 0), (n - v, v + 1))));
        let symbols: Vec<(usize, u32)> = [1000].into_iter().chain((0..n).map(|_| 0)).map(|v| (1, v)).collect();
        assert_eq!(merged(&symbols, &table).0, naive(&symbols, &table));
        table.extend((0..n).map(|v| ((1000, v), (n + 9, 2000 + v))));
        assert_eq!(merged(&symbols, &table).0, naive(&symbols, &table));
    }

    /// However merges outdate one another, pairs are looked up a few times for each byte: also where the queue overflows.
    #[test]
    fn look_ups_are_linear_in_the_text() {
        for n in [1000, 10_000, 100_000] {
            let (mut state, mut most) = (7, 0);
            for kind in 0..24 {
                // Values grow by one, double, or become any other.
                let table: Table = (0..64u32)
                    .flat_map(|a| (0..64u32).map(move |b| (a, b)))
                    .filter_map(|(a, b)| match kind {
                        0 => (b == 0).then_some(((a, b), (a, (a + 1) % 64))),
                        1 => (b == 0).then_some(((a, b), (64 - a, (a + 1) % 64))),
                        2 => (a == b).then_some(((a, b), (64 - a, (a + 1) % 64))),
                        3 => (a == 0).then_some(((a, b), (64 - b, (b + 1) % 64))),
                        _ => (random(&mut state, 64) < kind).then(|| {
                            let rank = random(&mut state, 1 << (kind / 2)) as u32;
                            ((a, b), (rank, random(&mut state, 64) as u32))
                        }),
                    })
                    .collect();
                let symbols: Vec<(usize, u32)> =
                    (0..n).map(|_| (1, if kind < 4 { 0 } else { random(&mut state, 8) as u32 })).collect();
                most = most.max(merged(&symbols, &table).1);
            }
            assert!(most < 12 * n, "{most} look-ups for {n} bytes");
        }
    }
}
