//! The reference encoders, which `armlet quantize` uses: bit for bit those of llama.cpp.

use half::{bf16, f16};

use super::{BLOCK, DType};

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
    /// There is no encoder.
    #[error("{0} cannot be written")]
    NoEncoder(DType),
    /// The output does not have the length of the encoded row.
    #[error("the encoded row has {needed} bytes, but the output has {given}")]
    WrongLength {
        /// Bytes of the encoded row.
        needed: usize,
        /// Bytes of the output.
        given: usize,
    },
}

impl DType {
    /// Encodes `row` into `out`, which must have exactly [`DType::row_bytes`] bytes.
    ///
    /// # Errors
    /// [`EncodeError`] if the sizes do not match.
    pub fn encode_row(self, row: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
        let needed = self.row_bytes(row.len()).ok_or(EncodeError::NotBlocks { dtype: self, cols: row.len() })?;
        if out.len() != needed {
            return Err(EncodeError::WrongLength { needed, given: out.len() });
        }
        match self {
            DType::F32 => each(row, out, f32::to_le_bytes),
            DType::F16 => each(row, out, |x| f16::from_f32(x).to_le_bytes()),
            DType::Bf16 => each(row, out, |x| bf16::from_f32(x).to_le_bytes()),
            DType::Q8_0 => blocks::<34>(row, out, q8_0),
            DType::Q4_0 => blocks::<18>(row, out, q4_0),
            DType::Q4_1 => blocks::<20>(row, out, q4_1),
            _ => return Err(EncodeError::NoEncoder(self)),
        }
        Ok(())
    }
}

fn each<const B: usize>(row: &[f32], out: &mut [u8], encode: impl Fn(f32) -> [u8; B]) {
    for (x, out) in row.iter().zip(out.as_chunks_mut::<B>().0) {
        *out = encode(*x);
    }
}

fn blocks<const B: usize>(row: &[f32], out: &mut [u8], encode: impl Fn(&[f32; BLOCK]) -> [u8; B]) {
    for (x, out) in row.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<B>().0) {
        *out = encode(x);
    }
}

fn reciprocal(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn q8_0(x: &[f32; BLOCK]) -> [u8; 34] {
    let largest = x.iter().fold(0.0f32, |m, v| m.max(libm::fabsf(*v)));
    let d = largest / 127.0;
    let inverse = reciprocal(d);
    let mut out = [0; 34];
    let (scale, quants) = out.split_at_mut(2);
    scale.copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (q, v) in quants.iter_mut().zip(x) {
        *q = (libm::roundf(v * inverse) as i8).cast_unsigned();
    }
    out
}

/// The scale maps the weight of largest magnitude, with its sign, to −8.
fn q4_0(x: &[f32; BLOCK]) -> [u8; 18] {
    let extreme = x.iter().fold(0.0f32, |m, v| if libm::fabsf(*v) > libm::fabsf(m) { *v } else { m });
    let d = extreme / -8.0;
    let inverse = reciprocal(d);
    let mut out = [0; 18];
    let (scale, quants) = out.split_at_mut(2);
    scale.copy_from_slice(&f16::from_f32(d).to_le_bytes());
    nibbles(quants, x, |v| v * inverse + 8.5);
    out
}

fn q4_1(x: &[f32; BLOCK]) -> [u8; 20] {
    let min = x.iter().fold(f32::MAX, |m, v| m.min(*v));
    let max = x.iter().fold(-f32::MAX, |m, v| m.max(*v));
    let d = (max - min) / 15.0;
    let inverse = reciprocal(d);
    let mut out = [0; 20];
    let (scales, quants) = out.split_at_mut(4);
    scales[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    scales[2..].copy_from_slice(&f16::from_f32(min).to_le_bytes());
    nibbles(quants, x, |v| (v - min) * inverse + 0.5);
    out
}

/// Packs weights i and i + 16 into byte i, each truncated to 0..=15.
fn nibbles(out: &mut [u8], x: &[f32; BLOCK], level: impl Fn(f32) -> f32) {
    let (low, high) = x.split_at(BLOCK / 2);
    for ((q, a), b) in out.iter_mut().zip(low).zip(high) {
        *q = (level(*a) as u8).min(15) | (level(*b) as u8).min(15) << 4;
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
    }

    #[test]
    fn extremes_do_not_overflow() {
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.0] {
            for dtype in DType::ALL {
                let mut bytes = vec![0; dtype.row_bytes(32).unwrap()];
                dtype.encode_row(&[x; 32], &mut bytes).unwrap();
            }
        }
    }
}
