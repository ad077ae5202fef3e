//! What answers look like, and how requests go wrong.

use serde_json::{Value, json};

use super::client::{self, Server, asking, events};
use super::{ANSWER, TEXT};
use crate::common::scripted::{answering, endless};

fn server() -> Server {
    Server::new(&answering(&ANSWER), &["-c", "256"])
}

/// The texts of the deltas of a stream.
fn joined(events: &[Value], field: &str) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"][field].as_str()).collect()
}

#[test]
fn a_chat_whole_and_as_a_stream() {
    // Of floats, what is kept ends where a pass does.
    let server = Server::new(&answering(&ANSWER), &["-c", "256", "--chunk", "4"]);
    let whole = server.ok("/v1/chat/completions", &asking("Hi", json!({})));
    let choice = &whole["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(TEXT), &json!("stop")), "{whole}");
    assert_eq!((&whole["object"], &whole["model"]), (&json!("chat.completion"), &json!("tiny")));
    let usage = &whole["usage"];
    assert_eq!((&usage["completion_tokens"], &whole["timings"]["predicted_n"]), (&json!(4), &json!(4)));
    assert_eq!(usage["total_tokens"].as_u64(), Some(usage["prompt_tokens"].as_u64().unwrap() + 4));

    let more = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let events = events(&server.stream("/v1/chat/completions", &asking("Hi", more)).rest());
    assert_eq!(
        (joined(&events, "content"), &events[0]["choices"][0]["delta"]["role"]),
        (TEXT.into(), &json!("assistant"))
    );
    let [.., end, last] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&end["choices"][0]["finish_reason"], &end["timings"]["predicted_n"]), (&json!("stop"), &json!(4)));
    // All but the last token of the prompt were there from the first request.
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64(), Some(prompt - 1), "{last}");
    assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &usage["total_tokens"]));
    let others = &events[..events.len() - 1];
    assert!(others.iter().all(|event| event.get("usage") == Some(&Value::Null)), "{events:?}");
    assert!(events.iter().all(|event| event["id"] == events[0]["id"] && event["object"] == "chat.completion.chunk"));
    assert_ne!(events[0]["id"], whole["id"]);

    let text = json!({ "prompt": "\n", "stream": true, "stream_options": { "include_usage": true } });
    let of_text = client::events(&server.stream("/v1/completions", &text).rest());
    let Some((last, others)) = of_text.split_last() else { panic!("no events") };
    assert!(last["usage"]["total_tokens"] == 5 && others.iter().all(|event| event.get("usage") == Some(&Value::Null)));
    // Who did not ask for it gets none.
    let plain = client::events(&server.stream("/v1/chat/completions", &asking("Hi", json!({ "stream": true }))).rest());
    assert!(plain.iter().all(|event| event.get("usage").is_none()), "{plain:?}");
}

#[test]
fn an_answer_ends_where_the_request_says() {
    let server = server();
    for (more, text, reason) in [
        (json!({ "max_tokens": 2 }), "Some fine", "length"),
        (json!({ "max_completion_tokens": 1 }), "Some", "length"),
        (json!({ "stop": " answer" }), "Some fine", "stop"),
        (json!({ "stop": ["x", "me f"] }), "So", "stop"),
        (json!({ "n": 1, "tools": [], "stream": false, "temperature": null, "user": "u", "seed": 7 }), TEXT, "stop"),
    ] {
        let whole = server.ok("/v1/chat/completions", &asking("Hi", more.clone()));
        let choice = &whole["choices"][0];
        assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(text), &json!(reason)), "{more}");
    }
    let whole = server.ok("/v1/completions", &json!({ "prompt": "\n" }));
    assert_eq!((&whole["choices"][0]["text"], &whole["object"]), (&json!(TEXT), &json!("text_completion")));
    let whole = server.ok("/v1/completions", &json!({ "prompt": [10], "max_tokens": 1 }));
    assert_eq!(
        (&whole["choices"][0]["text"], &whole["choices"][0]["finish_reason"]),
        (&json!("Some"), &json!("length"))
    );
}

/// -1 is no limit, whatever the command line has.
#[test]
fn no_limit_is_none() {
    let server = Server::new(&answering(&ANSWER), &["-c", "256", "-n", "2"]);
    for (more, text) in [
        (json!({}), "Some fine"),
        (json!({ "max_tokens": -1 }), TEXT),
        (json!({ "max_completion_tokens": -1, "max_tokens": 1 }), TEXT),
        (json!({ "max_tokens": 1, "n_predict": -1 }), "Some"),
    ] {
        let whole = server.ok("/v1/chat/completions", &asking("Hi", more.clone()));
        assert_eq!(whole["choices"][0]["message"]["content"], text, "{more}");
    }
    let words: Vec<String> = (0..20).map(|i| format!("w{i} ")).collect();
    let server = Server::new(&answering(&words.iter().map(String::as_str).collect::<Vec<_>>()), &["-c", "64"]);
    for (more, tokens) in [(json!({}), 16), (json!({ "max_tokens": -1 }), 21), (json!({ "n_predict": -1 }), 21)] {
        let mut request = json!({ "prompt": "\n" });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(server.ok("/v1/completions", &request)["usage"]["completion_tokens"], tokens, "{more}");
    }
}

