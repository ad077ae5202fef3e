//! Sessions and prefixes as bytes: to be kept, and used again by the same model.
//!
//! ```text
//! header   256 bytes: what it is, of what model, of what shape, how long; checksums of the rest and of itself
//! extra    what the caller adds, to a multiple of 64
//! class    for the layers that see all, then for those with a window:
//!              pinned rows, their scales, the ring's rows, its scales; each to a multiple of 64
//! ```
//!
//! Rows are as they lie in memory, `(2, layers, kv_heads, slots, head_dim)`, of each head as many as were ever written.
//! Of a prefix that is all of them, so that they can be used where they lie: in a mapped file, or in flash.
//!
//! Everything is little-endian. A file is hostile until checked: what is in it is used only after both checksums and
//! every size have been.

use super::{EngineError, Plan, Session};
use crate::arch::KvType;
use crate::model::{CacheShape, KvBuffer, KvCache, KvShape, LayerGroup, Model};
use crate::storage::Ring;
use crate::util::{SliceExt, crc32};

/// Of the format.
const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"ARMLETKV";
const HEADER: usize = 256;
/// Parts start at multiples of this.
const PART: usize = 64;
/// To fill them up.
const ZEROS: &[u8] = &[0; PART];

/// Why saved bytes cannot be used. The session that was to take them is then as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SnapshotError {
    /// No header.
    #[error("it is no saved session or prefix")]
    Magic,
    /// A later format.
    #[error("its format is {0}, and this program knows {VERSION}")]
    Version(u32),
    /// A prefix for a session, or the other way round.
    #[error("it is a {}, where a {} is needed", kind(*.0), kind(!*.0))]
    Kind(bool),
    /// Bytes that are not those that were written.
    #[error("its {0} is damaged: the checksum does not match")]
    Checksum(&'static str),
    /// Fewer bytes than the header says.
    #[error("it has {len} bytes, and should have {needed}: it was cut off, or something was added")]
    Truncated {
        /// Bytes that it should have.
        needed: u64,
        /// Bytes that there are.
        len: u64,
    },
    /// A model with other weights, sizes or rotation.
    #[error("it belongs to another model")]
    OtherModel,
    /// A cache of another shape.
    #[error("it was made with another {0}; use the options that it was made with")]
    OtherShape(&'static str),
    /// A position that its shape cannot have.
    #[error("its header is impossible")]
    Impossible,
    /// Not all that is to be a prefix is pinned.
    #[error("a prefix is the pinned positions of a session that has read them and no more")]
    NotAPrefix,
}

fn kind(prefix: bool) -> &'static str {
    if prefix { "prefix" } else { "session" }
}

/// The numbers of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    prefix: bool,
    model: u64,
    element: u32,
    hadamard: u32,
    /// Of both classes: layers, pinned positions, and the numbers of the ring.
    groups: [[u64; 7]; 2],
    kv_heads: u64,
    head_dim: u64,
    /// Checksum of the header of the prefix that the session starts with; 0 if there is none.
    shared: u64,
    position: u64,
    written: u64,
    extra: u64,
    checksum: u32,
}

impl Header {
    /// Of a cache, with nothing in it.
    fn new(model: &Model<'_>, shape: &CacheShape, shared: u64) -> Self {
        let h = &model.hparams;
        let layers = shape.rings.layers(h);
        let group = |ring: Option<Ring>, layers: usize| {
            ring.map_or([0; 7], |ring| {
                let [sinks, window, every, kept, recent, old] = ring.numbers();
                [layers as u64, sinks, window, every, kept, recent, old]
            })
        };
        Header {
            prefix: false,
            model: model.fingerprint(),
            element: shape.element as u32,
            hadamard: u32::from(shape.hadamard),
            groups: [group(Some(shape.rings.full), layers[0]), group(shape.rings.windowed, layers[1])],
            kv_heads: h.n_kv_heads as u64,
            head_dim: h.head_dim as u64,
            shared,
            position: 0,
            written: 0,
            extra: 0,
            checksum: 0,
        }
    }

    fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let head = [VERSION, u32::from(self.prefix), self.element, self.hadamard];
        let numbers = [self.model, self.kv_heads, self.head_dim, self.shared, self.position, self.written, self.extra];
        let bytes = MAGIC.into_iter();
        let bytes = bytes.chain(head.into_iter().flat_map(u32::to_le_bytes));
        let bytes = bytes.chain(numbers.into_iter().flat_map(u64::to_le_bytes));
        let bytes = bytes.chain(self.groups.as_flattened().iter().flat_map(|n| n.to_le_bytes()));
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
        out[HEADER - 8..HEADER - 4].copy_from_slice(&self.checksum.to_le_bytes());
        let own = crc32(0, &out[..HEADER - 4]);
        out[HEADER - 4..].copy_from_slice(&own.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let header = bytes.first_chunk::<HEADER>().filter(|h| h.starts_with(&MAGIC)).ok_or(SnapshotError::Magic)?;
        let (words, _) = header[MAGIC.len()..].as_chunks::<4>();
        let word = |i: usize| u32::from_le_bytes(words[i]);
        let (longs, _) = header[MAGIC.len() + 16..].as_chunks::<8>();
        let long = |i: usize| u64::from_le_bytes(longs[i]);
        // A later version may have its checksum elsewhere.
        if word(0) != VERSION {
            return Err(SnapshotError::Version(word(0)));
        }
        if crc32(0, &header[..HEADER - 4]).to_le_bytes() != header[HEADER - 4..] {
            return Err(SnapshotError::Checksum("header"));
        }
        Ok(Header {
            prefix: word(1) != 0,
            element: word(2),
            hadamard: word(3),
            model: long(0),
            kv_heads: long(1),
            head_dim: long(2),
            shared: long(3),
            position: long(4),
            written: long(5),
            extra: long(6),
            groups: core::array::from_fn(|c| core::array::from_fn(|i| long(7 + 7 * c + i))),
            checksum: u32::from_le_bytes([
                header[HEADER - 8],
                header[HEADER - 7],
                header[HEADER - 6],
                header[HEADER - 5],
            ]),
        })
    }

    /// What keeps a cache of which `mine` is the header from taking what belongs to this one.
    fn fits(&self, mine: &Header) -> Result<(), SnapshotError> {
        let checks = [
            (self.shared == mine.shared, "--prefix"),
            (self.kv_heads == mine.kv_heads && self.head_dim == mine.head_dim, "number or size of heads"),
            (self.element == mine.element, "--kv-type"),
            (self.hadamard == mine.hadamard, "--hadamard"),
            (self.groups == mine.groups, "context (-c, --kv-budget, --sinks, --pattern or --slack)"),
        ];
        if self.model != mine.model {
            return Err(SnapshotError::OtherModel);
        }
        checks.into_iter().find(|(same, _)| !same).map_or(Ok(()), |(_, what)| Err(SnapshotError::OtherShape(what)))
    }
}

/// Bytes to fill up to a whole part.
fn padding(len: usize) -> usize {
    len.next_multiple_of(PART) - len
}

/// Calls `f` with each slice of a segment that holds what was written: of each head the first `used` slots.
fn used_parts<'s, B: AsRef<[u8]>>(buffer: &'s KvBuffer<B>, used: usize, f: &mut impl FnMut(&'s [u8])) {
    let g = buffer.shape();
    for memory in buffer.memory() {
        let slot = bytes_of_a_slot(memory, g);
        let mut len = 0;
        for head in memory.chunks_exact((g.slots * slot).max(1)) {
            f(head.first_n(used * slot));
            len += used * slot;
        }
        f(ZEROS.first_n(padding(len)));
    }
}

/// Bytes of a slot in the rows or in the scales of a segment.
fn bytes_of_a_slot(memory: &[u8], g: &KvShape) -> usize {
    memory.len() / (2 * g.layers * g.kv_heads * g.slots).max(1)
}

/// Slots of a class that were ever written: pinned ones, and of the ring.
fn used(ring: &Ring, written: u64) -> [usize; 2] {
    let slots = |n: u64, most: usize| usize::try_from(n).map_or(most, |n| n.min(most));
    // A strided ring deals tiles to two rings; then all of it counts.
    let all = if ring.is_strided() { ring.slots() } else { slots(written, ring.slots()) };
    [slots(written, ring.sinks()), all]
}

