//! Panels, whose layout [`quant`](super) describes: a naive packer and unpacker, which are the specification.
//!
//! Each piece of a GGUF block (an f16, or four bytes of quants) stays whole, and the pieces of 16 rows are adjacent. Each
//! row has a SIMD lane, so nothing is summed across lanes, and four quants are one operand of the int8 dot products of
//! every instruction set.

use super::{BLOCK, DType};
use crate::util::SliceExt;

/// Rows of a panel.
pub const PANEL_ROWS: usize = 16;

/// The version of the layout, `armlet.pack.version` in a packed file.
pub const PACK_VERSION: u32 = 1;

/// Layout of a matrix in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u16)]
pub enum Layout {
    /// Row after row, as in GGUF.
    Rows,
    /// Panel after panel; for some quantised formats.
    Panels,
}

impl Layout {
    /// What is added to the type number of a format: "PA", beyond the numbers of ggml, so that other programs refuse such a
    /// tensor instead of misreading it as rows.
    const PANELS: u32 = 0x4150_0000;

    /// The GGUF type number of `dtype` in this layout; `None` if the format has no such layout.
    pub const fn gguf_id(self, dtype: DType) -> Option<u32> {
        match self {
            Layout::Rows => Some(dtype.gguf_id()),
            Layout::Panels if dtype.packs() => Some(Self::PANELS | dtype.gguf_id()),
            Layout::Panels => None,
        }
    }

    /// The format and the layout with this GGUF type number.
    pub const fn from_gguf(id: u32) -> Option<(DType, Layout)> {
        if let Some(dtype) = DType::from_gguf(id) {
            return Some((dtype, Layout::Rows));
        }
        match DType::from_gguf(id ^ Self::PANELS) {
            Some(dtype) if dtype.packs() => Some((dtype, Layout::Panels)),
            _ => None,
        }
    }

    /// Rows of a matrix of `rows` rows with its padding to whole panels. `None` on overflow.
    pub const fn padded(self, rows: u64) -> Option<u64> {
        match self {
            Layout::Rows => Some(rows),
            Layout::Panels => rows.checked_next_multiple_of(PANEL_ROWS as u64),
        }
    }
}

impl DType {
    /// (offset, length) of the pieces of a block that stay whole.
    fn pieces(self) -> impl Iterator<Item = (usize, usize)> {
        let scales = if self == DType::Q4_1 { 4 } else { 2 };
        let quants = (scales..self.block_bytes()).step_by(4).map(|at| (at, 4));
        (0..scales).step_by(2).map(|at| (at, 2)).chain(quants)
    }

    /// Packs up to 16 consecutive `rows` of a GGUF file into `panel`, which has 16 times the bytes of a row. Missing rows
    /// become zeros, and so does everything if the format has no panels.
    pub fn pack_panel(self, rows: &[u8], panel: &mut [u8]) {
        panel.fill(0);
        let (row_bytes, bytes) = (panel.len() / PANEL_ROWS, self.block_bytes());
        if !self.packs() || row_bytes < bytes {
            return;
        }
        for (r, row) in rows.chunks_exact(row_bytes).take(PANEL_ROWS).enumerate() {
            for (block, packed) in row.chunks_exact(bytes).zip(panel.chunks_exact_mut(PANEL_ROWS * bytes)) {
                for (at, n) in self.pieces() {
                    packed[PANEL_ROWS * at + r * n..][..n].copy_from_slice(&block[at..][..n]);
                }
            }
        }
    }

    /// Unpacks one row of `panel`, which may also be a single packed block, to GGUF bytes: the inverse of
    /// [`DType::pack_panel`], up to the end of the shorter of `panel` and `out`. Does nothing if there is no such row.
    pub fn unpack_row(self, panel: &[u8], row: usize, out: &mut [u8]) {
        let bytes = self.block_bytes();
        if !self.packs() || row >= PANEL_ROWS {
            return;
        }
        for (packed, block) in panel.chunks_exact((PANEL_ROWS * bytes).max(1)).zip(out.chunks_exact_mut(bytes.max(1))) {
            for (at, n) in self.pieces() {
                let from = packed.iter().skip(PANEL_ROWS * at + row * n);
                block.iter_mut().skip(at).zip(from).take(n).for_each(|(to, from)| *to = *from);
            }
        }
    }

