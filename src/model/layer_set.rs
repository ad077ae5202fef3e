//! A set of layers.

/// Some of a model's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerSet([u64; LayerSet::MAX / 64]);

impl LayerSet {
    /// Most layers of a model.
    pub const MAX: usize = 1024;

    /// Whether `layer` is in it.
    pub fn contains(&self, layer: usize) -> bool {
        self.0.get(layer / 64).is_some_and(|word| word >> (layer % 64) & 1 == 1)
    }

    pub(super) fn insert(&mut self, layer: usize) {
        if let Some(word) = self.0.get_mut(layer / 64) {
            *word |= 1 << (layer % 64);
        }
    }

    /// A bit for each layer.
    pub(super) fn words(&self) -> &[u64] {
        &self.0
    }
}
