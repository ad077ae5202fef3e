//! The header of a saved session or prefix: 256 bytes, little-endian.

use super::error::{SNAPSHOT_VERSION, SnapshotError};
use crate::model::{CacheShape, Model, is_long};
use crate::storage::{Ring, TILE};
use crate::util::crc32;

const MAGIC: [u8; 8] = *b"ARMLETKV";
/// Length of a header.
pub(super) const HEADER: usize = 256;

/// Keys are Hadamard-transformed.
pub(super) const HADAMARD: u32 = 1;
/// They are rotated by the factors of a long context.
pub(super) const LONG: u32 = 2;
/// They are those of one of several boards.
const PART_OF_SEVERAL: u32 = 4;

/// How the keys of a cache are stored.
pub(super) fn keys(model: &Model<'_>, shape: &CacheShape) -> u32 {
    let long = is_long(model, shape.groups.full.capacity());
    // What one of several boards has is no session: nothing may take it for one.
    let part = if shape.share.is_whole() { 0 } else { PART_OF_SEVERAL };
    u32::from(shape.hadamard) * HADAMARD + u32::from(long) * LONG + part
}

/// A layer group: its layers and its ring. All zeros where a model has no such group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub(super) layers: u64,
    pub(super) sinks: u64,
    window: u64,
    pub(super) every: u64,
    kept: u64,
    recent_tiles: u64,
    kept_tiles: u64,
}

impl GroupHeader {
    fn new(layers: usize, ring: &Ring) -> Self {
        GroupHeader {
            layers: layers as u64,
            sinks: ring.sinks as u64,
            window: ring.window as u64,
            every: ring.every as u64,
            kept: ring.kept as u64,
            recent_tiles: ring.recent_tiles as u64,
            kept_tiles: ring.kept_tiles as u64,
        }
    }

    /// Of a prefix: its positions, and no ring.
    pub(super) fn prefix(layers: u64, positions: u64) -> Self {
        GroupHeader { layers, sinks: positions, ..Self::default() }
    }

    /// Most positions that a token attends to, as the ring has it; a file may say anything.
    pub(super) fn capacity(&self) -> u64 {
        self.kept.saturating_mul(TILE as u64).saturating_add(self.window).saturating_add(self.sinks)
    }

    fn encode(&self) -> [u64; 7] {
        [self.layers, self.sinks, self.window, self.every, self.kept, self.recent_tiles, self.kept_tiles]
    }

    /// From the next numbers of a header.
    fn decode(next: &mut impl FnMut() -> u64) -> Self {
        GroupHeader {
            layers: next(),
            sinks: next(),
            window: next(),
            every: next(),
            kept: next(),
            recent_tiles: next(),
            kept_tiles: next(),
        }
    }
}

/// What was saved: of which model, of which size and format, and how many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// A prefix; else a session.
    pub(super) prefix: bool,
    pub(super) kv_type: u32,
    /// How keys are stored; see [`HADAMARD`] and [`LONG`].
    pub(super) keys: u32,
    /// Fingerprint.
    pub(super) model: u64,
    pub(super) kv_heads: u64,
    pub(super) head_dim: u64,
    /// Id of the prefix that the session starts with; 0 if there is none.
    pub(super) shared: u64,
    pub(super) position: u64,
    pub(super) written: u64,
    /// Bytes that the caller saved with it.
    pub(super) extra: u64,
    pub(super) full: GroupHeader,
    pub(super) windowed: GroupHeader,
    /// CRC-32 of all that follows the header.
    pub(super) checksum: u32,
}

impl Header {
    /// The header of an empty cache.
    pub(super) fn new(model: &Model<'_>, shape: &CacheShape, shared: u64) -> Self {
        Self::of_model(model, model.fingerprint(), shape, shared)
    }

    /// The same, with the model's fingerprint.
    pub(super) fn of_model(model: &Model<'_>, fingerprint: u64, shape: &CacheShape, shared: u64) -> Self {
        let (h, layers) = (&model.hparams, shape.layers(&model.hparams));
        Header {
            prefix: false,
            kv_type: shape.kv_type as u32,
            keys: keys(model, shape),
            model: fingerprint,
            kv_heads: shape.share.kv_heads(h).len() as u64,
            head_dim: h.head.dim as u64,
            shared,
            position: 0,
            written: 0,
            extra: 0,
            full: GroupHeader::new(layers.full, &shape.groups.full),
            windowed: shape
                .groups
                .windowed
                .map_or_else(GroupHeader::default, |r| GroupHeader::new(layers.windowed, &r)),
            checksum: 0,
        }
    }

    /// Its bytes: magic, four `u32`, 21 `u64`, zeros, the checksum of the content, the checksum of the header.
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let words = [SNAPSHOT_VERSION, u32::from(self.prefix), self.kv_type, self.keys];
        let numbers = [self.model, self.kv_heads, self.head_dim, self.shared, self.position, self.written, self.extra];
        let groups = self.full.encode().into_iter().chain(self.windowed.encode());
        let bytes = MAGIC.into_iter();
        let bytes = bytes.chain(words.into_iter().flat_map(u32::to_le_bytes));
        let bytes = bytes.chain(numbers.into_iter().chain(groups).flat_map(u64::to_le_bytes));
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
        out[HEADER - 8..HEADER - 4].copy_from_slice(&self.checksum.to_le_bytes());
        let own = crc32(0, &out[..HEADER - 4]);
        out[HEADER - 4..].copy_from_slice(&own.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, after its magic, version and checksum were checked.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let header = bytes.first_chunk::<HEADER>().filter(|h| h.starts_with(&MAGIC)).ok_or(SnapshotError::Magic)?;
        let mut words = header[MAGIC.len()..].as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
        let mut word = || words.next().unwrap_or(0);
        let mut longs = header[MAGIC.len() + 16..].as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
        let mut long = || longs.next().unwrap_or(0);
        // Before the checksum, which another version may have elsewhere.
        let version = word();
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        if crc32(0, &header[..HEADER - 4]).to_le_bytes() != header[HEADER - 4..] {
            return Err(SnapshotError::Checksum("header"));
        }
        // In the order of `encode`.
        Ok(Header {
            prefix: word() != 0,
            kv_type: word(),
            keys: word(),
            model: long(),
            kv_heads: long(),
            head_dim: long(),
            shared: long(),
            position: long(),
            written: long(),
            extra: long(),
            full: GroupHeader::decode(&mut long),
            windowed: GroupHeader::decode(&mut long),
            checksum: header[HEADER - 8..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b)),
        })
    }

    /// Whether a cache whose header is `mine` can be restored from what has this header.
    pub(super) fn fits(&self, mine: &Header) -> Result<(), SnapshotError> {
        let same_groups = self.full == mine.full && self.windowed == mine.windowed;
        let checks = [
            (self.shared == mine.shared, "--prefix"),
            (self.kv_heads == mine.kv_heads && self.head_dim == mine.head_dim, "number or size of heads"),
            (self.kv_type == mine.kv_type, "--kv-type"),
            (same_groups, "context (-c, --kv-budget, --sinks, --pattern or --slack)"),
            (self.keys == mine.keys, "--hadamard"),
        ];
        if self.model != mine.model {
            return Err(SnapshotError::OtherModel);
        }
        checks.into_iter().find(|(same, _)| !same).map_or(Ok(()), |(_, what)| Err(SnapshotError::OtherShape(what)))
    }
}
