//! Hosts for `cargo xtask boards --deep`: network namespaces on a bridge, whose cables have a rate and can be pulled.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::board_program::{QUESTION, options};
use crate::boards::{End, Job, built, failed, succeeded};
use crate::dist::at;
use crate::launcher::{Launcher, launcher, mpirun};
use crate::model;
use crate::process::{Failed, Steps, outcome, output, root, say};
use crate::setup::works;

/// Hosts are `armlet0`, `armlet1` …, so are their namespaces; and their cables' other ends are `armlet-p0` ….
const NAME: &str = "armlet";
const BRIDGE: &str = "armlet-br";
const HOSTS: usize = 3;
/// What an exchange has on the wire beside its payload, and what a job has at its start: bytes.
const EXCHANGE: u64 = 158;
const START: u64 = 8_000;
/// In hundredths of the work: the most that a step may take in which a piece travels.
const OVERLAP: u32 = 110;
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    if let Some(why) = unavailable() {
        say(format!("skipped, because {why}: bytes on the wire, work beside a transfer, a cable that is pulled"));
        return Ok(());
    }
    let mut network = None;
    steps.step("hosts at 1 Gbit/s", || {
        network = Some(Network::new()?);
        Ok(())
    })?;
    let Some(network) = network else { return Ok(()) };
    steps.step("hosts without keepalive", || {
        let said = outcome(network.mpirun(2).arg(built("examples/exchanges")).args(["cards", "none"]))?;
        match launcher() {
            Launcher::Hydra => succeeded("the job", &said).map(drop),
            _ => failed("the job", &said, 1, "oob_tcp_keepalive_time 4 "),
        }
    })?;
    steps.step("bytes on the wire", || network.wire())?;
    steps.step("bytes of an answer on the wire", || network.answer())?;
    steps.step("work beside a transfer", || network.overlap())?;
    steps.step("a cable is pulled", || network.pulled("passes"))?;
    // MPICH's launcher does not look.
    if launcher() == Launcher::Hydra {
        return Ok(());
    }
    steps.step("a cable is pulled while a board waits for a command", || network.pulled("waits"))
}

/// What keeps this machine from having hosts.
fn unavailable() -> Option<&'static str> {
    let has = |script: &str| works(&["sh", "-c", script]);
    let probe = "ip netns add armlet-probe && ip -n armlet-probe link set lo up && \
                 tc -n armlet-probe qdisc add dev lo root tbf rate 1gbit burst 3200 latency 50ms; \
                 result=$?; ip netns del armlet-probe; exit $result";
    match () {
        () if !has("test $(id -u) = 0") => Some("namespaces need root"),
        () if !has("command -v ip && command -v tc && command -v unshare") => Some("there is no iproute2"),
        () if !has(probe) => Some("the kernel has no network namespaces, or no token bucket"),
        () => None,
    }
}

/// The hosts, which are gone when this is dropped.
struct Network {
    hostfile: PathBuf,
    /// Starts a command on a host, as `ssh` would.
    agent: PathBuf,
}

