//! Panels: sixteen rows of quantised weights with their bytes interleaved, so that rows are the lanes of a vector.
//!
//! ```text
//! panel of 16 rows = its blocks, one after another
//! block            = [scales: 16 × f16, of one or two] [units of 32 columns]
//! unit             = [scales of its own] [quants: planes of [k][row][4]]
//!     int8 quants:   k in 0..8, columns 4k + j
//!     nibbles:       k in 0..4, low halves columns 4k + j, high halves columns 16 + 4k + j
//! ```
//!
//! That is a packed file's layout, see [`packed`](super::packed). For a prompt and rows in a file, the units of 16
//! rows are unpacked to int8 with `f32` scales, and the integer ones of halves: a [`UnitPanel`].
//!
//! Four columns of a row are one 32-bit lane. That is what `sdot` by lane, `vpdpbusd` with a broadcast and, after a
//! zip, `smmla` take, and no sum across lanes is needed. For a prompt, panels are made on the fly; a file made by
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
use crate::arch::formats::{Format, Quants};
use crate::arch::isa::{Isa, PanelIsa, bias};
use crate::arch::types::{Bytes, Sums, TokenBlock};
use crate::arch::unroll::{unroll, unroll_array};
use crate::quant::{BLOCK, Block, PANEL_ROWS};
use crate::util::SliceExt;

/// How 32 columns of 16 rows are arranged.
pub(super) trait PanelFormat {
    /// Bytes that the units of a block share.
    type Head: 'static;
    /// The bytes or numbers of a unit.
    type Unit: 'static;
    /// As [`Format`](crate::arch::formats::Format).
    const QUANTS: Quants;
    /// As [`Format`](crate::arch::formats::Format).
    const OFFSET: i32 = 0;
    /// As [`Format`](crate::arch::formats::Format).
    const MINIMUM: bool = false;
    /// Planes that a quant is made of.
    const PLANES: usize = 1;
    /// Quants of `S::ROWS` rows.
    fn weights<S: PanelIsa>(isa: S, unit: &Self::Unit, group: usize) -> S::Weights;
    /// What these are less than the quants by; of halves those know that take them.
    #[inline(always)]
    fn less<S: PanelIsa>() -> i32 {
        0
    }
    /// Their scales and minima, the latter unused if there are none; or what
    /// [`Unit::d`](crate::arch::formats::Unit::d) says of halves.
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2];
    /// Integer scales and minima of halves; `None` if the format has none.
    #[inline(always)]
    fn halves<S: PanelIsa>(_: S, _unit: &Self::Unit, _group: usize) -> Option<[[S::Ints; 2]; 2]> {
        None
    }
}

/// 32 columns of 16 rows, wherever they are.
pub(super) struct PanelUnit<'a, F: PanelFormat + ?Sized> {
    pub(super) head: &'a F::Head,
    pub(super) unit: &'a F::Unit,
}

impl<F: PanelFormat + ?Sized> Clone for PanelUnit<'_, F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<F: PanelFormat + ?Sized> Copy for PanelUnit<'_, F> {}

/// A format of packed files.
pub(super) trait Packed: PanelFormat {
    /// A block of a panel.
    type Block: Block;
    /// Units of a block.
    const UNITS: usize;
    /// What the units share, and these.
    fn split(block: &Self::Block) -> (&Self::Head, &[Self::Unit]);
    /// The last unit.
    fn last(block: &Self::Block) -> PanelUnit<'_, Self>;
}

/// 32 columns of 16 rows, unpacked.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct UnitPanel {
    pub(super) q: Bytes,
    /// As [`Unit::d`](crate::arch::formats::Unit::d).
    pub(super) d: [Sums; 2],
    /// As [`Unit::s`](crate::arch::formats::Unit::s).
    pub(super) s: [[[i32; PANEL_ROWS]; 2]; 2],
}

impl UnitPanel {
    pub(super) const ZERO: Self =
        UnitPanel { q: [[0; 16]; 32], d: [[0.0; PANEL_ROWS]; 2], s: [[[0; PANEL_ROWS]; 2]; 2] };
}

