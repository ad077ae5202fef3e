//! Q4_1: d f16, m f16, then 32 nibbles; `w = d·q + m`.

use super::BlockFormat;
use super::bits::{f16_at, nibble};

pub(crate) struct Q4_1;
impl BlockFormat for Q4_1 {
    type Block = [u8; 20];
    const LEN: usize = 32;

    fn weight(block: &[u8; 20], i: usize) -> f32 {
        f16_at(block, 0) * f32::from(nibble(block, 4, i)) + f16_at(block, 2)
    }
}
