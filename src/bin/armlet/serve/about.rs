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
    /// Its architecture, such as `llama`.
    pub(super) family: String,
    /// How its weights are quantised, such as `Q4_K_M`.
    pub(super) level: String,
    /// It may think before it answers.
    pub(super) thinks: bool,
    pub(super) parameters: u64,
    pub(super) bytes: u64,
    pub(super) vocab: usize,
    pub(super) trained: usize,
    pub(super) context: usize,
}

impl About {
    /// `asked`: what the command line called it; `alias`: what requests shall call it; `thinks`: whether it may think.
    pub(super) fn new(
        loaded: &Loaded<'_>,
        asked: Option<&Path>,
        alias: Option<&str>,
        context: usize,
        thinks: bool,
    ) -> Self {
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
            level: level(loaded.file).map_or_else(|| summary.main().into(), String::from),
            thinks,
            parameters: summary.parameters,
            bytes: summary.bytes,
            vocab: h.vocab,
            trained: h.context_length,
            context,
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn of_a_test(vocab: usize) -> Self {
        let names = vec!["tiny".into()];
        let (family, level) = ("llama".into(), "F32".into());
        let (created, thinks, parameters, bytes, trained, context) = (0, false, 1000, 4000, 4096, 4096);
        About { names, created, family, level, thinks, parameters, bytes, vocab, trained, context }
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

/// What a file says of its quantisation, by the names of llama.cpp; some set a bit that says that they guess.
fn level(file: &File<'_>) -> Option<&'static str> {
    match file.get("general.file_type")? {
        Metadata::Unsigned(n) => LEVELS.iter().find(|(number, _)| *number == n & !1024).map(|(_, name)| *name),
        _ => None,
    }
}

/// llama.cpp's numbers of mixes.
const LEVELS: [(u64, &str); 36] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4_MOE"),
    (39, "NVFP4"),
    (40, "Q1_0"),
    (41, "Q2_0"),
];

fn text(file: &File<'_>, key: &str) -> String {
    match file.get(key) {
        Some(Metadata::String(text)) => Label::from_bytes(text).to_string(),
        _ => String::new(),
    }
}
