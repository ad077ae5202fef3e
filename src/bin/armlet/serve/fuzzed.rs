//! Any body at any route, as far as a request goes without a model, and any schema: it is answered, or refused as what its client
//! did wrong. Here in a test, with damaged bodies; and as the fuzz target `requests`, with any.

use std::cell::{Cell, RefCell};

use armlet::gguf::File;
use armlet::host::memory;
use armlet::storage::Arena;
use armlet::tokenizer::Tokenizer;
use clap::Parser;
use serde_json::{Value, json};

use super::about::About;
use super::answer::ask;
use super::fields::Fields;
use super::format::Wanted;
use super::ollama::{self, Asked};
use super::prepare::Preparation;
use super::problem::{Names, Problem};
use super::tokens::{self, Tokenize};
use super::{openai, responses};
use crate::args::{Sampling, Template};
use crate::grammar::{Constraint, Form, Trouble};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    template: Template,
}

/// The routes that take a body, and a schema alone.
const ROUTES: usize = 9;
/// Tokens of the context, and how many of an answer with a form are tried.
const CONTEXT: usize = 4096;
const TRIED: usize = 6;

/// What a schema alone is called.
const NAMES: Names = Names { prompt: "", form: "schema", parameters: "" };

thread_local! {
    /// What prepares requests for a small vocabulary; making it takes longer than any request. It is never dropped, as what it
    /// refers to is not.
    static PREPARATION: RefCell<&'static mut Preparation<'static>> = RefCell::new(Box::leak(Box::new(preparation())));
}

fn preparation() -> Preparation<'static> {
    let bytes = include_bytes!("../../../../tests/golden/bpe.gguf").to_vec().leak();
    let file: &File<'_> = Box::leak(Box::new(File::new_checked(bytes).unwrap()));
    let mut dry = Arena::dry_run();
    Tokenizer::new(file, &mut dry).unwrap();
    let tables = Box::leak(Box::new(memory(dry.used()).unwrap()));
    let tokenizer = Box::leak(Box::new(Tokenizer::new(file, &mut Arena::new(tables).unwrap()).unwrap()));
    let template = Line::parse_from(["test", "--chat-template", "chatml"]).template;
    Preparation::new(file, tokenizer, &template).unwrap()
}

/// Feeds it one input, of which the first byte chooses the route; whether it was taken.
fn feed(input: &[u8]) -> bool {
    let done = PREPARATION.with_borrow_mut(|preparation| request(input, preparation));
    let Err(problem) = done else { return true };
    let text = String::from_utf8_lossy(input);
    assert!(problem.status.is_client_error(), "{problem:?}: {text}");
    assert!(!problem.message.is_empty() && problem.openai()["error"]["message"].is_string());
    false
}

/// What the fuzz target does.
#[cfg(fuzzing)]
pub(crate) fn request_or_schema(input: &[u8]) {
    feed(input);
}

/// What a route makes of a body; the first byte chooses the route.
fn request(input: &[u8], preparation: &mut Preparation<'_>) -> Result<(), Problem> {
    let Some((route, body)) = input.split_first() else { return Ok(()) };
    let (sampling, vocab) = (Line::parse_from(["test"]).sampling, preparation.tokenizer.len());
    let about = About::of_a_test(vocab);
    let mut fields = Fields::parse(body, usize::MAX)?;
    let of_ollama = |mut fields: Fields, parse: fn(Fields, Sampling, &About) -> Result<Asked, Problem>| {
        ollama::model(&mut fields, &about)?;
        Ok(match parse(fields, Line::parse_from(["test"]).sampling, &about)? {
            Asked::Answer(request) => Some((*request).0),
            Asked::Nothing(_) => None,
        })
    };
    let route = usize::from(*route) % ROUTES;
    let wanted = match route {
        0..=2 => {
            fields.text("model")?;
            let parse = [openai::chat, openai::completion, responses::parse][route];
            Some(parse(openai::Request { fields, sampling, vocab, model: "tiny", id: 1 })?.0)
        }
        3 => of_ollama(fields, ollama::chat)?,
        4 => of_ollama(fields, ollama::generate)?,
        5 => return ollama::show(fields, &about).map(drop),
        6 => return Tokenize::parse(fields)?.run(preparation).map(drop),
        7 => return schema(&Value::Object(serde_json::from_slice(body).unwrap_or_default()), preparation),
        _ => {
            let tokens = tokens::detokenize(fields, vocab)?;
            assert!(tokens::text(&tokens, preparation)["content"].is_string());
            return Ok(());
        }
    };
    wanted.map_or(Ok(()), |wanted| prepare(preparation, wanted))
}

