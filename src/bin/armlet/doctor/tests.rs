//! Doctor on made machines.

use std::path::{Path, PathBuf};

use armlet::arch::Backend;

use super::advice::advice;
use super::disk::Mount;
use super::measure::numbers;
use super::rate::Rate;
use super::report::{ModelReport, Report, memory};
use super::system::System;
use super::threads;

/// A machine's files.
fn machine(files: &[(String, String)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    root
}

fn file(path: &str, text: &str) -> (String, String) {
    (path.into(), text.into())
}

/// What Linux says of ARM cores: of each its part, capacity and clock in kHz.
fn arm_cores(cores: &[(&str, Option<u32>, u32)], governor: &str) -> Vec<(String, String)> {
    let paragraph = |(i, (part, ..)): (usize, &(&str, Option<u32>, u32))| {
        let features = if ["0xd08", "0xd03"].contains(part) { "asimd crc32" } else { "asimd asimdhp asimddp atomics" };
        format!("processor\t: {i}\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n")
    };
    let info: Vec<_> = cores.iter().enumerate().map(paragraph).collect();
    let mut files = vec![file("proc/cpuinfo", &(info.join("\n") + "\nRevision\t: c03111\n"))];
    for (i, (_, capacity, khz)) in cores.iter().enumerate() {
        let cpu = format!("sys/devices/system/cpu/cpu{i}");
        files.push((format!("{cpu}/cpufreq/cpuinfo_max_freq"), format!("{khz}\n")));
        files.push((format!("{cpu}/cpufreq/scaling_governor"), format!("{governor}\n")));
        files.extend(capacity.map(|capacity| (format!("{cpu}/cpu_capacity"), format!("{capacity}\n"))));
    }
    files
}

fn pi(model: &str, part: &str, khz: u32, more: &[(String, String)]) -> tempfile::TempDir {
    let mut files = arm_cores(&[(part, None, khz); 4], "ondemand");
    files.push(file("proc/device-tree/model", &format!("{model}\0")));
    files.push(file("proc/self/status", "Name:\tarmlet\nCpus_allowed_list:\t0-3\n"));
    files.push(file("proc/meminfo", "MemTotal:        3884288 kB\nMemFree:  1 kB\nMemAvailable:    3200000 kB\n"));
    files.extend_from_slice(more);
    machine(&files)
}

fn pi4() -> tempfile::TempDir {
    pi(
        "Raspberry Pi 4 Model B Rev 1.1",
        "0xd08",
        1_500_000,
        &[
            file("proc/loadavg", "1.52 0.90 0.51 1/123 4567\n"),
            file("sys/class/thermal/thermal_zone0/temp", "82277\n"),
            file("sys/devices/platform/soc/soc:firmware/get_throttled", "50001\n"),
            file(
                "boot/config.txt",
                "# for the camera\narm_boost=0\ngpu_mem=256 # MiB\ndtparam=audio=on\n[all]\narm_64bit=0\n",
            ),
        ],
    )
}

fn pi5() -> tempfile::TempDir {
    pi(
        "Raspberry Pi 5 Model B Rev 1.0",
        "0xd0b",
        2_400_000,
        &[
            file("sys/class/thermal/thermal_zone0/temp", "48000"),
            file("sys/class/thermal/cooling_device0/temp", "99000"),
            file("sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled", "0"),
            file(
                "boot/firmware/config.txt",
                "[pi4]\narm_freq=1000\n[pi5]\narm_freq=1800\n[gpio4=1]\ngpu_mem=512\n[none]\narm_64bit=0\n",
            ),
            file("sys/devices/system/node/node0/cpulist", "0-3"),
            file("sys/devices/system/node/possible", "0"),
            file("boot/config.txt", "arm_freq=100\n"),
        ],
    )
}

/// Four little cores and two big ones; this program may not use the last.
fn phone() -> tempfile::TempDir {
    let (little, big) = (("0xd05", Some(371), 1_800_000), ("0xd0b", Some(1024), 2_200_000));
    let mut files = arm_cores(&[little, little, little, little, big, big], "schedutil");
    files.push(file("proc/self/status", "Cpus_allowed_list:\t0-1,3-4\n"));
    files.push(file("sys/class/thermal/thermal_zone0/temp", "-274000"));
    files.push(file("sys/class/thermal/thermal_zone1/temp", "41500"));
    files.push(file("sys/class/thermal/thermal_zone2/temp", "nothing"));
    machine(&files)
}

fn pc() -> tempfile::TempDir {
    let paragraph = |i| format!("processor\t: {i}\nmodel name\t: Intel(R) Core(TM) i5\nflags\t\t: fpu fma avx2 f16c\n");
    let mut files = vec![file("proc/cpuinfo", &(0..2).map(paragraph).collect::<Vec<_>>().join("\n"))];
    files.push(file("sys/devices/virtual/dmi/id/product_name", "ThinkPad\u{1b}[31m\n"));
    files.push(file("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave"));
    machine(&files)
}

fn read(root: &tempfile::TempDir) -> System {
    System::read(root.path())
}

#[test]
fn a_pi_4_says_what_slows_it() {
    let system = read(&pi4());
    assert_eq!(system.board.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.1"));
    let kinds = system.kinds();
    assert_eq!((kinds.len(), kinds[0].len(), kinds[0][0].kind.as_str()), (1, 4, "Cortex-A72"));
    assert_eq!((kinds[0][0].max_mhz, kinds[0][0].governor.as_deref()), (Some(1500), Some("ondemand")));
    assert_eq!(system.features, ["NEON"]);
    assert_eq!((system.temperature, system.throttled), (Some(82.277), Some(0x50001)));
    assert_eq!(system.load, Some(1.52));
    assert_eq!((system.ram, system.free_ram), (Some(3_884_288 << 10), Some(3_200_000 << 10)));
    let advice = advice(&system, Backend::Neon);
    let expected = [
        "the supply voltage is too low now",
        "the processor is throttled at times since the board was started",
        "82 °C",
        "/boot/config.txt: arm_boost=0: the Pi 4 stays at 1500 MHz",
        "/boot/config.txt: gpu_mem=256: 256 MiB are kept",
        "/boot/config.txt: arm_64bit=0: a 32-bit kernel",
    ];
    assert_eq!(advice.len(), expected.len(), "{advice:#?}");
    for (line, start) in advice.iter().zip(expected) {
        assert!(line.starts_with(start), "{line:?} is not {start:?}");
    }
    assert_eq!(threads::by_cores(&system, 4), 4);
}

#[test]
fn a_pi_5_that_is_slowed_down_by_one_setting() {
    let system = read(&pi5());
    assert_eq!(system.features, ["NEON", "FP16", "dot product", "LSE"]);
    // What is no sensor has no temperature.
    assert_eq!((system.temperature, system.throttled), (Some(48.0), Some(0)));
    let lines = advice(&system, Backend::Dotprod);
    let [slow, node] = lines.as_slice() else { panic!("{lines:#?}") };
    assert_eq!(slow, "/boot/firmware/config.txt: arm_freq=1800: the Pi 5 usually runs at 2400 MHz");
    assert!(node.starts_with("memory is one node"), "{node}");
    let spread = System { memory_nodes: Some(8), ..system };
    assert!(memory(&spread, 4096).ends_with("; 8 nodes") && advice(&spread, Backend::Dotprod).len() == 1);
}

#[test]
fn a_phone_runs_on_its_big_cores() {
    let system = read(&phone());
    let kinds = system.kinds();
    let names: Vec<_> = kinds.iter().map(|kind| (kind.len(), kind[0].kind.as_str())).collect();
    assert_eq!(names, [(2, "Cortex-A76"), (4, "Cortex-A55")]);
    assert_eq!((system.temperature, system.throttled), (Some(41.5), None));
    assert_eq!((0..6).filter(|cpu| system.allows(*cpu)).collect::<Vec<_>>(), [0, 1, 3, 4]);
    // Of the two big ones this program may use one.
    assert_eq!(threads::by_cores(&system, 4), 1);
    let all = System { allowed: None, ..system.clone() };
    assert_eq!(threads::by_cores(&all, 6), 2);
    // On little cores alone they are the fastest there are.
    let little = System { allowed: Some("0-2".into()), ..system };
    assert_eq!(threads::by_cores(&little, 3), 3);
    assert!(advice(&all, Backend::Dotprod).is_empty());
}

#[test]
fn a_pc_may_save_power() {
    let system = read(&pc());
    assert_eq!(system.kinds()[0][0].kind, "Intel(R) Core(TM) i5");
    assert_eq!(system.features, ["AVX2", "FMA", "F16C"]);
    assert!(advice(&system, Backend::Avx2).is_empty());
    assert_eq!(advice(&system, Backend::Scalar).len(), 1);
    assert_eq!(threads::by_cores(&system, 2), 2);
    // An ARM board that saves power is slow.
    let board = machine(&arm_cores(&[("0xd08", None, 600_000)], "powersave"));
    assert!(advice(&read(&board), Backend::Neon)[0].starts_with("CPU 0 has the governor powersave"));
}

#[test]
fn a_machine_may_say_nothing() {
    let empty = machine(&[]);
    let system = read(&empty);
    assert!(system.cores.is_empty() && system.kinds().is_empty() && system.features.is_empty());
    assert!(system.board.is_none() && system.temperature.is_none() && system.config.is_none() && system.ram.is_none());
    assert!(advice(&system, Backend::Neon).is_empty());
    assert_eq!([0, 1, 4].map(|cpus| threads::by_cores(&system, cpus)), [1, 1, 4]);
    assert!(Mount::of(empty.path(), Path::new("/x")).is_none());
    // Nor what it says make sense.
    let odd = machine(&[
        file("proc/cpuinfo", "processor : x\n\nprocessor\t: 3\nCPU implementer: 0x41\nCPU part: 0xfff\n\n:::\n"),
        file("proc/meminfo", "MemTotal: many kB\nMemAvailable: 99999999999999999999 kB\n"),
        file("sys/devices/system/cpu/cpu3/cpu_capacity", "-1"),
        file("sys/devices/platform/firmware/get_throttled", "no"),
        file("proc/self/status", "Cpus_allowed_list:\tx-y,,-,3\n"),
        file("boot/config.txt", "=\narm_freq=\n=5\narm_freq\n"),
    ]);
    let system = read(&odd);
    assert_eq!((system.cores.len(), system.cores[0].number, system.cores[0].kind.as_str()), (1, 3, "Arm part 0xfff"));
    assert_eq!((system.ram, system.free_ram, system.throttled, system.cores[0].capacity), (None, None, None, None));
    assert!(system.allows(3) && !system.allows(0));
    assert!(advice(&system, Backend::Neon).is_empty());
}

#[test]
fn a_measured_number_counts_for_just_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    // Made on first use.
    let cache = folder.path().join("cache");
    let (pi, phone) = (read(&pi4()), read(&phone()));
    assert_eq!(threads::measured(&cache, &pi, 4), None);
    threads::keep(&cache, &pi, 4, 3).unwrap();
    assert_eq!(threads::measured(&cache, &pi, 4), Some(3));
    // Not for another machine, fewer CPUs, or another affinity.
    assert_eq!(threads::measured(&cache, &phone, 4), None);
    assert_eq!(threads::measured(&cache, &pi, 3), None);
    let pinned = System { allowed: Some("0-1".into()), ..pi.clone() };
    assert_eq!(threads::measured(&cache, &pinned, 4), None);
    // A file that was damaged counts as none.
    let file = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    for bad in ["", "3", "x\n", &text.replacen('3', "9", 1), &text.replacen('3', "0", 1), &text.replace("A72", "A76")] {
        std::fs::write(&file, bad).unwrap();
        assert_eq!(threads::measured(&cache, &pi, 4), None, "{bad:?}");
    }
    threads::keep(&cache, &pi, 4, 2).unwrap();
    assert_eq!(threads::measured(&cache, &pi, 4), Some(2));
    assert!(threads::keep(Path::new("/dev/null/x"), &pi, 4, 2).is_err());
}

/// A service has neither a home folder nor the rights of who measured.
#[test]
fn what_root_measured_is_for_all_users() {
    let places = |cache: Option<&str>, is_asked_for, is_root| -> Vec<String> {
        let places = threads::places(cache.map(PathBuf::from), is_asked_for, is_root);
        places.iter().map(|path| path.display().to_string()).collect()
    };
    let all = threads::OF_ALL;
    assert_eq!(places(Some("/home/pi/.cache/armlet"), false, false), ["/home/pi/.cache/armlet", all]);
    assert_eq!(places(None, false, false), [all]);
    // What root had of its own would hide what it measures anew.
    assert_eq!([places(Some("/root/.cache/armlet"), false, true), places(None, false, true)], [[all], [all]]);
    for is_root in [false, true] {
        assert_eq!(places(Some("/cache"), true, is_root), ["/cache"]);
    }

    let folder = tempfile::tempdir().unwrap();
    threads::keep(folder.path(), &read(&pi4()), 4, 3).unwrap();
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777;
    // As a umask of 077 leaves them.
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    threads::for_all(folder.path(), &file).unwrap();
    assert_eq!((mode(folder.path()), mode(&file)), (0o755, 0o644));
}

fn rates(rates: &[f64]) -> Vec<Rate> {
    rates.iter().enumerate().map(|(i, rate)| Rate { threads: i + 1, per_second: *rate }).collect()
}

#[test]
fn the_fewest_threads_that_are_as_fast() {
    assert_eq!(threads::by_rates(&[]), None);
    assert_eq!(threads::by_rates(&rates(&[5.0])), Some(1));
    assert_eq!(threads::by_rates(&rates(&[5.0, 9.0, 11.9, 12.0])), Some(3));
    assert_eq!(threads::by_rates(&rates(&[5.0, 9.0, 8.0])), Some(2));
    assert_eq!(numbers(1), [1]);
    assert_eq!(numbers(4), [1, 2, 3, 4]);
    assert_eq!(numbers(48), [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 48]);
    assert_eq!(numbers(16), [1, 2, 3, 4, 5, 6, 7, 8, 16]);
}

#[test]
fn what_was_measured_beside_other_programs_is_not_kept() {
    let (number, why) = super::choose(&read(&pi5()), 4, &rates(&[5.0, 9.0]), Some(1.5));
    assert_eq!(number, 2);
    assert!(why.starts_with("as measured, but not kept: other programs were running (load 1.5)"), "{why}");
}

#[test]
fn a_file_is_on_the_innermost_mount() {
    let mounts = "/dev/root / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/sda1 /media/my\\040disk vfat rw 0 0\n\
                  overlay /media overlay rw 0 0\n";
    let root = machine(&[file("proc/self/mounts", mounts)]);
    let kind = |path: &str| Mount::of(root.path(), Path::new(path)).unwrap().kind;
    assert_eq!(kind("/home/pi/model.gguf"), "ext4");
    assert_eq!(kind("/media/my disk/model.gguf"), "vfat");
    assert_eq!(kind("/media/my diskette"), "overlay");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![1; 3 << 20]).unwrap();
    assert!(super::disk::read_rate(file.path()).unwrap() > 0.0);
    assert!(super::disk::read_rate(Path::new("/nowhere/x")).is_err());
}

