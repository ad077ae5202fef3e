//! How many threads run a model where nobody says it: measured by `armlet doctor` once for a machine, else told by its cores.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use armlet::host::Pool;

use super::rate::Rate;
use super::system::System;
use crate::atomic_file;
use crate::error::Failure;
use crate::pull;

/// Fewer threads are better where more are less than this much faster: the rest of the machine stays usable.
const WORTH: f64 = 1.03;

/// Where root's numbers are: for all users of a machine, also for services, which have no folder of their own.
pub(crate) const OF_ALL: &str = "/var/cache/armlet";

/// The number of threads for a model.
pub(crate) fn default() -> usize {
    let (system, cpus) = (System::read_cores(Path::new("/")), Pool::cpus());
    let measured = folders().iter().find_map(|folder| measured(folder, &system, cpus));
    measured.unwrap_or_else(|| by_cores(&system, cpus))
}

/// The folders that have numbers. They are written to the first.
pub(crate) fn folders() -> Vec<PathBuf> {
    let is_asked_for = std::env::var_os("ARMLET_CACHE").is_some_and(|name| !name.is_empty());
    places(pull::cache().ok(), is_asked_for, rustix::process::geteuid().is_root())
}

/// The cache folder alone if the environment asks for it; else a user's and that of all, of which root has the second only.
pub(crate) fn places(cache: Option<PathBuf>, is_asked_for: bool, is_root: bool) -> Vec<PathBuf> {
    let own = cache.filter(|_| is_asked_for || !is_root);
    let of_all = (!is_asked_for).then(|| OF_ALL.into());
    own.into_iter().chain(of_all).collect()
}

/// One for each CPU that this process may use, but for cores less than half as fast as the fastest: all wait for the last one
/// to end its share.
pub(crate) fn by_cores(system: &System, cpus: usize) -> usize {
    let allowed = || system.cores.iter().filter(|core| system.allows(core.number));
    let fastest = allowed().filter_map(|core| core.capacity).max().unwrap_or(0);
    let slow = allowed().filter(|core| core.capacity.is_some_and(|c| 2 * c < fastest)).count();
    // Where the system names no cores, or a quota allows for fewer, the number of CPUs is all that is known.
    let fast = Some(allowed().count() - slow).filter(|fast| *fast > 0);
    cpus.min(fast.unwrap_or(cpus)).max(1)
}

/// The number with the best rate, or the smallest whose rate is hardly worse; `None` if nothing was measured.
pub(crate) fn by_rates(rates: &[Rate]) -> Option<usize> {
    let best = rates.iter().map(|rate| rate.per_second).fold(0.0, f64::max);
    rates.iter().find(|rate| rate.per_second * WORTH >= best).map(|rate| rate.threads)
}

/// All that the measured number depends on: the cores, those that this process may use, and the quota of its cgroup.
fn machine(system: &System, cpus: usize) -> String {
    let cores: Vec<_> = system.cores.iter().map(|c| format!("{} {:?} {:?}", c.kind, c.capacity, c.max_mhz)).collect();
    let allowed = system.allowed.as_deref().unwrap_or("all");
    format!("{}; {allowed}; {cpus}; {}", cores.join(", "), std::env::var("ARMLET_CPU").unwrap_or_default())
}

/// Where a machine's number is: a file of its own, because machines may share a home folder.
fn file(folder: &Path, machine: &str) -> PathBuf {
    let mut hash = DefaultHasher::new();
    machine.hash(&mut hash);
    folder.join(format!("threads-{:016x}", hash.finish()))
}

/// The number that was measured for just this machine; `None` if there is none.
pub(crate) fn measured(folder: &Path, system: &System, cpus: usize) -> Option<usize> {
    let machine = machine(system, cpus);
    let text = std::fs::read_to_string(file(folder, &machine)).ok()?;
    let (threads, rest) = text.split_once('\n')?;
    let threads = threads.parse().ok().filter(|n| (1..=cpus).contains(n))?;
    (rest.strip_suffix('\n') == Some(machine.as_str())).then_some(threads)
}

/// Keeps a number for this machine, for whoever may read the folder.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn keep(folder: &Path, system: &System, cpus: usize, threads: usize) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, e))?;
    let machine = machine(system, cpus);
    let path = file(folder, &machine);
    let fail = |e| Failure::file(&path, e);
    atomic_file::replace_by(&path, |out| write!(out, "{threads}\n{machine}\n").map_err(fail))?;
    if folder == Path::new(OF_ALL) {
        for_all(folder, &path).map_err(fail)?;
    }
    Ok(())
}

/// Lets everybody read a file in a folder, whatever the umask has made of them.
pub(crate) fn for_all(folder: &Path, file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755))?;
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o644))
}
