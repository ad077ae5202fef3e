//! Writes GGUF files: those made from another one, for `armlet quantize` and `armlet pack`, and new ones of f32 tensors.
//!
//! Of a file made from another, tensors keep their order and names; metadata are copied, except for keys that are set.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use armlet::gguf::{File, Tensor};
use armlet::host::Pool;
use armlet::model::Model;
use armlet::quant::{DType, Layout, PANEL_ROWS};
use armlet::storage::{Executor, for_each_row};
use indicatif::ProgressBar;

use crate::atomic_file::{Access, Target, failed};
use crate::error::Failure;
use crate::interrupt;
use crate::model::{Source, map};
use crate::progress::progress;

/// What happens to one tensor.
pub(crate) enum Action<'a> {
    /// Copied unchanged.
    Copy(Tensor<'a>),
    /// Converted from one format to another.
    Convert(Conversion<'a>),
    /// Packed into panels, in the same format.
    Pack(Tensor<'a>, DType),
}

/// How a tensor changes its format.
pub(crate) struct Conversion<'a> {
    pub(crate) tensor: Tensor<'a>,
    pub(crate) from: DType,
    pub(crate) to: DType,
    /// The importance of each column, for each matrix of a stack.
    pub(crate) importance: Option<&'a [f32]>,
}

impl<'a> Action<'a> {
    pub(crate) fn tensor(&self) -> &Tensor<'a> {
        match self {
            Action::Convert(c) => &c.tensor,
            Action::Copy(t) | Action::Pack(t, _) => t,
        }
    }

    /// GGUF type number and bytes of the result; `None` if a row is not a whole number of blocks.
    pub(crate) fn result(&self) -> Option<(u32, u64)> {
        let sized = |dtype: DType, layout: Layout, t: &Tensor<'_>| {
            let row = dtype.row_bytes(t.dims[0] as usize)? as u64;
            Some((layout.gguf_id(dtype)?, layout.padded(t.dims[1..].iter().product())?.checked_mul(row)?))
        };
        match self {
            Action::Copy(t) => Some((t.kind.id, t.data.len() as u64)),
            Action::Convert(c) => sized(c.to, Layout::Rows, &c.tensor),
            Action::Pack(t, dtype) => sized(*dtype, Layout::Panels, t),
        }
    }

    fn write(&self, pool: &Pool, out: &mut Counted<impl Write>, progress: &ProgressBar) -> io::Result<()> {
        match self {
            Action::Copy(t) => t.data.chunks(1 << 20).try_for_each(|part| step(part, part, out, progress)),
            Action::Convert(c) => c.write(pool, out, progress),
            Action::Pack(t, dtype) => pack(t, *dtype, out, progress),
        }
    }
}

/// A metadata value to write.
pub(crate) enum Meta {
    U32(u32),
    Str(String),
    Strs(Vec<String>),
}

/// Alignment of tensor data in a file that does not say another.
const ALIGNMENT: u64 = 32;

/// Writes a whole GGUF v3 file with tensors of f32, each a name and its data, of one dimension.
pub(crate) fn write_floats(
    metadata: &[(&str, Meta)],
    tensors: &[(String, Vec<f32>)],
    out: impl Write,
) -> io::Result<()> {
    let mut out = Counted { out, n: 0 };
    out.header(tensors.len(), metadata.len())?;
    metadata.iter().try_for_each(|(key, value)| out.meta(key, value))?;
    let mut offset = 0u64;
    for (name, data) in tensors {
        out.tensor(name, &[data.len() as u64], DType::F32.gguf_id(), offset)?;
        offset = (offset + 4 * data.len() as u64).next_multiple_of(ALIGNMENT);
    }
    for (_, data) in tensors {
        out.pad(ALIGNMENT)?;
        data.iter().try_for_each(|x| out.put(&x.to_le_bytes()))?;
    }
    out.pad(ALIGNMENT)?;
    out.out.flush()
}

/// The file to write.
pub(crate) struct Output<'a> {
    /// The source of tensors and metadata.
    pub(crate) source: &'a Source<'a>,
    /// One for each tensor.
    pub(crate) actions: &'a [Action<'a>],
    /// Metadata that replace those of the source.
    pub(crate) set: &'a [(&'a str, Meta)],
    /// Alignment of tensor data, in bytes: that of the source, or the one in `set`.
    pub(crate) alignment: u64,
    /// Label of the progress bar.
    pub(crate) what: &'static str,
}

