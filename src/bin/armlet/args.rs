//! The command line.

#[cfg(feature = "mpi")]
#[path = "../../../cluster/src/options.rs"]
pub(crate) mod boards;
mod cache;
mod model;
mod plan;
mod quantize;
mod sampling;
#[cfg(feature = "serve")]
mod serve;

use std::ffi::OsString;
use std::path::PathBuf;

use armlet::engine::{Config, Pattern};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use crate::numbers;
use cache::parse_pattern;
pub(crate) use cache::{Cache, Kv, KvFormat, KvType, most_sinks};
pub(crate) use model::{Metadata, Model, Models, Resident, Threads};
pub(crate) use plan::Plan;
#[cfg(feature = "serve")]
pub(crate) use plan::{CHUNK_OF_MANY, many};
pub(crate) use quantize::{Pack, Quantize};
pub(crate) use sampling::{Bias, Sampling};
#[cfg(feature = "serve")]
pub(crate) use serve::Serve;

/// The program's name.
const NAME: &str = if cfg!(feature = "mpi") { "armlet-mpi" } else { "armlet" };

/// What else the program goes by.
const ENVIRONMENT: &str = "\
Environment variables:
  ARMLET_MODEL  The model where none is given
  ARMLET_CPU    The backend: scalar, neon, dotprod, i8mm, avx2 or avx512
                [default: the best that this CPU has]
  ARMLET_CACHE  Folder of downloaded models
                [default: $XDG_CACHE_HOME/armlet, or ~/.cache/armlet]";

/// For the command that most people come for.
const EXAMPLES: &str = "\
Examples:
  armlet chat                                a conversation with the default model
  armlet chat -m model.gguf -p \"Hello!\"      one answer of a model
  armlet chat -c 2048 --session tea.session  one that is kept in a file, and continued from there

";

/// Run language models on ARM, in memory whose size is known before the first token.
#[derive(Parser, Debug)]
#[command(name = NAME, version, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log more to stderr; twice for debug messages.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[cfg(feature = "mpi")]
    #[command(flatten)]
    pub(crate) boards: boards::Options,
}

impl Args {
    /// The command line's grammar.
    pub(crate) fn grammar() -> clap::Command {
        // A negative number is a value: it gets the range of its option, and is not taken for another option.
        fn prepare(command: clap::Command) -> clap::Command {
            let takes_number = |arg: clap::Arg| {
                let takes_values = arg.get_action().takes_values() && !arg.is_positional();
                if takes_values { arg.allow_negative_numbers(true) } else { arg }
            };
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            #[cfg(feature = "mpi")]
            let examples = examples + &boards::help();
            command.mut_args(takes_number).mut_subcommands(prepare).after_help(examples + ENVIRONMENT)
        }
        prepare(<Args as clap::CommandFactory>::command())
    }

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
    /// Chat with a model (without -m: the default model, downloaded on first use).
    #[command(visible_alias = "run", after_help = EXAMPLES)]
    Chat(Box<Chat>),
    /// Continue a text.
    Complete(Box<Complete>),
    /// Serve the model to other programs, by OpenAI's and ollama's API.
    #[cfg(feature = "serve")]
    Serve(Box<Serve>),
    /// Print the token ids of a text.
    Tokenize(Tokenize),
    /// Measure the perplexity of a model on a text, as llama-perplexity does.
    Perplexity(Perplexity),
    /// Measure tokens per second, as llama-bench does.
    Bench(Bench),
    /// Show the contents of a GGUF file.
    Inspect(Inspect),
    /// Quantise a model: convert its matrices to another format.
    Quantize(Quantize),
    /// Compute an importance matrix for `quantize`, as llama-imatrix does.
    Imatrix(Imatrix),
    /// Show how much memory a model needs, and how much it would with multi-head and multi-query attention.
    Plan(Plan),
    /// Prefill a system prompt once and save its KV cache for `chat --prefix`.
    Prefix(Prefix),
    /// Repack a quantised model into the layout that is fastest for the kernels, on every CPU.
    Pack(Pack),
    /// Download a known model and verify it.
    Pull(Pull),
    /// Show what this machine is, what slows it down, and how fast models could be; measure how many threads are best (root does so
    /// for all users).
    Doctor(Doctor),
    /// Write manual pages: armlet.1, and one for each command.
    #[command(hide = true)]
    Manual {
        /// The folder.
        folder: PathBuf,
    },
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Say what the boards and the network between them are, and what to fix.
    #[cfg(feature = "mpi")]
    Check,
}

