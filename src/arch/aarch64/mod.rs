//! Arm, 64 bits.

mod cpu;
pub(super) mod dotprod;
mod halves;
pub(super) mod i8mm;
pub(super) mod neon;
mod next;
