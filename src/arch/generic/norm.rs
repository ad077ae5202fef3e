//! Vector operations between the matrices.

use super::exp::exp;
use crate::arch::isa::Isa;

/// Root-mean-square norm; see [`Kernels::rms_norm`](crate::arch::Kernels::rms_norm).
#[inline(always)]
pub(in crate::arch) fn rms_norm<I: Isa>(isa: I, x: &[f32], weight: &[u8], eps: f32, out: &mut [f32]) {
    let (chunks, tail) = x.as_chunks::<8>();
    let mut squares = isa.splat8(0.0);
    for x in chunks {
        let x = isa.load8(x);
        squares = isa.fma8(x, x, squares);
    }
    let squares = isa.sum8(squares);
    let squares = tail.iter().fold(squares, |sum, x| sum + x * x);
    let scale = 1.0 / libm::sqrtf(squares / x.len() as f32 + eps);

    let (weights, weight_tail) = weight.as_chunks::<32>();
    let (outs, out_tail) = out.as_chunks_mut::<8>();
    for ((x, w), out) in chunks.iter().zip(weights).zip(outs) {
        isa.store8(isa.mul8(isa.mul8(isa.load8(x), isa.splat8(scale)), isa.load8_f32(w)), out);
    }
    for ((x, w), out) in tail.iter().zip(weight_tail.as_chunks::<4>().0).zip(out_tail) {
        *out = x * scale * f32::from_le_bytes(*w);
    }
}

/// Gated activation; see [`Kernels::silu_mul`](crate::arch::Kernels::silu_mul).
#[inline(always)]
pub(in crate::arch) fn silu_mul<I: Isa>(isa: I, gate: &mut [f32], up: &[f32]) {
    let (gates, gate_tail) = gate.as_chunks_mut::<8>();
    let (ups, up_tail) = up.as_chunks::<8>();
    for (g, u) in gates.iter_mut().zip(ups) {
        silu_mul8(isa, g, u);
    }
    // The tail through the same arithmetic, so that a value does not depend on its place.
    let (mut g, mut u) = ([0.0; 8], [0.0; 8]);
    for (slot, x) in g.iter_mut().zip(gate_tail.iter()) {
        *slot = *x;
    }
    for (slot, x) in u.iter_mut().zip(up_tail) {
        *slot = *x;
    }
    silu_mul8(isa, &mut g, &u);
    for (x, slot) in gate_tail.iter_mut().zip(g) {
        *x = slot;
    }
}

#[inline(always)]
fn silu_mul8<I: Isa>(isa: I, g: &mut [f32; 8], u: &[f32; 8]) {
    let one = isa.splat8(1.0);
    let x = isa.load8(g);
    let e = exp(isa, isa.sub8(isa.splat8(0.0), x));
    let silu = isa.div8(x, isa.add8(one, e));
    isa.store8(isa.mul8(silu, isa.load8(u)), g);
}
