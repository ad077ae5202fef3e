//! Tools: what a model calls, in the words of each API.

use serde_json::{Map, Value, json};

use super::client::{Server, asking, events};
use crate::cli::Folder;
use crate::common::deep;
use crate::common::gguf::{Gguf, Tiny, Val, byte_level_model_of, noise};
use crate::common::scripted::answering;
use crate::grammar::{Dice, is_valid, schema};

const CHAT: &str = "/v1/chat/completions";
/// Two calls, as a model whose template has no tools is told to write them.
const CALLS: [&str; 9] = [
    "Well:",
    "\n\n<tool",
    "_call>\n{\"name\": \"",
    "weather\", \"arguments\": ",
    "{\"place\": \"Z\u{fc}",
    "rich\"}}\n</tool_call>\n<tool_",
    "call>\n{\"name\": \"now\", \"arguments\": {",
    "}}\n</tool_",
    "call>",
];

/// A model that knows nothing, with room for tools.
fn roomy() -> Vec<u8> {
    byte_level_model_of(Tiny { seed: 3, context: 4096, ..Tiny::default() })
}

/// A text as the log shows it.
fn logged(text: &str) -> String {
    text.replace('\n', "^J")
}

fn weather() -> Value {
    let parameters =
        json!({ "type": "object", "properties": { "place": { "type": "string" } }, "required": ["place"] });
    json!({ "type": "function", "function": { "name": "weather", "description": "Of a place.", "parameters": parameters } })
}

fn tools() -> Value {
    json!([weather(), { "type": "function", "function": { "name": "now" } }])
}

/// The calls of a stream, put together as its clients do; whatever they have beside calls.
fn joined(events: &[Value]) -> (Vec<Value>, String) {
    let (mut calls, mut text) = (Vec::<Value>::new(), String::new());
    for delta in events.iter().map(|event| &event["choices"][0]["delta"]) {
        text += delta["content"].as_str().unwrap_or_default();
        for part in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = part["index"].as_u64().unwrap() as usize;
            if part["id"].is_string() {
                assert_eq!(index, calls.len(), "{part}");
                let mut call = part.clone();
                call.as_object_mut().unwrap().remove("index");
                calls.push(call);
                continue;
            }
            let more = part["function"]["arguments"].as_str().unwrap();
            let arguments = &mut calls[index]["function"]["arguments"];
            *arguments = format!("{}{more}", arguments.as_str().unwrap()).into();
        }
    }
    (calls, text)
}

