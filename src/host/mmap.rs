//! Memory from the operating system: files mapped for reading, and zeroed pages.

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::{Mmap, MmapMut};

/// Why a file could not be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// An error of the operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A directory, a device or a pipe.
    #[error("it is not a regular file")]
    NotAFile,
    /// An empty file cannot be mapped.
    #[error("it is empty")]
    Empty,
}

/// A file mapped for reading: its pages are in the page cache, which all processes share.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the whole file at `path`.
    ///
    /// # Errors
    /// [`MapError`].
    ///
    /// # Safety
    /// Nobody may modify or truncate the file while it is mapped. It is borrowed as `&[u8]`, which Rust takes to be
    /// constant, so a write to it is undefined behaviour; and where a file was truncated, reading beyond its new end
    /// kills the process with SIGBUS. No check can rule either out. Replacing the file by a rename is allowed: the map
    /// keeps the old one.
    #[allow(unsafe_code)]
    pub unsafe fn open(path: &Path) -> Result<Self, MapError> {
        // SAFETY: the caller promises what `of` asks for.
        unsafe { Self::of(&open(path)?) }
    }

    /// Maps a whole file.
    ///
    /// # Errors
    /// [`MapError`].
    ///
    /// # Safety
    /// As [`open`](Self::open).
    #[allow(unsafe_code)]
    pub unsafe fn of(file: &File) -> Result<Self, MapError> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(MapError::NotAFile);
        }
        if metadata.len() == 0 {
            return Err(MapError::Empty);
        }
        // SAFETY: the caller promises what `map` asks for, that the file does not change.
        Ok(Self(unsafe { Mmap::map(file)? }))
    }
}

impl core::ops::Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Opens a regular file for reading. What the path leads to is looked at before it is opened: to open a pipe waits for
/// whoever writes to it, and to open a device may do anything.
///
/// # Errors
/// [`MapError`].
pub fn open(path: &Path) -> Result<File, MapError> {
    if std::fs::metadata(path)?.is_file() { Ok(File::open(path)?) } else { Err(MapError::NotAFile) }
}

/// `bytes` of zeroed memory, aligned to a page. A page becomes resident when it is first written.
///
/// # Errors
/// The operating system's, if there is not enough.
pub fn memory(bytes: usize) -> io::Result<MmapMut> {
    MmapMut::map_anon(bytes.max(1))
}
