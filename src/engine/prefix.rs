//! Prefixes that sessions share, such as a system prompt.

use super::error::{EngineError, SnapshotError};
use super::header::{HADAMARD, HEADER, Header, LONG, keys};
use super::snapshot::PART;
use super::{Config, Plan, Session};
use crate::arch::KvType;
use crate::model::{KvBuffer, KvShape, Model};
use crate::util::crc32;

/// Tokens that were run once and with which any number of sessions can start: their keys and values are read-only, used
/// in place, and shared.
#[derive(Clone, Copy)]
pub struct Prefix<'p> {
    buffer: KvBuffer<&'p [u8]>,
    /// As in its header.
    keys: u32,
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
        if header.model != model.fingerprint() {
            return Err(SnapshotError::OtherModel);
        }
        let shape = shape(&header, model).ok_or(SnapshotError::Impossible)?;
        let needed = shape.bytes();
        let extra = usize::try_from(header.extra).ok().filter(|n| *n <= bytes.len()).unwrap_or(usize::MAX - PART);
        let up = |n: usize| n.checked_next_multiple_of(PART).unwrap_or(usize::MAX);
        let len = [HEADER, up(extra), up(needed.rows), up(needed.scales)].into_iter().fold(0, usize::saturating_add);
        if len != bytes.len() {
            return Err(SnapshotError::Truncated { needed: len as u64, len: bytes.len() as u64 });
        }
        if crc32(0, &bytes[HEADER..]) != header.checksum {
            return Err(SnapshotError::Checksum("content"));
        }
        let (extra_bytes, content) = bytes[HEADER..].split_at(up(extra));
        let (rows, scales) = content.split_at(up(needed.rows));
        let buffer = KvBuffer::over(shape, &rows[..needed.rows], &scales[..needed.scales]);
        // Without the header's own checksum: with it, the checksum of any header is the same number.
        let id = u64::from(crc32(0, &bytes[..HEADER - 4])) | 1 << 32;
        let buffer = buffer.ok_or(SnapshotError::Impossible)?;
        Ok(Prefix { buffer, keys: header.keys, extra: &extra_bytes[..extra], id })
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.buffer.shape().slots
    }

    /// Never: a prefix has a token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the caller saved with it.
    pub fn extra(&self) -> &'p [u8] {
        self.extra
    }

    /// The configuration of sessions that start with it: `config` with its tokens instead of sinks, and its KV format.
    pub fn config(&self, config: Config) -> Config {
        Config { prefix: self.len(), kv: self.buffer.shape().kv_type, hadamard: self.keys & HADAMARD != 0, ..config }
    }
}

/// The shape of a prefix; `None` where its header does not fit the model.
fn shape(header: &Header, model: &Model<'_>) -> Option<KvShape> {
    let h = &model.hparams;
    let kv_type = [KvType::F16, KvType::Int8, KvType::F32].into_iter().find(|t| *t as u32 == header.kv_type)?;
    let slots = usize::try_from(header.full.sinks).ok().filter(|n| (1..=h.context_length).contains(n))?;
    let same = header.full.layers == h.n_layers as u64
        && header.kv_heads == h.n_kv_heads as u64
        && header.head_dim == h.head.dim as u64
        && header.position == header.full.sinks;
    let shape = KvShape { layers: h.n_layers, kv_heads: h.n_kv_heads, slots, head_dim: h.head.dim, kv_type };
    same.then_some(shape)
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
        let (cache, saved) = (plan.cache(), prefix.buffer.shape());
        let same = cache.shared && cache.groups.full.sinks == saved.slots && cache.kv_type == saved.kv_type;
        let differ = keys(model, cache) ^ prefix.keys;
        if !same || differ & HADAMARD != 0 || !cache.share.is_whole() {
            return Err(SnapshotError::OtherShape("prefix in the plan").into());
        }
        if differ & LONG != 0 {
            return Err(SnapshotError::OtherShape("rotation of keys, that of a short or of a long context (-c)").into());
        }
        let mut session = Session::carve(model, plan, memory)?;
        session.cache.share(prefix.buffer);
        session.shared = prefix.id;
        Ok(session)
    }
}
