//! Where a model's bytes are: in the pages of its file, which the system reads and gives up as it likes, in a copy, or
//! locked in memory.

use std::io;
use std::path::PathBuf;

use armlet::host::memory;
use memmap2::MmapMut;
use rustix::process::{Resource, getrlimit};

use crate::error::Failure;
use crate::interrupt;
use crate::parts;
use crate::progress::progress;

/// Bytes that are copied or locked at once.
const PIECE: usize = 4 << 20;

/// Bytes of memory that programs may take without others being evicted, on Linux.
pub(crate) fn available() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A copy in memory of a mapped model, whose files are at `paths`; their pages are then given up.
pub(crate) fn copied(model: &[u8], paths: &[PathBuf]) -> Result<MmapMut, Failure> {
    let what = || format!("--no-mmap: a copy of the model takes {} MiB", mib(model.len() as u64));
    let instead = "leave --no-mmap out: the system then reads of the file what is needed";
    if let Some(room) = available().filter(|room| *room < model.len() as u64) {
        return Err(Failure::new(what(), format!("{} MiB are available; {instead}", mib(room))));
    }
    let mut copy = memory(model.len()).map_err(|e| Failure::new(what(), format!("{e}; {instead}")))?;
    let from = &mut model.chunks(PIECE).peekable();
    each_piece(model.len(), "reading the model", copy.chunks_mut(PIECE), |to| {
        // The next piece is read while this one is copied.
        let piece = from.next().unwrap_or_default();
        from.peek().into_iter().for_each(|next| parts::will_need(next));
        to.copy_from_slice(piece);
        Ok(to.len())
    })?;
    #[cfg(target_os = "linux")]
    for file in paths.iter().filter_map(|path| armlet::host::open(path).ok()) {
        // Where others have them mapped, they stay.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
    Ok(copy)
}

/// Keeps a model in memory until the program ends.
pub(crate) fn lock(model: &[u8]) -> Result<(), Failure> {
    each_piece(model.len(), "locking the model", model.chunks(PIECE), |piece| {
        parts::lock(piece).map(|()| piece.len()).map_err(|e| {
            let limit = match getrlimit(Resource::Memlock).current {
                Some(limit) => format!("RLIMIT_MEMLOCK allows {} MiB (ulimit -l)", mib(limit)),
                None => "RLIMIT_MEMLOCK allows any".into(),
            };
            let needed = mib(model.len() as u64);
            Failure::new(
                format!("--mlock: the model's {needed} MiB cannot be locked in memory"),
                format!("{e}; {limit}"),
            )
        })
    })
}

/// Does a part of the work for each piece, with a bar over `bytes`, until Ctrl-C; `f` gives the bytes that it did.
fn each_piece<P>(
    bytes: usize,
    what: &'static str,
    pieces: impl Iterator<Item = P>,
    mut f: impl FnMut(P) -> Result<usize, Failure>,
) -> Result<(), Failure> {
    interrupt::catch()?;
    let bar = progress(bytes as u64, what);
    let result = pieces.into_iter().try_for_each(|piece| {
        interrupt::stop()?;
        bar.inc(f(piece)? as u64);
        Ok(())
    });
    bar.finish_and_clear();
    result
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Whether reading must be waited for, as far as the system tells: more than a quarter of the files is not in memory.
pub(crate) fn is_cold(paths: &[PathBuf]) -> bool {
    let missing: u64 = paths.iter().map(|path| missing(path).unwrap_or(0)).sum();
    missing > SAMPLES * paths.len() as u64 / 4
}

/// Places where a file is looked at.
const SAMPLES: u64 = 16;

/// At how many of [`SAMPLES`] places a byte of a file is not in memory. A read that must not wait says so.
#[cfg(target_os = "linux")]
fn missing(path: &std::path::Path) -> io::Result<u64> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let file = armlet::host::open(path).map_err(io::Error::other)?;
    let bytes = file.metadata()?.len();
    let is_missing = |i: &u64| {
        let at = bytes / SAMPLES * i;
        let read = preadv2(&file, &mut [io::IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT);
        read == Err(Errno::AGAIN)
    };
    Ok((0..SAMPLES).filter(is_missing).count() as u64)
}

#[cfg(not(target_os = "linux"))]
fn missing(_: &std::path::Path) -> io::Result<u64> {
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let bytes: Vec<u8> = (0..2 * PIECE as u32 + 5).map(|i| (i >> 3) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        assert!(available().is_some_and(|room| room > 0));
        assert!(*copied(&bytes, std::slice::from_ref(&path)).unwrap() == bytes[..]);
        // What was just read is in memory, and what is not there is not on the disk.
        std::fs::read(&path).unwrap();
        assert!(!is_cold(&[path]) && !is_cold(&[folder.path().join("nothing")]));
    }
}
