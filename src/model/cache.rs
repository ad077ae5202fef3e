//! The KV cache of a session.
//!
//! Layers with the same attention pattern are a group: those that attend to all positions that the session keeps, and
//! those with a window of their own (Mistral, Gemma). A group has a [`Ring`], which maps positions to slots, and
//! [`KvBuffer`]s for their keys and values. Sinks have a buffer of their own, which several sessions may share.

#[cfg(feature = "boards")]
use super::Split;
use super::kv_buffer::{KvBuffer, KvShape};
use super::{Head, Hparams, Share};
use crate::arch::{KvSpan, KvType};
use crate::storage::{Arena, ArenaError, Ring};
#[cfg(feature = "boards")]
use crate::storage::{Piece, TILE};
use crate::util::SliceExt;

/// The keys and values of the sinks of a layer group.
enum Sinks<'a> {
    /// In the session.
    Own(KvBuffer<&'a mut [u8]>),
    /// In a prefix that sessions share.
    Shared(KvBuffer<&'a [u8]>),
}

/// The rings of a model's layer groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvGroups {
    /// Of the layers without a window of their own.
    pub(crate) full: Ring,
    /// Of the others; `None` where there are none, or their window is no narrower and their heads are as large.
    pub(crate) windowed: Option<Ring>,
}

/// How many layers each group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerCounts {
    pub(crate) full: usize,
    pub(crate) windowed: usize,
}

/// Where the keys and values of a layer are.
struct LayerPlace {
    windowed: bool,
    /// Its number within its group.
    index: usize,
}

/// Keys and values of the tokens of a pass, of one layer and one session, until they are committed to its cache.
pub(super) struct NewKv<'n> {
    /// (2, 1, n_kv_heads, tokens, head_dim)
    pub(super) buffer: KvBuffer<&'n [u8]>,
    /// Position of the first token.
    pub(super) start: u64,
    /// Older ones, where they go from board to board.
    #[cfg(feature = "boards")]
    pub(super) old: Option<HeldPiece<'n>>,
}

/// Keys and values of a [`Piece`] of a layer's positions, as they go from board to board.
#[cfg(feature = "boards")]
#[derive(Clone, Copy)]
pub(super) struct HeldPiece<'n> {
    pub(super) piece: Piece,
    /// (2, 1, n_kv_heads, piece.slots(), head_dim)
    pub(super) buffer: KvBuffer<&'n [u8]>,
}

/// The keys and values of a layer group.
pub(crate) struct LayerGroup<'a> {
    pub(super) ring: Ring,
    /// Whose positions it keeps.
    share: Share,
    /// (2, layers, n_kv_heads, slots, head_dim)
    pub(crate) buffer: KvBuffer<&'a mut [u8]>,
    /// (2, layers, n_kv_heads, ring.sinks, head_dim)
    sinks: Sinks<'a>,
}

impl<'a> LayerGroup<'a> {
    /// Carves an empty group with room for its sinks, unless a prefix will bring them.
    fn carve(
        ring: Ring,
        layers: usize,
        h: &Hparams,
        head: &Head,
        shape: &CacheShape,
        arena: &mut Arena<'a>,
    ) -> Result<Self, ArenaError> {
        let kv_heads = shape.share.kv_heads(h).len();
        let of = |slots| KvShape { layers, kv_heads, slots, head_dim: head.dim, kv_type: shape.kv_type };
        let sinks = if shape.shared { 0 } else { ring.sinks };
        let sinks = KvBuffer::carve("sink K, V", "sink scales", of(sinks), arena)?;
        let buffer = KvBuffer::carve("K, V ring", "ring scales", of(slots(&ring, &shape.share)), arena)?;
        let mut group = LayerGroup { ring, share: shape.share, buffer, sinks: Sinks::Own(sinks) };
        group.clear(u64::MAX);
        Ok(group)
    }

