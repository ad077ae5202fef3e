//! Answers token by token: that they are those of a plain loop, and what ends them.

use crate::common::gguf::{Gguf, Tiny, Val, byte_level_model};
use crate::common::run::{Reader, prompt, with_model, with_session};
use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Pattern};
use armlet::generation::{End, Event, Generation, Limits, Lookup, MAX_DRAFT, MAX_STOP, Run, Speculation};
use armlet::gguf::File;
use armlet::host::memory;
use armlet::model::Model;
use armlet::quant::DType;
use armlet::sample::{Rules, Sampler, SamplerConfig};
use armlet::storage::Serial;
use armlet::tokenizer::Detokenizer;

const GREEDY: SamplerConfig = SamplerConfig {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repeat_penalty: 1.3,
    presence_penalty: 0.0,
    frequency_penalty: 0.0,
    seed: 1,
};

/// An answer: its tokens, its text, its end.
#[derive(Debug, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    text: String,
    end: End,
}

fn answer(reader: &mut Reader<'_>, sampling: SamplerConfig, limits: Limits<'_>, rules: Rules<'_>) -> Answer {
    let mut sampler = Sampler::new(sampling);
    limits.check().unwrap();
    let mut generation = Generation::new();
    let (mut tokens, mut text) = (vec![], String::new());
    loop {
        let Reader { engine, session } = reader;
        let mut run = Run { engine, exec: &Serial, session, sampler: &mut sampler, lookup: None };
        match generation.step(&mut run, limits, rules, &mut |piece| text.push_str(piece)).unwrap() {
            Event::Token(token) => tokens.push(token),
            Event::End(end) => return Answer { tokens, text, end },
        }
    }
}

fn with_bytes<R>(config: Config, f: impl FnOnce(&Model<'_>, &mut Reader<'_>) -> R) -> R {
    let bytes = byte_level_model(3);
    let file = File::new_checked(&bytes).unwrap();
    let mut tables = memory(Model::required_bytes(&file).unwrap()).unwrap();
    let model = Model::new(&file, &mut tables).unwrap();
    with_session(&model, Kernels::detect(), config, |reader| {
        reader.eval(&Serial, &[65, 66, 67]).unwrap();
        f(&model, reader)
    })
}

fn config() -> Config {
    Config { context: 64, ..Config::default() }
}

/// The loop that everyone would write.
fn plain(model: &Model<'_>, reader: &mut Reader<'_>, sampling: SamplerConfig, n: usize) -> (Vec<u32>, String) {
    let (mut sampler, mut detokenizer) = (Sampler::new(sampling), Detokenizer::new());
    let (mut tokens, mut text) = (vec![], String::new());
    let mut logits = reader.engine.logits().to_vec();
    while tokens.len() < n {
        let token = sampler.sample(&logits).unwrap();
        if model.tokenizer.is_end(token) {
            break;
        }
        sampler.accept(token);
        tokens.push(token);
        detokenizer.push(model.tokenizer.piece(token, false), |piece| text.push_str(piece));
        logits = reader.eval(&Serial, &[token]).unwrap().to_vec();
    }
    detokenizer.finish(|piece| text.push_str(piece));
    (tokens, text)
}

#[test]
fn an_answer_is_that_of_a_plain_loop() {
    let seeded = SamplerConfig { temperature: 1.2, seed: 9, ..GREEDY };
    for sampling in [GREEDY, seeded] {
        let limits = Limits { tokens: 40, stops: &[] };
        let got = with_bytes(config(), |_, reader| {
            let got = answer(reader, sampling, limits, Rules::NONE);
            // The last token is not read.
            assert_eq!(reader.session.position(), 3 + 39);
            got
        });
        let (tokens, text) = with_bytes(config(), |model, reader| plain(model, reader, sampling, 40));
        assert_eq!(got, Answer { tokens, text, end: End::Tokens });
    }
}

