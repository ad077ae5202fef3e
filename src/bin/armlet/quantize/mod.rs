//! `armlet quantize`: converts the matrices of a model to other formats, with the mixes of llama-quantize.
//!
//! Vectors, the metadata and the order of tensors stay.

mod importance;
mod mix;

use std::fmt::Write;
use std::path::Path;

use armlet::gguf::{File, Tensor, Value};
use armlet::quant::{DType, Layout};

use crate::args::Quantize;
use crate::error::{Failure, print};
use crate::finite;
use crate::gguf_writer::{Action, Conversion, Meta, Output};
use crate::inspect::name;
use crate::model::{Source, resolve, with_file};
use importance::Importance;
use mix::{Choice, Named, Shape, Wishes};

pub(crate) use mix::{Override, PRESETS, Preset};

/// What the mixes depend on, from the metadata.
fn shape(file: &File<'_>) -> Shape {
    let arch = match file.get("general.architecture") {
        Some(Value::String(arch)) => String::from_utf8_lossy(arch).into_owned(),
        _ => String::new(),
    };
    let number = |key: &str| match file.get(&format!("{arch}.{key}"))? {
        Value::Array(a) => a.iter().next().and_then(unsigned),
        value => unsigned(value),
    };
    // No more layers than there are tensors: the mixes count with it.
    let layers = number("block_count").unwrap_or(0).min(file.tensors_len() as u64);
    let heads = number("attention.head_count").unwrap_or(0);
    let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
    Shape {
        layers: layers as usize,
        experts: number("expert_count").unwrap_or(0),
        group: heads.checked_div(kv_heads).unwrap_or(0),
        is_70b: arch == "llama" && layers == 80 && heads != kv_heads,
    }
}

fn unsigned(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Unsigned(n) => Some(n),
        Value::Signed(n) => n.try_into().ok(),
        _ => None,
    }
}

fn named<'a>(t: &Tensor<'a>) -> Named<'a> {
    Named { name: t.name, dims: t.dims }
}

/// What happens to one tensor.
fn action<'a>(
    t: Tensor<'a>,
    choice: Option<Choice>,
    importance: Option<&'a Importance>,
    args: &Quantize,
    input: &Path,
) -> Result<Action<'a>, Failure> {
    let fail = |why: String| Failure::file(input, format!("tensor {}: {why}", t.name));
    let Some(Choice { dtype: to, .. }) = choice else { return Ok(Action::Copy(t)) };
    let from = match t.kind.format() {
        Some((from, Layout::Rows)) => from,
        Some((_, Layout::Panels)) => return Err(fail(format!("it is packed ({}); convert the original file", t.kind))),
        None => return Err(fail(format!("type {} is not supported", t.kind))),
    };
    if from == to {
        return Ok(Action::Copy(t));
    }
    if to.row_bytes(t.dims[0] as usize).is_none() {
        let (cols, block) = (t.dims[0], to.block_len());
        return Err(fail(format!(
            "its {cols} columns are not whole blocks of {to}, which have {block}; choose another type"
        )));
    }
    // F32 has every value of every format.
    if from.is_quantised() && to != DType::F32 && !args.allow_requantize {
        return Err(fail(format!(
            "it is already quantised ({from}), and converting it loses precision again; --allow-requantize does so"
        )));
    }
    let importance = match importance {
        Some(importance) => importance.of(&named(&t))?,
        None => None,
    };
    Ok(Action::Convert(Conversion { tensor: t, from, to, importance }))
}

/// An error if a weight that is copied is not finite. Those that are converted are checked then.
fn check_copied(actions: &[Action<'_>], input: &Path) -> Result<(), Failure> {
    actions.iter().try_for_each(|action| match action {
        Action::Copy(t) => finite::check(t, input),
        _ => Ok(()),
    })
}

/// A line for each tensor, and the size of all.
fn report(actions: &[Action<'_>], choices: &[Option<Choice>], importance: bool) -> String {
    let (mut out, mut before, mut after, mut weights) = (String::new(), 0, 0, 0);
    // Writing to a String cannot fail, so results are ignored here.
    for (action, choice) in actions.iter().zip(choices) {
        let t = action.tensor();
        let bytes = action.result().map_or(0, |(_, bytes)| bytes);
        let dims: Vec<_> = t.dims.iter().take(t.n_dims).map(u64::to_string).collect();
        let _ = write!(out, "{:40} [{}] {}", name(t.name), dims.join(", "), t.kind);
        if let Action::Convert(c) = action {
            let _ = write!(out, " -> {}", c.to);
            if importance && c.importance.is_none() {
                let _ = write!(out, ", without importance");
            }
        }
        if let Some(Choice { instead_of: Some(wanted), .. }) = choice {
            let _ = write!(out, ", for {wanted}, whose blocks have {} columns", wanted.block_len());
        }
        let _ = writeln!(out, ", {:.2} MiB", mib(bytes));
        (before, after, weights) = (before + t.data.len() as u64, after + bytes, weights + t.elements());
    }
    let bits = |bytes: u64| 8.0 * bytes as f64 / weights.max(1) as f64;
    let (b, a) = (bits(before), bits(after));
    let _ = writeln!(out, "{:.2} MiB ({b:.2} bits per weight) -> {:.2} MiB ({a:.2})", mib(before), mib(after));
    out
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub(crate) fn run(args: &Quantize) -> Result<(), Failure> {
    let input = resolve(Some(&args.input))?;
    with_file(&input, &[], |source| run_on(args, &input, source))
}

fn run_on(args: &Quantize, input: &Path, source: &Source<'_>) -> Result<(), Failure> {
    let file = &source.file;
    let importance = args.imatrix.as_deref().map(Importance::read).transpose()?;
    let tensors: Vec<_> = file.tensors().map(|t| named(&t)).collect();
    if let Some(importance) = &importance {
        importance.belongs_to(&tensors)?;
    }
    let wishes = Wishes {
        preset: args.kind,
        pure: args.pure,
        output: args.output_tensor_type,
        embedding: args.token_embedding_type,
        overrides: &args.tensor_type,
        importance: importance.is_some(),
    };
    let choices = mix::choose(&tensors, &shape(file), &wishes);
    let action = |(t, choice): (_, &Option<_>)| action(t, *choice, importance.as_ref(), args, input);
    let actions: Vec<_> = file.tensors().zip(&choices).map(action).collect::<Result<_, _>>()?;
    if actions.iter().any(|a| matches!(a, Action::Convert(c) if c.from.is_quantised() && c.to == DType::F32)) {
        let path = input.display();
        log::warn!("{path} is quantised already: F32 keeps its values, and cannot bring back those before");
    }
    if let Some(path) = args.output.as_deref().filter(|_| !args.dry_run) {
        check_copied(&actions, input)?;
        let mut set =
            vec![("general.file_type", Meta::U32(args.kind.file_type)), ("general.quantization_version", Meta::U32(2))];
        set.extend(importance.iter().flat_map(Importance::metadata));
        let output = Output { source, actions: &actions, set: &set, alignment: file.alignment(), what: "quantising" };
        output.write_to(path)?;
    }
    print(report(&actions, &choices, importance.is_some()).as_bytes())
}