    /// Dequantises one row of a panel to `out`, up to the end of the shorter of the two: the same values as
    /// [`DType::decode_row`] gives for the row before it was packed.
    pub fn decode_panel_row(self, panel: &[u8], row: usize, out: &mut [f32]) {
        let bytes = self.block_bytes();
        if !self.packs() || row >= PANEL_ROWS {
            return;
        }
        let mut block = [0; DType::Q8_0.block_bytes()]; // the largest of those that pack
        let block = block.first_n_mut(bytes);
        for (packed, out) in panel.chunks_exact((PANEL_ROWS * bytes).max(1)).zip(out.chunks_mut(BLOCK)) {
            self.unpack_row(packed, row, block);
            self.decode_row(block, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Matrix;
    use proptest::prelude::*;
    use std::vec::Vec;

    const QUANTISED: [DType; 3] = [DType::Q8_0, DType::Q4_0, DType::Q4_1];

    /// A whole matrix.
    fn pack(dtype: DType, row_bytes: usize, data: &[u8]) -> Vec<u8> {
        let panel = |rows| {
            let mut panel = vec![0xaa; PANEL_ROWS * row_bytes];
            dtype.pack_panel(rows, &mut panel);
            panel
        };
        data.chunks(PANEL_ROWS * row_bytes).flat_map(panel).collect()
    }

    #[test]
    fn numbers_go_round_and_are_not_ggmls() {
        for dtype in DType::ALL {
            assert_eq!(Layout::from_gguf(dtype.gguf_id()), Some((dtype, Layout::Rows)));
            let panels = Layout::Panels.gguf_id(dtype);
            assert_eq!(panels.is_some(), dtype.packs());
            if let Some(id) = panels {
                assert_eq!(Layout::from_gguf(id), Some((dtype, Layout::Panels)));
                assert!(id > 1 << 16 && DType::from_gguf(id).is_none());
            }
        }
        for id in [
            Layout::PANELS,
            Layout::PANELS | 1,
            Layout::PANELS | 12,
            Layout::PANELS | 16,
            Layout::PANELS | 30,
            u32::MAX,
        ] {
            assert_eq!(Layout::from_gguf(id), None);
        }
        assert_eq!(Layout::Panels.padded(17), Some(32));
        assert_eq!((Layout::Rows.padded(u64::MAX), Layout::Panels.padded(u64::MAX)), (Some(u64::MAX), None));
    }

    /// The table of `quant`, entry by entry.
    #[test]
    fn the_layout_is_the_one_that_is_written_down() {
        for dtype in QUANTISED {
            let bytes = dtype.block_bytes();
            // Byte i of a block of row r: neither r nor i alone gives it.
            let byte = |r: usize, i: usize| (r * 37 + i * 11 + r * i) as u8;
            let rows: Vec<u8> = (0..16 * bytes).map(|at| byte(at / bytes, at % bytes)).collect();
            let mut panel = vec![0; 16 * bytes];
            dtype.pack_panel(&rows, &mut panel);
            let mut at = panel.iter().copied();
            for scale in 0..if dtype == DType::Q4_1 { 2 } else { 1 } {
                for r in 0..16 {
                    assert_eq!(at.next(), Some(byte(r, 2 * scale)));
                    assert_eq!(at.next(), Some(byte(r, 2 * scale + 1)));
                }
            }
            let (quants, groups) = match dtype {
                DType::Q8_0 => (2, 8),
                DType::Q4_0 => (2, 4),
                _ => (4, 4),
            };
            for k in 0..groups {
                for r in 0..16 {
                    for j in 0..4 {
                        assert_eq!(at.next(), Some(byte(r, quants + 4 * k + j)), "{dtype} {k} {r} {j}");
                    }
                }
            }
            assert_eq!(at.next(), None);
        }
    }

    #[test]
    fn sizes_that_do_not_fit_do_no_harm() {
        for dtype in DType::ALL {
            for len in [0, 1, 15, 16, 287, 288, 289, 543, 545, 1000] {
                let mut panel = vec![1; len];
                dtype.pack_panel(&[7; 700], &mut panel);
                dtype.pack_panel(&[], &mut panel);
                assert!(panel.iter().all(|b| *b == 0));
                for row in [0, 15, 16, usize::MAX] {
                    dtype.unpack_row(&panel, row, &mut [0; 100]);
                    dtype.decode_panel_row(&panel, row, &mut [0.0; 100]);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(
            dtype in prop::sample::select(&QUANTISED[..]), rows in 1usize..50, blocks in 1usize..5, seed: u64,
        ) {
            let cols = blocks * BLOCK;
            let row_bytes = dtype.row_bytes(cols).unwrap();
            let mut state = seed | 1;
            let data: Vec<u8> = (0..rows * row_bytes)
                .map(|_| {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            let packed = pack(dtype, row_bytes, &data);
            prop_assert_eq!(packed.len(), rows.div_ceil(16) * 16 * row_bytes);
            let plain = Matrix::new_checked(dtype, Layout::Rows, rows, cols, &data).unwrap();
            let m = Matrix::new_checked(dtype, Layout::Panels, rows, cols, &packed).unwrap();
            prop_assert!(m.row(0).is_empty() && plain.panel(0).is_empty());
            prop_assert!(m.panel(rows.div_ceil(16)).is_empty() && m.panel(usize::MAX).is_empty());
            for r in 0..rows {
                let (panel, mut bytes) = (m.panel(r / 16), vec![0; row_bytes]);
                prop_assert_eq!(panel.len(), 16 * row_bytes);
                dtype.unpack_row(panel, r % 16, &mut bytes);
                prop_assert_eq!(&bytes[..], plain.row(r));

                let mut expected = vec![1.0; cols];
                dtype.decode_row(plain.row(r), &mut expected);
                for matrix in [&plain, &m] {
                    let mut out = vec![2.0; cols];
                    matrix.decode_row(r, &mut out);
                    // By their bits, for a scale may be a NaN.
                    prop_assert!(out.iter().map(|x| x.to_bits()).eq(expected.iter().map(|x| x.to_bits())));
                }
            }
            // A row of the padding is none of the matrix.
            for matrix in [&plain, &m] {
                let mut out = [3.0; BLOCK];
                matrix.decode_row(rows, &mut out);
                prop_assert_eq!(out, [3.0; BLOCK]);
            }
            for wrong in [rows - 1, rows + 16] {
                prop_assert!(Matrix::new_checked(dtype, Layout::Panels, wrong, cols, &packed).is_none()
                    || wrong.div_ceil(16) == rows.div_ceil(16));
            }
            prop_assert!(Matrix::new_checked(dtype, Layout::Panels, rows, cols, &packed[1..]).is_none());
        }
    }

    #[test]
    fn floats_have_no_panels() {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let data = vec![0; 16 * dtype.row_bytes(32).unwrap()];
            assert!(Matrix::new_checked(dtype, Layout::Rows, 16, 32, &data).is_some());
            assert!(Matrix::new_checked(dtype, Layout::Panels, 16, 32, &data).is_none());
        }
    }
}
