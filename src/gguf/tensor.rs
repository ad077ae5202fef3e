//! Tensor descriptions, and the table of every GGUF tensor type.

use super::cursor::Cursor;
use super::{GgufError, Problem};
use crate::quant::{DType, Layout};

/// Longest tensor name plus one, as in ggml (rule T1).
const NAME_CAP: usize = 64;

/// A GGUF tensor type: every type of ggml, whether armlet has kernels for it or not, and armlet's own for packed
/// matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TensorType {
    /// Its number in the file.
    pub id: u32,
    /// Its name in ggml.
    pub name: &'static str,
    /// Weights in a block.
    pub block_len: u32,
    /// Bytes of a block.
    pub block_bytes: u32,
}

/// The types of ggml that armlet has no kernels for; block sizes from `ggml/src/ggml-common.h` of llama.cpp.
const FOREIGN: [TensorType; 14] = [
    tensor_type(9, "Q8_1", 32, 36),
    tensor_type(15, "Q8_K", 256, 292),
    tensor_type(16, "IQ2_XXS", 256, 66),
    tensor_type(17, "IQ2_XS", 256, 74),
    tensor_type(18, "IQ3_XXS", 256, 98),
    tensor_type(19, "IQ1_S", 256, 50),
    tensor_type(21, "IQ3_S", 256, 110),
    tensor_type(22, "IQ2_S", 256, 82),
    tensor_type(24, "I8", 1, 1),
    tensor_type(25, "I16", 1, 2),
    tensor_type(26, "I32", 1, 4),
    tensor_type(27, "I64", 1, 8),
    tensor_type(28, "F64", 1, 8),
    tensor_type(29, "IQ1_M", 256, 56),
];

const fn tensor_type(id: u32, name: &'static str, block_len: u32, block_bytes: u32) -> TensorType {
    TensorType { id, name, block_len, block_bytes }
}

impl TensorType {
    fn from_id(id: u32) -> Option<Self> {
        if let Some((dtype, layout)) = Layout::from_gguf(id) {
            let name = match layout {
                Layout::Rows => dtype.name(),
                Layout::Panels => dtype.packed_name(),
            };
            return Some(tensor_type(id, name, dtype.block_len() as u32, dtype.block_bytes() as u32));
        }
        FOREIGN.iter().find(|t| t.id == id).copied()
    }

    /// Format and layout, if this build of armlet has kernels for it.
    pub fn format(self) -> Option<(DType, Layout)> {
        Layout::from_gguf(self.id).filter(|(dtype, layout)| layout.is_built(*dtype))
    }

    /// Why it cannot be used.
    pub fn why_not(self) -> &'static str {
        match Layout::from_gguf(self.id) {
            Some((dtype, _)) if !dtype.is_built() => "this build leaves out; choose the feature of that name",
            Some((dtype, layout)) if !layout.is_built(dtype) => "this build leaves out; choose the feature panels",
            _ => "is not supported here; requantise the model, for example to Q4_K_M or Q8_0",
        }
    }

    /// Whether it is the type of a packed matrix.
    pub fn is_packed(self) -> bool {
        matches!(Layout::from_gguf(self.id), Some((_, Layout::Panels)))
    }
}

impl core::fmt::Display for TensorType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}

/// A tensor: its description, and its bytes in the file.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type.
    pub kind: TensorType,
    /// Number of dimensions, 1 to 4.
    pub n_dims: usize,
    /// Its sizes, the contiguous one first; 1 beyond `n_dims`.
    pub dims: [u64; 4],
    /// Byte offset of its data from the start of all tensor data.
    pub offset: u64,
    /// Its data.
    pub data: &'a [u8],
}

impl Tensor<'_> {
    /// Number of weights.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }
}

