//! Structured output: what a schema or a grammar allows is all that an answer can be.

use crate::cli::{Folder, armlet, fails_with, ok, stderr};
use crate::common::deep;
use crate::common::gguf::{byte_level_model, noise};
use serde_json::{Value, json};

/// A random model's answer within a form; none if it is cut off, which must be said.
fn answer(model: &str, form: &[&str], seed: usize) -> Option<String> {
    let seed = seed.to_string();
    let options = ["-p", "A", "-n", "500", "--temp", "1", "--top-k", "0", "--seed", &seed, "-t", "1"];
    let output = armlet().args(["complete", "-m", model]).args(options).args(form).output().unwrap();
    match output.status.code() {
        Some(0) => String::from_utf8(output.stdout).unwrap().strip_suffix('\n').map(String::from),
        _ => {
            assert!(
                stderr(&output).contains("not a whole document of its grammar: stopped after 500 tokens"),
                "{output:?}"
            );
            None
        }
    }
}

/// Numbers from 0 to a bound, by a seed.
pub(crate) struct Dice(std::vec::IntoIter<f32>);

impl Dice {
    pub(crate) fn new(numbers: Vec<f32>) -> Self {
        Dice(numbers.into_iter())
    }

    fn below(&mut self, n: usize) -> usize {
        let x = self.0.next().unwrap_or(0.0);
        (((x + 1.0) / 2.0 * n as f32) as usize).min(n - 1)
    }
}

/// A schema of moderate size.
pub(crate) fn schema(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth == 0 { 6 } else { 9 }) {
        0 => json!({ "type": "integer", "minimum": -20, "maximum": dice.below(1000) }),
        1 => json!({ "type": "boolean" }),
        2 => json!({ "enum": ["red", "gr\u{fc}n", 7, null, { "a": [1, "\""] }] }),
        3 => json!({ "type": "string", "maxLength": dice.below(12), "minLength": 0 }),
        4 => json!({ "type": "string", "pattern": "^[a-c]{2,5}-[0-9]$" }),
        5 => json!({ "const": "it is \\ so" }),
        6 => json!({ "type": "array", "items": schema(dice, depth - 1), "minItems": 1, "maxItems": 1 + dice.below(3) }),
        7 => json!({ "anyOf": [schema(dice, depth - 1), { "type": "null" }] }),
        _ => {
            let names: Vec<String> = (0..1 + dice.below(4)).map(|i| format!("field \"{i}\"")).collect();
            let properties: serde_json::Map<_, _> =
                names.iter().map(|n| (n.clone(), schema(dice, depth - 1))).collect();
            let required = &names[..dice.below(names.len() + 1)];
            json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
        }
    }
}

/// Whether a document is of a schema, of those that [`schema`] makes.
pub(crate) fn is_valid(schema: &Value, document: &Value) -> bool {
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().any(|schema| is_valid(schema, document));
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.contains(document);
    }
    let within = |n: usize, least: &str, most: &str| {
        let bound = |key: &str| schema[key].as_u64().map(|n| n as usize);
        bound(least).is_none_or(|least| n >= least) && bound(most).is_none_or(|most| n <= most)
    };
    match schema["type"].as_str() {
        None => schema["const"] == *document,
        Some("integer") => {
            // -0 is an integer, too.
            let bounds = -20.0..=schema["maximum"].as_f64().unwrap();
            document.as_f64().is_some_and(|n| n.fract() == 0.0 && bounds.contains(&n))
        }
        Some("boolean") => document.is_boolean(),
        Some("null") => document.is_null(),
        Some("string") => document.as_str().is_some_and(|text| match schema["pattern"].is_string() {
            true => {
                let (letters, digit) = text.split_once('-').unwrap_or_default();
                (2..=5).contains(&letters.len())
                    && letters.bytes().all(|b| (b'a'..=b'c').contains(&b))
                    && digit.len() == 1
                    && digit.as_bytes()[0].is_ascii_digit()
            }
            false => within(text.chars().count(), "minLength", "maxLength"),
        }),
        Some("array") => document.as_array().is_some_and(|items| {
            within(items.len(), "minItems", "maxItems") && items.iter().all(|item| is_valid(&schema["items"], item))
        }),
        _ => document.as_object().is_some_and(|object| {
            let properties = schema["properties"].as_object().unwrap();
            let required = schema["required"].as_array().unwrap();
            required.iter().all(|name| object.contains_key(name.as_str().unwrap()))
                && object.iter().all(|(name, value)| properties.get(name).is_some_and(|schema| is_valid(schema, value)))
        }),
    }
}

