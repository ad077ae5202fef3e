//! Where a model's file is, and how fast it can be read.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use armlet::host::open;

/// Bytes that are read to see how fast that is.
const PROBE: u64 = 64 << 20;

/// The file system of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its kind, as `ext4`.
    pub(crate) kind: String,
    pub(crate) device: String,
    pub(crate) folder: PathBuf,
}

impl Mount {
    /// That of the file at `path`, which is absolute, by the mounts that `/proc` below `root` lists. The last one counts: what
    /// is mounted over another hides it.
    pub(crate) fn of(root: &Path, path: &Path) -> Option<Self> {
        let list = std::fs::read_to_string(root.join("proc/self/mounts")).ok()?;
        let mount = |line: &str| {
            let mut words = line.split(' ').map(unescape);
            let (device, folder, kind) = (words.next()?, PathBuf::from(words.next()?), words.next()?);
            path.starts_with(&folder).then_some(Mount { kind, device, folder })
        };
        list.lines().filter_map(mount).max_by_key(|mount| mount.folder.components().count())
    }
}

/// The kernel writes blanks, tabs, line feeds and backslashes as `\040`, `\011`, `\012` and `\134`.
fn unescape(word: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(word.to_string(), |word, (code, plain)| word.replace(code, plain))
}

/// Bytes per second of a file's first [`PROBE`] bytes, which the kernel is first asked to forget. Where it does not, because
/// another program has them mapped, this is the rate of memory.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn read_rate(path: &Path) -> io::Result<f64> {
    let mut file = open(path).map_err(io::Error::other)?;
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    let mut buffer = vec![0; 1 << 20];
    let (start, mut read) = (Instant::now(), 0);
    while read < PROBE {
        match file.read(&mut buffer)? {
            0 => break,
            n => read += n as u64,
        }
    }
    Ok(read as f64 / start.elapsed().as_secs_f64().max(1e-9))
}
