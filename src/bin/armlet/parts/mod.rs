//! Models in several files, as llama-gguf-split and gguf-py write them (`-00001-of-00003.gguf`), mapped as one.
//!
//! The core reads a model from one slice, and so does not know of parts: these are mapped one behind another, each from a
//! page on, behind a header in memory that has the metadata of the first part and describes the tensors of all.

mod map;

pub(crate) use map::{are_sparse, lock, will_need};

use std::fs::File as Handle;
use std::io;
use std::path::{Path, PathBuf};

use armlet::gguf::{File, GgufError, Tensor, Value};
use armlet::host::{self, MapError, MappedFile};

use map::MappedParts;

/// The parts of a model, mapped as one file.
#[derive(Debug)]
pub(crate) struct Parts {
    map: MappedParts,
    paths: Vec<PathBuf>,
}

/// Why files are not the parts of a model.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub(crate) struct PartError {
    /// The part.
    path: PathBuf,
    /// What is wrong with it.
    problem: PartProblem,
}

/// What is wrong with a part of a model.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartProblem {
    /// It is not there.
    #[error("part {part} of {count} is missing; fetch all parts of the model into one folder")]
    Missing {
        /// Its number, from 1.
        part: u64,
        /// How many there are.
        count: u64,
    },
    /// It cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It is no GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// It is not the first one.
    #[error("this is part {part} of {count} of a model; give the first, whose name ends in -00001-of-{count:05}.gguf")]
    NotFirst {
        /// Its number, from 1.
        part: u64,
        /// How many there are.
        count: u64,
    },
    /// Its name does not lead to the others.
    #[error(
        "this is the first of {count} parts, so its name must end in -00001-of-{count:05}.gguf, as those of the others do"
    )]
    Name {
        /// How many there are.
        count: u64,
    },
    /// A metadata entry is not there.
    #[error("metadata key {0} is missing or has the wrong type")]
    Key(&'static str),
    /// It does not follow the part before.
    #[error("metadata key {key} is {found} and should be {expected}; fetch this part of the model again")]
    Count {
        /// The entry.
        key: &'static str,
        /// What it says.
        found: u64,
        /// What the first part, or the name of this one, says.
        expected: u64,
    },
    /// It is of another model.
    #[error("metadata key {0} is not that of the first part; the parts are of different models")]
    OtherModel(String),
    /// A tensor of a part before.
    #[error("tensor {0} is in an earlier part, too; the parts are of different models")]
    Twice(String),
    /// A part has other tensors than it should.
    #[error(
        "the parts have {found} tensors, and metadata key split.tensors.count says {expected}; fetch the model again"
    )]
    Tensors {
        /// In all parts.
        found: u64,
        /// What the first part says.
        expected: u64,
    },
}

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";
const ALIGNMENT: &str = "general.alignment";

/// Whether a file is a part of a model.
pub(crate) fn is_part(file: &File<'_>) -> bool {
    number(file, COUNT).is_ok_and(|count| count > 1)
}

/// Whether a part is the first.
pub(crate) fn is_first(file: &File<'_>) -> bool {
    number(file, NO).is_ok_and(|no| no == 0)
}

impl Parts {
    /// Maps all parts of the model whose first one is at `path`.
    ///
    /// # Errors
    /// [`PartError`]: the first part that is missing, broken, or none of this model's.
    ///
    /// # Safety
    /// As [`MappedFile::open`] asks, for each part.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn open(path: &Path) -> Result<Self, PartError> {
        // SAFETY: the caller promises what `open` asks for.
        let open = |path: &Path| unsafe { Opened::new(path) };
        let first = open(path)?;
        let file = first.file()?;
        let count = first.number(&file, COUNT)?;
        let paths = paths(path, first.number(&file, NO)?, count).map_err(|problem| first.error(problem))?;
        let mut parts = vec![first];
        for (part, path) in paths.iter().enumerate().skip(1) {
            let missing = |mut e: PartError| {
                if matches!(&e.problem, PartProblem::Map(MapError::Io(e)) if e.kind() == io::ErrorKind::NotFound) {
                    e.problem = PartProblem::Missing { part: part as u64 + 1, count };
                }
                e
            };
            parts.push(open(path).map_err(missing)?);
        }
        let files = parts.iter().map(Opened::file).collect::<Result<Vec<_>, _>>()?;
        check(&parts, &files)?;
        let fail = |e: io::Error| parts[0].error(MapError::Io(e).into());
        let len = head(&parts, &files, 0).map_err(fail)?.len();
        let head = head(&parts, &files, len).map_err(fail)?;
        let handles: Vec<_> = parts.iter().map(|part| (&part.handle, part.map.len())).collect();
        // SAFETY: the lengths are those of the maps, made of the same open files, which the caller promises not to change.
        let map = unsafe { MappedParts::new(&head, &handles) }.map_err(fail)?;
        Ok(Self { map, paths })
    }

    /// The files, in order.
    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }
}

