//! What the server says of its model.

use std::path::Path;
use std::time::UNIX_EPOCH;

use armlet::gguf::{File, Label, Value as Metadata};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::inspect::Summary;
use crate::model::Loaded;

/// The model, as the API's lists have it.
pub(super) struct About {
    /// The first is the one that lists show.
    names: Vec<String>,
    /// Seconds since 1970 of its file.
    pub(super) created: u64,
    /// Architecture and kind, such as `llama` and `llama 135M Q4_1`.
    pub(super) family: String,
    pub(super) kind: String,
    pub(super) parameters: u64,
    pub(super) bytes: u64,
    pub(super) vocab: usize,
    pub(super) trained: usize,
    pub(super) context: usize,
}

impl About {
    /// `asked`: what the command line called it; `alias`: what requests shall call it.
    pub(super) fn new(loaded: &Loaded<'_>, asked: Option<&Path>, alias: Option<&str>, context: usize) -> Self {
        let summary = Summary::new(loaded.file);
        let stem = loaded.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let asked = asked.and_then(|path| path.to_str()).filter(|name| !Path::new(name).exists()).map(String::from);
        let names = alias.map(String::from).into_iter().chain(stem).chain(asked);
        let time = loaded.path.metadata().and_then(|found| found.modified()).ok();
        let h = &loaded.model.hparams;
        About {
            names: names.collect(),
            created: time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_secs()),
            family: text(loaded.file, "general.architecture"),
            kind: summary.kind(),
            parameters: summary.parameters,
            bytes: summary.bytes,
            vocab: h.vocab,
            trained: h.context_length,
            context,
        }
    }

    /// The name of the model.
    pub(super) fn name(&self) -> &str {
        self.names.first().map_or("model", String::as_str)
    }

    /// Checks the name in a request; ollama's clients add a tag. None is that of the one model that there is.
    pub(super) fn check(&self, name: Option<&str>) -> Result<(), Problem> {
        match name {
            None | Some("") => Ok(()),
            Some(name) => {
                let plain = name.strip_suffix(":latest").unwrap_or(name);
                let known = self.names.iter().any(|known| known == name || known == plain);
                known.then_some(()).ok_or_else(|| Problem::no_model(name))
            }
        }
    }

    /// The model in OpenAI's form, with what llama-server adds.
    pub(super) fn openai(&self) -> Value {
        json!({
            "id": self.name(), "object": "model", "created": self.created, "owned_by": "armlet",
            "meta": {
                "n_vocab": self.vocab, "n_ctx": self.context, "n_ctx_train": self.trained, "n_params": self.parameters,
                "size": self.bytes,
            },
        })
    }
}

fn text(file: &File<'_>, key: &str) -> String {
    match file.get(key) {
        Some(Metadata::String(text)) => Label::from_bytes(text).to_string(),
        _ => String::new(),
    }
}
