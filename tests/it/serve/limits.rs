//! Who may ask, how much, and how long.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::client::{Server, asking, head};
use super::{ANSWER, TEXT};
use crate::cli::{Folder, fails_with};
use crate::common::program;
use crate::common::scripted::{answering, endless};

const CHAT: &str = "/v1/chat/completions";

fn server(options: &[&str]) -> Server {
    Server::new(&answering(&ANSWER), &[&["-c", "256"], options].concat())
}

#[test]
fn other_hosts_and_origins_are_refused() {
    let server = server(&["--allow-host", "board.example", "--cors", "https://ui.example"]);
    let body = asking("Hi", json!({})).to_string();
    let status = |headers: &[&str]| server.send("POST", CHAT, headers, &body).status;
    for host in ["127.0.0.1:80", "localhost", "[::1]:8080", "board.example:8080"] {
        assert_eq!(status(&[&format!("Host: {host}")]), 200, "{host}");
    }
    let rebound = server.send("POST", CHAT, &["Host: evil.example"], &body);
    assert_eq!((rebound.status, &rebound.json()["error"]["code"]), (403, &json!("host_not_allowed")));
    assert_eq!(status(&["Host: "]), 403);
    for second in ["localhost", "evil.example"] {
        assert_eq!(status(&["Host: localhost", &format!("Host: {second}")]), 400, "{second}");
    }
    assert_eq!(status(&["Origin: http://evil.example"]), 403);
    assert_eq!(status(&["Origin: http://localhost"]), 200);
    // What a page of an allowed origin gets, and of another does not.
    let page = server.send("POST", CHAT, &["Origin: https://ui.example"], &body);
    assert!(page.status == 200 && page.headers.contains("access-control-allow-origin: https://ui.example"));
    let asks = |origin: &str| server.send("OPTIONS", CHAT, &[origin, "Access-Control-Request-Method: POST"], "");
    let preflight = asks("Origin: https://ui.example");
    assert!(preflight.status == 204 && preflight.headers.contains("access-control-allow-headers: authorization"));
    let other = asks("Origin: https://evil.example");
    assert!(other.status == 403 && !other.headers.contains("access-control"));
    assert!(!server.get("/v1/models").headers.contains("access-control"));
}

#[test]
fn a_key_is_needed_where_there_is_one() {
    let folder = Folder::new();
    let file = folder.write("key", b"secret\n");
    let model = answering(&ANSWER).build();
    let in_environment = Server::with_file(&model, &[], &[("ARMLET_API_KEY", "secret")]);
    for server in [server(&["--api-key-file", &file]), in_environment] {
        assert_eq!((server.get("/health").status, server.get("/v1/models").status), (200, 401));
        let with = |key: &str| server.send("GET", "/v1/models", &[&format!("Authorization: {key}")], "");
        assert_eq!((with("Bearer secret").status, with("bearer secret").status), (200, 200));
        for wrong in ["Bearer secre", "Bearer secret2", "secret", "Bearer"] {
            let reply = with(wrong);
            assert_eq!((reply.status, &reply.json()["error"]["code"]), (401, &json!("invalid_api_key")), "{wrong}");
            assert!(reply.headers.contains("www-authenticate: bearer"));
        }
        assert_eq!(server.send("POST", CHAT, &[], &asking("Hi", json!({})).to_string()).status, 401);
    }
}

#[test]
fn nobody_else_can_reach_it_unless_asked() {
    let folder = Folder::new();
    let model = folder.write("tiny.gguf", &answering(&ANSWER).build());
    let fails =
        |more: &[&str], what: &str| fails_with(&[&["serve", "-m", &model, "--port", "0"], more].concat(), 2, what);
    fails(&["--host", "0.0.0.0"], "--api-key-file");
    fails(&["--host", "::"], "--insecure");
    fails(&["--api-key", " "], "empty");
    let bad = ["serve", "-m", &model, "--port", "0", "--grammar", "root ::= other"];
    fails_with(&bad, 1, "there is no rule other");
    let open = server(&["--host", "0.0.0.0", "--insecure"]);
    open.log_with("whoever reaches this machine");
    assert!(server(&["--host", "localhost"]).address.ip().is_loopback());
}

