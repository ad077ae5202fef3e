//! Q1_0: d f16, then 128 signs; `w = ±d`.

use super::BlockFormat;
use super::bits::{bit, f16_at};

pub(crate) struct Q1_0;
impl BlockFormat for Q1_0 {
    type Block = [u8; 18];
    const LEN: usize = 128;

    fn weight(block: &[u8; 18], i: usize) -> f32 {
        let d = f16_at(block, 0);
        if bit(block, 2, i) == 1 { d } else { -d }
    }
}
