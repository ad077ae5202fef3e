//! Which positions a token looks at, and where each of them lies: integers only.
//!
//! ```text
//! positions   0 … S | evicted, but perhaps every k-th tile | n−W+1 … n
//!             pinned  kept                                   window
//! ```
//!
//! The first S positions stay for good (attention sinks: Xiao et al. 2023, arXiv 2309.17453; or a whole system prompt),
//! the last W are in a ring of slots, and a pattern may keep every k-th tile of what left the window. A position's slot
//! is a function of the position alone, so that eviction is nothing but being written over: nothing moves.
//!
//! Positions are `u64` and never wrap; only slots do.

/// Positions of a tile, the unit in which attention adds up: tiles start at multiples of it, whatever the slots.
pub const TILE: usize = 32;
const TILE_64: u64 = TILE as u64;

/// A pattern and the slots that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    /// S: the first positions, which stay.
    sinks: usize,
    /// W: the last positions, a token's own among them.
    window: usize,
    /// Of the tiles that left the window every `every`-th is kept; 0 for none.
    every: usize,
    /// How many of those.
    kept: usize,
    /// Tiles of slots for positions that are not kept, and for those that are.
    slots: [usize; 2],
}

/// Positions one after another that a token looks at, within a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first.
    pub(crate) start: u64,
    /// How many; at least 1.
    pub(crate) len: usize,
    /// Whether they are pinned; else they are in the ring.
    pub(crate) sink: bool,
}

impl Ring {
    /// The first `pinned` positions and the last `window`, and at least `slack` that left the window and can be gone
    /// back to. None when the window is empty, or sizes overflow.
    pub(crate) fn new(sinks: usize, window: usize, slack: usize) -> Option<Self> {
        sinks.checked_add(window).filter(|_| window > 0)?;
        let tiles = window.checked_add(slack)?.div_ceil(TILE);
        tiles.checked_mul(TILE)?;
        Some(Ring { sinks, window, every: 0, kept: 0, slots: [tiles, 0] })
    }

    /// The same, and of the tiles before the window every `every`-th, `kept` of them.
    pub(crate) fn strided(sinks: usize, window: usize, slack: usize, every: usize, kept: usize) -> Option<Self> {
        if every < 2 || kept == 0 {
            return None;
        }
        let plain = Ring::new(sinks, window, slack.checked_add(2 * TILE)?)?;
        let kept_slots = kept.checked_add(plain.slots[0] / every)?.checked_add(1)?;
        kept_slots.checked_add(plain.slots[0])?.checked_mul(TILE)?.checked_add(sinks)?;
        Some(Ring { every, kept, slots: [plain.slots[0], kept_slots], ..plain })
    }

    /// Positions that stay.
    pub(crate) fn sinks(&self) -> usize {
        self.sinks
    }

    /// Whether old tiles are kept.
    pub(crate) fn is_strided(&self) -> bool {
        self.every > 0
    }

    /// Its numbers, which make two rings the same.
    pub(crate) fn numbers(&self) -> [u64; 6] {
        [self.sinks, self.window, self.every, self.kept, self.slots[0], self.slots[1]].map(|n| n as u64)
    }

    /// Positions that a token looks at when there are enough.
    pub(crate) fn capacity(&self) -> usize {
        self.sinks + self.window + self.kept * TILE
    }

    /// Slots of the ring; the pinned positions are not in it.
    pub(crate) fn slots(&self) -> usize {
        (self.slots[0] + self.slots[1]) * TILE
    }

    /// The slot of a position that is not pinned.
    pub(crate) fn slot(&self, position: u64) -> usize {
        let (tile, within) = (position / TILE_64, (position % TILE_64) as usize);
        let (ordinal, tiles, first) = self.lane(tile);
        (first + (ordinal % tiles.max(1) as u64) as usize) * TILE + within
    }

    /// Tiles are dealt to two rings: their number in theirs, its size, and its first tile.
    fn lane(&self, tile: u64) -> (u64, usize, usize) {
        match self.every as u64 {
            0 => (tile, self.slots[0], 0),
            every if tile.is_multiple_of(every) => (tile / every, self.slots[1], self.slots[0]),
            every => (tile - tile / every - 1, self.slots[0], 0),
        }
    }

    /// The first position of the window of the token at `n`.
    fn window_start(&self, n: u64) -> u64 {
        (n + 1).saturating_sub(self.window as u64).max(self.sinks as u64)
    }

