//! Q6K: 256 quants of 6 bits, four and two apart; an int8 scale for every 16. `w = d·S·(q − 32)`.

use super::BlockFormat;
use super::bits::{byte, f16_at};

pub(crate) struct Q6K;
impl BlockFormat for Q6K {
    type Block = [u8; 210];
    const LEN: usize = 256;

    fn weight(block: &[u8; 210], i: usize) -> f32 {
        let (half, group, l) = (i / 128, i % 128 / 32, i % 32);
        let low = byte(block, 64 * half + 32 * (group % 2) + l) >> (4 * (group / 2)) & 15;
        let high = byte(block, 128 + 32 * half + l) >> (2 * group) & 3;
        let scale = f32::from(byte(block, 192 + i / 16).cast_signed());
        f16_at(block, 208) * scale * f32::from((low | high << 4).cast_signed() - 32)
    }
}
