//! The formats of packed files, see [`quant`](crate::quant): how their panels become what [`panel`](super::panel) multiplies.
//!
//! Scales of a unit are those of 16 rows in four words, of which byte `i` is that of rows 4i..4i + 4: one instruction decodes
//! four, as it does of rows in place, and by the same operations.

use super::panel::{Packed, PanelFormat, PanelUnit};
use crate::arch::formats::Quants;
use crate::arch::isa::{Field, Int8Isa, PanelIsa, first, last};
use crate::arch::types::{PanelScales, ROWS};
use crate::arch::unroll::unroll_array;
use crate::quant::tables::IQ4_LEVELS;
use crate::quant::types::{Iq4Nl, Q1_0, Q2_0, Q4_0, Q4_1, Q4K, Q5_0, Q5K, Q6K, Q8_0};
use crate::quant::{Block, PANEL_ROWS};

/// A format of which panels are the words of 16 rows, interleaved, so that a prompt makes them of rows in a file.
pub(super) trait Interleaved: Packed {
    /// A block of one row.
    type Row: Block;
}

/// The weights of a group, of which an expression has columns 4k..4k + 4 of rows `8·rows..8·rows + 8`, or these and the same
/// four vectors on.
macro_rules! columns {
    ($isa:ident, $S:ident, $group:ident, ($rows:ident, $k:ident) => $column:expr) => {
        unroll_array!(eight in 0..2 => {
            let $rows = ($group * $S::ROWS / 8 + eight) & 1;
            unroll_array!($k in 0..8 => $column)
        })
    };
    ($isa:ident, $S:ident, $group:ident, ($rows:ident, $k:ident) => pairs $columns:expr) => {
        unroll_array!(eight in 0..2 => {
            let $rows = ($group * $S::ROWS / 8 + eight) & 1;
            let pairs = unroll_array!($k in 0..4 => $columns);
            unroll_array!(k in 0..8 => pairs[k % 4][k / 4])
        })
    };
}

/// Blocks of so many bytes: those of the head, and units of so many.
macro_rules! packed {
    ($($format:ident [$block:literal] = [$head:literal] + $units:literal * [$unit:literal];)*) => {$(
        impl Packed for $format {
            type Block = [u8; $block];
            const UNITS: usize = $units;

            #[inline(always)]
            fn split(block: &[u8; $block]) -> (&[u8; $head], &[[u8; $unit]]) {
                const { assert!($block == $head + $units * $unit) };
                let (head, units) = block.split_first_chunk().unwrap_or((&[0; $head], &[]));
                (head, units.as_chunks().0)
            }
            #[inline(always)]
            fn last(block: &[u8; $block]) -> PanelUnit<'_, Self> {
                PanelUnit { head: first(block), unit: last(block) }
            }
        }
    )*};
}

packed! {
    Q8_0[544] = [32] + 1 * [512];
    Q4_0[288] = [32] + 1 * [256];
    Q4_1[320] = [64] + 1 * [256];
    Q5_0[352] = [32] + 1 * [320];
    Q4K[2304] = [64] + 8 * [280];
    Q5K[2816] = [64] + 8 * [344];
    Q6K[3360] = [32] + 8 * [416];
    Iq4Nl[288] = [32] + 1 * [256];
    Q1_0[288] = [32] + 4 * [64];
    Q2_0[288] = [32] + 2 * [128];
}

impl Interleaved for Q8_0 {
    type Row = [u8; 34];
}
impl Interleaved for Q4_0 {
    type Row = [u8; 18];
}
impl Interleaved for Q4_1 {
    type Row = [u8; 20];
}

impl PanelFormat for Q8_0 {
    type Head = [u8; 32];
    type Unit = [u8; 512];
    const QUANTS: Quants = Quants::Int8;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &[u8; 512], group: usize) -> S::Weights {
        isa.int8(sixteens(unit), group)
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        [isa.scales(of.head, group); 2]
    }
}

impl PanelFormat for Q4_0 {
    type Head = [u8; 32];
    type Unit = [u8; 256];
    const QUANTS: Quants = Quants::Nibbles;
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &[u8; 256], group: usize) -> S::Weights {
        isa.nibbles(sixteens(unit), group)
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        [isa.scales(of.head, group); 2]
    }
}

