//! Answers on boards that share a model by rows and send the best logits only: the tokens are those of one board.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;

use crate::boards_exchanges::Counting;
use crate::boards_run::{Way, of_board};
use crate::common::boards::on_boards;
use crate::common::deep;
use crate::common::gguf::{Gguf, Tiny, Val};
use crate::common::run::{Reader, prompt, with_model, with_session};
use armlet::arch::Kernels;
use armlet::boards::Comm;
use armlet::engine::{Config, Engine, Session};
use armlet::generation::{Event, Generation, Limits, Lookup, MAX_DRAFT, Run, Speculation};
use armlet::model::{Model, Shares, Split};
use armlet::quant::DType;
use armlet::sample::{Rules, Sampler, SamplerConfig};
use armlet::storage::Serial;

/// An answer that is asked for.
#[derive(Clone, Debug)]
struct Asked {
    sampling: SamplerConfig,
    /// Tokens that the rules forbid, or lower, and how many of those they say they do.
    lowered: Vec<u32>,
    lowers: Option<usize>,
    /// Whether they forbid what the answer has.
    once: bool,
    /// Tokens that they forbid from this one of the answer on.
    late: (usize, Vec<u32>),
    tokens: usize,
    /// Whether what repeats itself is read in advance.
    drafts: bool,
}

impl Asked {
    /// Without rules or drafts.
    fn new(sampling: SamplerConfig, tokens: usize) -> Self {
        let (lowered, late) = (Vec::new(), (usize::MAX, Vec::new()));
        Asked { sampling, lowered, lowers: Some(0), once: false, late, tokens, drafts: false }
    }
}

/// An answer: its tokens, and the bits of the logits behind each but the last, of one pass a token; how many of these were sent.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    logits: Vec<Vec<u32>>,
    /// Tokens of drafts that held.
    held: usize,
}

fn answer(engine: &mut Engine<'_>, session: &mut Session<'_>, asked: &Asked) -> Answer {
    let start = prompt(11, 9, 40);
    let said = RefCell::new(Vec::new());
    let adjust = |token: u32, logit: f32| match asked.lowered.iter().position(|t| *t == token) {
        None if asked.once && said.borrow().contains(&token) => None,
        None if said.borrow().len() >= asked.late.0 && asked.late.1.contains(&token) => None,
        Some(i) if i % 2 == 0 => None,
        Some(_) => Some(logit - 2.0),
        None => Some(logit),
    };
    let (mut sampler, mut history) = (Sampler::new(asked.sampling), start.clone());
    start.iter().for_each(|token| sampler.accept(*token));
    engine.eval(&Serial, session, &start).unwrap();
    let (mut generation, limits) = (Generation::new(), Limits { tokens: asked.tokens, stops: &[] });
    let mut speculation = Speculation::new(MAX_DRAFT);
    let mut answer = Answer::default();
    loop {
        let late = if said.borrow().len() >= asked.late.0 { asked.late.1.len() } else { 0 };
        let rules = Rules { adjust: &adjust, most_raised: 0.0, lowers: asked.lowers.map(|n| n + late) };
        let lookup = asked.drafts.then_some(Lookup { speculation: &mut speculation, tokens: &history });
        let mut run =
            Run { engine: &mut *engine, exec: &Serial, session: &mut *session, sampler: &mut sampler, lookup };
        let event = generation.step(&mut run, limits, rules, &mut |_| ()).unwrap();
        history.extend(answer.tokens.last().filter(|_| session.position() > history.len() as u64));
        answer.held = speculation.counts().1;
        let Event::Token(token) = event else { return answer };
        answer.tokens.push(token);
        said.borrow_mut().push(token);
        answer.logits.push(engine.logits().iter().map(|l| l.to_bits()).collect());
    }
}

fn model(vocab: usize, seed: u64, suppressed: &[i32]) -> Gguf {
    let heads = Tiny { n_heads: 6, n_kv_heads: 3, head_dim: 32, rope_dims: 16, dtype: DType::Q8_0, ..Tiny::default() };
    let mut gguf = Tiny { vocab, n_embd: 96, n_ff: 160, seed, ..heads }.gguf();
    gguf.set("tokenizer.ggml.suppress_tokens", Val::I32s(suppressed.to_vec()));
    gguf
}

fn config() -> Config {
    Config { context: 128, sinks: 0, chunk: 16, logit_rows: 8, ..Config::default() }
}

/// The answer of one board, and that of several.
fn both(model: &Model<'_>, shares: Shares, asked: &Asked) -> [Answer; 2] {
    let way = Way { split: Split::Rows, shares };
    let alone =
        with_session(model, Kernels::detect(), config(), |Reader { engine, session }| answer(engine, session, asked));
    let together = on_boards(shares.size(), |board| {
        of_board(&board, model, config(), way, |engine, session| answer(engine, session, asked)).unwrap()
    });
    [alone, together.into_iter().next().unwrap()]
}