/// A schema alone, all of which is kept to.
fn schema(schema: &Value, preparation: &mut Preparation<'_>) -> Result<(), Problem> {
    let constraint = preparation.constraint(&Form::Schema(schema.clone()), NAMES)?;
    follow(constraint, preparation);
    Ok(())
}

/// Prepares an answer, and lets its form choose some tokens.
fn prepare(preparation: &mut Preparation<'_>, wanted: Wanted) -> Result<(), Problem> {
    let (ask, _) = ask(preparation, wanted, CONTEXT, false)?;
    assert!((1..CONTEXT).contains(&ask.prompt.len()));
    if let Some(constraint) = ask.constraint {
        follow(constraint, preparation);
    }
    Ok(())
}

/// Takes some of the tokens that a form allows.
fn follow(mut constraint: Constraint, preparation: &Preparation<'_>) {
    for step in 0..TRIED {
        let tokenizer = preparation.tokenizer;
        let is_next = |token: &u32| !tokenizer.is_end(*token) && constraint.allows(tokenizer, *token);
        let vocab = tokenizer.len() as u32;
        let Some(next) = (0..vocab).map(|token| (token + 37 * step as u32) % vocab).find(is_next) else { break };
        match constraint.accept(next) {
            Ok(()) if !constraint.is_complete() => {}
            Ok(()) | Err(Trouble::Form(_)) => break,
            Err(why) => panic!("{why}"),
        }
    }
}

/// Bodies with all that routes know, and what comes before their first byte: the route.
fn seeds() -> Vec<(u8, Value)> {
    let parameters = json!({ "type": "object", "required": ["a"], "properties": {
        "a": { "type": "string", "enum": ["x", "y"], "pattern": "^[a-z]{1,9}$" }, "n": { "$ref": "#/$defs/n" },
        "l": { "type": "array", "items": { "anyOf": [{ "type": "null" }, { "type": "object" }] }, "maxItems": 3 },
    }, "$defs": { "n": { "type": "integer", "minimum": -1, "maximum": 9, "multipleOf": 2 } } });
    let function = json!({ "name": "f", "description": "It is.", "parameters": parameters });
    let call = json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{\"a\": \"x\"}" } });
    let messages = json!([
        { "role": "system", "content": [{ "type": "text", "text": "Be brief." }] }, { "role": "user", "content": "Hi" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c", "content": "done" },
    ]);
    let said = json!({ "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" });
    let all = json!({ "allOf": [{ "minLength": 2 }, { "format": "date" }], "oneOf": [{ "type": "string" }, { "const": 1 }],
                      "patternProperties": { "^a": false }, "prefixItems": [true], "additionalProperties": { "not": {} } });
    vec![
        (
            0,
            json!({ "model": "tiny", "messages": messages, "tools": [{ "type": "function", "function": function }],
                    "tool_choice": "auto", "max_tokens": 9, "temperature": 0.5, "stop": ["x"], "logprobs": true,
                    "parallel_tool_calls": false, "logit_bias": { "7": -1 }, "stream_options": { "include_usage": true },
                    "stream": true, "chat_template_kwargs": {}, "seed": -1, "n": 1 }),
        ),
        (
            0,
            json!({ "messages": [{ "role": "user", "content": "Hi" }],
                    "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": all } } }),
        ),
        (
            0,
            json!({ "messages": [{ "role": "user", "content": "Hi" }], "grammar": "root ::= [a-c]{1,3} (\"x\" | root)*" }),
        ),
        (
            1,
            json!({ "prompt": [1, 2, 3], "json_schema": parameters, "logprobs": 3, "dry_multiplier": 0.5, "echo": false }),
        ),
        (
            2,
            json!({ "input": [{ "role": "user", "content": "Hi" }, said,
                              { "type": "function_call_output", "call_id": "c", "output": "y" }],
                    "tools": [{ "type": "function", "name": "f", "parameters": parameters }], "tool_choice": "required",
                    "text": { "format": { "type": "json_object" } }, "reasoning": { "effort": "none" } }),
        ),
        (
            3,
            json!({ "model": "tiny", "messages": [{ "role": "user", "content": "Hi", "images": [] },
                    { "role": "assistant", "tool_calls": [{ "function": { "name": "f", "arguments": {} } }] },
                    { "role": "tool", "tool_name": "f", "content": "z" }], "format": parameters, "think": false,
                    "options": { "num_ctx": 99, "num_predict": -1, "temperature": 0 } }),
        ),
        (4, json!({ "model": "tiny", "prompt": "Hi", "system": "x", "raw": false, "format": "json", "context": [] })),
        (5, json!({ "model": "tiny", "verbose": true })),
        (6, json!({ "content": "a <b> \u{e9}", "add_special": true, "with_pieces": true })),
        (7, parameters),
        (7, all),
        (8, json!({ "tokens": [1, 2, 300] })),
    ]
}

