//! The bits that a run has to give, however it is cut and whoever computes it.

use armlet::arch::{Kernels, KvType};
use armlet::engine::{Config, Pattern};
use armlet::host::Pool;
use armlet::model::Model;
use armlet::quant::DType;
use armlet::storage::{Executor, Serial, Task};

use super::run::{Reader, prompt, with_session};

/// The largest error of F32 weights and an F32 cache, relative to the largest logit. Sums of a few hundred products
/// round by some 1e-6; the exponential of a score magnifies that tenfold.
pub const BOUND: f64 = 1e-4;

/// Tokens of a prompt: more than one chunk, and more than two tiles of attention.
pub const PROMPT: usize = 75;

pub fn bits(logits: &[f32]) -> Vec<u32> {
    assert!(logits.iter().all(|x| x.is_finite()));
    logits.iter().map(|x| x.to_bits()).collect()
}

/// An executor that says it has three threads and runs the work on five at once, each when it pleases.
pub struct Crowd;

impl Executor for Crowd {
    fn workers(&self) -> usize {
        3
    }

    fn run(&self, work: &Task<'_>) {
        std::thread::scope(|scope| {
            for i in 0..5 {
                scope.spawn(move || {
                    (0..i).for_each(|_| std::thread::yield_now());
                    work(i);
                });
            }
        });
    }
}

/// What one run of `same_bits` compares with: the bits after each token, read one at a time on one thread.
pub struct ReferenceBits<'m> {
    pub model: &'m Model<'m>,
    pub kernels: Kernels,
    pub kv: KvType,
    pub tokens: Vec<u32>,
    pub bits: Vec<Vec<u32>>,
}

impl<'m> ReferenceBits<'m> {
    pub fn new(model: &'m Model<'m>, kernels: Kernels, kv: KvType) -> Self {
        let tokens = prompt(4, PROMPT, model.hparams.vocab);
        let mut reference = ReferenceBits { model, kernels, kv, tokens, bits: Vec::new() };
        let tokens = &reference.tokens;
        reference.bits =
            reference.session(1, |s| tokens.iter().map(|t| bits(s.eval(&Serial, &[*t]).unwrap())).collect());
        reference
    }

    pub fn session<R>(&self, chunk: usize, f: impl FnOnce(&mut Reader<'_>) -> R) -> R {
        let config =
            Config { context: 128, chunk, logit_rows: chunk, kv: self.kv, pattern: Pattern::Full, ..Config::default() };
        with_session(self.model, self.kernels, config, f)
    }

    /// Reads the tokens in parts that end at `ends`, and compares after each.
    pub fn check_split(&self, chunk: usize, exec: &dyn Executor, ends: &[usize]) {
        self.session(chunk, |session| {
            for end in ends {
                let got = bits(session.eval(exec, &self.tokens[session.position()..*end]).unwrap());
                assert!(got == self.bits[end - 1], "chunk {chunk}, parts {ends:?}, at {end}");
            }
        });
    }

    /// `score` gives for each token what `eval` gives after it.
    pub fn check_score(&self, chunk: usize, exec: &dyn Executor) {
        self.session(chunk, |session| {
            for (tokens, want) in self.tokens.chunks(chunk).zip(self.bits.chunks(chunk)) {
                let got = bits(session.score(exec, tokens).unwrap());
                assert!(got == want.concat(), "score in passes of {chunk}");
            }
        });
    }

    /// What was forgotten leaves no trace.
    pub fn check_rewind(&self, chunk: usize, exec: &dyn Executor) {
        self.session(chunk, |session| {
            session.eval(exec, &self.tokens).unwrap();
            for keep in [70, 33, 0] {
                session.rewind(keep);
                session.eval(exec, &prompt(5, 30, self.model.hparams.vocab)).unwrap();
                session.rewind(keep);
                assert_eq!(session.position(), keep);
                let got = bits(session.eval(exec, &self.tokens[keep..]).unwrap());
                assert!(got == self.bits[PROMPT - 1], "chunk {chunk}, after a rewind to {keep}");
            }
        });
    }

    /// All of the above, in passes of up to `longest` tokens.
    pub fn check(&self, longest: usize) {
        let pool = Pool::new(2);
        for chunk in [1, 2, 3, 7, longest] {
            self.check_split(chunk, &Serial, &[1, 32, 64, 65, PROMPT]);
            self.check_split(chunk, &pool, &[PROMPT]);
        }
        for chunk in [7, longest] {
            self.check_split(chunk, &Pool::new(1), &[74, PROMPT]);
            self.check_split(chunk, &pool, &[5, 37, PROMPT]);
            self.check_score(chunk, &Serial);
            self.check_score(chunk, &pool);
            self.check_rewind(chunk, &pool);
        }
        // It starts threads for every step, which takes its time.
        self.check_split(7, &Crowd, &[31, PROMPT]);
        self.check_score(longest, &Crowd);
    }

    /// Passes of more than eight tokens over float weights: the same bits in whatever passes, and the reference but for
    /// rounding.
    pub fn check_long_passes(&self) {
        let logits = |chunk: usize, exec: &dyn Executor, ends: &[usize]| {
            self.session(chunk, |s| {
                let read = |end: &usize| s.eval(exec, &self.tokens[s.position()..*end]).unwrap().to_vec();
                ends.iter().map(read).last().unwrap()
            })
        };
        let want = logits(64, &Serial, &[PROMPT]);
        let pool = Pool::new(2);
        for (chunk, ends) in [(16, &[PROMPT][..]), (25, &[PROMPT]), (64, &[PROMPT]), (64, &[31, PROMPT])] {
            for exec in [&Serial as &dyn Executor, &pool, &Crowd] {
                assert!(bits(&logits(chunk, exec, ends)) == bits(&want), "passes of {chunk}, parts {ends:?}");
            }
        }
        self.session(64, |s| {
            s.eval(&pool, &self.tokens).unwrap();
            s.rewind(33);
            assert!(bits(s.eval(&pool, &self.tokens[33..]).unwrap()) == bits(&want), "after a rewind");
        });
        let reference: Vec<f32> = self.bits[PROMPT - 1].iter().map(|b| f32::from_bits(*b)).collect();
        let largest = reference.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        let error = reference.iter().zip(&want).fold(0.0, |max: f32, (a, b)| max.max((a - b).abs())) / largest;
        // Where keys and values are kept as F16, a difference of rounding can become one of 2⁻¹¹ there.
        let f16_products = self.kernels.uses_f16_products(1) && self.model.weights.output.weight.dtype() == DType::F16;
        let bound = match self.kv {
            _ if f16_products => 0.03,
            KvType::F32 => BOUND as f32,
            KvType::F16 | KvType::Int8 => 2e-3,
        };
        assert!(error <= bound, "{error:e} off");
    }
}
