//! What Linux says of a machine in `/proc`, `/sys` and `/boot`.
//!
//! Everything is read below a root folder, so that tests can give the files of other machines. What a machine does not say is
//! left out: nothing here fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A CPU that Linux runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Core {
    pub(crate) number: usize,
    /// The name of its core, as `Cortex-A76`; of a PC that of the processor.
    pub(crate) kind: String,
    /// Its speed as the scheduler sees it; 1024 is that of the fastest.
    pub(crate) capacity: Option<u32>,
    /// The highest clock that the kernel sets, in MHz.
    pub(crate) max_mhz: Option<u32>,
    pub(crate) governor: Option<String>,
}

/// A line of the Raspberry Pi's `config.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// A machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct System {
    /// The board's name.
    pub(crate) board: Option<String>,
    /// The kernel's name and release, as `Linux 6.12.25+rpt-rpi-2712`.
    pub(crate) kernel: Option<String>,
    /// The kernel's architecture, if it says one.
    pub(crate) kernel_arch: Option<String>,
    pub(crate) cores: Vec<Core>,
    /// Features of the CPU that kernels are written for.
    pub(crate) features: Vec<&'static str>,
    /// CPUs that this process may use, as the kernel writes them: `0-3`.
    pub(crate) allowed: Option<String>,
    /// Programs that were running in the last minute, on average.
    pub(crate) load: Option<f64>,
    /// The highest temperature of a sensor, in °C.
    pub(crate) temperature: Option<f64>,
    /// The flags of a Raspberry Pi's firmware.
    pub(crate) throttled: Option<u32>,
    /// Bytes.
    pub(crate) ram: Option<u64>,
    /// Bytes that programs can have without swapping.
    pub(crate) free_ram: Option<u64>,
    /// Where a Raspberry Pi's settings are, and those that change its speed.
    pub(crate) config: Option<(PathBuf, Vec<Setting>)>,
    /// Nodes of memory.
    pub(crate) memory_nodes: Option<usize>,
}

impl System {
    /// Reads what is said below `root`, which is `/` for this machine.
    pub(crate) fn read(root: &Path) -> Self {
        let info = text(root, "proc/cpuinfo").unwrap_or_default();
        let memory = text(root, "proc/meminfo").unwrap_or_default();
        let board = board(root, &info);
        System {
            kernel: kernel(root),
            kernel_arch: text(root, "proc/sys/kernel/arch"),
            features: features(&info),
            load: text(root, "proc/loadavg").and_then(|load| load.split(' ').next()?.parse().ok()),
            temperature: temperature(root),
            throttled: throttled(root),
            ram: bytes(&memory, "MemTotal"),
            free_ram: bytes(&memory, "MemAvailable"),
            memory_nodes: memory_nodes(root),
            config: config(root, board.as_deref()),
            board,
            ..Self::read_cores(root)
        }
    }

    /// The cores, and which of them this process may use: no more than a command needs that runs a model.
    pub(crate) fn read_cores(root: &Path) -> Self {
        System {
            cores: cores(root, &text(root, "proc/cpuinfo").unwrap_or_default()),
            allowed: text(root, "proc/self/status").and_then(|status| field(&status, "Cpus_allowed_list")),
            ..Self::default()
        }
    }

    /// CPUs of each kind, the fastest kind first.
    pub(crate) fn kinds(&self) -> Vec<Vec<&Core>> {
        let mut kinds: BTreeMap<_, Vec<&Core>> = BTreeMap::new();
        for core in &self.cores {
            let speed = (core.capacity.unwrap_or(0), core.max_mhz.unwrap_or(0));
            kinds.entry((std::cmp::Reverse(speed), &core.kind)).or_default().push(core);
        }
        kinds.into_values().collect()
    }

    /// Whether this process may use a CPU.
    pub(crate) fn allows(&self, cpu: usize) -> bool {
        self.allowed.as_deref().is_none_or(|list| listed(list, cpu))
    }
}

/// Whether a number is in a list as the kernel writes them: `0-3,6`.
fn listed(list: &str, number: usize) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = first.trim().parse::<usize>().ok().zip(last.trim().parse().ok());
        bounds.is_some_and(|(first, last)| (first..=last).contains(&number))
    })
}

/// What a file says, without the NUL or line end behind it; `None` if that is nothing.
fn text(root: &Path, path: &str) -> Option<String> {
    let bytes = std::fs::read(root.join(path)).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_string())
}

