//! What of a model each of several boards has: its layers, its rows of every matrix, or its positions of the KV cache.
//!
//! A share follows from the sizes of the model, the number of boards and a board's own number, so that no board has to be
//! told. None of these shows in a bit of the logits: a dot product and a leaf of attention's tree are never divided.

use core::ops::Range;

use thiserror::Error;

#[cfg(feature = "boards")]
use super::shares::{MAX_BOARDS, Shares};
use super::{Hparams, Layer, Linear};
#[cfg(feature = "boards")]
use super::{LayerWeights, Model, QkNorm};
#[cfg(feature = "boards")]
use crate::arch::Kernels;
#[cfg(feature = "boards")]
use crate::quant::BLOCK;
#[cfg(feature = "boards")]
use crate::storage::{Blocks, LEAF};

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

/// Why a model cannot be shared in some proportion.
#[cfg(feature = "boards")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ShareError {
    /// Boards that have none.
    #[error(transparent)]
    TooMany(#[from] TooManyBoards),
    /// A split that divides evenly.
    #[error("shares {1}: a split by {name} divides evenly", name = .0.name())]
    Uneven(Split, Shares),
}

/// Rows of a product up to which floats are summed in another order than those of more.
#[cfg(feature = "boards")]
const FEW_ROWS: usize = Kernels::MAX_F16_TOKENS;
/// Fewest rows of a board for which boards divide a pass.
#[cfg(feature = "boards")]
const MIN_ROWS: usize = 2 * FEW_ROWS;

/// Which tokens of a pass a board computes: every so many-th (Striped Attention: Brandon et al. 2023, arXiv 2311.09431), since
/// later ones attend to more than earlier ones.
///
/// In a build without the feature `boards` these are all, and a stripe is no bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stripe {
    #[cfg(feature = "boards")]
    first: usize,
    #[cfg(feature = "boards")]
    step: usize,
}

impl Stripe {
    /// All tokens.
    pub(crate) const ALL: Self = Stripe {
        #[cfg(feature = "boards")]
        first: 0,
        #[cfg(feature = "boards")]
        step: 1,
    };

    /// Which token of the pass its `i`-th is.
    #[inline(always)]
    pub(crate) fn token(self, i: usize) -> usize {
        #[cfg(feature = "boards")]
        return self.first + i * self.step;
        #[cfg(not(feature = "boards"))]
        return i;
    }

    /// How many of `tokens` it has.
    #[inline(always)]
    pub(crate) fn len(self, tokens: usize) -> usize {
        #[cfg(feature = "boards")]
        return tokens.saturating_sub(self.first).div_ceil(self.step.max(1));
        #[cfg(not(feature = "boards"))]
        return tokens;
    }

    /// Whether other boards have tokens that it has not.
    #[cfg(feature = "boards")]
    pub(crate) fn is_part(self) -> bool {
        self.step > 1
    }
}

/// What one board has.
///
/// In a build without the feature `boards` there is one board, which has everything, and a share is no bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Nothing in a build without several boards.
    #[cfg(feature = "boards")]
    of: Of,
}

/// The share of a board.
#[cfg(feature = "boards")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Of {
    rank: usize,
    /// Those of all boards.
    shares: Shares,
    split: Split,
    /// Layers whose weights the matrix behind the layers is as large as.
    head: usize,
    /// Leaves of attention's tree in a block of positions.
    leaves: usize,
}

impl Share {
    /// What one board alone has: everything.
    pub const WHOLE: Self = Share {
        #[cfg(feature = "boards")]
        of: Of { rank: 0, shares: Shares::ONE, split: Split::Layers, head: 0, leaves: 1 },
    };