impl Network {
    fn new() -> Result<Self, Failed> {
        let folder = root().join("target/boards");
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let network = Network { hostfile: folder.join("hosts"), agent: folder.join("agent") };
        // What a run before this left, if it was stopped.
        remove();
        let names: String = (0..HOSTS).map(|i| format!("10.77.0.{} {NAME}{i}\n", i + 1)).collect();
        shell(&format!("ip link add {BRIDGE} type bridge; ip link set {BRIDGE} up"))?;
        for i in 0..HOSTS {
            let (host, port, address) = (format!("{NAME}{i}"), format!("{NAME}-p{i}"), i + 1);
            let shape = "root tbf rate 1gbit burst 3200 latency 50ms";
            shell(&format!(
                "ip netns add {host}; ip link add {port} type veth peer name eth0 netns {host}; \
                 ip link set {port} master {BRIDGE} up; ip -n {host} link set lo up; \
                 ip -n {host} addr add 10.77.0.{address}/24 dev eth0; ip -n {host} link set eth0 up; \
                 tc -n {host} qdisc add dev eth0 {shape}; tc qdisc add dev {port} {shape}"
            ))?;
            let etc = PathBuf::from("/etc/netns").join(&host);
            fs::create_dir_all(&etc).map_err(at(&etc))?;
            fs::write(etc.join("hosts"), format!("127.0.0.1 localhost\n{names}")).map_err(at(&etc))?;
        }
        let hosts: String = (0..HOSTS).map(|i| format!("{NAME}{i}\n")).collect();
        fs::write(&network.hostfile, hosts).map_err(at(&network.hostfile))?;
        let agent = "#!/bin/sh\nhost=$1; shift\nexec ip netns exec $host unshare -u sh -c \"hostname $host; $*\"\n";
        fs::write(&network.agent, agent).map_err(at(&network.agent))?;
        shell(&format!("chmod 755 '{}'", network.agent.display()))?;
        Ok(network)
    }

    /// The launcher on the first host, for so many of them. Only what goes through the cables counts.
    fn mpirun(&self, hosts: usize) -> Command {
        let mut command = Command::new("ip");
        let name = format!("hostname {NAME}0; exec \"$@\"");
        command.args(["netns", "exec", &format!("{NAME}0"), "unshare", "-u", "sh", "-c", &name, "sh"]);
        let inner = mpirun();
        command.arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        launcher().hosts(&mut command, hosts, &self.hostfile, &self.agent);
        command
    }

    /// Payload is most of what is on the wire: the rest is within 2 % and as much as an exchange has.
    fn wire(&self) -> Result<(), Failed> {
        let (bytes, rounds) = (1152, 2000);
        let sent = |rounds: u64| {
            let before = sent_by(1)?;
            let mut command = self.mpirun(2);
            command.arg(built("examples/exchanges")).args(["gather", &bytes.to_string(), &rounds.to_string()]);
            let said = succeeded("the job", &outcome(&mut command)?)?;
            let counted = format!("board 1: {rounds} exchanges, {} bytes sent", bytes * rounds);
            if !said.contains(&counted) {
                return Err(Failed(format!("not \"{counted}\": {said}")));
            }
            Ok(sent_by(1)? - before)
        };
        let (none, all) = (sent(0)?, sent(rounds)?);
        say(format!("    {none} bytes for an empty job"));
        is_payload(rounds, bytes * rounds, all.saturating_sub(none))
    }

    /// So is what the program counts of an answer: of a long one without a short one.
    fn answer(&self) -> Result<(), Failed> {
        let sent = |tokens: u64| {
            let before = sent_by(1)?;
            let mut command = self.mpirun(2);
            command.args(launcher().keepalive()).arg(built("armlet-mpi")).args(options("rows", tokens, QUESTION));
            let ended = outcome(command.args(["--ignore-eos", "--count", "-m"]).arg(model::shipped()?))?;
            succeeded("the job", &ended)?;
            let wire = sent_by(1)? - before;
            let said = String::from_utf8_lossy(&ended.stderr);
            let counts = said.split_once("(rank 1): ").map(|(_, counts)| counts.split(' ').flat_map(str::parse::<u64>));
            match counts.into_iter().flatten().collect::<Vec<_>>()[..] {
                [exchanges, bytes, ..] => Ok([exchanges, bytes, wire]),
                _ => Err(Failed(format!("no counts: {said}"))),
            }
        };
        let (short, long) = (sent(4)?, sent(40)?);
        let [exchanges, bytes, wire] = [0, 1, 2].map(|i| long[i].saturating_sub(short[i]));
        is_payload(exchanges, bytes, wire)
    }

