//! Memory that the caller owns: an arena to carve buffers from, tiles that threads may write at the same time, and the
//! positions that a KV cache keeps.
//!
//! Nothing here allocates. `unsafe` is allowed in `arena.rs` and `tiles.rs` only.

mod arena;
#[cfg(feature = "boards")]
mod blocks;
mod executor;
#[cfg(feature = "boards")]
mod held;
#[cfg(feature = "boards")]
mod pieces;
mod ring;
mod tiles;

pub use arena::{ALIGN, Arena, ArenaError, Plain, Region};
pub(crate) use arena::{bytes_of_mut, unpadded};
#[cfg(feature = "boards")]
pub(crate) use blocks::Blocks;
pub use executor::{Executor, Serial, Task, for_each};
#[cfg(feature = "boards")]
pub(crate) use pieces::Piece;
pub(crate) use ring::{Attended, Part, Ring};
pub use ring::{LEAF, TILE};
pub use tiles::{Grid, Outputs, Tile, TileShape, for_each_row, for_each_tile, for_each_tile_with_scratch};
