//! Pieces of a KV cache that several devices have, as they go from one to the next: what the tokens of a pass attend to of the
//! positions before it, a part of attention at a time.
//!
//! ```text
//! part     0 … 511         | 512 … 1023  | …    of positions
//! tiles    0 1 ■ 3 … ■ …   | ■ ■ ■ ■ …   |      those that a token of the pass attends to
//! piece    ■ ■             | ■ ■ ■ ■ …   |      their slots, one after another
//! ```

use super::TILE;
use super::ring::{Ring, TILES_PER_LEAF, TILES_PER_PART};

/// The tiles of a part that were read before a pass, at least in part, and that tokens of the pass attend to. Sinks are not
/// among them: all devices have those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Number of the part, from the first position of all on.
    pub(crate) part: u64,
    /// Which of its tiles, the first one the lowest bit.
    tiles: u16,
}

impl Piece {
    /// Slots of the largest.
    pub(crate) const MAX_SLOTS: usize = TILES_PER_PART as usize * TILE;

    /// Number of its leaf.
    pub(crate) fn leaf(&self) -> u64 {
        self.part / (TILES_PER_LEAF / TILES_PER_PART)
    }

    /// The numbers of its tiles.
    pub(crate) fn tiles(&self) -> impl Iterator<Item = u64> {
        let (first, tiles) = (self.part * TILES_PER_PART, self.tiles);
        (0..TILES_PER_PART).filter(move |i| tiles >> i & 1 > 0).map(move |i| first + i)
    }

    /// Positions that it has room for.
    pub(crate) fn slots(&self) -> usize {
        self.tiles.count_ones() as usize * TILE
    }

    /// The slot of a position in one of its tiles.
    pub(crate) fn slot(&self, position: u64) -> usize {
        let before = self.tiles & ((1 << (position / TILE as u64 % TILES_PER_PART)) - 1);
        before.count_ones() as usize * TILE + (position % TILE as u64) as usize
    }
}

impl Ring {
    /// What of each part the tokens of a pass of `tokens` tokens from position `start` on attend to that was read before, in order
    /// of positions: all parts that any of them attends to, some of which have nothing old.
    ///
    /// The first token attends to all of it: what is in a later one's window or kept for it is in the first one's window or
    /// kept for that, or new.
    pub(crate) fn pieces(&self, start: u64, tokens: usize) -> impl Iterator<Item = Piece> + use<> {
        let (ring, attended) = (*self, self.attended(start));
        let of_first = (0..).map_while(move |i| {
            let part = attended.part(i)?;
            let is_old = |tile: &u64| ring.tile(start, *tile).any(|span| !span.sink && span.start < start);
            let tiles = part.tiles().filter(is_old).fold(0, |tiles, tile| tiles | 1 << (tile % TILES_PER_PART));
            Some(Piece { part: part.number(), tiles })
        });
        let part = |position: u64| position / (TILES_PER_PART * TILE as u64);
        let last = part((start + tokens as u64).saturating_sub(1));
        of_first.chain((part(start) + 1..=last).map(|part| Piece { part, tiles: 0 }))
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn any_ring() -> impl Strategy<Value = Ring> {
        let plain = (0usize..1500, 1usize..3000).prop_map(|(s, w)| Ring::new(s, w, 0).unwrap());
        let strided = (0usize..1500, 1usize..3000, 2usize..40, 1usize..20)
            .prop_map(|(s, w, every, kept)| Ring::strided(s, w, 0, every, kept).unwrap());
        prop_oneof![plain, strided]
    }

    proptest! {
        /// What each token attends to is in its part's piece, unless it is a sink or new; pieces come in order, and have no tile of
        /// which nothing is attended to.
        #[test]
        fn pieces_have_what_is_attended_to(ring in any_ring(), start in 0u64..20_000, tokens in 1usize..700) {
            let pieces: Vec<Piece> = ring.pieces(start, tokens).collect();
            prop_assert!(pieces.is_sorted_by(|a, b| a.part < b.part));
            let mut used: Vec<u16> = pieces.iter().map(|_| 0).collect();
            for n in start..start + tokens as u64 {
                let attended = ring.attended(n);
                for part in attended.parts_from(0) {
                    let i = pieces.iter().position(|piece| piece.part == part.number()).unwrap();
                    for tile in part.tiles().filter(|tile| ring.tile(n, *tile).any(|s| !s.sink && s.start < start)) {
                        let place = pieces[i].tiles().position(|t| t == tile).unwrap();
                        prop_assert_eq!(pieces[i].slot(tile * 32 + 5), place * 32 + 5);
                        prop_assert!((place + 1) * 32 <= pieces[i].slots());
                        used[i] |= 1 << (tile % 16);
                    }
                }
            }
            prop_assert_eq!(pieces.iter().map(|piece| piece.tiles).collect::<Vec<_>>(), used);
        }
    }
}
