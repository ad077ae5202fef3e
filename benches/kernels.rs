//! The matrix product of each backend and format, on one thread: bytes of weights and products (items) per second.
//!
//! The matrix is one of SmolLM2-135M's and fits a second-level cache, so this is what the instructions can do; what the
//! memory adds is in `armlet bench`.

mod common;

use std::fmt;

use armlet::arch::{Activations, Block, Kernels, Write};
use armlet::quant::{DType, Matrix};
use armlet::storage::{Columns, Serial, for_each_tile};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

const ROWS: usize = 1536;
const COLS: usize = 576;

fn main() {
    divan::main();
}

/// A backend and a format.
#[derive(Clone, Copy)]
struct Case(&'static str, DType);

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let formats = [DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::F16];
    common::backends().flat_map(move |backend| formats.map(|format| Case(backend, format)))
}

#[divan::bench(args = cases())]
fn one_token(bencher: Bencher<'_, '_>, case: Case) {
    matmul(bencher, case, 1);
}

#[divan::bench(args = cases())]
fn tokens_64(bencher: Bencher<'_, '_>, case: Case) {
    matmul(bencher, case, 64);
}

fn matmul(bencher: Bencher<'_, '_>, Case(backend, format): Case, tokens: usize) {
    let kernels = common::kernels(backend);
    let row_bytes = format.row_bytes(COLS).expect("whole blocks");
    let mut weights = vec![0; ROWS * row_bytes];
    for (row, out) in common::noise(ROWS * COLS).chunks(COLS).zip(weights.chunks_mut(row_bytes)) {
        format.encode_row(row, out).expect("whole blocks");
    }
    let w = Matrix::new_checked(format, ROWS, COLS, &weights).expect("its size");
    let input = Input::new(&kernels, tokens);
    let mut out = vec![0.0; tokens * ROWS];
    bencher.counter(BytesCount::new(weights.len())).counter(ItemsCount::new(ROWS * COLS * tokens)).bench_local(|| {
        for_each_tile(&Serial, [Columns::new(&mut out, ROWS, ROWS)], |[mut tile]| {
            kernels.matmul(&w, 0..ROWS, &input.view(), &mut tile, Write::Set);
        });
    });
}

/// Activations as the kernels take them.
struct Input {
    tokens: usize,
    floats: Vec<f32>,
    blocks: Vec<Block>,
}

impl Input {
    fn new(kernels: &Kernels, tokens: usize) -> Self {
        let floats = common::noise(tokens * COLS);
        let mut blocks = vec![Block::ZERO; floats.len() / 32];
        kernels.quantise(&floats, &mut blocks);
        Self { tokens, floats, blocks }
    }

    fn view(&self) -> Activations<'_> {
        Activations { tokens: self.tokens, floats: &self.floats, blocks: &self.blocks }
    }
}
