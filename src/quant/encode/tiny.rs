//! Formats of a few levels, whose scale is the largest or the mean magnitude: Q1_0, Q2_0, TQ1_0, TQ2_0, MXFP4, NVFP4.

use super::pack::{half, join, level, nibbles, pairs};
use super::search::{magnitude, reciprocal, sum};
use crate::quant::formats::{mxfp4, nvfp4};

/// The signs; zero is positive.
pub(super) fn q1_0(x: &[f32; 128]) -> [u8; 18] {
    let d = sum(x.iter().map(|x| libm::fabsf(*x))) / 128.0;
    let mut signs = [0u8; 16];
    for (byte, x) in signs.iter_mut().zip(x.as_chunks::<8>().0) {
        *byte = x.iter().rev().fold(0, |byte, x| byte << 1 | u8::from(*x >= 0.0));
    }
    join(&[&half(d), &signs])
}

/// Multiples of d, the largest magnitude: −1, 0 and 1, as 0, 1, 2.
fn trits<const N: usize>(x: &[f32; N]) -> (f32, [u8; N]) {
    let d = magnitude(x);
    let inverse = reciprocal(d);
    (d, x.map(|x| (libm::roundf(x * inverse) as i32).clamp(-1, 1).wrapping_add(1) as u8))
}

pub(super) fn q2_0(x: &[f32; 64]) -> [u8; 18] {
    let (d, levels) = trits(x);
    let mut bytes = [0u8; 16];
    for (byte, levels) in bytes.iter_mut().zip(levels.as_chunks::<4>().0) {
        *byte = levels.iter().rev().fold(0, |byte, q| byte << 2 | q);
    }
    join(&[&half(d), &bytes])
}

pub(super) fn tq2_0(x: &[f32; 256]) -> [u8; 66] {
    let (d, levels) = trits(x);
    join(&[&pairs(&levels, 0), &half(d)])
}

pub(super) fn tq1_0(x: &[f32; 256]) -> [u8; 54] {
    let (d, levels) = trits(x);
    // Byte i has the trits `first + k·stride` as digits of a fraction, the first the most significant, of five.
    let byte = |first: usize, stride: usize, count: usize| {
        let digits = (0..5).map(|k| if k < count { level(&levels, first + k * stride) } else { 0 });
        let number = digits.fold(0u16, |number, t| number * 3 + u16::from(t));
        (number * 256).div_ceil(243) as u8
    };
    let five_of_32: [u8; 32] = core::array::from_fn(|i| byte(i, 32, 5));
    let five_of_16: [u8; 16] = core::array::from_fn(|i| byte(160 + i, 16, 5));
    let four_of_4: [u8; 4] = core::array::from_fn(|i| byte(240 + i, 4, 4));
    join(&[&five_of_32, &five_of_16, &four_of_4, &half(d)])
}

/// The index of the E2M1 number nearest to x/scale, the first of two.
fn e2m1(x: f32, scale: f32) -> u8 {
    let error = |level: i8| libm::fabsf(f32::from(level) * scale - x);
    let mut best = (0, error(mxfp4::LEVELS[0]));
    for (i, level) in (0u8..).zip(mxfp4::LEVELS) {
        let e = error(level);
        if e < best.1 {
            best = (i, e);
        }
    }
    best.0
}

pub(super) fn mxfp4(x: &[f32; 32]) -> [u8; 17] {
    let largest = magnitude(x);
    // The logarithm is rounded to f32 before it is rounded down, as in ggml.
    let exponent = libm::floorf(libm::log2(f64::from(largest)) as f32) - 2.0 + 127.0;
    let e = if largest > 0.0 { exponent as u8 } else { 0 };
    let scale = mxfp4::scale(e);
    join(&[&[e], &nibbles(&x.map(|x| e2m1(x, scale)))])
}

pub(super) fn nvfp4(x: &[f32; 64]) -> [u8; 36] {
    let (mut scales, mut quants) = ([0u8; 4], [[0u8; 8]; 4]);
    for ((s, quants), x) in scales.iter_mut().zip(&mut quants).zip(x.as_chunks::<16>().0) {
        *s = ue4m3(magnitude(x) / 6.0);
        let scale = nvfp4::scale(*s);
        let (low, high) = x.split_at(8);
        for ((q, low), high) in quants.iter_mut().zip(low).zip(high) {
            *q = e2m1(*low, scale) | e2m1(*high, scale) << 4;
        }
    }
    join(&[&scales, quants.as_flattened()])
}

/// The nearest UE4M3 number, ties upward; at most 0x7e. Numbers below 2^−6 are subnormal, and at most 7 · 2^−9.
fn ue4m3(x: f32) -> u8 {
    let x = if x > 448.0 { 448.0 } else { x };
    if x.is_nan() {
        return 0;
    }
    let bits = x.to_bits();
    let exponent = (bits >> 23 & 0xff).cast_signed() - 120;
    if exponent <= 0 {
        return ((x * 512.0 + 0.5) as u8).min(7);
    }
    // Adding the first bit that is cut off may carry into the exponent.
    let rounded = (exponent << 3) + (bits >> 20 & 7).cast_signed() + (bits >> 19 & 1).cast_signed();
    if exponent >= 15 || rounded >= 15 << 3 { 0x7e } else { rounded as u8 }
}
