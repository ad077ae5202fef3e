//! GGUF files, versions 2 and 3: checked views of untrusted bytes.
//!
//! [`File::new_checked`] parses the whole header once. After it has returned `Ok`, no accessor fails or panics, whatever
//! the bytes are: a malformed file is an error, never undefined behaviour, and memory use does not depend on it. The
//! format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Comments name the rules that are checked: H
//! (header), K (metadata), T (tensors).

mod cursor;
mod directory;
mod duplicates;
mod error;
mod label;
mod tensor;
mod value;

pub use directory::Directory;
pub use error::{GgufError, Problem};
pub use label::Label;
pub use tensor::{Tensor, TensorType};
pub use value::{Array, Value, ValueType};

use crate::quant::DType;
use cursor::Cursor;

/// The most metadata entries, and the most tensors (rule H4).
const COUNT_CAP: u64 = 65_536;
/// Longest key: ggml's limit is 2¹⁶ − 1.
const KEY_CAP: usize = 65_535;
/// The most bytes of all keys together: they are compared in windows, so that many long ones would take seconds.
const KEYS_CAP: usize = 4 << 20;
/// The smallest metadata entry and the smallest tensor description, in bytes (rule H5).
const MIN_ENTRY: usize = 13;
const MIN_TENSOR: usize = 24;

/// Where a metadata entry with a long array starts and ends, so that a look-up need not parse the array again.
#[derive(Clone, Copy, Debug, Default)]
struct Skip {
    start: usize,
    end: usize,
}

/// How many such entries are remembered: tokens, merges, types, scores, and some to spare.
const SKIPS: usize = 8;
/// Shortest entry worth remembering, in bytes.
const SKIP_MIN: usize = 4096;

/// A checked GGUF file over borrowed bytes.
#[derive(Clone, Debug)]
pub struct File<'a> {
    bytes: &'a [u8],
    version: u32,
    n_kv: usize,
    n_tensors: usize,
    kv_start: usize,
    tensors_start: usize,
    data: &'a [u8],
    alignment: u64,
    skips: [Skip; SKIPS],
    overrides: &'a [(&'a str, Value<'a>)],
}

