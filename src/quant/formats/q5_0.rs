//! Q5_0: d f16, the fifth bits of 32 quants, their nibbles; `w = d·(q − 16)`.

use super::BlockFormat;
use super::bits::{bit, f16_at, nibble};

pub(crate) struct Q5_0;
impl BlockFormat for Q5_0 {
    type Block = [u8; 22];
    const LEN: usize = 32;

    fn weight(block: &[u8; 22], i: usize) -> f32 {
        let q = nibble(block, 6, i) | bit(block, 2, i) << 4;
        f16_at(block, 0) * (f32::from(q) - 16.0)
    }
}
