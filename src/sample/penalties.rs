//! Penalties on the tokens that came last, as llama.cpp has them.

use super::config::SamplerConfig;
use crate::util::SliceExt;

/// Tokens to which penalties apply: the most recent ones, as many as in llama.cpp.
pub const PENALTY_WINDOW: usize = 64;

/// The tokens that came last.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    tokens: [u32; PENALTY_WINDOW],
    /// How many came in all.
    n: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Recent { tokens: [0; PENALTY_WINDOW], n: 0 }
    }
}

impl Recent {
    pub(super) fn push(&mut self, token: u32) {
        if let Some(slot) = self.tokens.get_mut(self.n % PENALTY_WINDOW) {
            *slot = token;
        }
        self.n += 1;
    }

    pub(super) fn clear(&mut self) {
        self.n = 0;
    }

    /// Whether there are any penalties.
    pub(super) fn penalises(c: &SamplerConfig) -> bool {
        c.repeat_penalty != 1.0 || c.presence_penalty != 0.0 || c.frequency_penalty != 0.0
    }

    /// Whether penalties only lower logits.
    pub(super) fn lowers(c: &SamplerConfig) -> bool {
        c.repeat_penalty >= 1.0 && c.presence_penalty >= 0.0 && c.frequency_penalty >= 0.0
    }

    /// The logit of a token with its penalties: that of Keskar et al. 2019, arXiv 1909.05858, applied so that it lowers negative
    /// logits too, then those of OpenAI's API.
    pub(super) fn penalise(&self, c: &SamplerConfig, token: u32, logit: f32) -> f32 {
        if Self::penalises(c) { self.penalised(c, token, logit) } else { logit }
    }

    #[inline(never)]
    fn penalised(&self, c: &SamplerConfig, token: u32, logit: f32) -> f32 {
        let count = self.tokens.first_n(self.n.min(PENALTY_WINDOW)).iter().filter(|t| **t == token).count();
        if count == 0 {
            return logit;
        }
        let repeated = if logit > 0.0 { logit / c.repeat_penalty } else { logit * c.repeat_penalty };
        repeated - c.presence_penalty - c.frequency_penalty * count as f32
    }
}
