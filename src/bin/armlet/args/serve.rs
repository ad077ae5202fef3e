//! The command line of `serve`.

use std::path::PathBuf;

use super::cache::speculate;
use super::{CHUNK_OF_MANY, Kv, Model, Sampling, Template};
use crate::numbers;

#[derive(clap::Args, Debug)]
pub(crate) struct Serve {
    /// Address to listen on. Others than this machine's own need --api-key-file or --insecure.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port to listen on; 0: any that is free.
    #[arg(long, default_value_t = 8080, value_parser = numbers::whole::<0, 65535, u16>)]
    pub(crate) port: u16,
    /// Answers at a time, each in memory of its own; others wait [default: 4, or as many as fit --kv-budget].
    #[arg(long, visible_alias = "parallel", value_name = "N", value_parser = numbers::users)]
    pub(crate) users: Option<usize>,
    /// Tokens of each answer's conversation, prompt and answer [default: 4096, or the model's own if that is less].
    #[arg(short, long, alias = "ctx-size", value_name = "TOKENS", value_parser = numbers::positive)]
    pub(crate) context: Option<usize>,
    /// Memory for the KV cache of all answers, such as 64MiB or 1.5GB: as many users of --context as fit; with --users, and then
    /// without --context, the largest context that fits.
    #[arg(long, value_name = "SIZE", value_parser = numbers::size)]
    pub(crate) kv_budget: Option<usize>,
    /// System prompt that `armlet prefix` prefilled: its KV cache is mapped once, and shared by all whose conversation begins with
    /// it. --users is how many of these are answered at a time.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kv_budget", "sinks", "kv_type", "hadamard", "no_hadamard"])]
    pub(crate) prefix: Option<PathBuf>,
    /// With --prefix, answers at a time of conversations that begin otherwise [default: 1].
    #[arg(long, value_name = "N", value_parser = numbers::users)]
    pub(crate) others: Option<usize>,
    /// The most prompt tokens of one forward pass, between two tokens of the answers that run.
    #[arg(long, alias = "ubatch-size", value_name = "TOKENS", default_value_t = CHUNK_OF_MANY, value_parser = numbers::positive)]
    pub(crate) chunk: usize,
    /// While one answer runs alone, read up to this many tokens in advance where it repeats its conversation: auto, off, or 1 to 7.
    /// It changes no token of an answer. Fewer users than that and one more take the memory of as many rows of logits.
    #[arg(long, value_name = "N", default_value = "auto", value_parser = speculate)]
    pub(crate) speculate: usize,
    /// Requests that may wait for one of the users' places; others are answered with 429.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = numbers::whole::<1, 1024, usize>)]
    pub(crate) queue: usize,
    /// Name of the model, instead of its file's.
    #[arg(long, value_name = "NAME")]
    pub(crate) alias: Option<String>,
    /// Key that requests need, as Authorization: Bearer KEY. Other users of this machine see it in the list of processes;
    /// ARMLET_API_KEY and --api-key-file they do not.
    #[arg(long, value_name = "KEY", conflicts_with = "api_key_file")]
    pub(crate) api_key: Option<String>,
    /// File with the key that requests need.
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Listen on other addresses than this machine's own without a key.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Origin whose pages may ask in a browser, such as https://ui.example, or * for all. May be given several times.
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors: Vec<String>,
    /// Name by which the server may be asked, beside localhost, this machine's name and any address. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
    /// The largest body of a request.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = numbers::size)]
    pub(crate) max_body: usize,
    /// Seconds that the headers of a request may take, and its body.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = numbers::whole::<1, 3600, u64>)]
    pub(crate) timeout: u64,
    /// The most connections.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = numbers::whole::<1, 65536, usize>)]
    pub(crate) connections: usize,
    /// With -v, also show what people write and what the model answers. Without this, no text is in the log.
    #[arg(long)]
    pub(crate) log_prompts: bool,
    #[command(flatten)]
    pub(crate) model: Model,
    #[command(flatten)]
    pub(crate) template: Template,
    #[command(flatten)]
    pub(crate) kv: Kv,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
}
