//! Sessions of several boards: one file, byte for byte that of one board.
//!
//! The first board goes through the file from its start to its end, and has each run of bytes from the board that has it: by
//! layers the one with the layer, by rows the one with the KV head. Where boards share positions, a run of one board's ring
//! falls into what single boards have, and what no position is in is zeros; each of them has all sinks.
//!
//! The others know nothing of the file. They are asked for a run, or told to take one, as they are told to run tokens, so that
//! they wait idly for a slow disk; and an error of the file on the first board concerns nobody else.

use super::boards::{At, Command};
use super::error::EngineError;
use super::header::{HEADER, Header};
use super::snapshot::{PART, Written, ZEROS, padding};
use super::{Engine, Session};
use crate::boards::CommError;
use crate::model::{CacheShape, Field, Hparams, Run, Share, Split};
use crate::storage::{Ring, bytes_of_mut};
use crate::util::{SliceExt, crc32};

/// Some bytes of a session's file.
enum Piece {
    /// Slots of one board, and how many bytes.
    Run(Run, usize),
    /// So many zeros: slots without a position, and padding.
    Nothing(usize),
}

impl Engine<'_> {
    /// Writes the session of all boards to `sink`, part by part, as [`Session::save`] of one board would. Called on the first
    /// board, while the others [follow](Engine::follow); of one board it is the same as that.
    ///
    /// # Errors
    /// [`EngineError::Shared`] and [`EngineError::OtherModel`] for another session than that of the boards;
    /// [`EngineError::Boards`]; inside, the sink's.
    pub fn save<E>(
        &mut self,
        session: &Session<'_>,
        extra: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, EngineError> {
        if self.sizes.share.is_whole() {
            return Ok(session.save(extra, sink));
        }
        self.is_first(session)?;
        self.take_session(&session.cache, self.boards.session.is_none())?;
        let mut header = session.header_of_all(self.fingerprint()?);
        header.extra = extra.len() as u64;
        let zeros = ZEROS.first_n(padding(extra.len()));
        let mut checksum = crc32(crc32(0, extra), zeros);
        self.gather(session, &mut |part| {
            checksum = crc32(checksum, part);
            true
        })?;
        header.checksum = checksum;
        let mut result = sink(&header.encode());
        let mut write = |part: &[u8]| {
            if result.is_ok() && !part.is_empty() {
                result = sink(part);
            }
            result.is_ok()
        };
        if write(extra) && write(zeros) {
            self.gather(session, &mut write)?;
        }
        Ok(result)
    }

    /// Restores what a session of the same model and plan has saved in `bytes`, on however many boards; returns the caller's
    /// `extra` of then. Called on the first board, while the others [follow](Engine::follow).
    ///
    /// # Errors
    /// [`EngineError::Snapshot`]; [`EngineError::Shared`] and [`EngineError::OtherModel`] for a session that is not of these
    /// boards: it is then unchanged on all of them. [`EngineError::Boards`], after which it may be empty.
    pub fn restore<'b>(&mut self, session: &mut Session<'_>, bytes: &'b [u8]) -> Result<&'b [u8], EngineError> {
        if self.sizes.share.is_whole() {
            return Ok(session.restore(bytes)?);
        }
        self.is_first(session)?;
        let own = session.header_of_all(self.fingerprint()?);
        let (h, header) = (&self.model().hparams, session.check_header(bytes, &own)?);
        let content = header.content(bytes, |extra| {
            let mut len = (HEADER + extra.next_multiple_of(PART)) as u64;
            for_each_piece(session.cache.shape(), h, header.written, usize::MAX, &mut |piece| {
                let (Piece::Run(_, bytes) | Piece::Nothing(bytes)) = piece;
                len += bytes as u64;
                Ok(())
            })
            .map_or(u64::MAX, |()| len)
        })?;
        self.take_session(&session.cache, true)?;
        let at = At { position: header.position, written: header.written };
        self.scatter(session, at, content.rows).inspect_err(|e| {
            session.cache.clear();
            self.boards.failed = Some(*e);
        })?;
        Ok(content.extra)
    }

    /// Of the model: taken once, since it reads some of all weights, and by all boards, each of which reads what is its own.
    fn fingerprint(&mut self) -> Result<u64, EngineError> {
        if let Some(known) = self.boards.fingerprint {
            return Ok(known);
        }
        let fingerprint = match self.sizes.share.is(Split::Tokens) {
            true => self.model().fingerprint(),
            false => {
                self.can_go_on()?;
                let told = self.boards.comm.listen(0, bytes_of_mut(&mut Command::Fingerprint.words(&[])));
                let taken = told.and_then(|()| self.shared_fingerprint());
                taken.inspect_err(|e| self.boards.failed = Some(*e))?
            }
        };
        self.boards.fingerprint = Some(fingerprint);
        Ok(fingerprint)
    }

    /// What the boards together find, all of which call this.
    fn shared_fingerprint(&mut self) -> Result<u64, CommError> {
        self.model().shared_fingerprint(self.boards.comm, self.sizes.share, bytes_of_mut(self.buffers.attended))
    }

    fn is_first(&self, session: &Session<'_>) -> Result<(), EngineError> {
        match self.sizes.share.rank() {
            _ if !session.is_of(self.model()) => Err(EngineError::OtherModel),
            0 => Ok(()),
            _ => Err(EngineError::Shared),
        }
    }

    /// Calls `f` with all that was written to the caches of the boards, in the order of the format, for as long as it returns
    /// true.
    fn gather(&mut self, session: &Session<'_>, f: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), CommError> {
        let (comm, share, h) = (self.boards.comm, self.sizes.share, &self.model().hparams);
        let (cache, room, mut goes_on) = (&session.cache, bytes_of_mut(self.buffers.attended), true);
        let at = At { position: cache.position(), written: cache.written() };
        let result = for_each_piece(cache.shape(), h, at.written, room.len(), &mut |piece| {
            match piece {
                _ if !goes_on => {}
                Piece::Nothing(bytes) => {
                    let mut parts = (0..bytes).step_by(PART).map(|start| ZEROS.first_n((bytes - start).min(PART)));
                    goes_on = parts.all(&mut *f);
                }
                Piece::Run(run, bytes) => {
                    let part = room.first_n_mut(bytes);
                    match (0..share.size()).find(|board| share.of_board(*board).has(h, &run)) {
                        Some(0) => cache.copy_run(h, &run, part),
                        Some(board) => {
                            comm.listen(0, bytes_of_mut(&mut Command::Give { at, run }.words(&[])))?;
                            comm.shift(None, Some((board, &mut *part)), &mut |_| ())?;
                        }
                        None => {}
                    }
                    goes_on = f(part);
                }
            }
            Ok(())
        });
        result.inspect_err(|e| self.boards.failed = Some(*e))
    }

    /// Gives each board what is its own of `rows`, what follows the caller's bytes in a file.
    fn scatter(&mut self, session: &mut Session<'_>, at: At, rows: &[u8]) -> Result<(), CommError> {
        let (comm, share, h) = (self.boards.comm, self.sizes.share, &self.model().hparams);
        comm.listen(0, bytes_of_mut(&mut Command::Place { at }.words(&[])))?;
        session.place(at);
        let (room, mut rest) = (size_of_val(&*self.buffers.attended), rows);
        let (shape, cache) = (*session.cache.shape(), &mut session.cache);
        for_each_piece(&shape, h, at.written, room, &mut |piece| {
            let (Piece::Run(_, bytes) | Piece::Nothing(bytes)) = piece;
            let (part, tail) = rest.split_at(bytes.min(rest.len()));
            rest = tail;
            let Piece::Run(run, _) = piece else { return Ok(()) };
            let has = |board: &usize| share.of_board(*board).has(h, &run);
            if (1..share.size()).any(|board| has(&board)) {
                comm.listen(0, bytes_of_mut(&mut Command::Take { at, run }.words(&[])))?;
            }
            (1..share.size()).filter(has).try_for_each(|board| comm.shift(Some((board, part)), None, &mut |_| ()))?;
            if has(&0) {
                cache.set_run(h, &run, part);
            }
            Ok(())
        })
    }

    /// Does what the first board asks for in [`save`](Engine::save) and [`restore`](Engine::restore).
    pub(super) fn follow_snapshot(&mut self, session: &mut Session<'_>, command: Command) -> Result<(), EngineError> {
        let (comm, share, h) = (self.boards.comm, self.sizes.share, &self.model().hparams);
        let (run, gives) = match command {
            Command::Give { at, run } => {
                session.go_to(at)?;
                (run, true)
            }
            Command::Take { run, .. } => (run, false),
            Command::Place { at } => {
                session.place(at);
                return Ok(());
            }
            Command::Fingerprint => {
                self.shared_fingerprint()?;
                return Ok(());
            }
            Command::Pass { .. } | Command::End => return Ok(()),
        };
        // All boards hear of each run.
        if !share.has(h, &run) {
            return Ok(());
        }
        let bytes = run.slots.saturating_mul(session.cache.shape().slot_bytes(h, &run));
        let Some(part) = bytes_of_mut(self.buffers.attended).get_mut(..bytes) else {
            return Err(EngineError::Shared);
        };
        if gives {
            session.cache.copy_run(h, &run, part);
            comm.shift(Some((0, &*part)), None, &mut |_| ())?;
        } else {
            comm.shift(None, Some((0, &mut *part)), &mut |_| ())?;
            session.cache.set_run(h, &run, part);
        }
        Ok(())
    }
}

