//! What a board of several has of a saved session, whose bytes are those of one board: runs of slots of one KV head.

use super::cache::{CacheShape, KvCache, LayerGroup};
use super::kv_buffer::Kv;
use super::{Hparams, Share, Split};
use crate::storage::TILE;
use crate::util::SliceExt;

/// Rows or scales of a KV head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Keys,
    Values,
    KeyScales,
    ValueScales,
}

impl Field {
    /// In the order of a saved session.
    pub(crate) const ALL: [Field; 4] = [Field::Keys, Field::Values, Field::KeyScales, Field::ValueScales];
}

/// Consecutive slots of a KV head of one board alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) field: Field,
    /// Of the whole model.
    pub(crate) layer: usize,
    /// Of all boards.
    pub(crate) head: usize,
    /// Whether they are those of the sinks; else of the ring.
    pub(crate) sinks: bool,
    /// The first slot, or the position in it where boards share positions.
    pub(crate) first: u64,
    pub(crate) slots: usize,
}

impl Share {
    /// Whether this board has the first slot of a run.
    pub(crate) fn has(&self, h: &Hparams, run: &Run) -> bool {
        let position = run.sinks || self.has_position(run.first);
        position && self.layers(h).contains(&run.layer) && self.kv_heads(h).contains(&run.head)
    }
}

impl CacheShape {
    /// Whether a layer is in the group of those with a window of their own.
    pub(crate) fn is_windowed(&self, h: &Hparams, layer: usize) -> bool {
        self.groups.windowed.is_some() && h.is_windowed(layer)
    }

    /// Bytes of a slot of a run.
    pub(crate) fn slot_bytes(&self, h: &Hparams, run: &Run) -> usize {
        let head = if self.is_windowed(h, run.layer) { h.windowed_head() } else { &h.head };
        match run.field {
            Field::Keys | Field::Values => head.dim * self.kv_type.bytes(),
            Field::KeyScales | Field::ValueScales => self.kv_type.scale_bytes(),
        }
    }
}

impl KvCache<'_> {
    /// Copies a run that this board has to `to`, which is as long.
    pub(crate) fn copy_run(&self, h: &Hparams, run: &Run, to: &mut [u8]) {
        let ((group, layer), head) = (self.group(h, run.layer), run.head - self.shape().share.kv_heads(h).start);
        let (bytes, mut done) = (self.shape().slot_bytes(h, run), 0);
        for (slot, slots) in group.pieces(run) {
            let span = match group.own_sinks().filter(|_| run.sinks) {
                Some(sinks) => sinks.span(layer, head, slot..slot + slots, true),
                None => group.buffer.span(layer, head, slot..slot + slots, false),
            };
            let from = match run.field {
                Field::Keys => span.k,
                Field::Values => span.v,
                Field::KeyScales => span.k_scales,
                Field::ValueScales => span.v_scales,
            };
            let to = to.part_mut(done..done + slots * bytes);
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            done += slots * bytes;
        }
    }

    /// Copies `from` to a run that this board has, which is as long.
    pub(crate) fn set_run(&mut self, h: &Hparams, run: &Run, from: &[u8]) {
        let head = run.head - self.shape().share.kv_heads(h).start;
        let (bytes, (group, layer)) = (self.shape().slot_bytes(h, run), self.group_mut(h, run.layer));
        for i in 0..run.slots {
            let slot = group.slot_of(run, i);
            let buffer = match run.sinks {
                true => group.own_sinks_mut(),
                false => Some(&mut group.buffer),
            };
            let Some(buffer) = buffer else { return };
            let (kv, is_row) = match run.field {
                Field::Keys => (Kv::Key, true),
                Field::Values => (Kv::Value, true),
                Field::KeyScales => (Kv::Key, false),
                Field::ValueScales => (Kv::Value, false),
            };
            let to = buffer.row_mut(kv, layer, head, slot);
            let to = if is_row { to.row } else { to.scale };
            to.iter_mut().zip(from.row(i, bytes)).for_each(|(to, from)| *to = *from);
        }
    }
}

impl LayerGroup<'_> {
    /// Slot `i` of a run on this board.
    fn slot_of(&self, run: &Run, i: usize) -> usize {
        let first = run.first + i as u64;
        match !run.sinks && self.is_by_position() {
            true => self.slot(first),
            false => first as usize,
        }
    }

    /// A run as this board has it: first slots, and how many follow each other.
    fn pieces(&self, run: &Run) -> impl Iterator<Item = (usize, usize)> {
        let mut i = 0;
        core::iter::from_fn(move || {
            let left = run.slots.checked_sub(i).filter(|left| *left > 0)?;
            // Positions of one tile have slots of one tile.
            let tile = TILE - (run.first + i as u64) as usize % TILE;
            let slots = if self.is_by_position() { left.min(tile) } else { left };
            let slot = self.slot_of(run, i);
            i += slots;
            Some((slot, slots))
        })
    }

    fn is_by_position(&self) -> bool {
        self.share().is(Split::Tokens)
    }
}
