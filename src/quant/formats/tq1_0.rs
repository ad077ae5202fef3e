//! Tq1_0: 256 trits, five in a byte as the digits of a fraction; `w = d·(t − 1)`.

use super::BlockFormat;
use super::bits::{byte, f16_at};

pub(crate) struct Tq1_0;
impl BlockFormat for Tq1_0 {
    type Block = [u8; 54];
    const LEN: usize = 256;

    fn weight(block: &[u8; 54], i: usize) -> f32 {
        // Byte and digit: 32 bytes of five, 16 of five, 4 of four.
        let (at, digit) = match i {
            0..160 => (i % 32, i / 32),
            160..240 => (32 + i % 16, (i - 160) / 16),
            _ => (48 + i % 4, (i - 240) / 4),
        };
        f32::from(trit(byte(block, at), digit).cast_signed() - 1) * f16_at(block, 52)
    }
}

/// Digit `digit` of a byte: the byte is ⌈256·t/243⌉ of the trits as a number, so that shifts of base 3 wrap.
fn trit(byte: u8, digit: usize) -> u8 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let shifted = byte.wrapping_mul(POWERS.get(digit).copied().unwrap_or(1));
    ((u16::from(shifted) * 3) >> 8) as u8
}
