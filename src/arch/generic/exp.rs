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
    isa.ldexp8(p, n)
}

/// 2ˣ within 4 ulp for −126 ≤ x ≤ 0, and 2⁻¹²⁶ below; exactly 1 for 0.
///
/// A power of two needs no product to find n, and none to take it off: x = n + f, |f| ≤ ½. 2ᶠ by the polynomial of degree 5
/// with the least relative error (9·10⁻⁸) of those that are 1 at 0, three pairs of terms at a time.
#[inline(always)]
#[expect(clippy::approx_constant, reason = "a coefficient near ln 2, which is not it")]
pub(super) fn exp2_below<I: Isa>(isa: I, x: I::F32x8) -> I::F32x8 {
    let x = isa.max8(x, isa.splat8(-126.0));
    let n = isa.round8(x);
    let f = isa.sub8(x, n);
    let a = isa.fma8(f, isa.splat8(0.693_147), isa.splat8(1.0));
    let b = isa.fma8(f, isa.splat8(5.550_733_6e-2), isa.splat8(0.240_222_42));
    let c = isa.fma8(f, isa.splat8(1.326_472_9e-3), isa.splat8(9.671_513e-3));
    let f2 = isa.mul8(f, f);
    isa.ldexp8(isa.fma8(isa.fma8(c, f2, b), f2, a), n)
}
