//! Transformers: hyper-parameters, weights in the mapped file, the KV cache and the forward pass.
//!
//! A [`Model`] is read-only and shared by all sessions; a session's own state is its KV cache. A family is data: a
//! [`Family`] says what a file cannot; everything else is the presence of a tensor or of a key.

mod attention;
mod batch;
mod buffers;
mod cache;
#[cfg(feature = "boards")]
mod candidates;
mod error;
mod exchange;
mod family;
mod forward;
mod hadamard;
mod hparams;
mod keys;
mod kv_buffer;
mod layer;
mod layer_set;
mod merge_tree;
mod norm;
mod pass;
mod qkv;
#[cfg(feature = "boards")]
mod ring_attention;
mod rope;
mod rope_scaling;
mod share;
#[cfg(feature = "boards")]
mod shared_attention;
#[cfg(feature = "boards")]
mod shared_cache;
#[cfg_attr(not(feature = "boards"), allow(dead_code, reason = "one board has all there is"))]
mod shares;
mod warnings;
mod weights;

pub(crate) use batch::{Batch, Caches};
pub(crate) use buffers::{BufferSizes, Buffers};
pub(crate) use cache::{CacheShape, KvCache, KvGroups, LayerGroup};
pub use error::ModelError;
pub use family::{
    Activation, FAMILIES, Family, NoRope, NormKind, NormPlaces, OwnKeys, QkNorm, RopeKind, Scale, WindowRope,
    WindowRule,
};
pub(crate) use forward::forward;
pub use hparams::{Caps, Head, Hparams, Rotation, Scales, Temperature, Window};
pub(crate) use kv_buffer::{KvBuffer, KvShape};
pub use layer::{Layer, LayerWeights, Linear, Norm};
pub use layer_set::LayerSet;
#[cfg(feature = "boards")]
pub(crate) use merge_tree::MergeTree;
#[cfg(feature = "std")]
pub use pass::InputObserver;
pub(crate) use pass::Pass;
pub(crate) use rope::is_long;
pub use rope_scaling::{RopeScaling, Yarn};
#[cfg(feature = "boards")]
pub use share::ShareError;
pub use share::{Share, Split, TooManyBoards};
#[cfg(feature = "boards")]
pub(crate) use shared_cache::{Field, Run};
pub use shares::{MAX_BOARDS, Shares};
pub use warnings::{ModelWarning, warnings};
pub use weights::Weights;

use crate::gguf::File;
use crate::quant::Matrix;
use crate::storage::{Arena, Region};
use crate::tokenizer::Tokenizer;
use crate::util::SliceExt;

/// A model over a checked file: its tables are in the caller's memory, its weights in the file.
#[derive(Clone, Copy, Debug)]
pub struct Model<'m> {
    /// Its sizes.
    pub hparams: Hparams,
    /// Its weights.
    pub weights: Weights<'m>,
    /// Its vocabulary.
    pub tokenizer: Tokenizer<'m>,
}

impl<'m> Model<'m> {
    /// Bytes of memory that [`Model::new`] needs.
    ///
    /// # Errors
    /// [`ModelError`] when the file is no model that armlet can run.
    pub fn required_bytes(file: &File<'m>) -> Result<usize, ModelError> {
        let mut arena = Arena::dry_run();
        Self::carve(file, &mut arena)?;
        Ok(arena.used())
    }

    /// A model without tables, whose sizes are right, and the bytes that [`Model::new`] needs.
    #[cfg(feature = "capi")]
    pub(crate) fn sizes(file: &File<'m>) -> Result<(Self, usize), ModelError> {
        let mut arena = Arena::dry_run();
        let model = Self::carve(file, &mut arena)?;
        Ok((model, arena.used()))
    }

    /// Like [`Model::required_bytes`], and reports each region.
    ///
    /// # Errors
    /// As there.
    pub fn regions<'o>(file: &File<'m>, observer: &'o mut dyn FnMut(Region)) -> Result<(), ModelError>
    where
        'm: 'o,
    {
        Self::carve(file, &mut Arena::dry_run_with(observer)).map(drop)
    }