impl KvCache<'_> {
    /// Calls `f` with all that was written, in the order of the format.
    fn parts<'s>(&'s self, f: &mut impl FnMut(&'s [u8])) {
        for group in self.groups() {
            let [sinks, ring] = used(group.ring(), self.written());
            if let Some(buffer) = group.own() {
                used_parts(buffer, sinks, f);
            }
            used_parts(&group.buffer, ring, f);
        }
    }

    /// Takes what [`parts`](KvCache::parts) gave, from `bytes`; the caller has compared the length.
    fn take(&mut self, mut bytes: &[u8]) {
        let written = self.written();
        let mut next = |n: usize| {
            let (part, rest) = bytes.split_at(n.min(bytes.len()));
            bytes = rest;
            part
        };
        for group in self.groups_mut() {
            let [sinks, ring] = used(group.ring(), written);
            for (buffer, used) in group.owned_mut().into_iter().zip([sinks, ring]) {
                let Some(buffer) = buffer else { continue };
                let shape = *buffer.shape();
                for memory in buffer.memory_mut() {
                    let slot = bytes_of_a_slot(memory, &shape);
                    let mut len = 0;
                    for head in memory.chunks_exact_mut((shape.slots * slot).max(1)) {
                        let part = next(used * slot);
                        head.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
                        len += part.len();
                    }
                    next(padding(len));
                }
            }
        }
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

    /// Writes the pinned positions as a prefix, which sessions of other shapes can start with; see
    /// [`Prefix`](super::Prefix).
    ///
    /// # Errors
    /// [`SnapshotError::NotAPrefix`] inside, if the session has not read just as many tokens as are pinned; the sink's.
    pub fn save_prefix<E>(
        &self,
        extra: &[u8],
        sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, SnapshotError> {
        let sinks = self.cache.shape().rings.full.sinks() as u64;
        if self.cache.shape().rings.windowed.is_some() || self.shared != 0 || sinks == 0 || self.position() != sinks {
            return Err(SnapshotError::NotAPrefix);
        }
        let mut header = Header { prefix: true, ..self.header() };
        // Of the ring nothing is kept; a prefix is its pinned positions.
        header.groups[0] = [header.groups[0][0], sinks, 0, 0, 0, 0, 0];
        Ok(self.write(header, extra, sink))
    }

    fn write<E>(
        &self,
        mut header: Header,
        extra: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        header.extra = extra.len() as u64;
        let each = |f: &mut dyn FnMut(&[u8])| {
            f(extra);
            f(ZEROS.first_n(padding(extra.len())));
            match self.cache.groups().next().and_then(|group| group.own()).filter(|_| header.prefix) {
                Some(sinks) => used_parts(sinks, sinks.shape().slots, &mut |part| f(part)),
                None => self.cache.parts(&mut |part| f(part)),
            }
        };
        let mut checksum = 0;
        each(&mut |part| checksum = crc32(checksum, part));
        header.checksum = checksum;
        let mut result = sink(&header.encode());
        each(&mut |part| {
            if result.is_ok() && !part.is_empty() {
                result = sink(part);
            }
        });
        result
    }

    /// Bytes that [`save`](Session::save) writes, with `extra` bytes of the caller's.
    pub fn saved_bytes(&self, extra: usize) -> u64 {
        let mut len = (HEADER + extra.next_multiple_of(PART)) as u64;
        self.cache.parts(&mut |part| len += part.len() as u64);
        len
    }

    /// Becomes the session that was saved in `bytes`, by a session of the same model and the same plan; gives what was
    /// saved with it.
    ///
    /// # Errors
    /// [`SnapshotError`]; the session is then as it was.
    pub fn restore<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], SnapshotError> {
        let header = Header::decode(bytes)?;
        if header.prefix {
            return Err(SnapshotError::Kind(true));
        }
        header.fits(&self.header())?;
        let pinned_prefix = self.cache.shared();
        // Beyond any text, so that counting on cannot overflow.
        let end = 1 << 62;
        if header.position > header.written || header.position < pinned_prefix || header.written > end {
            return Err(SnapshotError::Impossible);
        }
        let holds = |group: &LayerGroup<'_>| group.ring().holds(header.position, header.written);
        if self.limit.is_some_and(|limit| header.written > limit) || !self.cache.groups().all(holds) {
            return Err(SnapshotError::Impossible);
        }
        let before = (self.cache.position(), self.cache.written());
        self.cache.set_position(header.position, header.written);
        let content = bytes.get(HEADER..).unwrap_or(&[]);
        let extra = usize::try_from(header.extra).ok().filter(|n| *n <= bytes.len());
        let needed = extra.map_or(u64::MAX, |extra| self.saved_bytes(extra));
        let checked = match extra {
            Some(extra) if needed == bytes.len() as u64 && crc32(0, content) == header.checksum => Ok(extra),
            Some(_) if needed == bytes.len() as u64 => Err(SnapshotError::Checksum("content")),
            _ => Err(SnapshotError::Truncated { needed, len: bytes.len() as u64 }),
        };
        match checked {
            Ok(extra) => {
                self.cache.take(content.get(extra.next_multiple_of(PART)..).unwrap_or(&[]));
                Ok(content.first_n(extra))
            }
            Err(e) => {
                self.cache.set_position(before.0, before.1);
                Err(e)
            }
        }
    }
}

