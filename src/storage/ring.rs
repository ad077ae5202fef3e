//! Which positions a token attends to, and the slot of each of them: integers only.
//!
//! ```text
//! positions   0 … S  | evicted, but perhaps every k-th tile | n−W+1 … n
//!             sinks    kept                                   window
//! ```
//!
//! The first S positions are never evicted (attention sinks: Xiao et al. 2023, arXiv 2309.17453; or a whole system
//! prompt), the last W are in a ring of slots, and a pattern may keep every k-th tile of what left the window. A
//! position's slot is a function of the position alone, so eviction is nothing but being overwritten: nothing moves.
//!
//! Positions are `u64` and never wrap; only slots do.

use core::ops::Range;

/// Positions of a tile, the unit in which attention is summed: tiles start at multiples of it, whatever the slots.
pub const TILE: usize = 32;
const TILE_64: u64 = TILE as u64;
/// Tiles of a part, whose attention is summed by itself: parts start at multiples of it.
pub(super) const TILES_PER_PART: u64 = 16;
/// Tiles of a leaf of the tree by which parts are merged.
pub(super) const TILES_PER_LEAF: u64 = 4 * TILES_PER_PART;
/// Positions of a leaf: blocks of 2^j leaves may be on several boards.
pub const LEAF: usize = TILES_PER_LEAF as usize * TILE;

/// An attention pattern and the slots that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    /// S: the first positions, which are never evicted.
    pub(crate) sinks: usize,
    /// W: the last positions, with the token's own.
    pub(crate) window: usize,
    /// Of the tiles that left the window every `every`-th is kept; 0 for none.
    pub(crate) every: usize,
    /// How many tiles are kept.
    pub(crate) kept: usize,
    /// Tiles of slots for positions that will not be kept.
    pub(crate) recent_tiles: usize,
    /// Tiles of slots for those that will.
    pub(crate) kept_tiles: usize,
}

/// Consecutive positions of one tile that a token attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first.
    pub(crate) start: u64,
    /// How many; at least 1.
    pub(crate) len: usize,
    /// Whether they are sinks; else they are in the ring.
    pub(crate) sink: bool,
}

/// Tiles of one part that a token attends to.
pub(crate) struct Part<'a> {
    /// Number of its leaf, from the first position of all on.
    pub(crate) leaf: u64,
    /// All tiles of the token.
    attended: &'a Attended,
    /// Which of them are in the part.
    tiles: Range<usize>,
}

impl Part<'_> {
    /// Its number, from the first position of all on.
    #[cfg(feature = "boards")]
    pub(crate) fn number(&self) -> u64 {
        self.tiles().next().map_or(u64::MAX, |tile| tile / TILES_PER_PART)
    }

    /// The numbers of its tiles.
    pub(crate) fn tiles(&self) -> impl Iterator<Item = u64> {
        self.tiles.clone().filter_map(|i| self.attended.tile(i))
    }
}

/// Some tiles: `count` of them, every `every`-th from number `first` on.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    every: u64,
    count: usize,
}

impl Run {
    /// Number of the `i`-th.
    fn tile(&self, i: usize) -> u64 {
        self.first + i as u64 * self.every
    }

    /// The first tile of its `i`-th part; `count` behind the last.
    fn part_start(&self, i: usize) -> usize {
        // In a part is one tile at least, and none is between two that are in no part.
        let start = match self.every >= TILES_PER_PART {
            true => i as u64,
            false => {
                let part = (self.first / TILES_PER_PART + i as u64) * TILES_PER_PART;
                part.saturating_sub(self.first).div_ceil(self.every.max(1))
            }
        };
        start.min(self.count as u64) as usize
    }

    /// How many parts it is in.
    fn parts(&self) -> usize {
        match self.count.checked_sub(1) {
            None => 0,
            Some(_) if self.every >= TILES_PER_PART => self.count,
            Some(last) => (self.tile(last) / TILES_PER_PART - self.first / TILES_PER_PART + 1) as usize,
        }
    }
}

/// The tiles that a token attends to: those with sinks, kept ones, and those of the window. A tile with both sinks and
/// others is one of the sinks'.
///
/// They are in parts, which are cut at multiples of 512 positions, wherever the tiles begin and however many there are: so
/// what is summed together does not depend on when something was evicted.
pub(crate) struct Attended([Run; 3]);

impl Attended {
    /// How many tiles there are.
    fn tiles(&self) -> usize {
        self.0.iter().map(|run| run.count).sum()
    }

