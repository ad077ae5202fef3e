//! The sampler.

use super::candidate::{CANDIDATES, Candidate, better};
use super::config::SamplerConfig;
use super::filters::{cut_min_p, cut_top_p};
use super::penalties::{PENALTY_WINDOW, Recent};
use crate::util::SliceExt;
use crate::util::binary_heap::{drain, sift_down, sift_up};

/// Why no token could be sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SampleError {
    /// No logits.
    #[error("there are no logits to sample from, or none of an allowed token")]
    Empty,
    /// A logit is NaN or infinite: the weights are damaged.
    #[error("a logit is infinite or not a number: the model's file is damaged, or its weights overflow")]
    NotANumber,
}

/// Logits that are compared together with the least of the best: nearly all are below it.
const CHUNK: usize = 32;

/// What the caller knows of the next token.
#[derive(Clone, Copy)]
pub struct Rules<'r> {
    /// The logit of a token that without it would have the given one; `None` for a token that is not allowed.
    pub adjust: &'r dyn Fn(u32, f32) -> Option<f32>,
    /// The most by which it raises a logit; 0 if it raises none. Tokens that stay below the likeliest even so are not asked for.
    pub most_raised: f32,
    /// How many tokens it lowers or does not allow, at most; none where that is not known, or where all logits are wanted behind
    /// a step, such as for [`log_probability`](super::log_probability): boards that share a model by rows have only as many as decide.
    pub lowers: Option<usize>,
}

impl Rules<'_> {
    /// None.
    pub const NONE: Rules<'static> = Rules { adjust: &|_, logit| Some(logit), most_raised: 0.0, lowers: Some(0) };
}

/// A sampler with its state. It takes 9 KiB: keep it beside the session, not on a small stack.
#[derive(Clone, Debug)]
pub struct Sampler {
    pub(super) config: SamplerConfig,
    state: u64,
    pub(super) recent: Recent,
    pub(super) candidates: [Candidate; CANDIDATES],
}

impl Sampler {
    /// A sampler without history.
    pub fn new(config: SamplerConfig) -> Self {
        Self { config, state: config.seed, recent: Recent::default(), candidates: [Candidate::default(); CANDIDATES] }
    }

    /// Clears the history and restarts the random numbers from the seed.
    pub fn restart(&mut self) {
        self.state = self.config.seed;
        self.recent.clear();
    }

    /// Clears the history.
    pub fn forget(&mut self) {
        self.recent.clear();
    }

    /// Changes the settings, and starts the random numbers from the new seed; the history stays.
    pub fn configure(&mut self, config: SamplerConfig) {
        (self.config, self.state) = (config, config.seed);
    }

    /// Adds a token to the history, for the penalties.
    pub fn accept(&mut self, token: u32) {
        self.recent.push(token);
    }