    /// Board `rank` of `size` that have shares alike, of a model whose last matrix has as many weights as `head` layers, and a
    /// cache of `context` positions.
    ///
    /// # Errors
    /// [`TooManyBoards`].
    #[cfg(feature = "boards")]
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
        let most = most.min(MAX_BOARDS);
        if size > most || rank >= size {
            return Err(TooManyBoards { split, boards: size, most });
        }
        // As large as leaves each board two blocks at least: few sums travel, and the boards' work is alike.
        let leaves = if split == Split::Tokens { 1 << (leaves / (2 * size)).max(1).ilog2() } else { 1 };
        Ok(Share { of: Of { rank, shares: Shares::even(size), split, head, leaves } })
    }

    /// The same of boards that have shares in proportion to `shares`, as nearly as what is divided can be.
    ///
    /// # Errors
    /// [`ShareError`].
    #[cfg(feature = "boards")]
    pub fn uneven(
        h: &Hparams,
        split: Split,
        head: usize,
        context: usize,
        rank: usize,
        shares: Shares,
    ) -> Result<Self, ShareError> {
        let even = Self::new(h, split, head, context, rank, shares.size())?;
        match split {
            _ if shares.are_even() => Ok(even),
            Split::Tokens => Err(ShareError::Uneven(split, shares)),
            _ => Ok(Share { of: Of { shares, ..even.of } }),
        }
    }

    /// Whether this is the only board.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.size() == 1
    }

    /// How many boards there are.
    #[inline(always)]
    pub fn size(&self) -> usize {
        #[cfg(feature = "boards")]
        return self.of.shares.size();
        #[cfg(not(feature = "boards"))]
        return 1;
    }

    /// Number of the board.
    #[inline(always)]
    pub fn rank(&self) -> usize {
        #[cfg(feature = "boards")]
        return self.of.rank;
        #[cfg(not(feature = "boards"))]
        return 0;
    }

    /// Whether the model is shared so, by more than one board.
    #[inline(always)]
    pub fn is(&self, split: Split) -> bool {
        #[cfg(feature = "boards")]
        return self.of.split == split && self.size() > 1;
        #[cfg(not(feature = "boards"))]
        return matches!(split, Split::Layers if false);
    }

    /// The same model's share of another board.
    pub fn of_board(&self, rank: usize) -> Self {
        #[cfg(feature = "boards")]
        return Share { of: Of { rank, ..self.of } };
        #[cfg(not(feature = "boards"))]
        {
            debug_assert!(rank == 0);
            *self
        }
    }

    /// Its layers. The first board has the matrix behind the layers too: the embedding is often the same tensor, and the
    /// logits are then where tokens are chosen.
    pub fn layers(&self, h: &Hparams) -> Range<usize> {
        #[cfg(feature = "boards")]
        if self.is(Split::Layers) {
            let Of { rank, shares, head, .. } = self.of;
            let all = h.n_layers + head;
            let nearest = |boards| (2 * all * shares.of_first(boards) + shares.sum()) / (2 * shares.sum());
            let end = |boards| shares.one_each(h.n_layers, boards, |boards| nearest(boards).saturating_sub(head));
            return end(rank)..end(rank + 1);
        }
        0..h.n_layers
    }

    /// Whether it computes logits, or some of their rows: else the first board does, which chooses the tokens.
    pub fn has_head(&self) -> bool {
        self.is(Split::Rows) || self.rank() == 0
    }

    /// Which of the tokens of a pass it computes, with logits for `outputs` of them: all, unless boards that share positions have
    /// enough each. Where logits are wanted, those of the last token are the first board's.
    #[inline(always)]
    pub(crate) fn stripe(&self, tokens: usize, outputs: usize) -> Stripe {
        #[cfg(feature = "boards")]
        if self.is(Split::Tokens) && outputs <= 1 && tokens >= MIN_ROWS * self.size() {
            return Stripe { first: (tokens - 1 - self.rank()) % self.size(), step: self.size() };
        }
        let _ = (tokens, outputs);
        Stripe::ALL
    }

    /// Whether boards that compute up to `rows` tokens of a pass divide some.
    #[inline(always)]
    pub(crate) fn divides(&self, rows: usize) -> bool {
        #[cfg(feature = "boards")]
        return self.is(Split::Tokens) && rows >= MIN_ROWS;
        #[cfg(not(feature = "boards"))]
        {
            let _ = rows;
            !self.is_whole()
        }
    }

    /// Most tokens of a pass of which no board computes more than `rows`.
    pub(crate) fn most_tokens(&self, rows: usize) -> usize {
        if self.divides(rows) { rows.saturating_mul(self.size()) } else { rows }
    }

    /// How many of the next `tokens` tokens of a prompt are a pass of which no board computes more than `rows`: a whole number of
    /// one board's passes, or all that is left, unless the last of these would have few rows, whose floats are summed in another
    /// order.
    pub(crate) fn next_pass(&self, tokens: usize, rows: usize) -> usize {
        #[cfg(feature = "boards")]
        {
            let most = tokens.min(self.most_tokens(rows));
            let few = most.checked_rem(rows).unwrap_or(0);
            let pass = if few <= FEW_ROWS { most - few } else { most };
            if pass > rows && self.stripe(pass, 1).is_part() {
                return pass;
            }
        }
        tokens.min(rows)
    }

    /// Its KV heads, with their query heads.
    pub fn kv_heads(&self, h: &Hparams) -> Range<usize> {
        #[cfg(feature = "boards")]
        if self.is(Split::Rows) {
            let Of { rank, shares, .. } = self.of;
            let end = |boards| shares.one_each(h.n_kv_heads, boards, |boards| shares.part(h.n_kv_heads, boards));
            return end(rank)..end(rank + 1);
        }
        0..h.n_kv_heads
    }

    /// Its rows of a matrix of `rows` rows that is not one of attention heads: whole blocks of 32, in which the next matrix's
    /// input is quantised.
    pub fn rows(&self, rows: usize) -> Range<usize> {
        #[cfg(feature = "boards")]
        if self.is(Split::Rows) {
            let Of { rank, shares, .. } = self.of;
            let end = |boards| (shares.part(rows.div_ceil(BLOCK), boards) * BLOCK).min(rows);
            return end(rank)..end(rank + 1);
        }
        0..rows
    }

    /// How many of the best `best` of a vocabulary's logits are its own, at most; none where all boards' candidates, tokens with
    /// their logits, would be no fewer bytes than all logits.
    #[cfg(feature = "boards")]
    pub fn candidates(&self, vocab: usize, best: usize) -> Option<usize> {
        let of = |board| self.of_board(board).rows(vocab).len().min(best);
        let all = (0..self.size()).map(of).sum::<usize>();
        (2 * all < vocab).then(|| of(self.rank()))
    }

    /// Leaves of attention's tree in a block of positions; board `b` has every `size`-th block from block `b` on.
    #[cfg(feature = "boards")]
    pub fn leaves(&self) -> usize {
        self.of.leaves
    }

    /// Its blocks of positions.
    #[cfg(feature = "boards")]
    pub(crate) fn blocks(&self) -> Blocks {
        Blocks { rank: self.rank(), size: self.size(), leaves: self.leaves() }
    }

    /// Whether it has the keys and values of a position.
    #[cfg(feature = "boards")]
    pub fn has_position(&self, position: u64) -> bool {
        !self.is(Split::Tokens) || self.blocks().has(position)
    }

    /// The query heads of its KV heads, as columns of attention's output.
    pub(crate) fn q_columns(&self, h: &Hparams, layer: usize) -> Range<usize> {
        let (heads, width) = (self.kv_heads(h), h.group() * h.head_of(layer).dim);
        heads.start * width..heads.end * width
    }

    /// Whether a model can be shared so.
    ///
    /// # Errors
    /// What about it cannot.
    #[cfg(feature = "boards")]
    pub fn check(&self, model: &Model<'_>) -> Result<(), &'static str> {
        let h = &model.hparams;
        if !self.is(Split::Rows) {
            return Ok(());
        }
        if h.family.qk_norm == QkNorm::Whole {
            return Err("norms over all heads of queries and keys cannot be shared by rows");
        }
        // Of all boards, so that all of them say so.
        let is_whole = |share: Share| {
            let whole = |(i, layer)| share.layer(h, i, layer).is_some();
            model.weights.layers.iter().enumerate().all(whole) && share.output(h, &model.weights.output).is_some()
        };
        let all = (0..self.size()).all(|rank| is_whole(self.of_board(rank)));
        if all { Ok(()) } else { Err("panels of this model's matrices would be cut by rows") }
    }

    /// Calls `f` with a board's own weights, in the order in which a pass needs them. Of the embedding it needs those rows
    /// besides whose tokens it meets.
    #[cfg(feature = "boards")]
    pub fn for_each<'m>(&self, model: &Model<'m>, f: &mut dyn FnMut(&'m [u8])) {
        self.layers(&model.hparams).for_each(|i| self.for_each_of_layer(model, i, f));
        self.for_each_of_head(model, f);
    }

    /// The same of a layer: nothing if it is another board's.
    #[cfg(feature = "boards")]
    pub(super) fn for_each_of_layer<'m>(&self, model: &Model<'m>, index: usize, f: &mut dyn FnMut(&'m [u8])) {
        let h = &model.hparams;
        let layer = model.weights.layers.get(index).filter(|_| self.layers(h).contains(&index));
        let Some(layer) = layer.and_then(|layer| self.layer(h, index, layer)) else { return };
        layer.for_each(&mut |weights| match weights {
            LayerWeights::Linear(Linear { weight, bias }) => [weight.bytes(), bias].into_iter().for_each(&mut *f),
            LayerWeights::Vector(vector) => f(vector),
        });
    }

    /// The same of what is behind the layers.
    #[cfg(feature = "boards")]
    pub(super) fn for_each_of_head<'m>(&self, model: &Model<'m>, f: &mut dyn FnMut(&'m [u8])) {
        if self.has_head() {
            let w = &model.weights;
            let output = self.output(&model.hparams, &w.output).unwrap_or_default();
            [w.output_norm.weight, w.output_norm.bias, output.weight.bytes(), output.bias].into_iter().for_each(f);
        }
    }

    /// The rows of the embedding that a board looks at where all are looked at: those that are its own if the matrix behind the
    /// layers is the same.
    #[cfg(feature = "boards")]
    pub(super) fn embedding<'m>(&self, model: &Model<'m>) -> &'m [u8] {
        let embedding = Linear { weight: model.weights.token_embd, bias: &[] };
        let own = self.output(&model.hparams, &embedding).filter(|_| self.has_head());
        own.unwrap_or_default().weight.bytes()
    }

    /// Sizes of the model that a board computes by itself: fewer heads, and fewer rows of the FFN.
    pub(crate) fn hparams(&self, h: &Hparams) -> Hparams {
        let heads = self.kv_heads(h).len();
        Hparams { n_heads: heads * h.group(), n_kv_heads: heads, n_ff: self.rows(h.n_ff).len(), ..*h }
    }

    /// The board's rows of the matrices of a layer; the vectors that belong to heads, cut alike. `None` where a matrix is in
    /// panels that would be cut.
    pub(crate) fn layer<'m>(&self, h: &Hparams, index: usize, layer: &Layer<'m>) -> Option<Layer<'m>> {
        let (head_dim, kv, group) = (h.head_of(index).dim, self.kv_heads(h), h.group());
        let of_heads = |range: &Range<usize>, by: usize| range.start * by..range.end * by;
        let (q, kv_rows) = (of_heads(&kv, group * head_dim), of_heads(&kv, head_dim));
        let (embd, ff) = (self.rows(h.n_embd), self.rows(h.n_ff));
        // One norm for all heads, or one for each.
        let norm = |weight: &'m [u8], all: usize, range: &Range<usize>| match weight.len() == 4 * all {
            true => part_of(weight, range),
            false => weight,
        };
        Some(Layer {
            q: rows_of(&layer.q, &q)?,
            k: rows_of(&layer.k, &kv_rows)?,
            v: rows_of(&layer.v, &kv_rows)?,
            q_norm: norm(layer.q_norm, h.q_dim(index), &q),
            k_norm: norm(layer.k_norm, h.kv_dim(index), &kv_rows),
            attn_output: Linear { weight: rows_of(&layer.attn_output, &embd)?.weight, ..layer.attn_output },
            gate: if layer.gate.weight.rows() > 0 { rows_of(&layer.gate, &ff)? } else { layer.gate },
            up: rows_of(&layer.up, &ff)?,
            down: Linear { weight: rows_of(&layer.down, &embd)?.weight, ..layer.down },
            ..*layer
        })
    }

    /// The board's rows of the matrix behind the layers; its bias is whole.
    pub(crate) fn output<'m>(&self, h: &Hparams, output: &Linear<'m>) -> Option<Linear<'m>> {
        Some(Linear { weight: rows_of(output, &self.rows(h.vocab))?.weight, ..*output })
    }
}

/// Some rows of a matrix, with their biases.
fn rows_of<'m>(m: &Linear<'m>, rows: &Range<usize>) -> Option<Linear<'m>> {
    let weight = m.weight.rows_of(rows.clone())?.with_scale(m.weight.scale());
    Some(Linear { weight, bias: part_of(m.bias, rows) })
}

/// Some numbers of a vector, which may be empty.
fn part_of<'m>(vector: &'m [u8], numbers: &Range<usize>) -> &'m [u8] {
    vector.get(4 * numbers.start..4 * numbers.end).unwrap_or(&[])
}