    /// Zeroes the slots that may be saved before they are written: all of a strided ring, and before the first wrap those that
    /// the sinks would have. So a saved session has nothing of what was there before it, of which `written` positions were
    /// written.
    fn clear(&mut self, written: u64) {
        let slots = self.buffer.shape().slots;
        match self.ring.is_strided() {
            true => self.buffer.clear(slots),
            false if written > slots as u64 => self.buffer.clear(self.ring.sinks.min(slots)),
            false => {}
        }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Whose positions it keeps.
    #[cfg(feature = "boards")]
    pub(super) fn share(&self) -> &Share {
        &self.share
    }

    /// The slot of a position that is no sink.
    pub(super) fn slot(&self, position: u64) -> usize {
        #[cfg(feature = "boards")]
        if self.share.is(Split::Tokens) {
            return self.share.blocks().slot(&self.ring, position);
        }
        self.ring.slot(position)
    }

    /// Whether it keeps a position that is no sink.
    fn keeps(&self, position: u64) -> bool {
        #[cfg(feature = "boards")]
        return self.share.has_position(position);
        #[cfg(not(feature = "boards"))]
        {
            let _ = position;
            self.share.is_whole()
        }
    }

    /// The buffer of the sinks, if it is the session's own.
    pub(crate) fn own_sinks(&self) -> Option<&KvBuffer<&'a mut [u8]>> {
        if let Sinks::Own(buffer) = &self.sinks { Some(buffer) } else { None }
    }

    /// As [`own_sinks`](LayerGroup::own_sinks), to write.
    pub(crate) fn own_sinks_mut(&mut self) -> Option<&mut KvBuffer<&'a mut [u8]>> {
        if let Sinks::Own(buffer) = &mut self.sinks { Some(buffer) } else { None }
    }

    /// Appends to `spans` the keys and values in tile `tile` of those that the token at `n` attends to; positions from
    /// `new.start` on are not in the cache yet.
    pub(super) fn spans<'s>(
        &'s self,
        layer: usize,
        head: usize,
        n: u64,
        tile: u64,
        new: &'s NewKv<'s>,
        spans: &mut KvSpans<'s>,
    ) {
        for positions in self.ring.tile(n, tile) {
            let (start, len, sink) = (positions.start, positions.len, positions.sink);
            let old = new.start.saturating_sub(start).min(len as u64) as usize;
            if old > 0 {
                let first = start as usize;
                spans.push(match &self.sinks {
                    _ if !sink => self.old_span(layer, head, start, old, new),
                    Sinks::Own(buffer) => buffer.span(layer, head, first..first + old, true),
                    Sinks::Shared(buffer) => buffer.span(layer, head, first..first + old, true),
                });
            }
            if old < len {
                let first = (start + old as u64 - new.start) as usize;
                spans.push(new.buffer.span(0, head, first..first + len - old, sink));
            }
        }
    }

    /// Keys and values of `len` positions of a tile from position `start` on, which are no sinks.
    #[inline(always)]
    fn old_span<'s>(&'s self, layer: usize, head: usize, start: u64, len: usize, new: &'s NewKv<'s>) -> KvSpan<'s> {
        #[cfg(feature = "boards")]
        if let Some(HeldPiece { piece, buffer }) = &new.old {
            let slot = piece.slot(start);
            return buffer.span(0, head, slot..slot + len, false);
        }
        let _ = new;
        let slot = self.slot(start);
        self.buffer.span(layer, head, slot..slot + len, false)
    }

    /// Copies the tiles of a piece, which are all this board's, to `to`: (2, 1, n_kv_heads, piece.slots(), head_dim).
    #[cfg(feature = "boards")]
    pub(super) fn copy_piece(&self, layer: usize, piece: &Piece, to: &mut KvBuffer<&mut [u8]>) {
        for (i, tile) in piece.tiles().enumerate() {
            let slot = self.slot(tile * TILE as u64);
            (0..TILE).for_each(|within| to.copy_slot(0, i * TILE + within, &self.buffer, layer, slot + within));
        }
    }

    /// Copies the new keys and values of a layer to their slots.
    #[inline(never)]
    pub(super) fn commit(&mut self, layer: usize, new: &NewKv<'_>) {
        for i in 0..new.buffer.shape().slots {
            let position = new.start + i as u64;
            let (keeps, slot) = (self.keeps(position), self.slot(position));
            match &mut self.sinks {
                _ if position >= self.ring.sinks as u64 => {
                    if keeps {
                        self.buffer.copy_slot(layer, slot, &new.buffer, 0, i);
                    }
                }
                Sinks::Own(buffer) => buffer.copy_slot(layer, position as usize, &new.buffer, 0, i),
                // A session starts behind its prefix, and cannot be rewound into it.
                Sinks::Shared(_) => {}
            }
        }
    }
}

