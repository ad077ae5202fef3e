//! DRY, "don't repeat yourself" (p-e-w, text-generation-webui #5677): a token that would prolong a repetition is penalised, the
//! more the longer that is.

use super::candidate::Candidate;

/// The longest repetition that is told from a longer one: what it costs is beyond any logit.
const LONGEST: usize = 64;

/// Settings of DRY.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dry {
    /// Penalty of the shortest repetition that has one; 0 for none.
    pub multiplier: f32,
    /// Penalty of a repetition that is a token longer, as a multiple.
    pub base: f32,
    /// The longest repetition without a penalty, in tokens, is one shorter.
    pub allowed_length: usize,
}

impl Default for Dry {
    fn default() -> Self {
        Dry { multiplier: 0.0, base: 1.75, allowed_length: 2 }
    }
}

impl Dry {
    /// Writes the tokens that would prolong a repetition behind `history`, oldest token first, to `out`, with what is to be
    /// subtracted from their logits; returns how many there are. Beyond what `out` has room for, tokens have no penalty. No
    /// repetition goes on over a token that `breaks`, such as one with a line end.
    ///
    /// It takes up to 64 comparisons for each token of the history.
    pub fn penalties(&self, history: &[u32], breaks: &dyn Fn(u32) -> bool, out: &mut [Candidate]) -> usize {
        let mut n = 0;
        if self.multiplier == 0.0 {
            return 0;
        }
        for (at, token) in history.iter().enumerate() {
            let (before, end) = (history.get(..at).unwrap_or(&[]), history);
            let repeated = before.iter().rev().zip(end.iter().rev()).take(LONGEST);
            let length = repeated.take_while(|(a, b)| a == b && !breaks(**a)).count();
            let Some(longer) = length.checked_sub(self.allowed_length.max(1)) else { continue };
            let penalty = (self.multiplier * libm::powf(self.base, longer as f32)).min(f32::MAX);
            let known = out.iter_mut().take(n).find(|c| c.token == *token);
            if let Some(known) = known {
                known.logit = known.logit.max(penalty);
            } else if let Some(slot) = out.get_mut(n) {
                *slot = Candidate { token: *token, logit: penalty };
                n += 1;
            }
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    const DRY: Dry = Dry { multiplier: 0.5, base: 2.0, allowed_length: 2 };

    fn found(dry: Dry, history: &[u32], breaks: &dyn Fn(u32) -> bool) -> Vec<(u32, f32)> {
        let mut out = [Candidate::default(); 64];
        let n = dry.penalties(history, breaks, &mut out);
        let mut found: Vec<_> = out[..n].iter().map(|c| (c.token, c.logit)).collect();
        found.sort_by_key(|(token, _)| *token);
        found
    }

    #[test]
    fn what_would_prolong_a_repetition_is_penalised() {
        let none = |_: u32| false;
        // 1 2 3 4 … 1 2 3: 4 would make it a repetition of four.
        assert_eq!(found(DRY, &[1, 2, 3, 4, 9, 1, 2, 3], &none), [(4, 1.0)]);
        assert_eq!(found(DRY, &[1, 2, 3, 4, 9, 2, 3], &none), [(4, 0.5)]);
        assert_eq!(found(DRY, &[1, 2, 3, 4, 9, 3], &none), []);
        assert_eq!(found(DRY, &[1, 2, 7, 1, 2, 8, 1, 2], &none), [(7, 0.5), (8, 0.5)]);
        // The longest of several counts.
        assert_eq!(found(DRY, &[5, 2, 3, 4, 1, 2, 3, 4, 9, 1, 2, 3], &none), [(4, 1.0)]);
        assert_eq!(found(Dry { multiplier: 0.0, ..DRY }, &[1; 20], &none), []);
        assert_eq!(found(DRY, &[], &none), []);
    }

    #[test]
    fn no_repetition_goes_over_a_break() {
        let history = [1, 2, 3, 4, 9, 1, 2, 3];
        assert_eq!(found(DRY, &history, &|t| t == 1), [(4, 0.5)]);
        assert_eq!(found(DRY, &history, &|t| t == 2), []);
        assert_eq!(found(DRY, &history, &|t| t == 3), []);
    }

    #[test]
    fn a_long_repetition_is_finite_and_a_short_list_is_filled() {
        let all = found(Dry { base: 1e9, ..DRY }, &[7; 500], &|_| false);
        assert_eq!(all, [(7, f32::MAX)]);
        let mut out = [Candidate::default(); 1];
        assert_eq!(DRY.penalties(&[1, 2, 7, 1, 2, 8, 1, 2], &|_| false, &mut out), 1);
    }

    /// Of all lengths by trying each.
    #[test]
    fn lengths_are_those_of_a_naive_search() {
        let mut state = 1u64;
        for round in 0..300 {
            let mut random = |n: u64| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % n
            };
            let history: Vec<u32> = (0..random(40)).map(|_| random(4) as u32).collect();
            let breaks = |t: u32| round % 3 == 0 && t == 0;
            let mut want: BTreeMap<u32, f32> = BTreeMap::new();
            for at in 0..history.len() {
                for length in DRY.allowed_length..=at {
                    let suffix = &history[history.len() - length..];
                    if history[at - length..at] == *suffix && !suffix.iter().any(|t| breaks(*t)) {
                        let penalty = DRY.multiplier * DRY.base.powi((length - DRY.allowed_length) as i32);
                        let slot = want.entry(history[at]).or_default();
                        *slot = slot.max(penalty);
                    }
                }
            }
            assert_eq!(found(DRY, &history, &breaks), want.into_iter().collect::<Vec<_>>(), "{history:?}");
        }
    }
}
