//! Q2K: 256 quants of 2 bits; a scale and a minimum of 4 bits each for every 16. `w = d·S·q − dmin·M`.

use super::BlockFormat;
use super::bits::{byte, f16_at};

pub(crate) struct Q2K;
impl BlockFormat for Q2K {
    type Block = [u8; 84];
    const LEN: usize = 256;

    fn weight(block: &[u8; 84], i: usize) -> f32 {
        let q = byte(block, 16 + 32 * (i / 128) + i % 32) >> (2 * (i % 128 / 32)) & 3;
        let scales = byte(block, i / 16);
        let (scale, min) = (f16_at(block, 80) * f32::from(scales & 15), f16_at(block, 82) * f32::from(scales >> 4));
        scale * f32::from(q) - min
    }
}