impl PanelFormat for Q4_1 {
    type Head = [u8; 64];
    type Unit = [u8; 256];
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &[u8; 256], group: usize) -> S::Weights {
        isa.nibbles(sixteens(unit), group)
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        unroll_array!(i in 0..2 => isa.scales(scales_at(of.head, i), group))
    }
}

impl PanelFormat for Iq4Nl {
    type Head = [u8; 32];
    type Unit = [u8; 256];
    const QUANTS: Quants = Quants::Int8;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &[u8; 256], group: usize) -> S::Weights {
        isa.weights_of::<true>(
            columns!(isa, S, group, (rows, k) => isa.lookup(&IQ4_LEVELS, plane(isa, unit, 4, rows, k))),
        )
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        [isa.scales(of.head, group); 2]
    }
}

impl PanelFormat for Q5_0 {
    type Head = [u8; 32];
    type Unit = [u8; 320];
    const QUANTS: Quants = Quants::Five;
    const PLANES: usize = 2;
    const OFFSET: i32 = 16;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &[u8; 320], group: usize) -> S::Weights {
        isa.weights_of::<false>(columns!(isa, S, group, (rows, k) => pairs two_planes(isa, unit, 1, rows, k)))
    }
    #[inline(always)]
    fn less<S: PanelIsa>() -> i32 {
        if S::SIGNED_PLANES { 16 } else { 0 }
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        [isa.scales(of.head, group); 2]
    }
}

impl PanelFormat for Q4K {
    type Head = [u8; 64];
    type Unit = [u8; 280];
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &[u8; 280], group: usize) -> S::Weights {
        isa.nibbles(sixteens(unit), group)
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        six_bits(isa, of.head, of.unit, group)
    }
}

impl PanelFormat for Q5K {
    type Head = [u8; 64];
    type Unit = [u8; 344];
    const QUANTS: Quants = Quants::Five;
    const PLANES: usize = 2;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &[u8; 344], group: usize) -> S::Weights {
        isa.weights_of::<false>(columns!(isa, S, group, (rows, k) => pairs two_planes(isa, unit, 1, rows, k)))
    }
    #[inline(always)]
    fn less<S: PanelIsa>() -> i32 {
        if S::SIGNED_PLANES { 16 } else { 0 }
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        six_bits(isa, of.head, of.unit, group)
    }
}

impl PanelFormat for Q6K {
    type Head = [u8; 32];
    type Unit = [u8; 416];
    const QUANTS: Quants = Quants::Halves;
    const PLANES: usize = 2;
    const OFFSET: i32 = 32;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &[u8; 416], group: usize) -> S::Weights {
        isa.weights_of::<false>(columns!(isa, S, group, (rows, k) => pairs two_planes(isa, unit, 2, rows, k)))
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        [isa.scales(of.head, group); 2]
    }
    #[inline(always)]
    fn halves<S: PanelIsa>(isa: S, unit: &[u8; 416], group: usize) -> Option<[[S::Ints; 2]; 2]> {
        let s = unroll_array!(h in 0..2 => {
            let words = isa.load_words(bytes(unit, 384 + 16 * h));
            isa.ints_of(unroll_array!(i in 0..4 => {
                isa.byte_i8(isa.shl_words(words, 24 - 8 * quad::<S>(group, i)), 3)
            }))
        });
        Some([s; 2])
    }
}

/// As in place, a weight is 2·d·q − d.
impl PanelFormat for Q1_0 {
    type Head = [u8; 32];
    type Unit = [u8; 64];
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &[u8; 64], group: usize) -> S::Weights {
        isa.weights_of::<false>(columns!(isa, S, group, (rows, k) => isa.bit(isa.load_u8(bytes(unit, 32 * rows)), k)))
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        let d = isa.scales(of.head, group);
        let by = [2.0 * f32::from(S::SET), -1.0];
        unroll_array!(i in 0..2 => isa.mul_scales(d, isa.scales_of([isa.splat4(by[i]); 4])))
    }
}

