//! Arm, 64 bits.

mod cpu;
pub(super) mod dotprod;
mod halves;
mod high;
pub(super) mod i8mm;
pub(super) mod neon;
mod next;