/// Tokens that were read once, to be the start of any number of sessions: their keys and values are used where they
/// lie, and shared.
#[derive(Clone, Copy)]
pub struct Prefix<'p> {
    sinks: KvBuffer<&'p [u8]>,
    hadamard: bool,
    extra: &'p [u8],
    id: u64,
}

impl<'p> Prefix<'p> {
    /// The prefix that [`Session::save_prefix`] wrote, for a model.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn new_checked(bytes: &'p [u8], model: &Model<'_>) -> Result<Self, SnapshotError> {
        let header = Header::decode(bytes)?;
        if !header.prefix {
            return Err(SnapshotError::Kind(false));
        }
        let h = &model.hparams;
        if header.model != model.fingerprint() {
            return Err(SnapshotError::OtherModel);
        }
        let element = [KvType::F16, KvType::Int8, KvType::F32].into_iter().find(|e| *e as u32 == header.element);
        let [layers, sinks, ..] = header.groups[0];
        let slots = usize::try_from(sinks).ok().filter(|n| (1..=h.context_length).contains(n));
        let (Some(element), Some(slots)) = (element, slots) else { return Err(SnapshotError::Impossible) };
        let same = (layers, header.kv_heads, header.head_dim, header.position);
        if same != (h.n_layers as u64, h.n_kv_heads as u64, h.head_dim as u64, sinks) {
            return Err(SnapshotError::Impossible);
        }
        let shape = KvShape { layers: h.n_layers, kv_heads: h.n_kv_heads, slots, head_dim: h.head_dim, element };
        let (rows, scales) = shape.bytes();
        let extra = usize::try_from(header.extra).ok().filter(|n| *n <= bytes.len()).unwrap_or(usize::MAX - PART);
        let up = |n: usize| n.checked_next_multiple_of(PART).unwrap_or(usize::MAX);
        let needed = [HEADER, up(extra), up(rows), up(scales)].into_iter().fold(0, usize::saturating_add);
        if needed != bytes.len() {
            return Err(SnapshotError::Truncated { needed: needed as u64, len: bytes.len() as u64 });
        }
        if crc32(0, &bytes[HEADER..]) != header.checksum {
            return Err(SnapshotError::Checksum("content"));
        }
        let (extra_bytes, content) = bytes[HEADER..].split_at(up(extra));
        let (row_bytes, scale_bytes) = content.split_at(up(rows));
        let sinks =
            KvBuffer::over(shape, &row_bytes[..rows], &scale_bytes[..scales]).ok_or(SnapshotError::Impossible)?;
        // Without its own checksum: with that, the checksum of any header is the same number.
        let id = u64::from(crc32(0, &bytes[..HEADER - 4])) | 1 << 32;
        Ok(Prefix { sinks, hadamard: header.hadamard != 0, extra: &extra_bytes[..extra], id })
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.sinks.shape().slots
    }

    /// Never: a prefix has a token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was saved with it.
    pub fn extra(&self) -> &'p [u8] {
        self.extra
    }

    /// The configuration of sessions that start with it: `config` with its tokens instead of sinks, and stored as they are.
    pub fn config(&self, config: super::Config) -> super::Config {
        super::Config { prefix: self.len(), kv: self.sinks.shape().element, hadamard: self.hadamard, ..config }
    }
}

impl<'s> Session<'s> {
    /// A session that has read the tokens of `prefix`; of a plan with its [`config`](Prefix::config).
    ///
    /// # Errors
    /// [`EngineError::Snapshot`] when the plan is not for this prefix; [`EngineError::Arena`] as [`Session::new`].
    pub fn with_prefix(
        model: &'s Model<'s>,
        plan: &Plan,
        prefix: &Prefix<'s>,
        memory: &'s mut [u8],
    ) -> Result<Self, EngineError> {
        let (shape, g) = (plan.cache(), prefix.sinks.shape());
        let same = shape.shared && shape.rings.full.sinks() == g.slots && shape.element == g.element;
        if !same || shape.hadamard != prefix.hadamard {
            return Err(SnapshotError::OtherShape("prefix in the plan").into());
        }
        let mut session = Session::carve(model, plan, memory)?;
        session.cache.share(prefix.sinks);
        session.shared = prefix.id;
        Ok(session)
    }
}
