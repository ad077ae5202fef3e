//! Where a model's bytes are: in the pages of its file, which the system reads and gives up as it likes, in a copy, or
//! locked in memory.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use armlet::gguf::File;
use armlet::host::memory;
use memmap2::MmapMut;
use rustix::process::{Resource, getrlimit};

use crate::error::Failure;
use crate::interrupt;
use crate::parts;
use crate::progress::progress;

/// Bytes that are copied or locked at once.
const PIECE: usize = 4 << 20;

/// Keeps the pages of a mapped model out of memory that are not of a board's `own` weights, but for those that are touched: the
/// system would read and map pages around those of its own, too.
pub(crate) fn leave_others(model: &[u8], file: &File<'_>, own: &[&[u8]]) {
    let at = |part: &[u8]| part.as_ptr().addr().wrapping_sub(model.as_ptr().addr());
    let first = file.tensors().map(|tensor| at(tensor.data)).min().unwrap_or(model.len());
    let own = own.iter().map(|part| at(part)..at(part) + part.len()).collect();
    between(first..model.len(), own).into_iter().filter_map(|range| model.get(range)).for_each(parts::are_sparse);
}

/// What of a range is in none of these.
fn between(all: Range<usize>, mut parts: Vec<Range<usize>>) -> Vec<Range<usize>> {
    parts.sort_by_key(|part| part.start);
    let end = Range { start: all.end, end: all.end };
    let gaps = parts.into_iter().chain([end]).scan(all.start, |at, part| {
        let gap = *at..part.start.min(all.end);
        *at = part.end.max(*at);
        Some(gap)
    });
    gaps.filter(|gap| !gap.is_empty()).collect()
}

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

/// Keeps a model, or a board's own parts of it, in memory until the program ends.
pub(crate) fn lock(parts: &[&[u8]]) -> Result<(), Failure> {
    let bytes = parts.iter().map(|part| part.len()).sum();
    each_piece(bytes, "locking the model", parts.iter().flat_map(|part| part.chunks(PIECE)), |piece| {
        parts::lock(piece).map(|()| piece.len()).map_err(|e| {
            let limit = match getrlimit(Resource::Memlock).current {
                Some(limit) => format!("RLIMIT_MEMLOCK allows {} MiB (ulimit -l)", mib(limit)),
                None => "RLIMIT_MEMLOCK allows any".into(),
            };
            let needed = mib(bytes as u64);
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
    let _caught = interrupt::Caught::new()?;
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

    /// Weights in any order, some of them empty, or beside each other.
    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a range is meant")]
    fn what_is_between_a_boards_weights() {
        let found = between(10..100, vec![50..60, 10..20, 30..30, 60..70, 20..30]);
        assert_eq!(found, [30..50, 70..100]);
        assert_eq!(between(0..9, vec![]), [0..9]);
        assert!(between(5..9, vec![0..9]).is_empty() && between(9..9, vec![3..5]).is_empty());
        assert_eq!(between(0..9, vec![2..40]), [0..2]);
    }

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