    /// Samples the next token from `logits` (one for each token of the vocabulary).
    ///
    /// # Errors
    /// [`SampleError`] if there are no logits, or one is NaN or infinite.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SampleError> {
        self.sample_allowed(logits, &|_| true)
    }

    /// The same, of the tokens that are allowed: [`Tokenizer::is_suppressed`](crate::tokenizer::Tokenizer::is_suppressed)
    /// says which are not. It is asked of the likeliest tokens only.
    ///
    /// # Errors
    /// [`SampleError`] if there are no logits, one is NaN or infinite, or no token is allowed.
    pub fn sample_allowed(&mut self, logits: &[f32], allowed: &dyn Fn(u32) -> bool) -> Result<u32, SampleError> {
        let adjust = |token, logit| allowed(token).then_some(logit);
        self.sample_by(logits, Rules { adjust: &adjust, most_raised: 0.0, lowers: None })
    }

    /// The same by rules, which apply behind the penalties. They are asked of the likeliest tokens only.
    ///
    /// # Errors
    /// As there.
    #[inline(never)]
    pub fn sample_by(&mut self, logits: &[f32], rules: Rules<'_>) -> Result<u32, SampleError> {
        // An infinity is an overflow; it would make every probability NaN.
        // NaN is not below infinity either. Without an early end, so that it takes an instruction for a vector.
        if !logits.iter().fold(true, |finite, l| finite & (*l < f32::INFINITY)) {
            return Err(SampleError::NotANumber);
        }
        let (config, room) = (self.config, self.room());
        if room == 1 {
            return self.argmax(logits, rules);
        }
        let n = self.keep_best(logits, room, rules);
        let kept = self.candidates.get_mut(..n).filter(|c| !c.is_empty()).ok_or(SampleError::Empty)?;
        let n = cut_min_p(kept, cut_top_p(kept, config.top_p), config.min_p);
        let best = kept.first().map_or(0.0, |c| c.logit);
        let mut total = 0.0;
        for c in kept.first_n_mut(n) {
            c.logit = libm::expf((c.logit - best) / config.temperature);
            total += c.logit;
        }
        let mut point = self.uniform() * total;
        let kept = self.candidates.first_n(n);
        for c in kept {
            point -= c.logit;
            if point < 0.0 {
                return Ok(c.token);
            }
        }
        // Rounding made the weights sum to a little less: the last one takes the difference.
        kept.last().map(|c| c.token).ok_or(SampleError::Empty)
    }

    /// How many of the best logits are enough to sample by these rules, here and behind the tokens that come next, whatever the
    /// others are below them: it draws the same if they are −∞. None where any of them may count.
    ///
    /// What is drawn is among the likeliest behind penalties and rules, as many as are kept. As long as these only lower logits,
    /// nothing but what they keep and what they lower was better before.
    pub fn needs(&self, rules: Rules<'_>) -> Option<usize> {
        if !Recent::lowers(&self.config) || rules.most_raised > 0.0 {
            return None;
        }
        let penalised = if Recent::penalises(&self.config) { PENALTY_WINDOW } else { 0 };
        Some(self.room().saturating_add(penalised).saturating_add(rules.lowers?))
    }

    /// How many of the likeliest tokens are kept.
    fn room(&self) -> usize {
        match self.config.top_k {
            _ if self.config.temperature <= 0.0 => 1,
            0 => CANDIDATES,
            k => k.min(CANDIDATES),
        }
    }

    /// The likeliest token; among equals, the one with the lowest id.
    pub(super) fn argmax(&self, logits: &[f32], rules: Rules<'_>) -> Result<u32, SampleError> {
        let mut best = None::<Candidate>;
        for (first, logits) in (0..).step_by(CHUNK).zip(logits.chunks(CHUNK)) {
            if best.is_some_and(|b| self.none_above(logits, b.logit, rules)) {
                continue;
            }
            for (token, logit) in (first..).zip(logits) {
                let logit = self.recent.penalise(&self.config, token, *logit);
                if best.is_some_and(|b| logit + rules.most_raised <= b.logit) {
                    continue;
                }
                if let Some(logit) = (rules.adjust)(token, logit).filter(|l| best.is_none_or(|b| *l > b.logit)) {
                    best = Some(Candidate { token, logit });
                }
            }
        }
        best.map(|b| b.token).ok_or(SampleError::Empty)
    }

    /// Puts the `room` likeliest tokens into `candidates`, sorted; returns how many there are.
    ///
    /// A heap with the least likely on top, so that most logits are compared once and dropped.
    pub(super) fn keep_best(&mut self, logits: &[f32], room: usize, rules: Rules<'_>) -> usize {
        let mut n = 0;
        for (first, logits) in (0..).step_by(CHUNK).zip(logits.chunks(CHUNK)) {
            // Those kept have lower ids, so an equal logit is no better.
            if n == room && self.candidates.first().is_some_and(|least| self.none_above(logits, least.logit, rules)) {
                continue;
            }
            for (token, logit) in (first..).zip(logits) {
                let logit = self.recent.penalise(&self.config, token, *logit);
                let heap = &mut self.candidates;
                let least = heap.first().filter(|_| n == room).map_or(f32::NEG_INFINITY, |least| least.logit);
                if n == room && logit + rules.most_raised <= least {
                    continue;
                }
                let Some(logit) = (rules.adjust)(token, logit) else { continue };
                let new = Candidate { token, logit };
                if let Some(slot) = heap.get_mut(n).filter(|_| n < room) {
                    *slot = new;
                    n += 1;
                    sift_up(heap.first_n_mut(n), better);
                } else if let Some(least) = heap.first_mut().filter(|least| better(&new, least)) {
                    *least = new;
                    sift_down(heap.first_n_mut(n), better);
                }
            }
        }
        drain(self.candidates.first_n_mut(n), better);
        n
    }

    /// Whether no logit is above `bound`, not even with its penalties, which lower it, and by the rules.
    #[inline(never)]
    fn none_above(&self, logits: &[f32], bound: f32, rules: Rules<'_>) -> bool {
        let bound = bound - rules.most_raised;
        Recent::lowers(&self.config) && logits.iter().fold(true, |none, l| none & (*l <= bound))
    }

    /// Uniform in 0..1: splitmix64 (Steele et al. 2014).
    fn uniform(&mut self) -> f32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
    }
}
