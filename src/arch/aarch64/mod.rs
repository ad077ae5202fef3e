//! Arm, 64 bits.

pub(super) mod dotprod;
pub(super) mod i8mm;
pub(super) mod neon;
mod next;