    /// A piece travels while a board works, if the work polls.
    fn overlap(&self) -> Result<(), Failed> {
        let step = |polls: &str| {
            let mut command = self.mpirun(2);
            let said = outcome(command.arg(built("examples/exchanges")).args(["overlap", polls]))?;
            let said = succeeded("the job", &said)?;
            said.trim().parse::<u32>().map_err(|e| Failed(format!("{said:?}: {e}")))
        };
        let (without, with) = (step("0")?, step("10")?);
        say(format!("    a step takes {with} % of its work, and {without} % without polls"));
        if with <= OVERLAP { Ok(()) } else { Err(Failed(format!("a step takes {with} % of its work"))) }
    }

    /// The last host's cable is pulled: all ends, also on that host. Boards that exchange say it first; a board that waits
    /// for a command is ended by the launcher.
    fn pulled(&self, what: &str) -> Result<(), Failed> {
        let mut command = self.mpirun(HOSTS);
        command.args(launcher().keepalive()).arg(built("examples/exchanges")).args([what, "60"]);
        let job = Job::start(&mut command, HOSTS)?;
        // The daemons have been silent for long.
        std::thread::sleep(Duration::from_secs(3));
        let port = format!("{NAME}-p{}", HOSTS - 1);
        shell(&format!("ip link set {port} down"))?;
        let ended = job.end();
        // The bridge forwards nothing before it has seen that.
        let is_up = format!("grep -qx up /sys/class/net/{port}/operstate");
        shell(&format!(
            "ip link set {port} up; for i in $(seq 100); do {is_up} && break; sleep 0.1; done; {is_up}; sleep 1"
        ))?;
        let End { status, errors, seconds, all } = ended?;
        let last = HOSTS - 1;
        let why = format!(
            "board {NAME}{last} (rank {last}) has not answered for 10 s; the conversation is kept up to token "
        );
        let line = errors.lines().find(|line| line.contains(&why)).unwrap_or_default();
        say(format!("    the job ended after {seconds:.1} s, its last process after {all:.1} s {line}"));
        let said = what != "passes" || !line.is_empty();
        // PRRTE does not say that it has failed, unless a board has aborted it.
        let has_failed = !status.success() || (launcher() == Launcher::Prrte && what == "waits");
        if said && has_failed { Ok(()) } else { Err(Failed(format!("{status}: {errors}"))) }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove();
    }
}

/// What so many exchanges of so many bytes have on the wire.
fn is_payload(exchanges: u64, bytes: u64, wire: u64) -> Result<(), Failed> {
    say(format!("    {exchanges} exchanges of {bytes} bytes, {wire} on the wire"));
    let most = bytes + bytes / 50 + EXCHANGE * exchanges + START;
    if wire >= bytes && wire <= most { Ok(()) } else { Err(Failed(format!("{wire} bytes, not {bytes} to {most}"))) }
}

/// Removes the hosts that are there.
fn remove() {
    for i in 0..HOSTS {
        let (host, port) = (format!("{NAME}{i}"), format!("{NAME}-p{i}"));
        let script = format!("ip netns del {host}; ip link del {port}; rm -rf /etc/netns/{host}");
        let _ = outcome(Command::new("sh").args(["-c", &script]));
    }
    let _ = outcome(Command::new("ip").args(["link", "del", BRIDGE]));
}

/// Bytes that a host has sent.
fn sent_by(host: usize) -> Result<u64, Failed> {
    // The namespace's own files: `ip netns exec` mounts them.
    let (host, file) = (format!("{NAME}{host}"), "/sys/class/net/eth0/statistics/tx_bytes");
    let said = output(Command::new("ip").args(["netns", "exec", &host, "cat", file]))?;
    said.trim().parse().map_err(|e| Failed(format!("{said:?}: {e}")))
}

/// Runs commands, all of which must go well.
fn shell(script: &str) -> Result<(), Failed> {
    output(Command::new("sh").args(["-ec", script])).map(drop)
}
