//! Weight formats: their block layouts, with a naive decoder and encoder of each, which are the specification.
//!
//! A block is a plain byte array, so the kernels read weights in place, at any alignment, without a cast. They are tested
//! against [`DType::decode_row`]. Layouts: `ggml/src/ggml-common.h` of llama.cpp, the GGUF specification; each encoder
//! rounds exactly as `quantize_row_*_ref` there does.
//!
//! # Panels
//!
//! `armlet pack` stores quantised matrices in the order in which the GEMM kernels read them ([`Layout::Panels`]), which is
//! the same for every instruction set: panels of 16 rows, each block by block of 32 columns, with the pieces of the 16
//! GGUF blocks interleaved. A packed block is
//!
//! | format | | bytes |
//! |---|---|---:|
//! | Q8_0 | d: 16 × f16, q: 8 × 16 × 4 × int8 | 544 |
//! | Q4_0 | d: 16 × f16, n: 4 × 16 × 4 bytes | 288 |
//! | Q4_1 | d: 16 × f16, m: 16 × f16, n: 4 × 16 × 4 bytes | 320 |
//!
//! where `q[k][row][j]` is the quant of column 4k + j, and `n[k][row][j]` has that of column 4k + j in its low nibble
//! and that of column 16 + 4k + j in its high one. The last panel of a matrix is padded with rows of zero bytes.
//!
//! In the file, such a tensor has the type number 0x41500000 plus that of the format, which other programs refuse; its
//! dimensions are those of the matrix, without the padding. The file has the metadata `armlet.pack.version` =
//! [`PACK_VERSION`], a u32, and aligns its tensors to 64 bytes.

mod encode;
mod matrix;
mod panel;

pub use encode::EncodeError;
pub use matrix::Matrix;
pub use panel::{Layout, PACK_VERSION, PANEL_ROWS};

use half::{bf16, f16};

/// Weights in a block of a quantised format.
pub const BLOCK: usize = 32;

/// A weight format that armlet has kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u16)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// 32 × int8 and a scale: `w = d·q`. 34 bytes: d f16, q.
    Q8_0,
    /// 32 × 4 bits and a scale: `w = d·(q − 8)`. 18 bytes: d f16, then 16 bytes with weights i and i + 16 in the low
    /// and high nibble of byte i.
    Q4_0,
    /// 32 × 4 bits, a scale and a minimum: `w = d·q + m`. 20 bytes: d f16, m f16, nibbles as Q4_0.
    Q4_1,
}

impl DType {
    /// All formats.
    pub const ALL: [DType; 6] = [DType::F32, DType::F16, DType::Bf16, DType::Q8_0, DType::Q4_0, DType::Q4_1];

    /// The format with this GGUF type number.
    pub const fn from_gguf(id: u32) -> Option<DType> {
        Some(match id {
            0 => DType::F32,
            1 => DType::F16,
            2 => DType::Q4_0,
            3 => DType::Q4_1,
            8 => DType::Q8_0,
            30 => DType::Bf16,
            _ => return None,
        })
    }

    /// Its GGUF type number.
    pub const fn gguf_id(self) -> u32 {
        match self {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::Q4_0 => 2,
            DType::Q4_1 => 3,
            DType::Q8_0 => 8,
            DType::Bf16 => 30,
        }
    }

    /// Its name in ggml, such as `Q8_0`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::Bf16 => "BF16",
            DType::Q8_0 => "Q8_0",
            DType::Q4_0 => "Q4_0",
            DType::Q4_1 => "Q4_1",
        }
    }

    /// Weights in a block: 1 or [`BLOCK`].
    pub const fn block_len(self) -> usize {
        if self.is_quantised() { BLOCK } else { 1 }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
            DType::Q8_0 => 34,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
        }
    }

    /// Whether the kernels multiply it with int8 activations.
    pub const fn is_quantised(self) -> bool {
        matches!(self, DType::Q8_0 | DType::Q4_0 | DType::Q4_1)
    }

    /// Bytes of a row of `cols` weights; `None` when `cols` is not a multiple of the block length.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Dequantises `row` to `out`, up to the end of the shorter of the two.
    pub fn decode_row(self, row: &[u8], out: &mut [f32]) {
        match self {
            DType::F32 => each(row, out, f32::from_le_bytes),
            DType::F16 => each(row, out, |b| f16::from_le_bytes(b).to_f32()),
            DType::Bf16 => each(row, out, |b| bf16::from_le_bytes(b).to_f32()),
            DType::Q8_0 => blocks::<34>(row, out, |b, i| scale(b, 0) * f32::from(byte(b, 2 + i).cast_signed())),
            DType::Q4_0 => blocks::<18>(row, out, |b, i| scale(b, 0) * (f32::from(nibble(b, 2, i)) - 8.0)),
            DType::Q4_1 => blocks::<20>(row, out, |b, i| scale(b, 0) * f32::from(nibble(b, 4, i)) + scale(b, 2)),
        }
    }
}

impl core::fmt::Display for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

fn each<const B: usize>(row: &[u8], out: &mut [f32], decode: impl Fn([u8; B]) -> f32) {
    for (bytes, out) in row.as_chunks::<B>().0.iter().zip(out) {
        *out = decode(*bytes);
    }
}

fn blocks<const B: usize>(row: &[u8], out: &mut [f32], decode: impl Fn(&[u8; B], usize) -> f32) {
    for (block, out) in row.as_chunks::<B>().0.iter().zip(out.chunks_mut(BLOCK)) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = decode(block, i);
        }
    }
}

/// Byte `i` of a block, which is within it.
fn byte(block: &[u8], i: usize) -> u8 {
    debug_assert!(i < block.len());
    block.get(i).copied().unwrap_or(0)
}

/// The f16 at byte `at` of a block.
fn scale(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([byte(block, at), byte(block, at + 1)]).to_f32()
}

/// Weight `i` of 32 nibbles from byte `at` on.
fn nibble(block: &[u8], at: usize, i: usize) -> u8 {
    if i < 16 { byte(block, at + i) & 15 } else { byte(block, at + i - 16) >> 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_go_round() {
        for t in DType::ALL {
            assert_eq!(DType::from_gguf(t.gguf_id()), Some(t));
            assert_eq!(t.row_bytes(64), Some(64 / t.block_len() * t.block_bytes()));
        }
        assert_eq!(DType::Q8_0.row_bytes(33), None);
        assert_eq!(DType::from_gguf(12), None);
    }

    /// Values worked out by hand from the layout in `ggml-common.h`.
    #[test]
    fn decodes_known_blocks() {
        let mut q4 = [0u8; 20];
        q4[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        q4[2..4].copy_from_slice(&f16::from_f32(-1.0).to_le_bytes());
        q4[4] = 0x3f; // weight 0 is 15, weight 16 is 3
        let mut out = [0.0; 32];
        DType::Q4_1.decode_row(&q4, &mut out);
        assert_eq!((out[0], out[16], out[1]), (6.5, 0.5, -1.0));

        let mut q4 = [0u8; 18];
        q4[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        q4[3] = 0x90;
        DType::Q4_0.decode_row(&q4, &mut out);
        assert_eq!((out[0], out[1], out[17]), (-4.0, -4.0, 0.5));

        let mut q8 = [0u8; 34];
        q8[..2].copy_from_slice(&f16::from_f32(0.25).to_le_bytes());
        q8[2] = 0x80;
        q8[33] = 127;
        DType::Q8_0.decode_row(&q8, &mut out);
        assert_eq!((out[0], out[1], out[31]), (-32.0, 0.0, 31.75));
    }
}
