//! `armlet doctor`: what this machine is, what slows it down, and how fast it could be.
//!
//! ```text
//! system   what Linux says in /proc, /sys and /boot      disk      the model's file
//! measure  memory and decoding, by threads               threads   how many by default
//! advice   what slows the machine down                   report    for people and for programs
//! ```

pub(crate) mod advice;
mod disk;
mod measure;
mod rate;
pub(crate) mod report;
pub(crate) mod system;
#[cfg(test)]
mod tests;
pub(crate) mod threads;

use std::path::Path;

use armlet::arch::{Backend, Kernels};
use armlet::host::Pool;

use crate::args;
use crate::error::{Failure, print, print_json};
use crate::model::{kernels, resolve, with_model};
use crate::progress::steps;
use crate::pull;

use rate::Rate;
use report::{ModelReport, Report};
use system::System;

/// With as many other programs running, what is measured says little of the machine.
const BUSY: f64 = 0.7;

pub(crate) fn run(args: &args::Doctor) -> Result<(), Failure> {
    let root = Path::new("/");
    let (system, backend, cpus) = (System::read(root), kernels()?.backend(), Pool::cpus());
    // Without -m, a model that is there: none is downloaded for this.
    let path = match args.model.as_deref().or(args.by_position.as_deref()) {
        None if std::env::var_os("ARMLET_MODEL").is_none_or(|name| name.is_empty()) => pull::cached(pull::DEFAULT),
        model => Some(resolve(model)?),
    };
    let numbers = if args.no_measure { Vec::new() } else { measure::numbers(cpus) };
    let bar = steps(2 * numbers.len() as u64, "measuring");
    let done = || bar.inc(1);
    let mut known = pull::sizes();
    // First, because a model that cannot be run ends it.
    let model = path.map(|path| about_model(&path, &numbers, &mut known, &done)).transpose()?;
    let bandwidth = if args.no_measure { None } else { measure::bandwidth(cpus, system.free_ram, &done) };
    bar.finish_and_clear();

    let busy = system.load.filter(|load| *load >= BUSY && !args.keep);
    let threads = choose(&system, cpus, model.as_ref().map_or(&[], |model| &model.decode), busy);
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        page_bytes: rustix::param::page_size(),
        because: because(backend, std::env::var_os("ARMLET_CPU").is_some_and(|name| !name.is_empty())),
        advice: advice::advice(&system, backend),
        system,
        backend,
        bandwidth,
        model,
        threads,
        known,
    };
    if args.json { print_json(&report.json(), true) } else { print(report.text().as_bytes()) }
}

/// The model's file and how fast it decodes; the model joins those that are known.
fn about_model(
    path: &Path,
    numbers: &[usize],
    known: &mut Vec<(String, u64)>,
    done: &dyn Fn(),
) -> Result<ModelReport, Failure> {
    let absolute = path.canonicalize().unwrap_or(path.to_path_buf());
    // Before the file is mapped: what a program has mapped stays in memory.
    let read = if numbers.is_empty() { None } else { disk::read_rate(path).ok() };
    let of_model = args::Model {
        model: Some(path.to_path_buf()),
        by_position: None,
        threads: args::Threads { number: 1 },
        resident: args::Resident::default(),
        metadata: args::Metadata { override_kv: Vec::new() },
    };
    let decoding = with_model(&of_model, |loaded| measure::decoding(loaded, numbers, done))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    // Not twice.
    let bytes = path.metadata().map_or(0, |file| file.len());
    known.retain(|(_, known)| *known != bytes);
    known.insert(0, (name, decoding.token_bytes as u64));
    Ok(ModelReport {
        path: path.to_path_buf(),
        mount: disk::Mount::of(Path::new("/"), &absolute),
        read,
        decode: decoding.rates,
    })
}

/// Threads by default, and why; what was measured is kept for the other commands, unless so many other programs were running.
fn choose(system: &System, cpus: usize, decode: &[Rate], busy: Option<f64>) -> (usize, String) {
    let folders = threads::folders();
    let measured = threads::by_rates(decode);
    if let Some((threads, load)) = measured.zip(busy) {
        let why =
            format!("as measured, but not kept: other programs were running (load {load}); end them, or give --keep");
        return (threads, why);
    }
    if let Some(threads) = measured {
        let kept = folders.first().filter(|folder| threads::keep(folder, system, cpus, threads).is_ok());
        let note = match kept {
            Some(folder) if folder == Path::new(threads::OF_ALL) => ", and kept for all users of this machine",
            Some(_) => ", and kept for this machine",
            None => ", but not kept: the cache folder cannot be written",
        };
        return (threads, format!("as measured{note}"));
    }
    match folders.iter().find_map(|folder| threads::measured(folder, system, cpus)) {
        Some(threads) => (threads, "as measured earlier".into()),
        None => (threads::by_cores(system, cpus), "by the cores; with a model, doctor measures it".into()),
    }
}

/// Why a backend was chosen.
fn because(backend: Backend, is_asked_for: bool) -> String {
    if is_asked_for {
        return "ARMLET_CPU asks for it".into();
    }
    let better = match backend {
        Backend::Scalar if cfg!(target_arch = "aarch64") => "; neon would need NEON",
        Backend::Scalar if cfg!(target_arch = "x86_64") => "; avx2 would need AVX2, FMA and F16C",
        Backend::Neon => "; dotprod would need the dot product and FP16",
        Backend::Dotprod => "; i8mm would need I8MM",
        Backend::Avx2 => "; avx512 would need AVX-512 with VNNI",
        _ => "",
    };
    let runs: Vec<_> =
        Backend::ALL.into_iter().filter(|b| Kernels::for_backend(*b).is_some()).map(Backend::name).collect();
    format!("the best of those that this CPU runs ({}){better}", runs.join(", "))
}
