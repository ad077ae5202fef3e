//! What an operating system adds: mapped files, memory, threads.

mod mmap;
mod pool;
mod sync;

pub use mmap::{MapError, MappedFile, memory};
pub use pool::Pool;
