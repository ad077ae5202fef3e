//! Public templates as Python's Jinja renders them in transformers' configuration: `tests/golden/templates.py`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use armlet::tokenizer::{ChatFormat, Role, Turn};
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
    ("llama-cpp-deepseek-r1", "tools called parallel"),
    // The template refuses a system message; here that goes before the user's text.
    ("google-gemma-2-2b-it", "system tools"),
    // Python's `safe` has whatever is added to a text escaped for the web.
    ("meetkai-functionary-medium-v3.1", "tools called parallel"),
];

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name and text of each template: those that may be copied, and all of them in `ARMLET_TEMPLATES`, if that is given.
pub(super) fn templates(golden: &Path) -> BTreeMap<String, String> {
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
    assert!(same >= 200, "{same}");
}

/// After the templates of models that are not among those of the archive: what they do, shortened.
const LLAMA3: &str = "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + \
    m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}\
    {{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}";
const GEMMA3: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}\
    {% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}\
    {% set role = 'model' if m['role'] == 'assistant' else m['role'] %}{{ '<start_of_turn>' + role + '\n' + \
    (first if loop.first else '') }}{{ m['content'] | trim }}{{ '<end_of_turn>\n' }}{% endfor %}{{ '<start_of_turn>model\n' }}";
const PHI4: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}\
    {% endfor %}{{ '<|im_start|>assistant<|im_sep|>' }}";
const ZEPHYR: &str = "{% for m in messages %}\n{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}\n\
    {% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";

/// A built-in format writes what the model's template does, where that adds no system prompt of its own.
#[test]
fn built_in_formats() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let public = templates(&golden);
    let turns = [
        (Role::System, " Be brief, please.\n"),
        (Role::User, " Hello!\n\n  <b> "),
        (Role::Assistant, "Hi! [1]"),
        (Role::User, "2 + 2?"),
    ];
    let (alone, first, both, all) = (&turns[1..2], &turns[1..], &turns[..2], &turns[..]);
    let every: &[_] = &[alone, first, both, all];
    let with_system: &[_] = &[both, all];
    for (format, template, conversations) in [
        (ChatFormat::ChatMl, "Qwen-Qwen3-0.6B", every),
        (ChatFormat::ChatMl, "Qwen-Qwen2.5-7B-Instruct", with_system),
        (ChatFormat::ChatMl, "LFM2-8B-A1B", every),
        (ChatFormat::Llama3, LLAMA3, every),
        (ChatFormat::Gemma, GEMMA3, every),
        (ChatFormat::Gemma, "google-gemma-3-4b-it", every),
        (ChatFormat::Gemma, "google-gemma-2-2b-it", &[alone, first]),
        (ChatFormat::Gemma4, "google-gemma-4-31B-it", every),
        (ChatFormat::Phi3, "microsoft-Phi-3.5-mini-instruct", every),
        (ChatFormat::Phi4, PHI4, every),
        (ChatFormat::Phi4Mini, "microsoft-Phi-4-mini-instruct", every),
        (ChatFormat::Mistral, "Mistral-Small-3.2-24B-Instruct-2506", with_system),
        (ChatFormat::Mistral, "mistralai-Ministral-3-14B-Reasoning-2512", with_system),
        (ChatFormat::Mistral, "mistralai-Mistral-Nemo-Instruct-2407", &[alone, first]),
        (ChatFormat::Zephyr, ZEPHYR, every),
        (ChatFormat::Granite, "ibm-granite-granite-4.1", every),
        (ChatFormat::Granite, "ibm-granite-granite-4.0", with_system),
        (ChatFormat::SmolLm3, "HuggingFaceTB-SmolLM3-3B", every),
    ] {
        let source = public.get(template).map(String::as_str).or(template.contains('{').then_some(template));
        let Some(source) = source else {
            // These may not be copied, and are compared where they are given.
            let elsewhere = ["LFM2-8B-A1B", "google-gemma-2-2b-it", "google-gemma-3-4b-it"];
            assert!(elsewhere.contains(&template), "{template} is no template");
            continue;
        };
        for conversation in conversations {
            let mut job = job(source);
            let message = |(role, text): &(Role, &str)| json!({ "role": role.name(), "content": text });
            job.messages = conversation.iter().map(message).collect();
            let common = json!({
                "tools": null, "add_generation_prompt": true, "bos_token": "", "eos_token": "</s>", "enable_thinking": false,
            });
            job.variables = common.as_object().unwrap().clone();
            if template == "Qwen-Qwen3-0.6B" {
                job.variables.remove("enable_thinking");
            }
            let turns: Vec<Turn<'_>> = conversation.iter().map(|(role, text)| Turn { role: *role, text }).collect();
            let mut text = String::new();
            format.write(&turns, &mut text).unwrap();
            assert_eq!(text, job.render().unwrap(), "{format:?}, {template}");
        }
    }
}
