//! Attention on every backend against f64, and its bits.

use super::{backends, noise};
use crate::arch::*;
use crate::storage::TILE;
use core::ops::Range;
use std::vec::Vec;

const KV_TYPES: [KvType; 3] = [KvType::F16, KvType::Int8, KvType::F32];

/// Rows of keys or values as a cache stores them, and as numbers.
struct StoredRows {
    rows: Vec<u8>,
    scales: Vec<u8>,
    decoded: Vec<f64>,
}

impl StoredRows {
    fn new(k: &Kernels, kv_type: KvType, head_dim: usize, x: &[f32]) -> Self {
        let n = x.len() / head_dim;
        let (mut rows, mut scales) = (vec![0; x.len() * kv_type.bytes()], vec![0; n * kv_type.scale_bytes()]);
        for (i, x) in x.chunks(head_dim).enumerate() {
            let row = &mut rows[i * head_dim * kv_type.bytes()..][..head_dim * kv_type.bytes()];
            let scale = &mut scales[i * kv_type.scale_bytes()..][..kv_type.scale_bytes()];
            k.encode_kv(kv_type, x, row, scale);
        }
        let half = |b: &[u8]| half::f16::from_le_bytes([b[0], b[1]]).to_f64();
        let decoded = match kv_type {
            KvType::F16 => rows.chunks(2).map(half).collect(),
            KvType::Int8 => {
                let scaled = rows.chunks(head_dim).zip(scales.chunks(2));
                scaled.flat_map(|(row, s)| row.iter().map(move |q| f64::from(q.cast_signed()) * half(s))).collect()
            }
            KvType::F32 => x.iter().map(|x| f64::from(*x)).collect(),
        };
        StoredRows { rows, scales, decoded }
    }
}

/// Keys, values and queries; positions before `sinks` are scored with the second queries.
struct Case {
    kv_type: KvType,
    head_dim: usize,
    scale: f32,
    sinks: usize,
    q: [Vec<f32>; 2],
    blocks: [Vec<QueryBlock>; 2],
    k: StoredRows,
    v: StoredRows,
}

impl Case {
    fn new(kernels: &Kernels, kv_type: KvType, group: usize, head_dim: usize, positions: usize, sinks: usize) -> Self {
        let rows = |seed| StoredRows::new(kernels, kv_type, head_dim, &noise(seed, positions * head_dim));
        let q = [13, 14].map(|seed| noise(seed, group * head_dim).iter().map(|x| x * 3.0).collect::<Vec<f32>>());
        let blocks = q.each_ref().map(|q| {
            let mut blocks = vec![QueryBlock { q: [0; 32], d: 0.0, bias: 0 }; group * head_dim.div_ceil(32)];
            kernels.quantise_query(q, head_dim, &mut blocks);
            blocks
        });
        let scale = 1.0 / (head_dim as f32).sqrt();
        Case { kv_type, head_dim, scale, sinks, q, blocks, k: rows(11), v: rows(12) }
    }

    fn positions(&self) -> usize {
        self.k.decoded.len() / self.head_dim
    }

