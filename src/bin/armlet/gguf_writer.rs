//! Writes a GGUF file made from another one, for `armlet quantize` and `armlet pack`.
//!
//! Tensors keep their order and names; metadata are copied, except for keys that are set.

use std::io::{self, Write};
use std::path::Path;

use armlet::gguf::{File, Tensor};
use armlet::quant::{DType, EncodeError, Layout, PANEL_ROWS};
use indicatif::ProgressBar;

use crate::atomic_file::replace;
use crate::error::Failure;
use crate::interrupt;
use crate::progress::progress;

/// What happens to one tensor.
pub(crate) enum Action<'a> {
    /// Copied unchanged.
    Copy(Tensor<'a>),
    /// Converted from one format to another.
    Convert(Tensor<'a>, DType, DType),
    /// Packed into panels, in the same format.
    Pack(Tensor<'a>, DType),
}

impl<'a> Action<'a> {
    fn tensor(&self) -> &Tensor<'a> {
        let (Action::Copy(t) | Action::Convert(t, ..) | Action::Pack(t, _)) = self;
        t
    }

    /// GGUF type number and bytes of the result; `None` if a row is not a whole number of blocks.
    fn result(&self) -> Option<(u32, u64)> {
        let sized = |dtype: DType, layout: Layout, t: &Tensor<'_>| {
            let row = dtype.row_bytes(t.dims[0] as usize)? as u64;
            Some((layout.gguf_id(dtype)?, layout.padded(t.dims[1..].iter().product())?.checked_mul(row)?))
        };
        match self {
            Action::Copy(t) => Some((t.kind.id, t.data.len() as u64)),
            Action::Convert(t, _, to) => sized(*to, Layout::Rows, t),
            Action::Pack(t, dtype) => sized(*dtype, Layout::Panels, t),
        }
    }

    fn write(&self, out: &mut Counted<impl Write>, progress: &ProgressBar) -> io::Result<()> {
        match self {
            Action::Copy(t) => t.data.chunks(1 << 20).try_for_each(|part| step(part, part, out, progress)),
            Action::Convert(t, from, to) => convert(t, *from, *to, out, progress),
            Action::Pack(t, dtype) => pack(t, *dtype, out, progress),
        }
    }
}

/// The file to write.
pub(crate) struct Output<'a> {
    /// The source of tensors and metadata.
    pub(crate) file: &'a File<'a>,
    /// One for each tensor.
    pub(crate) actions: &'a [Action<'a>],
    /// Metadata of type u32 that replace those of the source.
    pub(crate) set: &'a [(&'a str, u32)],
    /// Alignment of tensor data, in bytes: that of the source, or the one in `set`.
    pub(crate) alignment: u64,
    /// Label of the progress bar.
    pub(crate) what: &'static str,
}

impl Output<'_> {
    /// Writes the file to `path`; `input` is the path of the source.
    pub(crate) fn write_to(&self, input: &Path, path: &Path) -> Result<(), Failure> {
        if same_file(input, path) {
            return Err(Failure::Usage("the output is the input; give another name".into()));
        }
        interrupt::catch()?;
        replace(path, |out| self.write(out))
    }

    /// Writes a whole GGUF v3 file.
    fn write(&self, out: impl Write) -> io::Result<()> {
        let kept = || self.file.raw_metadata().filter(|(key, _)| !self.set.iter().any(|(k, _)| k == key));
        let mut out = Counted { out, n: 0 };
        out.put(b"GGUF")?;
        out.put(&3u32.to_le_bytes())?;
        out.put(&(self.actions.len() as u64).to_le_bytes())?;
        out.put(&((kept().count() + self.set.len()) as u64).to_le_bytes())?;
        for (_, raw) in kept() {
            out.put(raw)?;
        }
        for (key, value) in self.set {
            out.string(key)?;
            out.put(&4u32.to_le_bytes())?; // a u32
            out.put(&value.to_le_bytes())?;
        }
        let mut offset = 0u64;
        for action in self.actions {
            let t = action.tensor();
            let (kind, bytes) =
                action.result().ok_or_else(|| io::Error::other("a tensor whose rows are not whole blocks"))?;
            out.string(t.name)?;
            out.put(&(t.n_dims as u32).to_le_bytes())?;
            for d in &t.dims[..t.n_dims] {
                out.put(&d.to_le_bytes())?;
            }
            out.put(&kind.to_le_bytes())?;
            out.put(&offset.to_le_bytes())?;
            offset = (offset + bytes).next_multiple_of(self.alignment);
        }
        let progress = progress(self.actions.iter().map(|a| a.tensor().data.len() as u64).sum(), self.what);
        for action in self.actions {
            out.pad(self.alignment)?;
            action.write(&mut out, &progress)?;
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

fn convert(
    t: &Tensor<'_>,
    from: DType,
    to: DType,
    out: &mut Counted<impl Write>,
    progress: &ProgressBar,
) -> io::Result<()> {
    let cols = t.dims[0] as usize;
    let (Some(row_in), Some(row_out)) = (from.row_bytes(cols), to.row_bytes(cols)) else { return Ok(()) };
    let (mut weights, mut encoded) = (vec![0.0; cols], vec![0; row_out]);
    for row in t.data.chunks_exact(row_in) {
        from.decode_row(row, &mut weights);
        to.encode_row(&weights, &mut encoded).map_err(|e: EncodeError| io::Error::other(e))?;
        step(row, &encoded, out, progress)?;
    }
    Ok(())
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

/// Counts the bytes that are written, for the padding.
struct Counted<W> {
    out: W,
    n: u64,
}

impl<W: Write> Counted<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.n += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn string(&mut self, s: &str) -> io::Result<()> {
        self.put(&(s.len() as u64).to_le_bytes())?;
        self.put(s.as_bytes())
    }

    fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let padding = self.n.next_multiple_of(alignment) - self.n;
        self.n += padding;
        io::copy(&mut io::Read::take(io::repeat(0), padding), &mut self.out).map(drop)
    }
}
