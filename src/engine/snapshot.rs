//! Saving sessions and prefixes as bytes, and restoring sessions.
//!
//! ```text
//! header   256 bytes: model, size and format, number of tokens; checksums of the content and of the header
//! extra    what the caller adds, padded to a multiple of 64
//! groups   for the layers without a window, then for those with one:
//!              sink rows, sink scales, ring rows, ring scales; each padded to a multiple of 64
//! ```
//!
//! Rows are as in memory, `(2, layers, kv_heads, slots, head_dim)`; of each head, the slots that were ever written. Of
//! a prefix those are all, so that it can be used in place: in a mapped file, or in flash.
//!
//! A slot has the last of the positions written that it is for, zeros if there is none, whatever was there before. So the
//! bytes follow from the tokens, the position and how many positions were written, and boards that share a model, none of
//! which has all of them, write the same file (`shared_snapshot.rs`).
//!
//! Everything is little-endian. Bytes are untrusted: content is used only after both checksums and every size have been
//! checked.

use super::Session;
use super::error::SnapshotError;
use super::header::{GroupHeader, HEADER, Header};
use crate::model::{KvBuffer, KvCache, LayerGroup};
use crate::storage::Ring;
use crate::util::{SliceExt, crc32};

/// Parts start at multiples of this.
pub(super) const PART: usize = 64;
/// Padding bytes.
pub(super) const ZEROS: &[u8] = &[0; PART];

/// Bytes up to the next part.
pub(super) fn padding(len: usize) -> usize {
    len.next_multiple_of(PART) - len
}

/// Calls `f` with the slices of a buffer that were written: of each head the first `slots` slots. Then with padding.
fn visit<'s, B: AsRef<[u8]>>(buffer: &'s KvBuffer<B>, slots: usize, f: &mut impl FnMut(&'s [u8])) {
    let all = buffer.shape().slots;
    for memory in buffer.memory() {
        let mut len = 0;
        for head in memory.bytes.rows(all * memory.slot_bytes) {
            f(head.first_n(slots * memory.slot_bytes));
            len += slots * memory.slot_bytes;
        }
        f(ZEROS.first_n(padding(len)));
    }
}

/// Slots of a layer group that were ever written.
pub(super) struct Written {
    pub(super) sinks: usize,
    pub(super) ring: usize,
}

impl Written {
    pub(super) fn new(ring: &Ring, written: u64) -> Self {
        let slots = |most: usize| usize::try_from(written).map_or(most, |n| n.min(most));
        // A strided ring has two lanes, which fill at different rates: all of it counts.
        let all = if ring.is_strided() { ring.slots() } else { slots(ring.slots()) };
        Written { sinks: slots(ring.sinks), ring: all }
    }
}

/// Calls `f` with what `written` positions are in a cache, in the order of the format.
fn visit_cache<'s>(cache: &'s KvCache<'_>, written: u64, f: &mut impl FnMut(&'s [u8])) {
    for group in cache.groups() {
        let written = Written::new(group.ring(), written);
        if let Some(sinks) = group.own_sinks() {
            visit(sinks, written.sinks, f);
        }
        visit(&group.buffer, written.ring, f);
    }
}

/// Fills the first `slots` slots of each head of a buffer from `bytes`, and skips these.
fn read(buffer: &mut KvBuffer<&mut [u8]>, slots: usize, bytes: &mut &[u8]) {
    let mut next = |n: usize| {
        let (part, tail) = bytes.split_at(n.min(bytes.len()));
        *bytes = tail;
        part
    };
    let all = buffer.shape().slots;
    for memory in buffer.memory_mut() {
        let mut len = 0;
        for head in memory.bytes.rows_mut(all * memory.slot_bytes) {
            let part = next(slots * memory.slot_bytes);
            head.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            len += part.len();
        }
        next(padding(len));
    }
}

/// Fills a cache with what [`visit_cache`] gave; the caller has compared the length.
fn read_cache(cache: &mut KvCache<'_>, mut bytes: &[u8]) {
    let written = cache.written();
    for group in cache.groups_mut() {
        let written = Written::new(group.ring(), written);
        if let Some(sinks) = group.own_sinks_mut() {
            read(sinks, written.sinks, &mut bytes);
        }
        read(&mut group.buffer, written.ring, &mut bytes);
    }
}