#[test]
fn calls_whole_and_as_a_stream() {
    let server = Server::new(&answering(&CALLS), &["-c", "1024"]);
    let request = |more: Value| {
        let mut request = asking("Hi", json!({ "tools": tools() }));
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let whole = server.ok(CHAT, &request(json!({})));
    let choice = &whole["choices"][0];
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    let called: Vec<_> = calls.iter().map(|call| (&call["type"], &call["function"])).collect();
    let function = json!("function");
    let (first, second) = (
        json!({ "name": "weather", "arguments": "{\"place\": \"Z\u{fc}rich\"}" }),
        json!({ "name": "now", "arguments": "{}" }),
    );
    assert_eq!(called, [(&function, &first), (&function, &second)], "{whole}");
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &json!("Well:")));
    assert_ne!(calls[0]["id"], calls[1]["id"]);

    let events = events(&server.stream(CHAT, &request(json!({ "stream": true }))).rest());
    let (streamed, text) = joined(&events);
    let functions = |calls: &[Value]| calls.iter().map(|call| call["function"].clone()).collect::<Vec<_>>();
    assert_eq!((functions(&streamed), text.as_str()), (functions(calls), "Well:"));
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    // Arguments come as the model writes them.
    let parts = events.iter().filter(|event| event["choices"][0]["delta"]["tool_calls"].is_array()).count();
    assert!(parts > 3 && streamed[0]["id"] != calls[0]["id"], "{events:?}");

    // One that is cut off says so; and one that may not be followed by another ends.
    let cut = server.ok(CHAT, &request(json!({ "max_tokens": 5 })));
    assert_eq!(cut["choices"][0]["finish_reason"], "length", "{cut}");
    let one = server.ok(CHAT, &request(json!({ "parallel_tool_calls": false })));
    assert_eq!(one["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1, "{one}");
    // So does the first of a function that is named, or where one has to be.
    let named = json!({ "type": "function", "function": { "name": "weather" } });
    for choice in [named, json!("required")] {
        let message = &server.ok(CHAT, &request(json!({ "tool_choice": choice })))["choices"][0]["message"];
        assert_eq!(message["tool_calls"].as_array().unwrap().len(), 1, "{message}");
    }
    // Without tools it is text.
    let none = server.ok(CHAT, &request(json!({ "tool_choice": "none" })));
    assert_eq!(none["choices"][0]["message"]["content"], CALLS.concat());
    assert_eq!(none["choices"][0]["finish_reason"], "stop");
}

/// Cut off before its name is whole, a call is nothing yet, and never text.
#[test]
fn markup_is_never_text() {
    let server = Server::new(&answering(&CALLS[1..]), &["-c", "1024"]);
    for (choice, most) in [("required", 1), ("required", 2), ("auto", 2)] {
        let request = asking("Hi", json!({ "tools": tools(), "tool_choice": choice, "max_tokens": most }));
        let cut = &server.ok(CHAT, &request)["choices"][0];
        let message = &cut["message"];
        assert_eq!((&message["content"], &cut["finish_reason"]), (&json!(""), &json!("length")), "{choice} {most}");
        assert_eq!(message.get("tool_calls"), None);
        let mut streamed = request;
        streamed["stream"] = true.into();
        let (calls, text) = joined(&events(&server.stream(CHAT, &streamed).rest()));
        assert!(calls.is_empty() && text.is_empty(), "{choice} {most}: {text:?}");
    }
}

#[test]
fn ollamas_calls_are_whole() {
    let server = Server::new(&answering(&CALLS), &["-c", "1024"]);
    let hi = json!([{ "role": "user", "content": "Hi" }]);
    let whole = server.ok("/api/chat", &json!({ "messages": hi, "tools": tools(), "stream": false }));
    let called = |calls: &Value| -> Vec<(Value, Value)> {
        let call = |call: &Value| (call["function"]["name"].clone(), call["function"]["arguments"].clone());
        calls.as_array().into_iter().flatten().map(call).collect()
    };
    let calls = called(&whole["message"]["tool_calls"]);
    let weather = (json!("weather"), json!({ "place": "Z\u{fc}rich" }));
    assert_eq!(calls, [weather, (json!("now"), json!({}))], "{whole}");
    assert_eq!((&whole["done_reason"], &whole["message"]["content"]), (&json!("stop"), &json!("Well:")));
    let stream = server.stream("/api/chat", &json!({ "messages": hi, "tools": tools() })).rest();
    let lines: Vec<Value> = stream.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let streamed: Vec<_> = lines.iter().flat_map(|line| called(&line["message"]["tool_calls"])).collect();
    assert_eq!(streamed, calls, "{lines:?}");
    assert_eq!(server.ok("/api/show", &json!({ "model": "tiny" }))["capabilities"], json!(["completion", "tools"]));
}

/// Marks that are control tokens are seen, and are no part of any text.
#[test]
fn marks_may_be_control_tokens() {
    let marks = ["[TOOL_CALLS]", "[ARGS]"];
    let tokens = ["[TOOL_CALLS]", "weather", "[ARGS]", "{\"place\": \"", "x\"}"];
    let mut model = answering(&tokens);
    let template = "{% if tools %}{{ '[AVAILABLE_TOOLS]' + tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}\
        {% for c in m.tool_calls or [] %}{{ '[TOOL_CALLS]' + c.function.name + '[ARGS]' + c.function.arguments | tojson }}\
        {% endfor %}{% endfor %}{{ '\n' }}";
    model.set("tokenizer.chat_template", Val::Str(template.into()));
    with_control(&mut model, &tokens, &marks);
    let server = Server::new(&model, &["-c", "1024"]);
    let whole = server.ok(CHAT, &asking("Hi", json!({ "tools": tools() })));
    let message = &whole["choices"][0]["message"];
    assert_eq!(
        message["tool_calls"][0]["function"],
        json!({ "name": "weather", "arguments": "{\"place\": \"x\"}" }),
        "{whole}"
    );
    assert_eq!(message["content"], Value::Null);
    // Without tools, they are not shown.
    let none = server.ok(CHAT, &asking("Hi", json!({})));
    assert_eq!(none["choices"][0]["message"]["content"], "weather{\"place\": \"x\"}");
}

/// A call that is all of an answer, behind a token that says so.
#[test]
fn a_call_may_be_all_of_an_answer() {
    let tokens = ["<|python_tag|>", "{\"name\": \"", "now", "\", \"parameters\": ", "{}", "}"];
    let template = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<|start_header_id|>' }}\
        {% if 'tool_calls' in m %}{{ '{\"name\": \"' + m.tool_calls[0].function.name + '\", \"parameters\": ' }}\
        {{ m.tool_calls[0].function.arguments | tojson + '}' }}{% else %}{{ m.content }}{% endif %}{% endfor %}{{ '\n' }}";
    for tokens in [&tokens[..], &tokens[1..]] {
        let mut model = answering(tokens);
        model.set("tokenizer.chat_template", Val::Str(template.into()));
        with_control(&mut model, tokens, &["<|python_tag|>"]);
        let server = Server::new(&model, &["-c", "1024"]);
        for choice in ["auto", "required"] {
            let whole = server.ok(CHAT, &asking("Hi", json!({ "tools": tools(), "tool_choice": choice })));
            let message = &whole["choices"][0]["message"];
            assert_eq!(message["tool_calls"][0]["function"], json!({ "name": "now", "arguments": "{}" }), "{whole}");
            assert_eq!(message["content"], Value::Null);
        }
    }
}

/// So are those around thoughts, whose spelling is the family's.
#[test]
fn thoughts_may_be_marked_by_control_tokens() {
    let tokens = ["[THINK]", "Hm", ".", "[/THINK]", "Yes", "."];
    let mut model = answering(&tokens);
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}{# [THINK][/THINK] #}{{ '\n' }}";
    model.set("tokenizer.chat_template", Val::Str(template.into()));
    with_control(&mut model, &tokens, &["[THINK]", "[/THINK]"]);
    let server = Server::new(&model, &["-c", "1024"]);
    for more in [json!({}), json!({ "tools": tools() })] {
        let message = &server.ok(CHAT, &asking("Hi", more))["choices"][0]["message"];
        assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("Hm."), &json!("Yes.")));
    }
}

