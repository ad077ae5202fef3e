//! Q5_1: d f16, m f16, the fifth bits of 32 quants, their nibbles; `w = d·q + m`.

use super::BlockFormat;
use super::bits::{bit, f16_at, nibble};

pub(crate) struct Q5_1;
impl BlockFormat for Q5_1 {
    type Block = [u8; 24];
    const LEN: usize = 32;

    fn weight(block: &[u8; 24], i: usize) -> f32 {
        let q = nibble(block, 8, i) | bit(block, 4, i) << 4;
        f16_at(block, 0) * f32::from(q) + f16_at(block, 2)
    }
}
