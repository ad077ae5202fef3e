//! Answers in the making, as the scheduler asks for their tokens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use armlet::generation::{Clients, End, Event as Step, Generation, Limits, Speculation};
use armlet::sample::{Candidate as Logit, Sampler, SamplerConfig, log_probability};
use armlet::tokenizer::Tokenizer;
use tokio::sync::mpsc;

use super::event::{Candidate, Ended, Event, Piece, Reason, Scored};
use super::metrics::Metrics;
use crate::grammar::{Constraint, Trouble};
use crate::token_rules::TokenRules;

/// Events that wait for a client which takes them slowly.
pub(super) const EVENTS: usize = 64;
/// Its answer goes on while there is room for so many: a token, and behind it text that was held back, and the end.
const ROOM: usize = 3;
/// How long an answer waits for its client; and while others wait for its place.
const PATIENCE: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(5)];

/// What is to be generated.
pub(super) struct Ask {
    pub(super) prompt: Vec<u32>,
    pub(super) sampling: SamplerConfig,
    /// What is said of its tokens.
    pub(super) rules: TokenRules,
    /// Control tokens that are a part of its text.
    pub(super) shown: Vec<u32>,
    /// What keeps it to a form.
    pub(super) constraint: Option<Constraint>,
    /// The most tokens of the answer.
    pub(super) tokens: usize,
    /// Log probabilities: of each token, and of so many that were likeliest.
    pub(super) scores: Option<usize>,
}

/// An answer in the making.
struct Answer {
    rules: TokenRules,
    constraint: Option<Constraint>,
    tokens: usize,
    scores: Option<usize>,
    sampler: Box<Sampler>,
    generation: Generation,
    /// Tokens of which its client knows.
    told: usize,
    speculation: Speculation,
    /// Tokens of the prompt and of the answer.
    history: Vec<u32>,
    prompt: usize,
    cached: usize,
    events: mpsc::Sender<Event>,
    /// When it was taken, when it got a slot, when the first token was there.
    began: [Instant; 3],
    /// Since when its client takes nothing.
    stuck: Option<Instant>,
}

/// All of them, by their numbers.
pub(super) struct Answers<'m> {
    tokenizer: &'m Tokenizer<'m>,
    metrics: &'m Metrics,
    /// The longest draft.
    drafts: usize,
    open: BTreeMap<u64, Answer>,
}

impl<'m> Answers<'m> {
    pub(super) fn new(tokenizer: &'m Tokenizer<'m>, metrics: &'m Metrics, drafts: usize) -> Self {
        Answers { tokenizer, metrics, drafts, open: BTreeMap::new() }
    }

    /// A request was taken.
    pub(super) fn insert(&mut self, request: u64, ask: Ask, events: mpsc::Sender<Event>) {
        let mut sampler = Box::new(Sampler::new(ask.sampling));
        ask.prompt.iter().for_each(|token| sampler.accept(*token));
        let Ask { prompt, rules, shown, constraint, tokens, scores, .. } = ask;
        let mut generation = Generation::new();
        shown.into_iter().for_each(|token| generation.show(token));
        let (n, history) = (prompt.len(), if rules.look_back() { prompt } else { Vec::new() });
        let answer = Answer {
            rules,
            constraint,
            tokens,
            scores,
            sampler,
            generation,
            told: 0,
            speculation: Speculation::new(self.drafts),
            history,
            prompt: n,
            cached: 0,
            events,
            began: [Instant::now(); 3],
            stuck: None,
        };
        self.open.insert(request, answer);
    }

    /// Forgets requests whose clients are gone, or have taken nothing for long; gives their numbers.
    pub(super) fn gone(&mut self, others_wait: bool) -> Vec<u64> {
        let patience = PATIENCE[usize::from(others_wait)];
        let is_gone =
            |answer: &Answer| answer.events.is_closed() || answer.stuck.is_some_and(|since| since.elapsed() > patience);
        let gone: Vec<u64> = self.open.iter().filter(|(_, answer)| is_gone(answer)).map(|(id, _)| *id).collect();
        for request in &gone {
            self.open.remove(request);
            self.metrics.cancelled.add(1);
        }
        gone
    }

    /// The end of an answer, for which there is room.
    fn end(&mut self, request: u64, event: impl FnOnce(&Answer) -> Event) {
        if let Some(answer) = self.open.remove(&request) {
            let (drafted, accepted) = answer.speculation.counts();
            self.metrics.predicted.add(answer.generation.generated());
            self.metrics.drafted.add(drafted);
            self.metrics.accepted.add(accepted);
            self.metrics.answered(answer.began[0].elapsed());
            let _ = answer.events.try_send(event(&answer));
        }
    }
}

