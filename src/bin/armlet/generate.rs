//! Prefill of a prompt and generation of an answer, with timings.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use armlet::generation::{self, Event, Generation, Limits, Lookup, MAX_DRAFT, Speculation};
use armlet::sample::Sampler;

use crate::args::Json;
use crate::error::Failure;
use crate::grammar::{Constraint, Grammar};
use crate::interrupt;
use crate::model::Runner;
use crate::numbers;
use crate::progress::{Part, Reading};
use crate::repeats::Repeats;
use crate::terminal;
use crate::token_rules::TokenRules;

/// Timings of an answer, and what is in the KV cache after it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    /// Tokens of the prompt that were read.
    pub(crate) prompt_tokens: usize,
    pub(crate) prompt_time: Duration,
    pub(crate) generated: usize,
    pub(crate) generation_time: Duration,
    /// Tokens that were read in advance, and those of them that the answer then had.
    pub(crate) drafted: usize,
    pub(crate) accepted: usize,
    /// Whether the answer is not yet what its grammar wants.
    pub(crate) unfinished: bool,
    /// Tokens that the next one attends to.
    pub(crate) in_cache: u64,
    /// Tokens that were evicted since the conversation began.
    pub(crate) evicted: u64,
    /// The most that it can attend to.
    pub(crate) context: usize,
}

impl Stats {
    /// Prints the line after an answer to stderr, if asked for or if stderr is a terminal.
    pub(crate) fn report(&self, always: bool) {
        if always || std::io::stderr().is_terminal() {
            terminal::note(&self.line());
        }
    }

    pub(crate) fn line(&self) -> String {
        let rate = |n: usize, t: Duration| n as f64 / t.as_secs_f64().max(1e-9);
        let prompt = rate(self.prompt_tokens, self.prompt_time);
        // The first token comes from the prompt's logits.
        let generation = rate(self.generated.saturating_sub(1), self.generation_time);
        let Self { in_cache, context, drafted, accepted, .. } = self;
        let drafts = if *drafted > 0 { format!(" | Drafts: {accepted} of {drafted}") } else { String::new() };
        format!("Prompt: {prompt:.1} t/s | Generation: {generation:.1} t/s{drafts} | K/V: {in_cache} of {context}")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "prompt_n": self.prompt_tokens,
            "prompt_ms": self.prompt_time.as_secs_f64() * 1e3,
            "predicted_n": self.generated,
            "predicted_ms": self.generation_time.as_secs_f64() * 1e3,
            "draft_n": self.drafted,
            "draft_n_accepted": self.accepted,
            "in_cache": self.in_cache,
            "context": self.context,
            "evicted": self.evicted,
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
    /// Ctrl-C, or a signal that ends the program.
    Interrupted,
    /// The answer repeats itself.
    Loop,
}

impl From<generation::End> for End {
    fn from(end: generation::End) -> Self {
        match end {
            generation::End::Turn(_) | generation::End::Stop(_) => End::Stop,
            generation::End::Tokens => End::Length,
            generation::End::Context => End::ContextFull,
        }
    }
}

impl Stats {
    /// The failure of an answer that ends before its grammar lets it.
    pub(crate) fn check_finished(&self, end: End) -> Result<(), Failure> {
        if !self.unfinished || end == End::Interrupted {
            return Ok(());
        }
        let why = end.note(self, false).unwrap_or_else(|| "the model or a stop text ended it".into());
        Err(Failure::Error(format!("the answer is not a whole document of its grammar: {why}")))
    }
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            End::Stop => "stop",
            End::Length => "length",
            End::ContextFull => "context_full",
            End::Interrupted => "interrupted",
            End::Loop => "loop",
        }
    }

    /// What to say of an answer that the model did not end, or not as it would have; in a chat there are commands.
    pub(crate) fn note(self, stats: &Stats, in_chat: bool) -> Option<String> {
        let Stats { generated, prompt_tokens, .. } = stats;
        match self {
            End::Stop => None,
            End::Length => {
                let tokens = numbers::of(*generated, "token");
                Some(format!("stopped after {tokens}, the most that -n allows"))
            }
            End::ContextFull if in_chat => {
                Some("the context is full: /clear starts a new conversation; or restart with a larger -c".into())
            }
            End::ContextFull => Some("stopped, because the context is full; a larger -c holds more".into()),
            End::Interrupted if *generated == 0 => {
                let tokens = numbers::of(*prompt_tokens, "token");
                Some(format!("stopped after {tokens} of the prompt; there is no answer"))
            }
            End::Interrupted => Some("stopped".into()),
            End::Loop => {
                let again = if in_chat { "/regen tries again, " } else { "" };
                Some(format!("stopped, because the answer repeats itself; {again}--repeat-penalty 1.1 makes it rarer"))
            }
        }
    }
}