    /// Heads `heads` over all positions, whose rows are cut where the sinks end and at `cut`, in parts of `split` tiles.
    fn run(&self, kernels: &Kernels, heads: Range<usize>, cut: usize, split: usize) -> Vec<f32> {
        let (d, group) = (self.head_dim, heads.len());
        let copy = |copy: usize| GroupQueries {
            floats: &self.q[copy][heads.start * d..heads.end * d],
            blocks: &self.blocks[copy][heads.start * d.div_ceil(32)..heads.end * d.div_ceil(32)],
        };
        let queries = Queries { ring: copy(0), sinks: copy(1), head_dim: d, scale: self.scale, cap: 0.0 };
        let span = |r: Range<usize>| KvSpan {
            k: &self.k.rows[r.start * d * self.kv_type.bytes()..r.end * d * self.kv_type.bytes()],
            v: &self.v.rows[r.start * d * self.kv_type.bytes()..r.end * d * self.kv_type.bytes()],
            k_scales: &self.k.scales[r.start * self.kv_type.scale_bytes()..r.end * self.kv_type.scale_bytes()],
            v_scales: &self.v.scales[r.start * self.kv_type.scale_bytes()..r.end * self.kv_type.scale_bytes()],
            sinks: r.start < self.sinks,
        };
        let mut out = vec![f32::NAN; group * d];
        let (mut total, mut memory) = (vec![f32::NAN; group * (d + 2)], vec![f32::NAN; group * (d + 2)]);
        let mut sum = SoftmaxState::new(&mut total, group);
        let starts: Vec<usize> = (0..self.positions()).step_by(TILE).collect();
        for tiles in starts.chunks(split) {
            let mut part = SoftmaxState::new(&mut memory, group);
            for start in tiles {
                let end = (start + TILE).min(self.positions());
                let mut ends: Vec<usize> = [self.sinks, cut, end].iter().map(|e| *e.clamp(start, &end)).collect();
                ends.sort_unstable();
                let mut spans = vec![];
                let mut at = *start;
                for end in ends {
                    if end > at {
                        spans.push(span(at..end));
                    }
                    at = end;
                }
                kernels.attend(self.kv_type, &queries, &spans, &mut part);
            }
            sum.merge(&part);
        }
        sum.finish(&mut out);
        out
    }

    /// One head in f64: with the int8 queries that int8 keys are scored with, or with those that were given.
    fn naive(&self, g: usize, exact_queries: bool) -> Vec<f64> {
        let d = self.head_dim;
        let score = |j: usize| {
            let set = usize::from(j < self.sinks);
            let q = |i: usize| {
                if self.kv_type == KvType::Int8 && !exact_queries {
                    let block = &self.blocks[set][g * d.div_ceil(32) + i / 32];
                    f64::from(block.q[i % 32]) * f64::from(block.d)
                } else {
                    f64::from(self.q[set][g * d + i])
                }
            };
            (f64::from(self.scale) * (0..d).map(|i| q(i) * self.k.decoded[j * d + i]).sum::<f64>()).exp()
        };
        let weights: Vec<f64> = (0..self.positions()).map(score).collect();
        let total: f64 = weights.iter().sum();
        (0..d).map(|i| weights.iter().enumerate().map(|(j, w)| w / total * self.v.decoded[j * d + i]).sum()).collect()
    }
}

/// (group, head_dim, positions, sinks)
const SHAPES: [(usize, usize, usize, usize); 11] = [
    (1, 64, 1, 0),
    (3, 64, 33, 4),
    (2, 8, 5, 5),
    (4, 80, 64, 1),
    (5, 96, 100, 37),
    (7, 128, 31, 0),
    (8, 256, 65, 64),
    (9, 16, 200, 4),
    (6, 24, 63, 3),
    (1, 40, 34, 33),
    (3, 192, 70, 2),
];

