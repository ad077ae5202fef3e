//! A bounds-checked little-endian reader of untrusted bytes.

use super::{GgufError, Problem};
use crate::util::SliceExt;

/// A position in a slice. Every read checks first that enough bytes are left (rule K1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(super) fn error(&self, problem: Problem) -> GgufError {
        GgufError { problem, offset: self.at as u64 }
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], GgufError> {
        let tail = self.bytes.part(self.at..self.bytes.len());
        let taken = tail.get(..n).ok_or(self.error(Problem::Truncated))?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let taken = self.take(N)?;
        Ok(taken.first_chunk().copied().unwrap_or([0; N]))
    }

    pub(super) fn u8(&mut self) -> Result<u8, GgufError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, GgufError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length-prefixed string of at most `cap` bytes (rule K2).
    pub(super) fn string(&mut self, cap: usize) -> Result<&'a [u8], GgufError> {
        let tail = self.bytes.part(self.at..self.bytes.len());
        let (len, tail) = tail.split_first_chunk().ok_or(self.error(Problem::Truncated))?;
        let len = u64::from_le_bytes(*len);
        if len > cap as u64 {
            return Err(self.error(Problem::StringTooLong));
        }
        // At most `cap`, so the cast is exact.
        let string = tail.get(..len as usize).ok_or(self.error(Problem::Truncated))?;
        self.at += 8 + string.len();
        Ok(string)
    }
}
