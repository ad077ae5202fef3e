//! `armlet inspect`: shows the contents of a GGUF file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use armlet::engine::{Config, Plan};
use armlet::generation::MAX_DRAFT;
use armlet::gguf::{Array, File, Label, Value, ValueType};
use armlet::model::{Hparams, Model};

use crate::args::{Inspect, Resident};
use crate::error::{Failure, print, print_json};
use crate::model::{resolve, with_file};
use crate::override_kv;
use crate::visible;

/// Elements of a list that are shown.
const SHOWN: usize = 5;
/// Characters of a text, and of a name, that are shown.
const TEXT: usize = 80;
const NAME: usize = 120;

/// Sizes of a file's tensors.
pub(crate) struct Summary {
    name: String,
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
    /// Bytes by tensor type.
    types: BTreeMap<&'static str, u64>,
}

impl Summary {
    pub(crate) fn new(file: &File<'_>) -> Self {
        let text = |key| match file.get(key) {
            Some(Value::String(s)) => Some(Label::from_bytes(s).to_string()),
            _ => None,
        };
        let name = [text("general.architecture"), text("general.size_label")];
        let mut summary = Summary {
            name: name.into_iter().flatten().collect::<Vec<_>>().join(" "),
            parameters: 0,
            bytes: 0,
            types: BTreeMap::new(),
        };
        for t in file.tensors() {
            summary.parameters += t.elements();
            summary.bytes += t.data.len() as u64;
            *summary.types.entry(t.kind.name).or_default() += t.data.len() as u64;
        }
        summary
    }

    /// The tensor type that most bytes have.
    pub(crate) fn main(&self) -> &'static str {
        self.types.iter().max_by_key(|(_, bytes)| **bytes).map_or("", |(name, _)| name)
    }

    /// Architecture, size and predominant tensor type, such as `llama 135M Q4_1`.
    pub(crate) fn kind(&self) -> String {
        format!("{} {}", visible::line(&self.name).replace('|', "\\|"), self.main())
    }
}

pub(crate) fn run(args: &Inspect) -> Result<(), Failure> {
    let path = resolve(args.path.as_deref().or(args.model.as_deref()))?;
    let overrides = &args.metadata.override_kv;
    with_file(&path, overrides, |source| {
        let file = &source.file;
        let metadata = metadata(file, &override_kv::entries(overrides));
        if args.json {
            return print_json(&json(file, &metadata), true);
        }
        print(text(file, &metadata, args.tensors, bytes_of(source.paths)).as_bytes())
    })
}

/// The file's entries, with the values that count; then those that the command line adds.
fn metadata<'a>(file: &File<'a>, overrides: &[(&'a str, Value<'a>)]) -> Vec<(&'a str, Value<'a>)> {
    let own = |key: &str| overrides.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
    let mut entries: Vec<_> = file.metadata().map(|(key, value)| (key, own(key).unwrap_or(value))).collect();
    for (key, _) in overrides {
        if !entries.iter().any(|(known, _)| known == key) {
            entries.extend(own(key).map(|value| (*key, value)));
        }
    }
    entries
}

/// The first characters of a text, and an ellipsis if there are more.
fn cut(text: &str, most: usize) -> (&str, &'static str) {
    match text.char_indices().nth(most) {
        Some((end, _)) => (&text[..end], "…"),
        None => (text, ""),
    }
}

/// The beginning of a name of the file, with what acts on a terminal or cannot be seen escaped.
pub(crate) fn name(text: &str) -> String {
    let (shown, more) = cut(text, NAME);
    format!("{}{more}", shown.escape_debug())
}

/// Bytes of all parts of a model's file.
pub(crate) fn bytes_of(paths: &[PathBuf]) -> u64 {
    paths.iter().filter_map(|path| path.metadata().ok()).map(|found| found.len()).sum()
}

/// How much memory a model takes. Mapped pages of its file are read, and given up, as the system likes.
pub(crate) fn memory_line(file: u64, resident: Resident, tables: usize, plan: &Plan, sessions: usize) -> String {
    let what = match resident {
        Resident { mlock: true, .. } => "file, locked",
        Resident { no_mmap: true, .. } => "copy of the file",
        _ => "file",
    };
    let session = plan.session_bytes().saturating_mul(sessions) as u64;
    let (tables, workspace) = (tables as u64, plan.engine_bytes() as u64);
    let sum = [file, tables, workspace, session].into_iter().fold(0, u64::saturating_add);
    format!(
        "memory: {:.1} MiB {what} + {:.1} MiB tables + {:.1} MiB workspace + {:.1} MiB KV cache = {:.1} MiB",
        mib(file),
        mib(tables),
        mib(workspace),
        mib(session),
        mib(sum)
    )
}