    /// Number of the `i`-th tile.
    fn tile(&self, mut i: usize) -> Option<u64> {
        for run in &self.0 {
            if i < run.count {
                return Some(run.tile(i));
            }
            i -= run.count;
        }
        None
    }

    /// Each run, how many tiles are before it, and how many parts begin in it: all of them, but for one where the last tile
    /// before the run is in its first part.
    fn runs(&self) -> impl Iterator<Item = (&Run, usize, usize)> {
        let (mut before, mut last) = (0, None);
        self.0.iter().filter(|run| run.count > 0).map(move |run| {
            let first = (run, before, run.parts() - usize::from(last == Some(run.first / TILES_PER_PART)));
            (before, last) = (before + run.count, Some(run.tile(run.count - 1) / TILES_PER_PART));
            first
        })
    }

    /// How many parts there are.
    #[inline(never)]
    pub(crate) fn parts(&self) -> usize {
        self.runs().map(|(_, _, parts)| parts).sum()
    }

    /// Part `i`, in order of positions.
    pub(crate) fn part(&self, i: usize) -> Option<Part<'_>> {
        self.parts_from(i).next()
    }

    /// The parts from part `first` on.
    pub(crate) fn parts_from(&self, first: usize) -> impl Iterator<Item = Part<'_>> {
        let (mut i, mut start) = (first, self.part_start(first));
        core::iter::from_fn(move || {
            let (first, tile) = start?;
            i += 1;
            start = self.part_start(i);
            let end = start.map_or(self.tiles(), |(end, _)| end);
            Some(Part { leaf: tile / TILES_PER_LEAF, attended: self, tiles: first..end })
        })
    }

    /// With which tile part `i` begins: which of the tiles, and its number.
    #[inline(never)]
    fn part_start(&self, mut i: usize) -> Option<(usize, u64)> {
        for (run, before, parts) in self.runs() {
            if i < parts {
                let start = run.part_start(i + run.parts() - parts);
                return Some((before + start, run.tile(start)));
            }
            i -= parts;
        }
        None
    }
}

/// One of the two rings of tiles that a strided pattern has, and a tile's place in it.
struct Lane {
    /// Number of the tile among those of this ring.
    ordinal: u64,
    /// Tiles of slots in this ring.
    tiles: usize,
    /// Its first tile of slots.
    first: usize,
}

impl Ring {
    /// The first `sinks` positions and the last `window`; a session can be rewound by at least `slack` positions.
    /// `None` when the window is empty, or sizes overflow.
    #[inline(never)]
    pub(crate) fn new(sinks: usize, window: usize, slack: usize) -> Option<Self> {
        sinks.checked_add(window).filter(|_| window > 0)?;
        let recent_tiles = window.checked_add(slack)?.div_ceil(TILE);
        recent_tiles.checked_mul(TILE)?;
        Some(Ring { sinks, window, every: 0, kept: 0, recent_tiles, kept_tiles: 0 })
    }

    /// The same, and of the tiles before the window every `every`-th, `kept` of them.
    pub(crate) fn strided(sinks: usize, window: usize, slack: usize, every: usize, kept: usize) -> Option<Self> {
        if every < 2 || kept == 0 {
            return None;
        }
        let plain = Ring::new(sinks, window, slack.checked_add(2 * TILE)?)?;
        let kept_tiles = kept.checked_add(plain.recent_tiles / every)?.checked_add(1)?;
        kept_tiles.checked_add(plain.recent_tiles)?.checked_mul(TILE)?.checked_add(sinks)?;
        Some(Ring { every, kept, kept_tiles, ..plain })
    }

    /// Whether old tiles are kept.
    pub(crate) fn is_strided(&self) -> bool {
        self.every > 0
    }

    /// Most positions that a token attends to.
    pub(crate) fn capacity(&self) -> usize {
        self.sinks + self.window + self.kept * TILE
    }

    /// Slots of the ring, in which the sinks are not.
    pub(crate) fn slots(&self) -> usize {
        (self.recent_tiles + self.kept_tiles) * TILE
    }

    /// The slot of a position that is no sink.
    #[inline(never)]
    pub(crate) fn slot(&self, position: u64) -> usize {
        let (tile, within) = (position / TILE_64, (position % TILE_64) as usize);
        let lane = self.lane(tile);
        (lane.first + (lane.ordinal % lane.tiles.max(1) as u64) as usize) * TILE + within
    }

