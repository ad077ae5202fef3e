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
mod fingerprint;
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
#[cfg(feature = "boards")]
mod shared_fingerprint;
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
use crate::storage::{Arena, Region};
use crate::tokenizer::Tokenizer;

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
