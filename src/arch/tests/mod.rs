//! Every kernel, on every backend that this CPU can run, against a naive f64 computation from decoded weights.

use super::*;

use crate::quant::{DType, Layout, Matrix, PANEL_ROWS};
use crate::storage::{Arena, Grid, Serial, TileShape, for_each_tile};
use core::ops::Range;
use std::vec::Vec;

mod attention;

/// A small deterministic generator of numbers in −1..1.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn backends() -> Vec<Kernels> {
    let all: Vec<_> = Backend::ALL.into_iter().filter_map(Kernels::for_backend).collect();
    assert!(cfg!(miri) || all.len() >= 2, "only the scalar backend runs here");
    all
}

fn encode(dtype: DType, rows: usize, cols: usize, x: &[f32]) -> Vec<u8> {
    let mut out = vec![0; rows * dtype.row_bytes(cols).unwrap()];
    for (row, out) in x.chunks(cols).zip(out.chunks_mut(dtype.row_bytes(cols).unwrap())) {
        dtype.encode_row(row, out).unwrap();
    }
    out
}

/// Rows of a format: encoded noise, or, with an odd seed, blocks of any bits, whose binary16 scales are within ±1.
fn weights(dtype: DType, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let x = noise(seed, rows * cols);
    if seed.is_multiple_of(2) || !dtype.is_quantised() {
        return encode(dtype, rows, cols, &x);
    }
    let bytes = noise(seed + 1, rows * dtype.row_bytes(cols).unwrap());
    let mut out: Vec<u8> = bytes.iter().map(|x| (x * 1e5) as i32 as u8).collect();
    for (block, d) in out.chunks_mut(dtype.block_bytes()).zip(x) {
        for (at, d) in scales_of(dtype).iter().zip([d, d / 3.0]) {
            block[*at..][..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
        }
        match dtype {
            DType::Mxfp4 => block[0] = 120 + block[0] % 16,
            DType::Nvfp4 => block[..4].iter_mut().for_each(|e| *e &= 0x7f),
            _ => {}
        }
    }
    out
}

/// Where a block has binary16 scales.
fn scales_of(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q2K => &[80, 82],
        DType::Q3K => &[108],
        DType::Q6K => &[208],
        DType::Tq1_0 => &[52],
        DType::Tq2_0 => &[64],
        DType::F32 | DType::F16 | DType::Bf16 | DType::Mxfp4 | DType::Nvfp4 => &[],
        _ => &[0],
    }
}

/// Activations of some tokens, with memory for their quants.
struct Input {
    tokens: usize,
    cols: usize,
    floats: Vec<f32>,
    q: Vec<[i8; 32]>,
    d: Vec<f32>,
    bias: Vec<i32>,
    dsum: Vec<f32>,
    halves: Vec<[i32; 2]>,
    /// As [`Kernels::uses_f16_products`] asks for.
    f16: Vec<F16Block>,
}