/// Slots of a ring, in which the sinks are not, for the positions that are kept.
fn slots(ring: &Ring, share: &Share) -> usize {
    #[cfg(feature = "boards")]
    if share.is(Split::Tokens) {
        return share.blocks().slots(ring);
    }
    let _ = share;
    ring.slots()
}

/// The keys and values of a tile, in order of positions: at most four spans.
pub(super) struct KvSpans<'s> {
    spans: [KvSpan<'s>; 4],
    len: usize,
}

impl<'s> KvSpans<'s> {
    pub(super) fn new() -> Self {
        let none = KvSpan { k: &[], v: &[], k_scales: &[], v_scales: &[], sinks: false };
        KvSpans { spans: [none; 4], len: 0 }
    }

    fn push(&mut self, span: KvSpan<'s>) {
        debug_assert!(self.len < self.spans.len(), "a tile has sinks and others, of which each may be new in part");
        if let Some(slot) = self.spans.get_mut(self.len) {
            *slot = span;
            self.len += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[KvSpan<'s>] {
        self.spans.first_n(self.len)
    }
}

/// The keys and values that a session keeps, in the caller's memory.
pub(crate) struct KvCache<'a> {
    full: LayerGroup<'a>,
    windowed: Option<LayerGroup<'a>>,
    shape: CacheShape,
    /// Tokens read: the position of the next one.
    position: u64,
    /// Positions ever written: more than `position` after a rewind.
    written: u64,
}

/// Size and format of a [`KvCache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheShape {
    pub(crate) groups: KvGroups,
    /// How elements are stored.
    pub(crate) kv_type: KvType,
    /// Whether keys are stored Hadamard-transformed.
    pub(crate) hadamard: bool,
    /// Whether a shared prefix takes the place of the sinks.
    pub(crate) shared: bool,
    /// Which layers and heads it is of.
    pub(crate) share: Share,
}

impl CacheShape {
    #[inline(never)]
    fn place(&self, h: &Hparams, layer: usize) -> LayerPlace {
        let groups = &self.groups;
        let windowed = groups.windowed.is_some() && h.is_windowed(layer);
        let same_group = |l: &usize| groups.windowed.is_none() || h.is_windowed(*l) == windowed;
        LayerPlace { windowed, index: (self.share.layers(h).start..layer).filter(same_group).count() }
    }

    /// The layers of each group.
    pub(crate) fn layers(&self, h: &Hparams) -> LayerCounts {
        let layers = self.share.layers(h);
        let is_windowed = |l: &usize| self.groups.windowed.is_some() && h.is_windowed(*l);
        let windowed = layers.clone().filter(is_windowed).count();
        LayerCounts { full: layers.len() - windowed, windowed }
    }
}