/// The end of an answer as JSON.
pub(crate) fn ended(kind: Json, text: &str, end: End, stats: &Stats) -> serde_json::Value {
    let mut object = serde_json::json!({ "text": text, "stop": end.name(), "timings": stats.json() });
    if stats.unfinished {
        object["unfinished"] = true.into();
    }
    if kind == Json::Events {
        object["event"] = "end".into();
    }
    object
}

/// What there is to show of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said<'a> {
    /// So many tokens of the prompt were read, and not all.
    Read(Part),
    /// The text that one token has made certain, or the end of the answer.
    Text(&'a str),
}

impl Said<'_> {
    /// A line of JSON.
    pub(crate) fn event(self) -> serde_json::Value {
        match self {
            Said::Read(Part { done, of }) => serde_json::json!({ "event": "progress", "read": done, "tokens": of }),
            Said::Text(text) => serde_json::json!({ "event": "text", "text": text }),
        }
    }
}

/// The line of JSON that says that tokens were evicted.
pub(crate) fn evicted(tokens: u64) -> serde_json::Value {
    serde_json::json!({ "event": "evicted", "tokens": tokens })
}

/// What is to be generated.
pub(crate) struct Request<'a> {
    /// Tokens to read first; at least one.
    pub(crate) prompt: &'a [u32],
    /// The most tokens of the answer.
    pub(crate) limit: usize,
    /// What is said of its tokens.
    pub(crate) rules: &'a TokenRules,
    /// Control tokens whose text is a part of the answer's.
    pub(crate) shown: &'a [u32],
    /// Whether an answer ends that has begun to repeat itself exactly.
    pub(crate) stop_loops: bool,
}

