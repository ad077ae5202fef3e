//! A bump allocator over the caller's memory, and its dry run, which is the planner.
//!
//! The code that carves an arena is the code that sizes it: run over [`Arena::dry_run`], it touches no memory and
//! [`Arena::used`] is the plan; run over that many bytes, it succeeds and uses exactly those. So plan and use cannot
//! disagree.

#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::mem::{align_of, size_of};
use core::ptr::NonNull;

/// Alignment in bytes of an arena's base and of every buffer in it: a cache line of all supported cores.
pub const ALIGN: usize = 64;

/// A type for which every bit pattern is valid, without padding or a destructor.
///
/// # Safety
/// The type must be such a type, and aligned to no more than [`ALIGN`].
pub unsafe trait Plain: Copy + 'static {}
// SAFETY: the contract of `Plain`: integers and floats have no padding, no destructor and no invalid bit pattern.
unsafe impl Plain for u8 {}
// SAFETY: as for `u8`.
unsafe impl Plain for i8 {}
// SAFETY: as for `u8`.
unsafe impl Plain for u32 {}
// SAFETY: as for `u8`.
unsafe impl Plain for i32 {}
// SAFETY: as for `u8`.
unsafe impl Plain for u64 {}
// SAFETY: as for `u8`.
unsafe impl Plain for f32 {}
// SAFETY: an array of `Plain` elements adds no padding.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The memory of some numbers, as this CPU stores them.
pub(crate) fn bytes_of_mut<T: Plain>(x: &mut [T]) -> &mut [u8] {
    // SAFETY: the slice's own memory, borrowed as it is; a `Plain` type has no padding, so all of it is initialised, and any
    // bytes that are written are a `T`.
    unsafe { core::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), size_of_val(x)) }
}

/// Why an arena could not be made or carved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ArenaError {
    /// The base address is not a multiple of [`ALIGN`].
    #[error("the arena must start at a multiple of {ALIGN} bytes")]
    Misaligned,
    /// The memory is too small.
    #[error("the arena is too small: {name} ends at byte {needed}, but it has only {len} bytes")]
    TooSmall {
        /// The buffer that did not fit.
        name: &'static str,
        /// Bytes needed, up to its end.
        needed: usize,
        /// Bytes that the arena has.
        len: usize,
    },
    /// A size does not fit the address space.
    #[error("the size of {0} overflows the address space")]
    Overflow(&'static str),
}

/// Asserts that a type is no larger than its fields together, so that it has no padding.
macro_rules! unpadded {
    ($type:ty: $($field:ty),+) => {
        const _: () = assert!(size_of::<$type>() == 0 $(+ size_of::<$field>())+, "the type has padding");
    };
}
pub(crate) use unpadded;

/// A buffer of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// What it is for.
    pub name: &'static str,
    /// Offset from the arena's base, in bytes.
    pub offset: usize,
    /// Length in bytes, without the padding before the next buffer.
    pub bytes: usize,
    /// Shape in elements, slowest dimension first, padded with ones in front.
    pub shape: [usize; 5],
}

/// A bump allocator over borrowed memory.
///
/// Buffers of [`Plain`] types are not cleared: a large KV cache costs no physical memory until it is written.
pub struct Arena<'a> {
    base: Option<NonNull<u8>>,
    len: usize,
    used: usize,
    observer: Option<&'a mut dyn FnMut(Region)>,
    bytes: PhantomData<&'a mut [u8]>,
}

impl<'a> Arena<'a> {
    /// An arena over `memory`, which must start at a multiple of [`ALIGN`].
    ///
    /// # Errors
    /// [`ArenaError::Misaligned`].
    pub fn new(memory: &'a mut [u8]) -> Result<Self, ArenaError> {
        if !memory.as_ptr().addr().is_multiple_of(ALIGN) {
            return Err(ArenaError::Misaligned);
        }
        let len = memory.len();
        Ok(Self { base: Some(NonNull::from(memory).cast()), len, used: 0, observer: None, bytes: PhantomData })
    }

    /// An arena that only counts: its buffers are empty slices.
    pub fn dry_run() -> Self {
        Self { base: None, len: isize::MAX.unsigned_abs(), used: 0, observer: None, bytes: PhantomData }
    }

    /// A dry run that also reports each buffer to `observer`.
    pub fn dry_run_with(observer: &'a mut dyn FnMut(Region)) -> Self {
        Self { observer: Some(observer), ..Self::dry_run() }
    }

    /// Bytes used so far, padding included. At the end of a dry run this is the plan.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether this is a dry run, in which all buffers are empty.
    pub fn is_dry(&self) -> bool {
        self.base.is_none()
    }