/// Makes control tokens of those tokens of a scripted answer.
fn with_control(model: &mut Gguf, tokens: &[&str], control: &[&str]) {
    let kinds = (0..259).map(|i| if i < 256 { 1 } else { 3 });
    let kinds = kinds.chain(tokens.iter().map(|token| if control.contains(token) { 3 } else { 1 }));
    model.set("tokenizer.ggml.token_type", Val::I32s(kinds.collect()));
}

/// What a model is told of tools, of its calls, and of what came of them.
#[test]
fn results_are_told_to_the_model() {
    let server = Server::new(&answering(&["Fine", "."]), &["-c", "2048", "-v", "--log-prompts"]);
    let call = json!({ "id": "call_1", "type": "function",
                       "function": { "name": "weather", "arguments": "{\"place\": \"Bern <|im_end|>\"}" } });
    let mut messages = json!([
        { "role": "user", "content": "How is it?" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "call_1", "content": "sunny" },
    ]);
    let whole = server.ok(CHAT, &json!({ "messages": messages, "tools": tools() }));
    assert_eq!(
        (&whole["choices"][0]["message"]["content"], &whole["choices"][0]["finish_reason"]),
        (&json!("Fine."), &json!("stop"))
    );
    let log = server.log_with("answer: Fine.");
    for told in [
        "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Of a place.\", \"parameters\": {",
        "<|im_start|>assistant\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": \"Bern <|im_end|>\"}}\n</tool_call><|im_end|>",
        "<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>",
    ] {
        assert!(log.contains(&logged(told)), "{told}: {log}");
    }
    // ollama's have no ids.
    messages[1]["tool_calls"] = json!([{ "function": { "name": "weather", "arguments": { "place": "Bern" } } }]);
    messages[2] = json!({ "role": "tool", "tool_name": "weather", "content": "rainy" });
    let whole = server.ok("/api/chat", &json!({ "messages": messages, "stream": false }));
    assert_eq!(whole["message"]["content"], "Fine.");
    server.log_with(&logged("<tool_response>\nrainy\n</tool_response>"));
}

