//! Keys and values of what a conversation has read.
//!
//! Layers that look at the same positions are a class: those that see all there is, and those with a window of their
//! own (Mistral, Gemma). A class has a [`Ring`], which says where a position lies; a [`Segment`] is the memory. Pinned
//! positions are in a segment of their own, which several sessions may share.

use super::Hparams;
use crate::arch::{KvSpan, KvType};
use crate::storage::{Arena, ArenaError, Ring};
use crate::util::{SliceExt, times};

/// Shape of a segment: `(layers, kv_heads, slots, head_dim)` elements, twice, for keys and values; and as many scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    pub(crate) slots: usize,
    pub(crate) head_dim: usize,
    pub(crate) element: KvType,
}

impl KvShape {
    /// Bytes of a position's row.
    fn row(&self) -> usize {
        self.head_dim * self.element.bytes()
    }

    /// The shape of the rows in bytes, and that of the scales.
    pub(crate) fn shapes(&self) -> ([usize; 5], [usize; 5]) {
        let (l, h, s) = (self.layers, self.kv_heads, self.slots);
        ([2, l, h, s, self.row()], [2, l, h, s, self.element.scale_bytes()])
    }

    /// Bytes of the rows, and of the scales; saturates only for sizes that no file has weights for.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let (rows, scales) = self.shapes();
        let product = |shape: [usize; 5]| shape.into_iter().fold(1, usize::saturating_mul);
        (product(rows), product(scales))
    }
}

/// Memory of some shape.
#[derive(Clone, Copy)]
pub(crate) struct KvBuffer<B> {
    shape: KvShape,
    rows: B,
    scales: B,
}

impl<'a> KvBuffer<&'a mut [u8]> {
    /// Carves a segment. In a dry run this is the plan.
    pub(crate) fn carve(names: [&'static str; 2], shape: KvShape, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        let (rows, scales) = shape.shapes();
        let mut alloc =
            |name, shape: [usize; 5]| if shape.contains(&0) { Ok(&mut [][..]) } else { arena.alloc(name, &shape) };
        let (rows, scales) = (alloc(names[0], rows)?, alloc(names[1], scales)?);
        Ok(KvBuffer { shape, rows, scales })
    }
}

impl<B: AsRef<[u8]>> KvBuffer<B> {
    /// A segment over memory that has its [`bytes`](Geometry::bytes); else none.
    pub(crate) fn over(shape: KvShape, rows: B, scales: B) -> Option<Self> {
        let enough = (rows.as_ref().len(), scales.as_ref().len());
        (shape.bytes().0 <= enough.0 && shape.bytes().1 <= enough.1).then_some(KvBuffer { shape, rows, scales })
    }

    pub(crate) fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// Rows, and scales.
    pub(crate) fn memory(&self) -> [&[u8]; 2] {
        [self.rows.as_ref(), self.scales.as_ref()]
    }

    /// Number of the first slot of a head in a layer; `kv` is 0 for keys, 1 for values.
    fn first(&self, kv: usize, layer: usize, head: usize) -> usize {
        let g = &self.shape;
        ((kv * g.layers + layer) * g.kv_heads + head) * g.slots
    }

