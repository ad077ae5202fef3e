//! Filters of the sorted candidates.

use super::candidate::Candidate;

/// Nucleus sampling (Holtzman et al. 2019, arXiv 1904.09751): how many of the sorted candidates to keep.
#[inline(never)]
pub(super) fn cut_top_p(sorted: &[Candidate], top_p: f32) -> usize {
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
#[inline(never)]
pub(super) fn cut_min_p(sorted: &[Candidate], n: usize, min_p: f32) -> usize {
    if min_p <= 0.0 {
        return n;
    }
    let least = sorted.first().map_or(0.0, |c| c.logit) + libm::logf(min_p);
    sorted.iter().take(n).position(|c| c.logit < least).unwrap_or(n).max(1)
}
