//! Each algorithm once, over the operations of an [`Isa`](super::isa::Isa).

mod accumulators;
pub(super) mod activations;
pub(super) mod attention;
pub(super) mod cursor;
mod exp;
mod float;
pub(super) mod gemm;
mod gemv;
pub(super) mod gemv_f16;
mod gemv_quantised;
pub(super) mod matmul;
pub(super) mod norm;