    /// The ring of a tile: tiles to be kept have one of their own.
    fn lane(&self, tile: u64) -> Lane {
        let recent = |ordinal| Lane { ordinal, tiles: self.recent_tiles, first: 0 };
        match self.every as u64 {
            0 => recent(tile),
            every if tile.is_multiple_of(every) => {
                Lane { ordinal: tile / every, tiles: self.kept_tiles, first: self.recent_tiles }
            }
            every => recent(tile - tile / every - 1),
        }
    }

    /// The first position of the window of the token at `n`.
    fn window_start(&self, n: u64) -> u64 {
        (n + 1).saturating_sub(self.window as u64).max(self.sinks as u64)
    }

    /// The first tile before the window that the token at `n` attends to.
    fn oldest_kept(&self, n: u64) -> Option<u64> {
        let every = Some(self.every as u64).filter(|every| *every > 0)?;
        let newest = self.window_start(n) / TILE_64 / every;
        Some(newest.saturating_sub(self.kept as u64 - 1) * every)
    }

    /// The first position that is no sink and that the token at `n` attends to.
    #[inline(never)]
    fn oldest(&self, n: u64) -> u64 {
        let (sinks, window) = (self.sinks as u64, self.window_start(n));
        // The first kept tile that has others than sinks.
        let kept = self.oldest_kept(n).map(|tile| tile.max(sinks / TILE_64).next_multiple_of(self.every as u64));
        kept.map_or(window, |tile| (tile * TILE_64).max(sinks).min(window))
    }

    /// Distance by which sink positions are shifted towards token `n`, so that they directly precede the oldest other
    /// position it attends to. So no relative position is ever larger than the pattern's reach.
    pub(crate) fn sink_offset(&self, n: u64) -> u64 {
        self.oldest(n) - self.sinks as u64
    }

    /// The most parts of any token.
    pub(crate) fn most_parts(&self) -> usize {
        const PART: usize = TILES_PER_PART as usize * TILE;
        let sinks = self.sinks.div_ceil(PART);
        // Kept tiles further apart have parts of their own.
        let kept = self.kept.min(self.kept.saturating_mul(self.every) / TILES_PER_PART as usize + 2);
        // The window's first position may be the last of a part.
        sinks.saturating_add(kept).saturating_add(self.window.saturating_add(PART - 2) / PART + 1)
    }

    /// What the token at `n` attends to in tile `tile`, which is one of its tiles: first sinks, then others.
    pub(crate) fn tile(&self, n: u64, tile: u64) -> impl Iterator<Item = Span> + Clone + use<> {
        let (start, end) = (tile * TILE_64, (tile * TILE_64 + TILE_64).min(n + 1));
        let sinks_end = end.min(self.sinks as u64).max(start);
        let all = self.oldest_kept(n).is_some_and(|oldest| tile >= oldest && tile.is_multiple_of(self.every as u64));
        let from = if all { sinks_end } else { self.window_start(n).max(sinks_end) };
        let span =
            |start: u64, end: u64, sink| (start < end).then(|| Span { start, len: (end - start) as usize, sink });
        [span(start, sinks_end, true), span(from, end, false)].into_iter().flatten()
    }

    /// The tiles that the token at `n` attends to.
    #[inline(never)]
    pub(crate) fn attended(&self, n: u64) -> Attended {
        let (sinks, end) = ((n + 1).min(self.sinks as u64).div_ceil(TILE_64), n / TILE_64 + 1);
        // The window of one of the sinks would begin behind it.
        let window = (self.window_start(n) / TILE_64).min(end);
        let kept = self.oldest_kept(n).map_or(Run { first: 0, every: 1, count: 0 }, |oldest| {
            let every = self.every as u64;
            let first = oldest.max(sinks).next_multiple_of(every);
            Run { first, every, count: window.saturating_sub(first).div_ceil(every) as usize }
        });
        let first = window.max(sinks);
        let window = Run { first, every: 1, count: end.saturating_sub(first) as usize };
        Attended([Run { first: 0, every: 1, count: sinks as usize }, kept, window])
    }

    /// All that the token at `n` attends to, in order, itself last.
    fn spans(&self, n: u64) -> impl Iterator<Item = Span> {
        let attended = self.attended(n);
        (0..attended.tiles()).filter_map(move |i| attended.tile(i)).flat_map(move |tile| self.tile(n, tile))
    }

