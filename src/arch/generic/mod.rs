//! Each algorithm once, over the operations of an [`Isa`](super::isa::Isa).

mod accumulators;
pub(super) mod activations;
pub(super) mod attention;
pub(super) mod cursor;
mod exp;
mod float;
mod gemm;
mod gemv;
pub(super) mod gemv_f16;
mod gemv_quantised;
pub(super) mod job;
pub(super) mod matmul;
pub(super) mod norm;
mod packed;
mod padded;
mod panel;
