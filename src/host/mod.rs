//! What an operating system provides: mapped files, memory, threads (feature `std`).

mod mmap;
mod pool;
mod sync;

pub use mmap::{MapError, MappedFile, memory, open};
pub use pool::Pool;
