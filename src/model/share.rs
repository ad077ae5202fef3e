//! What of a model each of several boards has: its layers, its rows of every matrix, or its positions of the KV cache.
//!
//! A share follows from the sizes of the model, the number of boards and a board's own number, so that no board has to be
//! told. None of these shows in a bit of the logits: a dot product and a leaf of attention's tree are never divided.

use core::ops::Range;

use thiserror::Error;

use super::Hparams;
use crate::quant::BLOCK;
use crate::storage::LEAF;

/// How a model is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Each board has some layers and their KV cache. For models larger than a board, on any network: a token is as fast as
    /// on one board.
    Layers,
    /// Each board has some rows of every matrix and some KV heads, and all of them compute each layer together (tensor
    /// parallel, but without adding). For speed, on a wired network.
    Rows,
    /// Each board has all weights, and some positions of the KV cache (Ring Attention: Liu et al. 2023, arXiv 2310.01889).
    /// For long prompts and contexts.
    Tokens,
}

impl Split {
    /// All of them.
    pub const ALL: [Split; 3] = [Split::Layers, Split::Rows, Split::Tokens];

    /// As it is spelled on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Split::Layers => "layers",
            Split::Rows => "rows",
            Split::Tokens => "tokens",
        }
    }
}

/// Boards that a split has no use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{boards} boards: a split by {} has no use for more than {most}", .split.name())]
pub struct TooManyBoards {
    /// The split.
    pub split: Split,
    /// How many there are.
    pub boards: usize,
    /// How many can have a share.
    pub most: usize,
}

/// What one board has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    rank: usize,
    size: usize,
    split: Split,
    /// Its layers.
    pub layers: Range<usize>,
    /// Whether it has the matrix behind the layers, or some of its rows.
    pub head: bool,
    /// Its KV heads, with their query heads.
    pub kv_heads: Range<usize>,
    /// Leaves of attention's tree in a block of positions; board `b` has every `size`-th block from block `b` on.
    pub leaves: usize,
}

impl Share {
    /// Board `rank` of `size`, of a model whose last matrix has as many weights as `head` layers, and a cache of `context`
    /// positions.
    ///
    /// # Errors
    /// [`TooManyBoards`].
    pub fn new(
        h: &Hparams,
        split: Split,
        head: usize,
        context: usize,
        rank: usize,
        size: usize,
    ) -> Result<Self, TooManyBoards> {
        let leaves = context.div_ceil(LEAF);
        let most = match split {
            Split::Layers => h.n_layers,
            Split::Rows => h.n_kv_heads,
            Split::Tokens => leaves,
        };
        if size > most || rank >= size {
            return Err(TooManyBoards { split, boards: size, most });
        }
        let mut share =
            Share { rank, size, split, layers: 0..h.n_layers, head: true, kv_heads: 0..h.n_kv_heads, leaves: 1 };
        match split {
            Split::Layers => {
                // The last board has the matrix behind the layers, and each a layer at least.
                let end = |boards: usize| match boards == size {
                    true => h.n_layers,
                    false => nearest((h.n_layers + head) * boards, size).max(boards).min(h.n_layers - (size - boards)),
                };
                share.layers = if rank == 0 { 0 } else { end(rank) }..end(rank + 1);
                share.head = rank + 1 == size;
            }
            Split::Rows => share.kv_heads = part(h.n_kv_heads, rank, size),
            // As large as leaves each board two blocks: fewer sums travel, and the boards' work is alike.
            Split::Tokens => share.leaves = 1 << (leaves / (2 * size)).max(1).ilog2(),
        }
        Ok(share)
    }

    /// Its rows of a matrix of `rows` rows that is not one of attention heads: whole blocks of 32, in which the next matrix's
    /// input is quantised.
    pub fn rows(&self, rows: usize) -> Range<usize> {
        match self.split {
            Split::Rows => {
                let blocks = part(rows.div_ceil(BLOCK), self.rank, self.size);
                (blocks.start * BLOCK).min(rows)..(blocks.end * BLOCK).min(rows)
            }
            Split::Layers | Split::Tokens => 0..rows,
        }
    }

    /// Whether it has the keys and values of a position.
    pub fn has_position(&self, position: u64) -> bool {
        let block = position / (LEAF as u64).saturating_mul(self.leaves as u64);
        self.split != Split::Tokens || block % self.size.max(1) as u64 == self.rank as u64
    }
}

/// `a / b`, rounded.
fn nearest(a: usize, b: usize) -> usize {
    (a + b / 2) / b.max(1)
}

/// Part `i` of `n` things divided into `of` parts that differ by one at most.
fn part(n: usize, i: usize, of: usize) -> Range<usize> {
    let start = |i: usize| n * i / of.max(1);
    start(i)..start(i + 1)
}
