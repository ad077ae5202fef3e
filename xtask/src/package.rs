//! The program for those who do not build it: static, as a tarball and as a Debian package, in `target/dist`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dist::{at, copy};
use crate::process::{Failed, Steps, cargo, command, output, root, say, version};
use crate::setup::{self, works};

/// An architecture that packages are made for.
pub(crate) struct Arch {
    /// Rust's name of a target whose programs are static.
    triple: &'static str,
    /// Debian's.
    debian: &'static str,
    /// `uname -m`, and Rust's name of the host.
    machine: &'static str,
}

pub(crate) const ARM64: Arch = Arch { triple: "aarch64-unknown-linux-musl", debian: "arm64", machine: "aarch64" };
const AMD64: Arch = Arch { triple: "x86_64-unknown-linux-musl", debian: "amd64", machine: "x86_64" };
const ARCHS: [Arch; 2] = [ARM64, AMD64];

/// The version of cargo-deb that is installed where there is none.
const CARGO_DEB: &str = "3.8.0";
/// Shells with completions, and the names of the files as the shells look for them.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "armlet.bash"), ("zsh", "_armlet"), ("fish", "armlet.fish")];
/// Documents in a tarball.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// `cargo xtask dist`: everything, with its sums.
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    tools(steps)?;
    for arch in &ARCHS {
        steps.step(&format!("the program for {}", arch.triple), || build(arch))?;
    }
    steps.step("manual pages and completions", texts)?;
    let mut made = Vec::new();
    for arch in &ARCHS {
        steps.step(&format!("the tarball for {}", arch.triple), || {
            made.push(tarball(arch)?);
            Ok(())
        })?;
        steps.step(&format!("the Debian package for {}", arch.debian), || {
            made.push(deb(arch, &full_version()?)?);
            Ok(())
        })?;
    }
    steps.step("sums", || sums(&made))
}

/// Rust's targets and cargo-deb.
fn tools(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("tools", || {
        setup::rustup(&["target", "add", ARM64.triple, AMD64.triple])?;
        if works(&["cargo", "deb", "--version"]) {
            return Ok(());
        }
        cargo(&["install", "--locked", "cargo-deb", "--version", CARGO_DEB])
    })
}

fn build(arch: &Arch) -> Result<(), Failed> {
    cargo(&["build", "--release", "--bin", "armlet", "--target", arch.triple])
}

/// The program.
fn program(arch: &Arch) -> PathBuf {
    root().join("target").join(arch.triple).join("release/armlet")
}

fn folder() -> PathBuf {
    root().join("target/dist")
}

fn full_version() -> Result<String, Failed> {
    Ok(version()?.join("."))
}

/// The same for every architecture, so the program of this one writes them.
fn texts() -> Result<(), Failed> {
    let host = std::env::consts::ARCH;
    let arch = ARCHS.iter().find(|arch| arch.machine == host);
    let program = program(arch.ok_or_else(|| Failed(format!("there is no program for {host} to write them")))?);
    let [manual, completions] = ["manual", "completions"].map(|name| folder().join(name));
    for folder in [&manual, &completions] {
        anew(folder)?;
    }
    output(Command::new(&program).arg("manual").arg(&manual))?;
    for (shell, name) in COMPLETIONS {
        let to = completions.join(name);
        fs::write(&to, output(Command::new(&program).args(["completions", shell]))?).map_err(at(&to))?;
    }
    Ok(())
}

/// An empty folder.
fn anew(folder: &Path) -> Result<(), Failed> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(at(folder))?;
    }
    fs::create_dir_all(folder).map_err(at(folder))
}

/// `armlet-VERSION-TRIPLE.tar.gz`: the same bytes for the same program.
fn tarball(arch: &Arch) -> Result<PathBuf, Failed> {
    let name = format!("armlet-{}-{}", full_version()?, arch.triple);
    let (dist, staged) = (folder(), folder().join(&name));
    anew(&staged)?;
    copy(&program(arch), &staged.join("armlet"))?;
    for document in DOCUMENTS {
        copy(&root().join(document), &staged.join(document))?;
    }
    for (from, to) in [("manual", "man/man1"), ("completions", "completions")] {
        let from = dist.join(from);
        for entry in fs::read_dir(&from).map_err(at(&from))? {
            let path = entry.map_err(at(&from))?.path();
            copy(&path, &staged.join(to).join(path.file_name().unwrap_or_default()))?;
        }
    }
    let (file, folder) = (dist.join(format!("{name}.tar.gz")), dist.display().to_string());
    let to = file.display().to_string();
    let same = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--mode=go=rX,u+rw"];
    let tar = [&["--use-compress-program=gzip -9n", "-C", &folder, "-cf", &to][..], &same, &[name.as_str()]].concat();
    command("tar", &tar, &[])?;
    fs::remove_dir_all(&staged).map_err(at(&staged))?;
    Ok(file)
}

