//! `armlet-mpi`: the program for several boards. The launcher starts it on each of them, and the first one speaks.
//!
//! Exit codes: 0 for success, 1 for a failure, 2 for wrong usage.

use std::process::ExitCode;
use std::time::Duration;

use armlet::boards::Comm;
use armlet_mpi::{Counted, Mpi, check, launch};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "armlet-mpi", version, about = "Several boards run one model together, over MPI")]
struct Args {
    /// Seconds that a board waits for another before it gives up; longer if boards were slower before
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=3600), global = true)]
    patience: u64,
    /// Say on stderr what each board has exchanged
    #[arg(long, global = true)]
    count: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say what the boards and the network between them are, and what to fix
    Check,
}

fn main() -> ExitCode {
    let started =
        format!("Start it on all boards of the file `boards` with:\n  {} check", launch::line(Duration::from_secs(10)));
    let matches = Args::command().after_help(started).try_get_matches();
    let args = match matches.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(answer) => {
            // One of them is enough to say it.
            if launch::is_first() {
                let _ = answer.print();
            }
            return ExitCode::from(answer.exit_code() as u8);
        }
    };
    let mpi = match Mpi::new(Duration::from_secs(args.patience)) {
        Ok(mpi) => Counted::new(mpi),
        Err(why) => return failed(true, &why),
    };
    let said = match args.command {
        Command::Check => check::run(&mpi),
    };
    let counted = said.and_then(|text| {
        text.iter().for_each(|text| print!("{text}"));
        if args.count { count(&mpi) } else { Ok(()) }
    });
    match counted {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(mpi.rank() == 0, &why),
    }
}

/// Says on the first board what each has exchanged.
fn count(mpi: &Counted<Mpi>) -> Result<(), String> {
    let all = mpi.of_all().map_err(|e| e.to_string())?;
    if mpi.rank() == 0 {
        all.iter().enumerate().for_each(|(rank, counts)| eprintln!("{}: {counts}", mpi.boards().board(rank)));
    }
    Ok(())
}

/// What concerns all boards is said by one.
fn failed(says: bool, why: &str) -> ExitCode {
    if says {
        eprintln!("armlet-mpi: {why}");
    }
    ExitCode::FAILURE
}
