//! Iq4Nl: d f16, then 32 nibbles, which index a table; `w = d·T[q]`.

use super::BlockFormat;
use super::bits::{f16_at, level, nibble};

pub(crate) struct Iq4Nl;
impl BlockFormat for Iq4Nl {
    type Block = [u8; 18];
    const LEN: usize = 32;

    fn weight(block: &[u8; 18], i: usize) -> f32 {
        f16_at(block, 0) * f32::from(level(&LEVELS, nibble(block, 2, i)))
    }
}

/// The levels of IQ4_NL and IQ4_XS.
pub(crate) const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
