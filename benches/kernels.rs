//! The matrix product of each backend and format, on one thread: bytes of weights and products (items) per second.
//!
//! The matrix is one of SmolLM2-135M's and fits a second-level cache, so this is what the instructions can do; what the
//! memory adds is in `armlet bench`.

mod common;

use std::fmt;

use armlet::arch::{Activations, F16Block, QuantsMut, Write};
use armlet::quant::{DType, Layout, Matrix, PANEL_ROWS};
use armlet::storage::{Arena, Grid, Serial, for_each_tile};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

const ROWS: usize = 1536;
const COLS: usize = 768;

fn main() {
    divan::main();
}

/// A backend, a format and its layout.
#[derive(Clone, Copy)]
struct Case(&'static str, DType, Layout);

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.2 == Layout::Panels { " packed" } else { "" })
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let formats = DType::ALL.into_iter().filter(|dtype| dtype.is_quantised() || *dtype == DType::F16);
    let layouts = |format: DType| [Layout::Rows, Layout::Panels].into_iter().take(1 + usize::from(format.packs()));
    common::backends().flat_map(move |backend| {
        formats.clone().flat_map(move |format| layouts(format).map(move |layout| Case(backend, format, layout)))
    })
}

#[divan::bench(args = cases())]
fn one_token(bencher: Bencher<'_, '_>, case: Case) {
    matmul(bencher, case, 1);
}

#[divan::bench(args = cases())]
fn tokens_4(bencher: Bencher<'_, '_>, case: Case) {
    matmul(bencher, case, 4);
}

#[divan::bench(args = cases())]
fn tokens_64(bencher: Bencher<'_, '_>, case: Case) {
    matmul(bencher, case, 64);
}

/// A matrix of noise.
fn weights(format: DType, layout: Layout) -> Vec<u8> {
    let row_bytes = format.row_bytes(COLS).expect("whole blocks");
    let mut rows = vec![0; ROWS * row_bytes];
    for (row, out) in common::noise(ROWS * COLS).chunks(COLS).zip(rows.chunks_mut(row_bytes)) {
        format.encode_row(row, out).expect("whole blocks");
    }
    let mut panels = vec![0; rows.len()];
    if layout == Layout::Panels {
        let bytes = PANEL_ROWS * row_bytes;
        rows.chunks(bytes).zip(panels.chunks_mut(bytes)).for_each(|(rows, panel)| format.pack_panel(rows, panel));
        return panels;
    }
    rows
}

fn matmul(bencher: Bencher<'_, '_>, Case(backend, format, layout): Case, tokens: usize) {
    let kernels = common::kernels(backend);
    let weights = weights(format, layout);
    let w = Matrix::new_checked(format, layout, ROWS, COLS, &weights).expect("its size");
    let floats = common::noise(tokens * COLS);
    let mut memory = armlet::host::memory(2 * floats.len() + 4096).expect("memory");
    let mut arena = Arena::new(&mut memory).expect("an arena");
    let mut quants = QuantsMut::new(&mut arena, tokens, COLS).expect("room");
    let quants = kernels.quantise_tokens(&Serial, &floats, tokens, &mut quants);
    let mut f16 = vec![F16Block::default(); tokens * COLS.div_ceil(32)];
    floats.chunks(COLS).zip(f16.chunks_mut(COLS.div_ceil(32))).for_each(|(x, out)| kernels.to_f16(x, out));
    let f16 = if kernels.uses_f16_products(tokens) { &f16[..] } else { &[] };
    let x = Activations { tokens, floats: &floats, quants, f16 };
    let mut out = vec![0.0; tokens * ROWS];
    bencher.counter(BytesCount::new(weights.len())).counter(ItemsCount::new(ROWS * COLS * tokens)).bench_local(|| {
        for_each_tile(&Serial, [Grid::columns(&mut out, ROWS, ROWS)], |_, [mut tile]| {
            kernels.matmul(&w, 0..ROWS, &x, &mut tile, Write::Set);
        });
    });
}
