//! The caller's pointers: checked for NULL, alignment, size and overlap, then used as slices.
//!
//! What the checks cannot see, the contracts *readable* and *writable* of [`capi`](super) promise.

#![allow(unsafe_code)]

use super::armlet_status::{self, *};
use super::{armlet_answer, armlet_bias, armlet_config, armlet_ctx, armlet_event, armlet_info, armlet_requirements};
use super::{armlet_sampling, armlet_text};
use crate::storage::{Plain, unpadded};

/// No object is larger.
const MAX_BYTES: usize = isize::MAX as usize;

// SAFETY: an integer.
unsafe impl Plain for usize {}
// SAFETY: a raw pointer has no invalid bit pattern.
unsafe impl Plain for *mut armlet_ctx {}
// SAFETY: a raw pointer has no invalid bit pattern.
unsafe impl Plain for *const f32 {}
// SAFETY: integers without padding.
unsafe impl Plain for armlet_requirements {}
// SAFETY: integers and floats without padding.
unsafe impl Plain for armlet_sampling {}
// SAFETY: integers without padding.
unsafe impl Plain for armlet_info {}
// SAFETY: integers and a float without padding.
unsafe impl Plain for armlet_event {}
// SAFETY: an integer and a float without padding.
unsafe impl Plain for armlet_bias {}
// SAFETY: a raw pointer and an integer without padding.
unsafe impl Plain for armlet_text {}

unpadded!(armlet_config: [u32; 2], u64, [u32; 10], [usize; 4], [u64; 4]);
unpadded!(armlet_requirements: [u32; 2], [u64; 5], [u32; 4]);
unpadded!(armlet_sampling: [u32; 8], u64);
unpadded!(armlet_info: [u32; 2], [u64; 2], [u32; 4], [u64; 16]);
unpadded!(armlet_answer: [u32; 2], [usize; 2], [u32; 4]);
unpadded!(armlet_event: [u32; 6]);
unpadded!(armlet_bias: [u32; 2]);
unpadded!(armlet_text: [usize; 2]);

/// A struct of the header that begins with its own size.
///
/// # Safety
/// It begins with a `u32`, and has no padding; if the contracts *readable* and *callback* hold, its bytes are a value.
pub(super) unsafe trait Versioned: Copy {}

// SAFETY: integers, a raw pointer, and callbacks, each NULL or a function of its type.
unsafe impl Versioned for armlet_config {}
// SAFETY: integers.
unsafe impl Versioned for armlet_requirements {}
// SAFETY: integers and floats.
unsafe impl Versioned for armlet_sampling {}
// SAFETY: integers.
unsafe impl Versioned for armlet_info {}
// SAFETY: integers and raw pointers.
unsafe impl Versioned for armlet_answer {}
// SAFETY: integers and a float.
unsafe impl Versioned for armlet_event {}

/// Memory that a call reads or writes.
#[derive(Clone, Copy)]
pub(super) struct Span {
    start: usize,
    len: usize,
    written: bool,
}

impl Span {
    pub(super) fn read<T>(from: *const T, n: usize) -> Self {
        Span { written: false, ..Span::written(from, n) }
    }

    pub(super) fn written<T>(to: *const T, n: usize) -> Self {
        Span { start: to.addr(), len: n.saturating_mul(size_of::<T>()), written: true }
    }

    pub(super) fn starts_at(&self, address: usize) -> bool {
        self.start == address
    }

    /// Whether the two share a byte, and at least one of them is written.
    fn conflicts_with(&self, other: &Span) -> bool {
        let apart =
            self.start.saturating_add(self.len) <= other.start || other.start.saturating_add(other.len) <= self.start;
        (self.written || other.written) && self.len > 0 && other.len > 0 && !apart
    }
}

/// Checks the contract *apart*: nothing that is written overlaps anything else.
#[inline(never)]
pub(super) fn apart(spans: &[Span]) -> Result<(), armlet_status> {
    let mut tail = spans;
    while let Some((first, others)) = tail.split_first() {
        if others.iter().any(|other| first.conflicts_with(other)) {
            return Err(ARMLET_ERR_OVERLAP);
        }
        tail = others;
    }
    Ok(())
}

/// Checks that `at` can be the address of `n` elements. NULL will do for none.
fn check<T>(at: *const T, n: usize) -> Result<(), armlet_status> {
    let bytes = n.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= MAX_BYTES).ok_or(ARMLET_ERR_LENGTH)?;
    if at.is_null() {
        return if n == 0 { Ok(()) } else { Err(ARMLET_ERR_NULL) };
    }
    if !at.is_aligned() {
        return Err(ARMLET_ERR_ALIGN);
    }
    at.addr().checked_add(bytes).map(drop).ok_or(ARMLET_ERR_LENGTH)
}

/// An input of `n` elements.
///
/// # Safety
/// *Readable*: `at`, for `n` elements, during `'c`.
pub(super) unsafe fn input<'c, T: Plain>(at: *const T, n: usize) -> Result<&'c [T], armlet_status> {
    check(at, n)?;
    // SAFETY: readable for `n`; `check` has excluded NULL, misalignment and a size that wraps; any bytes are a `Plain`.
    Ok(if n == 0 { &[] } else { unsafe { core::slice::from_raw_parts(at, n) } })
}

/// An output of `n` elements.
///
/// # Safety
/// *Writable*: `at`, for `n` elements, during `'c`, and *apart* from all else that is used then.
pub(super) unsafe fn output<'c, T: Plain>(at: *mut T, n: usize) -> Result<&'c mut [T], armlet_status> {
    check(at, n)?;
    // SAFETY: writable for `n` and apart; `check` and `Plain` as in `input`.
    Ok(if n == 0 { &mut [] } else { unsafe { core::slice::from_raw_parts_mut(at, n) } })
}

/// Writes one value.
///
/// # Safety
/// *Writable*: `at`, for one element.
pub(super) unsafe fn write_out<T: Plain>(at: *mut T, value: T) -> Result<(), armlet_status> {
    check(at, 1)?;
    // SAFETY: writable for one; `check` has excluded NULL and misalignment.
    unsafe { at.write(value) };
    Ok(())
}

/// Reads a struct that begins with its own size, a `u32`, which must be the size of `T`: a caller that was compiled
/// against another header may have a shorter one.
///
/// # Safety
/// *Readable*: `at`, for as many bytes as its first `u32` says, and for that number itself. *Callback*: for functions in it.
pub(super) unsafe fn sized<T: Versioned>(at: *const T) -> Result<T, armlet_status> {
    const { assert!(align_of::<T>() >= align_of::<u32>()) };
    check(at, 1)?;
    // SAFETY: readable for a `u32`; `check` has excluded NULL and misalignment.
    if unsafe { at.cast::<u32>().read() } as usize != size_of::<T>() {
        return Err(ARMLET_ERR_STRUCT);
    }
    // SAFETY: readable for the size that it says, which is that of a `T`; callback: so its bytes are a `Versioned` value.
    Ok(unsafe { at.read() })
}
