//! Hyper-parameters, each checked before anything is computed from it (rules M1 to M3).

use core::num::NonZeroUsize;

use super::ModelError;
use crate::gguf::{File, Label, Value};

/// Which two dimensions of a head RoPE rotates together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeKind {
    /// 2·i and 2·i + 1, as in the paper.
    Interleaved,
    /// i and i + half, as in GPT-NeoX.
    NeoX,
}

/// What distinguishes a model family.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// `general.architecture`, and the prefix of its keys.
    pub name: &'static str,
    /// Its rotary position embedding.
    pub rope: RopeKind,
}

/// Families that the forward pass covers.
static FAMILIES: [Family; 2] =
    [Family { name: "llama", rope: RopeKind::Interleaved }, Family { name: "qwen2", rope: RopeKind::NeoX }];

/// Limits, far above any model that fits a small board; they bound every product of sizes on a 64-bit machine.
const MAX_LAYERS: u64 = 1024;
const MAX_WIDTH: u64 = 1 << 18;
const MAX_HEAD_DIM: u64 = 512;
const MAX_CONTEXT: u64 = 1 << 32;

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
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head; a multiple of 8.
    pub head_dim: usize,
    /// Dimensions of a head that RoPE rotates; even.
    pub rope_dims: usize,
    /// Width of the feed-forward network.
    pub n_ff: usize,
    /// Added to the mean square in a norm.
    pub rms_eps: f32,
    /// Base of the RoPE frequencies.
    pub rope_base: f64,
    /// Positions are divided by this (linear RoPE scaling).
    pub rope_factor: f64,
    /// Of the layers with a sliding window, if there are any.
    pub window: Option<Window>,
}

/// A sliding window of some layers, which attend to the last positions only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Positions in it, with the token's own.
    pub size: usize,
    /// One of so many layers, the last, attends to all positions; 0 for none.
    pub global_every: usize,
    /// Base of these layers' RoPE frequencies if it differs; they are not scaled.
    pub rope_base: Option<f64>,
}

impl Hparams {
    /// Reads and checks them.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn new(file: &File<'_>) -> Result<Self, ModelError> {
        let family = family(file)?;
        let keys = Keys { file, prefix: family.name };
        refuse_unsupported(&keys)?;
        let n_heads = keys.size("attention.head_count", 1..=MAX_WIDTH)?;
        let n_kv_heads = keys.size_or("attention.head_count_kv", n_heads, 1..=n_heads as u64)?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(keys.impossible("attention.head_count_kv"));
        }
        let n_embd = keys.size("embedding_length", 1..=MAX_WIDTH)?;
        let head_dim = keys.size_or("attention.key_length", n_embd / n_heads.max(1), 8..=MAX_HEAD_DIM)?;
        let value_dim = keys.size_or("attention.value_length", head_dim, 8..=MAX_HEAD_DIM)?;
        if !head_dim.is_multiple_of(8) || value_dim != head_dim {
            return Err(ModelError::Feature("a head size that is no multiple of 8, or differs between K and V,"));
        }
        let rope_dims = keys.size_or("rope.dimension_count", head_dim, 2..=head_dim as u64)?;
        if !rope_dims.is_multiple_of(2) {
            return Err(keys.impossible("rope.dimension_count"));
        }
        Ok(Self {
            family,
            vocab: vocab(file)?,
            context_length: keys.size("context_length", 1..=MAX_CONTEXT)?,
            n_embd,
            n_layers: keys.size("block_count", 1..=MAX_LAYERS)?,
            n_heads,
            n_kv_heads,
            head_dim,
            rope_dims,
            n_ff: keys.size("feed_forward_length", 1..=MAX_WIDTH)?,
            rms_eps: rms_eps(&keys)?,
            rope_base: keys.float_or("rope.freq_base", 10_000.0)?,
            rope_factor: rope_factor(&keys)?,
            window: window(&keys)?,
        })
    }

    /// Whether a layer has a sliding window.
    pub fn is_windowed(&self, layer: usize) -> bool {
        self.window.is_some_and(|w| w.global_every == 0 || layer % w.global_every != w.global_every - 1)
    }

    /// How many sets of RoPE frequencies there are.
    pub(crate) fn rope_bases(&self) -> usize {
        if self.window.is_some_and(|w| w.rope_base.is_some()) { 2 } else { 1 }
    }

    /// The set of RoPE frequencies of a layer.
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

    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all K heads together, and of all V heads.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

