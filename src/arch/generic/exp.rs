//! The exponential function.

use crate::arch::isa::Isa;

/// eˣ, within 2 ulp for −87 ≤ x ≤ 88 and clamped outside.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, ln 2 in two parts so that r is exact; eʳ by the minimax polynomial of Cephes'
/// `expf`; then times 2ⁿ.
#[inline(always)]
pub(super) fn exp<I: Isa>(isa: I, x: I::F32x8) -> I::F32x8 {
    let x = isa.max8(isa.min8(x, isa.splat8(88.0)), isa.splat8(-87.0));
    let n = isa.round8(isa.mul8(x, isa.splat8(core::f32::consts::LOG2_E)));
    let r = isa.fma8(n, isa.splat8(-0.693_359_4), x);
    let r = isa.fma8(n, isa.splat8(2.121_944_4e-4), r);
    let mut p = isa.splat8(1.987_569_1e-4);
    for k in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = isa.fma8(p, r, isa.splat8(k));
    }
    let p = isa.add8(isa.fma8(isa.mul8(p, r), r, r), isa.splat8(1.0));
    isa.mul8(p, isa.exp2i8(n))
}
