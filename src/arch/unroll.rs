//! Loops and arrays that are always unrolled, without closures.
//!
//! A closure is a function of its own, which does not have the instruction set of the function around it: until the
//! compiler has inlined the closure, an operation in it is a call, and its vectors pass through memory. Whether it
//! inlines `array::map` depends on the size of the function; where it does not, a loop is five times slower. So no
//! operation of an [`Isa`](super::isa::Isa) that is not in every CPU of its architecture is called in a closure. A test
//! checks this.

/// A loop of at most eight turns: arrays that only such loops index stay in registers, while the compiler keeps a
/// longer body as a loop, and its accumulators in memory.
macro_rules! unroll {
    ($i:ident in 0..$n:expr => $body:block) => {
        $crate::arch::unroll::unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $i:ident, $n:expr, $body:block, $($value:literal)*) => {{
        debug_assert!($n <= 8);
        $(
            if $value < $n {
                let $i: usize = $value;
                $body
            }
        )*
    }};
}
pub(super) use unroll;

/// The array of an expression's values for 0, 1 …: of 2, 4 or 8.
macro_rules! unroll_array {
    ($i:ident in 0..2 => $value:expr) => { $crate::arch::unroll::unroll_array!(@ $i, $value, 0 1) };
    ($i:ident in 0..4 => $value:expr) => { $crate::arch::unroll::unroll_array!(@ $i, $value, 0 1 2 3) };
    ($i:ident in 0..8 => $value:expr) => { $crate::arch::unroll::unroll_array!(@ $i, $value, 0 1 2 3 4 5 6 7) };
    (@ $i:ident, $value:expr, $($index:literal)*) => {
        [$({
            let $i: usize = $index;
            $value
        }),*]
    };
}
pub(super) use unroll_array;
