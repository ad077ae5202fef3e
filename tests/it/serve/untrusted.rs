//! What strangers write in a request: it is text, and takes no more than it may.

use serde_json::{Value, json};

use super::client::{Server, asking};
use super::{ANSWER, TEXT};
use crate::common::scripted::{answering, repeating};

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

/// Schemas and grammars of which any would end the server, or have it work for minutes or fill its memory, are refused: each
/// with the limit's name, so that none of them is refused for another reason.
#[test]
fn schemas_of_strangers_are_bounded() {
    let server = Server::new(&answering(&ANSWER), &["-c", "2048"]);
    let named = |n: usize, value: &dyn Fn(usize) -> Value| {
        (0..n).map(|i| (format!("n{i}"), value(i))).collect::<serde_json::Map<_, _>>()
    };
    let many = |n: usize, value: &dyn Fn(usize) -> Value| (0..n).map(value).collect::<Vec<_>>();
    let chain = named(1000, &|i| json!({ "items": { "$ref": format!("#/$defs/n{}", i + 1) } }));
    let part = |i: usize| json!({ "type": "string", "pattern": format!(".*{i}.*") });
    for (schema, limit) in [
        (json!({ "$ref": "#/$defs/n0", "$defs": chain }), "levels"),
        (json!({ "type": "object", "properties": named(2000, &|_| json!({})) }), "names of properties"),
        (json!({ "type": "object", "required": many(2000, &|i| json!(format!("r{i}"))) }), "names of properties"),
        (json!({ "enum": many(9000, &|i| json!({ "a": [i] })) }), "values"),
        (json!({ "patternProperties": named(200, &|_| json!({})) }), "patternProperties"),
        (json!({ "properties": named(500, &|i| json!({ "type": "integer", "multipleOf": 1000 + i })) }), "multipleOf"),
        (json!({ "allOf": many(30, &part) }), "patterns"),
        (json!({ "type": "string", "pattern": "a?".repeat(9000) }), "bytes of patterns"),
    ] {
        let reply = server.post(CHAT, &asking("Hi", json!({ "json_schema": schema, "max_tokens": 3 })));
        assert_eq!(reply.status, 400, "{limit}: {reply:?}");
        let error = &reply.json()["error"];
        assert_eq!(error["param"], "json_schema", "{error}");
        assert!(error["message"].as_str().unwrap().contains(&format!(" {limit}")), "{limit}: {error}");
    }
    // As a tool's arguments, too.
    let parameters =
        json!({ "type": "object", "properties": { "a": { "allOf": many(20, &|_| json!({ "pattern": "a" })) } } });
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": parameters } });
    let reply = server.post(CHAT, &asking("Hi", json!({ "tools": [tool], "max_tokens": 3 })));
    assert!(reply.status == 400 && reply.body.contains("patterns, formats and lengths"), "{reply:?}");
    let chain: String = (0..9000).map(|i| format!("r{i} ::= r{}\n", i + 1)).collect();
    for (grammar, limit) in
        [(chain, "rules"), (format!("root ::= {}", "[a-z]{0,9999} ".repeat(9000)), "names, classes and characters")]
    {
        let reply = server.post(CHAT, &asking("Hi", json!({ "grammar": grammar, "max_tokens": 3 })));
        assert!(reply.status == 400 && reply.body.contains(limit), "{limit}: {reply:?}");
    }
    assert_eq!(server.ok(CHAT, &asking("Hi", json!({})))["choices"][0]["message"]["content"], TEXT);
}

/// What looks as if it took for ever is made only as far as an answer comes to it.
#[test]
fn large_repetitions_are_not_written_out() {
    let server = Server::new(&answering(&ANSWER), &["-c", "256"]);
    for schema in [
        json!({ "type": "string", "pattern": "(a{1000}){1000}" }),
        json!({ "type": "string", "pattern": "[ab]*a[ab]{20}" }),
        json!({ "type": "string", "pattern": "(((((a*)*)*)*)*)*b{99999}" }),
        json!({ "type": "string", "minLength": 1_000_000_000 }),
        json!({ "type": "array", "minItems": 100_000, "items": { "type": "string", "minLength": 100_000 } }),
    ] {
        let answer = server.ok(CHAT, &asking("Hi", json!({ "json_schema": schema, "max_tokens": 3 })));
        assert_eq!(answer["choices"][0]["finish_reason"], "length", "{schema}");
    }
    let circle = json!({ "$ref": "#/$defs/a", "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/a" }] } } });
    for never in [json!({ "json_schema": circle }), json!({ "grammar": "root ::= root root" })] {
        let reply = server.post(CHAT, &asking("Hi", never));
        assert!(reply.status == 400 && reply.body.contains("no text is of it"), "{reply:?}");
    }
}

