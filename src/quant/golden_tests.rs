//! The decoders and encoders against ggml's: `tests/golden/formats.py` says what the data are.

use std::vec::Vec;

use super::DType;

const DECODE: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/formats/decode.bin"));
const ROWS: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/formats/rows.bin"));
const ENCODE: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/formats/encode.bin"));

/// Takes `n` bytes off the front.
fn take<'a>(data: &mut &'a [u8], n: usize) -> &'a [u8] {
    data.split_off(..n).expect("the data end with an item")
}

fn take_u32(data: &mut &[u8]) -> u32 {
    u32::from_le_bytes(take(data, 4).try_into().unwrap())
}

fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// Every weight has the bits of ggml's, with all values of every byte, and scales that are subnormal, infinite and NaN.
#[test]
fn decodes_as_ggml() {
    let mut data = DECODE;
    let mut left: Vec<_> = DType::ALL.into_iter().filter(|t| t.is_quantised()).collect();
    while !data.is_empty() {
        let dtype = DType::from_gguf(take_u32(&mut data)).expect("a format of the table");
        left.retain(|t| *t != dtype);
        let n = take_u32(&mut data) as usize;
        let blocks = take(&mut data, n * dtype.block_bytes());
        let mut weights = vec![0.0; dtype.block_len()];
        for (i, block) in blocks.chunks(dtype.block_bytes()).enumerate() {
            dtype.decode_row(block, &mut weights);
            let bits = weights.iter().flat_map(|w| if w.is_nan() { 0x7fc0_0000 } else { w.to_bits() }.to_le_bytes());
            assert_eq!(crc32(bits), take_u32(&mut data), "{dtype}, block {i}: {block:02x?}");
        }
    }
    assert_eq!(left, []);
}

fn take_floats(data: &mut &[u8], n: usize) -> Vec<f32> {
    take(data, 4 * n).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Every byte is ggml's, without and with importance.
#[test]
fn encodes_as_ggml() {
    let mut rows = ROWS;
    let (n, cols) = (take_u32(&mut rows) as usize, take_u32(&mut rows) as usize);
    let weights = take_floats(&mut rows, n * cols);
    let importance = take_floats(&mut rows, cols);
    let mut data = ENCODE;
    let mut left: Vec<_> = DType::ALL.into_iter().filter(|t| t.is_quantised()).collect();
    let (mut equal, mut different) = (0, Vec::new());
    while !data.is_empty() {
        let dtype = DType::from_gguf(take_u32(&mut data)).expect("a format of the table");
        left.retain(|t| *t != dtype);
        for given in [None, Some(&importance[..])] {
            for (r, row) in weights.chunks(cols).enumerate() {
                let mut bytes = vec![0; dtype.row_bytes(cols).unwrap()];
                dtype.encode_row_weighted(row, given, &mut bytes).unwrap();
                let expected = take(&mut data, bytes.len());
                for (b, (x, y)) in
                    bytes.chunks(dtype.block_bytes()).zip(expected.chunks(dtype.block_bytes())).enumerate()
                {
                    if x == y {
                        equal += 1;
                    } else {
                        different.push(std::format!("{dtype}, importance {}, row {r}, block {b}", given.is_some()));
                    }
                }
            }
        }
    }
    assert!(different.is_empty(), "{equal} equal; different: {different:#?}");
    assert_eq!(left, []);
}
