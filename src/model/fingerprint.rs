//! The fingerprint of a model: what is saved of a session is restored into the same model, and into no other.

use super::{LayerSet, LayerWeights, Linear, Model};
use crate::quant::Matrix;
use crate::util::SliceExt;

impl Model<'_> {
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
