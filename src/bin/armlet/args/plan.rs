//! The command line of `plan`.

use std::path::PathBuf;

use armlet::engine::Config;
use armlet::generation::MAX_ANSWERS;

use super::{Cache, Metadata, Resident};
use crate::boards::Network;
use crate::numbers;
use crate::shares::Wanted;

#[derive(clap::Args, Debug)]
pub(crate) struct Plan {
    /// GGUF file (the first one of several parts), name of a known model, or owner/repo[:QUANT] of a model in the Hugging Face
    /// cache [default: $ARMLET_MODEL, or smollm2].
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// The same without -m.
    #[arg(value_name = "MODEL", conflicts_with = "model", index = 1)]
    pub(crate) by_position: Option<PathBuf>,
    /// Number of sessions that share the budget.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = numbers::positive)]
    pub(crate) sessions: usize,
    /// The same for `armlet serve --users N`, which decodes several at a time.
    #[arg(long, value_name = "N", conflicts_with = "sessions", value_parser = numbers::users)]
    pub(crate) users: Option<usize>,
    /// Also show what so many boards would make of the model, for each way to share it: memory, bytes between them, and the time
    /// of a token, modelled.
    #[arg(long, value_name = "N", value_parser = numbers::whole::<2, 64, usize>)]
    pub(crate) boards: Option<usize>,
    /// The network between them: its rate, and the latency of an exchange.
    #[arg(long, value_name = "RATE,LATENCY", requires = "boards", default_value = "1gbit,0.12ms", value_parser = Network::parse)]
    pub(crate) net: Network,
    /// Bytes per second that a board reads from its memory, or each of them with commas, as `armlet doctor` measures them: 11GB
    /// is a Raspberry Pi 5, 3.2GB a Raspberry Pi 4.
    #[arg(long, value_name = "BYTES", requires = "boards", default_value = "11GB", value_delimiter = ',', value_parser = numbers::size)]
    pub(crate) memory_speed: Vec<usize>,
    /// How much each of them has, by layers and by rows, in proportion to the others: 3,3,2; auto: by --memory-speed.
    #[arg(long, requires = "boards", default_value = "even", value_parser = Wanted::parse)]
    pub(crate) shares: Wanted,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Plot memory against context to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) resident: Resident,
    #[command(flatten)]
    pub(crate) metadata: Metadata,
    #[command(flatten)]
    pub(crate) cache: Cache,
}

impl Plan {
    /// How many sessions are planned, and the configuration of each without its context.
    pub(crate) fn sessions(&self) -> (usize, Config) {
        match self.users {
            None => (self.sessions, self.cache.config()),
            Some(users) => (users, many(self.cache.with_chunk(Some(CHUNK_OF_MANY)).config(), users)),
        }
    }
}

/// The most prompt tokens of a pass between two tokens of other answers, where nothing says how many.
pub(crate) const CHUNK_OF_MANY: usize = 64;

/// A configuration that decodes so many answers at a time, as far as one pass does, or one and its draft.
pub(crate) fn many(config: Config, users: usize) -> Config {
    Config { logit_rows: users.min(MAX_ANSWERS).max(config.logit_rows).min(config.chunk), ..config }
}
