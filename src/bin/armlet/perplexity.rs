//! `armlet perplexity`: llama-perplexity's protocol.
//!
//! The text is split into chunks of as many tokens as the context. In each chunk, the second half is scored, each token
//! given those before it. The result is e to the mean of −ln p of the scored tokens. With `--stream` the whole text is
//! scored, each token given those that the KV cache still has.

use armlet::engine::{Config, Pattern};
use armlet::tokenizer::EncodeOptions;

use crate::args::{Kv, KvType, Perplexity};
use crate::error::{Failure, instead_of_nan, print, print_json};
use crate::interrupt;
use crate::model::{
    self, Loaded, Runner, encode_prompt, read_file, session_memory, shared_plan, with_model, without_line_end,
};

/// Sums of −ln p and of its square.
#[derive(Default)]
struct Score {
    n: usize,
    sum: f64,
    squares: f64,
    /// Sum of KL divergences from the reference.
    divergence: f64,
}

impl Score {
    fn add(&mut self, logits: &[f32], token: u32) {
        let max = logits.iter().fold(f32::NEG_INFINITY, |m, l| m.max(*l));
        let total: f64 = logits.iter().map(|l| f64::from((l - max).exp())).sum();
        let target = logits.get(token as usize).copied().unwrap_or(f32::NAN);
        let nll = -(f64::from(target - max) - total.ln());
        self.n += 1;
        self.sum += nll;
        self.squares += nll * nll;
    }

    fn join(&mut self, other: &Score) {
        self.n += other.n;
        self.sum += other.sum;
        self.squares += other.squares;
        self.divergence += other.divergence;
    }

    fn perplexity(&self) -> f64 {
        (self.sum / self.n as f64).exp()
    }

    /// Its standard error.
    fn error(&self) -> f64 {
        let mean = self.sum / self.n as f64;
        let variance = self.squares / self.n as f64 - mean * mean;
        let steps = (self.n.saturating_sub(1)) as f64;
        if variance > 0.0 && steps > 0.0 { (variance / steps).sqrt() * self.perplexity() } else { 0.0 }
    }
}

pub(crate) fn run(args: &Perplexity) -> Result<(), Failure> {
    let text = without_line_end(read_file(&args.file)?);
    interrupt::catch()?;
    with_model(&args.model, |loaded| {
        let options = EncodeOptions { add_special: true, ..EncodeOptions::default() };
        let mut tokens = encode_prompt(&loaded.model.tokenizer, &text, options)?;
        tokens.truncate(if args.tokens == 0 { usize::MAX } else { args.tokens });
        let (score, chunks) =
            if args.stream { stream(loaded, &tokens, args)? } else { pieces(loaded, &mut tokens, args)? };
        if score.sum.is_nan() {
            return Err(Failure::Error(format!(
                "a logit is not a number: the model's file is damaged{}",
                instead_of_nan(args.kv.kv_type.in_cache())
            )));
        }
        let (ppl, error) = (score.perplexity(), score.error());
        let kl = args.kl.map(|_| score.divergence / score.n as f64);
        if args.json {
            let object = serde_json::json!({ "ppl": ppl, "error": error, "n": score.n, "chunks": chunks, "kl": kl });
            return print_json(&object, false);
        }
        print(format!("\nFinal estimate: PPL = {ppl:.4} +/- {error:.5}\n").as_bytes())?;
        kl.map_or(Ok(()), |kl| print(format!("Mean KL divergence: {kl:.6}\n").as_bytes()))
    })
}

/// A runner, and another as the reference if there is one.
struct Runners<'l>(Vec<Runner<'l>>);

impl Runners<'_> {
    fn rewind(&mut self) -> Result<(), Failure> {
        self.0.iter_mut().try_for_each(|r| Ok(r.session.rewind(0)?))
    }

    fn eval(&mut self, tokens: &[u32]) -> Result<(), Failure> {
        self.0.iter_mut().try_for_each(|r| r.eval_or_stop(tokens).map(drop))
    }

    /// Scores each of `next` given `tokens` up to the one before it.
    fn score(&mut self, tokens: &[u32], next: &[u32], score: &mut Score) -> Result<(), Failure> {
        interrupt::stop()?;
        let Some((first, others)) = self.0.split_first_mut() else { return Ok(()) };
        let logits = first.score(tokens)?;
        let vocab = logits.len() / tokens.len();
        for (row, next) in logits.chunks_exact(vocab).zip(next) {
            score.add(row, *next);
        }
        for other in others {
            for (reference, row) in
                other.score(tokens)?.chunks_exact(vocab).zip(logits.chunks_exact(vocab)).take(next.len())
            {
                score.divergence += divergence(reference, row);
            }
        }
        Ok(())
    }
}