/// A tensor's description and size in bytes, before its offset has been checked.
pub(super) struct Info<'a> {
    pub(super) name: &'a str,
    pub(super) kind: TensorType,
    pub(super) n_dims: usize,
    pub(super) dims: [u64; 4],
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// Reads one tensor description (rules T1 to T6).
pub(super) fn info<'a>(cursor: &mut Cursor<'a>) -> Result<Info<'a>, GgufError> {
    let start = *cursor;
    let name = cursor.string(NAME_CAP - 1).map_err(|e| match e.problem {
        Problem::StringTooLong => start.error(Problem::TensorName),
        _ => e,
    })?;
    let name = core::str::from_utf8(name).map_err(|_| start.error(Problem::TensorName))?;
    let (n_dims, dims) = dims(cursor)?;
    let at_kind = *cursor;
    let id = cursor.u32()?;
    let kind = TensorType::from_id(id).ok_or(at_kind.error(Problem::TensorType(id)))?;
    if kind.is_packed() && n_dims != 2 {
        return Err(start.error(Problem::PackedShape));
    }
    let bytes = size(kind, dims).ok_or(start.error(Problem::TensorShape))?;
    let offset = cursor.u64()?;
    Ok(Info { name, kind, n_dims, dims, offset, bytes })
}

/// Reads a description that has been checked, with its data.
#[inline(never)]
pub(super) fn read<'a>(cursor: &mut Cursor<'a>, data: &'a [u8]) -> Option<Tensor<'a>> {
    let t = info(cursor).ok()?;
    // Checked to be within the data, so these casts are exact.
    let data = data.get(t.offset as usize..)?.get(..t.bytes as usize)?;
    Some(Tensor { name: t.name, kind: t.kind, n_dims: t.n_dims, dims: t.dims, offset: t.offset, data })
}

/// Skips a description that has been checked; returns its name.
#[inline(never)]
pub(super) fn skip<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], GgufError> {
    let name = cursor.string(NAME_CAP - 1)?;
    let n_dims = cursor.u32()?.min(4) as usize;
    cursor.take(n_dims * 8 + 12)?;
    Ok(name)
}

fn dims(cursor: &mut Cursor<'_>) -> Result<(usize, [u64; 4]), GgufError> {
    let start = *cursor;
    let n_dims = cursor.u32()? as usize;
    let mut dims = [1; 4];
    let used = dims.get_mut(..n_dims).filter(|d| !d.is_empty()).ok_or(start.error(Problem::TensorShape))?;
    for dim in used {
        *dim = cursor.u64()?;
        if *dim == 0 {
            return Err(start.error(Problem::TensorShape));
        }
    }
    Ok((n_dims, dims))
}

/// Bytes of a tensor, including the padding of its last panel; `None` on overflow, or if a row is not a whole number of
/// blocks.
fn size(kind: TensorType, dims: [u64; 4]) -> Option<u64> {
    let [cols, mut rows @ ..] = dims;
    if kind.is_packed() {
        rows[0] = Layout::Panels.padded(rows[0])?;
    }
    if !cols.is_multiple_of(kind.block_len.into()) {
        return None;
    }
    let row = cols.checked_div(kind.block_len.into())?.checked_mul(kind.block_bytes.into())?;
    // The number of weights must not overflow either: it is used in reports.
    dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d))?;
    rows.iter().try_fold(row, |n, d| n.checked_mul(*d)).filter(|n| *n <= i64::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_in_one_table() {
        for dtype in DType::ALL {
            let kind = TensorType::from_id(dtype.gguf_id()).unwrap();
            assert_eq!(kind.name, dtype.name());
            assert_eq!((kind.block_len as usize, kind.block_bytes as usize), (dtype.block_len(), dtype.block_bytes()));
            assert_eq!(kind.format(), Some((dtype, Layout::Rows)));
            let Some(id) = Layout::Panels.gguf_id(dtype) else { continue };
            let packed = TensorType::from_id(id).unwrap();
            assert_eq!(packed.name, std::format!("{dtype} in panels"));
            assert_eq!((packed.block_len, packed.block_bytes), (kind.block_len, kind.block_bytes));
            assert_eq!(packed.format(), Some((dtype, Layout::Panels)));
        }
        for foreign in FOREIGN {
            assert_eq!((DType::from_gguf(foreign.id), foreign.format()), (None, None));
            assert_eq!(TensorType::from_id(foreign.id), Some(foreign));
        }
    }
}
