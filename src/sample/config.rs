//! Settings of the sampler.

/// Settings of the sampler. Defaults are those of [`SamplerConfig::default`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits; 0 always picks the likeliest token (greedy decoding). 0.8 by default.
    pub temperature: f32,
    /// Keep only this many of the likeliest tokens; 0: [`CANDIDATES`](super::CANDIDATES), which is also the most. 40 by default.
    pub top_k: usize,
    /// Keep only the likeliest tokens whose probabilities sum to this; 1 keeps all. 0.95 by default.
    pub top_p: f32,
    /// Keep only tokens at least this probable relative to the likeliest; 0 keeps all. 0.05 by default.
    pub min_p: f32,
    /// Divides (if positive) or multiplies (if negative) the logits of recent tokens; 1, the default, changes nothing.
    pub repeat_penalty: f32,
    /// Subtracted from the logits of recent tokens; 0, the default, changes nothing.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a recent token for each time that it occurs; 0, the default, changes nothing.
    pub frequency_penalty: f32,
    /// Seed of the random numbers. 0 by default.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}