#[test]
fn what_is_too_large_or_too_slow_is_refused() {
    let server = server(&["--max-body", "2KiB", "--timeout", "1"]);
    let large = asking(&"x".repeat(3000), json!({})).to_string();
    let reply = server.send("POST", CHAT, &[], &large);
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (413, &json!("request_too_large")));
    let packed = server.send("POST", CHAT, &["Content-Encoding: gzip"], "{}");
    assert_eq!((packed.status, &packed.json()["error"]["code"]), (415, &json!("unsupported_content_encoding")));
    // A body that does not say how long it is.
    let mut connection = server.connect();
    connection
        .send(&format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nBB8\r\n{large}"));
    assert_eq!(connection.reply().status, 413);
    // Half a head, half a body, and no request at all: others go on, and these end.
    let mut half = server.connect();
    half.send("POST /v1/chat/completions HTTP/1.1\r\nHost: local");
    let mut body = server.connect();
    body.send(&head("POST", CHAT, &[], 100));
    body.send("{");
    // Behind a request, with which it came, half of another; and an empty line, which is none.
    let health = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (mut second, mut line) = (server.connect(), server.connect());
    second.send(&format!("{health}GET /hea"));
    line.send(&format!("{health}\r\n"));
    let mut idle = server.connect();
    assert_eq!(server.ok(CHAT, &asking("Hi", json!({})))["choices"][0]["message"]["content"], TEXT);
    assert!(idle.is_closed());
    assert_eq!(body.reply().status, 408);
    let late = half.reply();
    assert!(late.status == 408 && late.json()["error"]["message"].is_string(), "{late:?}");
    let (second, line) = (second.all(), line.all());
    assert!(second.starts_with("HTTP/1.1 200 ") && second.contains("HTTP/1.1 408 "), "{second}");
    assert!(line.starts_with("HTTP/1.1 200 ") && line.matches("HTTP/1.1 ").count() == 1, "{line}");
    assert_eq!(server.get("/health").status, 200);
}

/// hyper has answers of its own to these, without a body; the one that is told comes behind those to requests before it.
#[test]
fn what_is_no_request_is_told_so() {
    let server = server(&[]);
    let head = |line: &str| format!("POST /tokenize HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n");
    let many: Vec<String> = (0..100).map(|i| format!("X{i}: y")).collect();
    for (bytes, status) in [
        ("\0\0\0\0\r\n\r\n".into(), 400),
        ("GET\r\n\r\n".into(), 400),
        ("GET / HTTP/9.9\r\n\r\n".into(), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0".into(), 400),
        // How TLS begins.
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".into(), 400),
        (head("no header"), 400),
        (head("Content-Length: 2\r\nContent-Length: 3"), 400),
        (head("Content-Length: -1"), 400),
        (head("Transfer-Encoding: gzip"), 400),
        (head(&format!("X: {}", "y".repeat(100_000))), 431),
        (head(&many.join("\r\n")), 431),
    ] {
        for before in ["", "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            let mut connection = server.connect();
            connection.send(before);
            connection.send(&bytes);
            let mut said = connection.all();
            if !before.is_empty() {
                let (first, rest) = said.split_once("{\"status\":\"ok\"}").unwrap_or_else(|| panic!("{said}"));
                assert!(first.starts_with("HTTP/1.1 200"), "{said}");
                said = rest.into();
            }
            let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{bytes}: {said:?}"));
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && head.contains("connection: close"), "{head}");
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["type"], "invalid_request_error", "{body}");
        }
    }
    assert_eq!(server.metric("requests_refused_total"), 22);
}

/// Who sends all of a body that nobody wants gets the answer to it, and knows that the connection ends.
#[test]
fn a_client_that_still_sends_gets_its_answer() {
    let server = server(&["--max-body", "2KiB", "--api-key", "secret"]);
    for (key, status) in [("secret", 413), ("other", 401)] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        let length = 4 << 20;
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // The server may give up where this test hardly runs; the answer is there all the same.
        let _ = stream.write_all(&vec![b' '; length]);
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")) && said.contains("connection: close"), "{said}");
    }
}

