//! `cargo xtask answers`: what it costs to keep an answer to a schema, and what drafts gain: ratios of tokens per second.
//!
//! Both commands of a pair run in turn, so that what else the machine does meets both.

use serde_json::{Value, json};

use crate::model::{native, shipped};
use crate::process::{Failed, Steps, output, record, say};
use crate::setup;

/// How often a pair runs.
const ROUNDS: usize = 9;

const ABOUT: &str = "\
SmolLM2-135M Q4_1, `--temp 0`, two threads. Ratios of tokens per second of an answer, of two commands that ran in turn nine times:
the median, the least and the most.

| answer | asked | median | least | most | tokens |
|---|---|---:|---:|---:|---:|
";

/// Two commands, and what their ratio is to be.
struct Pair {
    name: &'static str,
    asked: &'static str,
    /// Of both.
    common: Vec<String>,
    /// Of the one that others are compared with, and of the other.
    options: [Vec<String>; 2],
    /// Both write the same.
    is_same: bool,
}

/// # Errors
/// What could not be run, or two answers that had to be the same.
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    setup::program(steps)?;
    let model = shipped()?.display().to_string();
    let mut text = String::from(ABOUT);
    for pair in pairs() {
        steps.step(pair.name, || {
            let row = measure(&model, &pair)?;
            say(format!("    {row}"));
            text += &format!("| {} | {} | {row} |\n", pair.name, pair.asked);
            Ok(())
        })?;
    }
    record("answers", "Schemas and drafts", "`release`", &text)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn pairs() -> Vec<Pair> {
    let masked = |name, asked, schema: Value| Pair {
        name,
        asked,
        common: words(&["complete", "-p", "Describe a person in JSON. ", "-n", "150", "--speculate", "off"]),
        options: [vec![], words(&["--json-schema", &schema.to_string()])],
        is_same: false,
    };
    let drafted = |name, asked, text: &str, n: &str| Pair {
        name,
        asked,
        common: words(&["chat", "-p", text, "-n", n]),
        options: [words(&["--speculate", "off"]), words(&["--speculate", "auto"])],
        is_same: true,
    };
    let person = json!({ "name": { "type": "string" }, "age": { "type": "integer" },
                         "tags": { "type": "array", "items": { "type": "string" } } });
    vec![
        masked("with a schema of 3 fields", "≥ 0.95", object(person)),
        masked("with a schema of 50 fields", "≥ 0.85", object(fifty())),
        drafted("drafts: a JSON text with one change", "≥ 1.5", &edit(), "200"),
        drafted(
            "drafts: prose",
            "≥ 0.98",
            "Write a long story about a keeper of a lighthouse who finds a letter.",
            "200",
        ),
    ]
}

fn object(properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(|p| p.keys()).collect();
    json!({ "type": "object", "required": required, "additionalProperties": false, "properties": properties })
}

/// Fields of five kinds.
fn fifty() -> Value {
    let field = |i: usize| match i % 5 {
        0 => json!({ "type": "string", "maxLength": 20 }),
        1 => json!({ "type": "integer", "minimum": 0, "maximum": 1000 }),
        2 => json!({ "type": "boolean" }),
        3 => json!({ "enum": ["red", "green", "blue"] }),
        _ => json!({ "type": "array", "items": { "type": "number" }, "maxItems": 3 }),
    };
    (0..50).map(|i| (format!("field_{i}"), field(i))).collect::<serde_json::Map<_, _>>().into()
}

/// A text that an answer repeats, but for a number.
fn edit() -> String {
    let names = ["apple", "pear", "plum", "fig", "kiwi", "melon", "grape", "lemon"];
    let item =
        |(i, name): (usize, &&str)| json!({ "id": i, "name": name, "price": 1.25 + i as f64, "stock": 10 + 3 * i });
    let items: Vec<Value> = names.iter().enumerate().map(item).collect();
    let items = serde_json::to_string_pretty(&items).unwrap_or_default();
    format!(
        "Change the price of pear to 9.99 in this JSON, and write the whole JSON again, with no other change:\n{items}"
    )
}

/// A row of the table.
fn measure(model: &str, pair: &Pair) -> Result<String, Failed> {
    let mut ratios = Vec::new();
    let mut tokens = 0;
    for round in 0..ROUNDS {
        let mut rates = [0.0; 2];
        let mut texts = [Value::Null, Value::Null];
        // The first is not always the first.
        for i in [round % 2, 1 - round % 2] {
            (texts[i], tokens, rates[i]) = answer(model, pair, i)?;
        }
        if pair.is_same && texts[0] != texts[1] {
            return Err(Failed(format!("{}: {} is not {}", pair.name, texts[0], texts[1])));
        }
        ratios.push(rates[1] / rates[0]);
    }
    ratios.sort_by(f64::total_cmp);
    let [least, most] = [ratios.first(), ratios.last()].map(|r| r.copied().unwrap_or(f64::NAN));
    Ok(format!("{:.2} | {least:.2} | {most:.2} | {tokens}", ratios[ROUNDS / 2]))
}

/// The text of one command, its tokens, and how many of them a second.
fn answer(model: &str, pair: &Pair, i: usize) -> Result<(Value, u64, f64), Failed> {
    let mut command = native();
    command.args(&pair.common).args(&pair.options[i]).args(["-m", model, "-t", "2", "--temp", "0", "--json"]);
    let text = output(&mut command)?;
    let last = text.lines().last().unwrap_or_default();
    let end: Value = serde_json::from_str(last).map_err(|e| Failed(format!("{last}: {e}")))?;
    let timings = &end["timings"];
    match (timings["predicted_n"].as_u64(), timings["predicted_ms"].as_f64()) {
        (Some(n), Some(ms)) if ms > 0.0 => Ok((end["text"].clone(), n, n as f64 / ms)),
        _ => Err(Failed(format!("{last} has no timings"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked() {
        assert_eq!(object(fifty())["required"].as_array().map(Vec::len), Some(50));
        assert_eq!(edit().matches("\"price\"").count(), 8);
        assert!(pairs().iter().all(|pair| pair.options[0] != pair.options[1]));
    }
}
