//! Memory for keys and values: `(2, layers, kv_heads, slots, head_dim)`, the rows of a KV head one after another.

use core::ops::Range;

use crate::arch::{KvSpan, KvType};
use crate::storage::{Arena, ArenaError};
use crate::util::SliceExt;

/// Shape of a [`KvBuffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    /// Positions of each KV head.
    pub(crate) slots: usize,
    pub(crate) head_dim: usize,
    pub(crate) kv_type: KvType,
}

/// Bytes of the two parts of a [`KvBuffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvBytes {
    pub(crate) rows: usize,
    pub(crate) scales: usize,
}

impl KvShape {
    /// Bytes of one row: of one position of a KV head.
    fn row_bytes(&self) -> usize {
        self.head_dim * self.kv_type.bytes()
    }

    /// `(2, layers, kv_heads, slots, bytes)`.
    fn dims(&self, bytes: usize) -> [usize; 5] {
        [2, self.layers, self.kv_heads, self.slots, bytes]
    }

    /// Saturates only for sizes that no file has weights for.
    pub(crate) fn bytes(&self) -> KvBytes {
        let product = |bytes| self.dims(bytes).into_iter().fold(1, usize::saturating_mul);
        KvBytes { rows: product(self.row_bytes()), scales: product(self.kv_type.scale_bytes()) }
    }
}

/// Which of the two a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kv {
    Key,
    Value,
}

/// One row to write, and its scale.
pub(super) struct RowMut<'b> {
    pub(super) row: &'b mut [u8],
    /// Binary16; empty unless the row is int8.
    pub(super) scale: &'b mut [u8],
}

/// The rows or the scales of a [`KvBuffer`], as bytes.
pub(crate) struct Slots<B> {
    /// `(2 · layers · kv_heads, slots, slot_bytes)`
    pub(crate) bytes: B,
    pub(crate) slot_bytes: usize,
}

/// Keys and values of some layers and positions, in memory of any owner.
#[derive(Clone, Copy)]
pub(crate) struct KvBuffer<B> {
    shape: KvShape,
    /// (2, layers, kv_heads, slots, head_dim) elements
    rows: B,
    /// (2, layers, kv_heads, slots) binary16 for int8 elements, else nothing
    scales: B,
}

impl<'a> KvBuffer<&'a mut [u8]> {
    /// Carves a buffer. In a dry run this is the plan.
    pub(crate) fn carve(
        rows: &'static str,
        scales: &'static str,
        shape: KvShape,
        arena: &mut Arena<'a>,
    ) -> Result<Self, ArenaError> {
        let mut alloc = |name, bytes| {
            let dims = shape.dims(bytes);
            if dims.contains(&0) { Ok(&mut [][..]) } else { arena.alloc(name, &dims) }
        };
        let rows = alloc(rows, shape.row_bytes())?;
        let scales = alloc(scales, shape.kv_type.scale_bytes())?;
        Ok(KvBuffer { shape, rows, scales })
    }
}

impl<B: AsRef<[u8]>> KvBuffer<B> {
    /// A buffer over memory that has its [`bytes`](KvShape::bytes) or more; `None` if it has fewer.
    pub(crate) fn over(shape: KvShape, rows: B, scales: B) -> Option<Self> {
        let needed = shape.bytes();
        let enough = needed.rows <= rows.as_ref().len() && needed.scales <= scales.as_ref().len();
        enough.then_some(KvBuffer { shape, rows, scales })
    }

    pub(crate) fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// Rows, then scales.
    pub(crate) fn memory(&self) -> [Slots<&[u8]>; 2] {
        let scale_bytes = self.shape.kv_type.scale_bytes();
        [
            Slots { bytes: self.rows.as_ref(), slot_bytes: self.shape.row_bytes() },
            Slots { bytes: self.scales.as_ref(), slot_bytes: scale_bytes },
        ]
    }

    /// Number of the first slot of a KV head.
    fn first_slot(&self, kv: Kv, layer: usize, head: usize) -> usize {
        let s = &self.shape;
        ((kv as usize * s.layers + layer) * s.kv_heads + head) * s.slots
    }

    /// Some slots of a KV head; `sinks` says which queries they are scored with.
    pub(super) fn span(&self, layer: usize, head: usize, slots: Range<usize>, sinks: bool) -> KvSpan<'_> {
        let part = |memory: &Slots<&'_ [u8]>, kv| {
            let first = self.first_slot(kv, layer, head);
            (first + slots.start) * memory.slot_bytes..(first + slots.end) * memory.slot_bytes
        };
        let [rows, scales] = self.memory();
        KvSpan {
            k: rows.bytes.part(part(&rows, Kv::Key)),
            v: rows.bytes.part(part(&rows, Kv::Value)),
            k_scales: scales.bytes.part(part(&scales, Kv::Key)),
            v_scales: scales.bytes.part(part(&scales, Kv::Value)),
            sinks,
        }
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> KvBuffer<B> {
    /// As [`memory`](KvBuffer::memory), to write.
    pub(crate) fn memory_mut(&mut self) -> [Slots<&mut [u8]>; 2] {
        let scale_bytes = self.shape.kv_type.scale_bytes();
        [
            Slots { bytes: self.rows.as_mut(), slot_bytes: self.shape.row_bytes() },
            Slots { bytes: self.scales.as_mut(), slot_bytes: scale_bytes },
        ]
    }

    /// The row of a slot.
    pub(super) fn row_mut(&mut self, kv: Kv, layer: usize, head: usize, slot: usize) -> RowMut<'_> {
        let slot = self.first_slot(kv, layer, head) + slot;
        let [rows, scales] = self.memory_mut().map(|memory| {
            let range = slot * memory.slot_bytes..(slot + 1) * memory.slot_bytes;
            memory.bytes.part_mut(range)
        });
        RowMut { row: rows, scale: scales }
    }

    /// Copies keys and values of all heads: slot `from_slot` of layer `from_layer` of `from` to slot `slot` of `layer`.
    pub(super) fn copy_slot<C: AsRef<[u8]>>(
        &mut self,
        layer: usize,
        slot: usize,
        from: &KvBuffer<C>,
        from_layer: usize,
        from_slot: usize,
    ) {
        for head in 0..self.shape.kv_heads {
            let span = from.span(from_layer, head, from_slot..from_slot + 1, false);
            for (kv, row, scale) in [(Kv::Key, span.k, span.k_scales), (Kv::Value, span.v, span.v_scales)] {
                let to = self.row_mut(kv, layer, head, slot);
                to.row.iter_mut().zip(row).for_each(|(to, from)| *to = *from);
                to.scale.iter_mut().zip(scale).for_each(|(to, from)| *to = *from);
            }
        }
    }

    /// Zeroes the first `slots` slots of each KV head.
    pub(super) fn clear(&mut self, slots: usize) {
        let all = self.shape.slots;
        for memory in self.memory_mut() {
            let heads = memory.bytes.rows_mut(all * memory.slot_bytes);
            heads.for_each(|head| head.first_n_mut(slots * memory.slot_bytes).fill(0));
        }
    }
}
