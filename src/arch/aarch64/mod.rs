//! 64-bit Arm: three sets of NEON instructions.
//!
//! ```text
//! tokens.rs       proof that the CPU has one of the sets; cpu.rs detects them
//! isa.rs          the operations of `Isa` and `FloatIsa`, for all tokens; panel.rs: those of `PanelIsa`
//! int8.rs         those of `UnitIsa` and `Int8Isa`, with bytes.rs
//! neon.rs         what differs on Armv8.0; dotprod.rs: with the dot product; i8mm.rs: with the int8 matrix multiplication
//! f16.rs, post_index.rs, widening.rs  instructions that have no stable intrinsic, or one that compiles to worse code
//! ```

mod bytes;
mod cpu;
pub(super) mod dotprod;
mod f16;
pub(super) mod i8mm;
mod int8;
mod isa;
pub(super) mod neon;
mod panel;
mod post_index;
mod registers;
mod tokens;
mod widening;
