//! Q4K: 256 nibbles; a scale and a minimum of 6 bits each for every 32. `w = d·S·q − dmin·M`.

use super::BlockFormat;
use super::bits::{byte, f16_at};

pub(crate) struct Q4K;
impl BlockFormat for Q4K {
    type Block = [u8; 144];
    const LEN: usize = 256;

    fn weight(block: &[u8; 144], i: usize) -> f32 {
        let q = byte(block, 16 + 32 * (i / 64) + i % 32) >> (4 * (i / 32 % 2)) & 15;
        let (scale, min) = scales(block, i / 32);
        scale * f32::from(q) - min
    }
}

/// d·S and dmin·M of sub-block `j`, of the eight in a block of Q4_K or Q5_K: d f16, dmin f16, then 12 bytes with the
/// low bits of S and M, of which the first four and the last four are arranged in different ways.
pub(super) fn scales(block: &[u8], j: usize) -> (f32, f32) {
    let at = |i: usize| byte(block, 4 + i);
    let (scale, min) = if j < 4 {
        (at(j) & 63, at(j + 4) & 63)
    } else {
        (at(j + 4) & 15 | at(j - 4) >> 6 << 4, at(j + 4) >> 4 | at(j) >> 6 << 4)
    };
    (f16_at(block, 0) * f32::from(scale), f16_at(block, 2) * f32::from(min))
}