    /// Whether, after `written` positions, the ring still holds all that the token at `n` attends to before itself; and all
    /// from `n` on, so that what is written there next takes no slot of a later position: a slot has the last of the
    /// `written` positions that it is for, wherever the session was rewound to.
    pub(crate) fn holds(&self, n: u64, written: u64) -> bool {
        let Some(last) = written.checked_sub(1) else { return true };
        let next = n.max(self.sinks as u64);
        let tile = next / TILE_64;
        // The next tiles of both lanes.
        let kept = tile.next_multiple_of((self.every as u64).max(1));
        let ahead = [next, (tile + 1) * TILE_64, (kept * TILE_64).max(next)];
        ahead.into_iter().filter(|position| *position <= last).all(|position| self.is_there(position, last))
            && self.spans(n).filter(|s| !s.sink && s.start < n).all(|span| self.is_there(span.start, last))
    }

    /// Whether a position was not yet overwritten when `last` was written.
    fn is_there(&self, position: u64, last: u64) -> bool {
        if self.every == 0 {
            return position + self.slots() as u64 > last;
        }
        let lane = self.lane(position / TILE_64);
        // The last tile of the same ring: `last`'s, or one before it.
        let mut tile = last / TILE_64;
        while self.lane(tile).first != lane.first && tile > 0 {
            tile -= 1;
        }
        lane.ordinal + lane.tiles as u64 > self.lane(tile).ordinal
    }
}

#[cfg(not(loom))]
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

    /// As [`any_ring`], with many parts.
    fn any_wide_ring() -> impl Strategy<Value = Ring> {
        let strided = (0usize..3000, 1usize..6000, 2usize..100, 1usize..40)
            .prop_map(|(s, w, every, kept)| Ring::strided(s, w, 0, every, kept).unwrap());
        prop_oneof![any_ring(), strided, (0usize..3000, 1usize..6000).prop_map(|(s, w)| Ring::new(s, w, 0).unwrap())]
    }

    /// What the token at `n` attends to, position by position, from the definition.
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
            // Shifted sinks directly precede the first of the others.
            let first = all.iter().find(|m| **m >= ring.sinks as u64);
            if let Some(first) = first {
                prop_assert_eq!(ring.sink_offset(n), first - ring.sinks as u64);
            }
        }

        /// Parts have all tiles in order, those whose absolute number says so and no others, and are no more than planned.
        #[test]
        fn parts_are_of_absolute_positions(ring in any_wide_ring(), n in 0u64..20_000) {
            let attended = ring.attended(n);
            let parts: Vec<Part<'_>> = attended.parts_from(0).collect();
            prop_assert!(parts.len() == attended.parts() && parts.len() <= ring.most_parts());
            for (i, part) in parts.iter().enumerate() {
                prop_assert!(attended.part(i).unwrap().tiles().eq(part.tiles()));
            }
            let mut all: Vec<u64> = naive(&ring, n).into_iter().map(|m| m / 32).collect();
            all.dedup();
            prop_assert_eq!(parts.iter().flat_map(Part::tiles).collect::<Vec<_>>(), all);
            let numbers: Vec<u64> = parts.iter().map(|part| part.tiles().next().unwrap() / 16).collect();
            for (part, number) in parts.iter().zip(&numbers) {
                prop_assert!(part.tiles().all(|tile| tile / 16 == *number) && part.leaf == number / 4);
            }
            prop_assert!(numbers.is_sorted_by(|a, b| a < b));
        }

        /// Positions written in order are all in their slots when attended to, through any number of wraps.
        #[test]
        fn no_slot_is_overwritten_while_it_is_attended_to(ring in any_ring(), n in 0u64..3000) {
            let mut slots = std::vec![u64::MAX; ring.slots()];
            for m in ring.sinks as u64..=n {
                slots[ring.slot(m)] = m;
            }
            for m in naive(&ring, n).into_iter().filter(|m| *m >= ring.sinks as u64) {
                prop_assert_eq!(slots[ring.slot(m)], m);
            }
            // And `holds` says how far a session can be rewound.
            for back in (0..=n.min(300)).step_by(7) {
                let before = naive(&ring, n - back).into_iter().filter(|m| *m < n - back);
                let mut there = before.chain(n - back..=n).filter(|m| *m >= ring.sinks as u64);
                let held = there.all(|m| slots[ring.slot(m)] == m);
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
    fn a_session_can_be_rewound_by_the_slack() {
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
