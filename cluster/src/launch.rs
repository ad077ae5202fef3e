//! How the launcher must be told to start the boards.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::card::Card;

/// What tells Open MPI's daemons to look whether they are there. Each of them ends its ranks when the others are gone.
const KEEPALIVE: &str = "oob_tcp_keepalive_time";
const INTERVAL: &str = "oob_tcp_keepalive_intvl";
const LOST: &str = "oob_tcp_keepalive_probes";
/// Seconds of silence after which a daemon probes, and how many probes must be lost.
const IDLE: u64 = 4;
const PROBES: u64 = 3;
/// What they do if they are told nothing else but after how long a silence to probe.
const DEFAULTS: (u64, u64) = (20, 9);
/// Seconds that are not minutes.
const LONGEST: u64 = 60;

/// Seconds between probes. The daemons may have been silent for long when a cable is pulled, so the probes alone take a
/// little more than the boards' own patience: theirs is then the first message.
fn interval(patience: Duration) -> u64 {
    (patience.as_secs() + 2).div_ceil(PROBES)
}

/// The major version of Open MPI, if this is its version. Since the fifth its daemons are of a project of their own, PRRTE.
fn open_mpi(library: &str) -> Option<u32> {
    library.strip_prefix("Open MPI v")?.split('.').next()?.parse().ok()
}

fn has_prrte(library: &str) -> bool {
    open_mpi(library).is_some_and(|major| major >= 5)
}

/// The line that starts the boards of a file `boards`, with an MPI library of this version.
pub fn line(library: &str, patience: Duration) -> String {
    if !library.starts_with("Open MPI") {
        return "mpirun -f boards -iface eth0 -ppn 1 armlet-mpi".into();
    }
    let interval = interval(patience);
    let option = if has_prrte(library) { "--prtemca" } else { "--mca" };
    format!(
        "mpirun --hostfile boards --map-by node --bind-to none {option} {KEEPALIVE} {IDLE} \
         {option} {INTERVAL} {interval} {option} {LOST} {PROBES} armlet-mpi"
    )
}

/// After how many seconds the launcher notices that a host is gone, if it was told to look. One of its daemons has started
/// this process: its command line says so, or the environment. That of PRRTE's own settings ends with the daemon, and what
/// is set for Open MPI does not reach PRRTE.
pub fn keepalive(library: &str) -> Option<u64> {
    let of_daemon = |file: &str| {
        let words = std::fs::read(format!("/proc/{}/{file}", std::os::unix::process::parent_id()));
        String::from_utf8_lossy(&words.unwrap_or_default()).into_owned()
    };
    let (line, environment) = (of_daemon("cmdline"), of_daemon("environ"));
    let set = |name: &str| std::env::var(format!("OMPI_MCA_{name}")).ok()?.parse().ok();
    noticed(|name| {
        in_line(&line, name).or_else(|| if has_prrte(library) { in_environment(&environment, name) } else { set(name) })
    })
}

fn noticed(told: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let time = told(KEEPALIVE).filter(|time| *time > 0)?;
    let (interval, lost) = (told(INTERVAL).unwrap_or(DEFAULTS.0), told(LOST).unwrap_or(DEFAULTS.1));
    Some(time.saturating_add(interval.saturating_mul(lost)))
}

