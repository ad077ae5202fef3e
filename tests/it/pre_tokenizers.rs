//! Every pre-tokeniser that a file may name, against llama.cpp: the words, and what the name says besides.
//!
//! `tests/golden/pretok/make.py` made the lists from llama.cpp's source and its own splitting function.

use std::path::Path;

use armlet::tokenizer::{EncodeOptions, PreTokenizer};
use serde_json::Value;

use crate::common::gguf::{Gguf, Val};
use crate::common::{untrusted, with_string};

/// Names that llama.cpp knows and armlet refuses: that of an encoder, whose vocabulary spells text neither in letters for bytes
/// nor with marks for blanks.
const REFUSED: [&str; 1] = ["whitespace"];

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pretok").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The texts of `make.py`: those of the golden ids, then random ones.
fn texts(recipe: &Value) -> Vec<String> {
    let lines =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/smollm.json")).unwrap();
    let text = |line: &str| String::from(serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap());
    let mut texts: Vec<String> = lines.lines().map(text).filter(|text| !text.is_empty()).collect();

    let mut state = recipe["seed"].as_u64().unwrap();
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % n
    };
    let alphabet: Vec<char> = recipe["alphabet"].as_str().unwrap().chars().collect();
    let chunks: Vec<&str> = recipe["chunks"].as_array().unwrap().iter().map(|chunk| chunk.as_str().unwrap()).collect();
    for _ in 0..recipe["texts"].as_u64().unwrap() {
        let mut text = String::new();
        for _ in 0..1 + below(24) {
            let kind = below(64);
            if kind < 16 {
                text += chunks[below(chunks.len())];
                continue;
            }
            let c = alphabet[below(alphabet.len())];
            let n = if kind == 63 && below(4) == 0 { 1 + below(700) } else { 1 };
            text.extend(std::iter::repeat_n(c, n));
        }
        texts.push(text);
    }
    texts
}

/// A step of FNV-1a.
fn fnv(h: u64, byte: u8) -> u64 {
    (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// The hash of the words of some texts, as `make.py` has it.
fn hash(pre: PreTokenizer, texts: &[String]) -> String {
    let hash = texts.iter().fold(0xcbf2_9ce4_8422_2325, |h, text| {
        let words = pre.words(text).fold(h, |h, word| fnv(word.bytes().fold(h, fnv), 0xff));
        fnv(words, 0xfe)
    });
    format!("{hash:016x}")
}

#[test]
fn words_are_those_of_llama_cpp() {
    let (names, recipe) = (golden("names.json"), golden("words.json"));
    let texts = texts(&recipe);
    let block = recipe["block"].as_u64().unwrap() as usize;
    assert!(texts.len() > 6700 && names.as_object().unwrap().len() > 90);
    let mut known = std::collections::BTreeMap::new();
    for (name, of) in names.as_object().unwrap() {
        let Some(pre) = PreTokenizer::from_name(name) else {
            assert!(REFUSED.contains(&name.as_str()), "{name} is not known");
            continue;
        };
        let group = of["group"].as_str().unwrap();
        // Names of one family are split once: the table of names has no words of its own.
        let hashes = known
            .entry(format!("{pre:?}"))
            .or_insert_with(|| -> Vec<String> { texts.chunks(block).map(|texts| hash(pre, texts)).collect() });
        let wanted: Vec<&str> =
            recipe["hashes"][group].as_array().unwrap().iter().map(|h| h.as_str().unwrap()).collect();
        let wrong: Vec<usize> =
            (0..wanted.len()).filter(|i| hashes.get(*i).map(String::as_str) != Some(wanted[*i])).collect();
        assert!(
            wrong.is_empty(),
            "{name}: the words of blocks {wrong:?} differ; make.py --words {group} FIRST COUNT prints them"
        );
        assert_eq!(hashes.len(), wanted.len());
    }
}

/// The hash of the ids of some texts, as `ids.py` has it.
fn hash_ids(file: &[u8], texts: &[String]) -> String {
    untrusted::with_tokenizer(file, |t| {
        let mut h = 0xcbf2_9ce4_8422_2325;
        for special in [false, true] {
            let options = EncodeOptions { add_special: special, parse_special: special, literal: &[] };
            for text in texts {
                let ids = untrusted::encode(t, text, options);
                h = ids.into_iter().chain([u32::MAX]).flat_map(u32::to_le_bytes).fold(h, fnv);
            }
        }
        format!("{h:016x}")
    })
}

#[test]
fn ids_are_those_of_llama_cpp() {
    let file =
        |name: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap();
    let (bpe, mut texts, wanted) = (file("bpe.gguf"), texts(&golden("words.json")), golden("ids.json"));
    // As many as `ids.py` takes.
    texts.truncate(1723);
    for (name, wanted) in wanted.as_object().unwrap() {
        let file =
            if name == "gemma4.gguf" { file(name) } else { with_string(bpe.clone(), "tokenizer.ggml.pre", name) };
        assert_eq!(hash_ids(&file, &texts), wanted.as_str().unwrap(), "{name}");
    }
    assert_eq!(wanted.as_object().unwrap().len(), golden("names.json").as_object().unwrap().len() - REFUSED.len() + 1);
}

#[test]
fn names_say_whether_there_is_a_bos_and_whether_words_come_whole() {
    for (name, of) in golden("names.json").as_object().unwrap() {
        if REFUSED.contains(&name.as_str()) {
            continue;
        }
        // "ab" is a token that no merge makes. Token 11 is the BOS that llama.cpp assumes.
        let mut tokens: Vec<String> = ('a'..='l').map(String::from).collect();
        tokens.extend(["ab".into(), "Ċ".into(), "\n".into(), "ĊĊ".into(), "\n\n".into()]);
        let mut g = Gguf::default();
        g.set("tokenizer.ggml.model", Val::Str("gpt2".into())).set("tokenizer.ggml.pre", Val::Str(name.clone()));
        g.set("tokenizer.ggml.tokens", Val::Strs(tokens)).set("tokenizer.ggml.merges", Val::Strs(vec![]));
        let flag = |key: &str| of[key].as_bool().unwrap();
        untrusted::with_tokenizer(&g.build(), |t| {
            assert_eq!(t.bos(), if flag("no_bos") { None } else { Some(11) }, "{name}");
            assert_eq!(t.adds_bos(), flag("add_bos") && !flag("no_bos"), "{name}");
            assert_eq!(untrusted::text(t, "ab"), if flag("ignore_merges") { vec![12] } else { vec![0, 1] }, "{name}");
            let feeds = match of["group"].as_str().unwrap() {
                // In characters, and two at once.
                "GEMMA4" => vec![16],
                "SARVAM_MOE" => vec![14; 2],
                _ if flag("ignore_merges") => vec![15],
                _ => vec![13; 2],
            };
            assert_eq!(untrusted::text(t, "\n\n"), feeds, "{name}");
        });
    }
}