/// The chat template.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct Template {
    /// Instead of the model's chat template: a built-in format (chatml, lfm2, llama3, gemma, gemma4, phi3, phi4, phi4-mini,
    /// mistral-v7-tekken, zephyr, granite, smollm3), the name of another template in the model, or a file with a Jinja
    /// template (- for stdin).
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) chat_template: Option<OsString>,
    /// Variables of the chat template, as a JSON object, such as {"enable_thinking": false}.
    #[arg(long, value_name = "JSON", value_parser = parse_variables)]
    pub(crate) chat_template_kwargs: Option<Map<String, Value>>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Chat {
    /// A message to answer, as -p gives it. A text of several words is one without a model, too.
    #[arg(value_name = "MESSAGE", index = 2)]
    pub(crate) message: Option<OsString>,
    /// Answer this one message and exit. A message on piped stdin does the same.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "message")]
    pub(crate) prompt: Option<OsString>,
    /// File with that message; - for stdin.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["message", "prompt"])]
    pub(crate) file: Option<PathBuf>,
    /// System prompt.
    #[arg(long, visible_alias = "sys", alias = "system-prompt", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// File with the system prompt; - for stdin.
    #[arg(long, alias = "system-prompt-file", value_name = "FILE", conflicts_with_all = ["system", "prefix"])]
    pub(crate) system_file: Option<PathBuf>,
    /// Read \n, \t, \r, \", \', \\ and \x41 in -p and --system as the characters that they stand for.
    #[arg(short, long)]
    pub(crate) escape: bool,
    /// Print JSON instead of text. With -p or piped stdin: an object at the end; with --json=events also a line for each piece of
    /// text as it comes. With --json=lines a program holds the conversation: each line of stdin is {"message": "…"} or
    /// {"command": "/…"}, and is answered by events, of which the last is "end", "reply" or "error".
    #[arg(long, value_name = "KIND", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "object")]
    pub(crate) json: Option<ChatJson>,
    /// Save the conversation, with its KV cache, in this file, and continue it if the file exists.
    #[arg(long, value_name = "FILE")]
    pub(crate) session: Option<PathBuf>,
    /// Start from a system prompt that `armlet prefix` prefilled. Its KV cache is mapped, not copied.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["system", "sinks"])]
    pub(crate) prefix: Option<PathBuf>,
    /// Do not show what a model thinks before it answers, between <think> and </think>.
    #[arg(long)]
    pub(crate) hide_thinking: bool,
    /// Do not keep the lines that you type for the next time, in ~/.local/state/armlet/history, nor read them from there.
    #[arg(long)]
    pub(crate) no_history: bool,
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) template: Template,
    #[command(flatten)]
    pub(crate) cache: Cache,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Prefix {
    #[command(flatten)]
    pub(crate) text: Text,
    /// Output file.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) template: Template,
    #[command(flatten)]
    pub(crate) kv: KvFormat,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Complete {
    #[command(flatten)]
    pub(crate) text: Text,
    /// Parse text such as <|im_end|> in the prompt as control tokens.
    #[arg(long)]
    pub(crate) parse_special: bool,
    /// Print JSON instead of text: an object at the end; with --json=events also a line for each piece of text as it comes.
    #[arg(long, value_name = "KIND", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "object")]
    pub(crate) json: Option<Json>,
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) cache: Cache,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}

/// JSON of an answer, or of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChatJson {
    Object,
    Events,
    Lines,
}

/// JSON of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Json {
    Object,
    Events,
}