/// What a command line, whose words end with a NUL, says of a parameter.
fn in_line(line: &str, name: &str) -> Option<u64> {
    let mut words = line.split('\0');
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

/// What the environment of a daemon of PRRTE, whose words end with a NUL, says of a parameter.
fn in_environment(environment: &str, name: &str) -> Option<u64> {
    let mut words = environment.split('\0').filter_map(|word| word.strip_prefix("PRTE_MCA_")?.strip_prefix(name));
    words.find_map(|rest| rest.strip_prefix('=')?.parse().ok())
}

/// Whether the launcher ends a job at once that a board aborts while a host is gone. Open MPI's before version 5 hangs. Later ones end
/// it when they notice themselves, and only so say by their status that it has failed; that of MPICH notices nothing.
pub(crate) fn ends_aborted(library: &str) -> bool {
    open_mpi(library).is_none_or(|major| major >= 5)
}

/// Why boards with these cards must not be started so; `library` is the version of the MPI library, and `keepalive` after
/// how many seconds the launcher notices. Open MPI looks after 300 s whether a host is still there, and until then a job without it does
/// not end.
///
/// # Errors
/// What to start instead.
pub fn check(cards: &[Card], library: &str, patience: Duration, keepalive: Option<u64>) -> Result<(), String> {
    let hosts: BTreeSet<&str> = cards.iter().map(|card| card.host.as_str()).collect();
    let longest = LONGEST.max(2 * patience.as_secs());
    let is_told = keepalive.is_some_and(|time| time <= longest);
    if hosts.len() < 2 || !library.starts_with("Open MPI") || is_told {
        return Ok(());
    }
    Err(format!(
        "{} boards, and the launcher would not notice within minutes that one is gone ({KEEPALIVE}, {INTERVAL} and \
         {LOST} are not set on its command line or in its environment, or not short): {} …",
        hosts.len(),
        line(library, patience)
    ))
}

/// Whether this process is the one of its job to say what concerns all; known before the job is joined.
pub fn is_first() -> bool {
    rank().is_none_or(|rank| rank == "0")
}

/// How a board of this host is called in messages before the job is joined.
pub fn named(host: &str) -> String {
    rank().map_or_else(|| format!("board {host}"), |rank| format!("board {host} (rank {rank})"))
}

fn rank() -> Option<String> {
    ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"].iter().find_map(|name| std::env::var(name).ok())
}

/// Has this process end with the daemon that has started it: that of Open MPI 5 may end because a host is gone, and leave it.
pub(crate) fn end_with_daemon() {
    if rank().is_some() {
        // Where the system knows no such thing, it stays as it was.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(hosts: &[&str]) -> Vec<Card> {
        hosts.iter().map(|host| Card { host: (*host).into(), ..Card::default() }).collect()
    }

    const OPEN_MPI: [&str; 2] =
        ["Open MPI v4.1.4, package: Debian OpenMPI", "Open MPI v5.0.7, package: Debian OpenMPI"];

    #[test]
    fn several_hosts_need_keepalive() {
        let patience = Duration::from_secs(10);
        let check = |hosts: &[&str], library: &str, keepalive| check(&cards(hosts), library, patience, keepalive);
        assert_eq!(check(&["b0", "b0"], OPEN_MPI[0], None), Ok(()));
        assert_eq!(check(&["b0", "b1"], "MPICH Version: 4.0.2", None), Ok(()));
        assert_eq!(check(&["b0", "b1"], OPEN_MPI[0], Some(12)), Ok(()));
        for keepalive in [None, Some(192)] {
            let why = check(&["b0", "b1", "b1"], OPEN_MPI[0], keepalive).unwrap_err();
            assert!(why.starts_with("2 boards, and the launcher would not notice"), "{why}");
            assert!(why.contains("--bind-to none --mca oob_tcp_keepalive_time 4 "), "{why}");
        }
    }

    /// The launcher's message comes after the boards' own.
    #[test]
    fn the_launcher_is_more_patient_than_the_boards() {
        let with = |library, seconds| line(library, Duration::from_secs(seconds));
        assert!(with(OPEN_MPI[0], 10).contains("--mca oob_tcp_keepalive_intvl 4 --mca oob_tcp_keepalive_probes 3 "));
        assert!(with(OPEN_MPI[1], 30).contains("--prtemca oob_tcp_keepalive_intvl 11 "));
        assert_eq!(with("MPICH Version:      4.2.1", 10), "mpirun -f boards -iface eth0 -ppn 1 armlet-mpi");
        assert!((1..3600).all(|seconds| PROBES * interval(Duration::from_secs(seconds)) > seconds + 1));
    }

    #[test]
    fn who_aborts_waits_for_one_launcher_alone() {
        let ends = [OPEN_MPI[0], OPEN_MPI[1], "MPICH Version:      4.2.1"].map(ends_aborted);
        assert_eq!(ends, [false, true, true]);
    }

    /// The command lines of daemons of versions 4 and 5.
    #[test]
    fn what_a_daemon_was_told_is_known() {
        let noticed = |line: &str| {
            let line = line.replace(' ', "\0");
            noticed(|name| in_line(&line, name))
        };
        let daemon = "orted -mca ess env --mca oob_tcp_keepalive_intvl 4 --mca oob_tcp_keepalive_time 12 ";
        assert_eq!(noticed(&format!("{daemon}--mca oob_tcp_keepalive_probes 3 ")), Some(24));
        // In its environment, in which it has more.
        let set = "HOME=/ PRTE_MCA_oob_tcp_keepalive_time=5 OMPI_MCA_oob_tcp_keepalive_intvl=4 ".replace(' ', "\0");
        assert_eq!(super::noticed(|name| in_environment(&set, name)), Some(185));
        // With the rest as it always is, minutes.
        assert_eq!(noticed("prterun -n 1 --prtemca oob_tcp_keepalive_time 12 sh "), Some(192));
        let off = "mpirun --mca oob_tcp_keepalive_time 0 ";
        assert_eq!(["", "mpirun -n 2 ", "mpirun oob_tcp_keepalive_time", off].map(noticed), [None; 4]);
        // What is asked for suffices.
        for seconds in [1, 10, 60, 3600] {
            let patience = Duration::from_secs(seconds);
            let told = noticed(&line(OPEN_MPI[0], patience));
            assert_eq!(super::check(&cards(&["b0", "b1"]), OPEN_MPI[0], patience, told), Ok(()));
        }
    }
}
