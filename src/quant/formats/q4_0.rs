//! Q4_0: d f16, then 32 nibbles; `w = d·(q − 8)`.

use super::BlockFormat;
use super::bits::{f16_at, nibble};

pub(crate) struct Q4_0;
impl BlockFormat for Q4_0 {
    type Block = [u8; 18];
    const LEN: usize = 32;

    fn weight(block: &[u8; 18], i: usize) -> f32 {
        f16_at(block, 0) * (f32::from(nibble(block, 2, i)) - 8.0)
    }
}
