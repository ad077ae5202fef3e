//! Mxfp4: OCP microscaling: an exponent, then 32 numbers of 4 bits (E2M1), doubled; `w = 2^(e − 128)·F[q]`.

use super::BlockFormat;
use super::bits::{level, nibble};

pub(crate) struct Mxfp4;
impl BlockFormat for Mxfp4 {
    type Block = [u8; 17];
    const LEN: usize = 32;

    fn weight(block: &[u8; 17], i: usize) -> f32 {
        scale(block[0]) * f32::from(level(&LEVELS, nibble(block, 1, i)))
    }
}

/// Twice the numbers of E2M1.
pub(crate) const LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 2^(e − 128), half of what E8M0 means, because the levels are doubled; subnormal for 0 and 1.
pub(crate) fn scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}
