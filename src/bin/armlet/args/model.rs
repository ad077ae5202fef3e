//! Which model, or models, and on how many threads.

use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::numbers;
use crate::override_kv::{self, OverrideKv};

/// The model and the threads it runs on.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct Model {
    /// GGUF file (the first one of several parts), name of a known model, or owner/repo[:QUANT] of a model in the Hugging Face
    /// cache [default: $ARMLET_MODEL, or smollm2, downloaded on first use].
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// The same without -m.
    #[arg(value_name = "MODEL", index = 1)]
    pub(crate) by_position: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) resident: Resident,
    #[command(flatten)]
    pub(crate) metadata: Metadata,
}

impl Model {
    /// The model that was given.
    pub(crate) fn given(&self) -> Result<Option<&Path>, Failure> {
        match (&self.model, &self.by_position) {
            (Some(_), Some(word)) => {
                let why = format!("{} cannot be used with -m, which gives the model", word.display());
                Err(Failure::Usage(why))
            }
            (model, by_position) => Ok(model.as_deref().or(by_position.as_deref())),
        }
    }
}

/// Several models, one after the other, and the threads they run on.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct Models {
    /// GGUF file (the first one of several parts), name of a known model, or owner/repo[:QUANT] of a model in the Hugging Face
    /// cache [default: $ARMLET_MODEL, or smollm2, downloaded on first use]. May be given several times.
    #[arg(id = "model", short, long, value_name = "MODEL")]
    paths: Vec<PathBuf>,
    /// The same without -m.
    #[arg(value_name = "MODEL", conflicts_with = "model", index = 1)]
    by_position: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    resident: Resident,
    #[command(flatten)]
    metadata: Metadata,
}

impl Models {
    /// Whether they are read instead of mapped.
    pub(crate) fn no_mmap(&self) -> bool {
        self.resident.no_mmap
    }

    /// Each of them; the default if none was given.
    pub(crate) fn each(&self) -> Vec<Model> {
        let model = |path: Option<PathBuf>| Model {
            model: path,
            by_position: None,
            threads: self.threads,
            resident: self.resident,
            metadata: self.metadata.clone(),
        };
        if self.paths.is_empty() {
            vec![model(self.by_position.clone())]
        } else {
            self.paths.iter().cloned().map(Some).map(model).collect()
        }
    }
}

/// How many threads a model runs on.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Threads {
    /// Number of threads; 0: what `armlet doctor` has measured here, else one for each CPU that this process may use, but for
    /// cores less than half as fast as the fastest.
    #[arg(id = "threads", short, long, value_name = "N", default_value_t = 0, value_parser = numbers::count)]
    pub(crate) number: usize,
}

/// Where the model's bytes are.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Model")]
pub(crate) struct Resident {
    /// Read the whole model into memory at the start, instead of mapping its file. Without this, pages that are not used
    /// can be given up, and read again.
    #[arg(long)]
    pub(crate) no_mmap: bool,
    /// Keep the model in memory (mlock): none of it is given up to other programs, or swapped out.
    #[arg(long)]
    pub(crate) mlock: bool,
    /// Read every weight at the start, and refuse a model that has one that is not a number, or infinite.
    #[arg(long)]
    pub(crate) check_tensors: bool,
}

/// Metadata of the model.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub(crate) struct Metadata {
    /// Metadata that counts instead of the file's; TYPE is int, float, bool or str. May be given several times.
    #[arg(long, value_name = "KEY=TYPE:VALUE", value_parser = override_kv::parse)]
    pub(crate) override_kv: Vec<OverrideKv>,
}
