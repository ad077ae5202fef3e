//! Hyper-parameters, each checked before anything is computed from it (rules M1 to M3).

use core::num::NonZeroUsize;

use super::family::{FAMILIES, Family, NoRope, NormKind, OwnKeys, Scale, WindowRope};
use super::keys::{Keys, MAX_CONTEXT};
use super::rope_scaling::RopeScaling;
use super::{LayerSet, ModelError};
use crate::gguf::{File, Label, Value};
use crate::util::listed;

/// Limits, far above any model that fits a small board; they bound every product of sizes on a 64-bit machine.
const MAX_LAYERS: u64 = LayerSet::MAX as u64;
const MAX_WIDTH: u64 = 1 << 18;
const MAX_HEAD_DIM: u64 = 512;

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hparams {
    /// The family.
    pub family: &'static Family,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Positions that the model was trained to attend to.
    pub context_length: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Blocks behind them that predict further tokens, which are not run.
    pub n_extra_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// The heads of layers without a sliding window.
    pub head: Head,
    /// Width of the feed-forward network.
    pub n_ff: usize,
    /// Added to the mean square in a norm.
    pub eps: f32,
    /// Base of the RoPE frequencies.
    pub rope_base: f64,
    /// How the frequencies are scaled.
    pub rope_scaling: RopeScaling,
    /// Layers that are not rotated.
    pub no_rope: LayerSet,
    /// Of the layers with a sliding window, if there are any.
    pub window: Option<Window>,
    /// What vectors are multiplied by.
    pub scales: Scales,
    /// What numbers are bounded by: `x` becomes `cap · tanh(x / cap)`; 0 for no bound.
    pub caps: Caps,
    /// How queries grow with the position.
    pub temperature: Temperature,
}

/// The size of a head, of queries, keys and values alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// Width; a multiple of 8.
    pub dim: usize,
    /// Dimensions that RoPE rotates; even.
    pub rope_dims: usize,
    /// What products of queries and keys are multiplied by.
    pub scale: f32,
}

/// A sliding window of some layers, which attend to the last positions only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Positions in it, with the token's own.
    pub size: usize,
    /// The layers that have it.
    pub layers: LayerSet,
    /// These layers' heads.
    pub head: Head,
    /// These layers' rotation, if it is another.
    pub rotation: Option<Rotation>,
}

/// How the layers with a window are rotated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    /// Base of the RoPE frequencies.
    pub base: f64,
    /// How they are scaled.
    pub scaling: RopeScaling,
}

/// What vectors are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// The embedding of a token.
    pub embedding: f32,
    /// What a layer adds to the residual stream.
    pub residual: f32,
    /// Logits.
    pub logits: f32,
}

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Caps {
    /// Of attention's scores.
    pub attention: f32,
    /// Of logits.
    pub logits: f32,
}

/// Queries at position `n` are multiplied by `1 + scale · ln(⌊n / interval⌋ + 1)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// 0 for none.
    pub scale: f32,
    /// Positions from one value to the next.
    pub interval: NonZeroUsize,
}

