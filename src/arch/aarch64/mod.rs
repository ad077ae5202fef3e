//! Arm, 64 bits.

mod cpu;
pub(super) mod dotprod;
mod f16;
pub(super) mod i8mm;
mod isa;
pub(super) mod neon;
mod panel;
mod post_index;
mod registers;
mod smull2;
mod tokens;
