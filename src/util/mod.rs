//! What has nothing to do with language models: slices without a way to panic, a heap, a checksum, angles.

pub(crate) mod binary_heap;
mod crc32;
pub(crate) mod phase;
mod slice;

pub(crate) use crc32::crc32;
pub(crate) use slice::{SliceExt, rest, times};
