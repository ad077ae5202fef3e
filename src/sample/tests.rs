//! Tests of the sampler.

use super::penalties::Recent;
use super::*;
use std::vec::Vec;

fn sampler(config: SamplerConfig) -> Sampler {
    Sampler::new(config)
}

const ALL: SamplerConfig = SamplerConfig {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repeat_penalty: 1.0,
    presence_penalty: 0.0,
    frequency_penalty: 0.0,
    seed: 1,
};

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
            let penalised = |t: usize| s.recent.penalise(&s.config, t as u32, logits[t]);
            let best = (0..1000).fold(0, |best, t| if penalised(t) > penalised(best) { t } else { best });
            assert_eq!(s.argmax(&logits, Rules::NONE), Ok(best as u32), "penalty {penalty}, round {round}");
        }
    }
}

#[test]
fn the_best_are_kept_whatever_the_order() {
    let logits: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5003) as f32).collect();
    let mut s = sampler(ALL);
    let n = s.keep_best(&logits, 50, Rules::NONE);
    let mut sorted = logits.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    assert!(s.candidates[..n].iter().map(|c| c.logit).eq(sorted[..50].iter().copied()));
}

#[test]
fn presence_and_frequency_penalties_are_subtracted() {
    let greedy = SamplerConfig { temperature: 0.0, ..ALL };
    let logits = [3.0f32, 2.0, 0.0];
    let next = |config, accepted: &[u32]| {
        let mut s = sampler(config);
        accepted.iter().for_each(|t| s.accept(*t));
        s.sample(&logits).unwrap()
    };
    let presence = SamplerConfig { presence_penalty: 1.5, ..greedy };
    assert_eq!([next(presence, &[]), next(presence, &[0]), next(presence, &[0, 1])], [0, 1, 0]);
    // Once is too little, twice enough.
    let frequency = SamplerConfig { frequency_penalty: 0.6, ..greedy };
    assert_eq!([next(frequency, &[0]), next(frequency, &[0, 0])], [0, 1]);
    // A negative one makes what came likelier, also in a chunk that would be skipped.
    let repeats = SamplerConfig { presence_penalty: -4.0, ..greedy };
    assert_eq!(next(repeats, &[2]), 2);
    let mut long = vec![0.0f32; 500];
    (long[3], long[400]) = (5.0, 4.0);
    let mut s = sampler(repeats);
    s.accept(400);
    assert_eq!(s.sample(&long), Ok(400));
}

/// What is drawn from the best logits alone is what is drawn from all, however penalties and rules lower these; from as many as are
/// kept, it is not.
#[test]
fn the_best_logits_are_enough() {
    let random = |i: u64| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let mut mistaken = 0;
    for round in 0..300u64 {
        let of = |i: u64| random(1000 * round + i);
        // Few different ones, so that there are ties.
        let logits: Vec<f32> = (0..700).map(|i| (of(i) % 60) as f32 / 7.0 - 3.0).collect();
        let mut sorted: Vec<u32> = (0..700).collect();
        sorted.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        let config = SamplerConfig {
            temperature: [0.0, 0.7, 1.5][round as usize % 3],
            top_k: [1, 5, 40, 0][of(701) as usize % 4],
            top_p: [0.9, 1.0][of(702) as usize % 2],
            min_p: [0.0, 0.1][of(703) as usize % 2],
            repeat_penalty: [1.0, 1.3][of(704) as usize % 2],
            presence_penalty: [0.0, 1.5][of(705) as usize % 2],
            frequency_penalty: [0.0, 0.4][of(706) as usize % 2],
            seed: round,
        };
        let mut s = sampler(config);
        // What came last is likely again.
        (0..of(707) % 100).for_each(|i| s.accept(sorted[of(800 + i) as usize % 70]));
        let lowered = &sorted[..of(708) as usize % 6];
        let adjust = |token: u32, logit: f32| match lowered.iter().position(|t| *t == token) {
            Some(i) if i % 2 == 0 => None,
            Some(_) => Some(logit - 5.0),
            None => Some(logit),
        };
        let rules = Rules { adjust: &adjust, most_raised: 0.0, lowers: Some(lowered.len()) };
        let draws = |n: usize| {
            let mut best = vec![f32::NEG_INFINITY; 700];
            sorted.iter().take(n).for_each(|t| best[*t as usize] = logits[*t as usize]);
            let mut s = s.clone();
            (0..6).map(|_| s.sample_by(&best, rules).unwrap()).collect::<Vec<_>>()
        };
        let expected = draws(700);
        assert_eq!(draws(s.needs(rules).unwrap()), expected, "round {round}: {config:?}");
        let kept = s.needs(Rules::NONE).unwrap() - if Recent::penalises(&config) { PENALTY_WINDOW } else { 0 };
        mistaken += usize::from(draws(kept) != expected);
    }
    assert!(mistaken > 30, "{mistaken}");
}

/// A token that is raised may come from anywhere.
#[test]
fn all_logits_are_needed_where_some_are_raised() {
    let needs = |config, rules| sampler(config).needs(rules);
    let greedy = SamplerConfig { temperature: 0.0, ..ALL };
    assert_eq!((needs(ALL, Rules::NONE), needs(greedy, Rules::NONE)), (Some(CANDIDATES), Some(1)));
    assert_eq!(needs(SamplerConfig::default(), Rules { lowers: Some(3), ..Rules::NONE }), Some(43));
    assert_eq!(needs(SamplerConfig { presence_penalty: 0.1, ..greedy }, Rules::NONE), Some(1 + PENALTY_WINDOW));
    for rules in [Rules { most_raised: 0.5, ..Rules::NONE }, Rules { lowers: None, ..Rules::NONE }] {
        assert_eq!(needs(greedy, rules), None);
    }
    for config in [
        SamplerConfig { repeat_penalty: 0.9, ..greedy },
        SamplerConfig { presence_penalty: -0.1, ..greedy },
        SamplerConfig { frequency_penalty: -0.1, ..greedy },
    ] {
        assert_eq!(needs(config, Rules::NONE), None);
    }
}

/// Rules that forbid, lower and raise, with few different logits: beside trying every token.
#[test]
fn rules_hold_for_every_token() {
    let random = |i: u64| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    for round in 0..200u64 {
        let logits: Vec<f32> = (0..700).map(|i| (random(1000 * round + i) % 13) as f32).collect();
        let raise = if round % 2 == 0 { 0.0 } else { 9.0 };
        let bias = |token: u32| match random(round + 7 * u64::from(token)) % 50 {
            0 => Some(raise),
            1 => Some(-3.0),
            2 => None,
            _ => Some(0.0),
        };
        let adjust = |token: u32, logit: f32| bias(token).map(|bias| logit + bias);
        let rules = Rules { adjust: &adjust, most_raised: raise, lowers: None };
        let mut all: Vec<(f32, u32)> = (0..700).filter_map(|t| Some((adjust(t, logits[t as usize])?, t))).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut greedy = sampler(SamplerConfig { temperature: 0.0, ..ALL });
        assert_eq!(greedy.sample_by(&logits, rules), Ok(all[0].1), "round {round}");
        let mut s = sampler(ALL);
        let n = s.keep_best(&logits, 40, rules);
        let kept = s.candidates[..n].iter().map(|c| (c.logit, c.token));
        assert!(kept.eq(all[..40].iter().copied()), "round {round}");
    }
}
