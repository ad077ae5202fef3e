//! The KV cache: its size, its format, and which tokens it keeps.

use armlet::arch;
use armlet::engine::{Config, Pattern};
use armlet::generation::MAX_DRAFT;
use armlet::storage::TILE;
use clap::ValueEnum;

use crate::error::Failure;
use crate::numbers;

/// The KV cache.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "KV cache")]
pub(crate) struct Cache {
    /// Context: the most tokens that a token attends to [default: 4096, or the model's own if that is less].
    #[arg(short, long, alias = "ctx-size", value_name = "TOKENS", conflicts_with = "kv_budget", value_parser = numbers::count)]
    pub(crate) context: Option<usize>,
    /// Memory for the KV cache, such as 64MiB or 1.5GB, instead of --context: the largest context that fits.
    #[arg(long, value_name = "SIZE", value_parser = numbers::size)]
    pub(crate) kv_budget: Option<usize>,
    #[command(flatten)]
    pub(crate) kv: Kv,
    /// Tokens that can always be rewound, even when older ones have been evicted.
    #[arg(long, value_name = "TOKENS", default_value_t = 0, value_parser = numbers::count)]
    pub(crate) slack: usize,
    /// The most prompt tokens of one forward pass (llama.cpp's ubatch) [default: 128; the whole prompt, up to 512, where the
    /// model is still to be read from the disk].
    #[arg(long, alias = "ubatch-size", value_name = "TOKENS", value_parser = numbers::count)]
    pub(crate) chunk: Option<usize>,
    /// Read up to this many tokens in advance where an answer repeats the conversation: auto, off, or 1 to 7. It changes no
    /// token of an answer, and takes the memory of as many more rows of logits. Once tokens are evicted it needs as much --slack,
    /// beside that for going back.
    #[arg(long, value_name = "N", default_value = "auto", value_parser = speculate)]
    pub(crate) speculate: usize,
}

/// Parses how many tokens are read in advance.
pub(super) fn speculate(text: &str) -> Result<usize, String> {
    let number = match text {
        "auto" => Some(MAX_DRAFT),
        "off" => Some(0),
        text => text.parse().ok().filter(|n| *n <= MAX_DRAFT),
    };
    number.ok_or_else(|| format!("neither auto nor off, and not from 0 to {MAX_DRAFT}"))
}

impl Cache {
    /// The configuration without the context.
    pub(crate) fn config(&self) -> Config {
        let default = self.kv.config();
        let chunk = self.chunk.unwrap_or(default.chunk);
        // A pass has no more logits than tokens.
        let logit_rows = (1 + self.speculate).min(chunk.max(1));
        Config { slack: self.slack, chunk, logit_rows, ..default }
    }

    /// The same with passes of this length, unless another was asked for.
    pub(crate) fn with_chunk(&self, chunk: Option<usize>) -> Self {
        Cache { chunk: self.chunk.or(chunk), ..self.clone() }
    }
}

/// The format of the KV cache.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(next_help_heading = "KV cache")]
pub(crate) struct KvFormat {
    /// Format of the KV cache.
    #[arg(long, alias = "cache-type-k", value_name = "TYPE", value_enum, default_value_t = KvType::F16)]
    pub(crate) kv_type: KvType,
    /// Rotate keys by a Hadamard matrix before they are stored: it spreads outliers, so int8 loses less [default: with int8].
    #[arg(long, overrides_with = "no_hadamard")]
    pub(crate) hadamard: bool,
    /// Store keys as they are, with int8 too.
    #[arg(long)]
    pub(crate) no_hadamard: bool,
}

impl KvFormat {
    pub(crate) fn config(self) -> Config {
        let KvFormat { kv_type, hadamard, no_hadamard } = self;
        let hadamard = hadamard || (kv_type == KvType::Int8 && !no_hadamard);
        Config { kv: kv_type.in_cache(), hadamard, ..Config::default() }
    }
}

/// Which tokens the KV cache keeps, and in what format.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(next_help_heading = "KV cache")]
pub(crate) struct Kv {
    #[command(flatten)]
    pub(crate) format: KvFormat,
    /// Attention pattern: full (a token attends to all before it, until the context is full), window (to the most recent),
    /// sinks (to the first few and the most recent), strided:N (as sinks, and to every N-th tile of 32 between them).
    #[arg(long, value_name = "PATTERN", default_value = "sinks", value_parser = parse_pattern)]
    pub(crate) pattern: Pattern,
    /// Attention sinks: how many of the first tokens are never evicted [default: 4, or fewer if the context is that short; in a
    /// chat with --system, those of the system prompt, up to half of the context].
    #[arg(long, alias = "keep", value_name = "N", value_parser = numbers::count)]
    pub(crate) sinks: Option<usize>,
}

impl Kv {
    pub(crate) fn config(self) -> Config {
        let default = Config::default();
        let sinks = self.sinks.unwrap_or(default.sinks);
        Config { pattern: self.pattern, sinks, ..self.format.config() }
    }

    /// Refuses sinks that would have no effect.
    pub(crate) fn check(self) -> Result<(), Failure> {
        match self.pattern {
            Pattern::Full | Pattern::Window if self.sinks.is_some() => {
                Err(Failure::Usage("--sinks has no effect: with --pattern full or window there are none".into()))
            }
            _ => Ok(()),
        }
    }

    /// A configuration of [`config`](Self::config) with this context: as many sinks as it has room for, where none were
    /// asked for.
    pub(crate) fn with_context(self, config: Config, context: usize) -> Config {
        let most = if self.sinks.is_none() { most_sinks(context, config.pattern) } else { usize::MAX };
        Config { context, sinks: config.sinks.min(most), ..config }
    }
}

/// The most sinks that leave room for the smallest window of a pattern.
pub(crate) fn most_sinks(context: usize, pattern: Pattern) -> usize {
    let window = if matches!(pattern, Pattern::Strided { .. }) { 2 * TILE } else { 1 };
    context.saturating_sub(window)
}

impl KvType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            KvType::F16 => "f16",
            KvType::Int8 => "int8",
            KvType::F32 => "f32",
        }
    }

    pub(crate) fn in_cache(self) -> arch::KvType {
        match self {
            KvType::F16 => arch::KvType::F16,
            KvType::Int8 => arch::KvType::Int8,
            KvType::F32 => arch::KvType::F32,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvType {
    F16,
    #[value(alias = "q8_0")]
    Int8,
    F32,
}

/// Parses the name of an attention pattern.
pub(super) fn parse_pattern(text: &str) -> Result<Pattern, String> {
    match text.split_once(':') {
        None if text == "full" => Ok(Pattern::Full),
        None if text == "window" => Ok(Pattern::Window),
        None if text == "sinks" => Ok(Pattern::Sinks),
        Some(("strided", n)) => match n.parse() {
            Ok(every) if every >= 2 => Ok(Pattern::Strided { every }),
            _ => Err(format!("strided:N needs a number of at least 2, not {n:?}")),
        },
        _ => Err("use full, window, sinks or strided:N".into()),
    }
}
