//! The options of `armlet-mpi` beside those of `armlet`.

use std::time::Duration;

use armlet::model::Split;
use armlet_mpi::{launch, library};

use crate::shares::Wanted;

/// What the boards are told beside what one board is.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Boards")]
pub(crate) struct Options {
    /// How boards share the model: layers (for a model that is too large for one), rows (for speed, on a wired network), or
    /// tokens (for contexts that are too large for one).
    #[arg(long, default_value = "layers", global = true, value_parser = split)]
    pub(crate) split: Split,
    /// How much of it each board has, by layers and by rows, in proportion to the others: 3,3,2; auto: as fast as each reads
    /// its memory, which is measured first.
    #[arg(long, default_value = "even", global = true, value_parser = Wanted::parse)]
    pub(crate) shares: Wanted,
    /// Seconds that a board waits for another before it gives up; longer if boards were slower before.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600), global = true)]
    pub(crate) patience: u64,
    /// Say on stderr what each board has exchanged.
    #[arg(long, global = true)]
    pub(crate) count: bool,
}

fn split(name: &str) -> Result<Split, String> {
    let found = Split::ALL.into_iter().find(|split| split.name() == name);
    found.ok_or_else(|| format!("not one of {}", Split::ALL.map(Split::name).join(", ")))
}

/// How the boards are started.
pub(crate) fn help() -> String {
    format!(
        "Start it on all boards of the file `boards` with:\n  {} …\n\n",
        launch::line(&library(), Duration::from_secs(10))
    )
}
