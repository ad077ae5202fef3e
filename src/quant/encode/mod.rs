//! The reference encoders, which `armlet quantize` uses: byte for byte those of llama.cpp, without fused multiply-add.

mod iq4;
mod k_affine;
mod k_symmetric;
mod of_32;
mod pack;
mod search;
mod tiny;

use half::{bf16, f16};

use super::DType;

/// Why a row could not be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum EncodeError {
    /// The row is not a whole number of blocks.
    #[error("a row of {cols} weights is not a whole number of {dtype} blocks")]
    NotBlocks {
        /// The format asked for.
        dtype: DType,
        /// Weights in the row.
        cols: usize,
    },
    /// The output does not have the length of the encoded row.
    #[error("the encoded row has {needed} bytes, but the output has {given}")]
    WrongLength {
        /// Bytes of the encoded row.
        needed: usize,
        /// Bytes of the output.
        given: usize,
    },
    /// There is not one importance for each column.
    #[error("a row of {cols} weights has {given} importances")]
    WrongImportance {
        /// Weights in the row.
        cols: usize,
        /// Importances given.
        given: usize,
    },
}

impl DType {
    /// Encodes `row` into `out`, which must have exactly [`DType::row_bytes`] bytes.
    ///
    /// Weights that are not finite give some block.
    ///
    /// # Errors
    /// [`EncodeError`] if the sizes do not match.
    pub fn encode_row(self, row: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
        self.encode_row_weighted(row, None, out)
    }

    /// Encodes `row` as [`DType::encode_row`] does, minimising the error in the products with activations of which
    /// `importance` has the mean square of each column. Formats whose scale is not searched for do not use it.
    ///
    /// # Errors
    /// [`EncodeError`] if the sizes do not match.
    pub fn encode_row_weighted(
        self,
        row: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), EncodeError> {
        let needed = self.row_bytes(row.len()).ok_or(EncodeError::NotBlocks { dtype: self, cols: row.len() })?;
        if out.len() != needed {
            return Err(EncodeError::WrongLength { needed, given: out.len() });
        }
        if let Some(importance) = importance.filter(|w| w.len() != row.len()) {
            return Err(EncodeError::WrongImportance { cols: row.len(), given: importance.len() });
        }
        let mean_square = importance.map(|_| search::squares(row) / row.len() as f32);
        match self {
            DType::F32 => each(row, out, f32::to_le_bytes),
            DType::F16 => each(row, out, |x| f16::from_f32(x).to_le_bytes()),
            DType::Bf16 => each(row, out, |x| bf16::from_f32(x).to_le_bytes()),
            DType::Q8_0 => blocks(row, None, out, |x, _| of_32::q8_0(x)),
            DType::Q4_0 => blocks(row, importance, out, |x, w| of_32::q4_0(x, w.zip(mean_square))),
            DType::Q4_1 => blocks(row, importance, out, |x, w| of_32::q4_1(x, w.zip(mean_square))),
            DType::Q5_0 => blocks(row, importance, out, |x, w| of_32::q5_0(x, w.zip(mean_square))),
            DType::Q5_1 => blocks(row, importance, out, |x, w| of_32::q5_1(x, w.zip(mean_square))),
            DType::Q2K => blocks(row, importance, out, k_affine::q2_k),
            DType::Q3K => blocks(row, importance, out, k_symmetric::q3_k),
            DType::Q4K => blocks(row, importance, out, k_affine::q4_k),
            DType::Q5K => blocks(row, importance, out, k_affine::q5_k),
            DType::Q6K => blocks(row, importance, out, k_symmetric::q6_k),
            DType::Iq4Nl => blocks(row, importance, out, iq4::iq4_nl),
            DType::Iq4Xs => blocks(row, importance, out, iq4::iq4_xs),
            DType::Tq1_0 => blocks(row, None, out, |x, _| tiny::tq1_0(x)),
            DType::Tq2_0 => blocks(row, None, out, |x, _| tiny::tq2_0(x)),
            DType::Mxfp4 => blocks(row, None, out, |x, _| tiny::mxfp4(x)),
            DType::Nvfp4 => blocks(row, None, out, |x, _| tiny::nvfp4(x)),
            DType::Q1_0 => blocks(row, None, out, |x, _| tiny::q1_0(x)),
            DType::Q2_0 => blocks(row, None, out, |x, _| tiny::q2_0(x)),
        }
        Ok(())
    }
}