impl<'a> KvCache<'a> {
    /// Carves an empty cache. In a dry run this is the plan. A shared prefix is given later.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub(crate) fn new(h: &Hparams, shape: &CacheShape, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        let layers = shape.layers(h);
        let full = LayerGroup::carve(shape.groups.full, layers.full, h, &h.head, shape, arena)?;
        let carve = |ring| LayerGroup::carve(ring, layers.windowed, h, h.windowed_head(), shape, arena);
        let windowed = shape.groups.windowed.map(carve);
        Ok(Self { full, windowed: windowed.transpose()?, shape: *shape, position: 0, written: 0 })
    }

    /// Tokens read: the position of the next one.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Counts `n` more tokens as read; the pass has written their keys and values.
    pub(crate) fn advance(&mut self, n: usize) {
        self.position += n as u64;
        self.written = self.written.max(self.position);
    }

    /// Positions ever written: more than [`position`](KvCache::position) after a rewind.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Forgets everything, and what was there before is nowhere saved.
    pub(crate) fn clear(&mut self) {
        let written = self.written;
        self.set_position(0, 0);
        self.groups_mut().for_each(|group| group.clear(written));
    }

    /// Restores what [`position`](KvCache::position) and [`written`](KvCache::written) were.
    pub(crate) fn set_position(&mut self, position: u64, written: u64) {
        (self.position, self.written) = (position, written);
    }

    /// Starts behind a shared prefix, whose keys and values take the place of the sinks.
    pub(crate) fn share(&mut self, prefix: KvBuffer<&'a [u8]>) {
        let position = prefix.shape().slots as u64;
        self.full.sinks = Sinks::Shared(prefix);
        self.set_position(position, position);
    }

    /// Where its memory is, which no other cache has at the same time.
    #[cfg(feature = "boards")]
    pub(crate) fn id(&self) -> usize {
        self.full.buffer.memory()[0].bytes.as_ptr().addr()
    }

    /// Its size and format.
    pub(crate) fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Length of the shared prefix, into which the session cannot be rewound; 0 without one.
    pub(crate) fn shared(&self) -> u64 {
        if matches!(self.full.sinks, Sinks::Shared(_)) { self.full.ring.sinks as u64 } else { 0 }
    }

    /// Forgets all but the first `position` tokens, if what the next token attends to is still in the cache.
    pub(crate) fn rewind(&mut self, position: u64) -> bool {
        // With no position in a ring, none can have been overwritten.
        if position < self.position && position >= self.shared() && self.is_start(position) {
            self.clear();
            self.set_position(position, position);
        }
        self.take_back(position)
    }

    /// Whether none of the first `position` tokens is in a ring.
    fn is_start(&self, position: u64) -> bool {
        self.groups().all(|group| position <= group.ring.sinks as u64)
    }

    /// The same for tokens of which some may be [taken](KvCache::advance) again: their keys and values stay.
    pub(crate) fn take_back(&mut self, position: u64) -> bool {
        if position >= self.position {
            return true;
        }
        let holds = |g: &LayerGroup<'_>| g.ring.holds(position, self.written);
        if position < self.shared() || !self.groups().all(holds) {
            return false;
        }
        self.position = position;
        true
    }

    /// Whether, once it has read one more token and `n` behind that, it can forget those `n`.
    pub(crate) fn can_forget(&self, n: usize) -> bool {
        let position = self.position + 1;
        let written = self.written.max(position + n as u64);
        n == 0 || self.groups().all(|g| g.ring.holds(position, written))
    }

    /// Distance by which sinks are shifted towards token `n`; see [`Ring::sink_offset`].
    pub(super) fn sink_offset(&self, n: u64) -> u64 {
        self.full.ring.sink_offset(n)
    }

    /// Most positions that a token attends to, in layers without a window.
    pub(super) fn context(&self) -> usize {
        self.full.ring.capacity()
    }

    /// How elements are stored.
    pub(super) fn kv_type(&self) -> KvType {
        self.shape.kv_type
    }

    /// Whether keys are stored Hadamard-transformed.
    pub(super) fn hadamard(&self) -> bool {
        self.shape.hadamard
    }

    /// The layer groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &LayerGroup<'a>> {
        core::iter::once(&self.full).chain(&self.windowed)
    }

    /// The layer groups, to write.
    pub(crate) fn groups_mut(&mut self) -> impl Iterator<Item = &mut LayerGroup<'a>> {
        core::iter::once(&mut self.full).chain(&mut self.windowed)
    }

    /// The group of a layer, and the layer's number in it.
    pub(super) fn group(&self, h: &Hparams, layer: usize) -> (&LayerGroup<'a>, usize) {
        let place = self.shape.place(h, layer);
        (self.windowed.as_ref().filter(|_| place.windowed).unwrap_or(&self.full), place.index)
    }

    /// As [`group`](KvCache::group), to write.
    pub(super) fn group_mut(&mut self, h: &Hparams, layer: usize) -> (&mut LayerGroup<'a>, usize) {
        let place = self.shape.place(h, layer);
        match &mut self.windowed {
            Some(group) if place.windowed => (group, place.index),
            _ => (&mut self.full, place.index),
        }
    }
}
