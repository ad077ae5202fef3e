//! The fingerprint of a model of which each board has a part, taken together: no board reads weights that are another's.
//!
//! All boards go through what counts in the same order. What is one board's goes to all, as much at a time as there is room for, and
//! is hashed in that order, so that the number is the one of a board alone.

use super::fingerprint::{Digest, Fnv, STEP, samples};
use super::shares::MAX_BOARDS;
use super::{Model, Share};
use crate::boards::{Comm, CommError};
use crate::util::SliceExt;

/// The most bytes that are gathered at once: boards with slow disks hear of each other while they read so many.
const AT_ONCE: usize = 16 << 10;

impl Model<'_> {
    /// [`fingerprint`](Model::fingerprint) of boards that share the model by layers or rows, all of which call this, through room
    /// that is as large on each.
    pub(crate) fn shared_fingerprint(&self, comm: &dyn Comm, share: Share, room: &mut [u8]) -> Result<u64, CommError> {
        let room = room.first_n_mut(room.len().min(AT_ONCE));
        let (layer, len, owner, ends) = (None, 0, 0, [0; MAX_BOARDS]);
        let gathered =
            Gathered { model: self, comm, share, layer, room, len, owner, ends, hash: Fnv::EMPTY, result: Ok(()) };
        let mut gathered = self.sampled(gathered, STEP);
        gathered.exchange();
        gathered.result.map(|()| gathered.hash.0)
    }
}

/// What counts, from the boards that have it.
struct Gathered<'g> {
    model: &'g Model<'g>,
    comm: &'g dyn Comm,
    share: Share,
    /// Whose weights come; none outside the layers.
    layer: Option<usize>,
    /// What is gathered next: the first `len` bytes, one board's behind another's.
    room: &'g mut [u8],
    len: usize,
    /// Whose the last of them are.
    owner: usize,
    /// Where the part of each board ends.
    ends: [usize; MAX_BOARDS],
    hash: Fnv,
    result: Result<(), CommError>,
}

impl Digest for Gathered<'_> {
    /// What all boards know: it goes with what is there.
    fn add(&mut self, bytes: &[u8]) {
        self.add_of(self.owner, bytes);
    }

    fn enter(&mut self, layer: usize) {
        self.layer = Some(layer);
    }

    fn sample(&mut self, bytes: &[u8], step: usize) {
        let (mut ends, mut end) = ([0; MAX_BOARDS], 0);
        for (board, to) in ends.first_n_mut(self.share.size()).iter_mut().enumerate() {
            end += self.own(&self.share.of_board(board), bytes);
            *to = end;
        }
        for mut sample in samples(bytes, step) {
            let mut at = sample.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
            while !sample.is_empty() {
                // What is no board's own all of them know.
                let (owner, end) =
                    ends.iter().enumerate().find(|(_, end)| at < **end).unwrap_or((self.owner, &usize::MAX));
                let (part, rest) = sample.split_at_checked(end - at).unwrap_or((sample, &[]));
                self.add_of(owner, part);
                (at, sample) = (at + part.len(), rest);
            }
        }
    }
}

impl Gathered<'_> {
    /// How many bytes of a tensor are a board's own.
    fn own(&self, share: &Share, tensor: &[u8]) -> usize {
        let (range, mut len) = (tensor.as_ptr_range(), 0);
        let mut add = |own: &[u8]| {
            let part = own.as_ptr_range();
            if range.start <= part.start && part.end <= range.end {
                len = own.len().max(len);
            }
        };
        match self.layer {
            Some(layer) => share.for_each_of_layer(self.model, layer, &mut add),
            None => {
                share.for_each_of_head(self.model, &mut add);
                add(share.embedding(self.model));
            }
        }
        len
    }

    /// Adds bytes that a board has.
    fn add_of(&mut self, owner: usize, mut bytes: &[u8]) {
        if owner < self.owner {
            self.exchange();
        }
        // A plan has room for a token at least.
        while !bytes.is_empty() && !self.room.is_empty() && self.result.is_ok() {
            if self.len == self.room.len() {
                self.exchange();
            }
            let (part, rest) = bytes.split_at_checked(self.room.len() - self.len).unwrap_or((bytes, &[]));
            let to = self.len..self.len + part.len();
            (self.owner, self.len) = (owner, to.end);
            self.ends.iter_mut().skip(owner).for_each(|end| *end = to.end);
            if owner == self.share.rank() {
                self.room.part_mut(to).iter_mut().zip(part).for_each(|(to, byte)| *to = *byte);
            }
            bytes = rest;
        }
    }

    /// Gathers what is there, and hashes it.
    fn exchange(&mut self) {
        let all = self.room.first_n_mut(self.len);
        if self.result.is_ok() && !all.is_empty() {
            self.result = self.comm.all_gather(all, self.ends.first_n(self.share.size()));
            self.hash.add(all);
        }
        (self.len, self.owner, self.ends) = (0, 0, [0; MAX_BOARDS]);
    }
}
