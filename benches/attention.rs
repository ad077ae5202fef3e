//! Attention of one KV head by depth and by the number of query heads that share it, on one thread: bytes of cache and
//! products (items) per second.

mod common;

use std::fmt;

use armlet::arch::{Cache, Element};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

const HEAD_DIM: usize = 64;

fn main() {
    divan::main();
}

#[derive(Clone, Copy)]
struct Case {
    backend: &'static str,
    depth: usize,
    group: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} depth {} group {}", self.backend, self.depth, self.group)
    }
}

/// The best backend, or the one that `ARMLET_CPU` names.
fn cases() -> impl Iterator<Item = Case> {
    let depths = common::backends().last().into_iter().flat_map(|b| [128, 512, 2048].map(move |depth| (b, depth)));
    depths.flat_map(|(backend, depth)| [1, 3, 8].map(move |group| Case { backend, depth, group }))
}

#[divan::bench(args = cases())]
fn attend(bencher: Bencher<'_, '_>, Case { backend, depth, group }: Case) {
    let kernels = common::kernels(backend);
    let q = common::noise(group * HEAD_DIM);
    let mut rows = vec![0; depth * HEAD_DIM * Element::F16.bytes()];
    kernels.store(Element::F16, &common::noise(depth * HEAD_DIM), &mut rows);
    let cache = Cache { element: Element::F16, rows: &rows };
    let values = rows.clone();
    let values = Cache { element: Element::F16, rows: &values };
    let mut out = vec![0.0; q.len()];
    let products = 2 * group * depth * HEAD_DIM;
    bencher
        .counter(BytesCount::new(2 * rows.len()))
        .counter(ItemsCount::new(products))
        .bench_local(|| kernels.attend(&q, HEAD_DIM, 0.125, cache, values, &mut out));
}
