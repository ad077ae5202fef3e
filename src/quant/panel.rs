//! Panels, whose layout [`quant`](super) describes: a naive packer and unpacker, which are the specification.
//!
//! The fields of the GGUF blocks of 16 rows are interleaved. Each row has a SIMD lane, so nothing is summed across lanes, and
//! four quants are one operand of the int8 dot products of every instruction set.

use super::{BLOCK, DType};
use crate::util::SliceExt;

/// Rows of a panel.
pub const PANEL_ROWS: usize = 16;

/// The version of the layout, `armlet.pack.version` in a packed file.
pub const PACK_VERSION: u32 = 1;

/// Whether this build has panels of every format that packs. Without an operating system they are a choice of their own, but
/// for the formats that interleave rows with the same kernels.
const ALL: bool = cfg!(any(not(target_os = "none"), feature = "panels"));

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

    /// Whether this build has kernels for `dtype` in it.
    pub const fn is_built(self, dtype: DType) -> bool {
        let panels = ALL || matches!(dtype, DType::Q8_0 | DType::Q4_0 | DType::Q4_1);
        dtype.is_built() && (matches!(self, Layout::Rows) || (dtype.packs() && panels))
    }

    /// Rows of a matrix of `rows` rows with its padding to whole panels. `None` on overflow.
    pub const fn padded(self, rows: u64) -> Option<u64> {
        match self {
            Layout::Rows => Some(rows),
            Layout::Panels => rows.checked_next_multiple_of(PANEL_ROWS as u64),
        }
    }
}

/// Some bits of a byte: where a GGUF block has the lowest of them, where a packed one has it, and which bits are inverted there.
#[derive(Clone, Copy)]
struct Field {
    from: usize,
    to: usize,
    bits: usize,
    inverted: u8,
}

/// A part of the quants of a unit, of so many bits, a power of two or none: the bit of a block at which that of column 0 is, and
/// how far it is from there to that of column 1, and to that of column 16.
#[derive(Clone, Copy)]
struct Part {
    bits: usize,
    at: usize,
    next: usize,
    last: usize,
}

impl Field {
    /// Copies it from bit `at` of `block` to bit `to` of `out`, which has zeros there. A call: there are many, in little code.
    #[inline(never)]
    fn copy(self, block: &[u8], at: usize, out: &mut [u8], to: usize) {
        let value = block.get(at / 8).copied().unwrap_or(0) >> (at % 8) & (0xff >> (8 - self.bits));
        if let Some(byte) = out.get_mut(to / 8) {
            *byte |= (value ^ self.inverted) << (to % 8);
        }
    }
}