    /// `len` slots of a head.
    pub(super) fn run(&self, layer: usize, head: usize, slot: usize, len: usize, pinned: bool) -> KvSpan<'_> {
        let (row, scale) = (self.shape.row(), self.shape.element.scale_bytes());
        let of = |bytes: usize, kv: usize| {
            let start = self.first(kv, layer, head) + slot;
            start * bytes..(start + len) * bytes
        };
        let (rows, scales) = (self.rows.as_ref(), self.scales.as_ref());
        KvSpan {
            k: rows.get(of(row, 0)).unwrap_or(&[]),
            v: rows.get(of(row, 1)).unwrap_or(&[]),
            k_scales: scales.get(of(scale, 0)).unwrap_or(&[]),
            v_scales: scales.get(of(scale, 1)).unwrap_or(&[]),
            sinks: pinned,
        }
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> KvBuffer<B> {
    /// Row and scale of a key (`kv` 0) or a value (1).
    pub(super) fn slot(&mut self, kv: usize, layer: usize, head: usize, slot: usize) -> [&mut [u8]; 2] {
        let at = self.first(kv, layer, head) + slot;
        let (row, scale) = (self.shape.row(), self.shape.element.scale_bytes());
        let (rows, scales) = (self.rows.as_mut(), self.scales.as_mut());
        [
            rows.get_mut(at * row..(at + 1) * row).unwrap_or(&mut []),
            scales.get_mut(at * scale..(at + 1) * scale).unwrap_or(&mut []),
        ]
    }

    /// Copies slot `from` of the one layer of `other`, all heads, to slot `to` of `layer`.
    fn copy<C: AsRef<[u8]>>(&mut self, layer: usize, to: usize, other: &KvBuffer<C>, from: usize) {
        for head in 0..self.shape.kv_heads {
            let run = other.run(0, head, from, 1, false);
            for (kv, row, scale) in [(0, run.k, run.k_scales), (1, run.v, run.v_scales)] {
                let [to_row, to_scale] = self.slot(kv, layer, head, to);
                to_row.iter_mut().zip(row).for_each(|(to, from)| *to = *from);
                to_scale.iter_mut().zip(scale).for_each(|(to, from)| *to = *from);
            }
        }
    }

    /// Zeros in the first slots of each head.
    fn clear(&mut self, slots: usize) {
        let g = self.shape;
        for memory in self.memory_mut() {
            let head = times(memory.len(), 2 * g.layers * g.kv_heads);
            let part = times(head, g.slots) * slots;
            memory.rows_mut(head).for_each(|head| head.first_n_mut(part).fill(0));
        }
    }

    pub(crate) fn memory_mut(&mut self) -> [&mut [u8]; 2] {
        [self.rows.as_mut(), self.scales.as_mut()]
    }
}

/// Where the pinned positions of a class lie.
enum Sinks<'a> {
    /// In the session.
    Own(KvBuffer<&'a mut [u8]>),
    /// In a prefix that sessions share.
    Shared(KvBuffer<&'a [u8]>),
}

/// The rings of a model's classes: of the layers that see all, and of those with a window of their own. The second is
/// absent where there are no such layers, or where their window is no narrower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvGroups {
    pub(crate) full: Ring,
    pub(crate) windowed: Option<Ring>,
}

impl KvGroups {
    /// Whether a layer is of the second class, and its number within its class.
    fn group(&self, h: &Hparams, layer: usize) -> (bool, usize) {
        let windowed = self.windowed.is_some() && h.is_windowed(layer);
        let alike = |l: &usize| self.windowed.is_none() || h.is_windowed(*l) == windowed;
        (windowed, (0..layer).filter(alike).count())
    }

    /// The layers of each class.
    pub(crate) fn layers(&self, h: &Hparams) -> [usize; 2] {
        let windowed = (0..h.n_layers).filter(|l| self.windowed.is_some() && h.is_windowed(*l)).count();
        [h.n_layers - windowed, windowed]
    }
}

/// The keys and values of a class.
pub(crate) struct LayerGroup<'a> {
    pub(super) ring: Ring,
    /// (2, layers, n_kv_heads, ring.slots(), head_dim)
    pub(crate) buffer: KvBuffer<&'a mut [u8]>,
    /// (2, layers, n_kv_heads, ring.sinks(), head_dim)
    sinks: Sinks<'a>,
}

impl<'a> LayerGroup<'a> {
    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The pinned positions, if they are its own.
    pub(crate) fn own(&self) -> Option<&KvBuffer<&'a mut [u8]>> {
        if let Sinks::Own(buffer) = &self.sinks { Some(buffer) } else { None }
    }