impl Session<'_> {
    fn header(&self) -> Header {
        let mut header = Header::new(self.model, self.cache.shape(), self.shared);
        (header.position, header.written) = (self.cache.position(), self.cache.written());
        header
    }

    /// Writes the session to `sink`, part by part, with `extra` for whoever restores it.
    ///
    /// # Errors
    /// The sink's; what was written so far is then of no use.
    pub fn save<E>(&self, extra: &[u8], sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.write(self.header(), extra, sink)
    }

    /// Writes the sinks as a prefix, with which sessions of other contexts can start; see [`Prefix`](super::Prefix).
    ///
    /// # Errors
    /// [`SnapshotError::NotAPrefix`], if the session has not read exactly as many tokens as it has sinks; inside, the
    /// sink's.
    pub fn save_prefix<E>(
        &self,
        extra: &[u8],
        sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, SnapshotError> {
        let groups = &self.cache.shape().groups;
        let sinks = groups.full.sinks as u64;
        if groups.windowed.is_some() || self.shared != 0 || sinks == 0 || self.position() != sinks {
            return Err(SnapshotError::NotAPrefix);
        }
        let mut header = Header { prefix: true, ..self.header() };
        header.full = GroupHeader::prefix(header.full.layers, sinks);
        Ok(self.write(header, extra, sink))
    }

    fn write<E>(
        &self,
        mut header: Header,
        extra: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        header.extra = extra.len() as u64;
        let visit_all = |f: &mut dyn FnMut(&[u8])| {
            f(extra);
            f(ZEROS.first_n(padding(extra.len())));
            match self.cache.groups().next().and_then(LayerGroup::own_sinks).filter(|_| header.prefix) {
                Some(sinks) => visit(sinks, sinks.shape().slots, &mut |part| f(part)),
                None => visit_cache(&self.cache, self.cache.written(), &mut |part| f(part)),
            }
        };
        let mut checksum = 0;
        visit_all(&mut |part| checksum = crc32(checksum, part));
        header.checksum = checksum;
        let mut result = sink(&header.encode());
        visit_all(&mut |part| {
            if result.is_ok() && !part.is_empty() {
                result = sink(part);
            }
        });
        result
    }

    /// Bytes that [`save`](Session::save) writes, with `extra` bytes of the caller's.
    pub fn saved_bytes(&self, extra: usize) -> u64 {
        self.bytes_of(self.cache.written(), extra)
    }

    /// The same of a session of which `written` positions were written.
    fn bytes_of(&self, written: u64, extra: usize) -> u64 {
        let mut len = (HEADER + extra.next_multiple_of(PART)) as u64;
        visit_cache(&self.cache, written, &mut |part| len += part.len() as u64);
        len
    }

    /// Restores what a session of the same model and plan has saved in `bytes`; returns the caller's `extra` of then.
    ///
    /// # Errors
    /// [`SnapshotError`]; the session is then unchanged.
    pub fn restore<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], SnapshotError> {
        if !self.cache.shape().share.is_whole() {
            return Err(SnapshotError::OtherShape("number of boards"));
        }
        let header = self.check_header(bytes, &self.header())?;
        let content = header.content(bytes, |extra| self.bytes_of(header.written, extra))?;
        self.cache.clear();
        self.cache.set_position(header.position, header.written);
        read_cache(&mut self.cache, content.rows);
        Ok(content.extra)
    }

    /// The header of a saved session that this one, whose header is `mine`, can be restored from.
    pub(super) fn check_header(&self, bytes: &[u8], mine: &Header) -> Result<Header, SnapshotError> {
        let header = Header::decode(bytes)?;
        if header.prefix {
            return Err(SnapshotError::Kind(true));
        }
        header.fits(mine)?;
        // Far beyond any text, so that counting on cannot overflow.
        const MAX_POSITION: u64 = 1 << 62;
        if header.position > header.written || header.position < self.cache.shared() || header.written > MAX_POSITION {
            return Err(SnapshotError::Impossible);
        }
        let holds = |group: &LayerGroup<'_>| group.ring().holds(header.position, header.written);
        match self.limit.is_some_and(|limit| header.written > limit) || !self.cache.groups().all(holds) {
            true => Err(SnapshotError::Impossible),
            false => Ok(header),
        }
    }
}

impl Header {
    /// What follows this header in `bytes`, if its checksum is right, and its length what `saved` gives for so many bytes of the
    /// caller's.
    pub(super) fn content<'b>(
        &self,
        bytes: &'b [u8],
        saved: impl FnOnce(usize) -> u64,
    ) -> Result<Content<'b>, SnapshotError> {
        let len = bytes.len() as u64;
        let extra = usize::try_from(self.extra).ok().filter(|n| *n <= bytes.len());
        let needed = extra.map_or(u64::MAX, saved);
        let Some(extra) = extra.filter(|_| needed == len) else {
            return Err(SnapshotError::Truncated { needed, len });
        };
        let content = bytes.part(HEADER..bytes.len());
        if crc32(0, content) != self.checksum {
            return Err(SnapshotError::Checksum("content"));
        }
        Ok(Content { extra: content.first_n(extra), rows: content.part(extra.next_multiple_of(PART)..content.len()) })
    }
}

/// The two parts behind the header of a saved session.
pub(super) struct Content<'b> {
    pub(super) extra: &'b [u8],
    /// Rows and scales of the cache.
    pub(super) rows: &'b [u8],
}

/// What the header of a saved session says of it, before there is a session to restore it into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Most tokens that one of it attends to: [`Plan::context`](super::Plan::context) of the session that was saved.
    pub context: u64,
    /// It keeps every so many-th tile of older tokens, as in [`Pattern::Strided`](super::Pattern::Strided); 0 for none.
    pub every: u64,
    /// Its attention sinks, in tokens: [`Config::sinks`](super::Config::sinks) of the session that was saved.
    pub sinks: u64,
    /// Tokens that it has read.
    pub position: u64,
}

impl Saved {
    /// Reads the header of what [`Session::save`] wrote; of what follows, nothing is checked.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn new_checked(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let header = Header::decode(bytes)?;
        if header.prefix {
            return Err(SnapshotError::Kind(true));
        }
        let (full, position) = (header.full, header.position);
        Ok(Saved { context: full.capacity(), every: full.every, sinks: full.sinks, position })
    }
}
