//! Q8_0: d f16, then 32 × int8; `w = d·q`.

use super::BlockFormat;
use super::bits::{byte, f16_at};

pub(crate) struct Q8_0;
impl BlockFormat for Q8_0 {
    type Block = [u8; 34];
    const LEN: usize = 32;

    fn weight(block: &[u8; 34], i: usize) -> f32 {
        f16_at(block, 0) * f32::from(byte(block, 2 + i).cast_signed())
    }
}
