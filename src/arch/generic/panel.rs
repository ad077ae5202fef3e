//! Panels: sixteen rows of quantised weights with their bytes interleaved, so that rows lie in the lanes of a vector.
//!
//! ```text
//! panel of 16 rows = its blocks of 32 columns, one after another
//! block            = [d: 16 × f16] [m: 16 × f16, if any] [quants: [k][row][4]]
//!     int8 quants:   k in 0..8, columns 4k + j
//!     nibbles:       k in 0..4, low halves columns 4k + j, high halves columns 16 + 4k + j
//! ```
//!
//! Four columns of a row are one 32-bit lane. That is what `sdot` by lane, `vpdpbusd` with a broadcast and, after a
//! zip, `smmla` eat, and no sum across lanes is left to do. A prompt meets panels that are interleaved on the fly, a
//! piece of a matrix at a time, in memory that stays in the first-level cache; a file made by `armlet pack` has them
//! ready, and they are used where they lie.
//!
//! Each row and token has the same sum in the same order as in place: see [`matmul`](super::matmul).

use super::activations::Activations;
use super::walk::{TokenBlock, Tokens};
use crate::arch::isa::{Isa, PanelIsa};

pub(in crate::arch) use crate::quant::PANEL_ROWS;

/// Sums of a panel's rows for one token.
pub(super) type Sums = [f32; PANEL_ROWS];

/// The f16 of 16 rows.
pub(in crate::arch) type Halves = [u8; 2 * PANEL_ROWS];
/// int8 quants of a block: `[k][row][4]`, in groups of four rows.
pub(in crate::arch) type Bytes = [[u8; 16]; 32];
/// Nibbles of a block: `[k][row][4]`, in groups of four rows.
pub(in crate::arch) type Nibbles = [[u8; 16]; 16];

/// A quantised format. A block of 16 rows has `P` bytes, one of a single row `B`.
pub(super) trait Format<const P: usize, const B: usize> {
    /// Whether −8 is to be added to every quant.
    const OFFSET: bool = false;
    /// Whether quants are int8.
    const INT8: bool = false;
    /// Where the minima are, if there are any.
    const MINIMA: Option<usize> = None;
    /// Quants of `S::ROWS` rows.
    fn weights<S: PanelIsa>(isa: S, block: &[u8; P], group: usize) -> S::Weights;
}

pub(super) struct Q8_0;
impl Format<544, 34> for Q8_0 {
    const INT8: bool = true;
    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, block: &[u8; 544], group: usize) -> S::Weights {
        isa.int8(quants(block), group)
    }
}

pub(super) struct Q4_0;
impl Format<288, 18> for Q4_0 {
    const OFFSET: bool = true;
    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, block: &[u8; 288], group: usize) -> S::Weights {
        isa.nibbles(quants(block), group)
    }
}

pub(super) struct Q4_1;
impl Format<320, 20> for Q4_1 {
    const MINIMA: Option<usize> = Some(32);
    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, block: &[u8; 320], group: usize) -> S::Weights {
        isa.nibbles(quants(block), group)
    }
}

/// The last `N` × 16 bytes of a block.
#[inline(always)]
fn quants<const P: usize, const N: usize>(block: &[u8; P]) -> &[[u8; 16]; N] {
    block.as_rchunks::<16>().1.last_chunk().unwrap_or(&[[0; 16]; N])
}

/// The f16 of 16 rows, at byte `at` of a block.
#[inline(always)]
fn halves<const P: usize>(block: &[u8; P], at: usize) -> &Halves {
    block.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 32])
}

/// Adds the panel `blocks`, which are the blocks of columns from `first` on, times `sums.len()` tokens from `token`
/// on, to `sums`.
#[inline(always)]
pub(super) fn multiply<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(
    isa: S,
    blocks: &[[u8; P]],
    x: &Activations<'_>,
    token: usize,
    first: usize,
    sums: &mut [Sums],
) {
    let mut done = 0;
    for group in 0..PANEL_ROWS / S::ROWS {
        done = 0;
        while done + 8 <= sums.len() {
            tile::<F, S, P, B, 8>(isa, blocks, group, x, token + done, first, &mut sums[done..]);
            done += 8;
        }
        while done + 2 <= sums.len() {
            tile::<F, S, P, B, 2>(isa, blocks, group, x, token + done, first, &mut sums[done..]);
            done += 2;
        }
    }
    if done < sums.len() {
        one::<F, S::Single, P, B>(isa.single(), blocks, x, token + done, first, &mut sums[done]);
    }
}

