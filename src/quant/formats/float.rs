//! Floats: a block is one weight.

use half::{bf16, f16};

use super::BlockFormat;

pub(crate) struct F32;
impl BlockFormat for F32 {
    type Block = [u8; 4];
    const LEN: usize = 1;

    fn weight(block: &[u8; 4], _: usize) -> f32 {
        f32::from_le_bytes(*block)
    }
}

pub(crate) struct F16;
impl BlockFormat for F16 {
    type Block = [u8; 2];
    const LEN: usize = 1;

    fn weight(block: &[u8; 2], _: usize) -> f32 {
        f16::from_le_bytes(*block).to_f32()
    }
}

pub(crate) struct Bf16;
impl BlockFormat for Bf16 {
    type Block = [u8; 2];
    const LEN: usize = 1;

    fn weight(block: &[u8; 2], _: usize) -> f32 {
        bf16::from_le_bytes(*block).to_f32()
    }
}
