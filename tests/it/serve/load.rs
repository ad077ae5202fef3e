//! Many clients at once: an answer under load is the answer alone, a client that is gone or slow costs others nothing.

use std::thread;

use serde_json::{Value, json};

use super::client::{Server, asking, events};
use crate::cli::{Folder, armlet, fails_with, ok, stderr};
use crate::common::deep;
use crate::common::gguf::{Gguf, byte_level_model};
use crate::common::scripted::repeating;

const CHAT: &str = "/v1/chat/completions";
const TEXTS: &str = "/v1/completions";

/// A model that counts to 20, again and again.
fn counting() -> Gguf {
    let words: Vec<_> = (0..20).map(|i| format!("w{i} ")).collect();
    repeating(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Requests of different lengths and settings, each with a text that only it has.
fn request(i: usize) -> Value {
    let temperature = if i.is_multiple_of(2) { 0.0 } else { 1.2 };
    let prompt = format!("{}{} is the number of this one", "shared words ".repeat(i % 4), i);
    json!({ "prompt": prompt, "max_tokens": 4 + i % 17, "temperature": temperature, "seed": i, "repeat_penalty": 1.3,
            "logit_bias": { "65": 1 }, "stream": i.is_multiple_of(3) })
}

fn text(server: &Server, request: &Value) -> String {
    let of = |event: &Value| event["choices"][0]["text"].as_str().unwrap_or_default().to_string();
    if request["stream"] == true {
        events(&server.stream(TEXTS, request).rest()).iter().map(of).collect()
    } else {
        of(&server.ok(TEXTS, request))
    }
}

#[test]
fn an_answer_under_load_is_the_answer_alone() {
    let model = byte_level_model(3);
    let n = deep(200, 24);
    let alone = Server::with_file(&model, &["--users", "1", "-c", "128", "--speculate", "off"], &[]);
    let want: Vec<String> = (0..n).map(|i| text(&alone, &request(i))).collect();
    let server = Server::with_file(&model, &["--users", "3", "-c", "128", "--queue", "64", "--chunk", "16"], &[]);
    let workers = 6;
    thread::scope(|scope| {
        for worker in 0..workers {
            let (server, want) = (&server, &want);
            scope.spawn(move || {
                for i in (worker..n).step_by(workers) {
                    assert_eq!(text(server, &request(i)), want[i], "{i}");
                    // One that its client leaves.
                    drop(server.stream(TEXTS, &json!({ "prompt": "gone", "max_tokens": 100, "stream": true })));
                }
            });
        }
    });
    server.until("requests_running", 0);
    assert_eq!(server.metric("answers_failed_total"), 0);
    assert!(want.iter().collect::<std::collections::BTreeSet<_>>().len() > n / 2, "{want:?}");
}

/// An answer that counts again and again is read in advance; another beside it has its own, and so has the next one in its slot.
#[test]
fn speculation_shows_in_nothing_but_its_count() {
    let ask = |server: &Server, n: usize| {
        let whole = server.ok(CHAT, &asking("Hi", json!({ "max_tokens": n })));
        let count = |key: &str| usize::try_from(whole["timings"][key].as_u64().unwrap()).unwrap();
        (whole["choices"][0]["message"]["content"].clone(), count("draft_n"), count("draft_n_accepted"))
    };
    let serve = |speculate: &str| Server::new(&counting(), &["--users", "2", "-c", "256", "--speculate", speculate]);
    let [off, auto] = ["off", "auto"].map(serve);
    let (want, drafted, _) = ask(&off, 120);
    assert_eq!((drafted, off.metric("draft_tokens_total")), (0, 0));
    let (mut drafts, mut held) = (0, 0);
    for _ in 0..2 {
        let (text, drafted, accepted) = ask(&auto, 120);
        assert_eq!(text, want);
        assert!(accepted > 60 && accepted <= drafted && drafted <= 120, "{accepted} of {drafted}");
        (drafts, held) = (drafts + drafted, held + accepted);
    }
    let metrics = ["draft_tokens_total", "draft_tokens_accepted_total"].map(|name| auto.metric(name) as usize);
    assert_eq!(metrics, [drafts, held]);
    thread::scope(|scope| {
        for n in [40, 80, 120] {
            let (auto, want) = (&auto, &want);
            scope.spawn(move || assert!(want.as_str().unwrap().starts_with(ask(auto, n).0.as_str().unwrap())));
        }
    });
    let usage = armlet().args(["serve", "--speculate", "8"]).output().unwrap();
    assert!(usage.status.code() == Some(2) && stderr(&usage).contains("from 0 to 7"), "{}", stderr(&usage));
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let server = Server::new(&counting(), &["--users", "1", "-c", "256"]);
    let endless = asking("Hi", json!({ "stream": true, "max_tokens": 10_000_000 }));
    let mut stream = server.stream(CHAT, &endless);
    assert!(stream.chunk().is_some());
    server.until("requests_running", 1);
    drop(stream);
    server.until("requests_running", 0);
    // One that reads nothing, and one that waits for a slot.
    let mut connections: Vec<_> = (0..2).map(|_| server.connect()).collect();
    let body = endless.to_string();
    for connection in &mut connections {
        connection.send(&super::client::head("POST", CHAT, &[], body.len()));
        connection.send(&body);
    }
    server.until("requests_waiting", 1);
    drop(connections.pop());
    drop(connections);
    server.until("requests_waiting", 0);
    server.until("requests_running", 0);
    assert_eq!(server.metric("answers_cancelled_total"), 3);
    server.ok(CHAT, &asking("Hi", json!({ "max_tokens": 3 })));
}

#[test]
fn a_full_queue_says_when_to_try_again() {
    let server = Server::new(&counting(), &["--users", "1", "--queue", "1", "-c", "256"]);
    let endless = asking("Hi", json!({ "stream": true, "max_tokens": 10_000_000 }));
    let mut running = server.stream(CHAT, &endless);
    assert!(running.chunk().is_some());
    server.until("requests_running", 1);
    let waiting = server.stream(CHAT, &endless);
    server.until("requests_waiting", 1);
    let reply = server.post(CHAT, &endless);
    let seconds = reply.headers.lines().find_map(|line| line.strip_prefix("retry-after: "));
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    assert!(seconds.is_some_and(|seconds| (1..=60).contains(&seconds.parse::<u32>().unwrap())), "{reply:?}");
    drop((running, waiting));
    server.until("requests_running", 0);
    server.ok(CHAT, &asking("Hi", json!({ "max_tokens": 3 })));
}

/// A client that reads nothing has its answer wait; another gets all of its own.
#[test]
fn a_slow_reader_holds_up_nobody() {
    let server = Server::new(&counting(), &["--users", "2", "-c", "256"]);
    let mut slow = server.stream(CHAT, &asking("Hi", json!({ "stream": true, "max_tokens": 1500 })));
    assert!(slow.chunk().is_some());
    for _ in 0..3 {
        let whole = server.ok(CHAT, &asking("Hi", json!({ "max_tokens": 40 })));
        assert_eq!(whole["usage"]["completion_tokens"], 40);
    }
    // Far more than sockets hold: it has waited, and goes on where it was.
    let events = events(&(slow.rest()));
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    let numbers: Vec<usize> = text.split_whitespace().map(|word| word[1..].parse().unwrap()).collect();
    assert_eq!(numbers.len(), 1500);
    assert!(numbers.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 20));
}

/// A client that reads nothing keeps its place for long only where nobody waits for it.
#[test]
fn who_reads_nothing_gives_way_to_who_waits() {
    let stuck = |users: &str| {
        let server = Server::new(&counting(), &["--users", users, "-c", "256"]);
        let more = json!({ "stream": true, "max_tokens": 1_000_000, "logprobs": true, "top_logprobs": 20 });
        let mut stream = server.stream(CHAT, &asking("Hi", more));
        assert!(stream.chunk().is_some());
        (server, stream)
    };
    let (servers, _streams): (Vec<Server>, Vec<_>) = ["1", "2", "1"].map(stuck).into_iter().unzip();
    let [alone, roomy, asked] = &servers[..] else { unreachable!() };
    let ask = |server: &Server| {
        let answer = server.ok(CHAT, &asking("Hi", json!({ "max_tokens": 4 })));
        assert_eq!(answer["usage"]["completion_tokens"], 4, "{answer}");
    };
    ask(asked);
    // As long has another waited, whose place nobody needs.
    (0..3).for_each(|_| ask(roomy));
    assert_eq!([asked, roomy, alone].map(|server| server.metric("answers_cancelled_total")), [1, 0, 0]);
}

/// A system prompt that was prefilled is there from the start, for all who begin with it at once, whatever others did between;
/// who begins otherwise has a slot, too.
#[test]
fn a_prefix_is_shared_and_stays() {
    let f = Folder::new();
    let (model, prefix) = (f.write("tiny.gguf", &byte_level_model(3)), f.name("prefix"));
    ok(&["prefix", "-m", &model, "-p", "You are a lamp.", "-o", &prefix]);
    let serve = |options: &[&str]| {
        let mut command = armlet();
        command.args(["serve", "-m", &model, "-t", "1", "--port", "0", "-c", "256"]).args(options);
        command.env_remove("ARMLET_API_KEY");
        Server::of(command, Folder::new())
    };
    let lamp = |i: usize| {
        let messages =
            json!([{ "role": "system", "content": "You are a lamp." }, { "role": "user", "content": format!("{i}") }]);
        json!({ "messages": messages, "max_tokens": 12, "temperature": 0 })
    };
    let other = |i: usize| asking(&format!("{i} is no lamp"), json!({ "max_tokens": 12, "temperature": 0 }));
    let [plain, shared] = [serve(&["--users", "3"]), serve(&["--users", "2", "--others", "1", "--prefix", &prefix])];
    let answer = |server: &Server, request: &Value| {
        let reply = server.ok(CHAT, request);
        let cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        (reply["choices"][0]["message"]["content"].as_str().unwrap().to_string(), cached)
    };
    let stays = |when: &str| {
        let (_, cached) = answer(&shared, &lamp(7));
        assert!(cached >= "You are a lamp.".len() as u64, "{cached} tokens were there {when}");
    };
    stays("at the start");
    thread::scope(|scope| {
        let ask = |request: Value| {
            let (plain, shared) = (&plain, &shared);
            move || {
                assert_eq!(answer(shared, &request).0, answer(plain, &request).0);
            }
        };
        for i in 0..6 {
            scope.spawn(ask(lamp(i)));
            scope.spawn(ask(other(i)));
        }
    });
    stays("after others");
    // A session of this is longer than one that has the prefix, and no less is refused.
    let long = asking(&"x".repeat(300), json!({ "max_tokens": 4 }));
    assert_eq!(shared.post(CHAT, &long).status, plain.post(CHAT, &long).status);
    fails_with(&["serve", "-m", &model, "--prefix", &model], 1, "tiny.gguf");
    fails_with(&["serve", "-m", &model, "--others", "2"], 2, "--prefix");
}