impl DType {
    /// The bytes at which a block has binary16 scales and minima.
    fn scales_at(self) -> &'static [usize] {
        match self {
            DType::Q4_1 | DType::Q4K | DType::Q5K => &[0, 2],
            DType::Q6K => &[208],
            _ => &[0],
        }
    }

    /// Bytes of a packed unit that are scales of its own.
    fn unit_scales(self) -> usize {
        match self {
            DType::Q4K | DType::Q5K => 24,
            DType::Q6K => 32,
            _ => 0,
        }
    }

    /// The parts of the quants of unit `u`, from their lowest bits on; of no bits if there is no second one.
    fn parts(self, u: usize) -> [Part; 2] {
        // Nibbles of 16 bytes, and fields one after another.
        let nibbles = |byte: usize| Part { bits: 4, at: 8 * byte, next: 8, last: 4 };
        let row = |bits: usize, at: usize, next: usize| Part { bits, at, next, last: 16 * next };
        let of_pair = |byte: usize| row(4, 8 * (byte + 32 * (u / 2)) + 4 * (u % 2), 8);
        let none = row(0, 0, 0);
        match self {
            DType::Q8_0 => [row(8, 16, 8), none],
            DType::Q4_0 | DType::Iq4Nl => [nibbles(2), none],
            DType::Q4_1 => [nibbles(4), none],
            DType::Q5_0 => [nibbles(6), row(1, 16, 1)],
            DType::Q4K => [of_pair(16), none],
            DType::Q5K => [of_pair(48), row(1, 8 * 16 + u, 8)],
            DType::Q6K => {
                let low = 8 * (64 * (u / 4) + 32 * (u % 2)) + 4 * (u / 2 % 2);
                [row(4, low, 8), row(2, 8 * (128 + 32 * (u / 4)) + 2 * (u % 4), 8)]
            }
            DType::Q1_0 => [row(1, 16 + 32 * u, 1), none],
            DType::Q2_0 => [row(2, 16 + 64 * u, 2), none],
            _ => [none; 2],
        }
    }

    /// Calls `each` with the fields of row `row` of a packed block.
    #[inline(always)]
    fn fields(self, row: usize, mut each: impl FnMut(Field)) {
        let mut unit = 0;
        for at in self.scales_at() {
            for byte in 0..2 {
                let inverted = if matches!(self, DType::Q4K | DType::Q5K) && [*at, byte] == [2, 1] { 0x80 } else { 0 };
                each(Field { from: 8 * (at + byte), to: 8 * (unit + 2 * row + byte), bits: 8, inverted });
            }
            unit += 2 * PANEL_ROWS;
        }
        for u in 0..self.block_len() / BLOCK {
            let [low, high] = self.parts(u);
            for (Part { bits, at, next, last }, inverted) in [(low, 0), (high, (1 << high.bits) >> 1)] {
                // Four columns of a row are adjacent.
                for k in 0..if bits > 0 { BLOCK / 4 } else { 0 } {
                    let mut from = at + 4 * (k % 4) * next + k / 4 * last;
                    let mut to = 8 * (unit + 64 * (k & (bits - 1)) + 4 * row) + (k & !(bits - 1));
                    for _ in 0..4 {
                        each(Field { from, to, bits, inverted });
                        (from, to) = (from + next, to + 8);
                    }
                }
                unit += 64 * bits;
            }
            self.fields_of_scales(u, 8 * unit, 4 * (row % 4) + row / 4, &mut each);
            unit += self.unit_scales();
        }
    }

    /// The scales that unit `u` has of its own, at bit `to` of a packed block; `place` is the row's.
    fn fields_of_scales(self, u: usize, to: usize, place: usize, each: &mut impl FnMut(Field)) {
        let mut field = |from, to, bits| each(Field { from, to, bits, inverted: 0 });
        match self {
            DType::Q4K | DType::Q5K => {
                let (byte, nibble) = (to + 8 * place, to + 8 * (16 + place % 8) + 4 * (place / 8));
                // The lower four bits of the scale and of the minimum, and their upper two.
                let [s, m, s_high, m_high] = match u {
                    0..4 => [8 * (4 + u), 8 * (8 + u), 8 * (4 + u) + 4, 8 * (8 + u) + 4],
                    _ => [8 * (8 + u), 8 * (8 + u) + 4, 8 * u + 6, 8 * (4 + u) + 6],
                };
                field(s, byte, 4);
                field(s_high, byte + 4, 2);
                field(m_high, byte + 6, 2);
                field(m, nibble, 4);
            }
            DType::Q6K => {
                for half in 0..2 {
                    field(8 * (192 + 2 * u + half), to + 8 * (16 * half + place), 8);
                }
            }
            _ => {}
        }
    }

    /// Packs up to 16 consecutive `rows` of a GGUF file into `panel`, which has 16 times the bytes of a row. Missing rows
    /// become zeros, and so does everything if the format has no panels.
    pub fn pack_panel(self, rows: &[u8], panel: &mut [u8]) {
        panel.fill(0);
        let (row_bytes, bytes) = (panel.len() / PANEL_ROWS, self.block_bytes());
        if !Layout::Panels.is_built(self) || row_bytes < bytes {
            return;
        }
        for (r, row) in rows.chunks_exact(row_bytes).take(PANEL_ROWS).enumerate() {
            for (block, packed) in row.chunks_exact(bytes).zip(panel.chunks_exact_mut(PANEL_ROWS * bytes)) {
                self.fields(r, |field| field.copy(block, field.from, packed, field.to));
            }
        }
    }

    /// Where a block has the pieces that are interleaved as they are, and how long these are: binary16 numbers, then words of
    /// four bytes. None in formats whose fields are taken apart.
    fn pieces(self) -> impl Iterator<Item = (usize, usize)> {
        let (scales, bytes) = match self {
            DType::Q8_0 | DType::Q4_0 => (2, self.block_bytes()),
            DType::Q4_1 => (4, self.block_bytes()),
            _ => (0, 0),
        };
        (0..scales).step_by(2).map(|at| (at, 2)).chain((scales..bytes).step_by(4).map(|at| (at, 4)))
    }

    /// Unpacks one row of `panel`, which may also be a single packed block, to GGUF bytes: the inverse of
    /// [`DType::pack_panel`], up to the end of the shorter of `panel` and `out`. Does nothing if there is no such row.
    pub fn unpack_row(self, panel: &[u8], row: usize, out: &mut [u8]) {
        let bytes = self.block_bytes();
        if !Layout::Panels.is_built(self) || row >= PANEL_ROWS {
            return;
        }
        for (packed, block) in panel.chunks_exact((PANEL_ROWS * bytes).max(1)).zip(out.chunks_exact_mut(bytes.max(1))) {
            block.fill(0);
            for (at, n) in self.pieces() {
                let from = packed.iter().skip(PANEL_ROWS * at + row * n);
                block.iter_mut().skip(at).zip(from).take(n).for_each(|(to, from)| *to = *from);
            }
            if ALL && self.pieces().next().is_none() {
                self.fields(row, |field| field.copy(packed, field.to, block, field.from));
            }
        }
    }

    /// Dequantises one row of a panel to `out`, up to the end of the shorter of the two: the same values as
    /// [`DType::decode_row`] gives for the row before it was packed.
    pub fn decode_panel_row(self, panel: &[u8], row: usize, out: &mut [f32]) {
        let bytes = self.block_bytes();
        if !Layout::Panels.is_built(self) || row >= PANEL_ROWS {
            return;
        }
        let mut block = [0; DType::Q6K.block_bytes()]; // the largest of those that pack
        let block = block.first_n_mut(bytes);
        for (packed, out) in panel.chunks_exact((PANEL_ROWS * bytes).max(1)).zip(out.chunks_mut(self.block_len())) {
            self.unpack_row(packed, row, block);
            self.decode_row(block, out);
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Matrix;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn packed_formats() -> Vec<DType> {
        DType::ALL.into_iter().filter(|dtype| dtype.packs()).collect()
    }

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
            Layout::PANELS | 10,
            Layout::PANELS | 16,
            Layout::PANELS | 30,
            u32::MAX,
        ] {
            assert_eq!(Layout::from_gguf(id), None);
        }
        assert_eq!(Layout::Panels.padded(17), Some(32));
        assert_eq!((Layout::Rows.padded(u64::MAX), Layout::Panels.padded(u64::MAX)), (Some(u64::MAX), None));
    }

    /// Weight `i` of row `row` of a packed block, as the table of `quant` has it, and the sum of magnitudes in it.
    fn weight(dtype: DType, packed: &[u8], row: usize, i: usize) -> (f64, f64) {
        let f16_at = |at: usize| f64::from(half::f16::from_le_bytes([packed[at], packed[at + 1]]).to_f32());
        let (scales, of_unit, planes): (_, _, &[usize]) = match dtype {
            DType::Q8_0 => (1, 0, &[8]),
            DType::Q4_0 | DType::Iq4Nl => (1, 0, &[4]),
            DType::Q4_1 => (2, 0, &[4]),
            DType::Q5_0 => (1, 0, &[4, 1]),
            DType::Q4K => (2, 24, &[4]),
            DType::Q5K => (2, 24, &[4, 1]),
            DType::Q6K => (1, 32, &[4, 2]),
            DType::Q1_0 => (1, 0, &[1]),
            _ => (1, 0, &[2]),
        };
        let (d, m) = (f16_at(2 * row), f16_at(32 * (scales - 1) + 2 * row));
        let unit = &packed[32 * scales + (of_unit + 64 * planes.iter().sum::<usize>()) * (i / 32)..];
        let (k, j, place) = (i % 32 / 4, i % 4, 4 * (row % 4) + row / 4);
        let (mut at, mut low, mut q) = (0, 0, 0);
        for (n, b) in planes.iter().enumerate() {
            let bits = unit[at + 64 * (k % b) + 4 * row + j] >> (b * (k / b)) & (0xff >> (8 - b));
            q |= i32::from(if n == 1 { bits ^ 1 << (b - 1) } else { bits }) << low;
            (at, low) = (at + 64 * b, low + b);
        }
        let own = &unit[at..];
        let of_k = |q: i32| {
            let (a, b) = (own[place], own[16 + place % 8] >> (4 * (place / 8)) & 15);
            let (s, min) = (f64::from(a & 63), f64::from(b | a >> 6 << 4));
            [d * s * f64::from(q), m * min]
        };
        let terms = match dtype {
            DType::Q8_0 => [d * f64::from(q as i8), 0.0],
            DType::Q4_0 => [d * f64::from(q - 8), 0.0],
            DType::Iq4Nl => [d * f64::from(crate::quant::tables::IQ4_LEVELS[q as usize]), 0.0],
            DType::Q4_1 => [d * f64::from(q), m],
            DType::Q5_0 => [d * f64::from(q - 16), 0.0],
            DType::Q4K | DType::Q5K => of_k(q),
            DType::Q6K => [d * f64::from(own[i % 32 / 16 * 16 + place] as i8) * f64::from(q - 32), 0.0],
            DType::Q1_0 => [d * f64::from(2 * q - 1), 0.0],
            _ => [d * f64::from(q - 1), 0.0],
        };
        (terms[0] + terms[1], terms[0].abs() + terms[1].abs())
    }

    #[test]
    fn the_layout_is_the_one_that_is_written_down() {
        for dtype in packed_formats() {
            let (bytes, cols) = (dtype.block_bytes(), dtype.block_len());
            // Byte i of a block of row r: neither r nor i alone gives it.
            let byte = |r: usize, i: usize| (r * 37 + i * 11 + r * i + i / 23 * 77) as u8;
            let mut rows: Vec<u8> = (0..16 * bytes).map(|at| byte(at / bytes, at % bytes)).collect();
            for (r, block) in rows.chunks_mut(bytes).enumerate() {
                for (at, d) in dtype.scales_at().iter().zip([0.37, 1.7]) {
                    let d = half::f16::from_f32(d + r as f32);
                    block[*at..][..2].copy_from_slice(&d.to_le_bytes());
                }
            }
            let mut panel = vec![0; 16 * bytes];
            dtype.pack_panel(&rows, &mut panel);
            for (r, row) in rows.chunks(bytes).enumerate() {
                let mut decoded = vec![0.0; cols];
                dtype.decode_row(row, &mut decoded);
                for (i, w) in decoded.iter().enumerate() {
                    let (expected, magnitude) = weight(dtype, &panel, r, i);
                    let error = (f64::from(*w) - expected).abs();
                    assert!(error <= 1e-6 * magnitude, "{dtype} row {r} column {i}: {expected} is not {w}");
                }
            }
        }
    }

    /// What the kernels that interleave rows rely on: a binary16 or four bytes of quants of each row, one after another.
    #[test]
    fn formats_that_are_interleaved_have_whole_words() {
        for (dtype, scales) in [(DType::Q8_0, 1), (DType::Q4_0, 1), (DType::Q4_1, 2)] {
            let bytes = dtype.block_bytes();
            let rows: Vec<u8> = (0..16 * bytes).map(|i| (i * 7 + i / 19 * 5) as u8).collect();
            let mut panel = vec![0; 16 * bytes];
            dtype.pack_panel(&rows, &mut panel);
            let pieces = (0..scales).map(|s| (2 * s, 2)).chain((2 * scales..bytes).step_by(4).map(|at| (at, 4)));
            let words = pieces.flat_map(|(at, n)| (0..16).flat_map(move |r| (0..n).map(move |i| r * bytes + at + i)));
            assert!(words.map(|at| rows[at]).eq(panel.iter().copied()), "{dtype}");
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
            dtype in prop::sample::select(packed_formats()), rows in 1usize..40, blocks in 1usize..4, seed: u64,
        ) {
            let cols = blocks * dtype.block_len();
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
    fn other_formats_have_no_panels() {
        for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.packs()) {
            let data = vec![0; 16 * dtype.row_bytes(256).unwrap()];
            assert!(Matrix::new_checked(dtype, Layout::Rows, 16, 256, &data).is_some());
            assert!(Matrix::new_checked(dtype, Layout::Panels, 16, 256, &data).is_none());
        }
    }
}
