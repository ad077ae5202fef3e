//! Panels: sixteen rows of quantised weights with their bytes interleaved, so that rows are the lanes of a vector.
//!
//! ```text
//! panel of 16 rows = its blocks of 32 columns, one after another
//! block            = [d: 16 × f16] [m: 16 × f16, if any] [quants: [k][row][4]]
//!     int8 quants:   k in 0..8, columns 4k + j
//!     nibbles:       k in 0..4, low halves columns 4k + j, high halves columns 16 + 4k + j
//! ```
//!
//! Four columns of a row are one 32-bit lane. That is what `sdot` by lane, `vpdpbusd` with a broadcast and, after a
//! zip, `smmla` take, and no sum across lanes is needed. For a prompt, blocks are interleaved on the fly; a file made by
//! `armlet pack` has them ready, and they are used in place.
//!
//! ```text
//! for each block of 16 rows:
//!     for each group of rows that registers hold:
//!         w, d = load(block, group)             once for all tokens
//!         for t in tokens: sums[t] += (w · x[t]) · (d · d_x[t])
//! ```
//!
//! Weights stay in registers and sums go through the first-level cache, which is cheaper than the reverse: a load and a
//! store of a vector for each 128 products, and nothing else in the loop that the compiler would have to spill. Where
//! registers are left, they hold the weights of two panels, and each activation is loaded once for both.
//!
//! Each row and token has the same sum in the same order as in place: see [`matmul`](super::matmul).

use super::activations::Activations;
use super::cursor::{TokenCursor, token_blocks};
use crate::arch::isa::{Isa, PanelIsa};
use crate::arch::types::{PanelScales, Sums, TokenBlock};
use crate::arch::unroll::unroll;
use crate::quant::{BLOCK, PANEL_ROWS};
use crate::util::SliceExt;

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
fn scales_at<const P: usize>(block: &[u8; P], at: usize) -> &PanelScales {
    block.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 32])
}

/// Adds the products of `blocks`, columns `32·b..` of `N` panels, and tokens `token..token + sums.len()` to `sums`. These
/// are in the order that `S` wants until [`restore_row_order`].
#[inline(always)]
pub(super) fn add<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize, const N: usize>(
    isa: S,
    blocks: &[[u8; P]; N],
    b: usize,
    x: &Activations<'_>,
    token: usize,
    sums: &mut [[Sums; N]],
) {
    let paired = if N == 1 && (S::TOKENS == 2 || S::UNROLL) { sums.len() & !1 } else { 0 };
    let (pairs, tail) = sums.split_at_mut_checked(paired).unwrap_or_default();
    let pairs = pairs.as_flattened_mut();
    for group in 0..PANEL_ROWS / S::ROWS {
        if paired == 0 {
            break;
        }
        let w = PanelGroup::new::<F, P, B>(isa, &blocks[0], group);
        for (x, sums) in token_blocks::<2>(x, b, token).zip(pairs.as_chunks_mut::<2>().0) {
            if S::TOKENS == 2 {
                w.add::<F, P, B, 2>(isa, &x, sums);
            } else {
                unroll!(t in 0..2 => { w.add::<F, P, B, 1>(isa, &x.one(t), core::array::from_mut(&mut sums[t])) });
            }
        }
    }
    let isa = isa.single();
    for group in 0..PANEL_ROWS / S::Single::ROWS {
        if tail.is_empty() {
            break;
        }
        let mut w = [PanelGroup::new::<F, P, B>(isa, &blocks[0], group); N];
        unroll!(n in 0..N => { w[n] = PanelGroup::new::<F, P, B>(isa, &blocks[n], group) });
        // An x86 CPU fetches ahead by itself, but within a page of memory, and the next block is in another.
        let ahead = x.quants.stride;
        for (x, sums) in token_blocks::<1>(x, b, token + paired).zip(tail.iter_mut()) {
            if group == 0 {
                isa.prefetch(x.q.as_ptr().wrapping_add(ahead).cast(), BLOCK);
            }
            // Nothing is stored in between, so that an activation stays in its register.
            let mut acc = [isa.load(core::array::from_ref(&sums[0]), group); N];
            unroll!(n in 0..N => {
                acc[n] = w[n].step::<F, P, B, 1>(isa, &x, isa.load(core::array::from_ref(&sums[n]), group));
            });
            unroll!(n in 0..N => { isa.store(acc[n], core::array::from_mut(&mut sums[n]), group) });
        }
    }
}

/// Puts the sums into the order of rows, after the last [`add`].
#[inline(always)]
pub(super) fn restore_row_order<S: PanelIsa, const N: usize>(isa: S, sums: &mut [[Sums; N]]) {
    if N == 1 && S::TOKENS == 2 {
        for pair in sums.as_flattened_mut().as_chunks_mut::<2>().0 {
            unroll!(group in 0..PANEL_ROWS / S::ROWS => { isa.in_rows(pair, group) });
        }
    }
}