fn report(system: System) -> Report {
    Report {
        version: "0.1.0",
        advice: advice(&system, Backend::Neon),
        system,
        page_bytes: 16384,
        backend: Backend::Neon,
        because: "why".into(),
        bandwidth: Some(rates(&[2.1e9, 4.0e9])),
        model: Some(ModelReport {
            path: PathBuf::from("/m.gguf"),
            mount: Some(Mount { kind: "ext4".into(), device: "/dev/mmcblk0p2".into(), folder: "/".into() }),
            read: Some(45e6),
            decode: rates(&[6.0, 11.5]),
        }),
        threads: (2, "as measured".into()),
        known: vec![("small".into(), 100_000_000), ("large".into(), 1 << 40)],
    }
}

#[test]
fn the_report_is_for_people_and_for_programs() {
    let report = report(read(&pi4()));
    let text = report.text();
    for line in [
        "board        Raspberry Pi 4 Model B Rev 1.1\n",
        "cores        4 × Cortex-A72 (1500 MHz, governor ondemand)\n",
        "backend      neon: why\n",
        "RAM          3793 MiB, of which 3125 MiB free; pages of 16 KiB\n",
        "temperature  82 °C\n",
        "throttling   flags 0x50001, see below\n",
        "firmware     /boot/config.txt: arm_boost=0, gpu_mem=256, arm_64bit=0\n",
        "bandwidth    2.1 with 1, 4.0 with 2 threads, in GB/s\n",
        "model        /m.gguf on /dev/mmcblk0p2 (ext4), read at 45 MB/s\n",
        "decode       6.0 with 1, 11.5 with 2 threads, in tokens/s\n",
        "threads      2: as measured\n",
        "could reach  small: 100 MB a token, at most 40.0 tokens/s\n",
        "could reach  large: 1099512 MB a token, at most 0.0 tokens/s; more than the free RAM, so slower\n",
        "advice       the supply voltage is too low now",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let json = report.json();
    assert_eq!(json["cores"][3]["kind"], "Cortex-A72");
    assert_eq!(json["bandwidth"][1]["bytes_per_second"], 4.0e9);
    assert_eq!(json["model"]["decode"][0]["tokens_per_second"], 6.0);
    assert_eq!(json["known_models"][0]["most_tokens_per_second"], 40.0);
    assert_eq!((&json["config"]["settings"]["gpu_mem"], &json["throttled"]), (&"256".into(), &0x50001.into()));
    // A name with an escape sequence does not reach the terminal.
    let text = self::report(read(&pc())).text();
    assert!(text.contains("ThinkPad^[[31m") && !text.contains('\u{1b}'), "{text}");
    let nothing = Report { bandwidth: None, model: None, ..self::report(read(&machine(&[]))) };
    assert!(nothing.text().contains("bandwidth    not measured\n") && nothing.json()["model"].is_null());
}

#[test]
fn what_is_pasted_into_an_issue_has_the_machine_before_and_after() {
    let (cool, hot) = (read(&pi5()), read(&pi4()));
    let before = System { kernel: Some("Linux 6.12|x".into()), ..cool };
    let text = crate::bench_report::text(&before, &hot, Backend::Neon, "the table\n");
    for line in [
        "| board | Raspberry Pi 5 Model B Rev 1.0 |\n",
        "| CPU | 4 × Cortex-A76 (2400 MHz, governor ondemand) |\n",
        "| kernel | Linux 6.12\\|x |\n",
        "| throttling | none since the start before, flags 0x50001 after |\n",
        "\nthe table\n\n- the supply voltage is too low now",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(text.contains(" before, 82 °C after |\n"), "{text}");
}
