//! Levels to bytes.

use half::f16;

/// Parts of a block, one after another.
pub(super) fn join<const B: usize>(parts: &[&[u8]]) -> [u8; B] {
    debug_assert_eq!(parts.iter().map(|p| p.len()).sum::<usize>(), B);
    let mut out = [0; B];
    for (out, byte) in out.iter_mut().zip(parts.iter().copied().flatten()) {
        *out = *byte;
    }
    out
}

/// The bytes of the nearest f16.
pub(super) fn half(x: f32) -> [u8; 2] {
    f16::from_f32(x).to_le_bytes()
}

/// The value of the nearest f16.
pub(super) fn through_half(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// Level `i`; an index out of range is a mistake.
pub(super) fn level(levels: &[u8], i: usize) -> u8 {
    debug_assert!(i < levels.len());
    levels.get(i).copied().unwrap_or(0)
}

/// The low 4 bits of 32 levels: those of level i and i + 16 in byte i.
pub(super) fn nibbles(levels: &[u8]) -> [u8; 16] {
    core::array::from_fn(|i| level(levels, i) & 15 | level(levels, i + 16) << 4)
}

/// The fifth bits of 32 levels, the first in the least significant bit.
pub(super) fn fifth_bits(levels: &[u8]) -> [u8; 4] {
    levels.iter().enumerate().fold(0u32, |bits, (i, q)| bits | u32::from(q >> 4 & 1) << (i % 32)).to_le_bytes()
}

/// Two bits, from bit `shift`, of 256 levels: in byte 32·h + l those of levels 128·h + 32·g + l, for g < 4.
pub(super) fn pairs(levels: &[u8], shift: u32) -> [u8; 64] {
    core::array::from_fn(|i| {
        let first = i / 32 * 128 + i % 32;
        (0..4).fold(0, |byte, g| byte | (level(levels, first + 32 * g) >> shift & 3) << (2 * g))
    })
}

/// Bit `shift` of 256 levels: in byte l those of levels 32·j + l, for j < 8.
pub(super) fn bits(levels: &[u8], shift: u32) -> [u8; 32] {
    core::array::from_fn(|l| (0..8).fold(0, |byte, j| byte | (level(levels, 32 * j + l) >> shift & 1) << j))
}