impl Clients for Answers<'_> {
    fn is_ready(&mut self, request: u64) -> bool {
        let Some(answer) = self.open.get_mut(&request) else { return false };
        let ready = !answer.events.is_closed() && answer.events.capacity() >= ROOM;
        answer.stuck = if ready { None } else { answer.stuck.or_else(|| Some(Instant::now())) };
        ready
    }

    fn next(&mut self, request: u64, logits: &[f32]) -> Option<u32> {
        let answer = self.open.get_mut(&request)?;
        if answer.generation.generated() == 0 {
            answer.began[2] = Instant::now();
        }
        match answer.step(self.tokenizer, logits) {
            Ok((token, None)) => token,
            Ok((_, Some(reason))) => {
                self.end(request, |answer| Event::End(answer.ended(reason)));
                None
            }
            Err(why) => {
                self.metrics.failed.add(usize::from(!matches!(why, Trouble::Form(_))));
                self.end(request, |_| Event::Failed(why));
                None
            }
        }
    }

    fn is_full(&mut self, request: u64) {
        if let Some(answer) = self.open.get_mut(&request) {
            answer.finish();
        }
        self.end(request, |answer| Event::End(answer.ended(Reason::Length)));
    }

    fn speculation(&mut self, request: u64) -> Option<(&mut Speculation, usize)> {
        let answer = self.open.get_mut(&request)?;
        let most = answer.tokens.saturating_sub(answer.generation.generated() + 1);
        Some((&mut answer.speculation, most))
    }

    fn starts(&mut self, request: u64, kept: usize) {
        if let Some(answer) = self.open.get_mut(&request) {
            answer.cached = kept;
            answer.began[1] = Instant::now();
            self.metrics.cached.add(kept);
        }
    }
}

impl Answer {
    /// The next token, told to the client; and why there are no more.
    fn step(&mut self, tokenizer: &Tokenizer<'_>, logits: &[f32]) -> Result<(Option<u32>, Option<Reason>), Trouble> {
        let stops: Vec<&str> = self.rules.stops.iter().map(String::as_str).collect();
        let limits = Limits { tokens: self.tokens, stops: &stops };
        let mut piece = Piece::default();
        let (generation, sampler) = (&mut self.generation, &mut self.sampler);
        let show = &mut |text: &str| piece.text += text;
        let step = self.rules.with(tokenizer, &self.history, None, self.constraint.as_ref(), |rules| {
            generation.choose(tokenizer, logits, sampler, limits, rules, show)
        });
        self.constraint.as_ref().map_or(Ok(()), Constraint::check)?;
        let result = match step.map_err(|e| Trouble::Failed(e.to_string()))? {
            Step::Token(token) => {
                if self.rules.look_back() {
                    self.history.push(token);
                }
                piece.scored = self.scores.map(|n| scored(tokenizer, logits, token, n));
                let reason = if self.completes(token)? {
                    Some(Reason::Stop)
                } else {
                    (self.generation.generated() >= self.tokens).then_some(Reason::Length)
                };
                if reason.is_some() {
                    self.generation.finish(&mut |text| piece.text += text);
                }
                (Some(token), reason)
            }
            // A stop string within a document leaves it as broken as a limit.
            Step::End(End::Turn(_) | End::Stop(_)) => {
                let whole = self.constraint.as_mut().is_none_or(Constraint::may_end);
                (None, Some(if whole { Reason::Stop } else { Reason::Length }))
            }
            Step::End(End::Tokens | End::Context) => (None, Some(Reason::Length)),
        };
        self.tell(piece);
        Ok(result)
    }

    /// Whether a token is the last of what the answer's form lets it be.
    fn completes(&mut self, token: u32) -> Result<bool, Trouble> {
        let Some(constraint) = &mut self.constraint else { return Ok(false) };
        constraint.accept(token)?;
        Ok(constraint.is_complete())
    }

    /// Tells the client what is still held back.
    fn finish(&mut self) {
        let mut piece = Piece::default();
        self.generation.finish(&mut |text| piece.text += text);
        self.tell(piece);
    }

    fn tell(&mut self, mut piece: Piece) {
        if !piece.text.is_empty() || piece.scored.is_some() {
            let generated = self.generation.generated();
            piece.tokens = generated - std::mem::replace(&mut self.told, generated);
            // A client that is gone is dropped before the next tick.
            let _ = self.events.try_send(Event::Piece(piece));
        }
    }

    fn ended(&self, reason: Reason) -> Ended {
        let [taken, started, first] = self.began;
        Ended {
            reason,
            prompt: self.prompt,
            cached: self.cached,
            generated: self.generation.generated(),
            thoughts: 0,
            drafts: self.speculation.counts(),
            times: [started - taken, first - started, first.elapsed()],
        }
    }
}

/// A token and the `n` likeliest ones, with the logarithms of their probabilities as the model gives them.
fn scored(tokenizer: &Tokenizer<'_>, logits: &[f32], token: u32, n: usize) -> Scored {
    let mut likeliest = vec![Logit::default(); n.min(logits.len())];
    let own = log_probability(logits, token, &mut likeliest);
    let candidate = |token: u32, log_probability: f32| {
        // JSON has no infinity.
        let log_probability = log_probability.max(-9999.0);
        Candidate { bytes: tokenizer.piece(token, true).collect(), log_probability }
    };
    Scored { token: candidate(token, own), likeliest: likeliest.iter().map(|c| candidate(c.token, c.logit)).collect() }
}