fn family(file: &File<'_>) -> Result<&'static Family, ModelError> {
    let key = "general.architecture";
    let Some(Value::String(name)) = file.get(key) else {
        return Err(ModelError::Key(Label::new(format_args!("{key}"))));
    };
    let known = FAMILIES.iter().find(|f| f.name.as_bytes() == name);
    known.ok_or(ModelError::Architecture(Label::from_bytes(name)))
}

fn vocab(file: &File<'_>) -> Result<usize, ModelError> {
    match file.get("tokenizer.ggml.tokens") {
        Some(Value::Array(tokens)) if !tokens.is_empty() => Ok(tokens.len()),
        _ => Err(ModelError::Key(Label::new(format_args!("tokenizer.ggml.tokens")))),
    }
}

/// Refuses what llama-family files may need and this forward pass lacks.
fn refuse_unsupported(keys: &Keys<'_, '_>) -> Result<(), ModelError> {
    if matches!(keys.file.get("split.count"), Some(Value::Unsigned(n)) if n > 1) {
        return Err(ModelError::Feature("a model split in several files"));
    }
    if keys.size_or("expert_count", 0, 0..=u64::MAX)? > 0 {
        return Err(ModelError::Feature("a mixture of experts"));
    }
    Ok(())
}

/// Sliding windows as llama.cpp's converters write them: a size; a pattern, one of so many layers has none; and a base.
fn window(keys: &Keys<'_, '_>) -> Result<Option<Window>, ModelError> {
    let size = keys.size_or("attention.sliding_window", 0, 0..=MAX_CONTEXT)?;
    if size == 0 {
        return Ok(None);
    }
    let global_every = keys.size_or("attention.sliding_window_pattern", 0, 0..=MAX_LAYERS)?;
    let base = "rope.freq_base_swa";
    let rope_base = keys.get(base).map(|_| keys.float(base)).transpose()?;
    Ok((global_every != 1).then_some(Window { size, global_every, rope_base }))
}

/// The norm adds it as an `f32`, where a tiny f64 becomes 0 and a huge one infinite.
fn rms_eps(keys: &Keys<'_, '_>) -> Result<f32, ModelError> {
    let key = "attention.layer_norm_rms_epsilon";
    let eps = keys.float(key)? as f32;
    if eps.is_finite() && eps > 0.0 { Ok(eps) } else { Err(keys.impossible(key)) }
}

/// Linear scaling divides positions; a factor without a type means it, as in llama.cpp; "none" ignores the factor;
/// other kinds are refused (dynamic NTK for good: it changes with the position).
fn rope_factor(keys: &Keys<'_, '_>) -> Result<f64, ModelError> {
    // The second is the key's old name.
    let key = ["rope.scaling.factor", "rope.scale_linear"].into_iter().find(|key| keys.get(key).is_some());
    match (keys.get("rope.scaling.type"), key) {
        (None, None) | (Some(Value::String(b"none")), _) => Ok(1.0),
        (None | Some(Value::String(b"linear")), key) => keys.float(key.unwrap_or("rope.scaling.factor")),
        _ => Err(ModelError::Feature("this rope.scaling.type")),
    }
}

/// Typed look-ups of `prefix.key`.
struct Keys<'f, 'a> {
    file: &'f File<'a>,
    prefix: &'static str,
}

impl<'a> Keys<'_, 'a> {
    fn label(&self, key: &str) -> Label {
        Label::new(format_args!("{}.{key}", self.prefix))
    }

    fn impossible(&self, key: &str) -> ModelError {
        ModelError::Value(self.label(key))
    }

    fn get(&self, key: &str) -> Option<Value<'a>> {
        self.file.get(self.label(key).as_str())
    }

    fn size(&self, key: &str, range: core::ops::RangeInclusive<u64>) -> Result<usize, ModelError> {
        let found = self.get(key).ok_or(ModelError::Key(self.label(key)))?;
        let Value::Unsigned(n) = found else { return Err(ModelError::Key(self.label(key))) };
        let n = Some(n).filter(|n| range.contains(n)).ok_or(self.impossible(key))?;
        usize::try_from(n).map_err(|_| self.impossible(key))
    }

    fn size_or(&self, key: &str, default: usize, range: core::ops::RangeInclusive<u64>) -> Result<usize, ModelError> {
        match self.get(key) {
            Some(_) => self.size(key, range),
            None if range.contains(&(default as u64)) => Ok(default),
            None => Err(self.impossible(key)),
        }
    }

    /// A positive, finite number (rule M3).
    fn float(&self, key: &str) -> Result<f64, ModelError> {
        match self.get(key) {
            Some(Value::Float(x)) if x.is_finite() && x > 0.0 => Ok(x),
            Some(Value::Float(_)) => Err(self.impossible(key)),
            _ => Err(ModelError::Key(self.label(key))),
        }
    }

    fn float_or(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        if self.get(key).is_none() { Ok(default) } else { self.float(key) }
    }
}
