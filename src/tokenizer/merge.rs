//! Merging pairs of symbols: the algorithm of both BPE and SentencePiece.
//!
//! ```text
//! symbols = the characters
//! queue every adjacent pair that is a token, by rank
//! pop the best pair until none is left: if both its symbols are unchanged, merge them and queue the two new pairs
//! ```
//!
//! A binary heap in scratch memory makes it O(n log n): a run of 100,000 letters is one word (rule V7).

use super::hash_index::NONE;
use crate::storage::{Arena, ArenaError, unpadded};
use crate::util::{SliceExt, binary_heap};

/// A symbol: some bytes of the text, and their token.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Symbol {
    pub(super) start: u32,
    /// 0 if it has been merged into the symbol before it.
    pub(super) len: u32,
    /// [`NONE`] if these bytes have no token.
    pub(super) token: u32,
    prev: u32,
    next: u32,
}

/// What joining two symbols gives: the resulting token, and the order in which pairs are joined, least rank first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merge {
    pub(super) rank: u32,
    pub(super) token: u32,
}

/// An adjacent pair that could be merged. Ordered by rank, then from left to right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    rank: u32,
    left: u32,
    right: u32,
    /// Bytes of both when the pair was queued; if they differ now, the pair is outdated.
    len: u32,
}

unpadded!(Symbol: [u32; 5]);
unpadded!(Pair: [u32; 4]);

/// The symbols of a word, and a queue of their pairs.
pub(super) struct Merger<'s> {
    symbols: &'s mut [Symbol],
    queue: Queue<'s>,
    len: usize,
}

impl<'s> Merger<'s> {
    /// Memory for a word of `n` symbols: each merge adds at most two pairs to the first n − 1.
    pub(super) fn new(n: usize, scratch: &mut Arena<'s>) -> Result<Self, ArenaError> {
        let symbols = scratch.build("symbols", n, |_| Ok::<_, ArenaError>(Symbol::default()))?;
        let pairs = scratch.build("pairs", 3 * n, |_| Ok::<_, ArenaError>(Pair::default()))?;
        Ok(Self { symbols, queue: Queue { pairs, len: 0 }, len: 0 })
    }

    /// Removes all symbols, for the next word.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.queue.len = 0;
    }

    /// Appends a symbol.
    ///
    /// # Errors
    /// If there is no room, which cannot happen with memory that was planned for the text.
    pub(super) fn push(&mut self, start: usize, len: usize, token: Option<u32>) -> Result<(), ArenaError> {
        let (i, room) = (self.len as u32, self.symbols.len());
        let full = ArenaError::TooSmall { name: "symbols", needed: room + 1, len: room };
        let slot = self.symbols.get_mut(self.len).ok_or(full)?;
        let prev = if i == 0 { NONE } else { i - 1 };
        *slot = Symbol { start: start as u32, len: len as u32, token: token.unwrap_or(NONE), prev, next: i + 1 };
        self.len += 1;
        Ok(())
    }

    /// Merges pairs until none is left. `join` gives the merge of two neighbours, if there is one.
    pub(super) fn merge_all(&mut self, join: impl Fn(&Symbol, &Symbol) -> Option<Merge>) {
        for i in 1..self.len as u32 {
            self.propose(i - 1, i, &join);
        }
        while let Some(pair) = self.queue.pop() {
            let (Some(left), Some(right)) = (self.get(pair.left), self.get(pair.right)) else { continue };
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
                continue;
            }
            let Some(Merge { token, .. }) = join(&left, &right) else { continue };
            self.set(pair.left, Symbol { len: pair.len, token, next: right.next, ..left });
            self.set(pair.right, Symbol { len: 0, ..right });
            if let Some(next) = self.get(right.next) {
                self.set(right.next, Symbol { prev: pair.left, ..next });
            }
            self.propose(left.prev, pair.left, &join);
            self.propose(pair.left, right.next, &join);
        }
    }

    /// The remaining symbols, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.first_n(self.len).iter().filter(|s| s.len > 0)
    }

    fn get(&self, i: u32) -> Option<Symbol> {
        self.symbols.get(..self.len)?.get(i as usize).copied()
    }

    fn set(&mut self, i: u32, symbol: Symbol) {
        if let Some(slot) = self.symbols.get_mut(i as usize) {
            *slot = symbol;
        }
    }

    fn propose(&mut self, left: u32, right: u32, join: &impl Fn(&Symbol, &Symbol) -> Option<Merge>) {
        let (Some(l), Some(r)) = (self.get(left), self.get(right)) else { return };
        if let Some(Merge { rank, .. }) = join(&l, &r) {
            self.queue.push(Pair { rank, left, right, len: l.len + r.len });
        }
    }
}

/// A binary heap, least first.
struct Queue<'s> {
    pairs: &'s mut [Pair],
    len: usize,
}

impl Queue<'_> {
    fn push(&mut self, pair: Pair) {
        let Some(slot) = self.pairs.get_mut(self.len) else { return };
        *slot = pair;
        self.len += 1;
        binary_heap::sift_up(self.pairs.first_n_mut(self.len), |a, b| a > b);
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
    use std::vec::Vec;

    #[test]
    fn the_heap_sorts() {
        let mut pairs = [Pair { rank: 0, left: 0, right: 0, len: 0 }; 100];
        let mut queue = Queue { pairs: &mut pairs, len: 0 };
        let ranks: Vec<u32> = (0..100).map(|i| i * 37 % 101).collect();
        for r in &ranks {
            queue.push(Pair { rank: *r, left: 1, right: 2, len: 3 });
        }
        let mut sorted = ranks.clone();
        sorted.sort_unstable();
        assert_eq!(core::iter::from_fn(|| queue.pop()).map(|p| p.rank).collect::<Vec<_>>(), sorted);
    }
}