impl Session<'_> {
    /// The header of what all boards have together.
    fn header_of_all(&self, fingerprint: u64) -> Header {
        let shape = CacheShape { share: Share::WHOLE, ..*self.cache.shape() };
        let (position, written) = (self.cache.position(), self.cache.written());
        Header { position, written, ..Header::of_model(self.model, fingerprint, &shape, self.shared) }
    }

    /// Forgets everything, and is where another session is whose keys and values are to come.
    fn place(&mut self, at: At) {
        self.cache.clear();
        self.cache.set_position(at.position, at.written);
    }
}

/// Calls `f` with all pieces of a file behind the caller's bytes, for caches of which `written` positions were written: runs of
/// at most `room` bytes, each of slots that the same boards have.
fn for_each_piece(
    shape: &CacheShape,
    h: &Hparams,
    written: u64,
    room: usize,
    f: &mut dyn FnMut(Piece) -> Result<(), CommError>,
) -> Result<(), CommError> {
    for (windowed, ring) in [(false, Some(shape.groups.full)), (true, shape.groups.windowed)] {
        let Some(ring) = ring else { continue };
        let slots = Written::new(&ring, written);
        for (sinks, slots) in [(true, slots.sinks), (false, slots.ring)] {
            for fields in [[Field::Keys, Field::Values], [Field::KeyScales, Field::ValueScales]] {
                let mut len = 0;
                for (field, layer) in fields.into_iter().flat_map(|field| (0..h.n_layers).map(move |l| (field, l))) {
                    if shape.is_windowed(h, layer) != windowed {
                        continue;
                    }
                    for head in 0..h.n_kv_heads {
                        let all = Run { field, layer, head, sinks, first: 0, slots };
                        let bytes = shape.slot_bytes(h, &all);
                        len += slots * bytes;
                        for_each_run(&all, &ring, &shape.share, written, bytes, room, f)?;
                    }
                }
                f(Piece::Nothing(padding(len)))?;
            }
        }
    }
    Ok(())
}

