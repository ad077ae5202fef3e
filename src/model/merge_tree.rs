//! The tree by which the parts of a token's attention are merged.
//!
//! Floats do not add up to the same in every order. So the order is a function of positions alone: of the numbers of the
//! tiles, counted from the first position of all, and not of where the cache keeps them, which of them are still there, how
//! the prompt was cut, or who summed them.
//!
//! ```text
//! position   0     2048    4096    6144    8192   10240 …
//! leaf         0   |   1   |   2   |   3   |   4   |        its parts one after another
//!              └─┬─┘       └─┬─┘               │
//!                └─────┬─────┘                 │            then neighbours: 0 with 1, 2 with 3, these two …
//!                      └───────────┬───────────┘
//! ```
//!
//! A part is up to 16 tiles that were summed together; a leaf is up to four parts, 2,048 positions. Leaf numbers are the
//! leaves of a binary tree that is *aligned*: two leaves meet in the node of the bits that their numbers have in common.
//! What was evicted is simply not there; a node with one child is its child. A subtree, so a block of 2^j leaves from a
//! multiple of 2^j on, has the same sum whoever adds it up: devices that hold some blocks each exchange the blocks' sums,
//! put them here in order of positions, and have the bits of one device. A sum for each device, of all its positions,
//! would have others; so would a tree over the leaves that are there, which shifts when one is evicted.
//!
//! Parts come in order of positions, so few sums wait: those of the subtrees to the left of the path to the last leaf.
//! Each is larger than the next, as the bits of a counter are. The next leaf parts from the last one at the highest bit in
//! which their numbers differ, and then all subtrees of lower bits are complete.

use crate::arch::SoftmaxState;
#[cfg(feature = "boards")]
use crate::storage::{LEAF, Ring};

/// Merges the parts of the attention of one row and KV head.
pub(crate) struct MergeTree<'s> {
    /// `(states, group · (head_dim + 2))`: first the sums that wait
    states: &'s mut [f32],
    /// Numbers of a state.
    len: usize,
    /// Query heads of the KV head.
    group: usize,
    /// How many sums wait, the last one that of leaf `leaf` and of what was merged with it.
    waiting: usize,
    leaf: u64,
    /// For each two neighbours that wait, the highest bit in which their leaves differ.
    forks: u64,
}

impl<'s> MergeTree<'s> {
    /// A tree of nothing yet. Parts are summed up in `states`, `(states, group · (head_dim + 2))`.
    pub(super) fn new(states: &'s mut [f32], len: usize, group: usize) -> Self {
        MergeTree { states, len, group, waiting: 0, leaf: 0, forks: 0 }
    }

    /// A tree of which some was added before, as [`progress`](MergeTree::progress) says, in the same `states`.
    #[cfg(feature = "boards")]
    pub(super) fn resume(states: &'s mut [f32], len: usize, group: usize, progress: [u64; 3]) -> Self {
        let [waiting, leaf, forks] = progress;
        MergeTree { states, len, group, waiting: waiting as usize, leaf, forks }
    }

    /// What was added so far; zeros for nothing.
    #[cfg(feature = "boards")]
    pub(super) fn progress(&self) -> [u64; 3] {
        [self.waiting as u64, self.leaf, self.forks]
    }

    /// The most states at once, of a token whose attention has so many parts: the sums that wait, and the next part.
    ///
    /// Of the sums that wait each has a part at least. Sinks, kept tiles and the window are a run of leaves each, evenly
    /// spaced. Subtrees that have leaves of one run alone get smaller by half at least, down to the spacing; few are
    /// smaller than that.
    pub(super) fn most_states(parts: usize) -> usize {
        parts.min(3 * (parts.max(1).ilog2() as usize + 1))
    }

