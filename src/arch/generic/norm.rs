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

/// The activation function of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x / (1 + e⁻ˣ).
    Silu,
    /// x · (1 + tanh(√(2/π) · (x + 0.044715·x³))) / 2 (Hendrycks and Gimpel 2016, arXiv 1606.08415).
    Gelu,
    /// max(x, 0)².
    ReluSquared,
}

/// Gated activation; see [`Kernels::activate`](crate::arch::Kernels::activate).
#[inline(always)]
pub(in crate::arch) fn activate<I: Isa>(isa: I, activation: Activation, gate: &mut [f32], up: &[f32]) {
    let (gates, gate_tail) = gate.as_chunks_mut::<8>();
    let (ups, up_tail) = up.as_chunks::<8>();
    for (i, g) in gates.iter_mut().enumerate() {
        activate8(isa, activation, g, ups.get(i).unwrap_or(&[1.0; 8]));
    }
    // The tail through the same arithmetic, so that a value does not depend on its place.
    let (mut g, mut u) = ([0.0; 8], [1.0; 8]);
    for (slot, x) in g.iter_mut().zip(gate_tail.iter()) {
        *slot = *x;
    }
    for (slot, x) in u.iter_mut().zip(up_tail) {
        *slot = *x;
    }
    activate8(isa, activation, &mut g, &u);
    for (x, slot) in gate_tail.iter_mut().zip(g) {
        *x = slot;
    }
}

#[inline(always)]
fn activate8<I: Isa>(isa: I, activation: Activation, g: &mut [f32; 8], u: &[f32; 8]) {
    let (zero, one) = (isa.splat8(0.0), isa.splat8(1.0));
    let x = isa.load8(g);
    let activated = if activation == Activation::ReluSquared {
        let x = isa.max8(x, zero);
        isa.mul8(x, x)
    } else {
        let mut z = x;
        if activation == Activation::Gelu {
            // (1 + tanh y) / 2 = 1 / (1 + e⁻²ʸ), so GELU is SiLU with another exponent: x·(2·√(2/π) + 0.0713…·x²).
            let factor = isa.fma8(isa.mul8(x, x), isa.splat8(0.071_354_814), isa.splat8(1.595_769));
            z = isa.mul8(x, factor);
        }
        isa.div8(x, isa.add8(one, exp(isa, isa.sub8(zero, z))))
    };
    isa.store8(isa.mul8(activated, isa.load8(u)), g);
}
