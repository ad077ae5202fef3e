//! The `armlet` program: chats with a model, and measures, converts and downloads models.
//!
//! Generated text and results go to stdout, everything else to stderr. Exit codes: 0 for success, 1 for a failure, 2 for
//! wrong usage, 130 after Ctrl-C, 128 and its number after another signal.

// It is the fuzz target `requests` too, which needs what the server has within.
#![cfg_attr(fuzzing, no_main, allow(dead_code, unused_imports))]

mod args;
mod atomic_file;
mod bandwidth;
mod bench;
mod bench_mha;
mod bench_output;
mod bench_report;
mod boards;
mod chat;
mod claim;
mod clock;
mod complete;
mod doctor;
mod drawing;
mod error;
mod escape;
mod fatal;
mod finite;
mod generate;
mod gguf_writer;
#[cfg(feature = "grammar")]
mod grammar;
#[cfg(not(feature = "grammar"))]
#[path = "no_grammar.rs"]
mod grammar;
mod hub;
mod imatrix;
mod inspect;
mod interrupt;
mod model;
#[cfg(not(feature = "mpi"))]
mod network;
#[cfg(feature = "mpi")]
#[path = "../../../cluster/src/network.rs"]
mod network;
mod numbers;
mod override_kv;
mod pack;
mod parts;
mod perplexity;
mod plan;
mod progress;
mod pull;
mod quantize;
mod read_ahead;
mod repeats;
mod resident;
mod sampling;
#[cfg(feature = "serve")]
mod serve;
mod shares;
mod spellings;
mod template;
mod terminal;
mod thinking;
mod token_rules;
mod tokenize;
#[cfg(feature = "serve")]
mod tools;
mod visible;

use std::io::Write;

use clap::FromArgMatches;

use args::{Args, Command};
use atomic_file::Target;
use claim::Claim;
use error::Failure;

#[global_allocator]
static ALLOCATOR: fatal::Allocator = fatal::Allocator;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| serve::fuzzed::request_or_schema(input));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    if template::renderer::is_this() {
        return template::renderer::serve();
    }
    fatal::catch();
    if let Err(failure) = fatal::check_stdout() {
        return failure.report();
    }
    let spelled = match spellings::translate(std::env::args_os()) {
        Ok(spelled) => spelled,
        Err(why) => return shown(&Args::grammar().error(clap::error::ErrorKind::ArgumentConflict, why)),
    };
    let parsed = Args::grammar().try_get_matches_from(spelled.args);
    let args = match parsed.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(e) => return shown(&e),
    };
    // A message may quote a file.
    let line = |out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>| {
        let message = record.args().to_string();
        let message = visible::line(&message);
        match record.level() {
            log::Level::Error => writeln!(out, "armlet: error: {message}"),
            log::Level::Warn => writeln!(out, "armlet: warning: {message}"),
            // For who looks for something in the program.
            level => writeln!(out, "[{level:5} {}] {message}", record.target()),
        }
    };
    env_logger::Builder::new().filter_level(args.log_level()).format(line).init();
    spelled.notes.iter().for_each(|note| log::warn!("{note}"));
    #[cfg(feature = "mpi")]
    return network::run(args);
    #[cfg(not(feature = "mpi"))]
    ended(command(args))
}

/// The program's exit code.
fn ended(result: Result<(), Failure>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(Failure::Interrupted) => interrupt::exit_code().into(),
        Err(failure) => failure.report(),
    }
}

/// Prints what the command line is answered with before anything runs: help, or what is wrong with it.
fn shown(answer: &clap::Error) -> std::process::ExitCode {
    #[cfg(feature = "mpi")]
    if !network::speaks() {
        network::refuse(answer);
        return std::process::ExitCode::from(answer.exit_code() as u8);
    }
    match answer.print().and_then(|()| std::io::stdout().flush()) {
        Err(e) if !answer.use_stderr() => Failure::from(e).report(),
        _ => std::process::ExitCode::from(answer.exit_code() as u8),
    }
}

fn command(args: Args) -> Result<(), Failure> {
    interrupt::leave_at_once()?;
    match args.command {
        Command::Chat(a) => {
            let a = chat::by_position(*a)?;
            let _claim = a.session.as_deref().filter(|_| network::speaks()).map(Claim::new).transpose()?;
            chat::run(&a)
        }
        Command::Complete(a) => complete::run(&a),
        #[cfg(feature = "serve")]
        Command::Serve(a) => serve::run(&a),
        Command::Tokenize(a) => tokenize::run(&a),
        Command::Perplexity(a) => perplexity::run(&a),
        Command::Bench(a) => bench::run(&a),
        Command::Inspect(a) => inspect::run(&a),
        Command::Quantize(a) => quantize::run(&a),
        Command::Imatrix(a) => {
            Target::new(&a.output)?.check_folder()?;
            imatrix::run(&a)
        }
        Command::Plan(a) => plan::run(&a),
        Command::Prefix(a) => {
            Target::new(&a.output)?.check_folder()?;
            chat::prefix::run(&a)
        }
        Command::Pack(a) => pack::run(&a),
        Command::Pull(a) => pull::run(&a),
        Command::Doctor(a) => doctor::run(&a),
        #[cfg(feature = "mpi")]
        Command::Check => network::check(),
        Command::Manual { folder } => {
            clap_mangen::generate_to(Args::grammar(), &folder).map_err(|e| Failure::file(&folder, e))
        }
        Command::Completions { shell } => {
            let mut command = Args::grammar();
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut command, "armlet", &mut out);
            error::print(&out)
        }
    }
}
