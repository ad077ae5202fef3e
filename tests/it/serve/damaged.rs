//! Bodies that are damaged: each gets an answer or an error in its API's form, and the server goes on.

use serde_json::json;

use super::client::{Server, asking};
use super::{ANSWER, TEXT};
use crate::common::deep;
use crate::common::scripted::answering;
use crate::fuzz::Random;

#[test]
fn damaged_bodies_are_answered_or_refused() {
    let server = Server::new(&answering(&ANSWER), &["-c", "1024"]);
    let parameters = json!({ "type": "object", "required": ["a"], "properties": {
        "a": { "type": "string", "enum": ["x", "y"], "pattern": "^[a-z]{1,9}$" }, "n": { "$ref": "#/$defs/n" },
        "l": { "type": "array", "items": { "anyOf": [{ "type": "null" }, { "type": "object" }] }, "maxItems": 3 },
    }, "$defs": { "n": { "type": "integer", "minimum": -1, "maximum": 9 } } });
    let tool =
        json!({ "type": "function", "function": { "name": "f", "description": "It is.", "parameters": parameters } });
    let call = json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{\"a\": \"x\"}" } });
    let messages = json!([
        { "role": "system", "content": [{ "type": "text", "text": "Be brief." }] },
        { "role": "user", "content": "Hi" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c", "content": "done" },
    ]);
    let chat = json!({ "model": "tiny", "messages": messages, "tools": [tool], "tool_choice": "auto", "max_tokens": 9,
                       "temperature": 0.5, "stop": ["x"], "parallel_tool_calls": false, "logprobs": true, "stream": false });
    let form = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": parameters } });
    let flat = json!({ "type": "function", "name": "f", "parameters": parameters });
    let said = json!({ "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" });
    let input = json!([{ "role": "user", "content": "Hi" }, said, { "type": "function_call_output", "call_id": "c", "output": "y" }]);
    let ollama = json!([{ "role": "user", "content": "Hi" }, { "role": "assistant", "tool_calls": [{ "function": { "name": "f", "arguments": {} } }] },
                        { "role": "tool", "tool_name": "f", "content": "z" }]);
    let seeds = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", asking("Hi", json!({ "response_format": form, "max_tokens": 9 }))),
        ("/v1/responses", json!({ "input": input, "tools": [flat], "tool_choice": "none", "max_output_tokens": 9 })),
        ("/api/chat", json!({ "messages": ollama, "tools": [tool], "stream": false, "options": { "num_predict": 9 } })),
        ("/v1/completions", json!({ "prompt": "A", "grammar": "root ::= [a-z]{2} \"x\"*", "max_tokens": 9 })),
    ];
    let bodies: Vec<Vec<u8>> = seeds.iter().map(|(_, body)| body.to_string().into_bytes()).collect();
    let mut random = Random(5);
    let mut answered = 0;
    for i in 0..deep(5000, 150) {
        let (path, _) = seeds[i % seeds.len()];
        // Parts of other bodies are among what damages one.
        let mut own = bodies.clone();
        own.swap(0, i % seeds.len());
        let damaged = random.damaged(if i % 3 == 0 { &own } else { &own[..1] });
        let body = String::from_utf8_lossy(&damaged);
        let reply = server.send("POST", path, &[], &body);
        answered += usize::from(reply.status == 200);
        assert!([200, 400, 404].contains(&reply.status), "{body}: {reply:?}");
        assert!(reply.status == 200 || !reply.json()["error"].is_null(), "{body}: {reply:?}");
    }
    assert!(answered > 0);
    assert_eq!(server.metric("answers_failed_total"), 0);
    let whole = server.ok("/v1/chat/completions", &asking("Hi", json!({})));
    assert_eq!(whole["choices"][0]["message"]["content"], TEXT);
}
