//! `armlet imatrix`: how much the columns of each matrix matter, by llama-imatrix's protocol.
//!
//! The text is split into chunks of as many tokens as the context, which are read one by one. For each matrix the squares
//! of its inputs are summed over all tokens, column by column; `quantize --imatrix` weighs errors by their means. The
//! output head counts only if it is asked for, and an embedding never.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use armlet::engine::{Config, Pattern, Plan};
use armlet::gguf::File;
use armlet::quant::Matrix;
use armlet::tokenizer::EncodeOptions;

use crate::args::Imatrix;
use crate::atomic_file::{failed, replace_by};
use crate::error::{Failure, print};
use crate::gguf_writer::{Meta, write_floats};
use crate::interrupt;
use crate::model::{Loaded, Runner, encode_prompt, pieces, read_file, session_memory, with_model, without_line_end};
use crate::progress::steps;
use crate::visible;

/// The output head, where it is no embedding.
const HEAD: &str = "output.weight";
/// Tokens whose logits are computed in one pass, which only the input of the head needs.
const ROWS: usize = 32;

/// What is known of the inputs of one tensor.
struct Inputs<'f> {
    name: &'f str,
    /// Sums of squares, for each column.
    squares: Vec<f64>,
    /// Inputs seen.
    count: u64,
}

/// The inputs of all tensors that are measured, by the address of the tensor's data.
struct Sums<'f>(BTreeMap<usize, Inputs<'f>>);

impl<'f> Sums<'f> {
    fn new(file: &File<'f>, head: bool) -> Self {
        let measured = |name: &str| name.starts_with("blk.") || (head && name == HEAD);
        let tensors = file.tensors().filter(|t| measured(t.name) && !t.data.is_empty());
        let inputs = |name| Inputs { name, squares: Vec::new(), count: 0 };
        Sums(tensors.map(|t| (t.data.as_ptr().addr(), inputs(t.name))).collect())
    }

    /// Adds the inputs `x`, `(tokens, cols)`, of `matrix`.
    fn add(&mut self, matrix: &Matrix<'_>, x: &[f32]) {
        let Some(inputs) = self.0.get_mut(&matrix.bytes().as_ptr().addr()) else { return };
        inputs.squares.resize(matrix.cols(), 0.0);
        for x in x.chunks_exact(matrix.cols()) {
            inputs.squares.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
            inputs.count += 1;
        }
    }

    /// The tensors that had inputs, by name.
    fn seen(&self) -> Vec<&Inputs<'f>> {
        let mut seen: Vec<_> = self.0.values().filter(|inputs| inputs.count > 0).collect();
        seen.sort_by_key(|inputs| inputs.name);
        seen
    }

    /// An error if a sum is no number, or none in an f32.
    fn check(&self) -> Result<(), String> {
        for inputs in self.0.values() {
            if let Some(i) = inputs.squares.iter().position(|sum| !(*sum as f32).is_finite()) {
                let (name, sum) = (inputs.name, inputs.squares[i]);
                return Err(format!(
                    "column {i} of tensor {name} is multiplied with activations whose squares add up to {sum}; \
                     the model's file is damaged"
                ));
            }
        }
        Ok(())
    }

    /// The tensors of the file to write.
    fn tensors(&self) -> Vec<(String, Vec<f32>)> {
        let pair = |inputs: &Inputs<'_>| {
            let squares = inputs.squares.iter().map(|sum| *sum as f32).collect();
            let (sums, counts) = (format!("{}.in_sum2", inputs.name), format!("{}.counts", inputs.name));
            [(sums, squares), (counts, vec![inputs.count as f32])]
        };
        self.seen().into_iter().flat_map(pair).collect()
    }
}

pub(crate) fn run(args: &Imatrix) -> Result<(), Failure> {
    let text = without_line_end(read_file(&args.file)?);
    with_model(&args.model, |loaded| {
        let options = EncodeOptions { add_special: true, ..EncodeOptions::default() };
        let mut tokens = encode_prompt(&loaded.model.tokenizer, &text, options)?;
        let pieces = pieces(&loaded.model.tokenizer, &mut tokens, args.context, args.chunks)?;
        if args.process_output && loaded.file.tensor(HEAD).is_none() {
            log::warn!("--process-output: the output head is the embedding, which has no importance");
        }
        let mut seen = 0;
        replace_by(&args.output, |out| {
            let sums = measure(loaded, &pieces, args)?;
            seen = sums.seen().len();
            write(&sums, pieces.len(), args, out)
        })?;
        let (path, n) = (args.output.display(), pieces.len());
        print(
            format!("{}: {seen} tensors, {n} × {} tokens\n", visible::line(&path.to_string()), args.context).as_bytes(),
        )
    })
}

/// Reads all pieces, each from an empty cache.
fn measure<'f>(loaded: &Loaded<'f>, pieces: &[&[u32]], args: &Imatrix) -> Result<Sums<'f>, Failure> {
    interrupt::catch()?;
    let sums = Mutex::new(Sums::new(loaded.file, args.process_output));
    let observer = |matrix: &Matrix<'_>, x: &[f32]| sums.lock().unwrap_or_else(PoisonError::into_inner).add(matrix, x);
    let rows = if args.process_output { ROWS.min(args.context) } else { 1 };
    let config = Config { context: args.context, pattern: Pattern::Full, logit_rows: rows, ..Config::default() };
    let plan = Plan::new(&loaded.model.hparams, &config)?;
    let mut memory = session_memory(&plan)?;
    let mut runner = Runner::new(loaded, &plan, &mut memory)?;
    runner.engine.observe_inputs(&observer);
    let progress = steps(pieces.len() as u64, "measuring");
    for piece in pieces {
        interrupt::stop()?;
        runner.session.rewind(0)?;
        if args.process_output {
            piece.chunks(rows).try_for_each(|tokens| runner.score(tokens).map(drop))?;
        } else {
            runner.eval(piece)?;
        }
        let checked = sums.lock().unwrap_or_else(PoisonError::into_inner).check();
        checked.map_err(|why| Failure::file(loaded.path, why))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    drop(runner);
    Ok(sums.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn write(sums: &Sums<'_>, chunks: usize, args: &Imatrix, out: &mut dyn Write) -> Result<(), Failure> {
    let metadata = [
        ("general.type", Meta::Str("imatrix".into())),
        ("imatrix.datasets", Meta::Strs(vec![args.file.display().to_string()])),
        ("imatrix.chunk_count", Meta::U32(chunks as u32)),
        ("imatrix.chunk_size", Meta::U32(args.context as u32)),
    ];
    write_floats(&metadata, &sums.tensors(), out).map_err(|e| failed(&args.output, e))
}
