//! `armlet pack`: repacks quantised matrices into the layout of the GEMM kernels.
//!
//! The layout is the same for every CPU. Everything else is copied, so the answers have the same bits.

use std::path::Path;

use armlet::gguf::Tensor;
use armlet::model::{Hparams, Weights};
use armlet::quant::{DType, FORMATS, Layout, PACK_VERSION};

use crate::args::Pack;
use crate::error::Failure;
use crate::gguf_writer::{Action, Meta, Output};
use crate::model::{Source, resolve, with_file};

/// Minimum alignment of tensors in a packed file: a cache line.
const ALIGNMENT: u32 = 64;

pub(crate) fn run(args: &Pack) -> Result<(), Failure> {
    let input = resolve(Some(&args.input))?;
    with_file(&input, &[], |source| run_on(args, &input, source))
}

fn run_on(args: &Pack, input: &Path, source: &Source<'_>) -> Result<(), Failure> {
    let file = &source.file;
    if let Some(t) = file.tensors().find(|t| t.kind.is_packed()) {
        let why = format!("the file is packed already: tensor {} has type {}", t.name, t.kind);
        return Err(Failure::file(input, why));
    }
    // Of a model that cannot be run, there is no telling which tensors are several matrices.
    let hparams = Hparams::new(file).ok();
    let is_whole = |t: &Tensor<'_>| hparams.as_ref().is_none_or(|h| Weights::is_whole_panels(t, h));
    let action = |t| match format(&t).filter(|_| is_whole(&t)) {
        Some(dtype) => Action::Pack(t, dtype),
        None => Action::Copy(t),
    };
    let actions: Vec<_> = file.tensors().map(action).collect();
    if !actions.iter().any(|a| matches!(a, Action::Pack(..))) {
        let names: Vec<_> = FORMATS.iter().filter(|f| f.packed.is_some()).map(|f| f.name).collect();
        let why = "there is nothing to pack: armlet quantize makes a file that has matrices of one of";
        return Err(Failure::file(input, format!("{why} {}", names.join(", "))));
    }
    let alignment = ALIGNMENT.max(u32::try_from(file.alignment()).unwrap_or(ALIGNMENT)); // the reader allows 2²⁰
    let set = [("general.alignment", Meta::U32(alignment)), ("armlet.pack.version", Meta::U32(PACK_VERSION))];
    let output = Output { source, actions: &actions, set: &set, alignment: alignment.into(), what: "packing" };
    output.write_to(&args.output)
}

/// The format of a tensor, if it can be packed.
fn format(t: &Tensor<'_>) -> Option<DType> {
    let (dtype, _) = t.kind.format()?;
    (t.n_dims == 2 && Weights::is_matrix(t.name) && Layout::Panels.gguf_id(dtype).is_some()).then_some(dtype)
}