/// `armlet_VERSION_ARCH.deb`.
pub(crate) fn deb(arch: &Arch, version: &str) -> Result<PathBuf, Failed> {
    let file = folder().join(format!("armlet_{version}_{}.deb", arch.debian));
    let to = file.display().to_string();
    let words = ["deb", "--no-build", "--no-strip", "--target", arch.triple, "--deb-version", version, "--output", &to];
    cargo(&words)?;
    Ok(file)
}

/// `SHA256SUMS`, as `sha256sum --check` takes it.
fn sums(files: &[PathBuf]) -> Result<(), Failed> {
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    let sums = output(Command::new("sha256sum").args(&names).current_dir(folder()))?;
    let to = folder().join("SHA256SUMS");
    fs::write(&to, &sums).map_err(at(&to))?;
    say(format!("    {}", folder().display()));
    sums.lines().for_each(|line| say(format!("    {line}")));
    Ok(())
}

/// `cargo xtask deb`: the arm64 package is installed, run, upgraded and removed in a Debian of its own.
///
/// # Errors
/// What this needs and is not here, or what went wrong.
pub(crate) fn check(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("what it takes", || {
        if !works(&["sh", "-c", "test $(id -u) = 0"]) {
            return Err(Failed("debootstrap and chroot need root: sudo cargo xtask deb".into()));
        }
        setup::packages(&[(&["debootstrap", "--version"], "debootstrap"), (&["chroot", "--version"], "coreutils")])?;
        if std::env::consts::ARCH != ARM64.machine && !Path::new(BINFMT).exists() {
            let why =
                "the kernel does not run arm64 programs by QEMU here: apt-get install qemu-user-static binfmt-support";
            return Err(Failed(why.into()));
        }
        Ok(())
    })?;
    tools(steps)?;
    steps.step("the programs", || ARCHS.iter().try_for_each(build))?;
    steps.step("manual pages and completions", texts)?;
    let version = full_version()?;
    let mut packages = Vec::new();
    steps.step("two versions of the package", || {
        for version in [format!("{version}~earlier"), version.clone()] {
            packages.push(deb(&ARM64, &version)?);
        }
        Ok(())
    })?;
    let debian = folder().join("debian-arm64");
    steps.step("a Debian for arm64", || {
        let to = debian.display().to_string();
        if debian.join("etc/debian_version").exists() {
            return Ok(());
        }
        anew(&debian)?;
        command("debootstrap", &["--arch=arm64", "--variant=minbase", "stable", &to], &[])
    })?;
    let before = files(&debian)?;
    steps.step("install and run", || {
        install(&debian, &packages[0])?;
        let shown = inside(&debian, &["armlet", "--version"])?;
        let expected = format!("armlet {version}");
        if shown.trim() != expected {
            return Err(Failed(format!("it says {shown:?} and not {expected:?}")));
        }
        inside(&debian, &["armlet", "doctor", "--no-measure", "--json"])?;
        inside(&debian, &["bash", "-n", "/usr/share/bash-completion/completions/armlet"])?;
        inside(&debian, &["gzip", "-t", "/usr/share/man/man1/armlet.1.gz"]).map(drop)
    })?;
    steps.step("upgrade", || {
        install(&debian, &packages[1])?;
        let status = inside(&debian, &["dpkg-query", "--show", "--showformat=${Status} ${Version}", "armlet"])?;
        if status != format!("install ok installed {version}") {
            return Err(Failed(format!("the package is {status:?}")));
        }
        inside(&debian, &["armlet", "--version"]).map(drop)
    })?;
    steps.step("remove", || {
        inside(&debian, &["dpkg", "--purge", "armlet"])?;
        let after = files(&debian)?;
        match after.lines().find(|line| !before.lines().any(|known| known == *line)) {
            Some(left) => Err(Failed(format!("{left} is left"))),
            None => Ok(()),
        }
    })
}

/// Where the kernel says that it runs programs for arm64 by QEMU.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc/qemu-aarch64";

/// Runs a command in the Debian.
fn inside(debian: &Path, words: &[&str]) -> Result<String, Failed> {
    output(
        Command::new("chroot")
            .arg(debian)
            .args(words)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root"),
    )
}

fn install(debian: &Path, package: &Path) -> Result<(), Failed> {
    let inner = "/tmp/armlet.deb";
    copy(package, &debian.join("tmp/armlet.deb"))?;
    inside(debian, &["dpkg", "--install", inner])?;
    inside(debian, &["rm", inner]).map(drop)
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