impl Input {
    fn new(k: &Kernels, tokens: usize, cols: usize) -> Self {
        Self::from(k, tokens, cols, noise(99, tokens * cols))
    }
    fn from(k: &Kernels, tokens: usize, cols: usize, floats: Vec<f32>) -> Self {
        let n = tokens * (cols / 32);
        let mut bytes = vec![0; 56 * tokens * cols.div_ceil(32) + 1024];
        let skip = bytes.as_ptr().align_offset(crate::storage::ALIGN);
        let mut arena = Arena::new(&mut bytes[skip..]).unwrap();
        let mut quants = QuantsMut::new(&mut arena, tokens, cols).unwrap();
        for_each_tile(&Serial, quants.columns(0..cols / 32, tokens), |t, mut tile| {
            k.quantise(&floats[t * cols..][..cols], &mut tile);
        });
        let v = quants.view(cols / 32, tokens);
        let (q, d, bias, dsum) = (v.q.to_vec(), v.d.to_vec(), v.bias.to_vec(), v.dsum.to_vec());
        let halves = v.halves.to_vec();
        assert_eq!(q.len(), n);
        let mut input = Input { tokens, cols, floats, q, d, bias, dsum, halves, f16: vec![] };
        input.fill_f16(k);
        input
    }
    fn fill_f16(&mut self, k: &Kernels) {
        let blocks = if k.uses_f16_products(self.tokens) { self.cols.div_ceil(32) } else { 0 };
        self.f16 = vec![F16Block::default(); self.tokens * blocks];
        for (x, out) in self.floats.chunks(self.cols).zip(self.f16.chunks_mut(blocks.max(1))) {
            k.to_f16(x, out);
        }
    }
    fn view(&self) -> Activations<'_> {
        let Self { q, d, bias, dsum, halves, .. } = self;
        let quants = Quants { q, d, bias, dsum, halves, stride: self.tokens };
        Activations { tokens: self.tokens, floats: &self.floats, quants, f16: &self.f16 }
    }
    /// Tokens `part` alone.
    fn part(&self, k: &Kernels, part: Range<usize>) -> Self {
        fn pick<T: Copy>(all: &[T], tokens: usize, part: &Range<usize>) -> Vec<T> {
            all.chunks(tokens).flat_map(|block| &block[part.clone()]).copied().collect()
        }
        let mut input = Input {
            tokens: part.len(),
            cols: self.cols,
            floats: self.floats[part.start * self.cols..part.end * self.cols].to_vec(),
            q: pick(&self.q, self.tokens, &part),
            d: pick(&self.d, self.tokens, &part),
            bias: pick(&self.bias, self.tokens, &part),
            dsum: pick(&self.dsum, self.tokens, &part),
            halves: pick(&self.halves, self.tokens, &part),
            f16: vec![],
        };
        input.fill_f16(k);
        input
    }
}

/// A matrix's bytes in panels.
fn packed(w: &Matrix<'_>) -> Vec<u8> {
    let row_bytes = w.dtype().row_bytes(w.cols()).unwrap();
    let mut out = vec![0; w.rows().next_multiple_of(PANEL_ROWS) * row_bytes];
    for (rows, panel) in w.bytes().chunks(PANEL_ROWS * row_bytes).zip(out.chunks_mut(PANEL_ROWS * row_bytes)) {
        w.dtype().pack_panel(rows, panel);
    }
    out
}

fn run(k: &Kernels, w: &Matrix<'_>, rows: Range<usize>, x: &Activations<'_>, write: Write, init: f32) -> Vec<f32> {
    run_in_tiles(k, w, rows, x, (write, init), [usize::MAX; 2])
}

fn run_in_tiles(
    k: &Kernels,
    w: &Matrix<'_>,
    rows: Range<usize>,
    x: &Activations<'_>,
    (write, init): (Write, f32),
    tile: [usize; 2],
) -> Vec<f32> {
    let mut out = vec![init; x.tokens * rows.len()];
    let grid = Grid::new(&mut out, rows.len(), TileShape { rows: tile[0], cols: tile[1] });
    for_each_tile(&Serial, [grid], |_, [mut tile]| {
        let covered = rows.start + tile.columns().start..rows.start + tile.columns().end;
        k.matmul(w, covered, x, &mut tile, write);
    });
    out
}

/// What the kernel computes, in f64, from the naive decoder and the activations as the format's kernel gets them.
fn naive(w: &Matrix<'_>, rows: Range<usize>, x: &Activations<'_>) -> Vec<(f64, f64)> {
    let cols = w.cols();
    let mut out = vec![];
    for t in 0..x.tokens {
        for r in rows.clone() {
            let mut weights = vec![0.0; cols];
            w.decode_row(r, &mut weights);
            let (mut sum, mut magnitude) = (0.0, 0.0);
            for (i, weight) in weights.iter().enumerate() {
                let x = if w.dtype().is_quantised() {
                    let b = (i / 32) * x.tokens + t;
                    f64::from(x.quants.d[b]) * f64::from(x.quants.q[b][i % 32])
                } else {
                    f64::from(x.floats[t * cols + i])
                };
                sum += f64::from(*weight) * x;
                magnitude += (f64::from(*weight) * x).abs();
            }
            out.push((sum, magnitude));
        }
    }
    out
}

