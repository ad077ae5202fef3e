//! Importance matrices, as `armlet imatrix` and llama-imatrix write them: for each tensor the mean squares of the
//! activations that its columns are multiplied with.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use armlet::gguf::{File, Tensor, Value};
use armlet::quant::DType;

use super::mix::Named;
use crate::error::Failure;
use crate::gguf_writer::Meta;
use crate::model::map;

/// What to do about a bad file.
const AGAIN: &str = "make it again with armlet imatrix";

/// An importance matrix and the file that it is from.
pub(crate) struct Importance {
    path: PathBuf,
    contents: Contents,
}

/// What a file says.
#[derive(Default)]
struct Contents {
    /// By tensor: for each matrix of a stack one number for each column.
    tensors: HashMap<String, Vec<f32>>,
    /// The first of the texts that it was computed with.
    dataset: Option<String>,
    /// The chunks of text that it was computed with; 0 if the file does not say.
    chunks: u32,
}

impl Importance {
    /// Reads a file, of the GGUF or the older binary form.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = map(path)?;
        let read = if bytes.starts_with(b"GGUF") { from_gguf(&bytes) } else { from_binary(&bytes) };
        let contents = read.map_err(|why| Failure::file(path, why))?;
        for (name, values) in &contents.tensors {
            if let Some(i) = values.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
                let why = format!("the importance of tensor {name} is {} in column {i}; {AGAIN}", values[i]);
                return Err(Failure::file(path, why));
            }
        }
        Ok(Importance { path: path.to_path_buf(), contents })
    }

    /// The keys by which a quantised file says where its importance matrix is from, as llama-quantize writes them.
    pub(crate) fn metadata(&self) -> Vec<(&'static str, Meta)> {
        let Contents { tensors, dataset, chunks } = &self.contents;
        let file = Meta::Str(self.path.display().to_string());
        let dataset = dataset.clone().map(|name| ("quantize.imatrix.dataset", Meta::Str(name)));
        let entries = Meta::U32(tensors.len() as u32);
        let chunks = (*chunks > 0).then_some(("quantize.imatrix.chunks_count", Meta::U32(*chunks)));
        let first = [("quantize.imatrix.file", file)].into_iter().chain(dataset);
        first.chain([("quantize.imatrix.entries_count", entries)]).chain(chunks).collect()
    }

    /// The importance of the columns of a tensor, for each of its matrices; `None` if the file has none for it.
    pub(crate) fn of(&self, t: &Named<'_>) -> Result<Option<&[f32]>, Failure> {
        let Some(values) = self.contents.tensors.get(t.name) else { return Ok(None) };
        let (cols, matrices) = (t.dims[0], t.dims[2] * t.dims[3]);
        if values.len() as u64 == cols * matrices {
            return Ok(Some(values));
        }
        // An embedding is not multiplied with activations of its own columns.
        if t.name == "token_embd.weight" {
            return Ok(None);
        }
        let why = format!(
            "tensor {} has {matrices} × {cols} columns here and {} there: the file belongs to another model; \
             make one for this model with armlet imatrix",
            t.name,
            values.len()
        );
        Err(Failure::file(&self.path, why))
    }

    /// An error if the file has none of the model's tensors, a warning if it has others.
    pub(crate) fn belongs_to(&self, model: &[Named<'_>]) -> Result<(), Failure> {
        let known: HashSet<&str> = model.iter().map(|t| t.name).collect();
        let all = self.contents.tensors.keys();
        let others: Vec<_> = all.filter(|name| !known.contains(name.as_str())).collect();
        let Some(first) = others.iter().min() else { return Ok(()) };
        if others.len() < self.contents.tensors.len() {
            let path = self.path.display();
            log::warn!(
                "{path}: the model has no tensor {first}, nor {} others of the importance matrix",
                others.len() - 1
            );
            return Ok(());
        }
        let why = format!(
            "the model has no tensor {first}, nor any other of the file, which belongs to another model; \
             make one for this model with armlet imatrix"
        );
        Err(Failure::file(&self.path, why))
    }
}

