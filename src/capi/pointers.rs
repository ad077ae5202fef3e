//! Pointers: checked once, then slices.

use super::armlet_status::{self, *};

/// The largest thing that there can be.
const MAX_BYTES: usize = isize::MAX as usize;

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

    fn overlaps(&self, other: &Span) -> bool {
        let apart =
            self.start.saturating_add(self.len) <= other.start || other.start.saturating_add(other.len) <= self.start;
        (self.written || other.written) && self.len > 0 && other.len > 0 && !apart
    }
}

/// Whether what is written is apart from all else.
pub(super) fn apart(spans: &[Span]) -> Result<(), armlet_status> {
    let mut tail = spans;
    while let Some((first, others)) = tail.split_first() {
        if others.iter().any(|other| first.overlaps(other)) {
            return Err(ARMLET_ERR_OVERLAP);
        }
        tail = others;
    }
    Ok(())
}

/// Whether there can be `n` elements at `at`. NULL is fine for none.
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

/// What is to be read.
///
/// # Safety
/// If `at` is not NULL, `n` elements are there and stay unchanged for `'c`.
pub(super) unsafe fn input<'c, T: Copy>(at: *const T, n: usize) -> Result<&'c [T], armlet_status> {
    check(at, n)?;
    // SAFETY: the caller's, and `check` has seen to NULL, alignment and size. Any bytes are a `T`: they are integers.
    Ok(if n == 0 { &[] } else { unsafe { core::slice::from_raw_parts(at, n) } })
}

/// What is to be written.
///
/// # Safety
/// If `at` is not NULL, `n` elements are there, and nothing else uses them for `'c`: see [`apart`].
pub(super) unsafe fn output<'c, T: Copy>(at: *mut T, n: usize) -> Result<&'c mut [T], armlet_status> {
    check(at, n)?;
    // SAFETY: as in `input`.
    Ok(if n == 0 { &mut [] } else { unsafe { core::slice::from_raw_parts_mut(at, n) } })
}

/// Where one value is to be written.
///
/// # Safety
/// If `at` is not NULL, there is room for a `T`.
pub(super) unsafe fn write_out<T: Copy>(at: *mut T, value: T) -> Result<(), armlet_status> {
    check(at, 1)?;
    // SAFETY: the caller's, and `check` has seen to NULL and alignment.
    unsafe { at.write(value) };
    Ok(())
}

/// A struct led by its own size, which is compared with this library's.
///
/// # Safety
/// If `at` is not NULL, a struct of the size that its first number says is there.
pub(super) unsafe fn sized<T: Copy>(at: *const T) -> Result<T, armlet_status> {
    check(at, 1)?;
    // SAFETY: every such struct starts with a `u32`.
    if unsafe { at.cast::<u32>().read() } as usize != size_of::<T>() {
        return Err(ARMLET_ERR_STRUCT);
    }
    // SAFETY: it has the size of a `T`, and consists of integers, floats, and pointers that may be NULL.
    Ok(unsafe { at.read() })
}