#[test]
fn attention_matches_f64() {
    for kernels in backends() {
        for kv_type in KV_TYPES {
            for (group, head_dim, positions, sinks) in SHAPES {
                let case = Case::new(&kernels, kv_type, group, head_dim, positions, sinks);
                let got = case.run(&kernels, 0..group, 0, 16);
                for (g, got) in got.chunks(head_dim).enumerate() {
                    // int8 queries are up to 0.4 % of a head's largest off.
                    for (exact, bound) in [(false, 2e-6), (true, if kv_type == KvType::Int8 { 0.02 } else { 2e-6 })] {
                        for (got, want) in got.iter().zip(case.naive(g, exact)) {
                            let error = (f64::from(*got) - want).abs();
                            let name = kernels.backend();
                            assert!(
                                error <= bound,
                                "{name:?} {kv_type:?} {group}x{head_dim}x{positions}: {got}, {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// A head's result does not depend on those that it shares a pass with, nor on where a tile's rows are stored.
#[test]
fn attention_gives_a_head_the_same_bits_in_any_group_and_place() {
    for kernels in backends() {
        for kv_type in KV_TYPES {
            for (head_dim, positions, sinks) in [(64, 75, 4), (24, 33, 0), (8, 1, 0), (80, 130, 40)] {
                let case = Case::new(&kernels, kv_type, 17, head_dim, positions, sinks);
                let alone: Vec<f32> = (0..17).flat_map(|g| case.run(&kernels, g..g + 1, 0, 16)).collect();
                for group in 2..=17 {
                    let got = case.run(&kernels, 0..group, 0, 16);
                    assert!(got == alone[..group * head_dim], "{:?} {kv_type:?}, {group} heads", kernels.backend());
                }
                for cut in [1, 5, 31, 32, 33, 63, 70, 100].into_iter().filter(|cut| *cut < positions) {
                    let got = case.run(&kernels, 0..3, cut, 16);
                    assert!(got == alone[..3 * head_dim], "{:?} {kv_type:?}, cut at {cut}", kernels.backend());
                }
            }
        }
    }
}

/// Parts that are merged in order are all of it.
#[test]
fn parts_of_attention_merge() {
    for kernels in backends() {
        let case = Case::new(&kernels, KvType::F32, 3, 64, 300, 4);
        let whole = case.run(&kernels, 0..3, 0, 100);
        for split in [1, 2, 3, 5] {
            for (a, b) in case.run(&kernels, 0..3, 0, split).iter().zip(&whole) {
                assert!((a - b).abs() <= 1e-6, "{split}: {a}, {b}");
            }
        }
    }
}

/// What is stored as int8 is half a step off, and what is not finite shows.
#[test]
fn int8_rows_are_half_a_step_off() {
    for kernels in backends() {
        for n in [8, 24, 64, 80] {
            let x: Vec<f32> = noise(5, n).iter().map(|x| x * 7.0).collect();
            let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
            let rows = StoredRows::new(&kernels, KvType::Int8, n, &x);
            for (x, y) in x.iter().zip(rows.decoded) {
                assert!((f64::from(*x) - y).abs() <= f64::from(largest) / 127.0 * 0.5005, "{x} {y}");
            }
            assert!(rows.rows.iter().any(|q| q.cast_signed().unsigned_abs() == 127));
        }
        assert!(StoredRows::new(&kernels, KvType::Int8, 8, &[0.0; 8]).decoded.iter().all(|x| *x == 0.0));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 16];
            x[9] = bad;
            assert!(StoredRows::new(&kernels, KvType::Int8, 16, &x).decoded.iter().all(|x| x.is_nan()), "{bad}");
        }
    }
}

/// What does not fit together is left alone.
#[test]
fn attention_leaves_out_what_is_not_there() {
    for kernels in backends() {
        let case = Case::new(&kernels, KvType::Int8, 2, 16, 8, 0);
        let none = KvSpan { k: &[], v: &[], k_scales: &[], v_scales: &[], sinks: true };
        let short =
            KvSpan { k: &case.k.rows[..40], v: &case.v.rows, k_scales: &[], v_scales: &case.v.scales[..3], ..none };
        for (floats, blocks, head_dim) in [(32, 2, 16), (31, 2, 16), (0, 0, 16), (32, 1, 16), (32, 2, 0), (32, 2, 12)] {
            let group = GroupQueries { floats: &case.q[0][..floats], blocks: &case.blocks[0][..blocks] };
            let queries = Queries { ring: group, sinks: group, head_dim, scale: 1.0, cap: 0.0 };
            for kv_type in KV_TYPES {
                for spans in [&[][..], &[none], &[short, none, short]] {
                    let mut memory = [0.0; 36];
                    kernels.attend(kv_type, &queries, spans, &mut SoftmaxState::new(&mut memory, 2));
                    kernels.attend(kv_type, &queries, spans, &mut SoftmaxState::new(&mut memory[..7], 2));
                }
            }
        }
    }
}

/// Results of many shapes, to compare backends by.
pub(super) fn samples(kernels: &Kernels) -> Vec<f32> {
    let shapes = (1..=9).flat_map(|group| [64, 40, 80, 8].map(|head_dim| (group, head_dim)));
    let cases = shapes.flat_map(|(group, d)| KV_TYPES.map(|e| Case::new(kernels, e, group, d, 70, 3)));
    cases.flat_map(|case| case.run(kernels, 0..case.q[0].len() / case.head_dim, 50, 2)).collect()
}