/// What frameworks send, and changes no answer here.
#[test]
fn fields_without_effect_are_taken() {
    let server = server();
    let named = json!([{ "role": "system", "content": "Be brief.", "name": "rules" },
        { "role": "user", "name": "Bob", "content": [{ "type": "text", "text": "Hi", "cache_control": { "type": "ephemeral" } }] }]);
    let mut tool = json!({ "type": "function", "function": { "name": "now" } });
    tool["cache_control"] = json!({ "type": "ephemeral" });
    let efforts =
        ["none", "minimal", "low", "medium", "high", "xhigh"].map(|effort| json!({ "reasoning_effort": effort }));
    for more in
        [json!({ "messages": named }), json!({ "tools": [tool], "tool_choice": "none" })].into_iter().chain(efforts)
    {
        let whole = server.ok("/v1/chat/completions", &asking("Hi", more.clone()));
        assert_eq!(whole["choices"][0]["message"]["content"], TEXT, "{more}");
    }
    let request =
        json!({ "input": "Hi", "reasoning": { "effort": "low" }, "include": ["reasoning.encrypted_content"] });
    assert_eq!(server.ok("/v1/responses", &request)["output"][0]["content"][0]["text"], TEXT);
}

/// A context that fills up ends an answer, and a prompt that fills it is refused.
#[test]
fn the_context_is_as_long_as_it_is() {
    let server = Server::new(&endless(), &["-c", "64", "--pattern", "full"]);
    let whole = server.ok("/v1/completions", &json!({ "prompt": "\n", "max_tokens": 100_000 }));
    // The last token is not read any more.
    assert_eq!(
        (&whole["choices"][0]["finish_reason"], &whole["usage"]["total_tokens"]),
        (&json!("length"), &json!(65))
    );
    let whole = server.ok("/v1/chat/completions", &asking("Hi", json!({})));
    assert_eq!(
        (&whole["choices"][0]["finish_reason"], &whole["usage"]["total_tokens"]),
        (&json!("length"), &json!(64))
    );
    let reply = server.post("/v1/completions", &json!({ "prompt": "\n".repeat(64) }));
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
    assert_eq!(server.ok("/v1/completions", &json!({ "prompt": "\n".repeat(63) }))["usage"]["completion_tokens"], 2);
}

#[test]
fn probabilities_and_biases() {
    let server = server();
    let whole = server.ok("/v1/chat/completions", &asking("Hi", json!({ "logprobs": true, "top_logprobs": 2 })));
    let scores = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let tokens: Vec<&str> = scores.iter().map(|score| score["token"].as_str().unwrap()).collect();
    assert_eq!(tokens, ANSWER);
    for score in scores {
        let top = score["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["token"], &top[0]["logprob"]), (2, &score["token"], &score["logprob"]));
        assert!(score["logprob"].as_f64().unwrap() <= 0.0 && top[1]["logprob"].as_f64() <= top[0]["logprob"].as_f64());
    }
    let more = json!({ "logprobs": true, "stream": true });
    let events = events(&server.stream("/v1/chat/completions", &asking("Hi", more)).rest());
    let of_stream = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array()).flatten();
    assert!(of_stream.map(|score| &score["logprob"]).eq(scores.iter().map(|score| &score["logprob"])));
    let whole = server.ok("/v1/completions", &json!({ "prompt": "\n", "logprobs": 1 }));
    assert_eq!(whole["choices"][0]["logprobs"]["text_offset"], json!([0, 4, 9]));
    // Without its first token, the answer is another.
    let whole =
        server.ok("/v1/chat/completions", &asking("Hi", json!({ "logit_bias": { "259": -100 }, "max_tokens": 1 })));
    assert_ne!(whole["choices"][0]["message"]["content"], "Some");
}

#[test]
fn thoughts_are_told_from_the_answer() {
    let server = Server::new(&answering(&["<think>", "\nHm", ".\n", "</think>", "\n\nYes", "."]), &["-c", "256"]);
    let message = &server.ok("/v1/chat/completions", &asking("Hi", json!({})))["choices"][0]["message"];
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("Hm.\n"), &json!("Yes.")));
    let stream = events(&server.stream("/v1/chat/completions", &asking("Hi", json!({ "stream": true }))).rest());
    assert_eq!((joined(&stream, "reasoning_content").as_str(), joined(&stream, "content").as_str()), ("Hm.\n", "Yes."));
    let plain = asking("Hi", json!({ "reasoning_format": "none" }));
    let whole = server.ok("/v1/chat/completions", &plain);
    assert_eq!(whole["choices"][0]["message"]["content"], "<think>\nHm.\n</think>\n\nYes.");
}

