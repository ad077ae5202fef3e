//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use armlet::arch;
use armlet::engine::{Config, Pattern};
use clap::{Parser, Subcommand, ValueEnum};

/// Language models on ARM, in memory that is known before the first token.
#[derive(Parser, Debug)]
#[command(name = "armlet", version, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say more on stderr; twice for debugging.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Args {
    pub(crate) fn log_level(&self) -> log::LevelFilter {
        match self.verbose {
            0 => log::LevelFilter::Warn,
            1 => log::LevelFilter::Info,
            _ => log::LevelFilter::Debug,
        }
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Talk to a model (without -m: the default model, pulled on first use).
    Chat(Chat),
    /// Continue a text.
    Complete(Complete),
    /// Print the token ids of a text.
    Tokenize(Tokenize),
    /// Measure how well a model predicts a text, as llama-perplexity does.
    Perplexity(Perplexity),
    /// Measure tokens per second, as llama-bench does.
    Bench(Bench),
    /// Show what is in a GGUF file.
    Inspect(Inspect),
    /// Write a model in another format.
    Quantize(Quantize),
    /// Show what memory a model takes at a budget, and what multi-head, grouped-query and multi-query attention would.
    Plan(Plan),
    /// Read a system prompt once, into a file that `chat --prefix` starts with.
    Prefix(Prefix),
    /// Write a quantised model in the layout that the kernels like best, the same on every CPU.
    Pack(Pack),
    /// Fetch a known model and verify it.
    Pull(Pull),
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The model and what it runs on.
#[derive(clap::Args, Debug)]
pub(crate) struct Model {
    /// GGUF file, or the name of a known model [default: smollm2, pulled on first use].
    #[arg(short, long, value_name = "MODEL", env = "ARMLET_MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Threads; 0 for one on each CPU that this process may use.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

/// The cache.
#[derive(clap::Args, Debug)]
pub(crate) struct Cache {
    /// Tokens that are looked at, at most [default: 4096, at most what the model was trained for].
    #[arg(short, long, value_name = "TOKENS", conflicts_with = "kv_budget")]
    pub(crate) context: Option<usize>,
    /// Memory for the K/V cache, as 64MiB: the context is as long as fits.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) kv_budget: Option<usize>,
    #[command(flatten)]
    pub(crate) kv: Kv,
    /// Tokens that can surely be taken back once older ones have been given up.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    pub(crate) slack: usize,
    /// Most prompt tokens of one pass.
    #[arg(long, value_name = "TOKENS", default_value_t = Config::default().chunk)]
    pub(crate) chunk: usize,
}

impl Cache {
    /// All but the context.
    pub(crate) fn config(&self) -> Config {
        Config { slack: self.slack, chunk: self.chunk, ..self.kv.config() }
    }
}

/// What the cache keeps, and how.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Kv {
    /// How the cache stores numbers.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = KvType::F16)]
    pub(crate) kv_type: KvType,
    /// Store keys in a basis that spreads outliers, which makes int8 more precise.
    #[arg(long)]
    pub(crate) hadamard: bool,
    /// Which tokens are looked at: full (all, until the context is full), window (the last), sinks (the first few and the
    /// last), strided:N (those, and every N-th tile of 32 between them).
    #[arg(long, value_name = "PATTERN", default_value = "sinks", value_parser = parse_pattern)]
    pub(crate) pattern: Pattern,
    /// How many of the first tokens stay for good.
    #[arg(long, value_name = "N", default_value_t = Config::default().sinks)]
    pub(crate) sinks: usize,
}

impl Kv {
    pub(crate) fn config(self) -> Config {
        let Kv { kv_type, hadamard, pattern, sinks } = self;
        Config { kv: kv_type.in_cache(), hadamard, pattern, sinks, ..Config::default() }
    }
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

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KvType {
    F16,
    Int8,
    F32,
}

/// How tokens are chosen.
#[derive(clap::Args, Debug)]
pub(crate) struct Sampling {
    /// Most tokens to generate [default: 128 for complete; for chat what the context holds].
    #[arg(short, long, value_name = "N")]
    pub(crate) n_predict: Option<usize>,
    /// Seed of the random choice [default: a new one each time].
    #[arg(short, long)]
    pub(crate) seed: Option<u64>,
    /// Randomness; 0 takes the likeliest token and is the same to the bit every time.
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = parse_range::<0, 100>)]
    pub(crate) temp: f32,
    /// Keep this many of the likeliest tokens, at most 1024; 0 for 1024.
    #[arg(long, value_name = "K", default_value_t = 40)]
    pub(crate) top_k: usize,
    /// Keep the likeliest tokens up to this share of probability.
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = parse_range::<0, 1>)]
    pub(crate) top_p: f32,
    /// Keep tokens at least this likely relative to the likeliest.
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = parse_range::<0, 1>)]
    pub(crate) min_p: f32,
    /// Make recent tokens less likely; 1 changes nothing.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = parse_penalty)]
    pub(crate) repeat_penalty: f32,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Chat {
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) cache: Cache,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// One message; the answer is printed and the program ends. Piped stdin does the same.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<OsString>,
    /// Instructions to the model.
    #[arg(long, visible_alias = "sys", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// Print a JSON object instead of text, with -p or piped stdin.
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on with the conversation in this file, if there is one, and keep it there.
    #[arg(long, value_name = "FILE")]
    pub(crate) session: Option<PathBuf>,
    /// Start with the system prompt in this file, which `armlet prefix` wrote: it is not read again, and used where it lies.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["system", "sinks"])]
    pub(crate) prefix: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Prefix {
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) text: Text,
    #[command(flatten)]
    pub(crate) kv: Kv,
    /// File to write.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Plan {
    /// GGUF file, or the name of a known model [default: smollm2].
    #[arg(short, long, value_name = "MODEL", env = "ARMLET_MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cache: Cache,
    /// Sessions that share the budget.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) sessions: usize,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw memory against context to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Complete {
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) cache: Cache,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    #[command(flatten)]
    pub(crate) text: Text,
    /// Let text such as <|im_end|> in the prompt become control tokens.
    #[arg(long)]
    pub(crate) parse_special: bool,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a text comes from.
