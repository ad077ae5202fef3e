//! Weight formats: their block layouts, with a naive decoder and encoder of each, which are the specification.
//!
//! [`FORMATS`] lists them; whatever else lists formats reads it. A block is a plain byte array, so the kernels read weights
//! in place, at any alignment, without a cast. They are tested against [`DType::decode_row`].
//!
//! # Panels
//!
//! `armlet pack` stores quantised matrices in the order in which the GEMM kernels read them ([`Layout::Panels`]), which is
//! the same for every instruction set: panels of 16 rows, each block by block, with the fields of the 16 GGUF blocks
//! interleaved. A packed block is the binary16 scales of the rows, 16 × f16 each, and then units of 32 columns:
//!
//! | format | scales | units | of each: planes of bits | scales | bytes |
//! |---|---|---:|---|---|---:|
//! | Q8_0 | d | 1 | 8 | | 544 |
//! | Q4_0, IQ4_NL | d | 1 | 4 | | 288 |
//! | Q4_1 | d, m | 1 | 4 | | 320 |
//! | Q5_0 | d | 1 | 4, 1 | | 352 |
//! | Q4_K | d, −dmin | 8 | 4 | S and M, 24 bytes | 2304 |
//! | Q5_K | d, −dmin | 8 | 4, 1 | S and M, 24 bytes | 2816 |
//! | Q6_K | d | 8 | 4, 2 | S, 2 × 16 × int8 | 3360 |
//! | Q1_0 | d | 4 | 1 | | 288 |
//! | Q2_0 | d | 2 | 2 | | 288 |
//!
//! A plane has `b` bits of each quant, the first one the lowest: 64·b bytes, of which byte 64·(k mod b) + 4·row + j has those
//! of column 4k + j from its bit b·⌊k/b⌋ on. The highest bit of a second plane is inverted.
//!
//! Scales of a unit are bytes of 16 rows, that of row r at place 4·(r mod 4) + ⌊r/4⌋: of Q6_K those of the first half, then
//! of the last. Of Q4_K and Q5_K a byte has S in its lower six bits, and above them the upper two of M; the lower four of M
//! are nibbles of 8 bytes behind these, of places 0..8 the low ones, of the others the high ones.
//!
//! The last panel of a matrix is padded with zeros.
//!
//! In the file, such a tensor has the type number 0x41500000 plus that of the format, which other programs refuse; its
//! dimensions are those of the matrix, without the padding. The file has the metadata `armlet.pack.version` =
//! [`PACK_VERSION`], a u32, and aligns its tensors to 64 bytes.

mod encode;
mod formats;
#[cfg(test)]
mod golden_tests;
mod matrix;
mod panel;

pub use encode::EncodeError;
pub(crate) use formats::{Block, BlockFormat};
pub use matrix::Matrix;
pub use panel::{Layout, PACK_VERSION, PANEL_ROWS};

/// The levels that kernels share with the specification.
pub(crate) mod tables {
    pub(crate) use super::formats::iq4_nl::LEVELS as IQ4_LEVELS;
    pub(crate) use super::formats::mxfp4::LEVELS as FP4_LEVELS;
}

/// Weights in a block of int8 activations, with which the kernels multiply quantised weights.
pub const BLOCK: usize = 32;

/// What is known of a weight format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatInfo {
    /// The format.
    pub dtype: DType,
    /// Its name in ggml, such as `Q8_0`.
    pub name: &'static str,
    /// Its GGUF type number.
    pub gguf_id: u32,
    /// Weights in a block: 1, or a multiple of [`BLOCK`].
    pub block_len: u16,
    /// Bytes of a block.
    pub block_bytes: u16,
    /// The name of the type of packed matrices of it, if there is a layout for them.
    pub packed: Option<&'static str>,
}

