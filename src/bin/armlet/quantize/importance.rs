//! Importance matrices, as llama-imatrix writes them: for each tensor the mean squares of the activations that its columns
//! are multiplied with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use armlet::gguf::{File, Tensor, Value};
use armlet::quant::DType;

use super::mix::Named;
use crate::error::Failure;
use crate::model::map;

/// What to do about a bad file.
const AGAIN: &str = "make it again with llama-imatrix";

/// The contents of a file.
pub(crate) struct Importance {
    path: PathBuf,
    /// By tensor: for each matrix of a stack one number for each column.
    tensors: HashMap<String, Vec<f32>>,
}

impl Importance {
    /// Reads a file, of the GGUF or the older binary form.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = map(path)?;
        let read = if bytes.starts_with(b"GGUF") { from_gguf(&bytes) } else { from_binary(&bytes) };
        let tensors = read.map_err(|why| Failure::file(path, why))?;
        for (name, values) in &tensors {
            if let Some(i) = values.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
                let why = format!("the importance of tensor {name} is {} in column {i}; {AGAIN}", values[i]);
                return Err(Failure::file(path, why));
            }
        }
        Ok(Importance { path: path.to_path_buf(), tensors })
    }

    /// The importance of the columns of a tensor, for each of its matrices; `None` if the file has none for it.
    pub(crate) fn of(&self, t: &Named<'_>) -> Result<Option<&[f32]>, Failure> {
        let Some(values) = self.tensors.get(t.name) else { return Ok(None) };
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
             make one for this model with llama-imatrix",
            t.name,
            values.len()
        );
        Err(Failure::file(&self.path, why))
    }

    /// An error if the file has none of these tensors.
    pub(crate) fn belongs_to<'a>(&self, mut tensors: impl Iterator<Item = Named<'a>>) -> Result<(), Failure> {
        if tensors.any(|t| self.tensors.contains_key(t.name)) {
            return Ok(());
        }
        let why = "it has none of the model's tensors, and belongs to another model; \
                   make one for this model with llama-imatrix";
        Err(Failure::file(&self.path, why))
    }
}

/// Tensors `NAME.in_sum2`, sums of squares, and `NAME.counts`, how many they are of.
fn from_gguf(bytes: &[u8]) -> Result<HashMap<String, Vec<f32>>, String> {
    let file = File::new_checked(bytes).map_err(|e| format!("{e}; if it is cut off, copy it again"))?;
    if file.get("general.type").is_some_and(|kind| kind != Value::String(b"imatrix")) {
        return Err("it is not an importance matrix; llama-imatrix makes one".into());
    }
    let all_counts: HashMap<&str, Tensor<'_>> =
        file.tensors().filter_map(|t| Some((t.name.strip_suffix(".counts")?, t))).collect();
    let mut out = HashMap::new();
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
        out.insert(name.to_string(), sums);
    }
    if out.is_empty() {
        return Err("it is not an importance matrix: no tensor has sums; llama-imatrix makes one".into());
    }
    Ok(out)
}

fn floats(t: &Tensor<'_>) -> Result<Vec<f32>, String> {
    match t.kind.format() {
        Some((DType::F32, _)) => Ok(t.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        _ => Err(format!("tensor {} has type {}, not F32; {AGAIN}", t.name, t.kind)),
    }
}

/// The number of tensors; of each the name, in how many calls it was seen, and the sums with their lengths before them.
fn from_binary(mut bytes: &[u8]) -> Result<HashMap<String, Vec<f32>>, String> {
    let not_one = || "it is not an importance matrix; llama-imatrix makes one".to_string();
    let n = number(&mut bytes).filter(|n| (1..=1 << 20).contains(n)).ok_or_else(not_one)?;
    let mut out = HashMap::new();
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
        out.insert(last.clone(), values);
    }
    Ok(out)
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
