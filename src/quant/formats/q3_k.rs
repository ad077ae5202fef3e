//! Q3K: 256 quants of 3 bits, of which the third is apart and inverted; a scale of 6 bits for every 16. `w = d·S·q`.

use super::BlockFormat;
use super::bits::{byte, f16_at};

pub(crate) struct Q3K;
impl BlockFormat for Q3K {
    type Block = [u8; 110];
    const LEN: usize = 256;

    fn weight(block: &[u8; 110], i: usize) -> f32 {
        let low = byte(block, 32 + 32 * (i / 128) + i % 32) >> (2 * (i % 128 / 32)) & 3;
        let high = byte(block, i % 32) >> (i / 32) & 1;
        f16_at(block, 108) * f32::from(scale(block, i / 16)) * f32::from((low | high << 2).cast_signed() - 4)
    }
}

/// Scale `k` of 16: four bits from one place, two from another, and −32.
fn scale(block: &[u8; 110], k: usize) -> i8 {
    let low = if k < 8 { byte(block, 96 + k) & 15 } else { byte(block, 88 + k) >> 4 };
    let high = byte(block, 104 + k % 4) >> (2 * (k / 4)) & 3;
    (low | high << 4).cast_signed() - 32
}
