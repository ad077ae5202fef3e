//! The other APIs: ollama's, responses, tokens; and systemd's.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::client::Server;
use super::{ANSWER, TEXT};
use crate::cli::{Folder, fails_with, ok};
use crate::common::gguf::{Val, byte_level_model};
use crate::common::scripted::{answering, repeating};

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
        (&json!(["completion", "tools"]), &json!(4096))
    );
    let hi = json!([{ "role": "user", "content": "Hi" }]);
    for (path, body, status, what) in [
        ("/api/chat", json!({ "model": "llama9", "messages": hi }), 404, "model 'llama9' not found"),
        ("/api/show", json!({ "model": "llama9" }), 404, "model 'llama9' not found"),
        ("/api/show", json!({}), 400, "model"),
        ("/api/chat", json!({ "messages": hi, "tools": [{}] }), 400, "tools"),
        ("/api/chat", json!({ "messages": hi, "format": 3 }), 400, "format"),
        ("/api/chat", json!({ "messages": hi, "think": "high" }), 400, "\"tiny\" does not support thinking"),
        ("/api/chat", json!({ "messages": hi, "think": true }), 400, "\"tiny\" does not support thinking"),
        ("/api/chat", json!({ "messages": hi, "think": "much" }), 400, "invalid think value: \"much\""),
        ("/api/chat", json!({ "messages": hi, "options": { "repeat_last_n": 32 } }), 400, "options.repeat_last_n"),
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

/// What ollama's clients send where it makes no difference, and what a model that thinks is asked.
#[test]
fn ollamas_options_and_thoughts() {
    let mut model = answering(&["<think>", "Hm", "</think>", "Yes", "."]);
    model.set("general.file_type", Val::U32(15));
    let server = Server::new(&model, &["-c", "256"]);
    let asked = |more: Value| {
        let mut request = json!({ "messages": [{ "role": "user", "content": "Hi" }], "stream": false });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.ok("/api/chat", &request)["message"].clone()
    };
    for more in [
        json!({ "think": true }),
        json!({ "think": "low" }),
        json!({ "think": "high", "truncate": true, "shift": false }),
        json!({ "options": { "repeat_last_n": -1, "mirostat_tau": 5.0, "mirostat_eta": 0.1 } }),
        json!({ "options": { "repeat_last_n": 64.0, "mirostat": 0.0, "typical_p": 1.0, "mirostat_tau": 5.0, "seed": 1.0 } }),
        // As Home Assistant sends a number, and Open WebUI a field of OpenAI's.
        json!({ "options": { "num_ctx": 8192.0, "reasoning_effort": "low" } }),
    ] {
        let message = asked(more.clone());
        assert_eq!((&message["thinking"], &message["content"]), (&json!("Hm"), &json!("Yes.")), "{more}");
    }
    let shown = server.ok("/api/show", &json!({ "model": "tiny" }));
    assert_eq!(shown["capabilities"], json!(["completion", "tools", "thinking"]));
    assert_eq!(shown["details"]["quantization_level"], "Q4_K_M");
    let running = &server.get("/api/ps").json()["models"][0];
    assert_eq!(
        (&running["name"], &running["context_length"], &running["details"]),
        (&json!("tiny"), &json!(256), &shown["details"])
    );
    assert!(running["size"].as_u64() > Some(0) && running["size_vram"] == 0 && running["expires_at"].is_string());
}

/// A penalty that looks at no token is none.
#[test]
fn penalties_may_look_at_nothing() {
    let server = Server::new(&repeating(&["a", "b"]), &["-c", "256"]);
    let answer = |last: i64| {
        let options = json!({ "temperature": 0, "presence_penalty": 2, "repeat_penalty": 100, "repeat_last_n": last, "num_predict": 4 });
        let request = json!({ "prompt": "\n", "raw": true, "stream": false, "options": options });
        server.ok("/api/generate", &request)["response"].as_str().unwrap().to_string()
    };
    assert_eq!(answer(0), "abab");
    assert!(answer(64).starts_with("ab") && answer(64) != "abab" && answer(64) == answer(-1));
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
    assert_eq!(whole["usage"]["output_tokens_details"]["reasoning_tokens"], 3, "{whole}");
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
        ("reasoning", json!({ "effort": "frantic" })),
        ("include", json!(["file_search_call.results"])),
        ("text", json!({ "format": { "type": "json_object" }, "verbosity": "high" })),
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

/// What a response says of its request is so: as it was asked, or what stood for what was not.
#[test]
fn responses_say_what_was_asked() {
    let server = Server::new(&answering(&ANSWER), &["-c", "1024", "--top-p", "0.9", "-n", "100"]);
    let tools = json!([{ "type": "function", "name": "now", "description": "The time.", "parameters": { "type": "object", "properties": {} }, "strict": true }]);
    let format = json!({ "type": "text" });
    let asked = json!({ "tools": tools, "tool_choice": "none", "parallel_tool_calls": false, "metadata": { "of": "a test" },
                        "text": { "format": format }, "temperature": 0.7, "top_p": 0.25, "max_output_tokens": 50,
                        "reasoning": { "effort": "low" } });
    let plain = json!({ "tools": [], "tool_choice": "auto", "parallel_tool_calls": true, "metadata": {},
                        "text": { "format": format }, "temperature": 0.8, "top_p": 0.9, "max_output_tokens": 100,
                        "reasoning": null });
    let required = json!({ "tools": tools, "tool_choice": "required", "max_output_tokens": 9 });
    let mut of_required = required.clone();
    // One call, where nothing else is said.
    of_required["parallel_tool_calls"] = false.into();
    for (asked, expected) in [(&asked, &asked), (&json!({}), &plain), (&required, &of_required)] {
        let mut request = json!({ "input": "Hi" });
        request.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
        let whole = server.ok("/v1/responses", &request);
        request["stream"] = true.into();
        let stream = server.stream("/v1/responses", &request).rest();
        let events = stream.lines().filter_map(|line| line.strip_prefix("data: "));
        let events = events.map(|data| serde_json::from_str::<Value>(data).unwrap());
        let of_stream: Vec<Value> =
            events.map(|mut event| event["response"].take()).filter(|response| response.is_object()).collect();
        assert_eq!(of_stream.len(), 3, "{stream}");
        for said in of_stream.iter().chain([&whole]) {
            expected.as_object().unwrap().iter().for_each(|(field, value)| assert_eq!(said[field], *value, "{field}"));
        }
    }
}

/// Each API's errors have its own names.
#[test]
fn errors_name_the_fields_of_their_api() {
    let server = Server::new(&answering(&ANSWER), &["-c", "1024"]);
    let long = "x".repeat(2000);
    let mut wrong = vec![
        ("/v1/responses", json!({ "input": long }), "input", "context_length_exceeded"),
        ("/v1/completions", json!({ "prompt": long }), "prompt", "context_length_exceeded"),
        (
            "/v1/responses",
            json!({ "input": "Hi", "text": { "format": { "type": "yaml" } } }),
            "text.format.type",
            "invalid_value",
        ),
    ];
    if cfg!(feature = "grammar") {
        let hi = json!([{ "role": "user", "content": "Hi" }]);
        let chat = |format: Value| json!({ "messages": hi, "response_format": format });
        let text = |schema: Value| json!({ "input": "Hi", "text": { "format": { "type": "json_schema", "name": "x", "schema": schema } } });
        let tools = json!([{ "type": "function", "name": "f", "parameters": { "properties": { "x": { "type": "strange" } } } }]);
        wrong.extend([
            ("/v1/responses", text(json!(3)), "text.format.schema", "invalid_type"),
            ("/v1/responses", text(json!({ "type": "strange" })), "text.format", "invalid_value"),
            (
                "/v1/responses",
                json!({ "input": "Hi", "tools": tools }),
                "tools[0].parameters",
                "invalid_function_parameters",
            ),
            ("/v1/completions", json!({ "prompt": "x", "json_schema": 3 }), "json_schema", "invalid_type"),
            (
                "/v1/completions",
                json!({ "prompt": "x", "json_schema": { "type": "strange" } }),
                "json_schema",
                "invalid_value",
            ),
            // llama-server's in the place of OpenAI's, and neither beside the other.
            (
                "/v1/chat/completions",
                json!({ "messages": hi, "json_schema": { "type": "strange" } }),
                "json_schema",
                "invalid_value",
            ),
            (
                "/v1/chat/completions",
                json!({ "messages": hi, "grammar": "root ::= other" }),
                "grammar",
                "invalid_value",
            ),
            (
                "/v1/chat/completions",
                json!({ "messages": hi, "grammar": "root ::= \"x\"", "response_format": { "type": "json_object" } }),
                "response_format",
                "invalid_value",
            ),
            (
                "/v1/chat/completions",
                chat(json!({ "type": "json_schema" })),
                "response_format.json_schema",
                "missing_required_parameter",
            ),
            (
                "/v1/chat/completions",
                chat(json!({ "type": "json_schema", "json_schema": 3 })),
                "response_format.json_schema",
                "invalid_type",
            ),
            (
                "/v1/chat/completions",
                chat(json!({ "type": "json_object", "schema": 3 })),
                "response_format.schema",
                "invalid_type",
            ),
        ]);
    }
    for (path, body, param, code) in wrong {
        let reply = server.post(path, &body);
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, &error["param"], &error["code"]),
            (400, &json!(param), &json!(code)),
            "{path}: {error}"
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
    let one = plan(&["--chunk", "64", "--speculate", "off"]);
    // So many more rows of logits, one for each token of the vocabulary: of users, or of a token and its draft.
    for (speculate, more) in [("off", 3), ("5", 5), ("auto", 7)] {
        let four = plan(&["--users", "4", "--speculate", speculate]);
        let rows = more * (256 + 3 + ANSWER.len() as u64) * 4;
        let grown = four["engine"].as_u64().unwrap() - one["engine"].as_u64().unwrap();
        assert!(four["asked_sessions"] == 4 && four["session"] == one["session"], "{four}");
        assert!(grown.abs_diff(rows) < 128, "{grown} bytes for {rows}");
    }
}

/// What a server says of itself is what `plan` says of it, with a budget too; and two of three say the third.
#[test]
fn a_plan_for_a_budget() {
    let folder = Folder::new();
    let tiny = answering(&ANSWER).build();
    let model = folder.write("tiny.gguf", &tiny);
    let log = |options: &[&str]| Server::with_file(&tiny, options, &[]).log();
    let mut contexts = Vec::new();
    for options in [
        &["--users", "2", "--kv-budget", "1MiB"][..],
        &["--users", "3", "--kv-budget", "1MiB", "--kv-type", "int8"],
        &["--users", "2", "-c", "512"],
        // More than the model was trained with.
        &["--users", "1", "-c", "99999"],
    ] {
        let plan: Value = serde_json::from_str(&ok(&[&["plan", "-m", &model, "--json"], options].concat())).unwrap();
        let (users, context) = (&plan["asked_sessions"], &plan["context"]);
        let log = log(options);
        assert!(log.contains(&format!("for {users} at a time, {context} tokens each")), "{plan} {log}");
        contexts.push(context.as_u64().unwrap());
    }
    assert!(contexts[0] > 64 && contexts[0] < 4096 && contexts[2..] == [512, 4096], "{contexts:?}");
    // Alone, as many as fit of the default context.
    let budget = |users: u64| {
        let plan: Value = serde_json::from_str(&ok(&["plan", "-m", &model, "--json", "--users", "1"])).unwrap();
        (plan["session"].as_u64().unwrap() * users).to_string()
    };
    assert!(log(&["--kv-budget", &budget(3)]).contains("for 3 at a time, 4096 tokens each"));
    let all = ["serve", "-m", &model, "--port", "0", "--users", "2", "-c", "1024", "--kv-budget", "60MiB"];
    fails_with(&all, 2, "--users, -c and --kv-budget");
}

/// A schema or a grammar in each API's words, and what is wrong with one.
#[cfg(feature = "grammar")]
#[test]
fn answers_have_the_form_that_is_asked_for() {
    let server = Server::with_file(&byte_level_model(3), &["-c", "256"], &[]);
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer", "maximum": 99, "minimum": 0 } },
                         "required": ["n"], "additionalProperties": false });
    let (hi, named) =
        (json!([{ "role": "user", "content": "Hi" }]), json!({ "name": "n", "strict": true, "schema": schema }));
    let is_document = |text: &Value| {
        let document: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        assert!(
            document["n"].as_u64().is_some_and(|n| n < 100) && document.as_object().unwrap().len() == 1,
            "{document}"
        );
    };
    let format = json!({ "type": "json_schema", "json_schema": named });
    let chat = server.ok("/v1/chat/completions", &json!({ "messages": hi, "response_format": format, "seed": 1 }));
    is_document(&chat["choices"][0]["message"]["content"]);
    assert_eq!(chat["choices"][0]["finish_reason"], "stop");
    let text = server.ok("/v1/completions", &json!({ "prompt": "A", "json_schema": schema, "max_tokens": 40 }));
    is_document(&text["choices"][0]["text"]);
    let of_ollama = server.ok("/api/chat", &json!({ "messages": hi, "format": schema, "stream": false }));
    is_document(&of_ollama["message"]["content"]);
    let format = json!({ "format": { "type": "json_schema", "name": "n", "schema": schema } });
    let response = server.ok("/v1/responses", &json!({ "input": "Hi", "text": format }));
    is_document(&response["output"][0]["content"][0]["text"]);
    let gbnf = server.ok("/v1/completions", &json!({ "prompt": "A", "grammar": "root ::= \"yes\" | \"no\"" }));
    assert!(["yes", "no"].contains(&gbnf["choices"][0]["text"].as_str().unwrap()), "{gbnf}");
    // What is cut off says so.
    let short = server.ok("/v1/completions", &json!({ "prompt": "A", "json_schema": schema, "max_tokens": 2 }));
    assert_eq!(short["choices"][0]["finish_reason"], "length");
    for (format, what) in [
        (json!({ "type": "json_schema" }), "schema"),
        (json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "strange" } } }), "strange"),
        (json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": 3 } }), "schema"),
        (json!({ "type": "yaml" }), "yaml"),
        (json!({ "type": "text", "frobnicate": 1 }), "frobnicate"),
    ] {
        let reply = server.post("/v1/chat/completions", &json!({ "messages": hi, "response_format": format }));
        assert!(reply.status == 400 && reply.json()["error"]["message"].as_str().unwrap().contains(what), "{reply:?}");
    }
    // A grammar is never the name of a file.
    let reply = server.post("/v1/completions", &json!({ "prompt": "A", "grammar": "/etc/passwd" }));
    assert!(reply.status == 400 && !reply.body.contains("root:"), "{reply:?}");
}

#[test]
fn the_page_runs_its_own_script_alone() {
    let server = server();
    let page = server.get("/");
    let policy = "content-security-policy: default-src 'none'; script-src 'sha256-";
    assert!(page.status == 200 && page.body.starts_with("<!doctype html>"), "{page:?}");
    assert!(
        page.headers.to_lowercase().contains(policy) && !page.headers.contains("script-src 'unsafe"),
        "{}",
        page.headers
    );
}