#[test]
fn each_limit_ends_an_answer() {
    let whole = with_bytes(config(), |_, r| answer(r, GREEDY, Limits { tokens: 40, stops: &[] }, Rules::NONE));
    for n in [0, 1, 7] {
        let got = with_bytes(config(), |_, r| answer(r, GREEDY, Limits { tokens: n, stops: &[] }, Rules::NONE));
        assert_eq!((got.tokens, got.end), (whole.tokens[..n].to_vec(), End::Tokens));
    }
    // 3 tokens of the prompt and 5 of the answer fit; one more is chosen, and not read.
    let full = Config { context: 8, pattern: Pattern::Full, ..config() };
    let got = with_bytes(full, |_, r| answer(r, GREEDY, Limits { tokens: 40, stops: &[] }, Rules::NONE));
    assert_eq!((got.tokens, got.end), (whole.tokens[..6].to_vec(), End::Context));

    // The end of a turn, where nothing else is allowed from a token on.
    let chosen = std::cell::Cell::new(0);
    let end = 258;
    let adjust = |token: u32, logit: f32| {
        let is_last = chosen.get() >= 4;
        (is_last == (token == end)).then_some(logit)
    };
    let got = with_bytes(config(), |_, reader| {
        let mut sampler = Sampler::new(GREEDY);
        let (mut generation, limits) = (Generation::new(), Limits { tokens: 40, stops: &[] });
        let Reader { engine, session } = reader;
        let mut run = Run { engine, exec: &Serial, session, sampler: &mut sampler, lookup: None };
        let rules = Rules { adjust: &adjust, most_raised: 0.0, lowers: None };
        let mut step = || generation.step(&mut run, limits, rules, &mut |_| ()).unwrap();
        while let Event::Token(_) = step() {
            chosen.set(chosen.get() + 1);
        }
        // An answer that has ended stays so.
        [step(), step()]
    });
    assert_eq!((got, chosen.get()), ([Event::End(End::Turn(end)); 2], 4));
}

#[test]
fn a_stop_string_ends_an_answer_before_it() {
    let whole = with_bytes(config(), |_, r| answer(r, GREEDY, Limits { tokens: 40, stops: &[] }, Rules::NONE));
    let characters: Vec<char> = whole.text.chars().collect();
    for (from, to) in [(4, 5), (4, 7), (10, 14)] {
        let stop: String = characters[from..to].iter().collect();
        let at = whole.text.find(&stop).unwrap();
        let stops = ["not in it", stop.as_str()];
        let got = with_bytes(config(), |_, r| answer(r, GREEDY, Limits { tokens: 40, stops: &stops }, Rules::NONE));
        assert_eq!((got.text.as_str(), got.end), (&whole.text[..at], End::Stop(1)), "{stop:?}");
        assert!(whole.tokens.starts_with(&got.tokens));
    }
    // One that does not come changes nothing.
    let long = "x".repeat(MAX_STOP);
    let got = with_bytes(config(), |_, r| answer(r, GREEDY, Limits { tokens: 40, stops: &[&long] }, Rules::NONE));
    assert_eq!(got, whole);
    for bad in ["", &"x".repeat(MAX_STOP + 1)] {
        assert!(Limits { tokens: 1, stops: &["a", bad] }.check().is_err_and(|e| e.0 == 1));
    }
}

#[test]
fn what_the_vocabulary_suppresses_is_never_sampled() {
    let sizes = Tiny { dtype: armlet::quant::DType::Q8_0, ..Tiny::default() };
    let with = |suppressed: &[i32]| -> Gguf {
        let mut gguf = sizes.gguf();
        gguf.set("tokenizer.ggml.suppress_tokens", Val::I32s(suppressed.to_vec()));
        gguf
    };
    let tokens = |gguf: &Gguf| {
        with_model(gguf, |model| {
            with_session(model, Kernels::detect(), config(), |reader| {
                reader.eval(&Serial, &prompt(5, 6, 67)).unwrap();
                answer(reader, GREEDY, Limits { tokens: 12, stops: &[] }, Rules::NONE).tokens
            })
        })
    };
    let first = tokens(&with(&[]));
    let second = tokens(&with(&[first[0] as i32, first[1] as i32]));
    assert!(!second.is_empty() && !second.contains(&first[0]) && !second.contains(&first[1]));
}

/// Only a few tokens: an answer of them repeats itself soon.
fn few() -> Rules<'static> {
    Rules { adjust: &|token, logit| (token < 8).then_some(logit), most_raised: 0.0, lowers: None }
}