/// KL divergence Σ p·ln(p/q) of the softmax of two rows of logits.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let norm = |x: &[f32]| {
        let max = f64::from(x.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x)));
        max + x.iter().map(|x| (f64::from(*x) - max).exp()).sum::<f64>().ln()
    };
    let (p_norm, q_norm) = (norm(p), norm(q));
    let logs = p.iter().zip(q).map(|(p, q)| (f64::from(*p) - p_norm, f64::from(*q) - q_norm));
    logs.map(|(p, q)| p.exp() * (p - q)).sum()
}

/// Calls `f` with a runner of this configuration, and a reference if `--kl` asks for one.
fn with_runners<T>(
    loaded: &Loaded<'_>,
    args: &Perplexity,
    config: &Config,
    f: impl FnOnce(&mut Runners<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let kinds = [Some(config.kv), args.kl.map(KvType::in_cache)].into_iter().flatten();
    let plans = kinds.map(|kv| {
        // The Hadamard rotation only helps int8.
        let hadamard = config.hadamard && kv == config.kv;
        shared_plan(loaded, &Config { kv, hadamard, ..*config })
    });
    if args.kl.is_some() && loaded.boards.are_several() {
        return Err(Failure::Usage("--kl is of one board".into()));
    }
    let plans = plans.collect::<Result<Vec<_>, _>>()?;
    let mut memories = plans.iter().map(session_memory).collect::<Result<Vec<_>, _>>()?;
    let runners = plans.iter().zip(&mut memories).map(|(plan, memory)| Runner::new(loaded, plan, memory));
    f(&mut Runners(runners.collect::<Result<Vec<_>, _>>()?))
}

/// llama-perplexity's protocol.
fn pieces(loaded: &Loaded<'_>, tokens: &mut [u32], args: &Perplexity) -> Result<(Score, usize), Failure> {
    let n_ctx = args.context;
    let tokens = tokens.get_mut(args.skip..).unwrap_or(&mut []);
    let pieces = model::pieces(&loaded.model.tokenizer, tokens, n_ctx, args.chunks)?;
    let chunks = pieces.len();
    let config =
        Config { context: n_ctx, pattern: Pattern::Full, logit_rows: args.rows.min(n_ctx), ..args.kv.config() };
    with_runners(loaded, args, &config, |runners| {
        if !args.json {
            print(format!("perplexity: calculating perplexity over {chunks} chunks, n_ctx={n_ctx}\n").as_bytes())?;
        }
        let mut score = Score::default();
        for (i, piece) in pieces.iter().enumerate() {
            runners.rewind()?;
            let first = n_ctx / 2;
            runners.eval(&piece[..first])?;
            // What the last token predicts is not in the chunk.
            for start in (first..n_ctx - 1).step_by(config.logit_rows) {
                let end = (start + config.logit_rows).min(n_ctx - 1);
                runners.score(&piece[start..end], &piece[start + 1..=end], &mut score)?;
            }
            if !args.json {
                print(format!("[{}]{:.4},", i + 1, score.perplexity()).as_bytes())?;
            }
        }
        Ok((score, chunks))
    })
}

/// With `--stream`, the perplexity of each so many tokens is printed.
const POINT: usize = 1000;

/// Scores the text as one stream.
fn stream(loaded: &Loaded<'_>, tokens: &[u32], args: &Perplexity) -> Result<(Score, usize), Failure> {
    if tokens.len() < args.skip.saturating_add(2) {
        return Err(Failure::Error(format!("the text has {} tokens, too few for --skip {}", tokens.len(), args.skip)));
    }
    let pattern = args.pattern.unwrap_or_default();
    let kv = Kv { format: args.kv, pattern, sinks: args.sinks };
    kv.check()?;
    let config = kv.with_context(kv.config(), args.context);
    let config = Config { logit_rows: args.rows, ..config };
    with_runners(loaded, args, &config, |runners| {
        let (mut score, mut point) = (Score::default(), Score::default());
        let mut read = 0;
        while read + 1 < tokens.len() {
            let to_point = POINT - read % POINT;
            let to_skip = args.skip.checked_sub(read).filter(|n| *n > 0).unwrap_or(usize::MAX);
            let end = (read + args.rows.min(to_point).min(to_skip)).min(tokens.len() - 1);
            let mut part = Score::default();
            runners.score(&tokens[read..end], &tokens[read + 1..=end], &mut part)?;
            point.join(&part);
            // The first token that is scored is the one after the skipped ones.
            if read >= args.skip {
                score.join(&part);
            }
            read = end;
            if !args.json && (read.is_multiple_of(POINT) || read + 1 == tokens.len()) {
                print(format!("[{read}]{:.4},", point.perplexity()).as_bytes())?;
                point = Score::default();
            }
        }
        Ok((score, 1))
    })
}
