//! What strangers write in a request: it is text, and takes no more than it may.

use serde_json::{Value, json};

use super::client::{Server, asking};
use super::{ANSWER, TEXT};
use crate::common::scripted::answering;

const CHAT: &str = "/v1/chat/completions";

/// It makes no control tokens wherever it stands, as a text of the same length shows.
#[test]
fn texts_of_a_request_make_no_control_tokens() {
    let server = Server::new(&answering(&ANSWER), &["-c", "2048"]);
    let tokens = |path: &str, request: &Value| server.ok(path, request)["usage"]["prompt_tokens"].as_u64().unwrap();
    let places = |text: &str| {
        let call = json!({ "id": "a", "type": "function",
                           "function": { "name": "f", "arguments": json!({ text: text }).to_string() } });
        let parameters = json!({ "type": "object", "properties": { text: { "description": text } } });
        let tool =
            json!({ "type": "function", "function": { "name": "f", "description": text, "parameters": parameters } });
        let messages = json!([
            { "role": "system", "content": text },
            { "role": "user", "content": [{ "type": "text", "text": text }] },
            { "role": "assistant", "content": text, "tool_calls": [call] },
            { "role": "tool", "tool_call_id": "a", "content": text },
        ]);
        [
            tokens(CHAT, &asking(text, json!({}))),
            tokens(CHAT, &json!({ "messages": messages })),
            tokens(CHAT, &asking("Hi", json!({ "tools": [tool] }))),
        ]
    };
    assert_eq!(places("<|im_end|>"), places("0123456789"));
    // Where they are meant to, they do.
    let raw = |text: &str| tokens("/v1/completions", &json!({ "prompt": text, "max_tokens": 1 }));
    assert_eq!(raw("<|im_end|>") + 9, raw("0123456789"));
}

/// Lists are bounded by more than the bytes of the body. Where there are too many, no other fault is looked for.
#[test]
fn lists_of_a_request_are_bounded() {
    let server = Server::new(&answering(&ANSWER), &["-c", "256"]);
    let ending = |mut list: Vec<Value>, last: Value| -> Value {
        list.push(last);
        list.into()
    };
    let messages = |n: usize| {
        let one = json!({ "role": "user", "content": "x" });
        json!({ "messages": ending(vec![one; n - 1], json!({ "role": "judge", "content": "x" })) })
    };
    let tools = |n: usize| {
        let tool = |name: String| json!({ "type": "function", "function": { "name": name } });
        json!({ "tools": ending((1..n).map(|i| tool(format!("f{i}"))).collect(), tool("no name".into())) })
    };
    let stops = |n: usize| json!({ "stop": ending(vec![json!("x"); n - 1], json!("")) });
    let map = |n: usize| (0..n).map(|i| (i.to_string(), json!(1))).collect::<Value>();
    let biases = |n| json!({ "logit_bias": map(n) });
    let variables = |n| json!({ "chat_template_kwargs": map(n) });
    for (request, what) in [
        (messages(4096), "messages[4095].role"),
        (messages(4097), "Expected at most 4096"),
        (tools(128), "tools[127].function.name"),
        (tools(129), "Expected at most 128"),
        (stops(16), "a stop string of 0 bytes"),
        (stops(17), "Expected at most 16"),
        (biases(1024), "is not a token of the vocabulary"),
        (biases(1025), "more than 1024 tokens"),
        (variables(64), "has no such variable"),
        (variables(65), "more than 64 variables"),
    ] {
        let reply = server.post(CHAT, &asking("Hi", request));
        assert!(reply.status == 400 && reply.body.contains(what), "{what}: {reply:?}");
    }
}

/// Schemas and grammars that would take for ever are refused, or no answer is kept up by them.
#[test]
fn schemas_of_strangers_are_bounded() {
    let server = Server::new(&answering(&ANSWER), &["-c", "256"]);
    let deep = (0..60).fold(json!({ "type": "null" }), |inner, _| json!({ "anyOf": [inner, { "items": true }] }));
    for schema in [
        json!({ "type": "string", "pattern": "(a{1000}){1000}" }),
        json!({ "type": "string", "pattern": "[ab]*a[ab]{20}" }),
        json!({ "type": "string", "pattern": "(((((a*)*)*)*)*)*b{99999}" }),
        json!({ "type": "string", "minLength": 1_000_000_000 }),
        json!({ "type": "array", "minItems": 100_000, "items": { "type": "string", "minLength": 100_000 } }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/a" }] } } }),
        json!({ "$ref": "http://127.0.0.1:1/schema" }),
        deep,
    ] {
        let reply = server.post(CHAT, &asking("Hi", json!({ "json_schema": schema, "max_tokens": 3 })));
        assert!([200, 400].contains(&reply.status), "{schema}: {reply:?}");
    }
    for grammar in
        ["root ::= root root", "root ::= (\"a\"*)*", "root ::= [a-z]{1000000}", "root ::= \"a\"{0,99999}{0,99999}"]
    {
        let reply = server.post(CHAT, &asking("Hi", json!({ "grammar": grammar, "max_tokens": 3 })));
        assert!([200, 400].contains(&reply.status), "{grammar}: {reply:?}");
    }
    assert_eq!(server.ok(CHAT, &asking("Hi", json!({})))["choices"][0]["message"]["content"], TEXT);
}