/// The model as one file.
impl std::ops::Deref for Parts {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// A part, mapped by itself while it is examined.
struct Opened {
    path: PathBuf,
    handle: Handle,
    map: MappedFile,
}

impl Opened {
    /// # Safety
    /// As [`MappedFile::open`].
    #[allow(unsafe_code)]
    unsafe fn new(path: &Path) -> Result<Self, PartError> {
        let fail = |e: MapError| PartError { path: path.into(), problem: e.into() };
        let handle = host::open(path).map_err(fail)?;
        // SAFETY: the caller promises what `of` asks for.
        let map = unsafe { MappedFile::of(&handle) }.map_err(fail)?;
        Ok(Self { path: path.into(), handle, map })
    }

    fn error(&self, problem: PartProblem) -> PartError {
        PartError { path: self.path.clone(), problem }
    }

    fn file(&self) -> Result<File<'_>, PartError> {
        File::new_checked(&self.map).map_err(|e| self.error(e.into()))
    }

    fn number(&self, file: &File<'_>, key: &'static str) -> Result<u64, PartError> {
        number(file, key).map_err(|problem| self.error(problem))
    }
}

fn number(file: &File<'_>, key: &'static str) -> Result<u64, PartProblem> {
    let number = match file.get(key) {
        Some(Value::Unsigned(n)) => Some(n),
        Some(Value::Signed(n)) => n.try_into().ok(),
        _ => None,
    };
    number.ok_or(PartProblem::Key(key))
}

/// The paths of all parts, from that of the first.
fn paths(first: &Path, no: u64, count: u64) -> Result<Vec<PathBuf>, PartProblem> {
    if no != 0 {
        return Err(PartProblem::NotFirst { part: no.saturating_add(1), count });
    }
    let end = |part: u64| format!("-{part:05}-of-{count:05}.gguf");
    let stem = first.file_name().and_then(|name| name.to_str()?.strip_suffix(&end(1)));
    // Five digits are all that a name has room for.
    let stem = stem.filter(|_| count <= 99_999).ok_or(PartProblem::Name { count })?;
    Ok((1..=count).map(|part| first.with_file_name(format!("{stem}{}", end(part)))).collect())
}

/// Whether the parts are those of one model.
fn check(parts: &[Opened], files: &[File<'_>]) -> Result<(), PartError> {
    let (first, of_first) = (&parts[0], &files[0]);
    let expected = first.number(of_first, TENSORS)?;
    let mut names = std::collections::HashSet::new();
    let metadata: std::collections::HashMap<_, _> = of_first.raw_metadata().collect();
    for (i, (part, file)) in parts.iter().zip(files).enumerate() {
        for (key, expected) in [(NO, i as u64), (COUNT, parts.len() as u64), (TENSORS, expected)] {
            let found = part.number(file, key)?;
            if found != expected {
                return Err(part.error(PartProblem::Count { key, found, expected }));
            }
        }
        let other = |(key, raw): &(&str, &[u8])| !is_of_file(key) && metadata.get(key) != Some(raw);
        if let Some((key, _)) = file.raw_metadata().find(other) {
            return Err(part.error(PartProblem::OtherModel(key.into())));
        }
        if let Some(t) = file.tensors().find(|t| !names.insert(t.name)) {
            return Err(part.error(PartProblem::Twice(t.name.into())));
        }
    }
    let found = names.len() as u64;
    if found == expected { Ok(()) } else { Err(first.error(PartProblem::Tensors { found, expected })) }
}

/// Whether a metadata entry says something of its own file only.
fn is_of_file(key: &str) -> bool {
    [NO, COUNT, TENSORS, ALIGNMENT].contains(&key)
}

/// The header of the whole, whose length is `len`.
fn head(parts: &[Opened], files: &[File<'_>], len: usize) -> io::Result<Vec<u8>> {
    let u64 = |n: usize| (n as u64).to_le_bytes();
    let string = |s: &str| [&u64(s.len()), s.as_bytes()].concat();
    let kept = || files[0].raw_metadata().filter(|(key, _)| !is_of_file(key));
    // Parts start at pages, so what is aligned in its file is aligned in the whole.
    let alignment = files.iter().map(File::alignment).fold(map::page_size() as u64, u64::min) as u32;
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend(u64(files.iter().map(File::tensors_len).sum()));
    out.extend(u64(kept().count() + 1));
    kept().for_each(|(_, raw)| out.extend(raw));
    out.extend(string(ALIGNMENT));
    out.extend([4, alignment].map(u32::to_le_bytes).concat());
    let data = len.next_multiple_of(alignment as usize);
    let lengths: Vec<_> = parts.iter().map(|part| part.map.len()).collect();
    for ((part, file), start) in parts.iter().zip(files).zip(map::starts(len, &lengths)?) {
        let at = |t: &Tensor<'_>| start + (t.data.as_ptr().addr() - part.map.as_ptr().addr());
        for t in file.tensors() {
            out.extend(string(t.name));
            out.extend((t.n_dims as u32).to_le_bytes());
            t.dims.iter().take(t.n_dims).for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(t.kind.id.to_le_bytes());
            out.extend(u64(at(&t).saturating_sub(data)));
        }
    }
    Ok(out)
}
