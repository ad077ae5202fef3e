//! Rows of keys and values as the KV cache stores them, and int8 queries for int8 keys.

use super::super::activations::{round_block, scale};
use super::super::padded::padded;
use crate::arch::isa::{F32x16, Isa};
use crate::arch::unroll::unroll_array;
use crate::quant::{BLOCK, Block};
use crate::storage::Plain;

/// How the cache stores a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum KvType {
    /// binary16.
    F16,
    /// int8 with one binary16 scale for the row of a position and head.
    Int8,
    /// binary32, for tests and comparisons.
    F32,
}

impl KvType {
    /// Whether this build attends to keys and values in this format: binary32 is a feature where there is no operating system.
    pub const fn is_built(self) -> bool {
        !matches!(self, KvType::F32) || cfg!(any(not(target_os = "none"), feature = "kv_f32"))
    }

    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            KvType::F16 => 2,
            KvType::Int8 => 1,
            KvType::F32 => 4,
        }
    }

    /// Bytes of a row's scale.
    pub const fn scale_bytes(self) -> usize {
        match self {
            KvType::Int8 => 2,
            KvType::F16 | KvType::F32 => 0,
        }
    }
}

/// A format of K and V.
pub(in crate::arch) trait KvFormat {
    /// Eight numbers.
    type Eight: Block;
    /// Whether rows have scales, and keys are multiplied with int8 queries.
    const INT8: bool = false;
    /// Most query heads that are multiplied together, up to 4.
    const HEADS: usize = 4;
    /// Eight numbers of two rows, or sixteen of one.
    fn load<I: Isa>(isa: I, x: [&Self::Eight; 2]) -> I::F32x16;
}

pub(in crate::arch) struct F16;
impl KvFormat for F16 {
    type Eight = [u8; 16];
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: [&[u8; 16]; 2]) -> I::F32x16 {
        I::F32x16::load_f16(isa, x)
    }
}

pub(in crate::arch) struct Int8;
impl KvFormat for Int8 {
    type Eight = [u8; 8];
    const INT8: bool = true;
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: [&[u8; 8]; 2]) -> I::F32x16 {
        I::F32x16::load_i8(isa, x)
    }
}

pub(in crate::arch) struct F32;
impl KvFormat for F32 {
    type Eight = [u8; 32];
    // For tests of precision: the code for more heads is worth more to what has little memory.
    const HEADS: usize = 1;
    #[inline(always)]
    fn load<I: Isa>(isa: I, x: [&[u8; 32]; 2]) -> I::F32x16 {
        I::F32x16::load_f32(isa, x)
    }
}

/// A block of a query as int8: `x[i] = d·q[i]`, with the same `d` for all blocks of a head.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct QueryBlock {
    pub(in crate::arch) q: [i8; BLOCK],
    pub(in crate::arch) d: f32,
    /// −8·Σq.
    pub(in crate::arch) bias: i32,
}

// SAFETY: 32 bytes and two numbers, with no padding; any bits are a value.
unsafe impl Plain for QueryBlock {}

/// Converts a row to cache elements; see [`Kernels::encode_kv`](crate::arch::Kernels::encode_kv).
#[inline(always)]
pub(in crate::arch) fn encode_row<I: Isa>(isa: I, kv_type: KvType, x: &[f32], out: &mut [u8], scale: &mut [u8]) {
    match kv_type {
        KvType::F16 => {
            for (x, out) in x.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<16>().0) {
                isa.store8_f16(isa.load8(x), out);
            }
        }
        KvType::Int8 => encode_int8(isa, x, out, scale),
        KvType::F32 => {
            for (x, out) in x.iter().zip(out.as_chunks_mut::<4>().0) {
                *out = x.to_le_bytes();
            }
        }
    }
}

/// `x[i] = scale·out[i]`, the scale being a binary16 number. A row that is not finite gets a NaN.
#[inline(always)]
fn encode_int8<I: Isa>(isa: I, x: &[f32], out: &mut [u8], scale: &mut [u8]) {
    let mut largest = isa.splat8(0.0);
    let mut nan = isa.splat8(0.0);
    for x in x.as_chunks::<8>().0 {
        let x = isa.abs8(isa.load8(x));
        largest = isa.max8(largest, x);
        nan = isa.fma8(x, isa.splat8(0.0), nan);
    }
    let finite = !isa.sum8(nan).is_nan();
    let d = half::f16::from_f32(if finite { (isa.hmax8(largest) / 127.0).min(65504.0) } else { f32::NAN });
    if let Some(scale) = scale.first_chunk_mut() {
        *scale = d.to_le_bytes();
    }
    let d = d.to_f32();
    let inverse = isa.splat8(if d > 0.0 { 1.0 / d } else { 0.0 });
    let limits = [isa.splat8(-127.0), isa.splat8(127.0)];
    for (x, out) in x.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
        let block: [f32; BLOCK] = padded(x);
        let v = block.as_chunks::<8>().0;
        let r = unroll_array!(i in 0..4 => {
            isa.max8(isa.min8(isa.round8(isa.mul8(isa.load8(&v[i]), inverse)), limits[1]), limits[0])
        });
        let mut q = [0i8; BLOCK];
        isa.to_i8(r, &mut q);
        out.iter_mut().zip(q).for_each(|(out, q)| *out = q.cast_unsigned());
    }
}

/// The queries of heads as int8: see [`Kernels::quantise_query`](crate::arch::Kernels::quantise_query).
///
/// A head has one scale, so that products of several blocks with a key are summed as integers.
#[inline(always)]
pub(in crate::arch) fn quantise_query<I: Isa>(isa: I, x: &[f32], head_dim: usize, out: &mut [QueryBlock]) {
    let blocks = head_dim.div_ceil(BLOCK).max(1);
    for (x, out) in x.chunks(head_dim.max(1)).zip(out.chunks_mut(blocks)) {
        let (mut largest, mut total) = (isa.splat8(0.0), isa.splat8(0.0));
        for x in x.as_chunks::<8>().0 {
            let x = isa.abs8(isa.load8(x));
            (largest, total) = (isa.max8(largest, x), isa.add8(total, x));
        }
        let (d, inverse) = scale(isa.hmax8(largest), isa.sum8(total));
        for (x, out) in x.chunks(BLOCK).zip(out) {
            let [first, last] = round_block(isa, &padded(x), inverse, &mut out.q);
            let sum = first + last;
            (out.d, out.bias) = (d, -8 * sum as i32);
        }
    }
}