#[test]
fn documents_are_of_their_schema() {
    let f = Folder::new();
    let model = f.write("model.gguf", &byte_level_model(3));
    let (n, mut whole) = (deep(1000, 24), 0);
    for i in 0..n {
        let mut dice = Dice::new(noise(i as u64, 400));
        let schema = schema(&mut dice, 3);
        let file = f.write("schema.json", schema.to_string().as_bytes());
        let Some(text) = answer(&model, &["--json-schema", &file], i) else { continue };
        let document = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{schema}: {text}: {e}"));
        assert!(is_valid(&schema, &document), "{schema}: {text}");
        whole += 1;
    }
    assert!(whole * 10 >= n * 9, "{whole} of {n}");
}

#[test]
fn texts_are_of_their_grammar() {
    let f = Folder::new();
    let model = f.write("model.gguf", &byte_level_model(3));
    let gbnf = "root ::= pair (\", \" pair){1,2} tail? # as in llama.cpp\npair ::= [a-c]+ \"=\" (\"ab\" | \"a\" \"bc\" | [^a-z\\u00e9=,\\n])\n\
                tail ::= \"\\u00e9\" .\n";
    let file = f.write("pairs.gbnf", gbnf.as_bytes());
    for seed in 0..deep(200, 8) {
        let text = answer(&model, &["--grammar", &file], seed).unwrap();
        let (pairs, tail) = text.split_once('\u{e9}').unwrap_or((&text, "x"));
        let is_value = |value: &str| match value.len() {
            0..=4 if value.chars().count() == 1 => !value.contains(|c: char| c.is_ascii_lowercase() || c == '\n'),
            _ => ["ab", "abc"].contains(&value),
        };
        let is_pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or_default();
            !name.is_empty() && name.bytes().all(|b| (b'a'..=b'c').contains(&b)) && is_value(value)
        };
        assert!(tail.chars().count() == 1 && pairs.split(", ").all(is_pair), "{text:?}");
        assert!((2..=3).contains(&pairs.split(", ").count()), "{text:?}");
    }
    // Names that Lark does not have.
    for (grammar, answer) in [
        ("root ::= \"yes\"", "yes\n"),
        ("root ::= Item-1 item_1\nItem-1 ::= \"A\"\nitem_1 ::= \"b\"{2} \"c\"{0}", "Abb\n"),
    ] {
        assert_eq!(ok(&["complete", "-m", &model, "-p", "A", "--temp", "0", "--grammar", grammar]), answer);
    }
}

#[test]
fn what_no_answer_can_be_is_said() {
    let f = Folder::new();
    let model = f.write("model.gguf", &byte_level_model(3));
    for (option, form, what) in [
        ("--json-schema", "{\"type\": \"strange\"}", "strange"),
        ("--json-schema", "{", "--json-schema: "),
        ("--json-schema", "there/is/no/file", "there/is/no/file"),
        ("--json-schema", "{\"type\": \"integer\", \"minimum\": 3, \"maximum\": 2}", "--json-schema: "),
        ("--grammar", "root ::= other", "--grammar: there is no rule other"),
        ("--grammar", "root ::= root", "--grammar: "),
    ] {
        fails_with(&["complete", "-m", &model, "-p", "A", option, form], 1, what);
    }
    // Within the answer, too.
    let rules: String = (0..1000).map(|i| format!("r{i} ::= r{i} r{i} | [xy]\n")).collect();
    let all: Vec<String> = (0..1000).map(|i| format!("r{i}")).collect();
    let many = format!("root ::= {}\n{rules}", all.join(" | "));
    let options = ["complete", "-m", &model, "-p", "A", "-n", "400", "--ignore-eos", "--grammar", &many];
    let broken = armlet().args(options).output().unwrap();
    let said = stderr(&broken);
    assert!(broken.status.code() == Some(1) && !broken.stdout.is_empty(), "{said}");
    assert!(said.lines().last().unwrap().starts_with("armlet: the grammar: it has more than "), "{said}");
    let form = "{\"const\": \"a long text that goes on\"}";
    let cut = armlet().args(["complete", "-m", &model, "-p", "A", "-n", "3", "--json-schema", form]).output().unwrap();
    let what = "not a whole document of its grammar: stopped after 3 tokens";
    assert!(cut.status.code() == Some(1) && stderr(&cut).contains(what), "{}", stderr(&cut));
}
