//! Blocks of positions that several devices keep by turns, and the slots of those that one of them keeps.
//!
//! ```text
//! tile     0 … T-1 | T … 2T-1 | 2T … 3T-1 | 3T … 4T-1 | …      T: 64 · 2^j tiles, so whole subtrees of attention's tree
//! block       0    |    1     |     2     |     3     |
//! device      0    |    1     |     2     |     0     |        of three
//! ordinal  0 … T-1 | 0 … T-1  |  0 … T-1  | T … 2T-1  |        of a tile among those of its device
//! ```
//!
//! A [`Ring`] says what a token attends to, and what is still there; that is the same on every device. Its slots are those of
//! one device that keeps all. Here are those of one that keeps some: as many as it can have at the same time.

use super::TILE;
use super::ring::{Ring, TILES_PER_LEAF};

/// The blocks of one of several devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Which of them.
    pub(crate) rank: usize,
    /// How many there are.
    pub(crate) size: usize,
    /// Leaves of a block; a power of two.
    pub(crate) leaves: usize,
}

impl Blocks {
    /// Tiles of a block.
    fn tiles(&self) -> u64 {
        (self.leaves as u64).saturating_mul(TILES_PER_LEAF).max(1)
    }

    fn size(&self) -> u64 {
        self.size.max(1) as u64
    }

    /// The block of a leaf.
    pub(crate) fn of_leaf(&self, leaf: u64) -> u64 {
        leaf / self.leaves.max(1) as u64
    }

    /// The device that has a block.
    pub(crate) fn owner(&self, block: u64) -> usize {
        (block % self.size()) as usize
    }

    /// The block of a position.
    pub(crate) fn of_position(&self, position: u64) -> u64 {
        position / TILE as u64 / self.tiles()
    }

    /// Whether a position is this device's.
    pub(crate) fn has(&self, position: u64) -> bool {
        self.owner(self.of_position(position)) == self.rank
    }

    /// The most blocks of one device in a run of `tiles` tiles.
    fn most_blocks(&self, tiles: usize) -> usize {
        match tiles as u64 {
            0 => 0,
            tiles => ((tiles + self.tiles() - 2) / self.tiles().saturating_mul(self.size()) + 1) as usize,
        }
    }

    /// The most tiles of one device in a run of `tiles` tiles.
    fn most_tiles(&self, tiles: usize) -> usize {
        let round = self.tiles().saturating_mul(self.size());
        let (rounds, rest) = (tiles as u64 / round, tiles as u64 % round);
        (rounds * self.tiles() + rest.min(self.tiles())) as usize
    }

    /// The most blocks of one device that a token attends to.
    pub(crate) fn most_attended(&self, ring: &Ring) -> usize {
        let kept = ring.kept.saturating_mul(ring.every);
        // The window's first position may be the last of a tile.
        let runs = [ring.sinks.div_ceil(TILE), kept, ring.window.div_ceil(TILE) + 1];
        runs.into_iter().map(|tiles| self.most_blocks(tiles)).sum()
    }

    /// Tiles of slots of a device: for those that will not be kept, and for those that will.
    fn lanes(&self, ring: &Ring) -> [usize; 2] {
        match ring.every {
            0 => [self.most_tiles(ring.recent_tiles), 0],
            // Tiles between which others are kept are a longer run.
            every => {
                let run = ring.recent_tiles.saturating_mul(every) / (every - 1).max(1) + 1;
                let kept = self.most_blocks(ring.kept_tiles.saturating_mul(every)) * self.kept_tiles(every) as usize;
                [self.most_tiles(run), kept]
            }
        }
    }

    /// The most kept tiles of a block.
    fn kept_tiles(&self, every: usize) -> u64 {
        self.tiles().div_ceil(every.max(1) as u64)
    }

    /// Slots of a device, in which the sinks are not.
    pub(crate) fn slots(&self, ring: &Ring) -> usize {
        let [recent, kept] = self.lanes(ring);
        (recent + kept) * TILE
    }