/// Tensors `NAME.in_sum2`, sums of squares, and `NAME.counts`, how many they are of.
fn from_gguf(bytes: &[u8]) -> Result<Contents, String> {
    let file = File::new_checked(bytes).map_err(|e| format!("{e}; or {AGAIN}"))?;
    if file.get("general.type").is_some_and(|kind| kind != Value::String(b"imatrix")) {
        return Err("it is not an importance matrix; armlet imatrix makes one".into());
    }
    let all_counts: HashMap<&str, Tensor<'_>> =
        file.tensors().filter_map(|t| Some((t.name.strip_suffix(".counts")?, t))).collect();
    let mut tensors = HashMap::new();
    for t in file.tensors() {
        let Some(name) = t.name.strip_suffix(".in_sum2") else { continue };
        let counts = all_counts.get(name);
        let counts = counts.ok_or_else(|| format!("tensor {name} has sums without counts; {AGAIN}"))?;
        let (mut sums, counts) = (floats(&t)?, floats(counts)?);
        if counts.is_empty() || !sums.len().is_multiple_of(counts.len()) {
            return Err(format!("tensor {name} has {} sums for {} counts; {AGAIN}", sums.len(), counts.len()));
        }
        if let Some(count) = counts.iter().find(|count| !count.is_finite() || **count < 0.0) {
            return Err(format!("tensor {name} has a count of {count}; {AGAIN}"));
        }
        let cols = sums.len() / counts.len();
        for (sums, count) in sums.chunks_mut(cols.max(1)).zip(counts) {
            // An expert that no token was sent to counts as one of equal columns.
            sums.iter_mut().for_each(|sum| *sum = if count > 0.0 || !sum.is_finite() { *sum / count } else { 1.0 });
        }
        tensors.insert(name.to_string(), sums);
    }
    if tensors.is_empty() {
        return Err("it is not an importance matrix: no tensor has sums; armlet imatrix makes one".into());
    }
    let dataset = match file.get("imatrix.datasets") {
        Some(Value::Array(names)) => match names.iter().next() {
            Some(Value::String(name)) => Some(String::from_utf8_lossy(name).into_owned()),
            _ => None,
        },
        _ => None,
    };
    let chunks = match file.get("imatrix.chunk_count") {
        Some(Value::Unsigned(n)) => n.try_into().unwrap_or(0),
        _ => 0,
    };
    Ok(Contents { tensors, dataset, chunks })
}

fn floats(t: &Tensor<'_>) -> Result<Vec<f32>, String> {
    match t.kind.format() {
        Some((DType::F32, _)) => Ok(t.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        _ => Err(format!("tensor {} has type {}, not F32; {AGAIN}", t.name, t.kind)),
    }
}

/// The number of tensors; of each the name, in how many calls it was seen, and the sums with their lengths before them;
/// and in newer files the number of chunks and the name of the text.
fn from_binary(mut bytes: &[u8]) -> Result<Contents, String> {
    let not_one = || "it is not an importance matrix; armlet imatrix makes one".to_string();
    let n = number(&mut bytes).filter(|n| (1..=1 << 20).contains(n)).ok_or_else(not_one)?;
    let mut tensors = HashMap::new();
    let mut last = String::new();
    for i in 0..n {
        let after = if i == 0 { String::new() } else { format!(" after tensor {last}") };
        let cut_off = || format!("it is cut off{after}: {i} of {n} tensors; copy it again, or {AGAIN}");
        let len = number(&mut bytes).ok_or_else(cut_off)?;
        if !(1..=1024).contains(&len) {
            return Err(if i == 0 { not_one() } else { format!("it is damaged{after}; {AGAIN}") });
        }
        let name = bytes.split_off(..len as usize).ok_or_else(cut_off)?;
        last = String::from_utf8(name.to_vec()).map_err(|_| not_one())?;
        let values = entry(&mut bytes);
        let values = values.ok_or_else(|| format!("it is cut off in tensor {last}; copy it again, or {AGAIN}"))?;
        tensors.insert(last.clone(), values);
    }
    let chunks = number(&mut bytes).and_then(|n| n.try_into().ok()).unwrap_or(0);
    let name = number(&mut bytes).and_then(|n| bytes.split_off(..usize::try_from(n).ok()?));
    let dataset = name.filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned());
    Ok(Contents { tensors, dataset, chunks })
}

/// Sums, which were multiplied by the number of calls before they were written.
fn entry(bytes: &mut &[u8]) -> Option<Vec<f32>> {
    let calls = number(bytes)?;
    let len = usize::try_from(number(bytes)?).ok()?;
    let data = bytes.split_off(..len.checked_mul(4)?)?;
    let divisor = if calls > 0 { calls as f32 } else { 1.0 };
    Some(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b) / divisor).collect())
}

fn number(bytes: &mut &[u8]) -> Option<i32> {
    bytes.split_off(..4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}