    /// The pinned positions, if they are its own, and the ring.
    pub(crate) fn owned_mut(&mut self) -> [Option<&mut KvBuffer<&'a mut [u8]>>; 2] {
        let own = if let Sinks::Own(buffer) = &mut self.sinks { Some(buffer) } else { None };
        [own, Some(&mut self.buffer)]
    }

    /// Appends to `runs` where what the token at `n` looks at in its tile `i` lies; positions from `fresh_from` on are in
    /// `fresh`, which has one layer.
    pub(super) fn runs<'r>(
        &'r self,
        at: (usize, usize),
        n: u64,
        i: usize,
        (fresh, new_from): (&'r KvBuffer<&[u8]>, u64),
        runs: &mut KvSpans<'r>,
    ) {
        let (layer, head) = at;
        for piece in self.ring.tile(n, i) {
            let old = new_from.saturating_sub(piece.start).min(piece.len as u64) as usize;
            if old > 0 {
                runs.push(match &self.sinks {
                    _ if !piece.sink => self.buffer.run(layer, head, self.ring.slot(piece.start), old, false),
                    Sinks::Own(buffer) => buffer.run(layer, head, piece.start as usize, old, true),
                    Sinks::Shared(buffer) => buffer.run(layer, head, piece.start as usize, old, true),
                });
            }
            if old < piece.len {
                let first = (piece.start + old as u64 - new_from) as usize;
                runs.push(fresh.run(0, head, first, piece.len - old, piece.sink));
            }
        }
    }

    /// Keeps what `fresh` has of the positions from `position` on.
    pub(super) fn commit(&mut self, layer: usize, position: u64, n: usize, fresh: &KvBuffer<&[u8]>) {
        for i in 0..n {
            let at = position + i as u64;
            match &mut self.sinks {
                _ if at >= self.ring.sinks() as u64 => self.buffer.copy(layer, self.ring.slot(at), fresh, i),
                Sinks::Own(buffer) => buffer.copy(layer, at as usize, fresh, i),
                // A session starts behind its prefix, and is not taken back into it.
                Sinks::Shared(_) => {}
            }
        }
    }
}

/// The places of a tile's rows: at most four.
pub(super) struct KvSpans<'r> {
    runs: [KvSpan<'r>; 4],
    len: usize,
}

impl<'r> KvSpans<'r> {
    pub(super) fn new() -> Self {
        let none = KvSpan { k: &[], v: &[], k_scales: &[], v_scales: &[], sinks: false };
        KvSpans { runs: [none; 4], len: 0 }
    }

    fn push(&mut self, run: KvSpan<'r>) {
        if let Some(slot) = self.runs.get_mut(self.len) {
            *slot = run;
            self.len += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[KvSpan<'r>] {
        self.runs.first_n(self.len)
    }
}

/// Keys and values of what a conversation has read, carved from the caller's memory.
pub(crate) struct KvCache<'a> {
    full: LayerGroup<'a>,
    windowed: Option<LayerGroup<'a>>,
    shape: CacheShape,
    /// Positions read.
    position: u64,
    /// Positions that were written since the first: more than `position` after going back.
    written: u64,
}

/// What a cache is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheShape {
    pub(crate) rings: KvGroups,
    /// How it stores numbers.
    pub(crate) element: KvType,
    /// Whether keys are stored in a rotated basis.
    pub(crate) hadamard: bool,
    /// Whether the pinned positions are those of a shared prefix.
    pub(crate) shared: bool,
}