    /// Carves a buffer of this shape, of at most five dimensions, not cleared. Empty in a dry run.
    ///
    /// # Errors
    /// [`ArenaError::TooSmall`] or [`ArenaError::Overflow`].
    pub fn alloc<T: Plain>(&mut self, name: &'static str, shape: &[usize]) -> Result<&'a mut [T], ArenaError> {
        let (Some(start), n) = self.bump::<T>(name, shape)? else { return Ok(&mut []) };
        // SAFETY: `bump` returns `n` aligned elements inside the memory borrowed for 'a, and never the same bytes
        // twice; these are initialised (they came as `&mut [u8]`), and by the contract of `Plain` any bit pattern is a
        // `T`.
        Ok(unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), n) })
    }

    /// Carves `n` elements and sets each to `make(index)`. In a dry run `make` is not called and the slice is empty.
    ///
    /// `T` must have no padding, which [`unpadded!`](crate::storage::unpadded) asserts next to each type used here: a write
    /// does not initialise padding, and the caller gets these bytes back when the arena's lifetime ends.
    ///
    /// # Errors
    /// Those of [`Arena::alloc`] and of `make`.
    pub(crate) fn build<T: Copy + 'a, E: From<ArenaError>>(
        &mut self,
        name: &'static str,
        n: usize,
        mut make: impl FnMut(usize) -> Result<T, E>,
    ) -> Result<&'a mut [T], E> {
        let (Some(start), n) = self.bump::<T>(name, &[n])? else { return Ok(&mut []) };
        for i in 0..n {
            let value = make(i)?;
            // SAFETY: `bump` returned `n` aligned elements of memory that only this arena has, and `i < n`.
            unsafe { start.add(i).write(value) };
        }
        // SAFETY: as in `alloc`, and the loop has initialised all `n` elements.
        Ok(unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), n) })
    }

    /// The address of the next buffer, and its number of elements; no address in a dry run.
    fn bump<T>(&mut self, name: &'static str, shape: &[usize]) -> Result<(Option<NonNull<T>>, usize), ArenaError> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let (start, n) = self.take(name, shape, size_of::<T>())?;
        Ok((start.map(NonNull::cast), n))
    }

    /// The same for elements of `size` bytes; compiled once for all types.
    #[inline(never)]
    fn take(
        &mut self,
        name: &'static str,
        shape: &[usize],
        size: usize,
    ) -> Result<(Option<NonNull<u8>>, usize), ArenaError> {
        let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or(ArenaError::Overflow(name))?;
        let bytes = n.checked_mul(size).ok_or(ArenaError::Overflow(name))?;
        let padded = bytes.checked_next_multiple_of(ALIGN).ok_or(ArenaError::Overflow(name))?;
        let end = self.used.checked_add(padded).ok_or(ArenaError::Overflow(name))?;
        if end > self.len {
            return Err(ArenaError::TooSmall { name, needed: end, len: self.len });
        }
        if let Some(observer) = &mut self.observer {
            let mut dims = [1; 5];
            for (slot, d) in dims.iter_mut().rev().zip(shape.iter().rev()) {
                *slot = *d;
            }
            observer(Region { name, offset: self.used, bytes, shape: dims });
        }
        // SAFETY: `used <= end <= len`, and `base` is the start of `len` borrowed bytes, so the offset stays within (or
        // one past) them.
        let start = self.base.map(|base| unsafe { base.add(self.used) });
        self.used = end;
        Ok((start, n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(64))]
    struct Aligned([u8; 1024]);

    fn carve(arena: &mut Arena<'_>) -> Result<usize, ArenaError> {
        let a = arena.alloc::<u8>("a", &[3])?.len();
        let b = arena.alloc::<f32>("b", &[17])?.len();
        let c = arena.build::<[u32; 2], ArenaError>("c", 5, |i| Ok([i as u32, 7]))?.len();
        Ok(a + b + c)
    }

    #[test]
    fn plan_and_use_agree_to_the_byte() {
        let mut dry = Arena::dry_run();
        assert_eq!(carve(&mut dry), Ok(0));
        let needed = dry.used();
        assert_eq!(needed, 64 + 128 + 64);
        let mut memory = Aligned([0; 1024]);
        let mut arena = Arena::new(&mut memory.0[..needed]).unwrap();
        assert_eq!(carve(&mut arena), Ok(3 + 17 + 5));
        assert_eq!(arena.used(), needed);
        let mut short = Arena::new(&mut memory.0[..needed - 1]).unwrap();
        assert_eq!(carve(&mut short), Err(ArenaError::TooSmall { name: "c", needed, len: needed - 1 }));
    }

    #[test]
    fn refuses_what_it_cannot_hold() {
        let mut memory = Aligned([0; 1024]);
        assert_eq!(Arena::new(&mut memory.0[1..]).err(), Some(ArenaError::Misaligned));
        let mut dry = Arena::dry_run();
        assert_eq!(dry.alloc::<f32>("x", &[usize::MAX / 2, 3]).err(), Some(ArenaError::Overflow("x")));
    }

    #[test]
    fn the_observer_sees_each_region() {
        let mut seen = [Region { name: "", offset: 0, bytes: 0, shape: [0; 5] }; 3];
        let mut n = 0;
        let mut observe = |r| {
            seen[n] = r;
            n += 1;
        };
        carve(&mut Arena::dry_run_with(&mut observe)).unwrap();
        assert_eq!(seen[1], Region { name: "b", offset: 64, bytes: 68, shape: [1, 1, 1, 1, 17] });
    }
}
