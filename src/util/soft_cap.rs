//! Soft caps: numbers bounded by a tanh (Gemma 2, arXiv 2408.00118).

/// `x = cap · tanh(x / cap)`, within 3 ulp. A NaN stays one.
///
/// Plain arithmetic that the compiler vectorises, with the same bits everywhere.
#[inline(never)]
pub(crate) fn soft_cap(x: &mut [f32], cap: f32) {
    // tanh(y) = (e²ʸ − 1) / (e²ʸ + 1)
    let by = 2.0 / cap;
    for x in x {
        let t = exp_minus_one(*x * by);
        *x = cap * (t / (t + 2.0));
    }
}

/// eˣ − 1 for |x| ≤ 40 and clamped outside, as the kernels' `exp`: x = n·ln 2 + r, eʳ − 1 by the polynomial of Cephes' `expf`.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
fn exp_minus_one(x: f32) -> f32 {
    // Adding it rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    // Not `clamp`, which may panic, nor `max`, which drops a NaN.
    let x = if x > 40.0 { 40.0 } else { x };
    let x = if x < -40.0 { -40.0 } else { x };
    let n = (x * core::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for k in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + k;
    }
    // 2ⁿ · eʳ − 1 = 2ⁿ · (eʳ − 1) + (2ⁿ − 1), which loses nothing where n is 0.
    let power = f32::from_bits(1f32.to_bits().wrapping_add_signed((n as i32) << 23));
    power * (p * r * r + r) + (power - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_tanh() {
        for cap in [0.5f32, 5.0, 50.0] {
            for i in -2000..=2000 {
                let x = i as f32 / 100.0 * cap;
                let mut got = [x];
                soft_cap(&mut got, cap);
                let want = f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh();
                assert!((f64::from(got[0]) - want).abs() <= 3.6e-7 * want.abs(), "{x}: {} {want}", got[0]);
            }
        }
        let mut x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        soft_cap(&mut x, 5.0);
        assert!(x[0].is_nan() && x[1..] == [5.0, -5.0]);
    }
}
