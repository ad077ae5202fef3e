//! The files of a model's parts, mapped one behind another.

use std::fs::File;
use std::io;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};

/// Bytes of a page.
pub(super) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Asks the operating system to read the pages of `bytes` soon. That it does not is no error.
#[allow(unsafe_code)]
pub(crate) fn will_need(bytes: &[u8]) {
    let before = bytes.as_ptr().addr() % page_size();
    let start = bytes.as_ptr().wrapping_sub(before).cast_mut();
    // SAFETY: a hint, which changes neither what is mapped nor what is in it.
    let _ = unsafe { madvise(start.cast(), before + bytes.len(), Advice::WillNeed) };
}

/// Tells the operating system that of `bytes` few may be wanted: it reads no pages around one that is touched, and makes none
/// resident because one beside `bytes` is touched. Pages that are not whole in `bytes` stay as they are.
#[allow(unsafe_code)]
pub(crate) fn are_sparse(bytes: &[u8]) {
    let before = bytes.as_ptr().addr().wrapping_neg() % page_size();
    let len = bytes.len().saturating_sub(before) / page_size() * page_size();
    let start = bytes.as_ptr().wrapping_add(before).cast_mut();
    if len > 0 {
        // SAFETY: a hint, which changes neither what is mapped nor what is in it.
        let _ = unsafe { madvise(start.cast(), len, Advice::Random) };
    }
}

/// Reads the pages of `bytes`, and keeps them in memory as long as they are mapped.
///
/// # Errors
/// The operating system's: more than it allows this process, or than there is.
#[allow(unsafe_code)]
pub(crate) fn lock(bytes: &[u8]) -> io::Result<()> {
    let before = bytes.as_ptr().addr() % page_size();
    let start = bytes.as_ptr().wrapping_sub(before).cast_mut();
    // SAFETY: changes neither what is mapped nor what is in it.
    Ok(unsafe { mlock(start.cast(), before + bytes.len()) }?)
}

/// Where files of these lengths start that are mapped behind `head` bytes: each at a page.
///
/// # Errors
/// There are not so many addresses.
pub(super) fn starts(head: usize, lengths: &[usize]) -> io::Result<Vec<usize>> {
    let page = page_size();
    let (mut starts, mut next) = (Vec::new(), head.checked_next_multiple_of(page));
    for len in lengths {
        starts.extend(next);
        next = next.and_then(|start| start.checked_add(*len)?.checked_next_multiple_of(page));
    }
    match next {
        Some(end) if isize::try_from(end).is_ok() => Ok(starts),
        _ => Err(io::ErrorKind::OutOfMemory.into()),
    }
}

/// Bytes in memory and files behind them, mapped for reading as one slice; see [`starts`].
#[derive(Debug)]
pub(super) struct MappedParts {
    start: NonNull<u8>,
    len: usize,
}

impl MappedParts {
    /// Maps files whose lengths are known.
    ///
    /// # Errors
    /// The operating system's.
    ///
    /// # Safety
    /// As [`MappedFile::open`](armlet::host::MappedFile::open), for each file; and the lengths are theirs.
    #[allow(unsafe_code)]
    pub(super) unsafe fn new(head: &[u8], files: &[(&File, usize)]) -> io::Result<Self> {
        let lengths: Vec<_> = files.iter().map(|(_, len)| *len).collect();
        let starts = starts(head.len(), &lengths)?;
        let len = starts.last().zip(lengths.last()).map_or(head.len(), |(start, len)| start + len);
        // Addresses alone: memory that nobody can touch takes none.
        // SAFETY: the system chooses where.
        let reserved = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let start = NonNull::new(reserved.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let parts = Self { start, len };
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: the first bytes of what was reserved; nothing has been lent of it yet, and it is as long as `head`.
        unsafe {
            mmap_anonymous(reserved, head.len(), ProtFlags::READ | ProtFlags::WRITE, flags)?;
            start.copy_from_nonoverlapping(NonNull::from(head).cast(), head.len());
        }
        for ((file, len), at) in files.iter().zip(starts) {
            // SAFETY: `starts` gives each file pages of its own within what was reserved; nothing has been lent of it yet.
            unsafe { mmap(start.add(at).as_ptr().cast(), *len, ProtFlags::READ, flags, file, 0)? };
        }
        Ok(parts)
    }
}

impl std::ops::Deref for MappedParts {
    type Target = [u8];
    #[allow(unsafe_code)]
    fn deref(&self) -> &[u8] {
        // Between two files there are at most the rest of the one's last page, which is zeros.
        // SAFETY: `new` has mapped `len` bytes from `start` on for reading, and its caller promised that they do not change.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for MappedParts {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: `new` mapped these pages, and what was lent of them has been given back.
        // An error would mean that they are not mapped.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_start_at_pages_of_their_own() {
        let page = page_size();
        assert_eq!(starts(1, &[1, page, page + 1, 5]).unwrap(), [page, 2 * page, 3 * page, 5 * page]);
        assert_eq!(starts(page, &[7]).unwrap(), [page]);
        assert!(starts(0, &[]).unwrap().is_empty());
        for lengths in [&[usize::MAX][..], &[usize::MAX / 2, usize::MAX / 2], &[isize::MAX as usize, 1]] {
            assert_eq!(starts(1, lengths).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        }
    }
}