/// A format's units, unpacked.
pub(super) struct Units<F>(core::marker::PhantomData<F>);
impl<F: Format> PanelFormat for Units<F> {
    type Head = ();
    type Unit = UnitPanel;
    const QUANTS: Quants = F::QUANTS;
    const OFFSET: i32 = F::OFFSET;
    const MINIMUM: bool = F::MINIMUM;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &UnitPanel, group: usize) -> S::Weights {
        match F::QUANTS {
            Quants::Int8 => isa.int8(&unit.q, group),
            _ => isa.small(&unit.q, group),
        }
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        unroll_array!(i in 0..2 => isa.scales_f32(&of.unit.d[i], group))
    }
    #[inline(always)]
    fn halves<S: PanelIsa>(isa: S, unit: &UnitPanel, group: usize) -> Option<[[S::Ints; 2]; 2]> {
        let ints = unroll_array!(i in 0..2 => unroll_array!(h in 0..2 => isa.ints(&unit.s[i][h], group)));
        matches!(F::QUANTS, Quants::Halves).then_some(ints)
    }
}

/// Adds the products of `units`, columns `32·b..` of `N` panels, and tokens `token..token + sums.len()` to `sums`. These
/// are in the order that `S` wants until [`restore_row_order`].
#[inline(always)]
pub(super) fn add<F: PanelFormat, S: PanelIsa, const N: usize>(
    isa: S,
    units: [PanelUnit<'_, F>; N],
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
        let w = PanelGroup::new::<F, false>(isa, units[0], group);
        for (x, sums) in token_blocks::<2>(x, b, token).zip(pairs.as_chunks_mut::<2>().0) {
            if S::TOKENS == 2 {
                w.add::<F, 2>(isa, &x, sums);
            } else {
                unroll!(t in 0..2 => { w.add::<F, 1>(isa, &x.one(t), core::array::from_mut(&mut sums[t])) });
            }
        }
    }
    let isa = isa.single();
    for group in 0..PANEL_ROWS / S::Single::ROWS {
        if tail.is_empty() {
            break;
        }
        let mut w = [PanelGroup::new::<F, false>(isa, units[0], group); N];
        unroll!(n in 0..N => { w[n] = PanelGroup::new::<F, false>(isa, units[n], group) });
        // An x86 CPU fetches ahead by itself, but within a page of memory, and the next block is in another.
        let ahead = x.quants.stride;
        for (x, sums) in token_blocks::<1>(x, b, token + paired).zip(tail.iter_mut()) {
            if group == 0 {
                isa.prefetch(x.q.as_ptr().wrapping_add(ahead).cast(), BLOCK);
            }
            // Nothing is stored in between, so that an activation stays in its register.
            let mut acc = [isa.load(core::array::from_ref(&sums[0]), group); N];
            unroll!(n in 0..N => {
                acc[n] = w[n].step::<F, 1>(isa, &x, isa.load(core::array::from_ref(&sums[n]), group));
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
pub(super) fn gemv<F: Packed, S: PanelIsa>(isa: S, blocks: &[F::Block], x: &Activations<'_>) -> Sums {
    const { assert!(S::TOKENS == 1) };
    let mut x = TokenCursor::<1>::new(x, 0, 0);
    let blocks = blocks.first_n(blocks.len().min(x.left() / F::UNITS));
    let mut sums = [[0.0; PANEL_ROWS]];
    // As many as there are groups; the compiler drops the others.
    let mut acc = [isa.load(&sums, 0); 8];
    for block in blocks {
        if F::UNITS == 1 {
            // SAFETY: there are at most `x.left()` blocks.
            add_unit::<F, S>(isa, block, F::last(block), &unsafe { x.next() }, &mut acc);
            continue;
        }
        let (head, units) = F::split(block);
        for unit in units.first_n(F::UNITS) {
            // SAFETY: there are at most `x.left() / UNITS` blocks, each with `UNITS` units or none.
            add_unit::<F, S>(isa, block, PanelUnit { head, unit }, &unsafe { x.next() }, &mut acc);
        }
    }
    unroll!(g in 0..PANEL_ROWS / S::ROWS => { isa.store(acc[g], &mut sums, g) });
    sums[0]
}

/// Adds the products of a unit of `block` and a token.
#[inline(always)]
fn add_unit<'w, F: Packed, S: PanelIsa>(
    isa: S,
    mut block: &'w F::Block,
    mut of: PanelUnit<'w, F>,
    x: &TokenBlock<'_, 1>,
    acc: &mut [S::Acc; 8],
) {
    let mut quants = of.unit;
    unroll!(g in 0..PANEL_ROWS / S::ROWS => {
        let w = PanelGroup { w: F::weights(isa, quants, g), ..PanelGroup::new::<F, true>(isa, of, g) };
        let dots = w.dot::<F, 1, true>(isa, x);
        acc[g] = w.accumulate::<F, 1>(isa, x, dots, acc[g]);
        if F::PLANES > 1 || S::FEW_REGISTERS {
            // What several units share is not loaded anew for a group.
            if F::UNITS == 1 {
                block = isa.after(block, dots[0]);
                of = F::last(block);
                quants = of.unit;
            } else {
                quants = isa.after(quants, dots[0]);
            }
        }
    });
    let _ = (block, of, quants);
}

/// A block of a group of rows.
#[derive(Clone, Copy)]
struct PanelGroup<S: PanelIsa> {
    group: usize,
    w: S::Weights,
    d: [S::Scales; 2],
    s: Option<[[S::Ints; 2]; 2]>,
}

impl<S: PanelIsa> PanelGroup<S> {
    /// `ALONE`: for one token.
    #[inline(always)]
    fn new<F: PanelFormat, const ALONE: bool>(isa: S, of: PanelUnit<'_, F>, group: usize) -> Self {
        let (d, s) = (F::scales(isa, of, group), F::halves(isa, of.unit, group));
        let mut w = F::weights(isa, of.unit, group);
        if Self::signed::<F>(ALONE) && F::OFFSET != F::less::<S>() {
            w = isa.less(w, F::OFFSET - F::less::<S>());
        }
        PanelGroup { group, w, d, s }
    }

    /// Whether the weights are less their offset.
    #[inline(always)]
    fn signed<F: PanelFormat>(alone: bool) -> bool {
        S::SIGNED && !alone && !matches!(F::QUANTS, Quants::Halves | Quants::FloatHalves)
    }

    /// Adds the products with `T` tokens to their sums in memory.
    #[inline(always)]
    fn add<F: PanelFormat, const T: usize>(&self, isa: S, x: &TokenBlock<'_, T>, sums: &mut [Sums; T]) {
        let acc = self.step::<F, T>(isa, x, isa.load(sums, self.group));
        isa.store(acc, sums, self.group);
    }

    /// Adds the products with `T` tokens to `acc`.
    #[inline(always)]
    fn step<F: PanelFormat, const T: usize>(&self, isa: S, x: &TokenBlock<'_, T>, acc: S::Acc) -> S::Acc {
        self.accumulate::<F, T>(isa, x, self.dot::<F, T, false>(isa, x), acc)
    }

    /// The products: of all columns, or of the first 16 and the last. `ALONE`: no others are computed meanwhile.
    #[inline(always)]
    fn dot<F: PanelFormat, const T: usize, const ALONE: bool>(&self, isa: S, x: &TokenBlock<'_, T>) -> [S::Dots; 2] {
        if matches!(F::QUANTS, Quants::Halves | Quants::FloatHalves) {
            return isa.dot_halves(&self.w, x, F::OFFSET);
        }
        if Self::signed::<F>(ALONE) {
            return [isa.dot_int8(&self.w, x); 2];
        }
        let less = F::less::<S>();
        let offset = F::OFFSET - less;
        let mut scaled = *x.bias;
        if offset != 8 {
            unroll!(t in 0..T => { scaled[t] = bias(x.bias[t], offset) });
        }
        let y = if matches!(offset, 0 | 8) { *x } else { TokenBlock { bias: &scaled, ..*x } };
        let dots = match F::QUANTS {
            Quants::Five if less == 0 => isa.dot_five(&self.w, &y, offset != 0),
            Quants::Nibbles | Quants::Five if ALONE => isa.dot_nibbles_alone(&self.w, &y, offset != 0),
            Quants::Nibbles | Quants::Five => isa.dot_nibbles(&self.w, &y, offset != 0),
            _ => isa.dot_int8(&self.w, x),
        };
        [dots; 2]
    }

    /// Adds products, with their scales, to `acc`.
    #[inline(always)]
    fn accumulate<F: PanelFormat, const T: usize>(
        &self,
        isa: S,
        x: &TokenBlock<'_, T>,
        dots: [S::Dots; 2],
        acc: S::Acc,
    ) -> S::Acc {
        if let Some([s, m]) = self.s {
            return isa.add_halves(acc, dots, self.d, s, F::MINIMUM.then_some(m), x);
        }
        let mut acc = isa.add(acc, dots[0], self.d[0], x.d);
        if matches!(F::QUANTS, Quants::FloatHalves) {
            acc = isa.add(acc, dots[1], self.d[1], x.d);
        }
        if F::MINIMUM {
            acc = isa.add_minima(acc, self.d[1], x.dsum);
        }
        acc
    }
}