    /// The first tile before the window that the token at `n` looks at.
    fn oldest_kept(&self, n: u64) -> Option<u64> {
        let every = Some(self.every as u64).filter(|every| *every > 0)?;
        let newest = self.window_start(n) / TILE_64 / every;
        Some(newest.saturating_sub(self.kept as u64 - 1) * every)
    }

    /// The first position that is not pinned and that the token at `n` looks at.
    fn oldest(&self, n: u64) -> u64 {
        let (sinks, window) = (self.sinks as u64, self.window_start(n));
        // The first kept tile that is not all pinned.
        let kept = self.oldest_kept(n).map(|tile| tile.max(sinks / TILE_64).next_multiple_of(self.every as u64));
        kept.map_or(window, |tile| (tile * TILE_64).max(sinks).min(window))
    }

    /// How much nearer than they are the pinned positions seem to the token at `n`: they stand right before the oldest
    /// of the others. So no distance is ever larger than the positions that are looked at reach.
    pub(crate) fn sink_offset(&self, n: u64) -> u64 {
        self.oldest(n) - self.sinks as u64
    }

    /// How many tiles the token at `n` looks at.
    pub(crate) fn tiles(&self, n: u64) -> usize {
        let (sinks, kept, window) = self.tile_counts(n);
        sinks + kept.1 + window.1
    }

    /// What the token at `n` looks at in tile `i` of [`tiles`](Ring::tiles): first what is pinned of it, then the rest.
    pub(crate) fn tile(&self, n: u64, i: usize) -> impl Iterator<Item = Span> + Clone + use<> {
        let (sinks, kept, window) = self.tile_counts(n);
        let tile = match i.checked_sub(sinks) {
            None => i as u64,
            Some(i) if i < kept.1 => kept.0 + (i * self.every) as u64,
            Some(i) => window.0 + (i - kept.1) as u64,
        };
        let (start, end) = (tile * TILE_64, (tile * TILE_64 + TILE_64).min(n + 1));
        let sinks_end = end.min(self.sinks as u64).max(start);
        let all = self.oldest_kept(n).is_some_and(|oldest| tile >= oldest && tile.is_multiple_of(self.every as u64));
        let from = if all { sinks_end } else { self.window_start(n).max(sinks_end) };
        let span =
            |start: u64, end: u64, sink| (start < end).then(|| Span { start, len: (end - start) as usize, sink });
        [span(start, sinks_end, true), span(from, end, false)].into_iter().flatten()
    }

    /// Tiles with pinned positions; the first of the kept ones behind them and how many there are; the first of the
    /// window's and how many there are.
    fn tile_counts(&self, n: u64) -> (usize, (u64, usize), (u64, usize)) {
        let sinks = (n + 1).min(self.sinks as u64).div_ceil(TILE_64);
        let window = self.window_start(n) / TILE_64;
        let kept = self.oldest_kept(n).map_or((0, 0), |oldest| {
            let every = self.every as u64;
            let first = oldest.max(sinks).next_multiple_of(every);
            (first, window.saturating_sub(first).div_ceil(every) as usize)
        });
        let first = window.max(sinks);
        (sinks as usize, kept, (first, (n / TILE_64 + 1).saturating_sub(first) as usize))
    }

    /// All that the token at `n` looks at, in order, itself last.
    fn spans(&self, n: u64) -> impl Iterator<Item = Span> {
        (0..self.tiles(n)).flat_map(move |i| self.tile(n, i))
    }

    /// Whether, after `written` positions, all that the token at `n` looks at before itself is still there.
    pub(crate) fn holds(&self, n: u64, written: u64) -> bool {
        let Some(last) = written.checked_sub(1) else { return true };
        self.spans(n).filter(|p| !p.sink && p.start < n).all(|span| self.is_there(span.start, last))
    }

