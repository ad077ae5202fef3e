//! A matrix of weights where it lies in the file.

use super::DType;

/// Borrowed weights, `(rows, cols)` row-major, whose length has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'m> {
    dtype: DType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: &'m [u8],
}

impl<'m> Matrix<'m> {
    /// A matrix over `data`; `None` unless `cols` is a whole number of blocks and `data` has exactly that many bytes.
    pub fn new_checked(dtype: DType, rows: usize, cols: usize, data: &'m [u8]) -> Option<Self> {
        let row_bytes = dtype.row_bytes(cols)?;
        (rows.checked_mul(row_bytes)? == data.len()).then_some(Self { dtype, rows, cols, row_bytes, data })
    }

    /// Its format.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Output size of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input size of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All its bytes.
    pub fn bytes(&self) -> &'m [u8] {
        self.data
    }

    /// The bytes of row `r`; empty when there is no such row.
    #[inline(always)]
    pub fn row(&self, r: usize) -> &'m [u8] {
        self.data.get(r * self.row_bytes..).and_then(|d| d.get(..self.row_bytes)).unwrap_or(&[])
    }
}