#[test]
fn matmul_agrees_with_the_naive_decode() {
    for k in backends() {
        for dtype in DType::ALL {
            let shapes = [
                (1, 32),
                (4, 64),
                (7, 96),
                (9, 160),
                (5, 576),
                (3, 80),
                (6, 24),
                (2, 7),
                (64, 192),
                (5, 1536),
                (1, 256),
                (37, 512),
            ];
            for (rows, cols) in shapes {
                if dtype.row_bytes(cols).is_none() {
                    continue;
                }
                let data = weights(dtype, rows, cols, (rows + cols) as u64);
                let w = Matrix::new_checked(dtype, Layout::Rows, rows, cols, &data).unwrap();
                for tokens in [1, 2, 4, 5, 9, 19, 67] {
                    let input = Input::new(&k, tokens, cols);
                    let x = input.view();
                    let got = run(&k, &w, 0..rows, &x, Write::Set, f32::NAN);
                    // Products of binary16 are rounded seven times, each its own way: `generic/gemv_f16.rs`.
                    let f16 = dtype == DType::F16 && k.uses_f16_products(tokens);
                    let bound = if f16 { 2f64.powi(-11) } else { 4e-6 };
                    for (got, (want, magnitude)) in got.iter().zip(naive(&w, 0..rows, &x)) {
                        let error = (f64::from(*got) - want).abs();
                        assert!(
                            error <= bound * magnitude + 1e-12,
                            "{:?} {dtype} {rows}x{cols}, {tokens} tokens: {got} is not {want}",
                            k.backend()
                        );
                    }
                    // A residual is added, not overwritten.
                    let added = run(&k, &w, 0..rows, &x, Write::Add, 1.0);
                    assert!(added.iter().zip(&got).all(|(a, g)| *a == 1.0 + g));
                }
            }
        }
    }
}

/// Whatever shares a vector, a piece or a panel with it, in whatever layout, a row's sum for a token is the same; of
/// float weights among up to eight tokens, and among more.
#[test]
fn matmul_gives_the_same_bits_for_any_tile_and_layout() {
    for k in backends() {
        for dtype in DType::ALL {
            for (rows, cols, tokens) in [(11, 96, 7), (37, 1088, 15), (16, 544, 66), (37, 512, 15), (13, 256, 7)] {
                if dtype.row_bytes(cols).is_none() {
                    continue;
                }
                let data = weights(dtype, rows, cols, 3);
                let w = Matrix::new_checked(dtype, Layout::Rows, rows, cols, &data).unwrap();
                let input = Input::new(&k, tokens, cols);
                let whole = run(&k, &w, 0..rows, &input.view(), Write::Set, 0.0);
                let panels = if dtype.packs() { packed(&w) } else { vec![] };
                let in_panels = Matrix::new_checked(dtype, Layout::Panels, rows, cols, &panels);
                assert_eq!(in_panels.is_some(), dtype.packs());
                if let Some(p) = &in_panels {
                    assert_eq!(run(&k, p, 0..rows, &input.view(), Write::Set, 0.0), whole, "{:?} {dtype}", k.backend());
                }
                for tile in [[5, 16], [tokens - 1, 3], [1, rows]] {
                    for w in [Some(&w), in_panels.as_ref()].into_iter().flatten() {
                        let got = run_in_tiles(&k, w, 0..rows, &input.view(), (Write::Set, f32::NAN), tile);
                        let same = got.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{:?} {dtype} {:?} in tiles of {tile:?}", k.backend(), w.layout());
                    }
                }
                let few = if dtype.is_quantised() || tokens <= 8 { 1 } else { 9 };
                for t in [0, (tokens - few) / 2, tokens - few] {
                    let part = input.part(&k, t..t + few);
                    for (start, end) in [(0, 1), (3, 11), (rows - 1, rows)] {
                        for w in [Some(&w), in_panels.as_ref()].into_iter().flatten() {
                            let got = run(&k, w, start..end, &part.view(), Write::Set, 0.0);
                            let want = (t..t + few).flat_map(|t| &whole[t * rows..][start..end]);
                            let same = got.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits());
                            assert!(same, "{:?} {dtype} {:?} {start}..{end} of {rows}x{cols}", k.backend(), w.layout());
                        }
                    }
                }
            }
        }
    }
}

/// The largest products there are, of every format: its fields all ones, all zeros and between, so int8 weights of −128,
/// which foreign files may have, and the largest quants of each width.
#[test]
fn matmul_does_not_overflow_at_the_extremes() {
    for k in backends() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantised()) {
            for byte in [0xff, 0x00, 0x80, 0x7f, 0xaa, 0x55] {
                extreme(&k, dtype, byte);
            }
        }
    }
}