/// As in place, a weight is d·q − d.
impl PanelFormat for Q2_0 {
    type Head = [u8; 32];
    type Unit = [u8; 128];
    const QUANTS: Quants = Quants::Nibbles;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn weights<S: PanelIsa>(isa: S, unit: &[u8; 128], group: usize) -> S::Weights {
        isa.weights_of::<false>(columns!(isa, S, group, (rows, k) => plane(isa, unit, 2, rows, k)))
    }
    #[inline(always)]
    fn scales<S: PanelIsa>(isa: S, of: PanelUnit<'_, Self>, group: usize) -> [S::Scales; 2] {
        let d = isa.scales(of.head, group);
        [d, isa.mul_scales(d, isa.scales_of([isa.splat4(-1.0); 4]))]
    }
}

/// `N` bytes of a unit from `at` on, which it has.
#[inline(always)]
fn bytes<const U: usize, const N: usize>(unit: &[u8; U], at: usize) -> &[u8; N] {
    debug_assert!(at + N <= U);
    unit.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; N])
}

/// The first `N` × 16 bytes of a unit.
#[inline(always)]
fn sixteens<const U: usize, const N: usize>(unit: &[u8; U]) -> &[[u8; 16]; N] {
    unit.as_chunks().0.first_chunk().unwrap_or(&[[0; 16]; N])
}

/// The `i`-th binary16 numbers of 16 rows.
#[inline(always)]
fn scales_at(head: &[u8; 64], i: usize) -> &PanelScales {
    bytes(head, size_of::<PanelScales>() * i)
}

/// Which four rows are the `i`-th of a group, 0..4.
#[inline(always)]
fn quad<S: PanelIsa>(group: usize, i: usize) -> usize {
    (group * S::ROWS / ROWS + i) % (PANEL_ROWS / ROWS)
}

/// Columns 4k..4k + 4 of rows `8·rows..8·rows + 8`, from the plane of `bits` that a unit begins with.
#[inline(always)]
fn plane<I: Int8Isa, const U: usize>(isa: I, unit: &[u8; U], bits: usize, rows: usize, k: usize) -> I::I8x32 {
    let x = isa.load_u8(bytes(unit, 64 * (k % bits) + 32 * rows));
    isa.field(x, Field { at: bits * (k / bits), bits })
}

/// The same and columns 16 + 4k..16 + 4k + 4, for k below 4, of nibbles and the plane of `bits` above them, which is behind.
#[inline(always)]
fn two_planes<I: Int8Isa, const U: usize>(isa: I, unit: &[u8; U], bits: usize, rows: usize, k: usize) -> [I::I8x32; 2] {
    let low = isa.load_u8(bytes(unit, 64 * k + 32 * rows));
    let high = unroll_array!(h in 0..2 => isa.load_u8(bytes(unit, 256 + 64 * ((k + 4 * h) % bits) + 32 * rows)));
    isa.join_planes(low, high, unroll_array!(h in 0..2 => Field { at: bits * ((k + 4 * h) / bits), bits }))
}

/// d·S, exact, and −dmin·M of a group, from a unit that ends with them.
#[inline(always)]
fn six_bits<S: PanelIsa, const U: usize>(isa: S, head: &[u8; 64], unit: &[u8; U], group: usize) -> [S::Scales; 2] {
    let words = isa.load_six_bits(last(unit));
    unroll_array!(w in 0..2 => {
        let scales = unroll_array!(i in 0..4 => isa.field_to_f32(words[w], 8 * quad::<S>(group, i), 0x3f));
        isa.mul_scales(isa.scales(scales_at(head, w), group), isa.scales_of(scales))
    })
}

/// Interleaves a block of 16 rows as GGUF lays them out.
#[inline(always)]
pub(super) fn interleave<F: Interleaved, S: PanelIsa>(isa: S, blocks: [&F::Row; PANEL_ROWS], out: &mut F::Block) {
    let sixteen =
        |at: usize| blocks.map(|block| block.as_ref().get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 16]));
    let scales = if F::MINIMUM { 2 } else { 1 };
    let (front, quants) = out.as_mut().split_at_mut_checked(scales * size_of::<PanelScales>()).unwrap_or_default();
    for (out, scales) in front.as_chunks_mut().0.iter_mut().zip(isa.interleave_scales(sixteen(0))) {
        *out = scales;
    }
    for (i, out) in quants.as_chunks_mut().0.iter_mut().enumerate() {
        *out = isa.transpose16(sixteen(2 * scales + 16 * i));
    }
}