impl Output<'_> {
    /// Writes the file to `path`.
    pub(crate) fn write_to(&self, path: &Path) -> Result<(), Failure> {
        let paths = self.source.paths;
        if paths.iter().any(|input| same_file(input, path)) {
            return Err(Failure::Usage("the output is the input; give another name".into()));
        }
        interrupt::catch()?;
        let write = |out: &mut dyn Write| {
            self.write(out).map_err(|e| match e.kind() {
                io::ErrorKind::InvalidData => Failure::file(paths.first().map_or(path, |input| input), e),
                _ => failed(path, e),
            })
        };
        Target::new(path)?.replace(Access::Shared, write, |written| self.check(written, path))
    }

    /// An error if what was written is not a file that armlet reads: the keys that are added may be too many, for example.
    fn check(&self, written: &Path, path: &Path) -> Result<(), Failure> {
        let refused =
            |e: &dyn std::fmt::Display| Failure::file(path, format!("not written, as armlet would refuse it: {e}"));
        let bytes = map(written)?;
        let file = File::new_checked(&bytes).map_err(|e| refused(&e))?;
        let runs = |file: &File<'_>| Model::required_bytes(file);
        if runs(&self.source.file).is_ok() {
            runs(&file).map_err(|e| refused(&e))?;
        }
        Ok(())
    }

    /// Writes a whole GGUF v3 file.
    fn write(&self, out: impl Write) -> io::Result<()> {
        let kept = || self.source.file.raw_metadata().filter(|(key, _)| !self.set.iter().any(|(k, _)| k == key));
        let mut out = Counted { out, n: 0 };
        out.header(self.actions.len(), kept().count() + self.set.len())?;
        for (_, raw) in kept() {
            out.put(raw)?;
        }
        self.set.iter().try_for_each(|(key, value)| out.meta(key, value))?;
        let mut offset = 0u64;
        for action in self.actions {
            let t = action.tensor();
            let (kind, bytes) =
                action.result().ok_or_else(|| io::Error::other("a tensor whose rows are not whole blocks"))?;
            out.tensor(t.name, &t.dims[..t.n_dims], kind, offset)?;
            offset = (offset + bytes).next_multiple_of(self.alignment);
        }
        let pool = Pool::new(Pool::cpus());
        let progress = progress(self.actions.iter().map(|a| a.tensor().data.len() as u64).sum(), self.what);
        for action in self.actions {
            out.pad(self.alignment)?;
            action.write(&pool, &mut out, &progress)?;
        }
        out.pad(self.alignment)?;
        progress.finish_and_clear();
        out.out.flush()
    }
}

/// Writes `bytes`, which were made from `input`.
fn step(input: &[u8], bytes: &[u8], out: &mut Counted<impl Write>, progress: &ProgressBar) -> io::Result<()> {
    interrupt::check()?;
    out.put(bytes)?;
    progress.inc(input.len() as u64);
    Ok(())
}

impl Conversion<'_> {
    /// Weights that a thread converts at a time, about; a multiple of every block.
    const AT_ONCE: usize = 1 << 17;

    /// Columns that are converted together: a row; or a part of a long one, so that a tensor of one row takes no more
    /// memory than others. Blocks do not depend on each other, except that importance is weighed against the mean square
    /// of the row.
    fn piece(&self) -> usize {
        let cols = self.tensor.dims[0] as usize;
        if self.importance.is_some() { cols } else { cols.min(Self::AT_ONCE) }
    }

    fn write(&self, pool: &Pool, out: &mut Counted<impl Write>, progress: &ProgressBar) -> io::Result<()> {
        let piece = self.piece();
        let (Some(piece_in), Some(piece_out)) = (self.from.row_bytes(piece), self.to.row_bytes(piece)) else {
            return Ok(());
        };
        let (threads, pieces) = (pool.workers(), (Self::AT_ONCE / piece.max(1)).max(1));
        let data = self.tensor.data;
        let at_once = (threads * pieces).min(data.len().div_ceil(piece_in.max(1)));
        let mut encoded = vec![0; at_once * piece_out];
        for (batch, input) in data.chunks(at_once * piece_in).enumerate() {
            let encoded = &mut encoded[..self.converted(input.len())];
            let failed = Mutex::new(None);
            for_each_row(pool, encoded, pieces * piece_out, |i, out| {
                let first = i * pieces;
                let input = &input[first * piece_in..];
                let input = &input[..input.len().min(pieces * piece_in)];
                if let Err(e) = self.pieces(batch * at_once + first, input, out) {
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    // The first of the file, whichever thread comes first.
                    if failed.as_ref().is_none_or(|(other, _)| i < *other) {
                        *failed = Some((i, e));
                    }
                }
            });
            if let Some((_, e)) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
                return Err(e);
            }
            step(input, encoded, out, progress)?;
        }
        Ok(())
    }

    /// Bytes of so many bytes in the new format.
    fn converted(&self, bytes: usize) -> usize {
        bytes / self.from.block_bytes() * self.from.block_len() / self.to.block_len() * self.to.block_bytes()
    }

    /// Converts pieces, of which the first is piece `first` of the tensor; an error of kind `InvalidData` if a weight is not
    /// finite or does not fit.
    fn pieces(&self, first: usize, input: &[u8], out: &mut [u8]) -> io::Result<()> {
        let Conversion { tensor: t, from, to, importance } = self;
        let (cols, piece) = (t.dims[0] as usize, self.piece());
        let (piece_in, piece_out) = (from.row_bytes(piece).unwrap_or(1), to.row_bytes(piece).unwrap_or(1));
        let fail = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("tensor {}: {why}", t.name));
        let (mut weights, mut back) = (vec![0.0; piece], vec![0.0; piece]);
        for (i, (input, out)) in input.chunks(piece_in).zip(out.chunks_mut(piece_out)).enumerate() {
            // The last piece of a tensor may be shorter.
            let n = input.len() / from.block_bytes() * from.block_len();
            let (weights, back) = (&mut weights[..n], &mut back[..n]);
            from.decode_row(input, weights);
            let row = (first + i) as u64 * piece as u64 / cols.max(1) as u64;
            if let Some(w) = weights.iter().find(|w| !w.is_finite()) {
                return Err(fail(format!("row {row} has a weight of {w}; the file is damaged")));
            }
            let matrix = row as usize / (t.dims[1] as usize).max(1);
            let importance = importance.and_then(|w| w.chunks_exact(cols).nth(matrix));
            to.encode_row_weighted(weights, importance, out).map_err(io::Error::other)?;
            to.decode_row(out, back);
            let most = largest(*to);
            let unfit = |(w, b): &(&f32, &f32)| !b.is_finite() || w.abs() > most;
            if let Some((w, _)) = weights.iter().zip(&*back).find(unfit) {
                return Err(fail(format!("row {row} has a weight of {w}, beyond the range of {to}; use BF16 or F32")));
            }
        }
        Ok(())
    }
}

