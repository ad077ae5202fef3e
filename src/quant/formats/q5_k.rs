//! Q5K: as Q4_K, with a fifth bit of each quant. `w = d·S·q − dmin·M`.

use super::BlockFormat;
use super::bits::byte;
use super::q4_k::scales;

pub(crate) struct Q5K;
impl BlockFormat for Q5K {
    type Block = [u8; 176];
    const LEN: usize = 256;

    fn weight(block: &[u8; 176], i: usize) -> f32 {
        let low = byte(block, 48 + 32 * (i / 64) + i % 32) >> (4 * (i / 32 % 2)) & 15;
        let high = byte(block, 16 + i % 32) >> (i / 32) & 1;
        let (scale, min) = scales(block, i / 32);
        scale * f32::from(low | high << 4) - min
    }
}
