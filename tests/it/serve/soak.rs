//! Hours of a server, in short: thousands of requests of clients of every kind, most of which behave badly.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Connection, Server, events, head};
use crate::common::deep;
use crate::common::gguf::byte_level_model;

const TEXTS: &str = "/v1/completions";
/// Requests whose answers are known, each of its own prompt.
const NONCES: usize = 32;
const WORKERS: usize = 6;
/// What may be resident beyond the warm-up, in KiB.
const GROWTH: usize = 1024;

fn request(nonce: usize, stream: bool) -> Value {
    json!({ "prompt": format!("{} is the number of this one", nonce * 7919), "max_tokens": 8 + nonce % 9, "temperature": 0,
            "stream": stream })
}

/// The text of an answer that came whole, or in events.
fn text(body: &str, stream: bool) -> String {
    let of = |event: &Value| event["choices"][0]["text"].as_str().unwrap_or_default().to_string();
    if stream { events(body).iter().map(of).collect() } else { of(&serde_json::from_str(body).unwrap()) }
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
    /// Connections that are open and say no more.
    open: VecDeque<Connection>,
    answered: &'a AtomicUsize,
    refused: &'a AtomicUsize,
}

impl Client<'_> {
    fn takes_turn(&mut self, turn: usize) {
        let nonce = turn * 31 % NONCES;
        match turn % 8 {
            0 | 1 => self.asks(nonce, false, Duration::ZERO),
            2 | 3 => self.asks(nonce, true, Duration::ZERO),
            4 => self.asks(nonce, true, Duration::from_millis(20)),
            5 => self.leaves(),
            6 => self.babbles(turn),
            _ => self.hangs(turn),
        }
    }

    /// Reads its answer, after a while.
    fn asks(&mut self, nonce: usize, stream: bool, pause: Duration) {
        let connection = self.begins(&request(nonce, stream));
        thread::sleep(pause);
        let reply = connection.reply();
        match reply.status {
            200 => {
                assert_eq!(text(&reply.body, stream), self.want[nonce], "the answer of another");
                self.answered.fetch_add(1, SeqCst);
            }
            429 | 503 => drop(self.refused.fetch_add(1, SeqCst)),
            status => panic!("{status}: {}", reply.body),
        }
    }

    fn begins(&self, request: &Value) -> Connection {
        let (body, mut connection) = (request.to_string(), self.server.connect());
        connection.send(&head("POST", TEXTS, &[], body.len()));
        connection.send(&body);
        connection
    }

    /// Goes away in the middle of an answer.
    fn leaves(&self) {
        let mut connection = self.begins(&json!({ "prompt": "gone", "max_tokens": 100, "stream": true }));
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
            "{\"prompt\": \"a\", \"max_tokens\": -1}",
        ];
        let reply = self.server.send("POST", TEXTS, &[], bodies[turn / 8 % bodies.len()]);
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert!(reply.json()["error"]["message"].is_string());
    }

    /// Begins a request, and keeps the connection.
    fn hangs(&mut self, turn: usize) {
        let mut connection = self.server.connect();
        let whole = head("POST", TEXTS, &[], 100);
        connection.send(if turn.is_multiple_of(16) { &whole } else { &whole[..whole.len() / 2] });
        self.open.push_back(connection);
        if self.open.len() > 4 {
            self.open.pop_front();
        }
    }
}

#[test]
fn nothing_is_lost_and_nothing_grows() {
    let options = ["--users", "3", "-c", "128", "--queue", "2", "--chunk", "16", "--timeout", "2"];
    let server = Server::with_file(&byte_level_model(3), &options, &[]);
    let want: Vec<String> =
        (0..NONCES).map(|nonce| text(&server.post(TEXTS, &request(nonce, false)).body, false)).collect();
    assert!((1..NONCES).all(|i| want[i..].iter().all(|other| *other != want[i - 1])), "{want:?}");
    let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let rounds = |from: usize, to: usize| {
        thread::scope(|scope| {
            for worker in 0..WORKERS {
                let open = VecDeque::new();
                let mut client = Client { server: &server, want: &want, open, answered: &answered, refused: &refused };
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