fn each<const B: usize>(row: &[f32], out: &mut [u8], encode: impl Fn(f32) -> [u8; B]) {
    for (x, out) in row.iter().zip(out.as_chunks_mut::<B>().0) {
        *out = encode(*x);
    }
}

/// Encodes blocks of `N` weights, with their importance if there is any, to `B` bytes each.
fn blocks<const N: usize, const B: usize>(
    row: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    encode: impl Fn(&[f32; N], Option<&[f32; N]>) -> [u8; B],
) {
    let mut importance = importance.map(|w| w.as_chunks::<N>().0.iter());
    for (x, out) in row.as_chunks::<N>().0.iter().zip(out.as_chunks_mut::<B>().0) {
        *out = encode(x, importance.as_mut().and_then(Iterator::next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_stays_within_half_a_step() {
        let row: [f32; 64] = core::array::from_fn(|i| (i as f32 * 0.37 - 9.0) * if i % 3 == 0 { -1.0 } else { 1.0 });
        for (dtype, bound) in [
            (DType::F32, 0.0),
            (DType::F16, 0.01),
            (DType::Bf16, 0.06),
            (DType::Q8_0, 0.06),
            (DType::Q4_0, 1.9),
            (DType::Q4_1, 1.0),
        ] {
            let mut bytes = vec![0; dtype.row_bytes(row.len()).unwrap()];
            dtype.encode_row(&row, &mut bytes).unwrap();
            let mut back = [0.0; 64];
            dtype.decode_row(&bytes, &mut back);
            for (a, b) in row.iter().zip(back) {
                assert!((a - b).abs() <= bound, "{dtype}: {a} became {b}");
            }
        }
    }

    #[test]
    fn refuses_wrong_sizes() {
        assert!(matches!(DType::Q8_0.encode_row(&[0.0; 31], &mut []), Err(EncodeError::NotBlocks { .. })));
        assert!(matches!(DType::F16.encode_row(&[0.0; 2], &mut [0; 3]), Err(EncodeError::WrongLength { .. })));
        let short = DType::Q8_0.encode_row_weighted(&[0.0; 32], Some(&[1.0; 31]), &mut [0; 34]);
        assert!(matches!(short, Err(EncodeError::WrongImportance { .. })));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let extremes = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, f32::from_bits(1), 0.0];
        for (x, y) in extremes.iter().flat_map(|x| extremes.map(|y| (*x, y))) {
            let row: [f32; 256] = core::array::from_fn(|i| if i % 3 == 0 { x } else { y });
            for dtype in DType::ALL {
                let mut bytes = vec![0; dtype.row_bytes(256).unwrap()];
                dtype.encode_row(&row, &mut bytes).unwrap();
                for importance in extremes {
                    dtype.encode_row_weighted(&row, Some(&[importance; 256]), &mut bytes).unwrap();
                    dtype.encode_row_weighted(&[0.5; 256], Some(&row), &mut bytes).unwrap();
                }
            }
        }
    }

    /// Whatever the bits of weights and importance are, and in sums that overflow.
    #[test]
    fn any_bits_give_a_block() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f32::from_bits((state >> 32) as u32)
        };
        for _ in 0..100 {
            let (row, importance): ([f32; 256], [f32; 256]) =
                (core::array::from_fn(|_| next()), core::array::from_fn(|_| next()));
            for dtype in DType::ALL {
                let mut bytes = vec![0; dtype.row_bytes(256).unwrap()];
                dtype.encode_row(&row, &mut bytes).unwrap();
                dtype.encode_row_weighted(&row, Some(&importance), &mut bytes).unwrap();
            }
        }
    }
}