fn extreme(k: &Kernels, dtype: DType, byte: u8) {
    let cols = dtype.block_len();
    let mut data = vec![byte; 4 * dtype.row_bytes(cols).unwrap()];
    for block in data.chunks_mut(dtype.block_bytes()) {
        for (at, d) in scales_of(dtype).iter().zip([1.0, 0.0]) {
            block[*at..][..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
        }
        if dtype == DType::Mxfp4 {
            block[0] = 127;
        }
    }
    let w = Matrix::new_checked(dtype, Layout::Rows, 4, cols, &data).unwrap();
    let panels = if dtype.packs() { packed(&w) } else { vec![] };
    let p = Matrix::new_checked(dtype, Layout::Panels, 4, cols, &panels);
    for (sign, tokens) in [(1.0, 1), (-1.0, 1), (1.0, 9), (-1.0, 9)] {
        let input = Input::from(k, tokens, cols, vec![127.0 * sign; cols * tokens]);
        assert!(input.q.as_flattened().iter().all(|q| q.abs() == 127));
        for w in [Some(&w), p.as_ref()].into_iter().flatten() {
            let got = run(k, w, 0..4, &input.view(), Write::Set, 0.0);
            let (want, magnitude) = naive(w, 0..4, &input.view())[0];
            let error = got.iter().map(|x| (f64::from(*x) - want).abs()).fold(0.0, f64::max);
            assert!(error <= 1e-7 * magnitude, "{:?} {dtype} of {byte:#x}: {} is not {want}", k.backend(), got[0]);
        }
    }
}

/// All 256 values of the bytes whose meaning no field of bits tells: scales of 8 bits, of which one is zero and some are
/// subnormal, and five digits of base 3.
#[test]
fn matmul_knows_every_byte() {
    for k in backends() {
        for dtype in [DType::Nvfp4, DType::Tq1_0] {
            let (rows, cols) = (256, 256);
            let row_bytes = dtype.row_bytes(cols).unwrap();
            let mut data: Vec<u8> = (0..rows * row_bytes).map(|i| (i / row_bytes) as u8).collect();
            for block in data.chunks_mut(dtype.block_bytes()) {
                for at in scales_of(dtype) {
                    block[*at..][..2].copy_from_slice(&half::f16::ONE.to_le_bytes());
                }
            }
            let w = Matrix::new_checked(dtype, Layout::Rows, rows, cols, &data).unwrap();
            for tokens in [1, 9] {
                let input = Input::new(&k, tokens, cols);
                let got = run(&k, &w, 0..rows, &input.view(), Write::Set, f32::NAN);
                for (i, (got, (want, magnitude))) in got.iter().zip(naive(&w, 0..rows, &input.view())).enumerate() {
                    let error = (f64::from(*got) - want).abs();
                    assert!(
                        error <= 4e-6 * magnitude,
                        "{:?} {dtype} of {:#x}: {got} is not {want}",
                        k.backend(),
                        i % rows
                    );
                }
            }
        }
    }
}

#[test]
fn matmul_leaves_out_what_is_not_there() {
    for k in backends() {
        let data = encode(DType::Q8_0, 2, 32, &noise(1, 64));
        let w = Matrix::new_checked(DType::Q8_0, Layout::Rows, 2, 32, &data).unwrap();
        let input = Input::new(&k, 1, 32);
        let mut out = [5.0; 4];
        k.matmul(&w, 1..9, &Activations { tokens: 3, ..input.view() }, &mut (&mut out[..]).into(), Write::Set);
        assert!(out[0] != 5.0 && out[1..] == [5.0; 3]);
    }
}

#[test]
fn quantise_rounds_to_nearest_and_never_gives_minus_128() {
    for k in backends() {
        let (tokens, cols) = (3, 96);
        let input = Input::new(&k, tokens, cols);
        for (b, q) in input.q.iter().enumerate() {
            let (block, t) = (b / tokens, b % tokens);
            let x = &input.floats[t * cols + 32 * block..][..32];
            let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert_eq!(input.d[b], largest / 127.0);
            let sum: i32 = q.iter().map(|q| i32::from(*q)).sum();
            assert_eq!((input.bias[b], input.dsum[b]), (-8 * sum, input.d[b] * sum as f32));
            let half = |q: &[i8]| q.iter().map(|q| i32::from(*q)).sum::<i32>();
            assert_eq!(input.halves[b], [half(&q[..16]), half(&q[16..])]);
            for (x, q) in x.iter().zip(q) {
                assert!((x / input.d[b] - f32::from(*q)).abs() <= 0.5001 && *q != -128);
            }
        }
        for (special, zero) in
            [(f32::NAN, false), (f32::INFINITY, false), (1e-42, true), (0.0, true), (f32::MAX, false)]
        {
            let mut x = vec![0.0; 32];
            x[3] = special;
            let input = Input::from(&k, 1, 32, x);
            assert_eq!(input.d[0] == 0.0, zero, "{:?} {special}", k.backend());
            assert!(special.is_finite() || input.d[0].is_nan());
        }
    }
}

#[test]
fn rms_norm_and_activations_match_f64() {
    // As the papers have them, not as the kernel computes them.
    let gelu = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    let activations: [(Activation, &dyn Fn(f64) -> f64); 3] = [
        (Activation::Silu, &|x| x / (1.0 + (-x).exp())),
        (Activation::Gelu, &gelu),
        (Activation::ReluSquared, &|x| x.max(0.0).powi(2)),
    ];
    for k in backends() {
        for n in [1, 7, 8, 33, 576] {
            let (x, w) = (noise(1, n), noise(2, n));
            let bytes: Vec<u8> = w.iter().flat_map(|w| w.to_le_bytes()).collect();
            let mut out = vec![0.0; n];
            k.rms_norm(&x, &bytes, 1e-5, &mut out);
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n as f64;
            for i in 0..n {
                let want = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(w[i]);
                assert!((f64::from(out[i]) - want).abs() <= 1e-6, "{:?}", k.backend());
            }
            for ((activation, f), (by, up)) in
                activations.iter().flat_map(|a| [(120.0, &w[..]), (3.0, &w), (3.0, &[])].map(|b| (a, b)))
            {
                let gates: Vec<f32> = x.iter().map(|x| x * by).collect();
                let mut gate = gates.clone();
                k.activate(*activation, &mut gate, up);
                for i in 0..n {
                    let g = f64::from(gates[i]);
                    let want = f(g) * up.get(i).map_or(1.0, |u| f64::from(*u));
                    // tanh in f64 is exact to 1e-16 of 1, far below 0 all of GELU.
                    let bound = if *activation == Activation::Gelu {
                        2e-6 * want.abs() + 1e-15 * g.abs()
                    } else {
                        1e-6 * want.abs()
                    };
                    let error = (f64::from(gate[i]) - want).abs();
                    assert!(error <= bound + 1e-30, "{:?} {activation:?} {g}: {} {want}", k.backend(), gate[i]);
                }
            }
        }
    }
}

/// What `generic/gemv_f16.rs` describes, in scalar code: a row times a token.
fn in_f16(w: &[f32], x: &[f32]) -> f32 {
    // To a multiple of the last place of binary16.
    let half = |x: f64| {
        let place = libm::ldexp(1.0, libm::ilogb(x).max(-14) - 10);
        (x / place).round_ties_even() * place
    };
    let mut acc = [0f32; 2];
    for (w, x) in w.chunks(32).zip(x.chunks(32)) {
        let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
        // largest = 2ᵉ·1.m
        let e = libm::ilogb(f64::from(largest));
        let (d, inverse) = (libm::ldexpf(1.0, e + 5), libm::ldexp(1.0, -e - 5));
        let at = |v: &[f32], i: usize| f64::from(v.get(i).copied().unwrap_or(0.0));
        let product = |i: usize| {
            // A product of two f16 and a third are exact in f64, for numbers of these sizes.
            (0..4).fold(0.0, |p, k| half(p + at(w, 8 * k + i) * half(at(x, 8 * k + i) * inverse)))
        };
        let pair = |i: usize| half(product(2 * i) + product(2 * i + 1));
        let sums = [half(pair(0) + pair(1)), half(pair(2) + pair(3))];
        for (acc, s) in acc.iter_mut().zip(sums) {
            *acc = libm::fmaf(s as f32, d, *acc);
        }
    }
    acc[0] + acc[1]
}

#[test]
fn products_of_binary16_are_those_described() {
    for k in backends().into_iter().filter(|k| k.uses_f16_products(1)) {
        for (rows, cols) in [(4, 32), (7, 96), (5, 576), (3, 1000), (5, 1536), (6, 7), (9, 40)] {
            for tokens in [1, 2, 3, 8] {
                let data = encode(DType::F16, rows, cols, &noise(31, rows * cols));
                let w = Matrix::new_checked(DType::F16, Layout::Rows, rows, cols, &data).unwrap();
                // Small beside an outlier, and blocks of very different sizes.
                let mut x = noise(32, tokens * cols);
                x.iter_mut().enumerate().for_each(|(i, x)| *x *= if i % 50 == 9 { 1000.0 } else { 0.02 });
                let input = Input::from(&k, tokens, cols, x);
                for range in [0..rows, 1..rows.min(6)] {
                    let got = run(&k, &w, range.clone(), &input.view(), Write::Set, f32::NAN);
                    let want = input.floats.chunks(cols).flat_map(|x| {
                        range.clone().map(move |r| {
                            let mut weights = vec![0.0; cols];
                            w.decode_row(r, &mut weights);
                            in_f16(&weights, x)
                        })
                    });
                    for (got, want) in got.iter().zip(want) {
                        assert_eq!(got.to_bits(), want.to_bits(), "{rows}x{cols}, {tokens}: {got}, {want}");
                    }
                }
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    assert!(Kernels::for_backend(Backend::Dotprod).is_none_or(|k| k.uses_f16_products(8) && !k.uses_f16_products(9)));
}

/// Whatever finite weights there are, and activations of any size, products in binary16 stay finite; what is not
/// finite shows.
#[test]
fn products_of_binary16_neither_overflow_nor_hide_a_nan() {
    for k in backends() {
        let data = vec![[0xff, 0x7b]; 3 * 700].concat(); // 65504
        let w = Matrix::new_checked(DType::F16, Layout::Rows, 3, 700, &data).unwrap();
        for x in [1.0, 1.999, 1e30, 3e-20, 1e-38] {
            let input = Input::from(&k, 1, 700, vec![x; 700]);
            for (got, (want, _)) in
                run(&k, &w, 0..3, &input.view(), Write::Set, 0.0).iter().zip(naive(&w, 0..3, &input.view()))
            {
                assert!((f64::from(*got) / want - 1.0).abs() < 3e-3, "{:?} {x}: {got} is not {want}", k.backend());
            }
        }
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 650, 699] {
                let mut x = vec![0.5; 700];
                x[at] = bad;
                let got = run(&k, &w, 0..3, &Input::from(&k, 1, 700, x).view(), Write::Set, 0.0);
                assert!(got.iter().all(|y| !y.is_finite()), "{:?}", k.backend());
            }
        }
    }
}

/// One order of sums and one rounding of `a·b + c`: a backend is no reason for another answer. But for the products of
/// few tokens with binary16 weights, which some compute in binary16.
#[test]
fn all_backends_give_the_same_bits() {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let run_all = |k: &Kernels| {
        let mut all = vec![];
        for dtype in DType::ALL {
            for (rows, cols, tokens) in [(7, 160, 5), (19, 544, 23), (7, 256, 5), (19, 512, 23)] {
                if dtype == DType::F16 && tokens <= 8 || dtype.row_bytes(cols).is_none() {
                    continue;
                }
                let data = weights(dtype, rows, cols, 21);
                let w = Matrix::new_checked(dtype, Layout::Rows, rows, cols, &data).unwrap();
                all.extend(bits(&run(k, &w, 0..rows, &Input::new(k, tokens, cols).view(), Write::Set, 0.0)));
            }
        }
        let (x, w) = (noise(22, 75), noise(23, 75));
        let bytes: Vec<u8> = w.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut out = vec![0.0; 75];
        k.rms_norm(&x, &bytes, 1e-5, &mut out);
        all.extend(bits(&out));
        let mut gate: Vec<f32> = x.iter().map(|x| x * 20.0).collect();
        for activation in [Activation::Silu, Activation::Gelu, Activation::ReluSquared] {
            k.activate(activation, &mut gate, &w);
            all.extend(bits(&gate));
        }
        all.extend(bits(&attention::samples(k)));
        all
    };
    let scalar = run_all(&scalar::kernels());
    for k in backends() {
        assert!(run_all(&k) == scalar, "{:?}", k.backend());
    }
}