impl Hparams {
    /// Reads and checks them.
    ///
    /// # Errors
    /// [`ModelError`].
    #[inline(never)]
    pub fn new(file: &File<'_>) -> Result<Self, ModelError> {
        let family = family(file)?;
        let keys = Keys::new(file, family.name);
        refuse_unsupported(file, &keys);
        let n_blocks = keys.size("block_count", None, 1, MAX_LAYERS);
        let n_extra_layers = keys.size("nextn_predict_layers", Some(0), 0, n_blocks as u64 - 1);
        let n_layers = n_blocks - n_extra_layers;
        let n_heads = keys.size_of_layers("attention.head_count", n_blocks, None, MAX_WIDTH);
        let n_kv_heads = keys.size_of_layers("attention.head_count_kv", n_blocks, Some(n_heads), n_heads as u64);
        if !n_heads.is_multiple_of(n_kv_heads) {
            keys.impossible("attention.head_count_kv");
        }
        let n_embd = keys.size("embedding_length", None, 1, MAX_WIDTH);
        let width_per_head = n_embd / n_heads.max(1);
        let wide = n_layers == usize::from(family.wide_attention_of_layers);
        let scale = |dim| {
            let default = 1.0 / libm::sqrtf(if wide { width_per_head } else { dim } as f32);
            match keys.own("attention.scale", family.own_keys == OwnKeys::AttentionScale, default) {
                0.0 => default,
                found => found,
            }
        };
        let head = head_of(&keys, HEAD, [width_per_head, usize::MAX], &scale);
        let context_length = keys.size("context_length", None, 1, MAX_CONTEXT);
        let rope_base = keys.float("rope.freq_base", Some(10_000.0));
        let scaling = |base, dims| RopeScaling::new(&keys, family, context_length, base, dims);
        let rope_scaling = scaling(rope_base, head.rope_dims);
        let own = || head_of(&keys, HEAD_OF_WINDOWED, [head.dim, head.rope_dims], &scale);
        let window = window(&keys, family, n_layers, rope_base, &head, &own, &scaling);
        let scale = |key, scale| scale_of(&keys, key, scale, n_embd, n_layers);
        let eps = match family.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let hparams = Self {
            family,
            vocab: vocab(file, &keys),
            context_length,
            n_embd,
            n_layers,
            n_extra_layers,
            n_heads,
            n_kv_heads,
            head,
            n_ff: keys.size_of_layers("feed_forward_length", n_blocks, None, MAX_WIDTH),
            eps: keys.f32(eps, None),
            rope_base,
            no_rope: no_rope(&keys, family, n_layers, window.as_ref()),
            window,
            scales: Scales {
                embedding: scale("embedding_scale", family.embedding),
                residual: scale("residual_scale", family.residual),
                logits: 1.0 / scale("logit_scale", family.logits),
            },
            caps: Caps {
                attention: cap(&keys, "attn_logit_softcapping", family.attention_cap),
                logits: cap(&keys, "final_logit_softcapping", family.logits_cap),
            },
            temperature: Temperature {
                scale: keys.own("attention.temperature_scale", family.own_keys == OwnKeys::LongContext, 0.0),
                interval: NonZeroUsize::new(rope_scaling.original_context).unwrap_or(NonZeroUsize::MIN),
            },
            rope_scaling,
        };
        keys.finish(hparams)
    }

    /// Whether a layer has a sliding window.
    #[inline(never)]
    pub fn is_windowed(&self, layer: usize) -> bool {
        self.window.as_ref().is_some_and(|w| w.layers.contains(layer))
    }

    /// How many sets of RoPE angles a token has.
    pub(crate) fn rope_bases(&self) -> usize {
        if self.window.as_ref().is_some_and(|w| w.rotation.is_some()) { 2 } else { 1 }
    }

    /// The set of RoPE angles of a layer.
    pub(super) fn rope_base_of(&self, layer: usize) -> usize {
        if self.is_windowed(layer) { self.rope_bases() - 1 } else { 0 }
    }

    /// KV heads as a divisor.
    pub(super) fn kv_heads(&self) -> NonZeroUsize {
        // `Hparams::new` refuses 0.
        NonZeroUsize::new(self.n_kv_heads).unwrap_or(NonZeroUsize::MIN)
    }

    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.n_heads / self.kv_heads()
    }

    /// The heads of a layer.
    #[inline(never)]
    pub fn head_of(&self, layer: usize) -> &Head {
        if self.is_windowed(layer) { self.windowed_head() } else { &self.head }
    }

    /// The heads of layers with a sliding window.
    #[inline(never)]
    pub(crate) fn windowed_head(&self) -> &Head {
        self.window.as_ref().map_or(&self.head, |w| &w.head)
    }

    /// The larger [`dim`](Head::dim) and [`rope_dims`](Head::rope_dims), of a layer with a window or of one without.
    #[inline(never)]
    pub(crate) fn widest_head(&self) -> (usize, usize) {
        let own = self.windowed_head();
        (self.head.dim.max(own.dim), self.head.rope_dims.max(own.rope_dims))
    }

    /// Width of all query heads of a layer together.
    pub fn q_dim(&self, layer: usize) -> usize {
        self.n_heads * self.head_of(layer).dim
    }

    /// Width of all K heads of a layer together, and of all V heads.
    pub fn kv_dim(&self, layer: usize) -> usize {
        self.n_kv_heads * self.head_of(layer).dim
    }
}

