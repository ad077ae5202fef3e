//! Sine and cosine of phases, with the same bits on every target.
//!
//! A phase is an angle as a fraction of a turn in units of 2⁻⁶⁴, so `position * frequency` wraps exactly, and a
//! rotation at position 2⁴⁰ is as precise as one at 3. An `f32` angle would be off by 0.06 rad at a million tokens.

use core::f64::consts::PI;

/// A frequency in turns per token, in units of 2⁻⁶⁴ of a turn, from radians per token.
///
/// Of a turn or more per token only the fraction is kept, which is all that matters at whole positions.
pub(crate) fn frequency(radians: f64) -> u64 {
    let turns = radians / (2.0 * PI);
    let fraction = turns - libm::floor(turns);
    // 2⁶⁴ is exact in f64; the cast saturates, so a fraction that rounds up to 1 cannot overflow.
    (fraction * 18_446_744_073_709_551_616.0) as u64
}

/// Sine and cosine of a phase, within 2 ulp of 1.
///
/// The phase is folded to an eighth of a turn either side of a quarter, then two minimax polynomials (those of Cephes'
/// `sinf` and `cosf`, on ±π/4) do the rest.
pub(crate) fn sin_cos(phase: u64) -> (f32, f32) {
    let quadrant = (phase.wrapping_add(1 << 61)) >> 62;
    let rest = phase.wrapping_sub(quadrant << 62) as i64;
    let x = rest as f32 * (2.0 * PI / 18_446_744_073_709_551_616.0) as f32;
    let z = x * x;
    let sin = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * x + x;
    let cos = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    match quadrant & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sin_cos_matches_f64() {
        let mut phase = 12345u64;
        for i in 0..100_000u64 {
            phase = phase.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i);
            let angle = phase as f64 * (2.0 * PI / 18_446_744_073_709_551_616.0);
            let (s, c) = sin_cos(phase);
            assert!((f64::from(s) - angle.sin()).abs() < 1.3e-7, "sin at {phase:#x}");
            assert!((f64::from(c) - angle.cos()).abs() < 1.3e-7, "cos at {phase:#x}");
        }
        assert_eq!(sin_cos(0), (0.0, 1.0));
        assert_eq!(sin_cos(1 << 62), (1.0, 0.0));
    }

    #[test]
    fn a_phase_depends_on_differences_only() {
        // cos(f·(n − m)) from phases at any n and m: the error must not grow with position.
        let f = frequency(1.0);
        for n in [0u64, 1 << 24, 1 << 31, (1 << 32) + 1, 1 << 40] {
            let angle = f.wrapping_mul(n + 17).wrapping_sub(f.wrapping_mul(n));
            assert!((f64::from(sin_cos(angle).1) - 17f64.cos()).abs() < 2e-7, "at {n}");
        }
    }
}
