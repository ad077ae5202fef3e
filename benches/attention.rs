//! Attention of one KV head by depth and by the number of query heads that share it, on one thread: bytes of cache and
//! products (items) per second.

mod common;

use std::fmt;

use armlet::arch::{GroupQueries, KvSpan, KvType, Queries, QueryBlock, SoftmaxState};
use armlet::storage::TILE;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

const HEAD_DIM: usize = 64;

fn main() {
    divan::main();
}

#[derive(Clone, Copy)]
struct Case {
    backend: &'static str,
    kv_type: KvType,
    depth: usize,
    group: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} depth {} group {}", self.backend, self.kv_type, self.depth, self.group)
    }
}

/// The best backend, or the one that `ARMLET_CPU` names.
fn cases() -> impl Iterator<Item = Case> {
    let kv_types = [KvType::F16, KvType::Int8];
    let backends = common::backends().last().into_iter();
    let depths =
        backends.flat_map(move |b| kv_types.into_iter().flat_map(move |e| [128, 512, 2048].map(|d| (b, e, d))));
    depths.flat_map(|(backend, kv_type, depth)| [1, 3, 8].map(move |group| Case { backend, kv_type, depth, group }))
}

#[divan::bench(args = cases())]
fn attend(bencher: Bencher<'_, '_>, Case { backend, kv_type, depth, group }: Case) {
    let kernels = common::kernels(backend);
    let q = common::noise(group * HEAD_DIM);
    let mut blocks = vec![QueryBlock::default(); group * HEAD_DIM / 32];
    kernels.quantise_query(&q, HEAD_DIM, &mut blocks);
    let (bytes, scale_bytes) = (HEAD_DIM * kv_type.bytes(), kv_type.scale_bytes());
    let (mut rows, mut scales) = (vec![0; depth * bytes], vec![0; depth * scale_bytes]);
    for (i, x) in common::noise(depth * HEAD_DIM).chunks(HEAD_DIM).enumerate() {
        kernels.encode_kv(kv_type, x, &mut rows[i * bytes..][..bytes], &mut scales[i * scale_bytes..][..scale_bytes]);
    }
    // Values of their own, because they would be in the cache.
    let (values, value_scales) = (rows.clone(), scales.clone());
    let copy = GroupQueries { floats: &q, blocks: &blocks };
    let queries = Queries { ring: copy, sinks: copy, head_dim: HEAD_DIM, scale: 0.125, cap: 0.0 };
    let (mut memory, mut result) = (vec![0.0; group * (HEAD_DIM + 2)], vec![0.0; group * HEAD_DIM]);
    let products = 2 * group * depth * HEAD_DIM;
    bencher.counter(BytesCount::new(2 * rows.len())).counter(ItemsCount::new(products)).bench_local(|| {
        let mut out = SoftmaxState::new(&mut memory, group);
        for tile in 0..depth / TILE {
            let part = |bytes: usize| tile * TILE * bytes..(tile + 1) * TILE * bytes;
            let (row, scale) = (part(bytes), part(scale_bytes));
            let span = KvSpan {
                k: &rows[row.clone()],
                v: &values[row],
                k_scales: &scales[scale.clone()],
                v_scales: &value_scales[scale],
                sinks: false,
            };
            kernels.attend(kv_type, &queries, &[span], &mut out);
        }
        out.finish(&mut result);
    });
}
