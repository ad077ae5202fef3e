//! Token ids and bytes against those of llama.cpp, on hundreds of texts and twelve settings of vocabulary and pre-tokeniser.
//!
//! `tests/golden/NOTES.md` says how the pairs were made. The texts of SmolLM2's vocabulary need the model, which
//! `armlet pull` fetches; it is looked for where the program keeps it.

use std::path::Path;

use armlet::gguf::File;
use armlet::host::memory;
use armlet::storage::Arena;
use armlet::tokenizer::{EncodeOptions, Tokenizer};
use serde_json::Value;

/// (add_special, parse_special) in the order of the files.
const SETTINGS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// Compares every line of `golden` with what the vocabulary of `bytes` gives; returns how many lines there were.
fn compare(bytes: &[u8], golden: &Path) -> usize {
    let file = File::new_checked(bytes).unwrap();
    let mut dry = Arena::dry_run();
    Tokenizer::new(&file, &mut dry).unwrap();
    let mut index = memory(dry.used()).unwrap();
    let mut arena = Arena::new(&mut index).unwrap();
    let tokenizer = Tokenizer::new(&file, &mut arena).unwrap();
    assert_eq!(arena.used(), dry.used());

    let lines = std::fs::read_to_string(golden).unwrap();
    let mut wrong = Vec::new();
    for line in lines.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = case["text"].as_str().unwrap();
        let ids = |v: &Value| v.as_array().map(|a| a.iter().map(|i| i.as_u64().unwrap() as u32).collect::<Vec<_>>());
        let first = ids(&case["ids"][0]).unwrap();
        for (i, (add_special, parse_special)) in SETTINGS.into_iter().enumerate() {
            let want = ids(&case["ids"][i]).unwrap_or(first.clone());
            let got = encode(&tokenizer, text, EncodeOptions { add_special, parse_special, literal: &[] });
            if got != want {
                wrong.push(format!(
                    "{text:?} special {add_special}, parse {parse_special}\n  got  {got:?}\n  want {want:?}"
                ));
            }
        }
        let bytes: Vec<u8> = first.iter().flat_map(|t| tokenizer.piece(*t, true)).collect();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        if Some(hex.as_str()) != case["pieces_hex"].as_str() {
            wrong.push(format!("{text:?}: pieces {hex}, want {}", case["pieces_hex"]));
        }
    }
    let n = wrong.len();
    wrong.truncate(10);
    assert!(wrong.is_empty(), "{}: {n} differences\n{}", golden.display(), wrong.join("\n"));
    lines.lines().count()
}

fn encode(tokenizer: &Tokenizer<'_>, text: &str, options: EncodeOptions<'_>) -> Vec<u32> {
    let mut scratch = memory(tokenizer.scratch_bytes(text).unwrap()).unwrap();
    let mut out = vec![0; tokenizer.max_tokens(text.len())];
    let n = tokenizer.encode(text, options, &mut scratch, &mut out).unwrap();
    out.truncate(n);
    out
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The pre-tokenisers that every BPE vocabulary is tried with.
const PRE: [&str; 5] = ["smollm", "gpt-2", "llama-bpe", "qwen2", "default"];

#[test]
fn smollm2_vocabulary_with_every_pre_tokeniser() {
    let model = crate::common::map_smollm2();
    for pre in PRE {
        let header = crate::common::with_string(crate::common::header_of(&model), "tokenizer.ggml.pre", pre);
        assert!(compare(&header, &golden(&format!("{pre}.json"))) > 600);
    }
}

#[test]
fn a_vocabulary_of_odd_merges_with_every_pre_tokeniser() {
    let file = std::fs::read(golden("bpe.gguf")).unwrap();
    for pre in PRE {
        let file = crate::common::with_string(file.clone(), "tokenizer.ggml.pre", pre);
        assert!(compare(&file, &golden(&format!("bpe/{pre}.json"))) > 600);
    }
}

#[test]
fn sentence_piece_with_and_without_a_blank_in_front() {
    let file = std::fs::read(golden("spm.gguf")).unwrap();
    assert!(compare(&file, &golden("spm.json")) > 600);
    let file = crate::common::with_bool(file, "tokenizer.ggml.add_space_prefix", false);
    assert!(compare(&file, &golden("spm-noprefix.json")) > 600);
}

/// What a user wrote inside a chat template never becomes a control token, and encodes as it would alone.
#[test]
fn literal_text_makes_no_control_tokens() {
    let model = crate::common::map_smollm2();
    let file = File::new_checked(&model).unwrap();
    let mut dry = Arena::dry_run();
    Tokenizer::new(&file, &mut dry).unwrap();
    let mut index = memory(dry.used()).unwrap();
    let tokenizer = Tokenizer::new(&file, &mut Arena::new(&mut index).unwrap()).unwrap();
    let text = "<|im_start|>user\na<|im_end|>b<|im_end|>\n";
    let start = text.find('a').unwrap();
    let literal = start..start + "a<|im_end|>b".len();
    let literal = std::slice::from_ref(&literal);
    let options = EncodeOptions { add_special: false, parse_special: true, literal };
    let tokens = encode(&tokenizer, text, options);
    let end = tokenizer.find(b"<|im_end|>").unwrap();
    assert_eq!(tokens.iter().filter(|t| **t == end).count(), 1);
    let free = encode(&tokenizer, text, EncodeOptions { literal: &[], ..options });
    assert_eq!(free.iter().filter(|t| **t == end).count(), 2);
    let bytes: Vec<u8> = tokens.iter().flat_map(|t| tokenizer.piece(*t, true)).collect();
    assert_eq!(bytes, text.as_bytes());
}

/// A long word of one letter is merged in a time that does not explode: this would not end in hours if it were
/// quadratic in any step of several.
#[test]
fn long_runs_are_not_quadratic() {
    let model = crate::common::map_smollm2();
    let file = File::new_checked(&model).unwrap();
    let mut dry = Arena::dry_run();
    Tokenizer::new(&file, &mut dry).unwrap();
    let mut index = memory(dry.used()).unwrap();
    let tokenizer = Tokenizer::new(&file, &mut Arena::new(&mut index).unwrap()).unwrap();
    for unit in ["a", " ", "\n", "é", "漢", "9", "<|im_end|", "ab "] {
        let text = unit.repeat(crate::common::deep(2_000_000, 500_000) / unit.len());
        let tokens = encode(&tokenizer, &text, EncodeOptions::default());
        let bytes: usize = tokens.iter().map(|t| tokenizer.piece(*t, true).count()).sum();
        assert_eq!(bytes, text.len());
    }
}
