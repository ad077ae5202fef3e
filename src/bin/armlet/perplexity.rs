//! `armlet perplexity`: llama-perplexity's protocol.
//!
//! The text is cut into pieces of as many tokens as the context; of each, the second half is predicted from what
//! stands before it. The result is e to the mean of −ln p of those tokens.

use armlet::engine::{Config, Plan};
use armlet::tokenizer::EncodeOptions;

use crate::args::Perplexity;
use crate::failure::{Failure, print};
use crate::load::{Loaded, Reader, element, encode, read_file, session_memory, with_model};

/// Sums of −ln p and of its square.
#[derive(Default)]
struct Score {
    n: usize,
    sum: f64,
    squares: f64,
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
    let text = read_file(&args.file)?;
    with_model(&args.model, |loaded| {
        let options = EncodeOptions { add_special: true, ..EncodeOptions::default() };
        let mut tokens = encode(&loaded.model.tokenizer, &text, options)?;
        let config = Config {
            context: args.context,
            chunk: Config::default().chunk,
            logit_rows: args.rows.min(args.context),
            kv: element(args.kv_type),
        };
        let plan = Plan::new(&loaded.model.hparams, &config)?;
        let all = tokens.len() / args.context;
        if args.context < 4 {
            return Err(Failure::Usage("-c must be at least 4".into()));
        }
        if all == 0 {
            let (n, context) = (tokens.len(), args.context);
            return Err(Failure::Error(format!(
                "the text has {n} tokens, too few for -c {context}; use a smaller one"
            )));
        }
        let chunks = if args.chunks == 0 { all } else { args.chunks.min(all) };
        let score = measure(loaded, &plan, &mut tokens, args, chunks)?;
        if score.sum.is_nan() {
            return Err(Failure::Error("the model's output is not a number; its file is damaged".into()));
        }
        let (ppl, error) = (score.perplexity(), score.error());
        if args.json {
            let object = serde_json::json!({ "ppl": ppl, "error": error, "n": score.n, "chunks": chunks });
            return print(format!("{object}\n").as_bytes());
        }
        print(format!("\nFinal estimate: PPL = {ppl:.4} +/- {error:.5}\n").as_bytes())
    })
}

fn measure(
    loaded: &Loaded<'_>,
    plan: &Plan,
    tokens: &mut [u32],
    args: &Perplexity,
    chunks: usize,
) -> Result<Score, Failure> {
    let n_ctx = args.context;
    let mut memory = session_memory(plan)?;
    let mut reader = Reader::new(loaded, plan, &mut memory)?;
    if !args.json {
        print(format!("perplexity: calculating perplexity over {chunks} chunks, n_ctx={n_ctx}\n").as_bytes())?;
    }
    let mut score = Score::default();
    let vocab = loaded.model.hparams.vocab;
    for (i, piece) in tokens.chunks_exact_mut(n_ctx).take(chunks).enumerate() {
        let tokenizer = &loaded.model.tokenizer;
        if tokenizer.adds_bos()
            && let Some(bos) = tokenizer.bos()
        {
            piece[0] = bos;
        }
        reader.session.rewind(0);
        let first = n_ctx / 2;
        reader.eval(&piece[..first])?;
        // The last token predicts nothing that is scored.
        for start in (first..n_ctx - 1).step_by(args.rows) {
            let end = (start + args.rows).min(n_ctx - 1);
            let logits = reader.score(&piece[start..end])?;
            for (row, next) in logits.chunks_exact(vocab).zip(&piece[start + 1..=end]) {
                score.add(row, *next);
            }
        }
        if !args.json {
            print(format!("[{}]{:.4},", i + 1, score.perplexity()).as_bytes())?;
        }
    }
    Ok(score)
}
