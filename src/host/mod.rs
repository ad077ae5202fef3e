//! What an operating system adds: mapped files, memory, threads.

mod memory;
mod pool;
mod sync;

pub use memory::{MapError, Mapped, memory};
pub use pool::Pool;