/// Whatever the model, a call that is wanted comes, and its arguments are of their schema.
#[test]
fn arguments_are_of_their_schema() {
    // Where arguments are JSON, and where a family has words of its own.
    let f = Folder::new();
    let shown = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% for t in tools %}{{ t | tojson }}{% endfor %}";
    let gemma = f.write("gemma.jinja", format!("{shown}{{# <|tool_call>call: #}}").as_bytes());
    let servers = [&[][..], &["--chat-template", &gemma]]
        .map(|more| Server::with_file(&roomy(), &[&["-c", "4096"], more].concat(), &[]));
    let (n, mut whole) = (deep(500, 20), 0);
    for i in 0..n {
        let server = &servers[i / 2 % 2];
        let mut dice = Dice::new(noise(i as u64, 400));
        let value = schema(&mut dice, 2);
        let parameters = json!({ "type": "object", "properties": { "v": value }, "required": ["v"] });
        let tool = |name: &str| json!({ "type": "function", "function": { "name": name, "parameters": parameters } });
        let choice = match i % 2 {
            0 => json!("required"),
            _ => json!({ "type": "function", "function": { "name": "b" } }),
        };
        let more = json!({ "tools": [tool("a"), tool("b")], "tool_choice": choice, "parallel_tool_calls": false,
                           "temperature": 1, "seed": i, "max_tokens": 600 });
        let answer = server.ok(CHAT, &asking("Hi", more));
        let choice = &answer["choices"][0];
        if choice["finish_reason"] == "length" {
            continue;
        }
        let function = &choice["message"]["tool_calls"][0]["function"];
        let arguments: Map<String, Value> = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        assert!(is_valid(&value, &arguments["v"]) && arguments.len() == 1, "{value}: {answer}");
        let names = if i % 2 == 0 { &["a", "b"][..] } else { &["b"] };
        assert!(names.contains(&function["name"].as_str().unwrap()), "{answer}");
        assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
        whole += 1;
    }
    assert!(whole * 10 >= n * 9, "{whole} of {n}");
}

#[test]
fn bad_requests_name_what_is_wrong() {
    let server = Server::new(&answering(&["Fine", "."]), &["-c", "1024"]);
    let with = |parameters: Value| json!({ "tools": [weather(), { "type": "function", "function": { "name": "f", "parameters": parameters } }] });
    let tool_message = json!({ "messages": [{ "role": "user", "content": "Hi" }, { "role": "tool", "content": "x" }] });
    for (more, param, code) in [
        (json!({ "tools": "weather" }), "tools", "invalid_type"),
        (json!({ "tools": [{ "type": "function" }] }), "tools[0].function", "missing_required_parameter"),
        (json!({ "tools": [{ "type": "file_search" }] }), "tools[0].type", "unsupported_parameter"),
        (json!({ "tools": [weather(), weather()] }), "tools[1]", "invalid_value"),
        (json!({ "tools": tools(), "tool_choice": "sometimes" }), "tool_choice", "invalid_value"),
        (
            json!({ "tools": tools(), "tool_choice": { "type": "function", "function": { "name": "none" } } }),
            "tool_choice",
            "invalid_value",
        ),
        (with(json!({ "type": "strange" })), "tools[1].function.parameters", "invalid_function_parameters"),
        (
            with(json!({ "properties": { "x": { "type": "strange" } } })),
            "tools[1].function.parameters",
            "invalid_function_parameters",
        ),
        (
            with(
                json!({ "properties": { "x": { "type": "integer", "minimum": 2, "maximum": 1 } }, "required": ["x"] }),
            ),
            "tools[1].function.parameters",
            "invalid_function_parameters",
        ),
        (
            json!({ "tools": tools(), "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "strange" } } } }),
            "response_format",
            "invalid_value",
        ),
        (json!({ "tools": tools(), "grammar": "root ::= \"a\"" }), "grammar", "unsupported_parameter"),
        (tool_message, "messages[1].tool_call_id", "missing_required_parameter"),
    ] {
        let reply = server.post(CHAT, &asking("Hi", more.clone()));
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, &error["param"], &error["code"]),
            (400, &json!(param), &json!(code)),
            "{more}: {error}"
        );
    }
    assert_eq!(
        server.ok(CHAT, &asking("Hi", json!({ "tools": tools() })))["choices"][0]["message"]["content"],
        "Fine."
    );
}

/// A document where nothing is called.
#[test]
fn tools_beside_a_schema() {
    let server = Server::with_file(&roomy(), &["-c", "1024"], &[]);
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer", "maximum": 9, "minimum": 0 } },
                         "required": ["n"], "additionalProperties": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": schema } });
    for seed in 0..4 {
        let more = json!({ "tools": [{ "type": "function", "function": { "name": "now" } }], "response_format": format,
                           "parallel_tool_calls": false, "seed": seed, "temperature": 1, "max_tokens": 200 });
        let message = &server.ok(CHAT, &asking("Hi", more))["choices"][0]["message"];
        match message["content"].as_str() {
            Some(text) => assert!(serde_json::from_str::<Value>(text).unwrap()["n"].is_u64(), "{message}"),
            None => assert_eq!(message["tool_calls"][0]["function"], json!({ "name": "now", "arguments": "{}" })),
        }
    }
}

