//! Offsets of quants: what is subtracted from each, for all columns of a block together.

/// −offset·Σq, for `bias` = −8·Σq and an offset of 1, 8 or 16.
#[inline(always)]
pub(super) fn bias(bias: i32, offset: i32) -> i32 {
    match offset {
        0 => 0,
        1 => bias >> 3,
        8 => bias,
        _ => bias << 1,
    }
}
