//! `cargo xtask sd-card`: the first token of a long prompt, from a model on a disk that is as slow as an SD card.
//!
//! The kernel slows the disk down: a cgroup of version 1 gets few bytes a second of the device that the model's file is on.
//! Computing and reading should overlap, so the first token comes when the slower of the two is done, and little later. On a
//! PC reading is that by far; so in a second run the kernel gives the program as little of a CPU as makes computing take as
//! long.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::dist::at;
use crate::model::{native, shipped};
use crate::process::{Failed, Steps, output, root, say};
use crate::setup::{self, works};

/// The most that the first token may take, as a part of the slower of reading and computing.
const BOUND: f64 = 1.15;
/// Bytes a second of an SD card.
const CARD: f64 = 20e6;
/// Tokens of the prompt: forty times ten, and BOS.
const PROMPT: &str = "The quick brown fox jumps over the lazy dog. ";
const REPEATS: usize = 40;
/// Microseconds in which a program gets its part of a CPU.
const PERIOD: f64 = 20_000.0;
/// Where the cgroups of version 1 are, and what the kernel needs for them.
const BLKIO: (&str, &str) = ("/sys/fs/cgroup/blkio", "CONFIG_BLK_DEV_THROTTLING");
const CPU: (&str, &str) = ("/sys/fs/cgroup/cpu", "CONFIG_CFS_BANDWIDTH");

/// # Errors
/// What this needs and is not here, or that the first token comes too late.
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    setup::program(steps)?;
    check(steps)
}

/// The same, where the program is built.
pub(crate) fn check(steps: &mut Steps) -> Result<(), Failed> {
    let (mut disk, mut times) = (None, None);
    steps.step("a slow disk", || {
        disk = Some(Disk::new()?);
        Ok(())
    })?;
    let Some(disk) = disk else { return Ok(()) };
    steps.step("the first token at 20 MB/s", || {
        times = Some(disk.first_token()?);
        Ok(())
    })?;
    let Some(Times { reading, computing }) = times.filter(|times| times.computing < times.reading) else {
        return Ok(());
    };
    steps.step("the first token where computing takes as long as reading", || {
        set(&disk.cpu, "cpu.cfs_quota_us", &format!("{:.0}", PERIOD * computing / reading))?;
        disk.first_token().map(drop)
    })
}

/// Seconds.
struct Times {
    reading: f64,
    /// Without what other programs took of the CPU meanwhile: the least.
    computing: f64,
}

/// A model on a slow disk, and what slows programs down; removed at the end.
struct Disk {
    model: PathBuf,
    blkio: PathBuf,
    cpu: PathBuf,
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = (fs::remove_dir(&self.blkio), fs::remove_dir(&self.cpu), fs::remove_file(&self.model));
    }
}

impl Disk {
    fn new() -> Result<Self, Failed> {
        if !works(&["sh", "-c", "test $(id -u) = 0"]) {
            return Err(Failed("to slow a disk down needs root: sudo cargo xtask sd-card".into()));
        }
        let (blkio, cpu) = (cgroup(BLKIO)?, cgroup(CPU)?);
        let disk = Disk { model: root().join("target/sd-card.gguf"), blkio, cpu };
        fs::copy(shipped()?, &disk.model).map_err(at(&disk.model))?;
        output(Command::new("sync").arg(&disk.model))?;
        let device = device(&disk.model)?;
        set(&disk.blkio, "blkio.throttle.read_bps_device", &format!("{device} {CARD:.0}"))?;
        set(&disk.cpu, "cpu.cfs_period_us", &format!("{PERIOD:.0}"))?;
        set(&disk.cpu, "cpu.cfs_quota_us", "-1")?;
        Ok(disk)
    }

    /// Reading alone, computing alone, and both together.
    fn first_token(&self) -> Result<Times, Failed> {
        let [_, reading, _] = sorted(|| self.read())?;
        let [least, computing, _] = sorted(|| self.compute())?;
        let [_, both, _] = sorted(|| {
            self.forget()?;
            self.slow(&self.answer())
        })?;
        let ratio = both / reading.max(computing);
        say(format!(
            "    reading {reading:.2} s, computing {computing:.2} s, first token {both:.2} s: {ratio:.2} of the slower"
        ));
        if ratio <= BOUND {
            return Ok(Times { reading, computing: least });
        }
        Err(Failed(format!("the first token takes {ratio:.2} of the slower of reading and computing, not {BOUND}")))
    }

    /// The whole file, one piece after another.
    fn read(&self) -> Result<f64, Failed> {
        self.forget()?;
        let mut command = Command::new("dd");
        command.arg(format!("if={}", self.model.display())).args(["of=/dev/null", "bs=1M", "status=none"]);
        self.slow(&command)
    }

    /// The first token, with the file in memory.
    fn compute(&self) -> Result<f64, Failed> {
        fs::read(&self.model).map_err(at(&self.model))?;
        self.slow(&self.answer())
    }

    fn answer(&self) -> Command {
        let mut command = native();
        command.args(["complete", "-t", "1", "-n", "1", "--temp", "0", "-p", &PROMPT.repeat(REPEATS)]);
        command.env("ARMLET_MODEL", &self.model);
        command
    }

    /// Has the kernel drop the file's pages.
    fn forget(&self) -> Result<(), Failed> {
        let file = format!("if={}", self.model.display());
        output(Command::new("dd").args([&file, "iflag=nocache", "count=0", "status=none"])).map(drop)
    }

    /// Runs a command in the cgroups; returns its seconds.
    fn slow(&self, command: &Command) -> Result<f64, Failed> {
        let procs = [&self.blkio, &self.cpu].map(|cgroup| cgroup.join("cgroup.procs"));
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ > \"$0\" && echo $$ > \"$1\" && shift && exec \"$@\""]).args(procs);
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let start = Instant::now();
        output(&mut shell)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// A new cgroup in a folder of them.
fn cgroup((folder, option): (&str, &str)) -> Result<PathBuf, Failed> {
    if !Path::new(folder).join("cgroup.procs").exists() {
        let why = format!("it takes a kernel with {option}, and cgroups of version 1 mounted");
        return Err(Failed(format!("{folder} is not there: {why}")));
    }
    let cgroup = Path::new(folder).join("armlet-sd-card");
    fs::create_dir_all(&cgroup).map_err(at(&cgroup))?;
    Ok(cgroup)
}

/// Writes a setting of a cgroup.
fn set(cgroup: &Path, name: &str, value: &str) -> Result<(), Failed> {
    let file = cgroup.join(name);
    fs::write(&file, format!("{value}\n")).map_err(at(&file))
}

/// The numbers of the disk that a file is on, as `179:0`.
fn device(file: &Path) -> Result<String, Failed> {
    let partition = output(Command::new("df").arg("--output=source").arg(file))?;
    let partition = partition.lines().last().unwrap_or_default().trim();
    let lsblk = |column: &str, of: &str| output(Command::new("lsblk").args(["-ndo", column, of]));
    let disk = match lsblk("PKNAME", partition)?.trim() {
        "" => partition.to_string(),
        disk => format!("/dev/{disk}"),
    };
    Ok(lsblk("MAJ:MIN", &disk)?.trim().to_string())
}

/// Three runs, the median of which counts.
fn sorted(mut run: impl FnMut() -> Result<f64, Failed>) -> Result<[f64; 3], Failed> {
    let mut times = [run()?, run()?, run()?];
    times.sort_by(f64::total_cmp);
    Ok(times)
}
