//! Transformers of the llama family: hyper-parameters, weights where they lie, and the forward pass.
//!
//! A [`Model`] is read-only and shared; what a conversation changes is in its session. A family is data: a [`Family`]
//! says how its rotary embedding pairs dimensions; biases are used where the file has them.

mod buffers;
mod cache;
mod forward;
mod hparams;
mod weights;

pub(crate) use buffers::{BufferSizes, Buffers};
pub(crate) use cache::{CacheShape, KvBuffer, KvCache, KvGroups, KvShape, LayerGroup};
pub(crate) use forward::{Pass, forward};
pub use hparams::{Family, Hparams, RopeKind, Window};
pub use weights::{Layer, Weights};

use crate::gguf::{File, Label, TensorType};
use crate::quant::PACK_VERSION;
use crate::storage::{Arena, ArenaError, Region};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Why a model cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ModelError {
    /// No such model family here.
    #[error("architecture \"{0}\" is not supported; supported are llama and qwen2")]
    Architecture(Label),
    /// A metadata entry that the model needs.
    #[error("metadata key {0} is missing or has the wrong type")]
    Key(Label),
    /// A metadata entry with a value that cannot be.
    #[error("metadata key {0} has an impossible value")]
    Value(Label),
    /// A feature that would change the result if it were left out.
    #[error("{0} is not supported")]
    Feature(&'static str),
    /// A tensor that the model needs.
    #[error("tensor {0} is missing")]
    MissingTensor(Label),
    /// A tensor of a type that there are no kernels for.
    #[error("tensor {tensor} has type {kind}, which is not supported; requantise the model to Q8_0 or Q4_0")]
    TensorType {
        /// Its name.
        tensor: Label,
        /// Its type.
        kind: TensorType,
    },
    /// A packed file in a layout that armlet does not know.
    #[error("the file is packed in layout {0}, not {known}; pack the original file again", known = PACK_VERSION)]
    PackVersion(u64),
    /// A tensor in panels that is no matrix.
    #[error("tensor {tensor} has type {kind}, but only matrices may be packed; use the original file")]
    Packed {
        /// Its name.
        tensor: Label,
        /// Its type.
        kind: TensorType,
    },
    /// A tensor whose shape is not what the hyper-parameters say.
    #[error("tensor {tensor} has shape {found:?}, but the hyper-parameters say {expected:?}")]
    TensorShape {
        /// Its name.
        tensor: Label,
        /// Columns and rows that the hyper-parameters give.
        expected: [u64; 2],
        /// Its dimensions in the file, columns first.
        found: [u64; 4],
    },
    /// The vocabulary.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The memory given.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// A model over a checked file: its tables lie in memory that the caller gave, its weights in the file.
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
    /// Bytes that [`Model::new`] takes of its memory.
    ///
    /// # Errors
    /// [`ModelError`] when the file is no model that armlet can run.
    pub fn required_bytes(file: &File<'m>) -> Result<usize, ModelError> {
        let mut arena = Arena::dry_run();
        Self::carve(file, &mut arena)?;
        Ok(arena.used())
    }

    /// A model without tables, of which the sizes are right, and the bytes that [`Model::new`] takes.
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

    /// A number that models with other weights, sizes or rotation hardly share: of the sizes, the rotary frequencies, and
    /// of every tensor the format, the size and 64 bytes in each 16 KiB (FNV-1a: Fowler, Noll and Vo).
    pub fn fingerprint(&self) -> u64 {
        let h = &self.hparams;
        let window = h.window.map_or([0; 2], |w| [w.size, w.global_every]);
        let sizes = [h.vocab, h.n_embd, h.n_layers, h.n_heads, h.n_kv_heads, h.head_dim, h.rope_dims, h.n_ff];
        let mut hash = Fingerprint(0xcbf2_9ce4_8422_2325);
        sizes.iter().chain(&window).for_each(|n| hash.add(&(*n as u64).to_le_bytes()));
        hash.add(&h.rms_eps.to_le_bytes());
        hash.add(h.family.name.as_bytes());
        self.weights.rope_frequencies.iter().for_each(|f| hash.add(&f.to_le_bytes()));
        let w = &self.weights;
        let layers = w.layers.iter().flat_map(|l| [l.q, l.k, l.v, l.attn_output, l.gate, l.up, l.down]);
        for m in [w.token_embd, w.output].into_iter().chain(layers) {
            hash.sample(&m.layout().gguf_id(m.dtype()).unwrap_or(u32::MAX).to_le_bytes());
            hash.sample(m.bytes());
        }
        hash.sample(w.output_norm);
        for l in w.layers {
            [l.attn_norm, l.ffn_norm].into_iter().chain(l.qkv_bias).for_each(|bytes| hash.sample(bytes));
        }
        hash.0
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

/// A number made of bytes, one after another.
struct Fingerprint(u64);

impl Fingerprint {
    fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    }

    /// The length, 64 bytes in each 16 KiB, and the last 64.
    #[inline(never)]
    fn sample(&mut self, bytes: &[u8]) {
        self.add(&(bytes.len() as u64).to_le_bytes());
        let last = bytes.get(bytes.len().saturating_sub(64)..).unwrap_or(&[]);
        bytes.chunks(16 << 10).chain([last]).for_each(|part| self.add(part.get(..64).unwrap_or(part)));
    }
}