    /// Whether a position was not written over when `last` was the last to be written.
    fn is_there(&self, position: u64, last: u64) -> bool {
        if self.every == 0 {
            return position + self.slots() as u64 > last;
        }
        let (ordinal, tiles, first) = self.lane(position / TILE_64);
        // The last tile of the same ring: `last`'s, or one before it.
        let mut tile = last / TILE_64;
        while self.lane(tile).2 != first && tile > 0 {
            tile -= 1;
        }
        ordinal + tiles as u64 > self.lane(tile).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn any_ring() -> impl Strategy<Value = Ring> {
        let plain = (0usize..70, 1usize..200, 0usize..100).prop_map(|(s, w, slack)| Ring::new(s, w, slack).unwrap());
        let strided = (0usize..70, 1usize..200, 0usize..100, 2usize..6, 1usize..5)
            .prop_map(|(s, w, slack, every, kept)| Ring::strided(s, w, slack, every, kept).unwrap());
        prop_oneof![plain, strided]
    }

    /// What the token at `n` looks at, position by position, from the definition.
    fn naive(ring: &Ring, n: u64) -> Vec<u64> {
        let (s, w, every) = (ring.sinks as u64, ring.window as u64, ring.every as u64);
        let start = (n + 1).saturating_sub(w).max(s);
        let kept: Vec<u64> = (0..=start / 32).rev().filter(|t| every > 0 && t % every == 0).take(ring.kept).collect();
        (0..=n).filter(|m| *m < s || *m >= start || kept.contains(&(m / 32))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn spans_are_what_the_definition_says(ring in any_ring(), n in 0u64..2000) {
            let spans: Vec<Span> = ring.spans(n).collect();
            let all: Vec<u64> = spans.iter().flat_map(|p| p.start..p.start + p.len as u64).collect();
            prop_assert_eq!(&all, &naive(&ring, n));
            prop_assert!(all.len() <= ring.capacity() && all.last() == Some(&n));
            for p in &spans {
                prop_assert_eq!(p.start / 32, (p.start + p.len as u64 - 1) / 32);
                prop_assert_eq!(p.sink, p.start < ring.sinks as u64);
            }
            // The pinned ones stand right before the first of the others.
            let first = all.iter().find(|m| **m >= ring.sinks as u64);
            if let Some(first) = first {
                prop_assert_eq!(ring.sink_offset(n), first - ring.sinks as u64);
            }
        }

        /// Positions written in order are all where they are looked for, through any number of wraps.
        #[test]
        fn no_slot_is_overwritten_while_it_is_attended_to(ring in any_ring(), n in 0u64..3000) {
            let mut slots = std::vec![u64::MAX; ring.slots()];
            for m in ring.sinks as u64..=n {
                slots[ring.slot(m)] = m;
            }
            for m in naive(&ring, n).into_iter().filter(|m| *m >= ring.sinks as u64) {
                prop_assert_eq!(slots[ring.slot(m)], m);
            }
            // And `holds` knows how far back one can go.
            for back in (0..=n.min(300)).step_by(7) {
                let there = naive(&ring, n - back);
                let there = there.iter().filter(|m| **m >= ring.sinks as u64 && **m < n - back);
                let held = there.into_iter().all(|m| slots[ring.slot(*m)] == *m);
                prop_assert!(!ring.holds(n - back, n + 1) || held, "{back} back");
                if ring.every == 0 {
                    prop_assert_eq!(ring.holds(n - back, n + 1), held, "{} back", back);
                }
            }
        }

        #[test]
        fn a_position_beyond_all_counters_is_a_position(ring in any_ring(), far in 0u64..100) {
            for n in [1u64 << 24, 1 << 31, (1 << 32) + 1, 1 << 50].map(|n| n + far) {
                let seen: u64 = ring.spans(n).map(|p| p.len as u64).sum();
                prop_assert!(seen <= ring.capacity() as u64 && seen >= (ring.sinks + ring.window) as u64);
                prop_assert!(ring.slot(n) < ring.slots());
                prop_assert_eq!(ring.spans(n).last().map(|p| p.start + p.len as u64 - 1), Some(n));
            }
        }
    }

    #[test]
    fn slack_is_what_one_can_go_back() {
        let ring = Ring::new(4, 60, 36).unwrap();
        assert_eq!((ring.capacity(), ring.slots()), (64, 96));
        assert!(ring.holds(1000, 1000) && ring.holds(1000 - 36, 1000) && !ring.holds(1000 - 38, 1000));
        assert!(Ring::new(4, 0, 0).is_none() && Ring::new(usize::MAX, 1, 0).is_none());
        for slack in [0, 1, 33, 100, 500] {
            for (every, window, kept) in [(2, 40, 1), (3, 200, 4), (7, 33, 2)] {
                let ring = Ring::strided(4, window, slack, every, kept).unwrap();
                for written in (2000..2400u64).step_by(13) {
                    assert!((0..=slack as u64).all(|back| ring.holds(written - back, written)), "{every} {slack}");
                }
            }
        }
    }
}
