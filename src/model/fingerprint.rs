//! The fingerprint of a model: what is saved of a session is restored into the same model, and into no other.

use super::{LayerSet, LayerWeights, Linear, Model};
use crate::quant::Matrix;
use crate::util::SliceExt;

/// Bytes that count, of each step of a tensor.
const SAMPLE: usize = 64;
/// The step of a model's fingerprint.
pub(super) const STEP: usize = 16 << 10;

/// What the bytes that count go to, in their order.
pub(super) trait Digest {
    fn add(&mut self, bytes: &[u8]);

    /// The weights that come next are of this layer; those before it are of none.
    #[inline(always)]
    fn enter(&mut self, _layer: usize) {}

    /// What counts of a tensor's bytes: 64 in each step, and the last 64.
    #[inline(always)]
    fn sample(&mut self, bytes: &[u8], step: usize) {
        samples(bytes, step).for_each(|sample| self.add(sample));
    }
}

#[inline(always)]
pub(super) fn samples(bytes: &[u8], step: usize) -> impl Iterator<Item = &[u8]> {
    let last = bytes.part(bytes.len().saturating_sub(SAMPLE)..bytes.len());
    bytes.chunks(step.max(1)).chain([last]).map(|part| part.first_n(part.len().min(SAMPLE)))
}

/// An FNV-1a hash (Fowler, Noll and Vo).
pub(super) struct Fnv(pub(super) u64);

impl Fnv {
    /// Of nothing.
    pub(super) const EMPTY: Self = Fnv(0xcbf2_9ce4_8422_2325);
}

impl Digest for Fnv {
    #[inline(never)]
    fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    }
}

impl Model<'_> {
    /// Fingerprint of the model (FNV-1a: Fowler, Noll and Vo): of the sizes and scales, the rotary frequencies, and of
    /// every tensor the format, the size and 64 bytes in each 16 KiB.
    pub fn fingerprint(&self) -> u64 {
        self.sampled(Fnv::EMPTY, STEP).0
    }

    /// The same of fewer bytes: of every tensor the first and the last 64, and 64 in each MiB. A board that has a part of a
    /// model reads no more than that of the rest; and what was trained otherwise, or quantised, differs almost everywhere.
    #[cfg(feature = "boards")]
    pub fn sparse_fingerprint(&self) -> u64 {
        self.sampled(Fnv::EMPTY, 1 << 20).0
    }

    /// Gives `digest` what counts: of a tensor 64 bytes in each `step`.
    #[inline(never)]
    pub(super) fn sampled<D: Digest>(&self, digest: D, step: usize) -> D {
        let (h, w) = (&self.hparams, &self.weights);
        let mut hash = Fingerprint { digest, step };
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
        hash.digest.add(h.family.name.as_bytes());
        hash.matrix(&w.token_embd);
        hash.linear(&w.output);
        hash.sample(w.output_norm.weight);
        hash.sample(w.output_norm.bias);
        for (i, layer) in w.layers.iter().enumerate() {
            hash.digest.enter(i);
            layer.for_each(&mut |weights| match weights {
                LayerWeights::Linear(linear) => hash.linear(linear),
                LayerWeights::Vector(bytes) => hash.sample(bytes),
            });
        }
        hash.digest
    }
}

/// A fingerprint as it is taken.
struct Fingerprint<D> {
    digest: D,
    /// In so many bytes of a tensor 64 count.
    step: usize,
}

impl<D: Digest> Fingerprint<D> {
    #[inline(never)]
    fn words(&mut self, words: &[u64]) {
        words.iter().for_each(|word| self.digest.add(&word.to_le_bytes()));
    }

    #[inline(never)]
    fn floats(&mut self, floats: &[f32]) {
        floats.iter().for_each(|x| self.digest.add(&x.to_le_bytes()));
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
            self.digest.add(&m.scale().to_le_bytes());
        }
    }

    /// The length, 64 bytes in each step, and the last 64.
    #[inline(never)]
    fn sample(&mut self, bytes: &[u8]) {
        self.digest.add(&(bytes.len() as u64).to_le_bytes());
        self.digest.sample(bytes, self.step);
    }
}
