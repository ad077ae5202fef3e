//! Fields of a block. Indices are within it: an accessor cannot fail.

use half::f16;

/// Byte `i`.
pub(super) fn byte(block: &[u8], i: usize) -> u8 {
    debug_assert!(i < block.len());
    block.get(i).copied().unwrap_or(0)
}

/// The f16 at byte `at`.
pub(super) fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([byte(block, at), byte(block, at + 1)]).to_f32()
}

/// Nibble `i` of 32 that begin at byte `at`: the low ones of 16 bytes, then their high ones.
pub(super) fn nibble(block: &[u8], at: usize, i: usize) -> u8 {
    byte(block, at + i % 16) >> (4 * (i / 16)) & 15
}

/// Bit `i` of those that begin at byte `at`, the least significant first.
pub(super) fn bit(block: &[u8], at: usize, i: usize) -> u8 {
    byte(block, at + i / 8) >> (i % 8) & 1
}

/// Entry `q` of a table.
pub(super) fn level(levels: &[i8; 16], q: u8) -> i8 {
    levels[usize::from(q & 15)]
}
