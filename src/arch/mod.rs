//! The only SIMD of the project: one table of kernels, chosen once, and behind it one instance of each algorithm for
//! every instruction set.
//!
//! ```text
//! generic/     each algorithm once, over the operations of `isa::Isa`; its few pointers are in `walk.rs` and `room.rs`
//! isa.rs       those operations; a value of an `Isa` type proves that the CPU has the instructions
//! pair.rs      two vectors of eight numbers, one register where the CPU has such wide ones
//! unroll.rs    loops and arrays that stay in registers
//! scalar.rs    Isa over plain arrays: runs anywhere, and is the one the others are compared with
//! aarch64/     Isa over NEON: alone, with the dot product, with the matrix multiplication of int8
//! x86_64/      Isa over AVX2 and AVX-512, so that development and honest comparison are possible on a PC
//! ```
//!
//! A row of quantised weights times a vector is, for every backend, the same sum in the same order: the 32 products of
//! a block are added exactly as integers, then each block is scaled and added to one `f32` per row, block after block.
//! So a result does not depend on how many rows or tokens a tile has, and decode and prefill agree to the bit. Float
//! weights have one order of sums for up to eight tokens and one for more, and `a·b + c` is rounded once everywhere: all
//! backends give the same bits, but those that compute a few tokens' products with binary16 weights in binary16. Int8 activations would otherwise not forgive a difference: one that rounds the other way changes a logit
//! by far more than the last bit that caused it.
//!
//! `unsafe` is allowed in this folder.

#![allow(unsafe_code)]

mod backend;
mod detect;
mod f32x16;
mod generic;
mod isa;
mod kernels;
mod scalar;
mod types;
mod unroll;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use backend::Backend;
pub use generic::activations::{Activations, QuantTile, Quants, QuantsMut};
pub use generic::attention::kv_format::{KvType, QueryBlock};
pub use generic::attention::online_softmax::SoftmaxState;
pub use generic::attention::{KvSpan, Queries};
pub use generic::job::Write;
pub use kernels::Kernels;
pub use types::F16Block;

#[cfg(test)]
mod tests;
