//! Random choices from a seed.

/// Numbers from a seed (SplitMix64).
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The choices for one file of a run.
    pub(crate) fn new(seed: u64, file: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ file);
        rng.number();
        rng
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`; 0 if that is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn of<'t, T>(&mut self, list: &'t [T]) -> &'t T {
        &list[self.below(list.len())]
    }

    /// A number at which sizes, counts and offsets go wrong.
    pub(crate) fn telling(&mut self) -> u64 {
        let bit = 1u64 << self.below(64);
        match self.below(9) {
            0 => 0,
            1 => u64::MAX,
            2 => bit,
            3 => bit - 1,
            4 => u64::MAX - self.number() % 40,
            5 => bit.wrapping_add(self.number() % 64),
            6 => u64::from(self.number() as u32),
            7 => self.number(),
            _ => self.number() % 300,
        }
    }
}