impl<'a> File<'a> {
    /// Checks the header of a whole file.
    ///
    /// Takes time linear in the length of the header, except for names, which are compared in windows of 256, and for
    /// tensors whose data are not in the order of their descriptions.
    ///
    /// # Errors
    /// [`GgufError`]: the first rule that the file breaks, and where.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes, 0);
        let (version, n_tensors, n_kv) = header(&mut cursor)?;
        let kv_start = cursor.at();
        let mut file = File {
            bytes,
            version,
            n_kv,
            n_tensors,
            kv_start,
            tensors_start: kv_start,
            data: &[],
            alignment: 32,
            skips: [Skip::default(); SKIPS],
            overrides: &[],
        };
        file.check_metadata(&mut cursor)?;
        file.tensors_start = cursor.at();
        file.check_tensors(&mut cursor)?;
        Ok(file)
    }

    /// The same file with metadata entries that count instead of its own, or besides them; of several for one key, the first.
    #[must_use]
    pub fn with_overrides(self, overrides: &'a [(&'a str, Value<'a>)]) -> Self {
        Self { overrides, ..self }
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Tensor offsets are multiples of this, in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Number of metadata entries of the file.
    pub fn metadata_len(&self) -> usize {
        self.n_kv
    }

    /// Number of tensors.
    pub fn tensors_len(&self) -> usize {
        self.n_tensors
    }

    /// The metadata entries of the file, in its order.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let mut cursor = Cursor::new(self.bytes, self.kv_start);
        (0..self.n_kv).map_while(move |_| entry(&mut cursor).ok())
    }

    /// The metadata entries as bytes of the file: key, type and value.
    pub fn raw_metadata(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let (bytes, mut cursor) = (self.bytes, Cursor::new(self.bytes, self.kv_start));
        (0..self.n_kv).map_while(move |_| {
            let start = cursor.at();
            let (key, _) = entry(&mut cursor).ok()?;
            Some((key, bytes.get(start..cursor.at())?))
        })
    }

    /// The value of `key`.
    #[inline(never)]
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        if let Some((_, value)) = self.overrides.iter().find(|(known, _)| *known == key) {
            return Some(*value);
        }
        let mut cursor = Cursor::new(self.bytes, self.kv_start);
        for _ in 0..self.n_kv {
            let end = self.skips.iter().find(|s| s.start == cursor.at()).map(|s| s.end);
            if cursor.string(KEY_CAP).ok()? == key.as_bytes() {
                return value::value(&mut cursor, end).ok();
            }
            match end {
                Some(end) => cursor = Cursor::new(self.bytes, end),
                None => drop(value::value(&mut cursor, None).ok()?),
            }
        }
        None
    }

    /// All tensors.
    pub fn directory(&self) -> Directory<'a> {
        Directory::new(Cursor::new(self.bytes, self.tensors_start), self.n_tensors, self.data)
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'a>> + use<'a> {
        self.directory().tensors()
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'a>> {
        self.directory().tensor(name)
    }

    fn check_metadata(&mut self, cursor: &mut Cursor<'a>) -> Result<(), GgufError> {
        let mut skips = self.skips.iter_mut();
        let mut keys = 0usize;
        for _ in 0..self.n_kv {
            let start = *cursor;
            let key = key(cursor)?;
            keys = keys.saturating_add(key.len());
            if keys > KEYS_CAP {
                return Err(start.error(Problem::StringTooLong));
            }
            let mut peek = *cursor;
            let kind = peek.u32()?;
            let value = value::value(cursor, None)?;
            if key == "general.alignment" {
                // Rule K8 asks for a u32. Other widths give the same `Value`, so the type itself is checked.
                self.alignment = match value {
                    Value::Unsigned(a) if kind == ValueType::U32 as u32 && is_alignment(a) => a,
                    _ => return Err(start.error(Problem::Alignment)),
                };
            }
            if cursor.at() - start.at() >= SKIP_MIN
                && let Some(skip) = skips.next()
            {
                *skip = Skip { start: start.at(), end: cursor.at() };
            }
        }
        duplicates::check(self.names(false)).map_err(|at| GgufError { problem: Problem::Duplicate, offset: at })
    }

    fn infos(&self) -> impl Iterator<Item = (tensor::Info<'a>, u64)> + Clone + use<'a> {
        let mut cursor = Cursor::new(self.bytes, self.tensors_start);
        (0..self.n_tensors).map_while(move |_| {
            let at = cursor.at() as u64;
            tensor::info(&mut cursor).ok().map(|t| (t, at))
        })
    }

    /// The names of tensors or of metadata entries.
    fn names(&self, of_tensors: bool) -> Names<'_, 'a> {
        let (start, left) = if of_tensors { (self.tensors_start, self.n_tensors) } else { (self.kv_start, self.n_kv) };
        Names { file: self, cursor: Cursor::new(self.bytes, start), left, of_tensors }
    }

    /// Rules T1 to T9. The data start at the next multiple of the alignment after the descriptions.
    fn check_tensors(&mut self, cursor: &mut Cursor<'a>) -> Result<(), GgufError> {
        for _ in 0..self.n_tensors {
            tensor::info(cursor)?;
        }
        duplicates::check(self.names(true)).map_err(|at| GgufError { problem: Problem::Duplicate, offset: at })?;

        let data_start = (cursor.at() as u64).next_multiple_of(self.alignment.max(1));
        // A file without tensors may end before its padding does; `data` is then empty.
        self.data = usize::try_from(data_start).ok().and_then(|s| self.bytes.get(s..)).unwrap_or(&[]);
        let (mut start, mut end) = (0, 0);
        let mut in_order = true;
        // Type 42 of a fork has fewer bytes than ggml's, so the next tensor seems to overlap it: where it is described.
        let mut after_q2 = None;
        for (t, at) in self.infos() {
            let problem = |problem| GgufError { problem, offset: at };
            if !t.offset.is_multiple_of(self.alignment) {
                return Err(problem(Problem::TensorOffset));
            }
            let stop = t.offset.checked_add(t.bytes).ok_or(problem(Problem::Truncated))?;
            if let Some(offset) = after_q2.filter(|_| start < t.offset && t.offset < end) {
                return Err(GgufError { problem: Problem::Q2Groups, offset });
            }
            let is_q2 = t.kind.id == DType::Q2_0.gguf_id();
            if is_q2 && stop > self.data.len() as u64 {
                return Err(problem(Problem::Q2Groups));
            }
            if stop > self.data.len() as u64 {
                return Err(problem(Problem::Truncated));
            }
            in_order &= t.offset >= end;
            (start, end, after_q2) = (t.offset, stop, is_q2.then_some(at));
        }
        if in_order { Ok(()) } else { self.check_overlap() }
    }

    /// Rule T8 for tensors whose data are not in the order of their descriptions: no known writer makes many.
    fn check_overlap(&self) -> Result<(), GgufError> {
        const OUT_OF_ORDER_CAP: usize = 4096;
        for (i, (t, at)) in self.infos().enumerate() {
            let overlaps =
                |(o, _): (tensor::Info<'_>, u64)| o.offset < t.offset + t.bytes && t.offset < o.offset + o.bytes;
            if self.n_tensors > OUT_OF_ORDER_CAP || self.infos().skip(i + 1).any(overlaps) {
                return Err(GgufError { problem: Problem::TensorOffset, offset: at });
            }
        }
        Ok(())
    }
}

/// (name, offset) of each metadata entry, or of each tensor.
#[derive(Clone)]
struct Names<'f, 'a> {
    file: &'f File<'a>,
    cursor: Cursor<'a>,
    left: usize,
    of_tensors: bool,
}

impl<'a> Iterator for Names<'_, 'a> {
    type Item = (&'a str, u64);

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (file, start) = (self.file, self.cursor.at());
        if self.of_tensors {
            return tensor::info(&mut self.cursor).ok().map(|t| (t.name, start as u64));
        }
        let key = key(&mut self.cursor).ok()?;
        // Long values are skipped where they can be.
        match file.skips.iter().find(|s| s.start == start) {
            Some(skip) => self.cursor = Cursor::new(file.bytes, skip.end),
            None => drop(value::value(&mut self.cursor, None).ok()?),
        }
        Some((key, start as u64))
    }
}