/// A connection goes on where the whole body was read, whatever the answer; else its client knows that it does not.
#[test]
fn a_connection_ends_where_a_body_was_left() {
    let server = server(&["--max-body", "512KiB"]);
    let values = json!({ "prompt": vec![0; 40_000] }).to_string();
    for (method, path, header, body, status, ends) in [
        ("POST", CHAT, "X: y", "{}", 400, false),
        ("POST", CHAT, "X: y", r#"{"model": "other"}"#, 404, false),
        ("POST", "/v1/completions", "X: y", &values, 413, false),
        ("GET", "/nothing", "X: y", "", 404, false),
        ("GET", CHAT, "Origin: http://evil.example", "", 403, false),
        ("POST", CHAT, "Host: second", "{}", 400, true),
        ("POST", CHAT, "Origin: http://evil.example", "{}", 403, true),
        ("POST", CHAT, "Content-Encoding: gzip", "{}", 415, true),
        ("POST", "/nothing", "X: y", "{}", 404, true),
        ("GET", "/health", "X: y", "{}", 200, true),
    ] {
        let mut connection = server.connect();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\nContent-Length: {length}\r\n\r\n");
        connection.send(&(head + body));
        let (found, headers) = connection.head();
        assert_eq!(
            (found, headers.contains("connection: close")),
            (status, ends),
            "{method} {path} {header}: {headers}"
        );
    }
}

/// A short body of many values would take many times its bytes.
#[test]
fn values_of_a_body_are_bounded() {
    let server = server(&[]);
    let zeros = |n: usize| server.send("POST", "/v1/completions", &[], &json!({ "prompt": vec![0; n] }).to_string());
    let refused = zeros(40_000);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (413, &json!("request_too_large")));
    assert_eq!(zeros(32_000).json()["error"]["code"], "context_length_exceeded");
    // Where a body is tokens there are as many as that route takes, whatever the context.
    let text = |n: usize| server.post("/detokenize", &json!({ "tokens": vec![0; n] }));
    assert_eq!((text(1 << 16).status, text((1 << 16) + 1).status), (200, 400));
    // Those within texts are, too, and over all calls.
    let arguments = json!({ "x": vec![0; 20_000] }).to_string();
    let function = json!({ "name": "f", "arguments": arguments });
    let call = json!({ "id": "a", "type": "function", "function": function });
    let item = json!({ "type": "function_call", "call_id": "a", "name": "f", "arguments": arguments });
    let said = json!({ "role": "assistant", "tool_calls": [call] });
    for (path, body) in
        [(CHAT, json!({ "messages": [said, said] })), ("/v1/responses", json!({ "input": [item, item] }))]
    {
        let refused = server.post(path, &body);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (413, &json!("request_too_large")), "{path}");
    }
}

#[test]
fn there_are_as_many_connections_as_may_be() {
    let server = server(&["--connections", "2"]);
    let (_first, second) = (server.connect(), server.connect());
    // These may still be on their way to being counted.
    let refused = loop {
        let reply = server.get("/health");
        if reply.status != 200 {
            break reply;
        }
    };
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains("retry-after: 1"));
    drop(second);
    while server.get("/health").status != 200 {}
}

#[test]
fn the_log_has_no_text_of_people_unless_asked() {
    for (options, shows) in [(&["-v"][..], false), (&["-v", "--log-prompts"], true), (&["-vv"], false)] {
        let server = server(options);
        server.ok(CHAT, &asking("my secret", json!({})));
        let log = server.log_with("POST /v1/chat/completions 200");
        assert_eq!((log.contains("my secret"), log.contains("Some")), (shows, shows), "{log}");
    }
}

/// SIGTERM: an answer that is nearly done is finished, one that would go on is told, and all is over soon.
#[test]
fn a_signal_ends_it_in_good_order() {
    let mut server = Server::new(&endless(), &["-c", "256"]);
    let mut stream = server.stream(CHAT, &asking("Hi", json!({ "stream": true, "max_tokens": 1_000_000 })));
    assert!(stream.chunk().is_some_and(|first| first.contains("assistant")));
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let rest = stream.rest();
    let last = rest.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains("\"error\"") && last.contains("ends"), "{last}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0), "{}", server.log());
}

/// Where addresses are limited, requests find room, or there is no server.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_of_addresses_leaves_room_for_bodies() {
    let f = Folder::new();
    let model = f.write("tiny.gguf", &endless().build());
    let refused = |mib: u32| {
        let options = "serve --port 0 -t 1 --users 1 --connections 64 --max-body 4MiB";
        let script = format!("ulimit -v {}; exec {} {options} -m {model}", mib << 10, program().display());
        let child = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let line = BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
        let is_refused = line.contains("the limit of addresses (ulimit -v) is ") && line.contains("fewer --users");
        assert!(is_refused || line.contains("on http://"), "{line}");
        // A server goes on until then.
        let _ = child.kill();
        child.wait().unwrap();
        is_refused
    };
    assert!(refused(256) && !refused(1024));
}
