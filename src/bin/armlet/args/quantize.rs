//! The command lines of `quantize` and `pack`.

use std::path::PathBuf;

use armlet::quant::DType;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::quantize::{Override, PRESETS, Preset};

#[derive(clap::Args, Debug)]
pub(crate) struct Quantize {
    /// Input model: a GGUF file (the first one of several parts), or a name as -m of `chat` takes it.
    #[arg(value_name = "MODEL")]
    pub(crate) input: PathBuf,
    /// Output file.
    #[arg(required_unless_present = "dry_run")]
    pub(crate) output: Option<PathBuf>,
    /// Format of most matrices: llama-quantize's mixes, in which those that matter more have more bits.
    #[arg(long = "type", value_name = "TYPE", ignore_case = true, value_parser = preset_parser())]
    pub(crate) kind: Preset,
    /// No mix: this format for every matrix.
    #[arg(long)]
    pub(crate) pure: bool,
    /// Format of the output head.
    #[arg(long, value_name = "TYPE", value_parser = parse_format)]
    pub(crate) output_tensor_type: Option<DType>,
    /// Format of the token embedding.
    #[arg(long, value_name = "TYPE", value_parser = parse_format)]
    pub(crate) token_embedding_type: Option<DType>,
    /// Format of the tensors whose names match, such as 'ffn_down=Q6_K'; the first match counts.
    #[arg(long, value_name = "REGEX=TYPE", value_parser = parse_override)]
    pub(crate) tensor_type: Vec<Override>,
    /// Importance matrix, as `armlet imatrix` and llama-imatrix write it.
    #[arg(long, value_name = "FILE")]
    pub(crate) imatrix: Option<PathBuf>,
    /// Write nothing; only show formats and sizes.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also convert weights that are already quantised, which loses precision a second time.
    #[arg(long)]
    pub(crate) allow_requantize: bool,
}

/// Accepts the names of presets, in any case.
fn preset_parser() -> impl clap::builder::TypedValueParser<Value = Preset> {
    let unknown = "unknown".to_string();
    let values = PRESETS.map(|p| PossibleValue::new(p.name).aliases(p.alias()));
    PossibleValuesParser::new(values).try_map(move |name| Preset::named(&name).ok_or(unknown.clone()))
}

/// Parses the name of a weight format.
fn parse_format(text: &str) -> Result<DType, String> {
    let named = DType::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(text));
    named.ok_or_else(|| format!("not one of {}", DType::ALL.map(DType::name).join(", ")))
}

/// Parses a pattern and the format of the tensors that it matches.
fn parse_override(text: &str) -> Result<Override, String> {
    let (pattern, dtype) = text.rsplit_once('=').ok_or("not REGEX=TYPE, such as ffn_down=Q6_K")?;
    let pattern = regex_lite::Regex::new(pattern).map_err(|e| e.to_string())?;
    Ok(Override { pattern, dtype: parse_format(dtype)? })
}

#[derive(clap::Args, Debug)]
pub(crate) struct Pack {
    /// Input model: a GGUF file (the first one of several parts), or a name as -m of `chat` takes it.
    #[arg(value_name = "MODEL")]
    pub(crate) input: PathBuf,
    /// Output file. It gives the same answers, and only armlet can read it.
    pub(crate) output: PathBuf,
}
