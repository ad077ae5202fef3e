//! Files and memory from the operating system.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::{Mmap, MmapMut};

/// Why a file could not be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The operating system's reason.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A directory, a device or a pipe.
    #[error("it is not a regular file")]
    NotAFile,
    /// An empty file cannot be mapped.
    #[error("it is empty")]
    Empty,
}

/// A file mapped for reading: its pages are the page cache's, shared by every process that maps it.
///
/// If another process cuts the file short while it is mapped, an access beyond its new end ends this process with
/// SIGBUS, as in every program that maps files. Replace models by renaming, not in place.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the whole file at `path`.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn open(path: &Path) -> Result<Self, MapError> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(MapError::NotAFile);
        }
        if metadata.len() == 0 {
            return Err(MapError::Empty);
        }
        // SAFETY: the mapping is private and read-only. Rust asks that the bytes never change: a file changed in
        // place would break that, as the documentation above says; no check here can rule it out.
        Ok(Self(unsafe { Mmap::map(&file)? }))
    }
}

impl core::ops::Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// `bytes` of zeroed memory, aligned to a page. Pages are taken when they are first written.
///
/// # Errors
/// The operating system's, when there is not that much.
pub fn memory(bytes: usize) -> io::Result<MmapMut> {
    MmapMut::map_anon(bytes.max(1))
}