/// A magnitude beyond which a format's encoder does not say by infinities that a weight is too large for it: NVFP4's cuts it
/// off, and sums of squares overflow in the others.
fn largest(to: DType) -> f32 {
    match to {
        DType::Nvfp4 => 6.0 * 448.0,
        DType::F32 | DType::F16 | DType::Bf16 | DType::Mxfp4 => f32::MAX,
        // The largest number of all others: a scale in binary16, a scale of a part, and a level, of Q6_K.
        _ => 65504.0 * 128.0 * 32.0,
    }
}

fn pack(t: &Tensor<'_>, dtype: DType, out: &mut Counted<impl Write>, progress: &ProgressBar) -> io::Result<()> {
    let Some(row) = dtype.row_bytes(t.dims[0] as usize) else { return Ok(()) };
    let mut panel = vec![0; PANEL_ROWS * row];
    for rows in t.data.chunks(PANEL_ROWS * row) {
        dtype.pack_panel(rows, &mut panel);
        step(rows, &panel, out, progress)?;
    }
    Ok(())
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The parts of a file; counts the bytes that are written, for the padding.
struct Counted<W> {
    out: W,
    n: u64,
}

impl<W: Write> Counted<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.n += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn u32(&mut self, n: u32) -> io::Result<()> {
        self.put(&n.to_le_bytes())
    }

    fn u64(&mut self, n: u64) -> io::Result<()> {
        self.put(&n.to_le_bytes())
    }

    fn string(&mut self, s: &str) -> io::Result<()> {
        self.u64(s.len() as u64)?;
        self.put(s.as_bytes())
    }

    fn header(&mut self, tensors: usize, metadata: usize) -> io::Result<()> {
        self.put(b"GGUF")?;
        self.u32(3)?;
        self.u64(tensors as u64)?;
        self.u64(metadata as u64)
    }

    /// A metadata entry: key, type number, value.
    fn meta(&mut self, key: &str, value: &Meta) -> io::Result<()> {
        const STRING: u32 = 8;
        self.string(key)?;
        match value {
            Meta::U32(n) => self.u32(4).and_then(|()| self.u32(*n)),
            Meta::Str(s) => self.u32(STRING).and_then(|()| self.string(s)),
            Meta::Strs(all) => {
                self.u32(9)?;
                self.u32(STRING)?;
                self.u64(all.len() as u64)?;
                all.iter().try_for_each(|s| self.string(s))
            }
        }
    }

    /// What the file says of a tensor before all data.
    fn tensor(&mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> io::Result<()> {
        self.string(name)?;
        self.u32(dims.len() as u32)?;
        dims.iter().try_for_each(|d| self.u64(*d))?;
        self.u32(kind)?;
        self.u64(offset)
    }

    fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let padding = self.n.next_multiple_of(alignment) - self.n;
        self.n += padding;
        io::copy(&mut io::Read::take(io::repeat(0), padding), &mut self.out).map(drop)
    }
}
