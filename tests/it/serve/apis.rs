//! The other APIs: ollama's, responses, tokens; and systemd's.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::client::Server;
use super::{ANSWER, TEXT};
use crate::cli::{Folder, ok};
use crate::common::scripted::answering;

fn server() -> Server {
    Server::new(&answering(&ANSWER), &["-c", "256"])
}

fn lines(stream: &str) -> Vec<Value> {
    stream.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn ollamas_chats_and_texts() {
    let server = server();
    let chat = json!({ "model": "tiny:latest", "messages": [{ "role": "user", "content": "Hi" }], "think": false,
                       "keep_alive": "5m", "options": { "temperature": 0, "num_ctx": 8192, "num_thread": 4 } });
    let lines_of = |path: &str, request: &Value| lines(&server.stream(path, request).rest());
    let stream = lines_of("/api/chat", &chat);
    let text: String = stream.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
    let last = stream.last().unwrap();
    assert_eq!((text.as_str(), &last["done"], &last["done_reason"]), (TEXT, &json!(true), &json!("stop")));
    assert!(last["eval_count"] == 4 && last["prompt_eval_count"].as_u64() > Some(4) && last["eval_duration"].is_u64());
    let mut whole = chat;
    (whole["stream"], whole["options"]["num_predict"]) = (false.into(), 2.into());
    let whole = server.ok("/api/chat", &whole);
    assert_eq!((&whole["message"]["content"], &whole["done_reason"]), (&json!("Some fine"), &json!("length")));
    let text: String = lines_of("/api/generate", &json!({ "model": "tiny", "prompt": "Hi", "system": "Be brief." }))
        .iter()
        .map(|line| line["response"].as_str().unwrap())
        .collect();
    assert_eq!(text, TEXT);
    let raw = json!({ "model": "tiny", "prompt": "\n", "raw": true, "stream": false });
    assert_eq!(server.ok("/api/generate", &raw)["response"], TEXT);
    assert_eq!(server.ok("/api/generate", &json!({ "model": "tiny" }))["done_reason"], "load");
    // Prompt and answer within a smaller context than the server's.
    let small = json!({ "prompt": "\n", "raw": true, "stream": false, "options": { "num_ctx": 3 } });
    assert_eq!(server.ok("/api/generate", &small)["eval_count"], 2);
}

#[test]
fn ollamas_lists_and_errors() {
    let server = server();
    let tags = server.get("/api/tags").json();
    assert_eq!(
        (&tags["models"][0]["name"], &tags["models"][0]["details"]["family"]),
        (&json!("tiny"), &json!("llama"))
    );
    assert!(server.get("/api/version").json()["version"].is_string());
    let shown = server.ok("/api/show", &json!({ "model": "tiny" }));
    assert_eq!(
        (&shown["capabilities"], &shown["model_info"]["llama.context_length"]),
        (&json!(["completion"]), &json!(4096))
    );
    let hi = json!([{ "role": "user", "content": "Hi" }]);
    for (path, body, status, what) in [
        ("/api/chat", json!({ "model": "llama9", "messages": hi }), 404, "llama9"),
        ("/api/show", json!({}), 400, "model"),
        ("/api/chat", json!({ "messages": hi, "tools": [{}] }), 400, "tools"),
        ("/api/chat", json!({ "messages": hi, "format": "json" }), 400, "format"),
        ("/api/chat", json!({ "messages": hi, "think": "high" }), 400, "think"),
        ("/api/chat", json!({ "messages": hi, "options": { "mirostat": 2 } }), 400, "options.mirostat"),
        ("/api/chat", json!({ "messages": hi, "options": { "frobnicate": 1 } }), 400, "options.frobnicate"),
        ("/api/generate", json!({ "prompt": "x", "images": ["AAAA"] }), 400, "images"),
        ("/api/pull", json!({}), 404, "/api/pull"),
    ] {
        let reply = server.post(path, &body);
        let error = reply.json()["error"].as_str().map(String::from);
        assert!(reply.status == status && error.is_some_and(|error| error.contains(what)), "{path} {body}: {reply:?}");
    }
}

#[test]
fn responses_whole_and_as_a_stream() {
    let server = Server::new(&answering(&["<think>", "Hm", "</think>", "Yes", "."]), &["-c", "256"]);
    let whole = server.ok("/v1/responses", &json!({ "input": "Hi", "instructions": "Be brief.", "model": "tiny" }));
    assert_eq!((&whole["status"], &whole["output"][1]["content"][0]["text"]), (&json!("completed"), &json!("Yes.")));
    assert_eq!(
        (&whole["output"][0]["type"], &whole["output"][0]["content"][0]["text"]),
        (&json!("reasoning"), &json!("Hm"))
    );
    let parts = json!([{ "role": "user", "content": [{ "type": "input_text", "text": "Hi" }] }]);
    let cut = server.ok("/v1/responses", &json!({ "input": parts, "max_output_tokens": 4 }));
    assert_eq!(
        (&cut["status"], &cut["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    let stream = server.stream("/v1/responses", &json!({ "input": parts, "stream": true })).rest();
    let events: Vec<Value> = stream
        .split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.split_once("\ndata: ").unwrap().1).unwrap())
        .collect();
    assert!(events.iter().enumerate().all(|(i, event)| event["sequence_number"] == i));
    let of = |kind: &str, field: &str| -> String {
        events.iter().filter(|e| e["type"] == kind).filter_map(|e| e[field].as_str()).collect()
    };
    assert_eq!(
        (of("response.output_text.delta", "delta"), of("response.output_text.done", "text")),
        ("Yes.".into(), "Yes.".into())
    );
    assert_eq!(of("response.reasoning_text.delta", "delta"), "Hm");
    let last = events.last().unwrap();
    let done: Vec<&Value> =
        events.iter().filter(|e| e["type"] == "response.output_item.done").map(|e| &e["item"]).collect();
    assert_eq!((&last["type"], &last["response"]["output"]), (&json!("response.completed"), &json!(done)));
    for (field, value) in [
        ("previous_response_id", json!("resp_1")),
        ("tools", json!([{ "type": "web_search" }])),
        ("reasoning", json!({ "effort": "high" })),
        ("text", json!({ "format": { "type": "json_object" } })),
        ("truncation", json!("auto")),
    ] {
        let mut request = json!({ "input": "Hi" });
        request[field] = value;
        let reply = server.post("/v1/responses", &request);
        assert!(
            reply.status == 400 && reply.json()["error"]["param"].as_str().unwrap().starts_with(field),
            "{reply:?}"
        );
    }
}

#[test]
fn tokens_and_texts() {
    let server = server();
    let tokens = server.ok("/tokenize", &json!({ "content": "a<|im_end|>é" }))["tokens"].clone();
    assert_eq!(tokens, json!([97, 258, 195, 169]));
    assert_eq!(server.ok("/detokenize", &json!({ "tokens": tokens }))["content"], "a<|im_end|>é");
    let plain = server.ok("/tokenize", &json!({ "content": "<|im_end|>", "parse_special": false }));
    assert_eq!(plain["tokens"].as_array().unwrap().len(), 10);
    let pieces = server.ok("/tokenize", &json!({ "content": "é", "with_pieces": true }));
    assert_eq!(pieces["tokens"], json!([{ "id": 195, "piece": [195] }, { "id": 169, "piece": [169] }]));
    for (path, body) in [
        ("/tokenize", json!({})),
        ("/tokenize", json!({ "content": "a", "pieces": true })),
        ("/detokenize", json!({ "tokens": [99999] })),
        ("/detokenize", json!({ "tokens": "a" })),
    ] {
        assert_eq!(server.post(path, &body).status, 400, "{path} {body}");
    }
}

/// systemd opens the socket, hands it over as its third file, and is told when the server is ready.
#[test]
fn a_socket_of_systemd() {
    let folder = Folder::new();
    let model = folder.write("tiny.gguf", &answering(&ANSWER).build());
    let told = UnixDatagram::bind(folder.path("notify")).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut command = Command::new("sh");
    // Files that Rust opens are not handed on; one that is stdin is.
    command.args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve -m \"$1\" -t 1 --port 1"]);
    command.arg(crate::common::program()).arg(&model).env("NOTIFY_SOCKET", folder.path("notify"));
    command.stdin(Stdio::from(OwnedFd::from(socket)));
    let server = Server::of(command, folder);
    let mut state = [0; 64];
    let n = told.recv(&mut state).unwrap();
    assert_eq!((&state[..n], server.address), (&b"READY=1"[..], address));
    assert_eq!(server.get("/health").status, 200);
}

/// What `plan` says is what the server takes.
#[test]
fn a_plan_for_users() {
    let folder = Folder::new();
    let model = folder.write("tiny.gguf", &answering(&ANSWER).build());
    let plan = |more: &[&str]| -> Value {
        serde_json::from_str(&ok(&[&["plan", "-m", &model, "--json", "-c", "256"], more].concat())).unwrap()
    };
    let (one, four) = (plan(&["--chunk", "64", "--speculate", "off"]), plan(&["--users", "4"]));
    // Three more rows of logits, one for each token of the vocabulary.
    let rows = 3 * (256 + 3 + ANSWER.len() as u64) * 4;
    let grown = four["engine"].as_u64().unwrap() - one["engine"].as_u64().unwrap();
    assert!(four["asked_sessions"] == 4 && four["session"] == one["session"], "{four}");
    assert!(grown.abs_diff(rows) < 128, "{grown} bytes for {rows}");
}