    /// Checks the file's model and builds its tables in `memory`.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn new(file: &File<'m>, memory: &'m mut [u8]) -> Result<Self, ModelError> {
        let mut arena = Arena::new(memory)?;
        let model = Self::carve(file, &mut arena)?;
        debug!("model: {} bytes of tables", arena.used());
        Ok(model)
    }

    /// Fingerprint of the model (FNV-1a: Fowler, Noll and Vo): of the sizes and scales, the rotary frequencies, and of
    /// every tensor the format, the size and 64 bytes in each 16 KiB.
    pub fn fingerprint(&self) -> u64 {
        self.sampled(16 << 10)
    }

    /// The same of fewer bytes: of every tensor the first and the last 64, and 64 in each MiB. A board that has a part of a
    /// model reads no more than that of the rest; and what was trained otherwise, or quantised, differs almost everywhere.
    #[cfg(feature = "boards")]
    pub fn sparse_fingerprint(&self) -> u64 {
        self.sampled(1 << 20)
    }

    /// A fingerprint of 64 bytes in each `step` of a tensor.
    #[inline(never)]
    fn sampled(&self, step: usize) -> u64 {
        let (h, w) = (&self.hparams, &self.weights);
        let mut hash = Fingerprint { hash: 0xcbf2_9ce4_8422_2325, step };
        // With the size of its heads, where that is another.
        let own = h.windowed_head();
        let own = ((own.dim ^ h.head.dim) << 16 | (own.rope_dims ^ h.head.rope_dims)) as u64;
        let window = h.window.as_ref().map_or(0, |w| w.size as u64) ^ own << 33;
        let sizes = [h.vocab, h.n_embd, h.n_layers, h.n_heads, h.n_kv_heads, h.head.dim, h.head.rope_dims, h.n_ff];
        hash.words(&sizes.map(|n| n as u64));
        hash.words(&[window]);
        hash.words(&[h.rope_scaling.original_context, h.temperature.interval.get()].map(|n| n as u64));
        for layers in [h.no_rope, h.window.as_ref().map_or(LayerSet::default(), |w| w.layers)] {
            hash.words(layers.words());
        }
        hash.words(w.rope_frequencies);
        let (scales, caps) = (&h.scales, &h.caps);
        let scales = [scales.embedding, scales.residual, h.head.scale, scales.logits];
        let floats = [h.eps, h.rope_scaling.multiplier, caps.attention, caps.logits, h.temperature.scale];
        hash.floats(&scales);
        hash.floats(&floats);
        let windowed = h.window.as_ref().and_then(|w| w.rotation).map_or(1.0, |r| r.scaling.multiplier);
        if windowed != 1.0 {
            hash.floats(&[windowed]);
        }
        hash.add(h.family.name.as_bytes());
        hash.matrix(&w.token_embd);
        hash.linear(&w.output);
        hash.sample(w.output_norm.weight);
        hash.sample(w.output_norm.bias);
        for layer in w.layers {
            layer.for_each(&mut |weights| match weights {
                LayerWeights::Linear(linear) => hash.linear(linear),
                LayerWeights::Vector(bytes) => hash.sample(bytes),
            });
        }
        hash.hash
    }

    /// Whether a layer has a matrix of floats. The sums of these have another order in passes of more than eight tokens, so that
    /// how tokens are cut into passes shows in the last bits; of quantised matrices nothing does.
    pub fn has_float_matrices(&self) -> bool {
        let mut found = false;
        for layer in self.weights.layers {
            layer.for_each(&mut |weights| {
                if let LayerWeights::Linear(linear) = weights {
                    found |= linear.weight.rows() > 0 && linear.weight.dtype().block_len() == 1;
                }
            });
        }
        found
    }

    fn carve<'a>(file: &File<'m>, arena: &mut Arena<'a>) -> Result<Model<'a>, ModelError>
    where
        'm: 'a,
    {
        let hparams = Hparams::new(file)?;
        let weights = Weights::new(file, &hparams, arena)?;
        let tokenizer = Tokenizer::new(file, arena)?;
        Ok(Model { hparams, weights, tokenizer })
    }
}

/// An FNV-1a hash.
struct Fingerprint {
    hash: u64,
    /// In so many bytes of a tensor 64 count.
    step: usize,
}

impl Fingerprint {
    #[inline(never)]
    fn add(&mut self, bytes: &[u8]) {
        self.hash = bytes.iter().fold(self.hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    }

    #[inline(never)]
    fn words(&mut self, words: &[u64]) {
        words.iter().for_each(|word| self.add(&word.to_le_bytes()));
    }

    #[inline(never)]
    fn floats(&mut self, floats: &[f32]) {
        floats.iter().for_each(|x| self.add(&x.to_le_bytes()));
    }

    #[inline(never)]
    fn linear(&mut self, linear: &Linear<'_>) {
        self.matrix(&linear.weight);
        self.sample(linear.bias);
    }

    #[inline(never)]
    fn matrix(&mut self, m: &Matrix<'_>) {
        self.sample(&m.layout().gguf_id(m.dtype()).unwrap_or(u32::MAX).to_le_bytes());
        self.sample(m.bytes());
        if m.scale() != 1.0 {
            self.add(&m.scale().to_le_bytes());
        }
    }

    /// The length, 64 bytes in each step, and the last 64.
    #[inline(never)]
    fn sample(&mut self, bytes: &[u8]) {
        self.add(&(bytes.len() as u64).to_le_bytes());
        let last = bytes.part(bytes.len().saturating_sub(64)..bytes.len());
        bytes.chunks(self.step.max(1)).chain([last]).for_each(|part| self.add(part.first_n(part.len().min(64))));
    }
}