/// One group of rows for `T` tokens.
#[inline(always)]
fn tile<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize, const T: usize>(
    isa: S,
    blocks: &[[u8; P]],
    group: usize,
    x: &Activations<'_>,
    token: usize,
    first: usize,
    sums: &mut [Sums],
) {
    let Some(sums) = sums.first_chunk_mut::<T>() else { return };
    let mut x = Tokens::<T>::new(x, token, first);
    let blocks = &blocks[..blocks.len().min(x.left())];
    // As many as there are groups of `S::TOKENS` tokens; the compiler drops the others.
    let mut acc = [isa.load(sums, 0, group); T];
    each!(u in 0..T / S::TOKENS => { acc[u] = isa.load(sums, u * S::TOKENS, group) });
    for block in blocks {
        // SAFETY: there are at most `x.left()` blocks.
        let x = unsafe { x.next() };
        let w = F::weights(isa, block, group);
        step::<F, S, P, B, T>(isa, block, group, &w, &x, &mut acc);
    }
    each!(u in 0..T / S::TOKENS => { isa.store(acc[u], sums, u * S::TOKENS, group) });
}

/// All rows of the panel for one token.
#[inline(always)]
fn one<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(
    isa: S,
    blocks: &[[u8; P]],
    x: &Activations<'_>,
    token: usize,
    first: usize,
    sums: &mut Sums,
) {
    const { assert!(S::TOKENS == 1) };
    let mut x = Tokens::<1>::new(x, token, first);
    let blocks = &blocks[..blocks.len().min(x.left())];
    let groups = PANEL_ROWS / S::ROWS;
    let sums = core::array::from_mut(sums);
    let mut acc = [[isa.load(sums, 0, 0)]; 8];
    each!(g in 0..groups => { acc[g] = [isa.load(sums, 0, g)] });
    for block in blocks {
        // SAFETY: there are at most `x.left()` blocks.
        let x = unsafe { x.next() };
        each!(g in 0..groups => {
            let w = F::weights(isa, block, g);
            step::<F, S, P, B, 1>(isa, block, g, &w, &x, &mut acc[g]);
        });
    }
    each!(g in 0..groups => { isa.store(acc[g][0], sums, 0, g) });
}

/// Adds a block's products for `T` tokens.
#[inline(always)]
fn step<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize, const T: usize>(
    isa: S,
    block: &[u8; P],
    group: usize,
    w: &S::Weights,
    x: &TokenBlock<'_, T>,
    acc: &mut [S::Acc; T],
) {
    let d = isa.scales(halves(block, 0), group);
    each!(u in 0..T / S::TOKENS => {
        let t = u * S::TOKENS;
        let dots = if F::INT8 { isa.dot_int8(w, x, t) } else { isa.dot_nibbles(w, x, t, F::OFFSET) };
        acc[u] = isa.add(acc[u], dots, d, x.d, t);
    });
    if let Some(at) = F::MINIMA {
        let m = isa.scales(halves(block, at), group);
        each!(u in 0..T / S::TOKENS => { acc[u] = isa.add_minima(acc[u], m, x.dsum, u * S::TOKENS) });
    }
}

/// Interleaves blocks of 16 rows as GGUF lays them out.
#[inline(always)]
pub(super) fn interleave<F: Format<P, B>, I: Isa, const P: usize, const B: usize>(
    isa: I,
    rows: &[&[u8]; PANEL_ROWS],
    out: &mut [[u8; P]],
) {
    let rows = rows.map(|r| r.as_chunks::<B>().0);
    for (b, out) in out.iter_mut().enumerate() {
        let blocks: [&[u8; B]; PANEL_ROWS] = core::array::from_fn(|r| rows[r].get(b).unwrap_or(&[0; B]));
        let scales = if F::MINIMA.is_some() { 2 } else { 1 };
        for (s, out) in out.as_chunks_mut::<{ 2 * PANEL_ROWS }>().0.iter_mut().take(scales).enumerate() {
            for (r, half) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *half = [blocks[r][2 * s], blocks[r][2 * s + 1]];
            }
        }
        let quants = out.as_chunks_mut::<16>().0;
        let quants = &mut quants[2 * scales..];
        for half in 0..quants.len() / 16 {
            for group in 0..PANEL_ROWS / 4 {
                let from = 2 * scales + 16 * half;
                let four = core::array::from_fn(|r| {
                    blocks[4 * group + r].get(from..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 16])
                });
                for (k, words) in isa.transpose4(four).into_iter().enumerate() {
                    quants[16 * half + 4 * k + group] = words;
                }
            }
        }
    }
}