fn number<T: std::str::FromStr>(root: &Path, path: &str) -> Option<T> {
    text(root, path)?.parse().ok()
}

/// What stands behind `key:` in a line of its own.
fn field(text: &str, key: &str) -> Option<String> {
    let of = |line: &str| line.split_once(':').filter(|(k, _)| k.trim() == key).map(|(_, v)| v.trim().to_string());
    text.lines().find_map(of).filter(|value| !value.is_empty())
}

fn bytes(meminfo: &str, key: &str) -> Option<u64> {
    field(meminfo, key)?.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn board(root: &Path, info: &str) -> Option<String> {
    let dmi = || text(root, "sys/devices/virtual/dmi/id/product_name");
    text(root, "proc/device-tree/model").or_else(|| field(info, "Model")).or_else(dmi)
}

fn kernel(root: &Path) -> Option<String> {
    let part = |name: &str| text(root, &format!("proc/sys/kernel/{name}"));
    Some(format!("{} {}", part("ostype")?, part("osrelease")?))
}

fn cores(root: &Path, info: &str) -> Vec<Core> {
    let folder = "sys/devices/system/cpu";
    let describe = |number: usize, about: &str| {
        let cpu = format!("{folder}/cpu{number}");
        let khz = self::number::<u32>(root, &format!("{cpu}/cpufreq/cpuinfo_max_freq"));
        Core {
            number,
            kind: kind(about),
            capacity: self::number(root, &format!("{cpu}/cpu_capacity")),
            max_mhz: khz.map(|khz| khz / 1000),
            governor: text(root, &format!("{cpu}/cpufreq/scaling_governor")),
        }
    };
    // One paragraph for each; kernels for ARM add one for the board.
    let paragraphs = info.split("\n\n").filter_map(|about| Some((field(about, "processor")?.parse().ok()?, about)));
    paragraphs.map(|(number, about)| describe(number, about)).collect()
}

/// The name of a core, from its paragraph of `/proc/cpuinfo`.
fn kind(about: &str) -> String {
    let hex = |key| field(about, key).and_then(|v| u32::from_str_radix(v.trim_start_matches("0x"), 16).ok());
    match (hex("CPU implementer"), hex("CPU part")) {
        (Some(0x41), Some(part)) => ARM_PARTS
            .iter()
            .find(|(id, _)| *id == part)
            .map_or_else(|| format!("Arm part {part:#05x}"), |(_, name)| (*name).to_string()),
        (Some(maker), Some(part)) => format!("implementer {maker:#04x}, part {part:#05x}"),
        _ => field(about, "model name").unwrap_or_else(|| "unknown".into()),
    }
}

/// Part numbers of Arm's cores, from the register MIDR_EL1 of their manuals.
const ARM_PARTS: [(u32, &str); 24] = [
    (0xd03, "Cortex-A53"),
    (0xd04, "Cortex-A35"),
    (0xd05, "Cortex-A55"),
    (0xd07, "Cortex-A57"),
    (0xd08, "Cortex-A72"),
    (0xd09, "Cortex-A73"),
    (0xd0a, "Cortex-A75"),
    (0xd0b, "Cortex-A76"),
    (0xd0c, "Neoverse N1"),
    (0xd0d, "Cortex-A77"),
    (0xd40, "Neoverse V1"),
    (0xd41, "Cortex-A78"),
    (0xd44, "Cortex-X1"),
    (0xd46, "Cortex-A510"),
    (0xd47, "Cortex-A710"),
    (0xd48, "Cortex-X2"),
    (0xd49, "Neoverse N2"),
    (0xd4b, "Cortex-A78C"),
    (0xd4d, "Cortex-A715"),
    (0xd4e, "Cortex-X3"),
    (0xd4f, "Neoverse V2"),
    (0xd80, "Cortex-A520"),
    (0xd81, "Cortex-A720"),
    (0xd82, "Cortex-X4"),
];

/// Features that decide which kernels run: their names in `/proc/cpuinfo`, and those that programmers use.
const FEATURES: [(&str, &str); 11] = [
    ("asimd", "NEON"),
    ("asimdhp", "FP16"),
    ("asimddp", "dot product"),
    ("i8mm", "I8MM"),
    ("sve", "SVE"),
    ("atomics", "LSE"),
    ("avx2", "AVX2"),
    ("fma", "FMA"),
    ("f16c", "F16C"),
    ("avx512f", "AVX-512"),
    ("avx512_vnni", "AVX-512 VNNI"),
];

fn features(info: &str) -> Vec<&'static str> {
    let flags = field(info, "Features").or_else(|| field(info, "flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|f| f == flag);
    FEATURES.iter().filter(|(flag, _)| has(flag)).map(|(_, name)| *name).collect()
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn temperature(root: &Path) -> Option<f64> {
    let folder = "sys/class/thermal";
    let zones = names(&root.join(folder)).into_iter().filter(|name| name.starts_with("thermal_zone"));
    let degrees = zones.filter_map(|zone| number::<i32>(root, &format!("{folder}/{zone}/temp")));
    // Sensors that are off say 0, or less than nothing there is.
    let sane = degrees.filter(|t| (1..150_000).contains(t));
    sane.max().map(|t| f64::from(t) / 1000.0)
}

/// The firmware's device lies directly below the platform or below its `soc`, whose name has an address on some boards.
fn throttled(root: &Path) -> Option<u32> {
    let platform = root.join("sys/devices/platform");
    let is_firmware = |name: &String| name.contains("firmware");
    let below = |folder: &Path| -> Vec<PathBuf> {
        names(folder).into_iter().filter(is_firmware).map(|name| folder.join(name)).collect()
    };
    let socs = names(&platform).into_iter().filter(|name| name.starts_with("soc")).map(|name| platform.join(name));
    let mut devices = below(&platform);
    devices.extend(socs.flat_map(|soc| below(&soc)));
    let flags = devices.iter().find_map(|device| text(device, "get_throttled"))?;
    u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()
}

/// Keys of `config.txt` that decide how fast the processor and its memory are, and how much of it there is.
const SPEED_KEYS: [&str; 16] = [
    "arm_64bit",
    "arm_boost",
    "arm_freq",
    "arm_freq_min",
    "core_freq",
    "force_turbo",
    "gpu_mem",
    "initial_turbo",
    "kernel",
    "over_voltage",
    "over_voltage_delta",
    "sdram_freq",
    "temp_limit",
    "temp_soft_limit",
    "total_mem",
    "avoid_warnings",
];

fn config(root: &Path, board: Option<&str>) -> Option<(PathBuf, Vec<Setting>)> {
    let path = ["boot/firmware/config.txt", "boot/config.txt"].into_iter().find(|path| root.join(path).is_file())?;
    let text = text(root, path).unwrap_or_default();
    let setting = |line: &str| {
        let (key, value) = line.split('#').next()?.split_once('=')?;
        let (key, value) = (key.trim().to_string(), value.trim().to_string());
        SPEED_KEYS.contains(&key.as_str()).then_some(Setting { key, value })
    };
    let mut holds = true;
    let of_board = text.lines().filter(|line| {
        if let Some(section) = line.trim().strip_prefix('[').and_then(|line| line.split_once(']')) {
            holds = is_for(section.0.trim(), board);
        }
        holds
    });
    Some((Path::new("/").join(path), of_board.filter_map(setting).collect()))
}

/// Whether a section of `config.txt` is for a board. Of one that goes by a screen, a pin or a serial number that is not known.
fn is_for(section: &str, board: Option<&str>) -> bool {
    const NAMES: [(&str, &str); 17] = [
        ("pi02", "Zero 2"),
        ("pi0w", "Zero W"),
        ("pi0", "Zero"),
        ("pi3+", "Pi 3 Model B Plus"),
        ("pi3+", "Pi 3 Model A Plus"),
        ("pi3", "Pi 3"),
        ("cm3", "Compute Module 3"),
        ("pi3", "Compute Module 3"),
        ("pi4", "Pi 4"),
        ("pi400", "Pi 400"),
        ("cm4", "Compute Module 4"),
        ("pi4", "Compute Module 4"),
        ("pi5", "Pi 5"),
        ("pi500", "Pi 500"),
        ("cm5", "Compute Module 5"),
        ("pi5", "Compute Module 5"),
        ("pi2", "Pi 2"),
    ];
    let Some(board) = board else { return true };
    section == "all" || NAMES.iter().any(|(name, of)| *name == section && board.contains(of))
}

/// Nodes of memory: one, but where the firmware of a Raspberry Pi spreads accesses over several.
fn memory_nodes(root: &Path) -> Option<usize> {
    let entries = std::fs::read_dir(root.join("sys/devices/system/node")).ok()?;
    let is_node = |name: &str| {
        let number = name.strip_prefix("node");
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    Some(entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_node)).count())
}
