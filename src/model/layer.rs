//! The weights of a transformer block, and the list of its tensors.

use super::Hparams;
use super::family::{Family, NormKind, NormPlaces, QkNorm};
use crate::quant::Matrix;
use crate::storage::unpadded;
use crate::util::listed;

/// A matrix, which may have a [scale](Matrix::scale), and what is added to its scaled products.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linear<'m> {
    /// (rows, cols)
    pub weight: Matrix<'m>,
    /// (rows) little-endian f32; empty where there is none
    pub bias: &'m [u8],
}

/// The weights of a norm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Norm<'m> {
    /// (cols) little-endian f32; empty where there is no norm
    pub weight: &'m [u8],
    /// (cols) little-endian f32; empty where there is none
    pub bias: &'m [u8],
}

/// The weights of one transformer block. A vector is little-endian f32, and empty where the model has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layer<'m> {
    /// (n_embd), before attention
    pub attn_norm: Norm<'m>,
    /// (q_dim, n_embd)
    pub q: Linear<'m>,
    /// (kv_dim, n_embd)
    pub k: Linear<'m>,
    /// (kv_dim, n_embd)
    pub v: Linear<'m>,
    /// (head_dim), (n_heads, head_dim) or (q_dim), see [`QkNorm`]
    pub q_norm: &'m [u8],
    /// (head_dim), (n_kv_heads, head_dim) or (kv_dim)
    pub k_norm: &'m [u8],
    /// (q_dim), before the output matrix
    pub attn_sub_norm: &'m [u8],
    /// (n_embd, q_dim)
    pub attn_output: Linear<'m>,
    /// (n_embd), behind attention
    pub attn_post_norm: &'m [u8],
    /// (n_embd), before the FFN
    pub ffn_norm: Norm<'m>,
    /// (n_ff, n_embd); no rows where the FFN has no gate
    pub gate: Linear<'m>,
    /// (n_ff, n_embd)
    pub up: Linear<'m>,
    /// (n_ff), before `down`
    pub ffn_sub_norm: &'m [u8],
    /// (n_embd, n_ff)
    pub down: Linear<'m>,
    /// (n_embd), behind the FFN
    pub ffn_post_norm: &'m [u8],
}

unpadded!(Linear<'_>: Matrix<'_>, &[u8]);
unpadded!(Norm<'_>: [&[u8]; 2]);
unpadded!(Layer<'_>: [Norm<'_>; 2], [Linear<'_>; 7], [&[u8]; 6]);

/// A width that the hyper-parameters give for a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dim {
    One,
    Embd,
    Q,
    Kv,
    Ff,
    /// What the norms of queries and of keys are the norms of.
    QNorm,
    KNorm,
    /// How many of these have weights of their own.
    QNorms,
    KNorms,
}

impl Dim {
    #[inline(never)]
    pub(super) fn of(self, h: &Hparams, layer: usize) -> usize {
        let (whole, each) = (h.family.qk_norm == QkNorm::Whole, h.family.qk_norm == QkNorm::EachHead);
        match self {
            Dim::QNorm | Dim::KNorm if !whole => h.head_of(layer).dim,
            Dim::QNorms if each => h.n_heads,
            Dim::KNorms if each => h.n_kv_heads,
            Dim::One | Dim::QNorms | Dim::KNorms => 1,
            Dim::Embd => h.n_embd,
            Dim::Q | Dim::QNorm => h.q_dim(layer),
            Dim::Kv | Dim::KNorm => h.kv_dim(layer),
            Dim::Ff => h.n_ff,
        }
    }
}

/// What decides whether a layer has a tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Every model has it.
    All,
    /// In its place there may be a tensor of q, k and v together.
    Projection,
    Gate,
    /// Every model has it; its gate may be in the same tensor.
    Up,
    NormBefore,
    NormBeforeFfn,
    BiasBefore,
    BiasBeforeFfn,
    NormBehind,
    NormWithin,
    QkNorm,
}

/// Whether a family's layers have a tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    Optional,
    Never,
}

impl Part {
    #[inline(never)]
    pub(super) fn presence(self, f: &Family) -> Presence {
        let required = |yes| if yes { Presence::Required } else { Presence::Never };
        let before = f.norms != NormPlaces::Behind;
        match self {
            Part::BiasBefore | Part::BiasBeforeFfn if f.norm == NormKind::Rms => Presence::Never,
            Part::NormBeforeFfn | Part::BiasBeforeFfn if f.norms == NormPlaces::BeforeOrParallel => Presence::Optional,
            Part::NormBefore | Part::NormBeforeFfn | Part::BiasBefore | Part::BiasBeforeFfn => required(before),
            Part::NormBehind => required(matches!(f.norms, NormPlaces::Behind | NormPlaces::Around)),
            Part::NormWithin => required(f.norms == NormPlaces::BeforeAndWithin),
            Part::QkNorm if f.qk_norm == QkNorm::EachHead => Presence::Optional,
            Part::QkNorm => required(f.qk_norm != QkNorm::None),
            Part::Gate => required(f.gated),
            Part::All | Part::Up => Presence::Required,
            Part::Projection => Presence::Optional,
        }
    }
}