    /// As [`most_states`](MergeTree::most_states), for any token of a ring: fewer where nothing is kept, so that sinks and the
    /// window are a run each without gaps. Of a run's own subtrees each is smaller than the one before, and one more waits where
    /// the run goes beyond a multiple of a large power of two.
    #[cfg(feature = "boards")]
    pub(crate) fn most_states_of(ring: &Ring) -> usize {
        let most = Self::most_states(ring.most_parts());
        if ring.is_strided() {
            return most;
        }
        let of_run = |positions: usize| match positions {
            0 => 0,
            // It may begin and end within leaves.
            _ => ((positions + LEAF - 2) / LEAF + 1).ilog2() as usize + 3,
        };
        most.min(of_run(ring.sinks) + of_run(ring.window) + 1)
    }

    /// An empty state behind those that wait, to sum the next part up in.
    pub(super) fn next(&mut self) -> SoftmaxState<'_> {
        debug_assert!((self.waiting + 1) * self.len <= self.states.len(), "{} states wait", self.waiting);
        let group = self.group;
        SoftmaxState::new(self.row(self.waiting), group)
    }

    /// Adds what was summed up in [`next`](MergeTree::next), of leaf `leaf`.
    pub(super) fn add_next(&mut self, leaf: u64) {
        self.add(leaf, self.waiting);
    }

    /// Adds a copy of what another has summed up: a whole subtree that begins at leaf `leaf`, or what there is of it.
    #[cfg(feature = "boards")]
    pub(super) fn add_copy(&mut self, leaf: u64, state: &[f32]) {
        let next = self.waiting;
        self.row(next).iter_mut().zip(state).for_each(|(to, from)| *to = *from);
        self.add(leaf, next);
    }

    /// The numbers of the sum of all that was added.
    #[cfg(feature = "boards")]
    pub(super) fn copy_root(&mut self, out: &mut [f32]) {
        self.merge_below(0);
        out.iter_mut().zip(self.row(0)).for_each(|(to, from)| *to = *from);
    }

    /// The numbers of state `i`.
    fn row(&mut self, i: usize) -> &mut [f32] {
        self.states.get_mut(i * self.len..).and_then(|rest| rest.get_mut(..self.len)).unwrap_or_default()
    }

    /// States `earlier` and `later`, which is behind it.
    fn pair(&mut self, earlier: usize, later: usize) -> [&mut [f32]; 2] {
        debug_assert!(earlier < later && (later + 1) * self.len <= self.states.len(), "{earlier}, {later}");
        let len = self.len;
        let (first, second) = self.states.split_at_mut_checked(later * len).unwrap_or_default();
        [first.get_mut(earlier * len..).unwrap_or_default(), second].map(|x| x.get_mut(..len).unwrap_or_default())
    }

    /// Adds state `i`, which is behind all that wait: a part of leaf `leaf`, or the sum of a whole subtree that begins there.
    /// All that was added is before it.
    #[inline(never)]
    pub(super) fn add(&mut self, leaf: u64, i: usize) {
        if self.waiting > 0 && leaf == self.leaf {
            self.merge(self.waiting - 1, i);
            return;
        }
        if self.waiting > 0 {
            let fork = 1 << (self.leaf ^ leaf).max(1).ilog2();
            self.merge_below(fork);
            self.forks |= fork;
        }
        if i > self.waiting {
            let [to, from] = self.pair(self.waiting, i);
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        (self.waiting, self.leaf) = (self.waiting + 1, leaf);
    }

    /// Merges those that wait and whose leaves differ in bits lower than `bit` alone: the last ones, from the last on.
    fn merge_below(&mut self, bit: u64) {
        let lower = bit.wrapping_sub(1);
        for _ in 0..(self.forks & lower).count_ones() {
            self.waiting -= 1;
            self.merge(self.waiting - 1, self.waiting);
        }
        self.forks &= !lower;
    }

    #[inline(never)]
    fn merge(&mut self, earlier: usize, later: usize) {
        let group = self.group;
        let [earlier, later] = self.pair(earlier, later);
        SoftmaxState::view(earlier, group).merge(&SoftmaxState::view(later, group));
    }

    /// The sum of all that was added.
    pub(super) fn root(&mut self) -> SoftmaxState<'_> {
        // As for a leaf that differs in a bit that there is not.
        self.merge_below(0);
        let group = self.group;
        SoftmaxState::view(self.row(0), group)
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(not(feature = "boards"))]
    use crate::storage::Ring;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    /// Two heads of two numbers.
    const GROUP: usize = 2;
    const LEN: usize = GROUP * 4;

    type State = [f32; LEN];

    /// A state that is like no other: outputs, maxima, sums.
    fn state(seed: u64) -> State {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            x = x ^ x << 13 ^ (x ^ x << 13) >> 7;
            x ^= x << 17;
            (x >> 40) as f32 / (1 << 24) as f32
        };
        let [mut out, mut max, mut sum] = [(); 3].map(|()| [0.0; 4]);
        out.iter_mut().for_each(|o| *o = next() * 100.0 - 50.0);
        max.iter_mut().for_each(|m| *m = next() * 8.0);
        sum.iter_mut().for_each(|s| *s = next() * 200.0 + 1.0);
        [out[0], out[1], out[2], out[3], max[0], max[1], sum[0], sum[1]]
    }

    fn merged(mut a: State, mut b: State) -> State {
        SoftmaxState::view(&mut a, GROUP).merge(&SoftmaxState::view(&mut b, GROUP));
        a
    }

    fn bits(mut state: State) -> Vec<u32> {
        let mut out = [0.0; GROUP * 2];
        SoftmaxState::view(&mut state, GROUP).finish(&mut out);
        out.iter().map(|x| x.to_bits()).collect()
    }

    /// Parts by leaf, from the definition: leaves `leaves`, a power of two of them from a multiple of it on.
    fn naive(parts: &BTreeMap<u64, Vec<State>>, first: u64, leaves: u64) -> Option<State> {
        parts.range(first..first + leaves).next()?;
        if leaves == 1 {
            return parts[&first].iter().copied().reduce(merged);
        }
        match (naive(parts, first, leaves / 2), naive(parts, first + leaves / 2, leaves / 2)) {
            (Some(a), Some(b)) => Some(merged(a, b)),
            (a, b) => a.or(b),
        }
    }

    /// The sum of states with their leaves, in order, with as many states as are planned.
    fn tree(parts: &[(u64, State)]) -> State {
        let mut memory = vec![f32::NAN; MergeTree::most_states(parts.len()) * LEN];
        let mut tree = MergeTree::new(&mut memory, LEN, GROUP);
        for (leaf, mut part) in parts.iter().copied() {
            tree.next().merge(&SoftmaxState::view(&mut part, GROUP));
            tree.add_next(leaf);
        }
        tree.root();
        *memory.first_chunk().unwrap()
    }

    /// The same with all states in memory at once.
    fn tree_of_rows(parts: &[(u64, State)]) -> State {
        let mut memory: Vec<f32> = parts.iter().flat_map(|(_, state)| *state).collect();
        let mut tree = MergeTree::new(&mut memory, LEN, GROUP);
        parts.iter().enumerate().for_each(|(i, (leaf, _))| tree.add(*leaf, i));
        tree.root();
        *memory.first_chunk().unwrap()
    }

    /// Leaves that a token may have: of sinks, kept tiles and a window, one to four parts each.
    fn any_parts() -> impl Strategy<Value = Vec<(u64, State)>> {
        let runs = (0u64..5, 0u64..12, 1u64..40, 0u64..200, 1u64..40);
        (runs, 0u64..4, any::<u32>()).prop_map(|((sinks, kept, every, start, window), most, seed)| {
            let start = sinks + kept * every + start;
            let leaves = (0..sinks).chain((0..kept).map(|i| start - (kept - i) * every)).chain(start..start + window);
            let parts = leaves.flat_map(|leaf| (0..=(leaf + most) % 4).map(move |i| (leaf, i)));
            parts.map(|(leaf, i)| (leaf, state(u64::from(seed) << 32 | leaf << 3 | i))).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_is_the_tree_of_the_definition_in_the_states_that_are_planned(parts in any_parts()) {
            let mut by_leaf = BTreeMap::<u64, Vec<State>>::new();
            parts.iter().for_each(|(leaf, state)| by_leaf.entry(*leaf).or_default().push(*state));
            let expected = bits(naive(&by_leaf, 0, 1 << 20).unwrap());
            prop_assert_eq!(bits(tree(&parts)), expected.clone());
            prop_assert_eq!(bits(tree_of_rows(&parts)), expected);
        }

        /// Boards that have every `boards`-th block of 2^j leaves send a sum for each block.
        #[test]
        fn blocks_of_leaves_have_the_same_bits_on_any_number_of_boards(parts in any_parts(), boards in 1u64..9, j in 0u32..5) {
            let mut sent = Vec::new();
            for board in 0..boards {
                let mut blocks = BTreeMap::<u64, Vec<(u64, State)>>::new();
                let own = parts.iter().filter(|(leaf, _)| (leaf >> j) % boards == board);
                own.for_each(|(leaf, state)| blocks.entry(leaf >> j).or_default().push((*leaf, *state)));
                sent.extend(blocks.iter().map(|(block, parts)| (block << j, tree(parts))));
            }
            sent.sort_by_key(|(leaf, _)| *leaf);
            prop_assert_eq!(bits(tree(&sent)), bits(tree(&parts)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// Whatever a token attends to: the plan has so many states for its parts.
        #[test]
        fn the_states_that_are_planned_are_enough(
            sinks in prop_oneof![0usize..5, 0usize..20_000], window in 1usize..60_000, every in 2usize..400,
            kept in 0usize..300, n in 0u64..4_000_000,
        ) {
            let ring = if kept == 0 { Ring::new(sinks, window, 0) } else { Ring::strided(sinks, window, 0, every, kept) };
            let ring = ring.unwrap();
            let leaves: Vec<u64> = ring.attended(n).parts_from(0).map(|part| part.leaf).collect();
            prop_assert!(leaves.len() <= ring.most_parts());
            let planned = MergeTree::most_states(leaves.len());
            #[cfg(feature = "boards")]
            let planned = planned.min(MergeTree::most_states_of(&ring));
            let mut memory = vec![0.0; planned * LEN];
            let mut tree = MergeTree::new(&mut memory, LEN, GROUP);
            for leaf in leaves {
                prop_assert!(tree.waiting < planned, "{} wait, {planned} are planned", tree.waiting);
                tree.next();
                tree.add_next(leaf);
            }
        }
    }

    /// The obvious ways to share positions add up in another order: a sum for each board; a tree over what is there, which
    /// eviction shifts; parts counted by slots of the ring.
    #[test]
    fn other_orders_have_other_bits() {
        let parts: Vec<_> = (3..20).map(|leaf| (leaf, state(leaf))).collect();
        let right = bits(tree(&parts));
        let of = |board: u64| parts.iter().filter(move |(leaf, _)| leaf % 3 == board).map(|(_, state)| *state);
        let boards = (0..3).filter_map(|board| of(board).reduce(merged)).reduce(merged).unwrap();
        let shifted: Vec<_> = parts.iter().enumerate().map(|(i, (_, state))| (i as u64, *state)).collect();
        let mut slots = parts.clone();
        slots.rotate_left(6);
        let in_order = parts.iter().map(|(_, state)| *state).reduce(merged).unwrap();
        let by_slot: Vec<_> = (0..).zip(slots).map(|(i, (_, state))| (i, state)).collect();
        for wrong in [boards, tree(&shifted), tree(&by_slot), in_order] {
            assert_ne!(bits(wrong), right);
        }
    }
}
