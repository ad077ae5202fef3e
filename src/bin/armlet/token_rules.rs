//! What the options say of single tokens and texts: biases, repetitions, stop strings.

use std::collections::BTreeMap;

use armlet::sample::{Candidate, Dry, Rules};
use armlet::tokenizer::Tokenizer;

use crate::args;
use crate::error::Failure;
use crate::grammar::{self, Constraint, Grammar, Vocabulary};

/// Tokens that may have a penalty at a time.
const REPETITIONS: usize = 1024;
/// Texts over which no repetition goes, as in llama.cpp.
const BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Rules of one answer after another.
#[derive(Debug, Default)]
pub(crate) struct TokenRules {
    /// Texts that end an answer.
    pub(crate) stops: Vec<String>,
    /// What an answer may be.
    pub(crate) grammar: Option<Grammar>,
    bias: BTreeMap<u32, f32>,
    dry: Dry,
    /// The last tokens among which repetitions are looked for.
    last: usize,
    breakers: Vec<String>,
}

impl TokenRules {
    /// What the options say, but for a form.
    pub(crate) fn new(args: &args::Sampling, tokenizer: &Tokenizer<'_>) -> Result<Self, Failure> {
        let vocab = tokenizer.len();
        if let Some(args::Bias { token, .. }) = args.logit_bias.iter().find(|b| b.token as usize >= vocab) {
            return Err(Failure::new("--logit-bias", format!("token {token} is not in the vocabulary of {vocab}")));
        }
        let default = Dry::default();
        let ends = args.ignore_eos.then_some(0..vocab as u32).into_iter().flatten();
        let ends = ends.filter(|token| tokenizer.is_end(*token)).map(|token| (token, f32::NEG_INFINITY));
        let breakers = match args.dry_sequence_breaker.as_slice() {
            [] => BREAKERS.map(String::from).to_vec(),
            given => given.iter().filter(|text| *text != "none").cloned().collect(),
        };
        Ok(TokenRules {
            grammar: None,
            stops: args.stops.clone(),
            bias: args.logit_bias.iter().map(|b| (b.token, b.bias)).chain(ends).collect(),
            dry: Dry {
                multiplier: args.dry_multiplier.unwrap_or(default.multiplier),
                base: args.dry_base.unwrap_or(default.base),
                allowed_length: args.dry_allowed_length.unwrap_or(default.allowed_length),
            },
            last: args.dry_penalty_last_n.unwrap_or(usize::MAX),
            breakers,
        })
    }

    /// Whether they depend on what was said.
    #[cfg(feature = "serve")]
    pub(crate) fn look_back(&self) -> bool {
        self.dry.multiplier > 0.0
    }

    /// The same with the form that the options want.
    pub(crate) fn with_form(args: &args::Sampling, tokenizer: &Tokenizer<'_>) -> Result<Self, Failure> {
        let option = if args.json_schema.is_some() { "--json-schema" } else { "--grammar" };
        let build = |form| {
            let grammar = Grammar::new(Vocabulary::new(tokenizer)?, &form)?;
            grammar.start().map(|_| grammar).map_err(|e| e.to_string())
        };
        let grammar = grammar::form(args)?.map(build).transpose().map_err(|e| Failure::new(option, e))?;
        Ok(TokenRules { grammar, ..Self::new(args, tokenizer)? })
    }

    /// Calls `f` with the rules for the token behind `history` and `token`, of those that the constraint allows.
    pub(crate) fn with<R>(
        &self,
        tokenizer: &Tokenizer<'_>,
        history: &[u32],
        token: Option<u32>,
        constraint: Option<&Constraint>,
        f: impl FnOnce(Rules<'_>) -> R,
    ) -> R {
        let mut penalties = BTreeMap::new();
        if self.dry.multiplier > 0.0 {
            let all: Vec<u32> = history.iter().copied().chain(token).collect();
            let mut found = vec![Candidate::default(); REPETITIONS];
            let last = &all[all.len().saturating_sub(self.last)..];
            let n = self.dry.penalties(last, &|token| self.breaks(tokenizer, token), &mut found);
            penalties.extend(found[..n].iter().map(|c| (c.token, c.logit)));
        }
        let adjust = |token: u32, logit: f32| {
            if constraint.is_some_and(|constraint| !constraint.allows(tokenizer, token)) {
                return None;
            }
            let logit = logit + self.bias.get(&token).unwrap_or(&0.0) - penalties.get(&token).unwrap_or(&0.0);
            (logit > f32::NEG_INFINITY).then_some(logit)
        };
        let most_raised = self.bias.values().fold(0.0, |most: f32, bias| most.max(*bias));
        let lowers = constraint.is_none().then_some(self.bias.len() + penalties.len());
        f(Rules { adjust: &adjust, most_raised, lowers })
    }

    fn breaks(&self, tokenizer: &Tokenizer<'_>, token: u32) -> bool {
        let bytes: Vec<u8> = tokenizer.piece(token, true).collect();
        self.breakers.iter().any(|text| bytes.windows(text.len().max(1)).any(|part| part == text.as_bytes()))
    }
}
