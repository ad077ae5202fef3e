//! The formats: for each a file with the layout of its blocks, and what a weight of one is. This is the specification; the
//! kernels are tested against it.
//!
//! Layouts: `ggml/src/ggml-common.h` of llama.cpp. The arithmetic, too, is that of ggml's decoders, product by product, so
//! that decoding gives the same bits.

mod bits;
pub(super) mod float;
pub(crate) mod iq4_nl;
pub(super) mod iq4_xs;
pub(crate) mod mxfp4;
pub(crate) mod nvfp4;
pub(super) mod q1_0;
pub(super) mod q2_0;
pub(super) mod q2_k;
pub(super) mod q3_k;
pub(super) mod q4_0;
pub(super) mod q4_1;
pub(super) mod q4_k;
pub(super) mod q5_0;
pub(super) mod q5_1;
pub(super) mod q5_k;
pub(super) mod q6_k;
pub(super) mod q8_0;
pub(crate) mod tq1_0;
pub(super) mod tq2_0;

/// A block of weights: so many bytes, at any alignment.
/// The cursors of `arch` rely on it.
pub(crate) trait Block: Copy + AsRef<[u8]> + AsMut<[u8]> + 'static {
    /// All bytes zero.
    const ZERO: Self;

    /// As many blocks as `bytes` has.
    fn slice_of(bytes: &[u8]) -> &[Self];
    /// The bytes of `blocks`.
    fn bytes_of(blocks: &[Self]) -> &[u8];
}

impl<const N: usize> Block for [u8; N] {
    const ZERO: Self = [0; N];

    #[inline(always)]
    fn slice_of(bytes: &[u8]) -> &[Self] {
        bytes.as_chunks().0
    }

    #[inline(always)]
    fn bytes_of(blocks: &[Self]) -> &[u8] {
        blocks.as_flattened()
    }
}

/// A format: its blocks, and their weights.
pub(crate) trait BlockFormat {
    /// The bytes of a block.
    type Block: Block;
    /// Weights in a block.
    const LEN: usize;

    /// Weight `i` of a block.
    fn weight(block: &Self::Block, i: usize) -> f32;
}

/// Dequantises `row` to `out`, up to the end of the shorter of the two.
pub(super) fn decode_row<F: BlockFormat>(row: &[u8], out: &mut [f32]) {
    for (block, out) in F::Block::slice_of(row).iter().zip(out.chunks_mut(F::LEN)) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = weight::<F>(block, i);
        }
    }
}

/// A call and not a copy: a row of the embedding is decoded once for a token, and firmware has little room for code.
#[inline(never)]
fn weight<F: BlockFormat>(block: &F::Block, i: usize) -> f32 {
    F::weight(block, i)
}
