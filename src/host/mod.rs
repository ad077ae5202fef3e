//! What an operating system provides: mapped files, memory, threads (feature `std`).

mod mmap;
mod parts;
mod pool;
mod sync;

pub use mmap::{MapError, MappedFile, memory};
pub use parts::{PartError, PartProblem, Parts, is_part};
pub use pool::Pool;
