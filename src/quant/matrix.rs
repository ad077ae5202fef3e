//! A matrix of weights where it lies in the file.

use super::DType;
use crate::storage::unpadded;

/// Borrowed weights, `(rows, cols)` row-major, whose length has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'m> {
    dtype: DType,
    rows: usize,
    cols: usize,
    /// At most 2³² − 1, which leaves no padding beside the format.
    row_bytes: u32,
    data: &'m [u8],
}

unpadded!(Matrix<'_>: DType, u32, usize, usize, &[u8]);

impl<'m> Matrix<'m> {
    /// A matrix over `data`; `None` unless `cols` is a whole number of blocks and `data` has exactly that many bytes.
    pub fn new_checked(dtype: DType, rows: usize, cols: usize, data: &'m [u8]) -> Option<Self> {
        let bytes = dtype.row_bytes(cols)?;
        let row_bytes = u32::try_from(bytes).ok()?;
        (rows.checked_mul(bytes)? == data.len()).then_some(Self { dtype, rows, cols, row_bytes, data })
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
        let bytes = self.row_bytes as usize;
        r.checked_mul(bytes).and_then(|at| self.data.get(at..)).and_then(|d| d.get(..bytes)).unwrap_or(&[])
    }
}
