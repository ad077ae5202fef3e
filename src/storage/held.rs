//! Which position a slot has: the way back from the slots of a [`Ring`], for who keeps positions elsewhere.

use super::TILE;
use super::ring::Ring;

impl Ring {
    /// The position whose keys and values are in a slot when `written` positions were written: the last that the slot is for.
    /// `None` if there is none.
    pub(crate) fn held(&self, slot: usize, written: u64) -> Option<u64> {
        let (tile, within) = (slot / TILE, (slot % TILE) as u64);
        // Of this place within a tile.
        let newest = written.checked_sub(1 + within)? / TILE as u64;
        let is_kept = tile >= self.recent_tiles;
        let (index, tiles) =
            if is_kept { (tile - self.recent_tiles, self.kept_tiles) } else { (tile, self.recent_tiles) };
        let every = self.every as u64;
        // The newest tile of the slot's lane, among those of the lane.
        let last = match every {
            0 => newest,
            _ if is_kept => newest / every,
            _ => (newest - newest / every).checked_sub(1)?,
        };
        let tiles = tiles.max(1) as u64;
        let ordinal = last.checked_sub((last % tiles + tiles - index as u64) % tiles)?;
        let tile = match every {
            0 => ordinal,
            _ if is_kept => ordinal * every,
            _ => ordinal + ordinal / (every - 1) + 1,
        };
        Some(tile * TILE as u64 + within).filter(|position| *position >= self.sinks as u64)
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Blocks;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::vec::Vec;

    fn any_ring() -> impl Strategy<Value = Ring> {
        let plain = |window, sinks| (0usize..sinks, 1usize..window, 0usize..100);
        let plain = prop_oneof![plain(100, 200), plain(9000, 40)];
        let plain = plain.prop_map(|(s, w, slack)| Ring::new(s, w, slack).unwrap());
        let strided = (0usize..100, 1usize..5000, 0usize..100, 2usize..80, 1usize..20)
            .prop_map(|(s, w, slack, every, kept)| Ring::strided(s, w, slack, every, kept).unwrap());
        let small = (0usize..100, 1usize..100, 0usize..100, 2usize..5, 1usize..4)
            .prop_map(|(s, w, slack, every, kept)| Ring::strided(s, w, slack, every, kept).unwrap());
        prop_oneof![plain, strided, small]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// A session that reads, and goes back as far as it may: each slot of a ring has the position that is said of it, as it
        /// was written last, and so has the device of several that has this position.
        #[test]
        fn a_slot_has_what_is_said(
            ring in any_ring(), size in 1usize..6, leaves in 0u32..2,
            steps in prop::collection::vec((1u64..4000, prop_oneof![0u64..200, 0u64..9000]), 1..6),
        ) {
            let devices: Vec<Blocks> = (0..size).map(|rank| Blocks { rank, size, leaves: 1 << leaves }).collect();
            // Of each slot the position, and in which step it was written.
            let mut slots = std::vec![None; ring.slots()];
            let mut others: Vec<HashMap<usize, (u64, usize)>> = std::vec![HashMap::new(); size];
            let (mut position, mut written) = (0, 0u64);
            for (step, (read, back)) in steps.into_iter().enumerate() {
                for m in (position..position + read).filter(|m| *m >= ring.sinks as u64) {
                    slots[ring.slot(m)] = Some((m, step));
                    let (device, slots) = devices.iter().zip(&mut others).find(|(device, _)| device.has(m)).unwrap();
                    slots.insert(device.slot(&ring, m), (m, step));
                }
                position += read;
                written = written.max(position);
                for (slot, has) in slots.iter().enumerate() {
                    let held = ring.held(slot, written);
                    prop_assert_eq!(held, has.map(|(m, _)| m), "slot {} of {}", slot, written);
                    let Some(m) = held else { continue };
                    let (device, slots) = devices.iter().zip(&others).find(|(device, _)| device.has(m)).unwrap();
                    prop_assert_eq!(slots.get(&device.slot(&ring, m)), has.as_ref());
                }
                if ring.holds(position.saturating_sub(back), written) {
                    position = position.saturating_sub(back);
                }
            }
        }
    }
}
