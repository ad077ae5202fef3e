//! Hours of a server, in short: thousands of requests of clients of every kind, most of which behave badly.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Connection, Reply, Server, events, head};
use crate::common::deep;
use crate::common::gguf::{Tiny, byte_level_model_of};

const TEXTS: &str = "/v1/completions";
const CHATS: &str = "/v1/chat/completions";
/// Requests whose answers are known, each of its own prompt.
const NONCES: usize = 32;
const WORKERS: usize = 6;
/// Tokens of a long answer.
const LONG: usize = 400;
/// What may be resident beyond the warm-up, in KiB.
const GROWTH: usize = 1024;

fn request(nonce: usize, stream: bool) -> Value {
    json!({ "prompt": format!("{} is the number of this one", nonce * 7919), "max_tokens": 8 + nonce % 9, "temperature": 0,
            "stream": stream })
}

/// A request whose answer is more than sockets hold: of tokens that end none, with the likeliest of each.
fn long(nonce: usize) -> Value {
    let messages = json!([{ "role": "user", "content": format!("{nonce} is slow") }]);
    json!({ "messages": messages, "max_tokens": LONG, "stream": true, "logprobs": true, "top_logprobs": 20,
            "grammar": format!("root ::= [a-z]{{{}}}", 2 * LONG) })
}

/// The text of an answer that came whole, or in events.
fn text(body: &str, stream: bool) -> String {
    let of = |event: &Value| event["choices"][0]["text"].as_str().unwrap_or_default().to_string();
    if stream { events(body).iter().map(of).collect() } else { of(&serde_json::from_str(body).unwrap()) }
}

/// Requests of every other kind, and what they are asked for with a body: templates, schemas, tools, and both APIs.
fn others() -> [(&'static str, Value); 6] {
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    let schema = json!({ "type": "object", "required": ["a"], "additionalProperties": false,
                         "properties": { "a": { "enum": ["x", "yy", 7] } } });
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": schema } });
    let ollama = json!({ "num_predict": 9, "temperature": 0 });
    [
        (CHATS, json!({ "messages": messages, "max_tokens": 9, "temperature": 0 })),
        (
            CHATS,
            json!({ "messages": messages, "temperature": 0, "response_format":
                        { "type": "json_schema", "json_schema": { "name": "s", "strict": true, "schema": schema } } }),
        ),
        (CHATS, json!({ "messages": messages, "temperature": 0, "tools": [tool], "tool_choice": "required" })),
        ("/v1/responses", json!({ "input": "Hi", "max_output_tokens": 9, "temperature": 0 })),
        ("/api/chat", json!({ "messages": messages, "stream": false, "options": ollama })),
        ("/api/generate", json!({ "prompt": "Hi", "stream": false, "options": ollama })),
    ]
}

/// What an answer of any API says, without its number and times.
fn said(answer: &Value) -> String {
    let mut message = answer["choices"][0]["message"].clone();
    message["tool_calls"].as_array_mut().into_iter().flatten().for_each(|call| call["id"] = Value::Null);
    let output = answer["output"].as_array().into_iter().flatten().map(|item| &item["content"][0]["text"]);
    json!([message, output.collect::<Vec<_>>(), answer["message"]["content"], answer["response"]]).to_string()
}

fn resident(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// One client after another: what each of them does is a matter of `turn`.
struct Client<'a> {
    server: &'a Server,
    want: &'a [String],
    /// What is said to [`others`].
    others: &'a [String],
    /// Connections that are open and say no more.
    open: VecDeque<Connection>,
    answered: &'a AtomicUsize,
    refused: &'a AtomicUsize,
}

impl Client<'_> {
    fn takes_turn(&mut self, turn: usize) {
        let nonce = turn * 31 % NONCES;
        match turn % 12 {
            0 | 1 => self.asks(nonce, false),
            2 | 3 => self.asks(nonce, true),
            4 => self.dawdles(turn),
            5 => self.leaves(),
            6 => self.babbles(turn),
            7 => self.hangs(turn),
            _ => self.asks_otherwise(turn * 31 % self.others.len()),
        }
    }

    fn asks(&mut self, nonce: usize, stream: bool) {
        let reply = self.begins(TEXTS, &request(nonce, stream)).reply();
        if self.is_answer(&reply) {
            assert_eq!(text(&reply.body, stream), self.want[nonce], "the answer of another");
        }
    }

    fn asks_otherwise(&mut self, i: usize) {
        let (path, request) = &others()[i];
        let reply = self.begins(path, request).reply();
        if self.is_answer(&reply) {
            assert_eq!(said(&reply.json()), self.others[i], "the answer of another");
        }
    }

    /// Reads an answer of more than the sockets hold only when it has waited for a while. The tokens are all there.
    fn dawdles(&mut self, turn: usize) {
        let connection = self.begins(CHATS, &long(turn % NONCES));
        thread::sleep(Duration::from_millis(20 + turn as u64 % 7 * 30));
        let reply = connection.reply();
        if self.is_answer(&reply) {
            let events = events(&reply.body);
            let tokens = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
            assert_eq!(tokens.map(Vec::len).sum::<usize>(), LONG, "{:?}", events.last());
        }
    }

    /// Whether it was answered: else there were too many.
    fn is_answer(&self, reply: &Reply) -> bool {
        let count = match reply.status {
            200 => self.answered,
            429 | 503 => self.refused,
            status => panic!("{status}: {}", reply.body),
        };
        count.fetch_add(1, SeqCst);
        reply.status == 200
    }

    fn begins(&self, path: &str, request: &Value) -> Connection {
        let (body, mut connection) = (request.to_string(), self.server.connect());
        connection.send(&head("POST", path, &[], body.len()));
        connection.send(&body);
        connection
    }

    /// Goes away in the middle of an answer.
    fn leaves(&self) {
        let mut connection = self.begins(TEXTS, &json!({ "prompt": "gone", "max_tokens": 100, "stream": true }));
        if connection.head().0 == 200 {
            connection.chunk();
        }
    }

    /// Says what is no request.
    fn babbles(&self, turn: usize) {
        let bodies = [
            "",
            "{",
            "[]",
            "{\"prompt\": 1}",
            "{\"prompt\": \"a\", \"n\": 7}",
            "\u{1}",
            "{\"prompt\": \"a\", \"max_tokens\": -2}",
        ];
        let reply = self.server.send("POST", TEXTS, &[], bodies[turn / 12 % bodies.len()]);
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert!(reply.json()["error"]["message"].is_string());
    }

    /// Begins a request, and keeps the connection.
    fn hangs(&mut self, turn: usize) {
        let mut connection = self.server.connect();
        let whole = head("POST", TEXTS, &[], 100);
        connection.send(if turn.is_multiple_of(24) { &whole } else { &whole[..whole.len() / 2] });
        self.open.push_back(connection);
        if self.open.len() > 4 {
            self.open.pop_front();
        }
    }
}

