//! Sampling: from logits to a token by repeat penalty, top-k, top-p, min-p, temperature, and a seeded random choice.
//!
//! The filters and their order are llama.cpp's, so settings that work there work here. Scalar code on `libm`: the same
//! seed and the same logits give the same token on every machine.

use crate::util::SliceExt;
use crate::util::binary_heap::{drain, sift_down, sift_up};

/// Settings of the sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits; 0 always picks the likeliest token (greedy decoding).
    pub temperature: f32,
    /// Keep only this many of the likeliest tokens; 0: [`CANDIDATES`], which is also the most.
    pub top_k: usize,
    /// Keep only the likeliest tokens whose probabilities sum to this; 1 keeps all.
    pub top_p: f32,
    /// Keep only tokens at least this probable relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides (if positive) or multiplies (if negative) the logits of recent tokens; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, repeat_penalty: 1.0, seed: 0 }
    }
}

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

/// A token and its logit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidate {
    /// The token.
    pub token: u32,
    /// Its logit, later its weight.
    pub logit: f32,
}

/// The most tokens that top-k keeps. Beyond them probabilities are negligible, and the limit makes memory fixed.
pub const CANDIDATES: usize = 1024;
/// Tokens to which the repeat penalty applies: the most recent ones, as many as in llama.cpp.
pub const PENALTY_WINDOW: usize = 64;

/// Logits that are compared together with the least of the best: nearly all are below it.
const CHUNK: usize = 32;

/// A sampler with its state. It takes 9 KiB: keep it beside the session, not on a small stack.
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplerConfig,
    state: u64,
    recent: [u32; PENALTY_WINDOW],
    n_recent: usize,
    candidates: [Candidate; CANDIDATES],
}

impl Sampler {
    /// A sampler without history.
    pub fn new(config: SamplerConfig) -> Self {
        Self {
            config,
            state: config.seed,
            recent: [0; PENALTY_WINDOW],
            n_recent: 0,
            candidates: [Candidate::default(); CANDIDATES],
        }
    }

    /// Clears the history and restarts the random numbers from the seed.
    pub fn restart(&mut self) {
        (self.state, self.n_recent) = (self.config.seed, 0);
    }

    /// Clears the history.
    pub fn forget(&mut self) {
        self.n_recent = 0;
    }

    /// Changes the settings, and starts the random numbers from the new seed; the history stays.
    pub fn configure(&mut self, config: SamplerConfig) {
        (self.config, self.state) = (config, config.seed);
    }