#[inline(never)]
pub(super) fn family(file: &File<'_>) -> Result<&'static Family, ModelError> {
    let key = "general.architecture";
    let Some(Value::String(name)) = file.get(key) else {
        return Err(ModelError::Key(Label::new(format_args!("{key}"))));
    };
    let known = listed(&FAMILIES).iter().find(|f| f.name.as_bytes() == name);
    known.ok_or(ModelError::Architecture(Label::from_bytes(name)))
}

fn vocab(file: &File<'_>, keys: &Keys<'_, '_>) -> usize {
    match file.get("tokenizer.ggml.tokens") {
        Some(Value::Array(tokens)) if !tokens.is_empty() => tokens.len(),
        _ => {
            keys.fail(ModelError::Key(Label::new(format_args!("tokenizer.ggml.tokens"))));
            1
        }
    }
}

/// Keys of a head's size: K, V, and what is rotated.
const HEAD: [&str; 3] = ["attention.key_length", "attention.value_length", "rope.dimension_count"];
const HEAD_OF_WINDOWED: [&str; 3] =
    ["attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"];

/// The size of a head: where keys say nothing, this wide, and of that so many dimensions are rotated at most.
#[inline(never)]
fn head_of(
    keys: &Keys<'_, '_>,
    [k, v, rope]: [&str; 3],
    [width, rotated]: [usize; 2],
    scale: &dyn Fn(usize) -> f32,
) -> Head {
    let dim = keys.size(k, Some(width), 8, MAX_HEAD_DIM);
    if !dim.is_multiple_of(8) || keys.size(v, Some(dim), 8, MAX_HEAD_DIM) != dim {
        let what = "a head size that is no multiple of 8, or differs between K and V,";
        keys.lacks(what);
    }
    let rope_dims = keys.size(rope, Some(rotated.min(dim)), 2, dim as u64);
    if !rope_dims.is_multiple_of(2) {
        keys.impossible(rope);
    }
    Head { dim, rope_dims, scale: scale(dim) }
}

/// Keys of mechanisms that this forward pass lacks; 0 and false mean none.
static REFUSED: [&str; 9] = [
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.q_lora_rank",
    "attention.kv_lora_rank",
    "attention.shared_kv_layers",
    "embedding_length_per_layer_input",
    "rope.scaling.alpha",
    "shortconv.l_cache",
    "ssm.conv_kernel",
];

/// Refuses what files may need and this forward pass lacks.
#[inline(never)]
fn refuse_unsupported(file: &File<'_>, keys: &Keys<'_, '_>) {
    if matches!(file.get("general.type"), Some(Value::String(b"adapter"))) {
        keys.lacks("the file is an adapter (LoRA) of a model, not a model; it");
    }
    if matches!(file.get("split.count"), Some(Value::Unsigned(2..) | Value::Signed(2..))) {
        keys.lacks("a model split in several files");
    }
    // One expert is no mixture.
    if keys.size("expert_count", Some(0), 0, u64::MAX) > 1 {
        keys.lacks("a mixture of experts");
    }
    if matches!(keys.get("attention.causal"), Some(Value::Bool(false))) {
        keys.unsupported("attention.causal");
    }
    listed(&REFUSED).iter().for_each(|key| keys.refuse(key, 0.0));
}

/// Sliding windows as llama.cpp's converters write them: a size; a pattern, which is a list of the layers that have one, or
/// a number, one of so many layers has none; and a base.
#[inline(never)]
fn window(
    keys: &Keys<'_, '_>,
    f: &Family,
    n_layers: usize,
    base: f64,
    others: &Head,
    head: &dyn Fn() -> Head,
    scaling: &dyn Fn(f64, usize) -> RopeScaling,
) -> Option<Window> {
    let rule = f.window.filter(|rule| rule.only_of_layers.is_none_or(|n| usize::from(n) == n_layers))?;
    let size = keys.size("attention.sliding_window", Some(rule.size.into()), 0, MAX_CONTEXT);
    if size == 0 {
        return None;
    }
    let head = head();
    let pattern = "attention.sliding_window_pattern";
    let mut layers = LayerSet::default();
    let mut set = |layer, windowed| {
        if windowed {
            layers.insert(layer);
        }
    };
    if let Some(Value::Array(list)) = keys.get(pattern) {
        keys.for_each_layer(pattern, list, n_layers, &mut |layer, n| set(layer, n != 0));
    } else {
        let every = keys.size(pattern, Some(rule.global_every.into()), 0, MAX_LAYERS);
        (0..n_layers).for_each(|l| set(l, l.checked_rem(every).is_none_or(|i| i != every - 1)));
    }
    let key = "rope.freq_base_swa";
    let own = match rule.rope {
        WindowRope::Base(default) => keys.float(key, Some(default.into())),
        _ => keys.float(key, Some(base)),
    };
    // llama.cpp reads the key of more families, and rotates their windowed layers by the base of the others.
    if matches!(rule.rope, WindowRope::Same | WindowRope::Plain) && own != base {
        keys.unsupported(key);
    }
    let scaling = scaling(own, head.rope_dims);
    let is_scaled = rule.rope == WindowRope::OwnBaseScaled;
    let factor = if is_scaled { RopeScaling::factor_of(keys) } else { scaling.factor };
    let same_factor = factor == scaling.factor;
    let unscaled = |multiplier| RopeScaling { factor: 1.0, yarn: None, multiplier, ..scaling };
    let scaling = match rule.rope {
        WindowRope::Same | WindowRope::OwnBase | WindowRope::OwnBaseScaled => RopeScaling { factor, ..scaling },
        WindowRope::Base(_) => unscaled(keys.float("rope.scaling.attn_factor", Some(1.0)) as f32),
        WindowRope::Plain => unscaled(1.0),
    };
    let is_same = !matches!(rule.rope, WindowRope::Base(_) | WindowRope::Plain)
        && own == base
        && same_factor
        && head.rope_dims == others.rope_dims;
    let rotation = (!is_same).then_some(Rotation { base: own, scaling });
    (layers != LayerSet::default()).then_some(Window { size, layers, head, rotation })
}

#[inline(never)]
fn no_rope(keys: &Keys<'_, '_>, f: &Family, n_layers: usize, window: Option<&Window>) -> LayerSet {
    let mut layers = LayerSet::default();
    // Every layer whose number is this, modulo that; and none that has a window.
    let (first, step) = match (f.no_rope, window) {
        (NoRope::EveryFourth, _) => (3, 4),
        (NoRope::GlobalLayers, Some(_)) => (0, 1),
        (NoRope::IfNotFinetuned, _) if matches!(keys.get("rope.scaling.finetuned"), Some(Value::Bool(false))) => (0, 1),
        _ => return layers,
    };
    for l in (first..n_layers).step_by(step) {
        if f.no_rope != NoRope::GlobalLayers || window.is_none_or(|w| !w.layers.contains(l)) {
            layers.insert(l);
        }
    }
    layers
}

/// A scale that a key may give; 0 means 1, as in llama.cpp.
#[inline(never)]
fn scale_of(keys: &Keys<'_, '_>, key: &str, scale: Scale, n_embd: usize, n_layers: usize) -> f32 {
    let default = match scale {
        Scale::One => return keys.own(key, false, 1.0),
        Scale::RootOfWidth => return keys.own(key, false, libm::sqrtf(n_embd as f32)),
        Scale::RequiredKey => return keys.f32(key, None),
        Scale::Key(default) => default,
        Scale::KeyOrByDepth(by) => by / libm::sqrtf(n_layers as f32),
        Scale::KeyOrByWidth(by) => by / n_embd as f32,
    };
    match keys.f32_or_zero(key, default) {
        0.0 => 1.0,
        found => found,
    }
}

fn cap(keys: &Keys<'_, '_>, key: &str, default: Option<u8>) -> f32 {
    keys.own(key, default.is_some(), default.unwrap_or(0).into())
}
