//! Prefill of a prompt and generation of an answer, with timings.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use armlet::sample::{SampleError, Sampler};
use armlet::tokenizer::Detokenizer;

use crate::error::{Failure, instead_of_nan};
use crate::interrupt;
use crate::model::{Loaded, Runner};

/// Timings of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) prompt_tokens: usize,
    pub(crate) prompt_time: Duration,
    pub(crate) generated: usize,
    pub(crate) generation_time: Duration,
}

impl Stats {
    /// Prints the line after an answer to stderr, if asked for or if stderr is a terminal.
    pub(crate) fn report(&self, always: bool) {
        if always || std::io::stderr().is_terminal() {
            let rate = |n: usize, t: Duration| n as f64 / t.as_secs_f64().max(1e-9);
            let prompt = rate(self.prompt_tokens, self.prompt_time);
            // The first token comes from the prompt's logits.
            let generation = rate(self.generated.saturating_sub(1), self.generation_time);
            // Nothing depends on this line.
            let _ = writeln!(std::io::stderr(), "[ Prompt: {prompt:.1} t/s | Generation: {generation:.1} t/s ]");
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "prompt_n": self.prompt_tokens,
            "prompt_ms": self.prompt_time.as_secs_f64() * 1e3,
            "predicted_n": self.generated,
            "predicted_ms": self.generation_time.as_secs_f64() * 1e3,
        })
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The model ended its turn.
    Stop,
    /// As many tokens as asked for.
    Length,
    /// The context is full.
    ContextFull,
    /// Ctrl-C.
    Interrupted,
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            End::Stop => "stop",
            End::Length => "length",
            End::ContextFull => "context_full",
            End::Interrupted => "interrupted",
        }
    }
}

/// Prefills `prompt` and generates up to `limit` tokens, passing text to `show` as it comes. Appends every token that the
/// session now has to `history`.
pub(crate) fn generate(
    loaded: &Loaded<'_>,
    runner: &mut Runner<'_>,
    sampler: &mut Sampler,
    prompt: &[u32],
    limit: usize,
    history: &mut Vec<u32>,
    mut show: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(End, Stats), Failure> {
    let tokenizer = &loaded.model.tokenizer;
    let mut stats = Stats { prompt_tokens: prompt.len(), ..Stats::default() };
    let start = Instant::now();
    prefill(runner, prompt, history)?;
    stats.prompt_time = start.elapsed();
    if interrupt::take() {
        return Ok((End::Interrupted, stats));
    }
    prompt.iter().for_each(|t| sampler.accept(*t));

    let start = Instant::now();
    let mut detokenizer = Detokenizer::new();
    let allowed = |token| !tokenizer.is_suppressed(token);
    let kv = runner.kv;
    let draw = |sampler: &mut Sampler, logits: &[f32]| {
        let drawn = sampler.sample_allowed(logits, &allowed);
        drawn.map_err(|e| {
            Failure::Error(if e == SampleError::NotANumber {
                format!("{e}{}", instead_of_nan(kv))
            } else {
                e.to_string()
            })
        })
    };
    let mut next = if limit > 0 { Some(draw(sampler, runner.engine.logits())?) } else { None };
    let end = loop {
        let Some(token) = next else { break End::Length };
        stats.generated += 1;
        if tokenizer.is_end(token) {
            break End::Stop;
        }
        let mut shown = Ok(());
        detokenizer.push(tokenizer.piece(token, false), |text| {
            if shown.is_ok() {
                shown = show(text);
            }
        });
        shown?;
        sampler.accept(token);
        if stats.generated == limit {
            break End::Length;
        }
        if runner.session.remaining() == 0 {
            break End::ContextFull;
        }
        if interrupt::take() {
            break End::Interrupted;
        }
        history.push(token);
        next = Some(draw(sampler, runner.eval(&[token])?)?);
    };
    stats.generation_time = start.elapsed();
    let mut shown = Ok(());
    detokenizer.finish(|text| shown = show(text));
    shown.map(|()| (end, stats))
}

/// Prefills a prompt, polling for Ctrl-C between forward passes.
fn prefill(runner: &mut Runner<'_>, prompt: &[u32], history: &mut Vec<u32>) -> Result<(), Failure> {
    runner.session.fits(prompt)?;
    for chunk in prompt.chunks(runner.engine.chunk()) {
        if interrupt::pending() {
            break;
        }
        runner.eval(chunk)?;
        history.extend(chunk);
    }
    Ok(())
}
