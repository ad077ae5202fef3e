//! The launcher of the MPI library that is here, for `cargo xtask boards`: Open MPI's, or Hydra, which is MPICH's.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::process::outcome;

/// A job that hangs is stopped after this many seconds; the longest one takes 20, where nothing runs beside it.
pub(crate) const PATIENCE: &str = "200";
/// Open MPI's daemons find a cable pulled after 12 to 16 seconds, and a board gives up after ten.
const KEEPALIVE: [(&str, &str); 3] =
    [("oob_tcp_keepalive_time", "4"), ("oob_tcp_keepalive_intvl", "4"), ("oob_tcp_keepalive_probes", "3")];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Launcher {
    /// Open MPI before version 5, whose daemons take what the library takes, and from then on.
    Orte,
    Prrte,
    Hydra,
}

/// Which one `mpirun` is.
pub(crate) fn launcher() -> Launcher {
    static LAUNCHER: OnceLock<Launcher> = OnceLock::new();
    *LAUNCHER.get_or_init(|| {
        let said = outcome(Command::new("mpirun").arg("--version")).map(|output| output.stdout).unwrap_or_default();
        Launcher::of(&String::from_utf8_lossy(&said))
    })
}

impl Launcher {
    /// That with this answer to `--version`.
    fn of(said: &str) -> Self {
        let major = said.strip_prefix("mpirun (Open MPI) ").and_then(|version| version.split('.').next()?.parse().ok());
        match major {
            Some(..5) => Launcher::Orte,
            Some(5_u32..) => Launcher::Prrte,
            None => Launcher::Hydra,
        }
    }

    /// What has daemons look whether the others are there.
    pub(crate) fn keepalive(self) -> Vec<&'static str> {
        let option = match self {
            Launcher::Orte => "--mca",
            Launcher::Prrte => "--prtemca",
            Launcher::Hydra => return Vec::new(),
        };
        KEEPALIVE.iter().flat_map(|(name, value)| [option, name, value]).collect()
    }

    /// The variable in which a process finds its rank.
    pub(crate) fn rank(self) -> &'static str {
        if self == Launcher::Hydra { "PMI_RANK" } else { "OMPI_COMM_WORLD_RANK" }
    }

    /// Hosts of a file, whose commands an agent starts; only what goes through `eth0` counts.
    pub(crate) fn hosts(self, command: &mut Command, hosts: usize, file: &Path, agent: &Path) {
        match self {
            Launcher::Orte | Launcher::Prrte => {
                let agent_of = if self == Launcher::Orte { "plm_rsh_agent" } else { "plm_ssh_agent" };
                command.args(["--mca", agent_of]).arg(agent).arg("--hostfile").arg(file);
                command.args(["--map-by", "node", "-n", &hosts.to_string(), "--mca", "btl", "tcp,self"]);
                command.args(["--mca", "btl_tcp_if_include", "eth0", "--mca", "oob_tcp_if_include", "eth0"]);
            }
            Launcher::Hydra => {
                command.args(["-launcher", "rsh", "-launcher-exec"]).arg(agent).arg("-f").arg(file);
                command.args(["-iface", "eth0", "-ppn", "1", "-n", &hosts.to_string()]);
                // They are one machine, whose memory the library would find.
                command.env("MPIR_CVAR_NOLOCAL", "1").env("UCX_TLS", "tcp,self").env("UCX_NET_DEVICES", "eth0");
            }
        }
    }
}

/// The launcher's command; Open MPI refuses to run as root unless it is told to twice.
pub(crate) fn mpirun() -> Command {
    let mut command = Command::new("timeout");
    command.args([PATIENCE, "mpirun"]).stdin(Stdio::null());
    if launcher() != Launcher::Hydra {
        command.args(["--oversubscribe", "--bind-to", "none"]);
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_say_which_they_are() {
        let is = |said, expected| assert!(Launcher::of(said) == expected, "{said}");
        is("mpirun (Open MPI) 4.1.4\n\nReport bugs to", Launcher::Orte);
        is("mpirun (Open MPI) 5.0.7\n\nReport bugs to", Launcher::Prrte);
        is("HYDRA build details:\n    Version:    4.2.1\n", Launcher::Hydra);
    }
}