    /// The slot of a position that this device has and that is no sink.
    pub(crate) fn slot(&self, ring: &Ring, position: u64) -> usize {
        let (tile, within) = (position / TILE as u64, (position % TILE as u64) as usize);
        let block = tile / self.tiles();
        let (round, index) = (block / self.size(), tile % self.tiles());
        let [recent, kept] = self.lanes(ring);
        let (ordinal, lane, first) = match ring.every as u64 {
            every if every > 0 && tile.is_multiple_of(every) => {
                let before = (block * self.tiles()).div_ceil(every);
                (round * self.kept_tiles(ring.every) + tile / every - before, kept, recent)
            }
            _ => (round * self.tiles() + index, recent, 0),
        };
        (first + (ordinal % lane.max(1) as u64) as usize) * TILE + within
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    fn any_ring() -> impl Strategy<Value = Ring> {
        let plain =
            (0usize..200, 1usize..30_000, 0usize..300).prop_map(|(s, w, slack)| Ring::new(s, w, slack).unwrap());
        let strided = (0usize..200, 1usize..9000, 0usize..100, 2usize..90, 1usize..60)
            .prop_map(|(s, w, slack, every, kept)| Ring::strided(s, w, slack, every, kept).unwrap());
        prop_oneof![plain, strided]
    }

    proptest! {
        /// What a token attends to is in the slots of its devices, whatever was written before it and up to the end of its pass.
        #[test]
        fn no_slot_is_overwritten_while_it_is_attended_to(
            ring in any_ring(), size in 1usize..6, leaves in 0u32..3, n in 0u64..200_000,
        ) {
            let mut devices: Vec<BTreeMap<usize, u64>> = std::vec![BTreeMap::new(); size];
            let of = |rank| Blocks { rank, size, leaves: 1 << leaves };
            // Of a tile the positions with which what is attended to may begin or end; those that no ring would still hold were
            // written before.
            let reach = (ring.window + 64 + ring.kept_tiles.max(1) * ring.every.max(1) * TILE) as u64 * 2;
            let from = (n.saturating_sub(reach) / TILE as u64) * TILE as u64;
            let start = (n + 1).saturating_sub(ring.window as u64);
            let edges = [0, TILE as u64 - 1, start % TILE as u64, n % TILE as u64, (ring.sinks % TILE) as u64];
            let is_edge = |position: &u64| edges.contains(&(position % TILE as u64));
            for position in (from.max(ring.sinks as u64)..=n).filter(is_edge) {
                let owners: Vec<usize> = (0..size).filter(|rank| of(*rank).has(position)).collect();
                prop_assert_eq!(owners.len(), 1);
                let slot = of(owners[0]).slot(&ring, position);
                prop_assert!(slot < of(owners[0]).slots(&ring));
                devices[owners[0]].insert(slot, position);
            }
            let attended = ring.attended(n);
            let tiles = attended.parts_from(0).flat_map(|part| part.tiles().collect::<Vec<_>>());
            let spans = tiles.flat_map(|tile| ring.tile(n, tile)).filter(|span| !span.sink && span.start >= from);
            for position in spans.flat_map(|span| [span.start, span.start + span.len as u64 - 1]) {
                let owner = (0..size).find(|rank| of(*rank).has(position)).unwrap();
                prop_assert_eq!(devices[owner].get(&of(owner).slot(&ring, position)), Some(&position));
            }
            // And there are few of them.
            if ring.every == 0 {
                prop_assert!(of(0).slots(&ring) <= ring.slots() / size + ((TILE * 64) << leaves) + TILE);
            }
            for rank in 0..size {
                let mut blocks: Vec<u64> = attended.parts_from(0).map(|part| of(0).of_leaf(part.leaf)).collect();
                blocks.dedup();
                let own = blocks.iter().filter(|block| of(0).owner(**block) == rank).count();
                prop_assert!(own <= of(rank).most_attended(&ring));
            }
        }
    }
}
