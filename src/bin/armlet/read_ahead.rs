//! A model's pages are read from an SD card while the first ones are worked on.
//!
//! A page that is not in memory is read when it is touched, and whoever touches it waits. So a first prompt would take as
//! long as reading and computing together. Here a thread asks for the weights beforehand, in the order in which a pass
//! needs them, and the first token comes when the slower of the two is done.
//!
//! A pass needs all weights, so only the first one waits for the disk: what is computed meanwhile is that pass. Where most of
//! the file is still on the disk, the whole prompt is therefore read in one ([`ReadAhead::chunk`]); once all pages are there, passes
//! are as short as always, because Ctrl-C waits for one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::{iter, thread};

use armlet::engine::Config;
use armlet::gguf::File;

use crate::parts;
use crate::progress::Part;
use crate::resident::{available, is_cold};

/// Bytes asked for at once: after each the thread looks whether it is still wanted.
const PIECE: usize = 1 << 20;

/// Pieces that are asked for before the first of them has come. Who waits for another page, a row of the embedding, waits for
/// these at most.
const LEAD: usize = 8;

/// The most tokens of a first pass. On a small model's smallest board they take half a minute, in which Ctrl-C waits.
pub(crate) const LONGEST: usize = 512;

/// What is read of a model's file.
pub(crate) struct ReadAhead<'m> {
    /// The tensors' bytes in the order of a pass, in pieces; none if they are not asked for.
    pieces: Vec<&'m [u8]>,
    bytes: usize,
    /// How many of these bytes have come.
    read: AtomicUsize,
    /// Nobody wants them any more.
    over: AtomicBool,
    /// Tables with a row for each token, of which a pass needs few.
    tables: Vec<Table<'m>>,
    /// Most of the file was on the disk at the start.
    is_cold: bool,
}

/// A matrix with a row for each token.
struct Table<'m> {
    data: &'m [u8],
    row: usize,
}

impl<'m> ReadAhead<'m> {
    /// Asks for nothing yet. `paths` are those of the file's parts. A board that has `own` weights wants no others.
    pub(crate) fn new(file: &File<'m>, paths: &[PathBuf], own: Option<Vec<&'m [u8]>>) -> Self {
        let wanted = own.unwrap_or_else(|| in_order(file));
        let bytes: usize = wanted.iter().map(|data| data.len()).sum();
        let has_room = available().is_some_and(|room| room >= bytes as u64);
        let table = |name| {
            let tensor = file.tensors().find(|tensor| tensor.name == name)?;
            let rows = usize::try_from(tensor.dims[1]).ok()?;
            let row = tensor.data.len().checked_div(rows).filter(|row| *row > 0)?;
            Some(Table { data: tensor.data, row })
        };
        ReadAhead {
            pieces: if has_room { wanted.iter().flat_map(|data| data.chunks(PIECE)).collect() } else { Vec::new() },
            bytes: if has_room { bytes } else { 0 },
            read: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            tables: TABLES.into_iter().filter_map(table).collect(),
            is_cold: has_room && is_cold(paths),
        }
    }

    /// Runs `f`, and meanwhile asks for the pages of the model, if there is memory for all of them.
    pub(crate) fn during<T>(&self, f: impl FnOnce() -> T) -> T {
        if self.pieces.is_empty() {
            return f();
        }
        thread::scope(|scope| {
            // Without a thread, pages are read as they are touched.
            let spawned = thread::Builder::new().name("read-ahead".into()).spawn_scoped(scope, || self.ask());
            if spawned.is_err() {
                self.read.store(self.bytes, Relaxed);
            }
            let _over = Until(&self.over);
            f()
        })
    }

    fn ask(&self) {
        // A page is there when it can be touched.
        let arrived = |piece: &[u8]| {
            std::hint::black_box(piece.last().copied());
            self.read.fetch_add(piece.len(), Relaxed);
        };
        let behind = iter::repeat_n(None, LEAD).chain(self.pieces.iter().map(Some));
        let ahead = self.pieces.iter().map(Some).chain(iter::repeat_n(None, LEAD));
        for (next, last) in ahead.zip(behind) {
            if self.over.load(Relaxed) {
                return;
            }
            next.into_iter().for_each(|piece| parts::will_need(piece));
            last.into_iter().for_each(|piece| arrived(piece));
        }
    }

    /// Asks for the rows of these tokens. The rest of an embedding comes last; and who touches a page that nobody has asked
    /// for waits for those around it as well.
    pub(crate) fn rows(&self, tokens: &[u32]) {
        if self.left().is_none() {
            return;
        }
        for Table { data, row } in &self.tables {
            let rows = tokens.iter().filter_map(|token| data.chunks_exact(*row).nth(usize::try_from(*token).ok()?));
            rows.for_each(parts::will_need);
        }
    }

    /// How many bytes of the model were read, while some are missing.
    pub(crate) fn left(&self) -> Option<Part> {
        let bytes = Part { done: self.read.load(Relaxed), of: self.bytes };
        Some(bytes).filter(|bytes| bytes.done < bytes.of)
    }

    /// The most tokens of a pass over a prompt of `tokens`, the first of this process, if they should be more than usual. Not
    /// with float matrices, where it would show in the last bits.
    pub(crate) fn chunk(&self, has_floats: bool, tokens: usize) -> Option<usize> {
        let is_longer = tokens > Config::default().chunk;
        (self.is_cold && is_longer && !has_floats).then_some(tokens.min(LONGEST))
    }
}

/// Names of tables with a row for each token.
const TABLES: [&str; 2] = ["token_embd.weight", "per_layer_token_embd.weight"];

/// Sets it, also when `f` panics.
struct Until<'o>(&'o AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The tensors' bytes in the order of a pass: layer by layer, then what belongs to none. Of the embedding a first pass needs a
/// few rows, unless it is the output head as well, and that is last.
fn in_order<'m>(file: &File<'m>) -> Vec<&'m [u8]> {
    let place = |name: &str| (layer(name), TABLES.contains(&name));
    let mut tensors: Vec<_> = file.tensors().map(|tensor| (place(tensor.name), tensor.data)).collect();
    tensors.sort_by_key(|(place, data)| (*place, data.as_ptr()));
    tensors.into_iter().map(|(_, data)| data).collect()
}

/// The layer of a tensor named `blk.N.…`; the greatest number if it is of none.
fn layer(name: &str) -> u32 {
    let number = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
    number.unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_in_their_order() {
        let names = ["blk.0.attn_q.weight", "blk.10.ffn_up.weight", "token_embd.weight", "blk.x.y", "output.weight"];
        assert_eq!(names.map(layer), [0, 10, u32::MAX, u32::MAX, u32::MAX]);
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let bytes = vec![7; 20 * PIECE + 5];
        let ahead = |pieces: Vec<_>| ReadAhead {
            pieces,
            bytes: bytes.len(),
            read: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            tables: Vec::new(),
            is_cold: true,
        };
        let whole = ahead(bytes.chunks(PIECE).collect());
        assert!(whole.left().is_some_and(|part| part.done == 0 && part.of == bytes.len()));
        whole.ask();
        assert!(whole.left().is_none());
        assert_eq!([100, 400, 5000].map(|n| whole.chunk(false, n)), [None, Some(400), Some(LONGEST)]);
        assert_eq!(whole.chunk(true, 400), None);
        let stopped = ahead(bytes.chunks(PIECE).collect());
        stopped.during(|| ());
        stopped.ask();
        assert!(stopped.over.into_inner());
    }
}