/// A limit that an answer comes to is the form's fault, however it is sent, and costs nobody else anything.
#[test]
fn limits_within_an_answer_are_named() {
    let word =
        |i: u32| (8..24).map(|bit| if i.wrapping_mul(2_654_435_769) >> bit & 1 == 1 { 'a' } else { 'b' }).collect();
    let words: Vec<String> = (1..121).map(word).collect();
    let tokens: Vec<&str> = std::iter::once("\"").chain(words.iter().map(String::as_str)).collect();
    let server = Server::new(&repeating(&tokens), &["-c", "2048", "--users", "1"]);
    // As many states as there are words of 21 letters; and rules of which each may be two of itself.
    let states = json!({ "json_schema": { "type": "string", "pattern": "^[ab]*a[ab]{20}$" } });
    let rules: String = (0..1000).map(|i| format!("r{i} ::= r{i} r{i} | [xy]\n")).collect();
    let all: Vec<String> = (0..1000).map(|i| format!("r{i}")).collect();
    let places = json!({ "grammar": format!("root ::= {}\n{rules}", all.join(" | ")) });
    for (form, field, what, streams) in [
        (states, "json_schema", "states of its patterns", &[false][..]),
        (places, "grammar", "ways to", &[false, true]),
    ] {
        for stream in streams.iter().copied() {
            let mut request = asking("Hi", json!({ "stream": stream, "max_tokens": 400, "temperature": 0 }));
            request.as_object_mut().unwrap().extend(form.as_object().unwrap().clone());
            let reply = server.post(CHAT, &request);
            let error = if stream {
                let last = reply.body.trim_end().rsplit("\n\n").next().unwrap().to_string();
                assert!(reply.status == 200 && reply.body.matches("data: ").count() > 2, "{what}: {reply:?}");
                serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap()
            } else {
                assert_eq!(reply.status, 400, "{what}: {reply:?}");
                reply.json()
            };
            let error: &Value = &error["error"];
            assert_eq!((&error["type"], &error["param"]), (&json!("invalid_request_error"), &json!(field)), "{error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(what) && message.contains("has more than"), "{what}: {message}");
        }
    }
    server.until("requests_running", 0);
    assert_eq!(server.metric("answers_failed_total"), 0);
    assert_eq!(server.post(CHAT, &asking("Hi", json!({ "max_tokens": 2 }))).status, 200);
}

/// No room for a moment is no fault of the request.
#[cfg(target_os = "linux")]
#[test]
fn no_room_for_a_grammar_is_unavailable() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let server = Server::new(&answering(&ANSWER), &["-c", "256"]);
    let request = asking("Hi", json!({ "response_format": { "type": "json_object" }, "max_tokens": 3 }));
    assert_eq!(server.post(CHAT, &request).status, 200);
    let pid = Pid::from_child(&server.child);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix("kB")).unwrap();
    let kib: u64 = size.trim().parse().unwrap();
    // Room for what a request takes, and not for the stack of 64 MiB on which a schema is read.
    let limit = Rlimit { current: Some((kib << 10) + (32 << 20)), maximum: None };
    let before = prlimit(Some(pid), Resource::As, limit).unwrap();
    let reply = server.post(CHAT, &request);
    assert!(reply.status == 503 && reply.headers.contains("retry-after: "), "{reply:?}");
    assert!(reply.body.contains("server_error") && reply.body.contains("cannot start a thread"), "{reply:?}");
    prlimit(Some(pid), Resource::As, before).unwrap();
    assert_eq!(server.post(CHAT, &request).status, 200);
}
