//! `armlet quantize`: converts the matrices of a model to another format.
//!
//! Vectors, the metadata and the order of tensors stay.

use armlet::gguf::{File, Tensor};
use armlet::quant::{DType, Layout};

use crate::args::{Quantize, TargetFormat};
use crate::error::Failure;
use crate::gguf_writer::{Action, Output};
use crate::model::map;

/// `general.file_type` in llama.cpp's numbers: the type of most tensors.
fn file_type(format: TargetFormat) -> u32 {
    match format {
        TargetFormat::F16 => 1,
        TargetFormat::Q8_0 => 7,
        TargetFormat::Q4_0 => 2,
    }
}

/// What happens to one tensor.
fn action<'a>(t: Tensor<'a>, args: &Quantize) -> Result<Action<'a>, Failure> {
    if t.n_dims < 2 || !t.name.ends_with("weight") {
        return Ok(Action::Copy(t));
    }
    let fail = |why: String| Failure::Error(format!("{}: tensor {}: {why}", args.input.display(), t.name));
    let from = match t.kind.format() {
        Some((from, Layout::Rows)) => from,
        Some((_, Layout::Panels)) => return Err(fail(format!("it is packed ({}); convert the original file", t.kind))),
        None => return Err(fail(format!("type {} is not supported", t.kind))),
    };
    let head = matches!(t.name, "token_embd.weight" | "output.weight");
    let to = match args.kind {
        TargetFormat::F16 => DType::F16,
        TargetFormat::Q4_0 if !head => DType::Q4_0,
        TargetFormat::Q8_0 | TargetFormat::Q4_0 => DType::Q8_0,
    };
    let cols = t.dims[0] as usize;
    // A row that is not a whole number of blocks becomes F16.
    let to = if to.row_bytes(cols).is_some() { to } else { DType::F16 };
    if from == to {
        return Ok(Action::Copy(t));
    }
    if from.is_quantised() && !args.allow_requantize {
        return Err(fail(format!(
            "it is already quantised ({from}), and converting it loses precision again; --allow-requantize does so"
        )));
    }
    Ok(Action::Convert(t, from, to))
}

pub(crate) fn run(args: &Quantize) -> Result<(), Failure> {
    let bytes = map(&args.input)?;
    let file = File::new_checked(&bytes).map_err(|e| Failure::file(&args.input, e))?;
    let actions: Vec<_> = file.tensors().map(|t| action(t, args)).collect::<Result<_, _>>()?;
    let set = [("general.file_type", file_type(args.kind)), ("general.quantization_version", 2)];
    let alignment = file.alignment();
    let output = Output { file: &file, actions: &actions, set: &set, alignment, what: "quantizing" };
    output.write_to(&args.input, &args.output)
}