fn text(file: &File<'_>, metadata: &[(&str, Value<'_>)], tensors: bool, bytes: u64) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, so results are ignored here.
    let _ = writeln!(out, "GGUF v{}, alignment {}", file.version(), file.alignment());
    let _ = writeln!(out, "\nmetadata ({})", metadata.len());
    for (key, value) in metadata {
        let _ = writeln!(out, "  {} = {}", name(key), show(value));
    }
    let summary = Summary::new(file);
    let _ = writeln!(
        out,
        "\ntensors ({}): {:.2} M weights, {:.2} MiB",
        file.tensors_len(),
        summary.parameters as f64 / 1e6,
        mib(summary.bytes)
    );
    let width = summary.types.keys().map(|name| name.len()).fold(8, usize::max);
    for (name, bytes) in &summary.types {
        let _ = writeln!(out, "  {name:width$} {:10.2} MiB", mib(*bytes));
    }
    if tensors {
        for t in file.tensors() {
            let dims: Vec<_> = t.dims.iter().take(t.n_dims).map(u64::to_string).collect();
            let (name, kind) = (name(t.name), t.kind.name);
            let _ = writeln!(out, "  {name:40} {kind:width$} [{}]", dims.join(", "));
        }
    }
    out + &runs(file, bytes)
}

/// Whether armlet can run the file, and how much memory that takes.
fn runs(file: &File<'_>, bytes: u64) -> String {
    let memory = || {
        let tables = Model::required_bytes(file).map_err(|e| e.to_string())?;
        let h = Hparams::new(file).map_err(|e| e.to_string())?;
        // As a chat has it without options.
        let (context, logit_rows) = (Config::default().context.min(h.context_length), 1 + MAX_DRAFT);
        let config = Config { context, logit_rows, ..Config::default() };
        let plan = Plan::new(&h, &config).map_err(|e| e.to_string())?;
        Ok::<_, String>((tables, config.context, plan))
    };
    match memory() {
        Ok((tables, context, plan)) => {
            let memory = memory_line(bytes, Resident::default(), tables, &plan, 1);
            format!("\nruns here, with a context of {context} tokens\n{memory}\n")
        }
        Err(why) => format!("\ndoes not run here: {}\n", visible::line(&why)),
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn show(value: &Value<'_>) -> String {
    match value {
        Value::Unsigned(n) => n.to_string(),
        Value::Signed(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::String(s) => {
            // A character has at most four bytes, and what is not UTF-8 counts for itself.
            let begin = String::from_utf8_lossy(&s[..s.len().min(4 * TEXT)]);
            let (shown, more) = cut(&begin, TEXT);
            let more = if s.len() > 4 * TEXT { "…" } else { more };
            format!("\"{}\"{more}", shown.escape_debug())
        }
        Value::Array(a) => {
            let shown: Vec<_> = a.iter().take(SHOWN).map(|v| show(&v)).collect();
            let more = if a.len() > SHOWN { ", …" } else { "" };
            format!("[{}{more}] ({} × {:?})", shown.join(", "), a.len(), a.kind())
        }
    }
}

fn json(file: &File<'_>, metadata: &[(&str, Value<'_>)]) -> serde_json::Value {
    let metadata: serde_json::Map<_, _> = metadata.iter().map(|(k, v)| (k.to_string(), json_value(v))).collect();
    let tensors: Vec<_> = file
        .tensors()
        .map(|t| {
            serde_json::json!({ "name": t.name, "type": t.kind.name, "shape": t.dims[..t.n_dims],
                                "offset": t.offset, "bytes": t.data.len() })
        })
        .collect();
    serde_json::json!({ "version": file.version(), "alignment": file.alignment(), "metadata": metadata,
                        "tensors": tensors })
}

fn json_value(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Unsigned(n) => (*n).into(),
        Value::Signed(n) => (*n).into(),
        Value::Float(x) => (*x).into(),
        Value::Bool(b) => (*b).into(),
        Value::String(s) => String::from_utf8_lossy(s).into(),
        Value::Array(a) => json_array(a),
    }
}

/// Short arrays in full; long ones, such as a vocabulary, as their type and length.
fn json_array(a: &Array<'_>) -> serde_json::Value {
    const WHOLE: usize = 64;
    if a.len() <= WHOLE {
        return a.iter().map(|v| json_value(&v)).collect();
    }
    let kind = if a.kind() == ValueType::String { "string" } else { "number" };
    serde_json::json!({ "array_of": kind, "len": a.len() })
}