fn any_sampling() -> impl Strategy<Value = SamplerConfig> {
    let one_of = |values: Vec<f32>| prop::sample::select(values);
    (
        one_of(vec![0.0, 0.7, 1.5]),
        prop::sample::select(vec![1usize, 8, 40]),
        one_of(vec![0.9, 1.0]),
        one_of(vec![0.0, 0.05]),
        one_of(vec![1.0, 1.3, 0.9]),
        one_of(vec![0.0, 0.8]),
        one_of(vec![0.0, 0.5]),
        any::<u64>(),
    )
        .prop_map(
            |(temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, seed)| {
                SamplerConfig {
                    temperature,
                    top_k,
                    top_p,
                    min_p,
                    repeat_penalty,
                    presence_penalty,
                    frequency_penalty,
                    seed,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(deep(300, 20) as u32))]

    /// Whatever the sampler, its rules, the vocabulary and the shares; with drafts and without.
    #[test]
    fn answers_are_those_of_one_board(
        sampling in any_sampling(),
        vocab in prop::sample::select(vec![67usize, 500, 1000]),
        seed in 0u64..100,
        numbers in prop::collection::vec(1u8..=4, 2..=3),
        lowered in prop::collection::vec(0u32..67, 0..6),
        drafts in any::<bool>(),
    ) {
        let suppressed = [seed as i32 % 60, 61];
        let shares = Shares::new(&numbers).unwrap();
        let asked = Asked { lowers: Some(lowered.len()), lowered, drafts, ..Asked::new(sampling, 24) };
        with_model(&model(vocab, seed, &suppressed), |model| {
            let [alone, together] = both(model, shares, &asked);
            prop_assert_eq!(&together.tokens, &alone.tokens);
            // What was sent has the bits of one board, and what was not is below.
            for ((token, got), expected) in alone.tokens.iter().zip(&together.logits).zip(&alone.logits) {
                let none = f32::NEG_INFINITY.to_bits();
                prop_assert!(got.iter().zip(expected).all(|(got, expected)| got == expected || *got == none));
                prop_assert!(drafts || got[*token as usize] != none);
            }
            Ok(())
        })?;
    }
}

/// Rules that forbid more tokens than they say show: as many more are sent as may be lowered.
#[test]
fn too_few_candidates_show() {
    let sampling = SamplerConfig { temperature: 0.0, ..SamplerConfig::default() };
    with_model(&model(500, 3, &[]), |model| {
        let answers = |lowers: usize| {
            let asked = Asked { lowers: Some(lowers), once: true, ..Asked::new(sampling, 40) };
            both(model, Shares::new(&[1, 1]).unwrap(), &asked).map(|answer| answer.tokens)
        };
        let [alone, together] = answers(40);
        assert_eq!(alone, together);
        // What is likeliest on either board has been said.
        let [alone, together] = answers(0);
        assert_ne!(alone, together);
    });
}

/// Rules that forbid more than when a draft was read have it read again, with as many candidates as they need.
#[test]
fn a_draft_may_have_too_few_candidates() {
    let greedy = SamplerConfig { temperature: 0.0, repeat_penalty: 1.0, ..SamplerConfig::default() };
    let shares = Shares::new(&[1, 1]).unwrap();
    let mut held = 0;
    for seed in 1..5 {
        with_model(&model(67, seed, &[]), |model| {
            let [alone, together] = both(model, shares, &Asked { drafts: true, ..Asked::new(greedy, 70) });
            held += together.held;
            assert_eq!((&alone.tokens, alone.held), (&together.tokens, together.held));
            let [alone, _] = both(model, shares, &Asked::new(greedy, 70));
            for (at, logits) in alone.logits.iter().enumerate().skip(60) {
                let logit = |token: &u32| f32::from_bits(logits[*token as usize]);
                let mut best: Vec<u32> = (0..67).collect();
                best.sort_by(|a, b| logit(b).total_cmp(&logit(a)));
                let asked = Asked { late: (at, best[..20].to_vec()), drafts: true, ..Asked::new(greedy, at + 3) };
                let [alone, together] = both(model, shares, &asked).map(|answer| answer.tokens);
                assert_eq!(alone, together, "{seed} {at}");
            }
        });
    }
    assert!(held > 0);
}

/// A token costs what the formula says: four gathers a layer, and as many candidates of each board as its sampler needs, of eight
/// bytes; whole logits where these are no more.
#[test]
fn candidates_are_counted() {
    let greedy = SamplerConfig { temperature: 0.0, ..SamplerConfig::default() };
    let penalised = SamplerConfig { top_k: 8, presence_penalty: 0.5, ..SamplerConfig::default() };
    let bytes = |vocab: usize, sampling: SamplerConfig| {
        with_model(&model(vocab, 5, &[]), |model| {
            // What one token more costs each board.
            let counts = |tokens| {
                on_boards(3, |board| {
                    let counting = Counting::new(&board);
                    let made = Cell::new(0);
                    of_board(&counting, model, config(), Way::even(Split::Rows, 3), |engine, session| {
                        made.set(answer(engine, session, &Asked::new(sampling, tokens)).tokens.len());
                    })
                    .unwrap();
                    assert!(board.rank() > 0 || made.get() == tokens);
                    counting.counts()
                })
            };
            let (more, few) = (counts(3), counts(2));
            let of_one: Vec<_> = more.iter().zip(few).map(|(more, few)| (more.0 - few.0, more.1 - few.1)).collect();
            // Beside what the first tells the others.
            assert!(of_one.iter().all(|(exchanges, _)| *exchanges == 1 + 4 * 2 + 1));
            [of_one[0].1 - 2 * 56, of_one[1].1, of_one[2].1]
        })
    };
    let rows = |q: usize, ff: usize, logits: usize| 2 * (2 * (36 * q + 36 * ff + 2 * 4 * 32) + logits);
    let expected = |logits: [usize; 3]| [rows(2, 2, logits[0]), rows(2, 1, logits[1]), rows(2, 2, logits[2])];
    assert_eq!(bytes(67, greedy), expected([8; 3]));
    assert_eq!(bytes(1000, greedy), expected([8; 3]));
    assert_eq!(bytes(1000, penalised), expected([8 * 72; 3]));
    assert_eq!(bytes(67, penalised), expected([4 * 32, 4 * 32, 4 * 3]));
    // Repetitions that are made likelier may come from anywhere.
    assert_eq!(bytes(1000, SamplerConfig { presence_penalty: -0.5, ..greedy }), expected([4 * 352, 4 * 320, 4 * 328]));
}