#[test]
fn nothing_is_lost_and_nothing_grows() {
    let options = ["--users", "3", "-c", "1024", "--queue", "2", "--chunk", "16", "--timeout", "2"];
    let server =
        Server::with_file(&byte_level_model_of(Tiny { seed: 3, context: 1024, ..Tiny::default() }), &options, &[]);
    let want: Vec<String> =
        (0..NONCES).map(|nonce| text(&server.post(TEXTS, &request(nonce, false)).body, false)).collect();
    assert!((1..NONCES).all(|i| want[i..].iter().all(|other| *other != want[i - 1])), "{want:?}");
    let others: Vec<String> = others().iter().map(|(path, request)| said(&server.ok(path, request))).collect();
    let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let rounds = |from: usize, to: usize| {
        thread::scope(|scope| {
            for worker in 0..WORKERS {
                let open = VecDeque::new();
                let mut client = Client {
                    server: &server,
                    want: &want,
                    others: &others,
                    open,
                    answered: &answered,
                    refused: &refused,
                };
                scope.spawn(move || (from + worker..to).step_by(WORKERS).for_each(|turn| client.takes_turn(turn)));
            }
        });
        server.until("requests_running", 0);
        server.until("requests_waiting", 0);
    };
    let (warm, all) = (deep(2_000, 120), deep(20_000, 240));
    rounds(0, warm);
    let before = resident(&server);
    rounds(warm, all);
    let after = resident(&server);
    let (answered, refused) = (answered.load(SeqCst), refused.load(SeqCst));
    println!(
        "{all} requests: {answered} answered, {refused} refused as too many; resident {before} KiB, then {after} KiB"
    );
    assert!(after <= before + GROWTH, "{before} KiB, then {after} KiB");
    assert!(answered > all / 4, "{answered} of {all}");
    assert_eq!(server.metric("answers_failed_total"), 0);
    // Every slot still answers.
    for (nonce, want) in want.iter().enumerate() {
        assert_eq!(text(&server.post(TEXTS, &request(nonce, true)).body, true), *want);
    }
}