/// Where a tensor's weights are in a [`Layer`].
pub(super) enum Slot<'l, 'm> {
    Linear(&'l mut Linear<'m>),
    Vector(&'l mut &'m [u8]),
}

/// A tensor of a layer, or a matrix with its scale and bias: its name in the file, its shape, which models have it, and its
/// field.
pub(super) struct TensorSpec {
    /// Behind `blk.N.`; of a matrix, what its tensors' names have in common.
    pub(super) name: &'static str,
    pub(super) rows: Dim,
    pub(super) cols: Dim,
    pub(super) part: Part,
    pub(super) slot: for<'l, 'm> fn(&'l mut Layer<'m>) -> Slot<'l, 'm>,
}

impl TensorSpec {
    const fn new(
        name: &'static str,
        [rows, cols]: [Dim; 2],
        part: Part,
        slot: for<'l, 'm> fn(&'l mut Layer<'m>) -> Slot<'l, 'm>,
    ) -> Self {
        Self { name, rows, cols, part, slot }
    }

    /// Whether this is a matrix, which may have a scale and a bias.
    pub(super) fn is_linear(&self) -> bool {
        !matches!(self.rows, Dim::One | Dim::QNorms | Dim::KNorms)
    }
}

/// A row of [`TENSORS`] whose weights are in a field.
macro_rules! tensor {
    ($name:literal, $rows:ident x $cols:ident, $part:ident, $($field:ident).+) => {
        TensorSpec::new($name, [Dim::$rows, Dim::$cols], Part::$part, |l| Slot::Linear(&mut l.$($field).+))
    };
    ($name:literal, $cols:ident, $part:ident, $($field:ident).+) => {
        TensorSpec::new($name, [Dim::One, Dim::$cols], Part::$part, |l| Slot::Vector(&mut l.$($field).+))
    };
    ($name:literal, $norms:ident of $cols:ident, $part:ident, $($field:ident).+) => {
        TensorSpec::new($name, [Dim::$norms, Dim::$cols], Part::$part, |l| Slot::Vector(&mut l.$($field).+))
    };
}

/// All tensors that a layer may have. Loading, packing, counting and the fingerprint walk this list.
pub(super) fn tensors() -> &'static [TensorSpec] {
    listed(&TENSORS)
}

static TENSORS: [TensorSpec; 17] = [
    tensor!("attn_q", Q x Embd, Projection, q),
    tensor!("attn_k", Kv x Embd, Projection, k),
    tensor!("attn_v", Kv x Embd, Projection, v),
    tensor!("attn_output", Embd x Q, All, attn_output),
    tensor!("ffn_gate", Ff x Embd, Gate, gate),
    tensor!("ffn_up", Ff x Embd, Up, up),
    tensor!("ffn_down", Embd x Ff, All, down),
    tensor!("attn_norm.weight", Embd, NormBefore, attn_norm.weight),
    tensor!("attn_norm.bias", Embd, BiasBefore, attn_norm.bias),
    tensor!("ffn_norm.weight", Embd, NormBeforeFfn, ffn_norm.weight),
    tensor!("ffn_norm.bias", Embd, BiasBeforeFfn, ffn_norm.bias),
    tensor!("attn_q_norm.weight", QNorms of QNorm, QkNorm, q_norm),
    tensor!("attn_k_norm.weight", KNorms of KNorm, QkNorm, k_norm),
    tensor!("attn_sub_norm.weight", Q, NormWithin, attn_sub_norm),
    tensor!("ffn_sub_norm.weight", Ff, NormWithin, ffn_sub_norm),
    tensor!("post_attention_norm.weight", Embd, NormBehind, attn_post_norm),
    tensor!("post_ffw_norm.weight", Embd, NormBehind, ffn_post_norm),
];

/// q, k and v as one matrix.
pub(super) const QKV: &str = "attn_qkv";

/// What a tensor of a layer holds.
#[derive(Clone, Copy, Debug)]
pub enum LayerWeights<'l, 'm> {
    /// A matrix with its scale and bias.
    Linear(&'l Linear<'m>),
    /// The weights or the bias of a norm.
    Vector(&'m [u8]),
}

impl<'m> Layer<'m> {
    /// Calls `f` with all its weights, in the order of the list.
    #[inline(never)]
    pub fn for_each(&self, f: &mut dyn FnMut(LayerWeights<'_, 'm>)) {
        let mut layer = *self;
        for t in tensors() {
            f(match (t.slot)(&mut layer) {
                Slot::Linear(linear) => LayerWeights::Linear(linear),
                Slot::Vector(vector) => LayerWeights::Vector(vector),
            });
        }
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> usize {
        let mut bytes = 0;
        self.for_each(&mut |weights| {
            bytes += match weights {
                LayerWeights::Linear(l) => l.weight.bytes().len() + l.bias.len(),
                LayerWeights::Vector(v) => v.len(),
            }
        });
        bytes
    }
}
