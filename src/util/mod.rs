//! What is not specific to language models: slices that cannot panic, a binary heap, a checksum, angles, a tanh.

pub(crate) mod binary_heap;
mod crc32;
pub(crate) mod phase;
mod slice;
pub(crate) mod soft_cap;

pub(crate) use crc32::crc32;
pub(crate) use slice::SliceExt;

/// A list as the compiler does not know it: unrolled, each search in it would be a kilobyte of firmware.
#[inline(always)]
pub(crate) fn listed<T>(list: &'static [T]) -> &'static [T] {
    core::hint::black_box(list)
}
