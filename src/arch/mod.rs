//! All SIMD code: one table of kernels, chosen once at start, and behind it an instance of each algorithm for every
//! instruction set.
//!
//! ```text
//! backend.rs   the instruction sets, by name
//! kernels.rs   the table of one backend's kernels: all that other modules call
//! detect.rs    which backend this CPU gets
//! generic/     each algorithm once, over the operations of an instruction set: GEMV, GEMM, attention, element-wise
//! formats/     how a block of each format becomes int8 quants and scales
//! isa/         those operations; a value of an `Isa` type proves that the CPU has the instructions
//! types.rs     blocks of weights and activations, as both sides see them
//! f32x16.rs    two vectors of eight `f32`, one register where the CPU has registers of 64 bytes
//! unroll.rs    loops and arrays that stay in registers
//! scalar.rs    Isa over plain arrays: runs on any CPU, and is the reference for the others
//! aarch64/     Isa over NEON: Armv8.0, with the dot product, with the int8 matrix product
//! x86_64/      Isa over AVX2 and AVX-512, for development and comparison on a PC
//! ```
//!
//! A row of quantised weights times a vector is, for every backend, the same sum in the same order: the 32 products of
//! a block are added exactly as integers, then each block is scaled and added to one `f32` per row, block after block.
//! So a result does not depend on how many rows or tokens a tile has, and decode and prefill agree to the bit. Float
//! weights have one order of sums for up to eight tokens and another for more. `a·b + c` is rounded once everywhere. All
//! backends therefore give the same bits, except those that multiply binary16 weights in binary16 for a few tokens. This
//! matters because activations are quantised to int8: a last bit that rounds the other way there changes a logit by far
//! more than that bit.
//!
//! `unsafe` is allowed in this folder.

#![allow(unsafe_code)]

mod backend;
mod detect;
mod f32x16;
mod formats;
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
pub use generic::attention::{GroupQueries, KvSpan, Queries};
pub use generic::job::Write;
pub use generic::norm::Activation;
pub use kernels::Kernels;
pub use types::F16Block;

#[cfg(test)]
mod tests;