/// The same for the slots of a KV head, of `bytes` each.
fn for_each_run(
    all: &Run,
    ring: &Ring,
    share: &Share,
    written: u64,
    bytes: usize,
    room: usize,
    f: &mut dyn FnMut(Piece) -> Result<(), CommError>,
) -> Result<(), CommError> {
    let most = room / bytes.max(1);
    let mut start = 0;
    while bytes > 0 && start < all.slots {
        let left = (all.slots - start).min(most.max(1));
        let held = |slot| ring.held(slot, written);
        // Where boards share positions, those that follow each other in a block of the same board.
        let (position, slots) = match !all.sinks && share.is(Split::Tokens) {
            false => (Some(start as u64), left),
            true => {
                let first = held(start);
                let next = |i: usize| first.map(|first| first + i as u64);
                let owner = |position: Option<u64>| position.map(|position| share.blocks().of_position(position));
                let goes_on = |i: &usize| {
                    let position = held(start + i);
                    position == next(*i) && owner(position) == owner(first)
                };
                (first, (0..left).take_while(goes_on).count().max(1))
            }
        };
        f(match position {
            Some(first) => Piece::Run(Run { first, slots, ..*all }, slots * bytes),
            None => Piece::Nothing(slots * bytes),
        })?;
        start += slots;
    }
    Ok(())
}
