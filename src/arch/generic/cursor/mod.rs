//! Cursors over rows of weights, tokens and rows of K and V: the only pointers of the generic algorithms.
//!
//! Each stream is a pointer of its own that an iteration advances, because that costs nothing: an ARM load advances its
//! pointer itself (`ldp q0, q1, [x0], #32`), while an index costs an addition for each row. Lengths are checked once, when
//! a cursor is made.

mod prefetch;
mod rows;
mod strided;
mod tokens;
mod zip;

pub(super) use prefetch::Prefetcher;
pub(super) use rows::{PanelCursor, RowCursor, RowQuad, RowQuads};
pub(super) use strided::Strided;
pub(super) use tokens::{TokenCursor, token_blocks};
pub(super) use zip::Zip;
