//! Each algorithm once, over the operations of an [`Isa`](super::isa::Isa).

/// A loop of at most eight turns that is unrolled for certain: arrays that only such loops index stay in registers,
/// while the compiler keeps a longer body as a loop, and its accumulators in memory.
macro_rules! each {
    ($i:ident in 0..$n:expr => $body:block) => {
        $crate::arch::generic::each!(@ $i, $n, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $i:ident, $n:expr, $body:block, $($value:literal)*) => {
        $(
            if $value < $n {
                let $i: usize = $value;
                $body
            }
        )*
    };
}
use each;

pub(super) mod activations;
pub(super) mod attention;
mod exp;
mod float;
mod in_place;
pub(super) mod matmul;
pub(super) mod norm;
pub(super) mod panel;
mod rows;
pub(super) mod walk;
