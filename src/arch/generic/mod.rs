//! Each algorithm once, over the operations of an [`Isa`](super::isa::Isa).

pub(super) mod activations;
pub(super) mod attention;
mod exp;
mod float;
pub(super) mod halves;
mod in_place;
mod keys;
pub(super) mod matmul;
pub(super) mod norm;
pub(super) mod panel;
pub(super) mod partial;
mod room;
mod rows;
pub(super) mod stored;
mod values;
pub(super) mod walk;