/// Source of a text.
#[derive(clap::Args, Debug)]
pub(crate) struct Text {
    /// The text.
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file", allow_hyphen_values = true)]
    pub(crate) prompt: Option<OsString>,
    /// Read \n, \t, \r, \", \', \\ and \x41 in -p as the characters that they stand for.
    #[arg(short, long)]
    pub(crate) escape: bool,
    /// File with the text; stdin if it is - or if neither option is given.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Tokenize {
    #[command(flatten)]
    pub(crate) text: Text,
    /// Print [1, 2, 3] on one line, as llama-tokenize does, instead of one token with its text on each line.
    #[arg(long)]
    pub(crate) ids: bool,
    /// Do not add the BOS token.
    #[arg(long)]
    pub(crate) no_bos: bool,
    /// Do not parse text such as <|im_end|> as control tokens.
    #[arg(long)]
    pub(crate) no_parse_special: bool,
    #[command(flatten)]
    pub(crate) model: Model,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Perplexity {
    /// File with the text; - for stdin.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Tokens of a chunk of the text; the second half of each chunk is scored. With --stream, the context.
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512, value_parser = numbers::chunk)]
    pub(crate) context: usize,
    /// The most chunks; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = numbers::count)]
    pub(crate) chunks: usize,
    /// Tokens scored in one forward pass.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = numbers::positive)]
    pub(crate) rows: usize,
    /// Score the whole text as one stream, evicting old tokens when the context is full.
    #[arg(long)]
    pub(crate) stream: bool,
    /// With --stream, the attention pattern, as for `chat` [default: sinks].
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern, requires = "stream")]
    pub(crate) pattern: Option<Pattern>,
    /// With --stream, the attention sinks [default: 4, or fewer if the context is that short].
    #[arg(long, value_name = "N", value_parser = numbers::count, requires = "stream")]
    pub(crate) sinks: Option<usize>,
    /// Tokens to skip at the start; with --stream they are prefilled but not scored.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = numbers::count)]
    pub(crate) skip: usize,
    /// The most tokens of the text; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = numbers::count)]
    pub(crate) tokens: usize,
    /// Also print the mean KL divergence from the same model with a KV cache of this format.
    #[arg(long, value_name = "TYPE", value_enum)]
    pub(crate) kl: Option<KvType>,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) kv: KvFormat,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Bench {
    /// Prompt tokens (prefill), or several numbers with commas; 0 skips that test.
    #[arg(short = 'p', long, value_name = "N", default_values_t = [512], value_delimiter = ',', value_parser = numbers::count)]
    pub(crate) n_prompt: Vec<usize>,
    /// Generated tokens (decode), or several numbers with commas; 0 skips that test.
    #[arg(short = 'n', long, value_name = "N", default_values_t = [128], value_delimiter = ',', value_parser = numbers::count)]
    pub(crate) n_gen: Vec<usize>,
    /// Also a prompt of PP tokens and then TG generated ones, timed as one. May be given several times.
    #[arg(long, value_name = "PP,TG", value_parser = numbers::pair)]
    pub(crate) n_prompt_gen: Vec<(usize, usize)>,
    /// Tokens that are in the KV cache before a test begins, or several numbers with commas.
    #[arg(short = 'd', long, value_name = "N", default_values_t = [0], value_delimiter = ',', value_parser = numbers::count)]
    pub(crate) n_depth: Vec<usize>,
    /// Repetitions, after one warm-up.
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = numbers::whole::<1, 10_000, u32>)]
    pub(crate) repetitions: u32,
    /// The most prompt tokens of one forward pass (llama.cpp's ubatch).
    #[arg(long, alias = "ubatch-size", value_name = "TOKENS", default_value_t = Config::default().chunk, value_parser = numbers::count)]
    pub(crate) chunk: usize,
    /// Instead, compare the model with itself as multi-head attention: sessions that fit a budget, and tokens per second
    /// of one session and of eight, at several depths.
    #[arg(long)]
    pub(crate) compare_mha: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Md)]
    pub(crate) output: Output,
    /// Write what an issue about speed needs: this machine (no host names, no paths), its temperature before and after, and the
    /// table.
    #[arg(long, conflicts_with_all = ["output", "compare_mha"])]
    pub(crate) report: bool,
    #[command(flatten)]
    pub(crate) models: Models,
    #[command(flatten)]
    pub(crate) kv: KvFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Md,
    Json,
    /// An object on each line.
    Jsonl,
    Csv,
    /// A table, and a row for each test, as llama-bench writes them for SQLite.
    Sql,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Inspect {
    /// GGUF file (the first one of several parts), name of a known model, or owner/repo[:QUANT] of a model in the Hugging Face
    /// cache [default: $ARMLET_MODEL, or smollm2].
    #[arg(value_name = "MODEL")]
    pub(crate) path: Option<PathBuf>,
    /// The same, in the form that the other commands take.
    #[arg(short, long, value_name = "MODEL", conflicts_with = "path")]
    pub(crate) model: Option<PathBuf>,
    /// Also list the tensors.
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) metadata: Metadata,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Imatrix {
    /// File with the text, - for stdin: much, and of the kind that the model is to write.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Output file.
    #[arg(short, long, value_name = "FILE", default_value = "imatrix.gguf")]
    pub(crate) output: PathBuf,
    /// Tokens of a chunk of the text; each chunk is read alone.
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512, value_parser = numbers::chunk)]
    pub(crate) context: usize,
    /// The most chunks; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = numbers::count)]
    pub(crate) chunks: usize,
    /// Also measure the output head, output.weight.
    #[arg(long)]
    pub(crate) process_output: bool,
    #[command(flatten)]
    pub(crate) model: Model,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Pull {
    /// A known model: smollm2 or gemma3-270m.
    #[arg(default_value = "smollm2")]
    pub(crate) name: String,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Doctor {
    /// Model to measure, as of the other commands [default: $ARMLET_MODEL, or smollm2 if it is there].
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// The same without -m.
    #[arg(value_name = "MODEL", conflicts_with = "model", index = 1)]
    pub(crate) by_position: Option<PathBuf>,
    /// Measure nothing; show only what the system says.
    #[arg(long)]
    pub(crate) no_measure: bool,
    /// Keep the number of threads that was measured even if other programs were running.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Parses the variables of `--chat-template-kwargs`.
fn parse_variables(text: &str) -> Result<Map<String, Value>, String> {
    let json = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let Value::Object(variables) = json else {
        return Err("not a JSON object, such as {\"enable_thinking\": false}".into());
    };
    match ["messages", "add_generation_prompt"].into_iter().find(|name| variables.contains_key(*name)) {
        Some(name) => Err(format!("{name} is set by the conversation")),
        None => Ok(variables),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::grammar().debug_assert();
    }

    #[test]
    fn variables() {
        assert_eq!(parse_variables(r#"{"a": false}"#).unwrap()["a"], false);
        for bad in ["", "[1]", "{", r#"{"messages": []}"#, r#"{"add_generation_prompt": false}"#] {
            assert!(parse_variables(bad).is_err(), "{bad}");
        }
    }
}