impl<'a> KvCache<'a> {
    /// Carves an empty cache. In a dry run this is the plan. A shared prefix is given later.
    ///
    /// # Errors
    /// [`ArenaError`].
    pub(crate) fn new(h: &Hparams, shape: &CacheShape, arena: &mut Arena<'a>) -> Result<Self, ArenaError> {
        let CacheShape { rings, element, shared, .. } = *shape;
        let layers = rings.layers(h);
        let mut group = |ring: Ring, layers: usize| -> Result<LayerGroup<'a>, ArenaError> {
            let shape = |slots| KvShape { layers, kv_heads: h.n_kv_heads, slots, head_dim: h.head_dim, element };
            let own = if shared { 0 } else { ring.sinks() };
            let sinks = KvBuffer::carve(["pinned K, V", "pinned scales"], shape(own), arena)?;
            let mut buffer = KvBuffer::carve(["K, V ring", "ring scales"], shape(ring.slots()), arena)?;
            // What may be saved without having been written: all of a strided ring, and before the first turn the slots of
            // pinned positions.
            buffer.clear(if ring.is_strided() { ring.slots() } else { ring.sinks().min(ring.slots()) });
            Ok(LayerGroup { ring, buffer, sinks: Sinks::Own(sinks) })
        };
        let full = group(rings.full, layers[0])?;
        let windowed = rings.windowed.map(|ring| group(ring, layers[1])).transpose()?;
        Ok(Self { full, windowed, shape: *shape, position: 0, written: 0 })
    }

    /// Positions read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Counts `n` more positions as read; the pass has written them.
    pub(crate) fn advance(&mut self, n: usize) {
        self.position += n as u64;
        self.written = self.written.max(self.position);
    }

    /// Positions that were ever written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// As saved: so many positions read, and so many ever written.
    pub(crate) fn set_position(&mut self, position: u64, written: u64) {
        (self.position, self.written) = (position, written);
    }

    /// Starts behind the positions of a prefix.
    pub(crate) fn share(&mut self, prefix: KvBuffer<&'a [u8]>) {
        let position = prefix.shape().slots as u64;
        self.full.sinks = Sinks::Shared(prefix);
        self.set_position(position, position);
    }

    /// What it is like.
    pub(crate) fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Positions below which no session of a shared prefix can go back.
    pub(crate) fn shared(&self) -> u64 {
        if matches!(self.full.sinks, Sinks::Shared(_)) { self.full.ring.sinks() as u64 } else { 0 }
    }

    /// Forgets all but the first `position` positions, if what the next token looks at is still there.
    pub(crate) fn rewind(&mut self, position: u64) -> bool {
        if position >= self.position {
            return true;
        }
        let holds = |c: &LayerGroup<'_>| c.ring.holds(position, self.written);
        if position < self.shared() || !self.groups().all(holds) {
            return false;
        }
        self.position = position;
        // Before anything was in a ring nothing is left there to be written over.
        if self.groups().all(|c| position <= c.ring.sinks() as u64) {
            self.written = position;
        }
        true
    }

    /// How much nearer than they are the pinned positions seem to the token at `n`.
    pub(super) fn sink_offset(&self, n: u64) -> u64 {
        self.full.ring.sink_offset(n)
    }

    /// How it stores numbers.
    pub(crate) fn element(&self) -> KvType {
        self.shape.element
    }

    /// Whether keys are stored in a rotated basis.
    pub(crate) fn hadamard(&self) -> bool {
        self.shape.hadamard
    }

    /// The classes that there are.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &LayerGroup<'a>> {
        core::iter::once(&self.full).chain(&self.windowed)
    }

    /// The classes that there are, to write to.
    pub(crate) fn groups_mut(&mut self) -> impl Iterator<Item = &mut LayerGroup<'a>> {
        core::iter::once(&mut self.full).chain(&mut self.windowed)
    }

    /// The class of a layer, and the layer's number in it.
    pub(super) fn group(&self, h: &Hparams, layer: usize) -> (&LayerGroup<'a>, usize) {
        let (windowed, index) = self.shape.rings.group(h, layer);
        (self.windowed.as_ref().filter(|_| windowed).unwrap_or(&self.full), index)
    }

    /// As [`class`](KvCache::class), to write to.
    pub(super) fn group_mut(&mut self, h: &Hparams, layer: usize) -> (&mut LayerGroup<'a>, usize) {
        let (windowed, index) = self.shape.rings.group(h, layer);
        match &mut self.windowed {
            Some(group) if windowed => (group, index),
            _ => (&mut self.full, index),
        }
    }
}
