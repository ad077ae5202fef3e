//! `armlet quantize`: a model in another format.
//!
//! Matrices change their type; vectors, the metadata and the order of tensors stay. The output is written beside its
//! final name and renamed when it is whole, so a full disk leaves nothing behind.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

use armlet::gguf::{File, Tensor};
use armlet::quant::{DType, EncodeError, Layout};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{Format, Quantize};
use crate::failure::Failure;
use crate::generate::{INTERRUPTED, catch_interrupts};
use crate::load::map;

/// `general.file_type` in llama.cpp's numbers: the type of most tensors.
fn file_type(format: Format) -> u32 {
    match format {
        Format::F16 => 1,
        Format::Q8_0 => 7,
        Format::Q4_0 => 2,
    }
}

/// What becomes of one tensor.
enum Action<'a> {
    Copy(Tensor<'a>),
    Convert(Tensor<'a>, DType, DType),
}

impl<'a> Action<'a> {
    fn new(t: Tensor<'a>, args: &Quantize) -> Result<Self, Failure> {
        if t.n_dims < 2 || !t.name.ends_with("weight") {
            return Ok(Action::Copy(t));
        }
        let fail = |why: String| Failure::Error(format!("{}: tensor {}: {why}", args.input.display(), t.name));
        let from = match t.kind.format() {
            Some((from, Layout::Rows)) => from,
            Some((_, Layout::Panels)) => return Err(fail(format!("it is {}; convert the original file", t.kind))),
            None => return Err(fail(format!("type {} cannot be read", t.kind))),
        };
        let head = matches!(t.name, "token_embd.weight" | "output.weight");
        let to = match args.kind {
            Format::F16 => DType::F16,
            Format::Q4_0 if !head => DType::Q4_0,
            Format::Q8_0 | Format::Q4_0 => DType::Q8_0,
        };
        let cols = t.dims[0] as usize;
        // A row that is no whole number of blocks stays as exact as a half.
        let to = if to.row_bytes(cols).is_some() { to } else { DType::F16 };
        if from == to {
            return Ok(Action::Copy(t));
        }
        if from.is_quantised() && !args.allow_requantize {
            return Err(fail(format!(
                "it is {from} already; converting again loses more: --allow-requantize to do so"
            )));
        }
        Ok(Action::Convert(t, from, to))
    }

    fn tensor(&self) -> &Tensor<'a> {
        let (Action::Copy(t) | Action::Convert(t, ..)) = self;
        t
    }

    /// GGUF type number and bytes of the result.
    fn result(&self) -> (u32, u64) {
        match self {
            Action::Copy(t) => (t.kind.id, t.data.len() as u64),
            Action::Convert(t, _, to) => {
                let row = to.row_bytes(t.dims[0] as usize).unwrap_or(0) as u64;
                (to.gguf_id(), t.dims[1..].iter().product::<u64>() * row)
            }
        }
    }
}

pub(crate) fn run(args: &Quantize) -> Result<(), Failure> {
    let bytes = map(&args.input)?;
    let file = File::new_checked(&bytes).map_err(|e| Failure::file(&args.input, e))?;
    let actions: Vec<_> = file.tensors().map(|t| Action::new(t, args)).collect::<Result<_, _>>()?;
    if same_file(&args.input, &args.output) {
        return Err(Failure::Usage("the output is the input; give another name".into()));
    }
    let folder = match args.output.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    // A rename would replace a device or a pipe by a file.
    if args.output.metadata().is_ok_and(|m| !m.is_file()) {
        return Err(Failure::file(&args.output, "not a regular file; give another name"));
    }
    let fail = |e: io::Error| match e.kind() {
        io::ErrorKind::Interrupted => Failure::Interrupted,
        _ => Failure::file(&args.output, e),
    };
    catch_interrupts()?;
    let temporary = temporary(folder).map_err(fail)?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary);
    write(&file, &actions, args.kind, &mut out).map_err(fail)?;
    let temporary = out.into_inner().map_err(|e| fail(e.into_error()))?;
    finish(temporary, &args.output).map_err(fail)
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A file beside its final name, with the rights that a new file gets; it goes when it is dropped.
pub(crate) fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(".armlet-").tempfile_in(folder)
}

/// An error after Ctrl-C, so that a long piece of writing ends and takes its temporary file with it.
pub(crate) fn check_interrupt() -> io::Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

/// Makes the temporary file the output.
pub(crate) fn finish(temporary: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    Ok(())
}

/// Counts what it passes on, for the padding.
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

/// Writes a whole GGUF v3 file.
fn write(file: &File<'_>, actions: &[Action<'_>], format: Format, out: impl Write) -> io::Result<()> {
    const REWRITTEN: [&str; 2] = ["general.file_type", "general.quantization_version"];
    let kept = || file.raw_metadata().filter(|(key, _)| !REWRITTEN.contains(key));
    let mut out = Counted { out, n: 0 };
    out.put(b"GGUF")?;
    out.put(&3u32.to_le_bytes())?;
    out.put(&(actions.len() as u64).to_le_bytes())?;
    out.put(&((kept().count() + REWRITTEN.len()) as u64).to_le_bytes())?;
    for (_, raw) in kept() {
        out.put(raw)?;
    }
    for (key, value) in REWRITTEN.iter().zip([file_type(format), 2]) {
        out.string(key)?;
        out.put(&4u32.to_le_bytes())?; // a u32
        out.put(&value.to_le_bytes())?;
    }
    let mut offset = 0u64;
    for action in actions {
        let (t, (kind, bytes)) = (action.tensor(), action.result());
        out.string(t.name)?;
        out.put(&(t.n_dims as u32).to_le_bytes())?;
        for d in &t.dims[..t.n_dims] {
            out.put(&d.to_le_bytes())?;
        }
        out.put(&kind.to_le_bytes())?;
        out.put(&offset.to_le_bytes())?;
        offset = (offset + bytes).next_multiple_of(file.alignment());
    }
    let progress = progress(actions.iter().map(|a| a.tensor().data.len() as u64).sum(), "quantizing");
    for action in actions {
        out.pad(file.alignment())?;
        match action {
            Action::Copy(t) => out.put(t.data)?,
            Action::Convert(t, from, to) => convert(t, *from, *to, &mut out)?,
        }
        progress.inc(action.tensor().data.len() as u64);
    }
    out.pad(file.alignment())?;
    progress.finish_and_clear();
    out.out.flush()
}

fn convert(t: &Tensor<'_>, from: DType, to: DType, out: &mut Counted<impl Write>) -> io::Result<()> {
    let cols = t.dims[0] as usize;
    let (Some(row_in), Some(row_out)) = (from.row_bytes(cols), to.row_bytes(cols)) else { return Ok(()) };
    let (mut weights, mut encoded) = (vec![0.0; cols], vec![0; row_out]);
    for row in t.data.chunks_exact(row_in) {
        check_interrupt()?;
        from.decode_row(row, &mut weights);
        to.encode_row(&weights, &mut encoded).map_err(|e: EncodeError| io::Error::other(e))?;
        out.put(&encoded)?;
    }
    Ok(())
}

/// A bar on stderr where a person looks.
pub(crate) fn progress(bytes: u64, what: &'static str) -> ProgressBar {
    let template = "{msg} [{bar:40}] {bytes}/{total_bytes} {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style.progress_chars("=> ")).with_message(what)
}
