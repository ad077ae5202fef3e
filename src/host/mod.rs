//! What an operating system adds: mapped files, memory, threads, known models.

mod memory;
mod pool;

pub use memory::{MapError, Mapped, memory};
pub use pool::Pool;