/// A family that makes one call at a time: that is what a response says of its request, and what histories of others become.
#[test]
fn one_call_at_a_time() {
    let f = Folder::new();
    // Of Llama 3, what its family is known by, and what it refuses.
    let template = "{# <|start_header_id|> \"parameters\": #}{% for t in tools %}{{ t | tojson }}{% endfor %}{% for m in messages %}\
                    {% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one at a time') }}{% endif %}\
                    {{ m.tool_calls[0].function | tojson }}{% else %}{{ m.content }}{% endif %};{% endfor %}{{ '\\n' }}";
    let template = f.write("llama.jinja", template.as_bytes());
    let server = Server::new(&answering(&["Fine", "."]), &["-c", "2048", "--chat-template", &template]);
    let now = json!({ "type": "function", "name": "now", "description": "", "parameters": { "type": "object", "properties": {} } });
    let said = |more: Value| {
        let mut request = json!({ "input": "Hi", "parallel_tool_calls": true });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.ok("/v1/responses", &request)["parallel_tool_calls"].clone()
    };
    assert_eq!((said(json!({ "tools": [now] })), said(json!({}))), (json!(false), json!(true)));
    let call = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "now", "arguments": "{}" } });
    let result = |id: &str| json!({ "role": "tool", "tool_call_id": id, "content": id });
    let messages = json!([
        { "role": "user", "content": "Hi" },
        { "role": "assistant", "content": null, "tool_calls": [call("a"), call("b")] }, result("a"), result("b"),
    ]);
    let tools = json!([{ "type": "function", "function": { "name": "now" } }]);
    let answer = server.ok(CHAT, &json!({ "messages": messages, "tools": tools }));
    assert_eq!(answer["choices"][0]["message"]["content"], "Fine.");
}

/// The same in the items and events of `/v1/responses`.
#[test]
fn responses_have_calls_as_items() {
    let server = Server::new(&answering(&CALLS), &["-c", "1024", "-v", "--log-prompts"]);
    let flat = json!([{ "type": "function", "name": "weather", "parameters": weather()["function"]["parameters"], "strict": false },
                      { "type": "function", "name": "now" }]);
    let whole = server.ok("/v1/responses", &json!({ "input": "Hi", "tools": flat }));
    let items = whole["output"].as_array().unwrap();
    let kinds: Vec<&str> = items.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(
        (kinds, &whole["status"]),
        (vec!["message", "function_call", "function_call"], &json!("completed")),
        "{whole}"
    );
    assert_eq!(
        (&items[1]["name"], &items[1]["arguments"]),
        (&json!("weather"), &json!("{\"place\": \"Z\u{fc}rich\"}"))
    );

    let stream = server.stream("/v1/responses", &json!({ "input": "Hi", "tools": flat, "stream": true })).rest();
    let events: Vec<Value> = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let deltas = of("response.function_call_arguments.delta");
    let first = deltas.iter().filter(|event| event["output_index"] == 1).map(|event| event["delta"].as_str().unwrap());
    assert_eq!(first.collect::<String>(), "{\"place\": \"Z\u{fc}rich\"}");
    assert_eq!(of("response.function_call_arguments.done").len(), 2);
    assert_eq!(of("response.output_item.done").len(), 3);
    let last = &events.last().unwrap()["response"]["output"];
    let plain = |item: &Value| (item["type"].clone(), item["name"].clone(), item["arguments"].clone());
    assert!(last.as_array().unwrap().iter().map(plain).eq(items.iter().map(plain)), "{last}");

    // What came is sent back as it is, with its results.
    let mut input = vec![json!({ "role": "user", "content": "Hi" })];
    input.extend(items.iter().cloned());
    for (i, said) in [(1, "sunny"), (2, "noon")] {
        input.push(json!({ "type": "function_call_output", "call_id": items[i]["call_id"], "output": said }));
    }
    server.ok("/v1/responses", &json!({ "input": input, "tools": flat }));
    server
        .log_with(&logged("</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call><|im_end|>"));
    server.log_with(&logged(
        "<tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response><|im_end|>",
    ));
    let reply = server.post(
        "/v1/responses",
        &json!({ "input": [{ "type": "function_call_output", "call_id": "x", "output": "y" }] }),
    );
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("input[0].call_id")));
}