    /// Adds a token to the history, for the repeat penalty.
    pub fn accept(&mut self, token: u32) {
        if let Some(slot) = self.recent.get_mut(self.n_recent % PENALTY_WINDOW) {
            *slot = token;
        }
        self.n_recent += 1;
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
        // An infinity is an overflow; it would make every probability NaN.
        // NaN is not below infinity either. Without an early end, so that it takes an instruction for a vector.
        if !logits.iter().fold(true, |finite, l| finite & (*l < f32::INFINITY)) {
            return Err(SampleError::NotANumber);
        }
        let config = self.config;
        if config.temperature <= 0.0 || config.top_k == 1 {
            return self.argmax(logits, allowed);
        }
        let room = if config.top_k == 0 { CANDIDATES } else { config.top_k.min(CANDIDATES) };
        let n = self.keep_best(logits, room, allowed);
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

    /// The likeliest token; among equals, the one with the lowest id.
    fn argmax(&self, logits: &[f32], allowed: &dyn Fn(u32) -> bool) -> Result<u32, SampleError> {
        let mut best = None::<Candidate>;
        for (first, logits) in (0..).step_by(CHUNK).zip(logits.chunks(CHUNK)) {
            if best.is_some_and(|b| self.none_above(logits, b.logit)) {
                continue;
            }
            for (token, logit) in (first..).zip(logits) {
                let logit = self.penalised(token, *logit);
                if best.is_none_or(|b| logit > b.logit) && allowed(token) {
                    best = Some(Candidate { token, logit });
                }
            }
        }
        best.map(|b| b.token).ok_or(SampleError::Empty)
    }

    /// Puts the `room` likeliest tokens into `candidates`, sorted; returns how many there are.
    ///
    /// A heap with the least likely on top, so that most logits are compared once and dropped.
    fn keep_best(&mut self, logits: &[f32], room: usize, allowed: &dyn Fn(u32) -> bool) -> usize {
        let mut n = 0;
        for (first, logits) in (0..).step_by(CHUNK).zip(logits.chunks(CHUNK)) {
            // Those kept have lower ids, so an equal logit is no better.
            if n == room && self.candidates.first().is_some_and(|least| self.none_above(logits, least.logit)) {
                continue;
            }
            for (token, logit) in (first..).zip(logits) {
                let new = Candidate { token, logit: self.penalised(token, *logit) };
                let heap = &mut self.candidates;
                if n < room {
                    if let Some(slot) = heap.get_mut(n).filter(|_| allowed(token)) {
                        *slot = new;
                        n += 1;
                    }
                    sift_up(heap.first_n_mut(n), better);
                } else if let Some(least) = heap.first_mut().filter(|least| better(&new, least) && allowed(token)) {
                    *least = new;
                    sift_down(heap.first_n_mut(n), better);
                }
            }
        }
        drain(self.candidates.first_n_mut(n), better);
        n
    }

    /// Whether no logit is above `bound`, not even with its penalty, which lowers it.
    fn none_above(&self, logits: &[f32], bound: f32) -> bool {
        self.config.repeat_penalty >= 1.0 && logits.iter().fold(true, |none, l| none & (*l <= bound))
    }

    /// The repeat penalty of Keskar et al. 2019, arXiv 1909.05858, applied so that it lowers negative logits too.
    fn penalised(&self, token: u32, logit: f32) -> f32 {
        let penalty = self.config.repeat_penalty;
        if penalty == 1.0 || !self.recent.first_n(self.n_recent.min(PENALTY_WINDOW)).contains(&token) {
            return logit;
        }
        if logit > 0.0 { logit / penalty } else { logit * penalty }
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

/// Whether `a` comes before `b`: it is likelier, or as likely with a lower id.
fn better(a: &Candidate, b: &Candidate) -> bool {
    a.logit > b.logit || (a.logit == b.logit && a.token < b.token)
}

/// Nucleus sampling (Holtzman et al. 2019, arXiv 1904.09751): how many of the sorted candidates to keep.
fn cut_top_p(sorted: &[Candidate], top_p: f32) -> usize {
    if top_p >= 1.0 {
        return sorted.len();
    }
    let best = sorted.first().map_or(0.0, |c| c.logit);
    let weight = |c: &Candidate| libm::expf(c.logit - best);
    let total: f32 = sorted.iter().map(weight).sum();
    let mut sum = 0.0;
    let before = sorted.iter().position(|c| {
        sum += weight(c);
        sum >= top_p * total
    });
    before.map_or(sorted.len(), |i| i + 1)
}

/// Nguyen et al. 2024, arXiv 2407.01082: how many of the first `n` sorted candidates to keep, at least one.
fn cut_min_p(sorted: &[Candidate], n: usize, min_p: f32) -> usize {
    if min_p <= 0.0 {
        return n;
    }
    let least = sorted.first().map_or(0.0, |c| c.logit) + libm::logf(min_p);
    sorted.iter().take(n).position(|c| c.logit < least).unwrap_or(n).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn sampler(config: SamplerConfig) -> Sampler {
        Sampler::new(config)
    }

    const ALL: SamplerConfig =
        SamplerConfig { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, seed: 1 };

    /// How often each of the tokens comes in `n` draws.
    fn counts(config: SamplerConfig, logits: &[f32], n: usize) -> Vec<usize> {
        let mut s = sampler(config);
        let mut counts = vec![0; logits.len()];
        (0..n).for_each(|_| counts[s.sample(logits).unwrap() as usize] += 1);
        counts
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let p = [0.5f32, 0.25, 0.15, 0.1];
        let logits = p.map(f32::ln);
        for (got, p) in counts(ALL, &logits, 40_000).iter().zip(p) {
            assert!((*got as f32 / 40_000.0 - p).abs() < 0.01, "{got} for {p}");
        }
        // Temperature ½ squares the odds: 4 : 1 for the first two.
        let cold = counts(SamplerConfig { temperature: 0.5, ..ALL }, &logits, 40_000);
        assert!((cold[0] as f32 / cold[1] as f32 - 4.0).abs() < 0.3);
    }

    #[test]
    fn only_allowed_tokens_are_drawn() {
        let logits: Vec<f32> = (0..3000).map(|i| (i % 1500) as f32 / 500.0).collect();
        for config in [ALL, SamplerConfig { temperature: 0.0, ..ALL }, SamplerConfig { top_k: 3, ..ALL }] {
            for allowed in [|t: u32| t % 7 == 3, |t: u32| t == 0, |t: u32| t > 2990] {
                let mut s = sampler(config);
                assert!((0..200).all(|_| allowed(s.sample_allowed(&logits, &allowed).unwrap())));
            }
            assert_eq!(sampler(config).sample_allowed(&logits, &|_| false), Err(SampleError::Empty));
        }
    }

    #[test]
    fn each_filter_cuts_what_it_says() {
        let logits = [0.1f32, 0.5, 0.15, 0.25].map(f32::ln);
        let kept = |config| counts(config, &logits, 2000).iter().map(|c| usize::from(*c > 0)).collect::<Vec<_>>();
        assert_eq!(kept(SamplerConfig { top_k: 2, ..ALL }), [0, 1, 0, 1]);
        assert_eq!(kept(SamplerConfig { top_p: 0.7, ..ALL }), [0, 1, 0, 1]);
        assert_eq!(kept(SamplerConfig { top_p: 0.0, ..ALL }), [0, 1, 0, 0]);
        assert_eq!(kept(SamplerConfig { min_p: 0.25, ..ALL }), [0, 1, 1, 1]);
        assert_eq!(kept(SamplerConfig { min_p: 1.0, ..ALL }), [0, 1, 0, 0]);
        assert_eq!(kept(SamplerConfig { temperature: 0.0, ..ALL }), [0, 1, 0, 0]);
    }

    #[test]
    fn the_repeat_penalty_weakens_either_sign_and_forgets() {
        let config = SamplerConfig { temperature: 0.0, repeat_penalty: 2.0, ..ALL };
        for logits in [[3.0f32, 2.0, 0.0], [-1.0, -1.5, -9.0]] {
            let mut s = sampler(config);
            assert_eq!(s.sample(&logits), Ok(0));
            s.accept(0);
            assert_eq!(s.sample(&logits), Ok(1));
            (0..PENALTY_WINDOW).for_each(|_| s.accept(2));
            assert_eq!(s.sample(&logits), Ok(0));
        }
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let logits: Vec<f32> = (0..200).map(|i| (i * 37 % 17) as f32 / 5.0).collect();
        let run = |seed| {
            let mut s = sampler(SamplerConfig { seed, ..Default::default() });
            (0..50).map(|_| s.sample(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn broken_logits_are_an_error_and_never_a_panic() {
        for temperature in [0.0, 0.8] {
            let mut s = sampler(SamplerConfig { temperature, ..Default::default() });
            assert_eq!(s.sample(&[]), Err(SampleError::Empty));
            assert_eq!(s.sample(&[1.0, f32::NAN]), Err(SampleError::NotANumber));
            assert_eq!(s.sample(&[f32::INFINITY, 0.0]), Err(SampleError::NotANumber));
            assert_eq!(s.sample(&[f32::NEG_INFINITY, 0.0]), Ok(1));
            assert!(s.sample(&[f32::NEG_INFINITY; 3]).is_ok());
        }
    }

    /// With few different logits, so that there are ties, and penalties that lower logits or raise them.
    #[test]
    fn no_chunk_with_a_better_token_is_skipped() {
        for (seed, penalty) in [(1u64, 1.0), (2, 2.0), (3, 0.5), (4, 1.3)] {
            let mut s = sampler(SamplerConfig { temperature: 0.0, repeat_penalty: penalty, ..ALL });
            let random = |i: u64| (i * 2 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            (0..40).for_each(|i| s.accept((random(i) % 1000) as u32));
            for round in 0..200 {
                let logits: Vec<f32> = (0..1000).map(|i| (random(1000 * round + i) % 17) as f32 - 12.0).collect();
                let penalised = |t: usize| s.penalised(t as u32, logits[t]);
                let best = (0..1000).fold(0, |best, t| if penalised(t) > penalised(best) { t } else { best });
                assert_eq!(s.argmax(&logits, &|_| true), Ok(best as u32), "penalty {penalty}, round {round}");
            }
        }
    }

    #[test]
    fn the_best_are_kept_whatever_the_order() {
        let logits: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5003) as f32).collect();
        let mut s = sampler(ALL);
        let n = s.keep_best(&logits, 50, &|_| true);
        let mut sorted = logits.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        assert!(s.candidates[..n].iter().map(|c| c.logit).eq(sorted[..50].iter().copied()));
    }
}
