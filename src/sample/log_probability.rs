//! Logarithms of probabilities, as the model gives them: before temperature, filters and penalties.

use super::candidate::{Candidate, better};

/// ln p of `token` after these logits, `(vocab)`; the likeliest tokens, most likely first, with theirs go to `likeliest`, as many
/// as it has room for. Of a token beyond the vocabulary, −∞. It takes time in proportion to the room.
#[inline(never)]
pub fn log_probability(logits: &[f32], token: u32, likeliest: &mut [Candidate]) -> f32 {
    let most = logits.iter().fold(f32::NEG_INFINITY, |m, l| m.max(*l));
    if most == f32::NEG_INFINITY {
        likeliest.fill(Candidate { token: u32::MAX, logit: most });
        return most;
    }
    let sum: f64 = logits.iter().map(|l| f64::from(libm::expf(l - most))).sum();
    let total = most + libm::log(sum) as f32;
    likeliest.fill(Candidate { token: u32::MAX, logit: f32::NEG_INFINITY });
    for (token, logit) in (0..).zip(logits) {
        let new = Candidate { token, logit: logit - total };
        if likeliest.last().is_some_and(|least| better(&new, least)) {
            let at = likeliest.partition_point(|c| better(c, &new));
            if let Some(behind) = likeliest.get_mut(at..) {
                behind.rotate_right(1);
                behind.iter_mut().take(1).for_each(|slot| *slot = new);
            }
        }
    }
    logits.get(token as usize).map_or(f32::NEG_INFINITY, |l| l - total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn probabilities_are_those_of_softmax() {
        let p = [0.1f32, 0.5, 0.15, 0.25];
        let logits = p.map(|p| p.ln() + 7.0);
        let mut likeliest = [Candidate::default(); 3];
        let ln = log_probability(&logits, 2, &mut likeliest);
        assert!((ln.exp() - 0.15).abs() < 1e-6);
        assert_eq!(likeliest.map(|c| c.token), [1, 3, 2]);
        likeliest.iter().for_each(|c| assert!((c.logit.exp() - p[c.token as usize]).abs() < 1e-6, "{c:?}"));
        assert_eq!(log_probability(&logits, 4, &mut []), f32::NEG_INFINITY);
        assert_eq!(log_probability(&[], 0, &mut likeliest), f32::NEG_INFINITY);
        assert_eq!(log_probability(&[f32::NEG_INFINITY; 3], 0, &mut likeliest), f32::NEG_INFINITY);
    }

    #[test]
    fn the_likeliest_are_sorted_and_equals_by_id() {
        let logits: Vec<f32> = (0..500).map(|i| ((i * 7919) % 97) as f32).collect();
        let mut likeliest = [Candidate::default(); 20];
        log_probability(&logits, 0, &mut likeliest);
        let mut all: Vec<u32> = (0..500).collect();
        all.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        assert!(likeliest.iter().map(|c| c.token).eq(all[..20].iter().copied()));
    }
}
