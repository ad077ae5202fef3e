//! Q2_0: d f16, then 64 quants of 2 bits, four neighbours in a byte; `w = d·(q − 1)`.

use super::BlockFormat;
use super::bits::{byte, f16_at};

pub(crate) struct Q2_0;
impl BlockFormat for Q2_0 {
    type Block = [u8; 18];
    const LEN: usize = 64;

    fn weight(block: &[u8; 18], i: usize) -> f32 {
        let q = byte(block, 2 + i / 4) >> (2 * (i % 4)) & 3;
        f32::from(q.cast_signed() - 1) * f16_at(block, 0)
    }
}
