//! `cargo xtask deb`: the arm64 package is installed, run, upgraded and removed in a Debian of its own, with a server enabled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dist::{at, copy};
use crate::package::{ARM64, anew, build, deb, folder, full_version, program, texts, tools};
use crate::process::{Failed, Steps, command, output, say};
use crate::setup::{self, works};

/// Where the kernel says that it runs programs for arm64 by QEMU.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc/qemu-aarch64";
/// Has it do so, as systemd does when a machine starts. QEMU is opened here and now (flag F), so that it need not be in
/// the Debian.
const REGISTER: &str = "cd /proc/sys/fs/binfmt_misc; test -e register || mount -t binfmt_misc binfmt_misc .; \
     cd /proc/sys/fs/binfmt_misc; test -e qemu-aarch64 || cat /usr/lib/binfmt.d/qemu-aarch64.conf > register";

/// What makes a server start with the machine.
const LINK: &str = "/etc/systemd/system/multi-user.target.wants/armlet.service";
/// As `systemctl enable armlet` does.
const ENABLE: &str = "mkdir -p /etc/systemd/system/multi-user.target.wants; \
     ln -sf /usr/lib/systemd/system/armlet.service /etc/systemd/system/multi-user.target.wants";
/// Where `armlet doctor` writes as root.
const CACHE: &str = "/var/cache/armlet";

/// # Errors
/// What this needs and is not here, or what went wrong.
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("what it takes", needs)?;
    tools(steps)?;
    steps.step("the program", || build(&ARM64))?;
    // It runs here too.
    steps.step("manual pages and completions", || texts(&ARM64))?;
    let version = full_version()?;
    let [mut earlier, mut current] = [PathBuf::new(), PathBuf::new()];
    steps.step("two versions of the package", || {
        earlier = deb(&ARM64, &format!("{version}~earlier"))?;
        current = deb(&ARM64, &version)?;
        Ok(())
    })?;
    let debian = folder().join("debian-arm64");
    steps.step("a Debian for arm64", || bootstrap(&debian))?;
    systemd(&debian)?;
    let before = files(&debian)?;
    let _proc = Proc::mount(&debian)?;
    steps.step("install", || install(&debian, &earlier, &format!("{version}~earlier")))?;
    steps.step("run", || try_it(&debian, &version))?;
    steps.step("upgrade", || {
        inside(&debian, &["sh", "-ec", ENABLE])?;
        install(&debian, &current, &version)?;
        asked(&debian, "try-restart armlet.service armlet.socket")?;
        inside(&debian, &["test", "-L", LINK])?;
        inside(&debian, &["armlet", "--version"]).map(drop)
    })?;
    steps.step("remove", || {
        inside(&debian, &["mkdir", "-p", CACHE])?;
        inside(&debian, &["dpkg", "--purge", "armlet"])?;
        asked(&debian, "stop armlet.service armlet.socket")?;
        inside(&debian, &["test", "!", "-e", CACHE])?;
        let after = files(&debian)?;
        match after.lines().find(|line| !before.lines().any(|known| known == *line)) {
            Some(left) => Err(Failed(format!("{left} is left"))),
            None => Ok(()),
        }
    })
}

/// Root, debootstrap, and a kernel that runs arm64 programs.
fn needs() -> Result<(), Failed> {
    if !works(&["sh", "-c", "test $(id -u) = 0"]) {
        return Err(Failed("debootstrap and chroot need root: sudo cargo xtask deb".into()));
    }
    setup::packages(&[(&["debootstrap", "--version"], "debootstrap"), (&["chroot", "--version"], "coreutils")])?;
    if std::env::consts::ARCH == ARM64.machine || Path::new(BINFMT).exists() {
        return Ok(());
    }
    setup::packages(&[(&["qemu-aarch64-static", "--version"], "qemu-user-static")])?;
    command("sh", &["-ec", REGISTER], &[])
        .map_err(|Failed(why)| Failed(format!("the kernel does not run arm64 programs by QEMU: {why}")))
}

/// The smallest Debian, made once.
fn bootstrap(debian: &Path) -> Result<(), Failed> {
    // debootstrap removes its folder when it is done.
    let is_whole = debian.join("etc/debian_version").exists() && !debian.join("debootstrap").exists();
    if is_whole {
        return Ok(());
    }
    anew(debian)?;
    let to = debian.display().to_string();
    output(Command::new("debootstrap").args(["--arch=arm64", "--variant=minbase", "stable", &to])).map(drop)
}

