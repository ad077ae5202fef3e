//! Whether a model's weights are numbers.

use std::path::Path;

use armlet::gguf::Tensor;
use armlet::quant::{Layout, PANEL_ROWS};

use crate::error::Failure;

/// Weights that are decoded at once: some blocks of every format.
const AT_ONCE: usize = 1024;

/// An error that names a tensor of the file at `path` if one of its weights is infinite or not a number.
pub(crate) fn check(tensor: &Tensor<'_>, path: &Path) -> Result<(), Failure> {
    let Some((dtype, layout)) = tensor.kind.format() else { return Ok(()) };
    let bad = match layout {
        Layout::Rows => {
            let mut weights = [0.0; AT_ONCE];
            let bytes = AT_ONCE / dtype.block_len() * dtype.block_bytes();
            tensor.data.chunks(bytes).find_map(|part| {
                let weights = weights.get_mut(..part.len() / dtype.block_bytes() * dtype.block_len())?;
                dtype.decode_row(part, weights);
                not_finite(weights)
            })
        }
        Layout::Panels => {
            let mut weights = vec![0.0; tensor.dims[0] as usize];
            let panel = PANEL_ROWS * dtype.row_bytes(weights.len()).unwrap_or(1);
            tensor.data.chunks(panel).find_map(|panel| {
                (0..PANEL_ROWS).find_map(|row| {
                    dtype.decode_panel_row(panel, row, &mut weights);
                    not_finite(&weights)
                })
            })
        }
    };
    match bad {
        None => Ok(()),
        Some(w) => Err(Failure::file(path, format!("tensor {} has a weight of {w}; the file is damaged", tensor.name))),
    }
}

fn not_finite(weights: &[f32]) -> Option<f32> {
    weights.iter().copied().find(|w| !w.is_finite())
}