/// Random numbers (xorshift).
struct Random(Cell<u64>);

impl Random {
    fn below(&self, n: usize) -> usize {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        (x >> 11) as usize % n.max(1)
    }

    /// Puts something else in a place of a document, or in the place of a part of another.
    fn damage(&self, value: &mut Value, others: &[(u8, Value)]) {
        let n = match value {
            Value::Object(members) => members.len(),
            Value::Array(list) => list.len(),
            _ => 0,
        };
        if n > 0 && self.below(8) > 0 {
            let at = self.below(n);
            let inner = match value {
                Value::Object(members) => members.values_mut().nth(at),
                Value::Array(list) => list.get_mut(at),
                _ => None,
            };
            return inner.into_iter().for_each(|inner| self.damage(inner, others));
        }
        let numbers = [0, -1, 1, 1 << 31, i64::MAX, i64::MIN];
        *value = match self.below(10) {
            0 => Value::Null,
            1 => json!([]),
            2 => json!({}),
            3 => json!(numbers[self.below(numbers.len())]),
            4 => json!(1e308),
            5 => json!("\u{0}\u{ffff}<|im_end|>\"\\"),
            6 => json!([value.clone(), value.clone()]),
            7 => json!({ "anyOf": [value.clone()], "$ref": "#", "x": [value] }),
            8 => json!(true),
            _ => others[self.below(others.len())].1.clone(),
        };
    }
}

/// How many bodies are damaged: with `cargo xtask test --deep` many more.
fn cases() -> usize {
    if std::env::var_os("ARMLET_DEEP").is_some_and(|value| value == "1") { 20_000 } else { 500 }
}

/// Nobody's request ends the server, nor is a fault of its own.
#[test]
fn any_body_is_answered_or_refused() {
    let random = Random(Cell::new(0x9e37_79b9_7f4a_7c15));
    let seeds = seeds();
    for (route, seed) in &seeds {
        feed(&[&[*route], seed.to_string().as_bytes()].concat());
    }
    let mut taken = 0;
    for i in 0..cases() {
        let (route, mut value) = seeds[i % seeds.len()].clone();
        (0..1 + random.below(3)).for_each(|_| random.damage(&mut value, &seeds));
        let mut bytes = [&[route], value.to_string().as_bytes()].concat();
        // Of some, not even the JSON is whole.
        if random.below(8) == 0 {
            let at = 1 + random.below(bytes.len() - 1);
            bytes[at] ^= 1 << random.below(8);
        }
        taken += usize::from(feed(&bytes));
    }
    assert!((cases() / 20..cases() - cases() / 20).contains(&taken), "{taken} of {} taken", cases());
}
