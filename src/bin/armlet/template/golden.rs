//! Public templates as Python's Jinja renders them in transformers' configuration: `tests/golden/templates.py`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::fixture::job;

/// Conversations that are not rendered as Python does, and why.
const OTHERWISE: [(&str, &str); 6] = [
    // Python raises an exception: it loops over `tools`, which is none.
    ("CohereForAI-c4ai-command-r-plus-tool_use", "plain system turns no thinking"),
    ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "plain system turns no thinking"),
    ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "plain system turns no thinking"),
    // Python raises an exception: the template has a generator as JSON.
    ("llama-cpp-deepseek-r1", "tools"),
    // The template refuses a system message; here that goes before the user's text.
    ("google-gemma-2-2b-it", "system tools"),
    // Python's `safe` has whatever is added to a text escaped for the web.
    ("meetkai-functionary-medium-v3.1", "tools"),
];

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name and text of each template: those that may be copied, and all of them in `ARMLET_TEMPLATES`, if that is given.
fn templates(golden: &Path) -> BTreeMap<String, String> {
    let mut templates = BTreeMap::new();
    let mut archive = zip::ZipArchive::new(std::fs::File::open(golden.join("templates.zip")).unwrap()).unwrap();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).unwrap();
        let mut source = String::new();
        entry.read_to_string(&mut source).unwrap();
        let path = entry.enclosed_name().unwrap();
        if path.extension().is_some_and(|e| e == "jinja") {
            templates.insert(path.file_stem().unwrap().to_str().unwrap().to_string(), source);
        }
    }
    if let Some(folder) = std::env::var_os("ARMLET_TEMPLATES") {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|e| e == "jinja") {
                let name = path.file_stem().unwrap().to_str().unwrap().to_string();
                templates.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    templates
}

#[test]
fn public_templates() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let known: Json = serde_json::from_slice(&std::fs::read(golden.join("templates.json")).unwrap()).unwrap();
    let (mut same, mut wrong) = (0, Vec::new());
    for (name, source) in templates(&golden) {
        let row = &known["templates"][&name];
        assert_eq!(row["template"], hash(&source), "{name} is another template");
        for (conversation, given) in known["conversations"].as_object().unwrap() {
            let mut job = job(&source);
            job.now = known["now"].as_str().unwrap().parse().unwrap();
            job.messages = given["messages"].as_array().unwrap().clone();
            let common = json!({
                "tools": null, "documents": null, "add_generation_prompt": true, "bos_token": "<bos>", "eos_token": "<eos>",
            });
            job.variables = common.as_object().unwrap().clone();
            job.variables.extend(given["variables"].as_object().unwrap().clone());
            let rendered = job.render();
            let agrees = match &rendered {
                Ok(text) => json!([text.len(), &hash(text)[..16]]) == row[conversation],
                Err(_) => row[conversation].is_null(),
            };
            let otherwise = |(n, conversations): &(&str, &str)| *n == name && conversations.contains(conversation);
            if agrees == OTHERWISE.iter().any(otherwise) {
                wrong.push(format!("{name}, {conversation}: {rendered:?}"));
            }
            same += usize::from(agrees);
        }
    }
    assert!(wrong.is_empty(), "{same} agree, and {} do not:\n{}", wrong.len(), wrong.join("\n"));
    assert!(same >= 139, "{same}");
}