/// What the request has wrong: status, the field, the code. After each the server goes on.
#[test]
fn bad_requests_get_openais_errors() {
    let server = server();
    let chat = "/v1/chat/completions";
    let bad = |more: Value| asking("Hi", more).to_string();
    let image = json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }] });
    for (path, body, status, param, code) in [
        (chat, "{".into(), 400, json!(null), json!("invalid_json")),
        (chat, "[]".into(), 400, json!("body"), json!("invalid_type")),
        (chat, String::new(), 400, json!(null), json!("invalid_json")),
        (chat, "[".repeat(10_000), 400, json!(null), json!("invalid_json")),
        (chat, "{}".into(), 400, json!("messages"), json!("missing_required_parameter")),
        (chat, bad(json!({ "messages": [] })), 400, json!("messages"), json!("empty_array")),
        (chat, bad(json!({ "messages": "Hi" })), 400, json!("messages"), json!("invalid_type")),
        (chat, bad(image), 400, json!("messages[0].content[0].type"), json!("unsupported_parameter")),
        (chat, bad(json!({ "model": "gpt-5" })), 404, json!("model"), json!("model_not_found")),
        (chat, bad(json!({ "model": 5 })), 400, json!("model"), json!("invalid_type")),
        (chat, bad(json!({ "temperature": 3 })), 400, json!("temperature"), json!("decimal_above_max_value")),
        (chat, bad(json!({ "temperature": "hot" })), 400, json!("temperature"), json!("invalid_type")),
        (chat, bad(json!({ "max_tokens": 0 })), 400, json!("max_tokens"), json!("integer_below_min_value")),
        (chat, bad(json!({ "max_tokens": -2 })), 400, json!("max_tokens"), json!("integer_below_min_value")),
        (chat, bad(json!({ "reasoning_effort": "frantic" })), 400, json!("reasoning_effort"), json!("invalid_value")),
        (chat, bad(json!({ "max_tokens": 1.5 })), 400, json!("max_tokens"), json!("invalid_type")),
        (chat, bad(json!({ "n": 2 })), 400, json!("n"), json!("unsupported_parameter")),
        (chat, bad(json!({ "stream": 1 })), 400, json!("stream"), json!("invalid_type")),
        (chat, bad(json!({ "stream_options": {} })), 400, json!("stream_options"), json!(null)),
        (chat, bad(json!({ "top_logprobs": 2 })), 400, json!("top_logprobs"), json!(null)),
        (
            chat,
            bad(json!({ "response_format": { "type": "yaml" } })),
            400,
            json!("response_format.type"),
            json!("invalid_value"),
        ),
        (chat, bad(json!({ "frobnicate": true })), 400, json!("frobnicate"), json!("unknown_parameter")),
        (
            chat,
            bad(json!({ "chat_template_kwargs": { "mood": 1 } })),
            400,
            json!("chat_template_kwargs.mood"),
            json!("unsupported_parameter"),
        ),
        (
            chat,
            bad(json!({ "messages": [{ "role": "user", "content": "x".repeat(400) }] })),
            400,
            json!("messages"),
            json!("context_length_exceeded"),
        ),
        ("/v1/completions", r#"{"prompt": ["a", "b"]}"#.into(), 400, json!("prompt"), json!("unsupported_parameter")),
        ("/v1/completions", r#"{"prompt": [99999]}"#.into(), 400, json!(null), json!(null)),
        (
            "/v1/completions",
            r#"{"prompt": "a", "echo": true}"#.into(),
            400,
            json!("echo"),
            json!("unsupported_parameter"),
        ),
        ("/v1/embeddings", "{}".into(), 404, json!(null), json!("unknown_url")),
        ("/v1/models", "{}".into(), 405, json!(null), json!("method_not_supported")),
    ] {
        let reply = server.send("POST", path, &[], &body);
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["param"], &error["code"]), (status, &param, &code), "{path}: {error}");
        assert!(
            error["message"].is_string() && error["type"].is_string() && reply.headers.contains("application/json")
        );
    }
    assert_eq!(server.get("/v1/chat/completions").status, 405);
    assert_eq!(server.get("/v1/models/gpt-5").json()["error"]["code"], "model_not_found");
    assert_eq!(server.ok(chat, &asking("Hi", json!({})))["choices"][0]["message"]["content"], TEXT);
}

#[test]
fn lists_and_health() {
    let server = Server::new(&answering(&ANSWER), &["-c", "128", "--alias", "house/one"]);
    let list = server.get("/v1/models").json();
    assert_eq!(
        (&list["data"][0]["id"], &list["data"][0]["meta"]["n_ctx"]),
        (&json!("house/one"), &json!(128)),
        "{list}"
    );
    assert_eq!(server.get("/v1/models/house/one").json()["object"], "model");
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
    for model in ["house/one", "tiny", "tiny:latest"] {
        server.ok("/v1/completions", &json!({ "prompt": "\n", "model": model, "max_tokens": 1 }));
    }
}
