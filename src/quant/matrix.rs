//! A weight matrix that is used in place, in the file.

use super::{DType, Layout, PANEL_ROWS};
use crate::storage::unpadded;

/// Borrowed weights, `(rows, cols)`, whose length has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'m> {
    dtype: DType,
    layout: Layout,
    /// As u32s, so that the struct has no padding.
    row_bytes: u32,
    rows: u32,
    scale: f32,
    cols: usize,
    data: &'m [u8],
}

impl Default for Matrix<'_> {
    /// No rows.
    fn default() -> Self {
        Self { dtype: DType::F32, layout: Layout::Rows, row_bytes: 0, rows: 0, scale: 1.0, cols: 0, data: &[] }
    }
}

unpadded!(Matrix<'_>: DType, Layout, [u32; 2], f32, usize, &[u8]);

impl<'m> Matrix<'m> {
    /// A matrix over `data`; `None` unless `cols` is a whole number of blocks, `data` has exactly the bytes of the rows
    /// (in panels: of whole panels), and this build has the format in that layout.
    pub fn new_checked(dtype: DType, layout: Layout, rows: usize, cols: usize, data: &'m [u8]) -> Option<Self> {
        let bytes = dtype.row_bytes(cols).filter(|_| layout.is_built(dtype))?;
        let row_bytes = u32::try_from(bytes).ok()?;
        let padded = usize::try_from(layout.padded(rows as u64)?).ok()?;
        let whole = padded.checked_mul(bytes)? == data.len();
        let rows = u32::try_from(rows).ok()?;
        whole.then_some(Self { dtype, layout, row_bytes, rows, scale: 1.0, cols, data })
    }

    /// The same with a [scale](Matrix::scale).
    #[must_use]
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// Its format.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its layout.
    #[inline(always)]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Output size of the matrix.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// What the model multiplies the matrix's products with: 1, unless the file has a scale of the whole tensor, which
    /// NVFP4 is meant to have. Kernels and [`decode_row`](Matrix::decode_row) know nothing of it.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Input size of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All its bytes.
    pub fn bytes(&self) -> &'m [u8] {
        self.data
    }

    /// The bytes of row `r`; empty if there is no such row, or the matrix is in panels.
    #[inline(always)]
    pub fn row(&self, r: usize) -> &'m [u8] {
        if self.layout == Layout::Rows { self.nth(r, self.row_bytes as usize) } else { &[] }
    }

    /// Bytes of a row.
    #[inline(always)]
    pub fn row_bytes(&self) -> usize {
        self.row_bytes as usize
    }

    /// The bytes of the rows `range`, one after another; empty if they do not all exist, or the matrix is in panels.
    #[inline(always)]
    pub fn rows_bytes(&self, range: core::ops::Range<usize>) -> &'m [u8] {
        let bytes = self.row_bytes as usize;
        let (Some(start), Some(end)) = (range.start.checked_mul(bytes), range.end.checked_mul(bytes)) else {
            return &[];
        };
        if self.layout == Layout::Rows { self.data.get(start..end).unwrap_or(&[]) } else { &[] }
    }

    /// The rows `range` as a matrix; `None` if they do not all exist, or the matrix is in panels and they are not whole ones.
    pub fn rows_of(&self, range: core::ops::Range<usize>) -> Option<Self> {
        let whole = |row: usize| row == self.rows() || self.layout == Layout::Rows || row.is_multiple_of(PANEL_ROWS);
        if range.start > range.end || range.end > self.rows() || !whole(range.start) || !whole(range.end) {
            return None;
        }
        let padded = |row: usize| usize::try_from(self.layout.padded(row as u64)?).ok()?.checked_mul(self.row_bytes());
        let data = self.data.get(padded(range.start)?..padded(range.end)?)?;
        Self::new_checked(self.dtype, self.layout, range.len(), self.cols, data)
    }

    /// The bytes of panel `p`, 16 times those of a row; empty if there is no such panel, or the matrix is not in panels.
    #[inline(always)]
    pub fn panel(&self, p: usize) -> &'m [u8] {
        let bytes = (self.row_bytes as usize).saturating_mul(PANEL_ROWS);
        if self.layout == Layout::Panels { self.nth(p, bytes) } else { &[] }
    }

    /// Dequantises row `r` to `out`, up to the end of the shorter of the two; does nothing if there is no such row.
    #[inline(never)]
    pub fn decode_row(&self, r: usize, out: &mut [f32]) {
        match self.layout {
            Layout::Rows => self.dtype.decode_row(self.row(r), out),
            Layout::Panels if r < self.rows() => {
                self.dtype.decode_panel_row(self.panel(r / PANEL_ROWS), r % PANEL_ROWS, out);
            }
            Layout::Panels => {}
        }
    }

    #[inline(always)]
    fn nth(&self, i: usize, bytes: usize) -> &'m [u8] {
        i.checked_mul(bytes).and_then(|at| self.data.get(at..)).and_then(|d| d.get(..bytes)).unwrap_or(&[])
    }
}