#[derive(clap::Args, Debug)]
pub(crate) struct Text {
    /// The text.
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file", allow_hyphen_values = true)]
    pub(crate) prompt: Option<OsString>,
    /// A file with the text; - or neither option for stdin.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Tokenize {
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) text: Text,
    /// Print [1, 2, 3] on one line, as llama-tokenize does; else one token a line with its text.
    #[arg(long)]
    pub(crate) ids: bool,
    /// Don't add the token that starts a text.
    #[arg(long)]
    pub(crate) no_bos: bool,
    /// Treat text such as <|im_end|> as text.
    #[arg(long)]
    pub(crate) no_parse_special: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Perplexity {
    #[command(flatten)]
    pub(crate) model: Model,
    /// The text.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Tokens of a piece of text; the second half of each is scored.
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512)]
    pub(crate) context: usize,
    /// Most pieces; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) chunks: usize,
    /// Tokens scored in one pass.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) rows: usize,
    #[command(flatten)]
    pub(crate) kv: Kv,
    /// Read the text as one stream, of which -c tokens are looked at, and score all of it.
    #[arg(long)]
    pub(crate) stream: bool,
    /// Tokens at the start that are not scored; without --stream, not read either.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) skip: usize,
    /// Most tokens of the text; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) tokens: usize,
    /// Also compare the probabilities with those that a cache of this type gives (mean Kullback-Leibler divergence).
    #[arg(long, value_name = "TYPE", value_enum)]
    pub(crate) kl: Option<KvType>,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) model: Model,
    /// Prompt tokens; 0 to leave that test out.
    #[arg(short = 'p', long, value_name = "N", default_value_t = 512)]
    pub(crate) n_prompt: usize,
    /// Generated tokens; 0 to leave that test out.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    pub(crate) n_gen: usize,
    /// Repetitions, after one to warm up.
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repetitions: u32,
    /// Most prompt tokens of one pass.
    #[arg(long, value_name = "TOKENS", default_value_t = Config::default().chunk)]
    pub(crate) chunk: usize,
    /// Compare grouped-query attention with multi-head attention of the same model instead: sessions that fit a budget,
    /// and tokens per second of one and of eight, at several depths.
    #[arg(long)]
    pub(crate) compare_mha: bool,
    #[command(flatten)]
    pub(crate) kv: Kv,
    /// Output.
    #[arg(short, long, value_enum, default_value_t = Output::Md)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Md,
    Json,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Inspect {
    /// GGUF file, or the name of a known model [default: smollm2].
    #[arg(value_name = "MODEL")]
    pub(crate) path: Option<PathBuf>,
    /// The same, as the other commands take it.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "path", env = "ARMLET_MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// List the tensors too.
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Print a JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Quantize {
    /// The model to read.
    pub(crate) input: PathBuf,
    /// The file to write.
    pub(crate) output: PathBuf,
    /// TargetFormat of the matrices. With q4_0 the embedding and the output head become q8_0.
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub(crate) kind: TargetFormat,
    /// Convert weights that are quantised already: they lose a second time.
    #[arg(long)]
    pub(crate) allow_requantize: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetFormat {
    F16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Pack {
    /// The model to read.
    pub(crate) input: PathBuf,
    /// The file to write. It gives the same answers, and only armlet reads it.
    pub(crate) output: PathBuf,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Pull {
    /// A known model: smollm2 or gemma3-270m.
    #[arg(default_value = "smollm2")]
    pub(crate) name: String,
}

/// A number of bytes with an optional unit: 8388608, 8MiB, 512K.
fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        unit => return Err(format!("unknown unit {unit:?}; use KiB, MiB or GiB")),
    };
    let number: usize = digits.parse().map_err(|_| "it is not a whole number with a unit, as 64MiB".to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".to_string())
}

/// A pattern by its name.
fn parse_pattern(text: &str) -> Result<Pattern, String> {
    match text.split_once(':') {
        None if text == "full" => Ok(Pattern::Full),
        None if text == "window" => Ok(Pattern::Window),
        None if text == "sinks" => Ok(Pattern::Sinks),
        Some(("strided", n)) => match n.parse() {
            Ok(every) if every >= 2 => Ok(Pattern::Strided { every }),
            _ => Err(format!("{n:?} is no number from 2 on")),
        },
        _ => Err("give full, window, sinks or strided:N".into()),
    }
}

/// A factor that logits can be divided by.
fn parse_penalty(text: &str) -> Result<f32, String> {
    let number = parse_range::<0, 100>(text)?;
    if number >= 0.01 { Ok(number) } else { Err("it is not from 0.01 to 100".into()) }
}

/// A finite number from `MIN` to `MAX`.
fn parse_range<const MIN: i32, const MAX: i32>(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "it is not a number".to_string())?;
    if (MIN as f32..=MAX as f32).contains(&number) { Ok(number) } else { Err(format!("it is not from {MIN} to {MAX}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("8MiB"), Ok(8 << 20));
        assert_eq!(parse_size("512k"), Ok(512 << 10));
        assert_eq!(parse_size("77"), Ok(77));
        for bad in ["", "MiB", "3 parsecs", "99999999999999999999", "18446744073709551615G", "-1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