/// Defines [`DType`] and [`FORMATS`], and what depends on the format's type: a row for each.
macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident $text:literal $id:literal $module:ident [$($feature:literal)?] $packed:expr;)*) => {
        /// A weight format that armlet has kernels for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[repr(u16)]
        pub enum DType {
            $($(#[$doc])* $name,)*
        }

        /// Every weight format, in the order of [`DType`].
        pub const FORMATS: [FormatInfo; [$($id),*].len()] = [$(FormatInfo {
            dtype: DType::$name,
            name: $text,
            gguf_id: $id,
            block_len: <formats::$module::$name as BlockFormat>::LEN as u16,
            block_bytes: size_of::<<formats::$module::$name as BlockFormat>::Block>() as u16,
            packed: $packed,
        }),*];

        impl DType {
            /// All formats.
            pub const ALL: [DType; FORMATS.len()] = [$(DType::$name),*];

            /// Whether a build without an operating system asks for formats, and for this one.
            const fn is_selected(self) -> [bool; 2] {
                let this = match self {
                    $(DType::$name => false $(|| cfg!(feature = $feature))?,)*
                };
                [cfg!(any($($(feature = $feature,)?)*)), this]
            }

            /// Dequantises `row` to `out`, up to the end of the shorter of the two.
            pub fn decode_row(self, row: &[u8], out: &mut [f32]) {
                match self {
                    $(DType::$name if const { !DType::$name.is_built() } => {})*
                    $(DType::$name => formats::decode_row::<formats::$module::$name>(row, out),)*
                }
            }
        }

        /// The formats as types.
        pub(crate) mod types {
            $(#[allow(unused_imports, reason = "floats have kernels of their own")]
            pub(crate) use super::formats::$module::$name;)*
        }
    };
}

formats! {
    /// IEEE 754 binary32.
    F32 "F32" 0 float [] None;
    /// IEEE 754 binary16.
    F16 "F16" 1 float [] None;
    /// The upper half of binary32.
    Bf16 "BF16" 30 float [] None;
    /// 8.5 bits a weight: int8, a scale for 32.
    Q8_0 "Q8_0" 8 q8_0 ["q8_0"] Some("Q8_0 in panels");
    /// 4.5 bits: a scale for 32.
    Q4_0 "Q4_0" 2 q4_0 ["q4_0"] Some("Q4_0 in panels");
    /// 5 bits: 4, a scale and a minimum for 32.
    Q4_1 "Q4_1" 3 q4_1 ["q4_1"] Some("Q4_1 in panels");
    /// 5.5 bits: a scale for 32.
    Q5_0 "Q5_0" 6 q5_0 ["q5_0"] Some("Q5_0 in panels");
    /// 6 bits: 5, a scale and a minimum for 32.
    Q5_1 "Q5_1" 7 q5_1 ["q5_1"] None;
    /// 2.625 bits: a scale and a minimum for 16, in blocks of 256.
    Q2K "Q2_K" 10 q2_k ["q2_k"] None;
    /// 3.4375 bits: a scale for 16, in blocks of 256.
    Q3K "Q3_K" 11 q3_k ["q3_k"] None;
    /// 4.5 bits: a scale and a minimum for 32, in blocks of 256.
    Q4K "Q4_K" 12 q4_k ["q4_k"] Some("Q4_K in panels");
    /// 5.5 bits: a scale and a minimum for 32, in blocks of 256.
    Q5K "Q5_K" 13 q5_k ["q5_k"] Some("Q5_K in panels");
    /// 6.5625 bits: a scale for 16, in blocks of 256.
    Q6K "Q6_K" 14 q6_k ["q6_k"] Some("Q6_K in panels");
    /// 4.5 bits: levels of a table, a scale for 32.
    Iq4Nl "IQ4_NL" 20 iq4_nl ["iq4_nl"] Some("IQ4_NL in panels");
    /// 4.25 bits: levels of a table, a scale for 32, in blocks of 256.
    Iq4Xs "IQ4_XS" 23 iq4_xs ["iq4_xs"] None;
    /// 1.6875 bits: trits, a scale for 256.
    Tq1_0 "TQ1_0" 34 tq1_0 ["tq1_0"] None;
    /// 2.0625 bits: trits, a scale for 256.
    Tq2_0 "TQ2_0" 35 tq2_0 ["tq2_0"] None;
    /// 4.25 bits: E2M1, a power of two for 32.
    Mxfp4 "MXFP4" 39 mxfp4 ["mxfp4"] None;
    /// 4.5 bits: E2M1, a scale for 16, and one for the tensor.
    Nvfp4 "NVFP4" 40 nvfp4 ["nvfp4"] None;
    /// 1.125 bits: signs, a scale for 128.
    Q1_0 "Q1_0" 41 q1_0 ["q1_0"] Some("Q1_0 in panels");
    /// 2.25 bits: a scale for 64.
    Q2_0 "Q2_0" 42 q2_0 ["q2_0"] Some("Q2_0 in panels");
}

impl DType {
    /// What is known of it.
    pub const fn info(self) -> &'static FormatInfo {
        // The table is in the order of the variants; the remainder shows the compiler that it has so many.
        &FORMATS[self as usize % FORMATS.len()]
    }

    /// The format with this GGUF type number.
    pub const fn from_gguf(id: u32) -> Option<DType> {
        let mut i = 0;
        while i < FORMATS.len() {
            if FORMATS[i].gguf_id == id {
                return Some(FORMATS[i].dtype);
            }
            i += 1;
        }
        None
    }

    /// Its GGUF type number.
    pub const fn gguf_id(self) -> u32 {
        self.info().gguf_id
    }

    /// Its name in ggml, such as `Q8_0`.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Weights in a block: 1, or a multiple of [`BLOCK`].
    pub const fn block_len(self) -> usize {
        self.info().block_len as usize
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        self.info().block_bytes as usize
    }

    /// Whether the kernels multiply it with int8 activations.
    pub const fn is_quantised(self) -> bool {
        self.block_len() > 1
    }

    /// Whether this build has it. With an operating system it does; else it has floats, and of the others those whose
    /// features are chosen, or Q8_0, Q4_0 and Q4_1 if none is.
    pub const fn is_built(self) -> bool {
        let [any, this] = self.is_selected();
        let default = matches!(self, DType::Q8_0 | DType::Q4_0 | DType::Q4_1);
        // Models of threads multiply nothing: they need not wait for all kernels to be compiled.
        let all = !cfg!(any(target_os = "none", loom));
        all || !self.is_quantised() || if any { this } else { default }
    }

    /// Whether there is a layout for packed matrices of it.
    pub const fn packs(self) -> bool {
        self.info().packed.is_some()
    }

    /// The name of the type of packed matrices of it; its own if there is none.
    pub const fn packed_name(self) -> &'static str {
        match self.info().packed {
            Some(name) => name,
            None => self.info().name,
        }
    }

    /// Bytes of a row of `cols` weights; `None` when `cols` is not a multiple of the block length.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl core::fmt::Display for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn numbers_and_names_go_round() {
        for (t, info) in DType::ALL.into_iter().zip(FORMATS) {
            assert_eq!((info.dtype, t.info()), (t, &info));
            assert_eq!(DType::from_gguf(t.gguf_id()), Some(t));
            assert_eq!(t.row_bytes(512), Some(512 / t.block_len() * t.block_bytes()));
            assert!(t.block_len() == 1 || t.block_len().is_multiple_of(BLOCK));
        }
        assert_eq!(DType::Q8_0.row_bytes(33), None);
        assert_eq!(DType::from_gguf(16), None);
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