/// All rows of the panel `blocks` for one token.
#[inline(always)]
pub(super) fn gemv<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(
    isa: S,
    blocks: &[[u8; P]],
    x: &Activations<'_>,
    token: usize,
) -> Sums {
    const { assert!(S::TOKENS == 1) };
    let mut x = TokenCursor::<1>::new(x, token, 0);
    let blocks = blocks.first_n(blocks.len().min(x.left()));
    let groups = PANEL_ROWS / S::ROWS;
    let mut sums = [[0.0; PANEL_ROWS]];
    // As many as there are groups; the compiler drops the others.
    let mut acc = [isa.load(&sums, 0); 8];
    for mut block in blocks {
        // SAFETY: there are at most `x.left()` blocks.
        let x = unsafe { x.next() };
        unroll!(g in 0..groups => {
            let w = PanelGroup::new::<F, P, B>(isa, block, g);
            let dots = w.dot::<F, P, B, 1>(isa, &x);
            acc[g] = w.accumulate::<F, P, B, 1>(isa, &x, dots, acc[g]);
            block = isa.after(block, dots);
        });
        let _ = block;
    }
    unroll!(g in 0..groups => { isa.store(acc[g], &mut sums, g) });
    sums[0]
}

/// A block of a group of rows.
#[derive(Clone, Copy)]
struct PanelGroup<S: PanelIsa> {
    group: usize,
    w: S::Weights,
    d: S::Scales,
    m: S::Scales,
}

impl<S: PanelIsa> PanelGroup<S> {
    #[inline(always)]
    fn new<F: Format<P, B>, const P: usize, const B: usize>(isa: S, block: &[u8; P], group: usize) -> Self {
        let d = isa.scales(scales_at(block, 0), group);
        let m = match F::MINIMA {
            Some(at) => isa.scales(scales_at(block, at), group),
            None => d,
        };
        PanelGroup { group, w: F::weights(isa, block, group), d, m }
    }

    /// Adds the products with `T` tokens to their sums in memory.
    #[inline(always)]
    fn add<F: Format<P, B>, const P: usize, const B: usize, const T: usize>(
        &self,
        isa: S,
        x: &TokenBlock<'_, T>,
        sums: &mut [Sums; T],
    ) {
        let acc = self.step::<F, P, B, T>(isa, x, isa.load(sums, self.group));
        isa.store(acc, sums, self.group);
    }

    /// Adds the products with `T` tokens to `acc`.
    #[inline(always)]
    fn step<F: Format<P, B>, const P: usize, const B: usize, const T: usize>(
        &self,
        isa: S,
        x: &TokenBlock<'_, T>,
        acc: S::Acc,
    ) -> S::Acc {
        self.accumulate::<F, P, B, T>(isa, x, self.dot::<F, P, B, T>(isa, x), acc)
    }

    #[inline(always)]
    fn dot<F: Format<P, B>, const P: usize, const B: usize, const T: usize>(
        &self,
        isa: S,
        x: &TokenBlock<'_, T>,
    ) -> S::Dots {
        if F::INT8 { isa.dot_int8(&self.w, x) } else { isa.dot_nibbles(&self.w, x, F::OFFSET) }
    }

    /// Adds products, with their scales, to `acc`.
    #[inline(always)]
    fn accumulate<F: Format<P, B>, const P: usize, const B: usize, const T: usize>(
        &self,
        isa: S,
        x: &TokenBlock<'_, T>,
        dots: S::Dots,
        acc: S::Acc,
    ) -> S::Acc {
        let acc = isa.add(acc, dots, self.d, x.d);
        if F::MINIMA.is_some() { isa.add_minima(acc, self.m, x.dsum) } else { acc }
    }
}

/// Interleaves a block of 16 rows as GGUF lays them out.
#[inline(always)]
pub(super) fn interleave<F: Format<P, B>, S: PanelIsa, const P: usize, const B: usize>(
    isa: S,
    blocks: [&[u8; B]; PANEL_ROWS],
) -> [u8; P] {
    let sixteen = |at: usize| blocks.map(|block| block.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 16]));
    let mut out = [0; P];
    let scales = if F::MINIMA.is_some() { 2 } else { 1 };
    let (front, quants) = out.split_at_mut_checked(scales * size_of::<PanelScales>()).unwrap_or_default();
    for (out, scales) in front.as_chunks_mut().0.iter_mut().zip(isa.interleave_scales(sixteen(0))) {
        *out = scales;
    }
    for (i, out) in quants.as_chunks_mut().0.iter_mut().enumerate() {
        *out = isa.transpose16(sixteen(2 * scales + 16 * i));
    }
    out
}
