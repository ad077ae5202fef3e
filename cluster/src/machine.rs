//! What a board says of itself, as far as several boards care.

use std::path::Path;
use std::process::Command;

use rustix::process::getppid;
use rustix::thread::sched_getaffinity;

/// Its name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A number that this board has drawn when it was switched on.
pub(crate) fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or_default()
}

/// Version of armlet: major, minor, patch.
pub(crate) fn version() -> [u16; 3] {
    let mut numbers = env!("CARGO_PKG_VERSION").split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

/// MiB of memory that programs may take without others being evicted.
pub fn available_mib() -> u32 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(u32::MAX, |kib| (kib >> 10) as u32)
}

/// CPUs that this process may use, and that the launcher's daemon may use, which started it: of a process that has fewer, the
/// launcher has chosen them. What else takes CPUs from both is none of its doing.
pub fn cpus() -> [u16; 2] {
    let may_use = |process| sched_getaffinity(process).map_or(1, |cpus| cpus.count() as u16);
    let own = may_use(None);
    [own, getppid().map_or(own, |daemon| may_use(Some(daemon)).max(own))]
}

/// A network interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// As `eth0`.
    pub name: String,
    /// Mbit per second, if it says.
    pub speed: Option<u32>,
    /// Whether it has no cable.
    pub is_wireless: bool,
    /// Whether Energy-Efficient Ethernet is enabled, if `ethtool` says.
    pub saves_energy: Option<bool>,
}

/// The interfaces to other boards.
pub fn links() -> Vec<Link> {
    let mut links = links_below(Path::new("/sys/class/net"));
    for link in &mut links {
        // Where a shell that ssh starts does not look.
        let said = ["ethtool", "/usr/sbin/ethtool"]
            .iter()
            .find_map(|program| Command::new(program).args(["--show-eee", &link.name]).output().ok());
        link.saves_energy = said.and_then(|said| eee(&String::from_utf8_lossy(&said.stdout)));
    }
    links
}

fn links_below(folder: &Path) -> Vec<Link> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut links: Vec<Link> = entries
        .filter_map(|entry| {
            let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
            // What is no device is a bridge, a tunnel, or the machine itself.
            let is_up = entry.path().join("device").exists() && read("operstate")?.trim() == "up";
            is_up.then(|| Link {
                name: entry.file_name().to_string_lossy().into_owned(),
                speed: read("speed").and_then(|speed| speed.trim().parse().ok()),
                is_wireless: entry.path().join("wireless").exists(),
                saves_energy: None,
            })
        })
        .collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links
}

/// What `ethtool --show-eee` says.
fn eee(said: &str) -> Option<bool> {
    let status = said.lines().find_map(|line| line.trim().strip_prefix("EEE status:"))?.trim();
    Some(status.starts_with("enabled"))
}

/// What should be changed on this board; `line` starts the boards.
pub(crate) fn to_fix(cpus: [u16; 2], links: &[Link], line: &str) -> Vec<String> {
    let mut fixes = Vec::new();
    if cpus[0] < cpus[1] {
        fixes.push(format!("the launcher has pinned it to {} of its {} CPUs: {line} …", cpus[0], cpus[1]));
    }
    for Link { name, speed, is_wireless, saves_energy } in links {
        if *saves_energy == Some(true) {
            fixes.push(format!(
                "{name} has Energy-Efficient Ethernet, which costs latency and drops links of Raspberry Pis: \
                 sudo ethtool --set-eee {name} eee off, or dtparam=eee=off in config.txt"
            ));
        }
        if let Some(speed) = speed.filter(|speed| *speed < 1000) {
            fixes.push(format!(
                "{name} has {speed} Mbit/s: a cable of four pairs and a gigabit switch, or --split layers"
            ));
        }
        // MPI takes all links that there are.
        match links.iter().find(|link| !link.is_wireless) {
            Some(wired) if *is_wireless => fixes.push(format!(
                "{name} is wireless, and {0} is not: --mca btl_tcp_if_include {0} --mca oob_tcp_if_include {0} (mpirun)",
                wired.name
            )),
            None if *is_wireless => fixes.push(format!("{name} is wireless: a cable, or --split layers")),
            _ => {}
        }
    }
    fixes
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CpuSet, sched_setaffinity};

    use super::*;

    /// A process that was given one CPU by the one that started it, and its own child, to which nobody did that.
    #[test]
    fn who_has_taken_cpus_is_known() {
        let all = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
        let [own, daemons] = cpus();
        assert!(own > 0 && daemons >= own && available_mib() > 0 && boot() > 0 && boot() == boot());
        std::thread::scope(|scope| {
            // Of a thread alone; the process that started this one is not asked.
            let pinned = scope.spawn(|| {
                sched_setaffinity(None, &one).unwrap();
                cpus()
            });
            assert_eq!(pinned.join().unwrap(), [1, daemons]);
        });
    }

    #[test]
    fn ethtool_is_understood() {
        let said = "EEE settings for eth0:\n\tEEE status: enabled - inactive\n\tTx LPI: 0 (us)\n";
        assert_eq!(eee(said), Some(true));
        assert_eq!(eee(&said.replace("enabled - inactive", "disabled")), Some(false));
        assert_eq!(eee("\tEEE status: not supported\n"), Some(false));
        assert_eq!(eee("netlink error: Operation not supported\n"), None);
    }

    #[test]
    fn only_what_costs_something_is_to_be_fixed() {
        let link = Link { name: "eth0".into(), speed: Some(1000), is_wireless: false, saves_energy: Some(false) };
        assert_eq!(to_fix([4, 4], std::slice::from_ref(&link), "mpirun"), Vec::<String>::new());
        let poor = Link { speed: Some(100), saves_energy: Some(true), ..link.clone() };
        let radio = Link { name: "wlan0".into(), speed: None, is_wireless: true, saves_energy: None };
        let fixes = to_fix([1, 4], &[poor, radio.clone()], "mpirun");
        let parts = ["1 of its 4 CPUs: mpirun", "eee off", "eth0 has 100 Mbit/s", "btl_tcp_if_include eth0"];
        assert!(to_fix([4, 4], &[radio], "mpirun")[0].contains("wlan0 is wireless: a cable"));
        assert_eq!(fixes.len(), parts.len());
        assert!(fixes.iter().zip(parts).all(|(fix, part)| fix.contains(part)), "{fixes:?}");
    }
}
