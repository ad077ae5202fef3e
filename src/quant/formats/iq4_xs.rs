//! Iq4Xs: as IQ4_NL, in blocks of 256 with a scale of 6 bits for every 32; `w = d·S·T[q]`.

use super::BlockFormat;
use super::bits::{byte, f16_at, level, nibble};
use super::iq4_nl::LEVELS;

pub(crate) struct Iq4Xs;
impl BlockFormat for Iq4Xs {
    type Block = [u8; 136];
    const LEN: usize = 256;

    fn weight(block: &[u8; 136], i: usize) -> f32 {
        let j = i / 32;
        let high = u16::from_le_bytes([byte(block, 2), byte(block, 3)]) >> (2 * j) & 3;
        let scale = byte(block, 4 + j / 2) >> (4 * (j % 2)) & 15 | (high as u8) << 4;
        f16_at(block, 0)
            * f32::from(scale.cast_signed() - 32)
            * f32::from(level(&LEVELS, nibble(block, 8 + 16 * j, i % 32)))
    }
}
