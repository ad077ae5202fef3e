//! Nvfp4: four scales (UE4M3), then 4 × 16 numbers of 4 bits (E2M1), doubled; `w = s·F[q]`, times the tensor's own scale.

use super::BlockFormat;
use super::bits::{byte, level};
use super::mxfp4::LEVELS;

pub(crate) struct Nvfp4;
impl BlockFormat for Nvfp4 {
    type Block = [u8; 36];
    const LEN: usize = 64;

    fn weight(block: &[u8; 36], i: usize) -> f32 {
        let (part, l) = (i / 16, i % 16);
        let q = byte(block, 4 + 8 * part + l % 8) >> (4 * (l / 8)) & 15;
        scale(byte(block, part)) * f32::from(level(&LEVELS, q))
    }
}

/// Half of what UE4M3 means, because the levels are doubled; 0x7f, a NaN there, is zero, as in ggml.
pub(crate) fn scale(bits: u8) -> f32 {
    let (exponent, mantissa) = (bits >> 3 & 15, f32::from(bits & 7));
    match (bits, exponent) {
        (0 | 0x7f, _) => 0.0,
        (_, 0) => mantissa / 1024.0,
        // 2^(E − 11), a normal number.
        _ => (8.0 + mantissa) * f32::from_bits((u32::from(exponent) + 116) << 23),
    }
}
