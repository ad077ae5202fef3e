//! Memory that the caller owns: an arena to carve buffers from, and a safe way to share a buffer among threads.
//!
//! Nothing here allocates. This folder is one of the places where `unsafe` is allowed.

mod arena;
mod parallel;
mod ring;

pub(crate) use arena::unpadded;
pub use arena::{ALIGN, Arena, ArenaError, Plain, Region};
pub use parallel::{Executor, Grid, Outputs, Serial, Task, Tile, for_each, for_each_row, for_each_tile};
pub(crate) use ring::Ring;
pub use ring::TILE;
