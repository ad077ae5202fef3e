//! The program for those who do not build it: static, as a tarball and as a Debian package, in `target/dist`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dist::{at, copy};
use crate::limits;
use crate::process::{Failed, Steps, cargo, cargo_with, command, output, root, say, version};
use crate::setup::{self, works};

/// An architecture that packages are made for.
pub(crate) struct Arch {
    /// Rust's name of a target whose programs are static.
    pub(crate) triple: &'static str,
    /// Debian's.
    debian: &'static str,
    /// `uname -m`, and Rust's name of the host.
    pub(crate) machine: &'static str,
    /// The most bytes of its program without the features that are large.
    pub(crate) small: u64,
}

/// 4.5 MiB.
pub(crate) const ARM64: Arch =
    Arch { triple: "aarch64-unknown-linux-musl", debian: "arm64", machine: "aarch64", small: 9 << 19 };
/// 5 MiB: its kernels are larger, those without SIMD among them.
const AMD64: Arch = Arch { triple: "x86_64-unknown-linux-musl", debian: "amd64", machine: "x86_64", small: 10 << 19 };
pub(crate) const ARCHS: [Arch; 2] = [ARM64, AMD64];

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
    limits::check(steps)?;
    steps.step("manual pages and completions", || texts(host()?))?;
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
    steps.step("sums", || sums(&made))?;
    // It is built from what is packed alone, as whoever depends on it builds it.
    steps.step("the crate for Rust's registry", || {
        cargo(&["publish", "--dry-run", "--allow-dirty", "--package", "armlet"])
    })
}

/// Rust's targets and cargo-deb.
pub(crate) fn tools(steps: &mut Steps) -> Result<(), Failed> {
    steps.step("tools", || {
        setup::rustup(&["target", "add", ARM64.triple, AMD64.triple])?;
        if works(&["cargo", "deb", "--version"]) {
            return Ok(());
        }
        cargo(&["install", "--locked", "cargo-deb", "--version", CARGO_DEB])
    })
}

/// How the program is linked: relocations that take a bit each instead of 24 bytes, functions that are the same once, and no
/// tables for unwinding. No instruction of a function changes.
const LINKED: [&str; 5] = [
    "linker=rust-lld",
    "link-arg=-zpack-relative-relocs",
    "link-arg=--icf=all",
    "link-arg=--no-eh-frame-hdr",
    "link-arg=-Txtask/dist/no_unwinding.ld",
];

/// The program, which knows of which commit it is: that of the environment, where there is no repository.
pub(crate) fn build(arch: &Arch) -> Result<(), Failed> {
    compile(arch, &[])
}

/// The same without the features that are large; gives its path.
pub(crate) fn build_small(arch: &Arch) -> Result<PathBuf, Failed> {
    let folder = "target/small";
    compile(arch, &["--no-default-features", "--features", "cli,capi", "--target-dir", folder])?;
    Ok(root().join(folder).join(arch.triple).join("release/armlet"))
}

fn compile(arch: &Arch, more: &[&str]) -> Result<(), Failed> {
    let mut words = vec!["rustc", "--release", "--bin", "armlet", "--target", arch.triple];
    words.extend(more);
    words.push("--");
    words.extend(LINKED.iter().flat_map(|option| ["-C", option]));
    if std::env::var_os("ARMLET_COMMIT").is_some() {
        return cargo(&words);
    }
    let git = |args: &[&str]| output(Command::new("git").args(args)).unwrap_or_default().trim().to_string();
    let changed = if git(&["status", "--porcelain", "src", "Cargo.lock", "Cargo.toml"]).is_empty() { "" } else { "+" };
    let commit = git(&["rev-parse", "--short", "HEAD"]);
    let commit = if commit.is_empty() { "unknown".into() } else { commit + changed };
    cargo_with(&words, &[("ARMLET_COMMIT", &commit)])
}

/// The program.
pub(crate) fn program(arch: &Arch) -> PathBuf {
    root().join("target").join(arch.triple).join("release/armlet")
}

pub(crate) fn folder() -> PathBuf {
    root().join("target/dist")
}

pub(crate) fn full_version() -> Result<String, Failed> {
    Ok(version()?.join("."))
}

/// This machine's architecture.
fn host() -> Result<&'static Arch, Failed> {
    let host = std::env::consts::ARCH;
    let arch = ARCHS.iter().find(|arch| arch.machine == host);
    arch.ok_or_else(|| Failed(format!("there is no program for {host} to write them")))
}

/// The same for every architecture, so the program of one that runs here writes them.
pub(crate) fn texts(arch: &Arch) -> Result<(), Failed> {
    let program = program(arch);
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
pub(crate) fn anew(folder: &Path) -> Result<(), Failed> {
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
