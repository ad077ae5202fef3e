//! Tq2_0: 256 trits of 2 bits, then d f16; `w = d·(q − 1)`.

use super::BlockFormat;
use super::bits::{byte, f16_at};

pub(crate) struct Tq2_0;
impl BlockFormat for Tq2_0 {
    type Block = [u8; 66];
    const LEN: usize = 256;

    fn weight(block: &[u8; 66], i: usize) -> f32 {
        let q = byte(block, 32 * (i / 128) + i % 32) >> (2 * (i % 128 / 32)) & 3;
        f32::from(q.cast_signed() - 1) * f16_at(block, 64)
    }
}