/// `/proc` of the Debian, which is gone when this is dropped. The program finds itself there.
struct Proc(String);

impl Proc {
    fn mount(debian: &Path) -> Result<Self, Failed> {
        let folder = debian.join("proc").display().to_string();
        command("mount", &["-t", "proc", "proc", &folder], &[])?;
        Ok(Proc(folder))
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if let Err(Failed(why)) = command("umount", &[&self.0], &[]) {
            say(format!("    still mounted: {why}"));
        }
    }
}

/// There is no systemd in the Debian: scripts find what says that it runs, and a `systemctl` that writes down what it is asked.
fn systemd(debian: &Path) -> Result<(), Failed> {
    for folder in ["run/systemd/system", "tmp/bin"].map(|folder| debian.join(folder)) {
        fs::create_dir_all(&folder).map_err(at(&folder))?;
    }
    let (program, asked) = (debian.join("tmp/bin/systemctl"), debian.join("tmp/asked"));
    fs::write(&program, "#!/bin/sh\necho \"$*\" >> /tmp/asked\n").map_err(at(&program))?;
    fs::write(&asked, "").map_err(at(&asked))?;
    inside(debian, &["chmod", "755", "/tmp/bin/systemctl"]).map(drop)
}

/// That `systemctl` was asked for something.
fn asked(debian: &Path, what: &str) -> Result<(), Failed> {
    let path = debian.join("tmp/asked");
    let asked = fs::read_to_string(&path).map_err(at(&path))?;
    if asked.lines().any(|line| line.ends_with(what)) {
        Ok(())
    } else {
        Err(Failed(format!("no systemctl {what} in {asked:?}")))
    }
}

/// Runs a command in the Debian.
fn inside(debian: &Path, words: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new("chroot");
    command.arg(debian).args(words).env_clear();
    output(command.env("PATH", "/tmp/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root").env("LC_ALL", "C.UTF-8"))
}

/// Installs a package, whose version is then that of the Debian's database.
fn install(debian: &Path, package: &Path, version: &str) -> Result<(), Failed> {
    let inner = "/tmp/armlet.deb";
    copy(package, &debian.join("tmp/armlet.deb"))?;
    say(inside(debian, &["dpkg", "--install", inner])?.trim_end());
    inside(debian, &["rm", inner])?;
    let status = inside(debian, &["dpkg-query", "--show", "--showformat=${Status} ${Version}", "armlet"])?;
    if status == format!("install ok installed {version}") {
        return Ok(());
    }
    Err(Failed(format!("the package is {status:?}")))
}

/// The program of the package runs, and its other files are what they should be.
fn try_it(debian: &Path, version: &str) -> Result<(), Failed> {
    let shown = inside(debian, &["armlet", "--version"])?;
    let expected = format!("armlet {version}");
    if shown.trim() != expected {
        return Err(Failed(format!("it says {shown:?} and not {expected:?}")));
    }
    let model = output(Command::new(program(&ARM64)).args(["pull", "smollm2"]))?;
    let inner = "/tmp/model.gguf";
    copy(Path::new(model.trim()), &debian.join("tmp/model.gguf"))?;
    let question = "What is the capital of France?";
    let answer = inside(debian, &["armlet", "chat", "--temp", "0", "-n", "16", "-m", inner, "-p", question]);
    inside(debian, &["rm", inner])?;
    let answer = answer?;
    say(format!("    {question} {}", answer.trim()));
    if !answer.contains("Paris") {
        return Err(Failed(format!("the answer is {answer:?}")));
    }
    say(inside(debian, &["armlet", "doctor", "--no-measure"])?.trim_end());
    inside(debian, &["bash", "-n", "/usr/share/bash-completion/completions/armlet"])?;
    inside(debian, &["gzip", "-t", "/usr/share/man/man1/armlet.1.gz"]).map(drop)
}

/// All files, but for what dpkg and the caches of others write.
fn files(debian: &Path) -> Result<String, Failed> {
    let skip = ["proc", "sys", "dev", "tmp", "var/lib/dpkg", "var/log", "var/cache"].map(|path| format!("./{path}"));
    let mut find = Command::new("find");
    find.arg(".").current_dir(debian);
    for path in &skip {
        find.args(["-path", path, "-prune", "-o"]);
    }
    output(find.arg("-print"))
}