/// An answer with drafts, and how many of their tokens were drafted and held.
fn speculated(reader: &mut Reader<'_>, read: &[u32], sampling: SamplerConfig, n: usize) -> (Answer, (usize, usize)) {
    let (mut sampler, mut generation) = (Sampler::new(sampling), Generation::new());
    let (mut tokens, mut text, mut history) = (vec![], String::new(), read.to_vec());
    let (mut speculation, limits) = (Speculation::new(MAX_DRAFT), Limits { tokens: n, stops: &[] });
    loop {
        let Reader { engine, session } = &mut *reader;
        let before = session.position();
        let lookup = Some(Lookup { speculation: &mut speculation, tokens: &history });
        let mut run = Run { engine, exec: &Serial, session, sampler: &mut sampler, lookup };
        let event = generation.step(&mut run, limits, few(), &mut |piece| text.push_str(piece)).unwrap();
        // What is read is what the answer has, whatever was drafted.
        let read = (session.position() - before) as usize;
        history.extend(tokens.last().filter(|_| read == 1));
        let reads = !tokens.is_empty() && event != Event::End(End::Tokens);
        assert_eq!(read, usize::from(reads));
        match event {
            Event::Token(token) => tokens.push(token),
            Event::End(end) => return (Answer { tokens, text, end }, speculation.counts()),
        }
    }
}

/// Answers that repeat themselves, and go beyond what the cache keeps; with windows, weights of floats and int8 keys too.
#[test]
fn drafts_change_no_bit_of_an_answer() {
    let full = Config { pattern: Pattern::Full, context: 256, logit_rows: 1 + MAX_DRAFT, ..Config::default() };
    let ring = Config { pattern: Pattern::Sinks, context: 40, ..full };
    let slack = Config { slack: MAX_DRAFT, ..ring };
    let strided = Config { context: 96, pattern: Pattern::Strided { every: 2 }, slack: MAX_DRAFT, ..ring };
    let int8 = Config { kv: KvType::Int8, hadamard: true, ..slack };
    let tiny = |dtype| Tiny { dtype, ..Tiny::default() };
    let mut windows = tiny(DType::Q8_0).gguf();
    windows.set("llama.attention.sliding_window", Val::U32(24));
    let models = [tiny(DType::Q8_0).gguf(), tiny(DType::F32).gguf(), windows];
    let likely = SamplerConfig { repeat_penalty: 1.0, ..GREEDY };
    let seeded = SamplerConfig { temperature: 0.2, seed: 5, ..likely };
    let mut all = vec![];
    let configs = [full, Config { logit_rows: 3, ..full }, ring, slack, strided, int8];
    for (i, model) in models.iter().enumerate() {
        for (j, config) in configs.into_iter().enumerate() {
            for sampling in [likely, seeded] {
                all.push((i, j, with_and_without_drafts(model, config, sampling)));
            }
        }
    }
    let any = |holds: &dyn Fn(usize, usize, usize, usize) -> bool| {
        all.iter().any(|(model, config, (drafted, held))| holds(*model, *config, *drafted, *held))
    };
    // Each model has drafts that hold and some that do not, and each kind of cache has some that hold.
    assert!((0..3).all(|i| any(&|model, _, drafted, held| model == i && 0 < held && held < drafted)), "{all:?}");
    assert!((0..6).all(|j| any(&|_, config, _, held| config == j && held > 0)), "{all:?}");
    assert!(any(&|_, _, _, held| held > 40), "{all:?}");
}

/// Compares an answer with that without drafts; returns how many tokens were drafted and held.
fn with_and_without_drafts(model: &Gguf, config: Config, sampling: SamplerConfig) -> (usize, usize) {
    with_model(model, |model| {
        let read = prompt(4, 12, model.hparams.vocab).repeat(2);
        let n = 100;
        let want = with_session(model, Kernels::detect(), config, |reader| {
            reader.eval(&Serial, &read).unwrap();
            answer(reader, sampling, Limits { tokens: n, stops: &[] }, few())
        });
        with_session(model, Kernels::detect(), config, |reader| {
            reader.eval(&Serial, &read).unwrap();
            let (got, counts) = speculated(reader, &read, sampling, n);
            assert_eq!(got, want, "{config:?}");
            counts
        })
    })
}
