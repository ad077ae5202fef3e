//! How the launcher must be told to start the boards.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::card::Card;

/// What tells Open MPI's daemons to look whether they are there. Each of them ends its ranks when the others are gone.
const KEEPALIVE: &str = "oob_tcp_keepalive_time";
/// Seconds between probes, and how many must be lost.
const PROBES: [u64; 2] = [2, 3];

/// Seconds of silence after which the daemons look: a little more than the boards' own patience, so that theirs is the
/// first message.
fn seconds(patience: Duration) -> u64 {
    patience.as_secs() + 2
}

/// The line that starts the boards of a file `boards`.
pub fn line(patience: Duration) -> String {
    let ([interval, probes], time) = (PROBES, seconds(patience));
    format!(
        "mpirun --hostfile boards --map-by node --bind-to none --mca {KEEPALIVE} {time} \
         --mca oob_tcp_keepalive_intvl {interval} --mca oob_tcp_keepalive_probes {probes} armlet-mpi"
    )
}

/// Why boards with these cards must not be started so; `library` is the version of the MPI library, and `env` the
/// environment. Open MPI looks after 300 s whether a host is still there, and until then a job without it does not end.
/// Its version 5 may be told by the environment alone.
///
/// # Errors
/// What to start instead.
pub fn check(
    cards: &[Card],
    library: &str,
    patience: Duration,
    env: impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let hosts: BTreeSet<&str> = cards.iter().map(|card| card.host.as_str()).collect();
    if hosts.len() < 2 || !library.starts_with("Open MPI") {
        return Ok(());
    }
    let set = ["OMPI_MCA_", "PRTE_MCA_"].iter().find_map(|prefix| env(&format!("{prefix}{KEEPALIVE}")));
    match set.and_then(|value| value.parse::<u64>().ok()).filter(|time| *time > 0 && *time <= 60) {
        Some(_) => Ok(()),
        None => Err(format!(
            "{} boards, and the launcher would not notice within minutes that one is gone ({KEEPALIVE} is not set, or \
             not between 1 and 60): {} …",
            hosts.len(),
            line(patience)
        )),
    }
}

/// Whether this process is the one of its job to say what concerns all; known before the job is joined.
pub fn is_first() -> bool {
    let ranks = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"];
    ranks.iter().find_map(|name| std::env::var(name).ok()).is_none_or(|rank| rank == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(hosts: &[&str]) -> Vec<Card> {
        hosts.iter().map(|host| Card { host: (*host).into(), ..Card::default() }).collect()
    }

    #[test]
    fn several_hosts_need_keepalive() {
        const OPEN_MPI: &str = "Open MPI v4.1.4, package: Debian OpenMPI";
        let patience = Duration::from_secs(10);
        let with = |value: Option<&'static str>| {
            move |name: &str| value.filter(|_| name == "OMPI_MCA_oob_tcp_keepalive_time").map(String::from)
        };
        let check = |hosts: &[&str], library: &str, value| check(&cards(hosts), library, patience, with(value));
        assert_eq!(check(&["b0", "b0"], OPEN_MPI, None), Ok(()));
        assert_eq!(check(&["b0", "b1"], "MPICH Version: 4.0.2", None), Ok(()));
        assert_eq!(check(&["b0", "b1"], OPEN_MPI, Some("12")), Ok(()));
        for value in [None, Some("0"), Some("300"), Some("x")] {
            let why = check(&["b0", "b1", "b1"], OPEN_MPI, value).unwrap_err();
            assert!(why.starts_with("2 boards, and the launcher would not notice"), "{why}");
            assert!(why.contains("--bind-to none --mca oob_tcp_keepalive_time 12 "), "{why}");
        }
    }

    /// The launcher's message comes after the boards' own.
    #[test]
    fn the_launcher_is_more_patient_than_the_boards() {
        assert!(line(Duration::from_secs(30)).contains("oob_tcp_keepalive_time 32 "));
    }
}