/// Prefills a prompt and generates an answer, passing what there is to show as it comes. Appends every token that the session now
/// has to `history`, even where it fails.
pub(crate) fn generate(
    runner: &mut Runner<'_>,
    sampler: &mut Sampler,
    request: Request<'_>,
    history: &mut Vec<u32>,
    mut show: impl FnMut(Said<'_>) -> Result<(), Failure>,
) -> Result<(End, Stats), Failure> {
    let Request { prompt, limit, rules, shown, stop_loops } = request;
    let stops: Vec<&str> = rules.stops.iter().map(String::as_str).collect();
    let (mut generation, limits) = (Generation::new(), Limits { tokens: limit, stops: &stops });
    shown.iter().for_each(|token| generation.show(*token));
    limits.check().map_err(|e| Failure::new("--stop", e))?;
    let mut stats = Stats::default();
    let start = Instant::now();
    stats.prompt_tokens = prefill(runner, prompt, history, &mut |read| show(Said::Read(read)))?;
    stats.prompt_time = start.elapsed();
    if interrupt::take() {
        return Ok((End::Interrupted, stats.with_cache(runner)));
    }
    prompt.iter().for_each(|t| sampler.accept(*t));

    let start = Instant::now();
    let mut repeats = Repeats::default();
    let (mut last, mut text) = (None, String::new());
    let constraint = rules.grammar.as_ref().map(Grammar::start).transpose();
    let mut constraint = constraint.map_err(|e| Failure::new("the grammar", e))?;
    // As many as the plan has logits for.
    let mut speculation = Speculation::new(MAX_DRAFT);
    let end = loop {
        let before = runner.session.position();
        let tokenizer = runner.engine.tokenizer();
        let event = rules.with(tokenizer, history, last, constraint.as_ref(), |rules| {
            let lookup = Lookup { speculation: &mut speculation, tokens: history };
            runner.step(&mut generation, sampler, limits, rules, lookup, &mut |piece| text.push_str(piece))
        });
        if runner.session.position() > before {
            history.extend(last);
        }
        // The core passes on pieces as they become certain, a character at a time.
        say(&mut text, &mut show)?;
        if let Some(constraint) = &constraint {
            constraint.check().map_err(|e| Failure::new("the grammar", e))?;
        }
        let token = match event? {
            Event::Token(token) => token,
            Event::End(end) => break End::from(end),
        };
        last = Some(token);
        if completes(&mut constraint, token)? {
            break End::Stop;
        }
        if generation.ends(limits, &runner.session).is_some() {
            continue;
        }
        if stop_loops && repeats.push(token) {
            break End::Loop;
        }
        if interrupt::take() {
            break End::Interrupted;
        }
    };
    (stats.drafted, stats.accepted) = speculation.counts();
    stats.unfinished = constraint.is_some_and(|mut constraint| !constraint.may_end());
    stats.generated = generation.generated();
    stats.generation_time = start.elapsed();
    generation.finish(&mut |piece| text.push_str(piece));
    say(&mut text, &mut show).map(|()| (end, stats.with_cache(runner)))
}

/// Shows the text that has been gathered, if there is some.
fn say(text: &mut String, show: &mut impl FnMut(Said<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    match std::mem::take(text) {
        text if text.is_empty() => Ok(()),
        text => show(Said::Text(&text)),
    }
}

/// Takes a token of an answer that may be bound to a form; whether nothing may follow.
fn completes(constraint: &mut Option<Constraint>, token: u32) -> Result<bool, Failure> {
    let Some(constraint) = constraint else { return Ok(false) };
    constraint.accept(token).map_err(|e| Failure::new("the grammar", e))?;
    Ok(constraint.is_complete())
}

impl Stats {
    fn with_cache(self, runner: &Runner<'_>) -> Self {
        let (position, context) = (runner.session.position(), runner.context);
        let in_cache = position.min(context as u64);
        Stats { in_cache, context, evicted: position - in_cache, ..self }
    }
}

/// Prefills a prompt, polling for Ctrl-C between forward passes, after each of which but the last `show` is told; returns how
/// many tokens were read.
///
/// Passes are longer while pages of the model are missing, because each needs all of them; not longer than they must be, because
/// Ctrl-C waits for one.
pub(crate) fn prefill(
    runner: &mut Runner<'_>,
    prompt: &[u32],
    history: &mut Vec<u32>,
    show: &mut dyn FnMut(Part) -> Result<(), Failure>,
) -> Result<usize, Failure> {
    runner.session.fits(prompt)?;
    let mut progress = Reading::new(prompt.len());
    let mut read = 0;
    while read < prompt.len() && !interrupt::pending() {
        let ahead = runner.ahead;
        let longest = runner.engine.most_tokens(runner.engine.chunk());
        let most = if ahead.left().is_some() { longest } else { runner.usual };
        let chunk = &prompt[read..prompt.len().min(read + most)];
        ahead.rows(chunk);
        progress.during(chunk.len(), &|| ahead.left(), || runner.eval(chunk).map(drop))?;
        history.extend(chunk);
        read += chunk.len();
        if read < prompt.len() {
            show(Part { done: read, of: prompt.len() })?;
        }
    }
    Ok(read)
}