/// Rules H1 to H5: version, number of tensors, number of metadata entries.
fn header(cursor: &mut Cursor<'_>) -> Result<(u32, usize, usize), GgufError> {
    let start = *cursor;
    if cursor.take(4).ok() != Some(b"GGUF") {
        return Err(start.error(Problem::Magic));
    }
    let at_version = *cursor;
    match cursor.u32()? {
        2 | 3 => {}
        v if v & 0xffff == 0 && v != 0 => return Err(at_version.error(Problem::BigEndian)),
        v => return Err(at_version.error(Problem::Version(v))),
    }
    let version = at_version.clone().u32()?;
    let at_counts = *cursor;
    let (n_tensors, n_kv) = (cursor.u64()?, cursor.u64()?);
    if n_tensors > COUNT_CAP || n_kv > COUNT_CAP {
        return Err(at_counts.error(Problem::Count));
    }
    let (n_tensors, n_kv) = (n_tensors as usize, n_kv as usize); // at most COUNT_CAP
    if n_tensors * MIN_TENSOR + n_kv * MIN_ENTRY > cursor.remaining() {
        return Err(at_counts.error(Problem::Truncated));
    }
    Ok((version, n_tensors, n_kv))
}

fn is_alignment(a: u64) -> bool {
    a.is_power_of_two() && (8..=1 << 20).contains(&a)
}

fn key<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, GgufError> {
    let start = *cursor;
    let key = cursor.string(KEY_CAP)?;
    core::str::from_utf8(key).ok().filter(|k| !k.is_empty()).ok_or(start.error(Problem::Key))
}

fn entry<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, Value<'a>), GgufError> {
    Ok((key(cursor)?, value::value(cursor, None)?))
}
