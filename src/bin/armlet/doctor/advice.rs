//! What slows a machine down, and what to do about it.

use armlet::arch::Backend;

use super::system::System;

/// Above this the firmware of a Raspberry Pi and the governors of most phones lower the clock soon (the Pi at 80 °C).
const HOT: f64 = 75.0;
/// Room that the smallest known model needs, with its KV cache and the program.
const LEAST_RAM: u64 = 256 << 20;

/// Lines for a person, the most important first.
pub(crate) fn advice(system: &System, backend: Backend) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(system.throttled.into_iter().flat_map(throttling));
    if let Some(hot) = system.temperature.filter(|t| *t >= HOT) {
        lines.push(format!("{hot:.0} °C: the clock is lowered from 80 to 85 °C on; a heat sink or a fan keeps it up"));
    }
    lines.extend(governor(system));
    if matches!(system.kernel_arch.as_deref(), Some("armv7l" | "armv6l" | "i686")) {
        lines.push(
            "the kernel is a 32-bit one: take a 64-bit system, whose kernels for matrices are several times as fast"
                .into(),
        );
    }
    if backend == Backend::Scalar {
        lines.push("this CPU runs portable code only: NEON or AVX2 would be many times as fast".into());
    }
    lines.extend(settings(system));
    lines.extend(nodes(system));
    if let Some(free) = system.free_ram.filter(|free| *free < LEAST_RAM) {
        lines.push(format!(
            "{} MiB of RAM are free: a model that does not fit is read from the disk again for every token; end other programs",
            free >> 20
        ));
    }
    lines
}

/// The firmware's flags: bits 0 to 3 hold now, 16 to 19 since the start.
fn throttling(flags: u32) -> impl Iterator<Item = String> {
    const CAUSES: [(&str, &str); 4] = [
        ("the supply voltage is too low", "take the board's own power supply and a short cable"),
        ("the clock is capped", "see the voltage and the temperature"),
        ("the processor is throttled", "see the voltage and the temperature"),
        ("the soft limit of the temperature is reached", "cool the board, or raise temp_soft_limit in config.txt"),
    ];
    CAUSES.into_iter().enumerate().filter_map(move |(bit, (what, remedy))| {
        let (now, since) = (flags >> bit & 1 != 0, flags >> (16 + bit) & 1 != 0);
        match (now, since) {
            (true, _) => Some(format!("{what} now: {remedy}")),
            (false, true) => Some(format!("{what} at times since the board was started: {remedy}")),
            _ => None,
        }
    })
}

fn governor(system: &System) -> Option<String> {
    let slow = |core: &&super::system::Core| {
        matches!(core.governor.as_deref(), Some("powersave" | "conservative" | "userspace"))
    };
    // On a PC, powersave is the usual governor of intel_pstate and amd_pstate, and keeps no clock down.
    let is_pc = system.features.contains(&"AVX2") || system.cores.iter().any(|c| c.kind.contains("Intel"));
    let core = system.cores.iter().filter(|_| !is_pc).find(slow)?;
    Some(format!(
        "CPU {} has the governor {}: `echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`",
        core.number,
        core.governor.as_deref().unwrap_or_default(),
    ))
}

/// The firmware of a Pi 5 can spread accesses over the banks of its memory, which the kernel then sees as several nodes.
fn nodes(system: &System) -> Option<String> {
    let is_pi_5 = ["Pi 5", "Compute Module 5"].iter().any(|name| system.board.as_deref().unwrap_or("").contains(name));
    (is_pi_5 && system.memory_nodes == Some(1)).then(|| {
        "memory is one node: newer firmware (`sudo rpi-eeprom-update -a`) spreads accesses over its banks, which others have \
         measured as up to a tenth faster"
            .into()
    })
}

/// Settings of `config.txt` that make a Raspberry Pi slower than it could be.
fn settings(system: &System) -> Vec<String> {
    let Some((path, settings)) = &system.config else { return Vec::new() };
    let board = system.board.as_deref().unwrap_or_default();
    // The clock of the board as it is sold, in MHz.
    const USUAL: [(&str, i64); 10] = [
        ("Pi 5", 2400),
        ("Compute Module 5", 2400),
        ("Pi 400", 1800),
        ("Pi 4", 1500),
        ("Compute Module 4", 1500),
        ("Pi 3 Model B Plus", 1400),
        ("Pi 3 Model A Plus", 1400),
        ("Pi 3", 1200),
        ("Compute Module 3", 1200),
        ("Zero 2", 1000),
    ];
    let usual = USUAL.into_iter().find(|(name, _)| board.contains(name));
    let mut lines = Vec::new();
    for setting in settings {
        let (key, value) = (setting.key.as_str(), setting.value.as_str());
        let number: Option<i64> = value.parse().ok();
        let why = match (key, number) {
            ("arm_64bit", Some(0)) => "a 32-bit kernel, on which a 64-bit program does not run".to_string(),
            ("arm_boost", Some(0)) => "the Pi 4 stays at 1500 MHz though it may reach 1800".to_string(),
            ("arm_freq", Some(mhz)) => match usual {
                Some((name, usual)) if mhz < usual => format!("the {name} usually runs at {usual} MHz"),
                _ => continue,
            },
            ("core_freq", Some(mhz)) if mhz < 500 => "a slow core clock slows the memory".to_string(),
            ("sdram_freq", Some(_)) => "tokens per second go with the speed of memory".to_string(),
            ("gpu_mem", Some(mib)) if mib > 128 => format!("{mib} MiB are kept from programs"),
            ("total_mem", Some(mib)) => format!("no more than {mib} MiB of RAM are used"),
            ("temp_limit", Some(limit)) if limit < 85 => {
                format!("the clock is lowered at {limit} °C already, not at 85")
            }
            _ => continue,
        };
        lines.push(format!("{}: {key}={value}: {why}", path.display()));
    }
    lines
}
