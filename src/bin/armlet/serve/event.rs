//! What the engine tells of an answer.

use std::time::Duration;

use serde_json::{Value, json};

use crate::grammar::Trouble;

/// The engine tells these of each request, in order; the last is an end or a failure.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Piece(Piece),
    End(Ended),
    /// There is no more, because the answer's form takes too much, or something here failed.
    Failed(Trouble),
}

/// What a token added.
#[derive(Clone, Debug, Default)]
pub(super) struct Piece {
    /// Text that has become certain: often none, sometimes that of several tokens.
    pub(super) text: String,
    /// Tokens since the last piece.
    pub(super) tokens: usize,
    /// The token, where log probabilities were asked for.
    pub(super) scored: Option<Scored>,
}

/// A token with its log probability, and those that were likeliest.
#[derive(Clone, Debug)]
pub(super) struct Scored {
    pub(super) token: Candidate,
    pub(super) likeliest: Vec<Candidate>,
}

/// The bytes of a token, and the logarithm of its probability.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) bytes: Vec<u8>,
    pub(super) log_probability: f32,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The model ended its turn, or there was a stop string.
    Stop,
    /// The model ended its turn with calls of tools.
    Calls,
    /// As many tokens as asked for, or as the context holds.
    Length,
}

impl Reason {
    pub(super) fn name(self) -> &'static str {
        match self {
            Reason::Stop => "stop",
            Reason::Calls => "tool_calls",
            Reason::Length => "length",
        }
    }
}

/// The end of an answer, and what it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) reason: Reason,
    /// Tokens of the prompt.
    pub(super) prompt: usize,
    /// How many of these a slot had already.
    pub(super) cached: usize,
    /// Tokens of the answer, with the one that ended it.
    pub(super) generated: usize,
    /// How many of these are thoughts.
    pub(super) thoughts: usize,
    /// Tokens that were read in advance, and those of them that the answer then had.
    pub(super) drafts: (usize, usize),
    /// From when the request was taken until it had a slot, until the first token, and until the end.
    pub(super) times: [Duration; 3],
}

impl Ended {
    /// As OpenAI's API counts tokens.
    pub(super) fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt, "completion_tokens": self.generated, "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": { "cached_tokens": self.cached },
            "completion_tokens_details": { "reasoning_tokens": self.thoughts },
        })
    }

    /// As llama-server tells times.
    pub(super) fn timings(&self) -> Value {
        let [queued, prompt, answer] = self.times.map(|time| time.as_secs_f64() * 1e3);
        let (prompt_n, predicted_n) = (self.prompt - self.cached, self.generated);
        let (drafted, accepted) = self.drafts;
        let each = |ms: f64, n: usize| ms / n.max(1) as f64;
        let rate = |ms: f64, n: usize| n as f64 / ms.max(1e-6) * 1e3;
        // The first token comes from the prompt's logits.
        let steps = predicted_n.saturating_sub(1);
        json!({
            "queued_ms": queued, "cache_n": self.cached,
            "prompt_n": prompt_n, "prompt_ms": prompt,
            "prompt_per_token_ms": each(prompt, prompt_n), "prompt_per_second": rate(prompt, prompt_n),
            "predicted_n": predicted_n, "predicted_ms": answer,
            "predicted_per_token_ms": each(answer, steps), "predicted_per_second": rate(answer, steps),
            "draft_n": drafted, "draft_n_accepted": accepted,
        })
    }
}
