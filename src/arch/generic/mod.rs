//! Each algorithm once, in safe code over [`Isa`](super::isa::Isa).

pub(super) mod activations;
pub(super) mod attention;
pub(super) mod exp;
pub(super) mod matmul;
pub(super) mod norm;
