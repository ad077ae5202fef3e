//! A conversation that another program holds, by lines of JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{ANSWER, Chat};
use crate::cli::{armlet, fails};
use crate::common::pty::heeds_signals;
use crate::common::scripted::{answering, endless};

struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// What the events of this kind said.
    evicted: Vec<u64>,
}

impl Program {
    fn new(command: &mut Command) -> Self {
        let command = heeds_signals(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Program { child, stdin, stdout, evicted: Vec::new() }
    }

    fn event(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(!line.contains('\u{202e}'), "{line}");
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    fn write(&mut self, line: &str) {
        writeln!(self.stdin.as_ref().unwrap(), "{line}").unwrap();
    }

    /// The last event of a line, and the text of those before it.
    fn answer(&mut self) -> (Value, String) {
        let mut text = String::new();
        loop {
            let event = self.event().unwrap();
            match event["event"].as_str().unwrap() {
                "text" => text += event["text"].as_str().unwrap(),
                "evicted" => self.evicted.push(event["tokens"].as_u64().unwrap()),
                "end" | "reply" | "error" => return (event, text),
                other => panic!("{other}"),
            }
        }
    }

    /// Writes a line, whose last event is this one; returns it.
    fn line(&mut self, line: &str, last: &str) -> Value {
        self.write(line);
        let (event, text) = self.answer();
        assert_eq!(event["event"], last, "{line}: {event}");
        assert!(last != "end" || event["text"] == text, "{event}");
        event
    }

    /// Closes stdin; nothing more comes, and this is the exit code.
    fn ends(mut self) -> Option<i32> {
        self.stdin = None;
        assert_eq!(self.event(), None);
        self.child.wait().unwrap().code()
    }
}

#[test]
fn a_program_holds_the_conversation() {
    let chat = Chat::new(&answering(&ANSWER));
    let session = chat.0.name("session");
    let start = |messages: usize| {
        let mut program = Program::new(&mut chat.command(&["--json=lines", "--session", &session]));
        let ready = program.event().unwrap();
        assert!(ready["event"] == "ready" && ready["messages"] == messages, "{ready}");
        assert!(ready["context"].is_u64() && ready["model"].as_str().is_some_and(|name| name.starts_with("model:")));
        program
    };
    let mut program = start(0);
    let end = program.line(r#"{"message": "one\n/exit"}"#, "end");
    assert_eq!((end["text"].as_str(), end["stop"].as_str()), (Some("Some fine answer."), Some("stop")));
    assert!(end["timings"]["prompt_n"].as_u64() > Some(0));
    program.line(r#"{"message": "/two"}"#, "end");
    for (command, says) in [
        ("/undo", "taken back: /two"),
        ("/tokens", "1 message and 1 answer; read: "),
        ("/tokens ab", "2 tokens: "),
        ("/set temp 0.5", "temp is 0.5"),
        ("/help", "/regen"),
    ] {
        let reply = program.line(&json!({ "command": command }).to_string(), "reply");
        assert!(reply["text"].as_str().unwrap().contains(says), "{reply}");
    }
    program.line(r#"{"command": "/regen"}"#, "end");
    program.line(r#"{"command": "/edit three"}"#, "end");
    for (line, why) in [
        ("", "JSON"),
        ("Hi", "JSON"),
        ("[\u{202e}]", "JSON"),
        (r#"{"message": 1}"#, "not {"),
        (r#"{"message": " "}"#, "the message is empty"),
        (r#"{"command": "/edit"}"#, "/edit TEXT"),
        (r#"{"command": "/nothing"}"#, "/nothing is not a command"),
    ] {
        let error = program.line(line, "error");
        assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    }
    assert_eq!(program.ends(), Some(0));
    assert_eq!(chat.asked(), ["three"]);
    let mut program = start(2);
    program.write(r#"{"command": "/exit"}"#);
    assert_eq!(program.ends(), Some(0));
}

#[test]
fn progress_of_a_long_prompt_is_events() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut program = Program::new(&mut chat.command(&["--json=lines", "-c", "2048"]));
    program.event();
    program.write(&json!({ "message": "word ".repeat(100) }).to_string());
    let mut read = Vec::new();
    let answers = loop {
        let event = program.event().unwrap();
        if event["event"] != "progress" {
            break event["event"] == "text";
        }
        read.push((event["read"].as_u64().unwrap(), event["tokens"].as_u64().unwrap()));
    };
    // Passes of 128 tokens, of which the last is the beginning of the answer.
    let tokens = read[0].1;
    let passes = (1..tokens.div_ceil(128)).map(|i| (128 * i, tokens)).collect::<Vec<_>>();
    assert!(answers && tokens > 500 && read == passes, "{read:?}");
    assert_eq!(program.answer().0["timings"]["prompt_n"], tokens);
    assert_eq!(program.ends(), Some(0));
}

/// When the ring begins to evict, that is one event; the timings of each answer say what is in the KV cache.
#[test]
fn eviction_is_an_event() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut program = Program::new(&mut chat.command(&["--json=lines", "-c", "128"]));
    program.event();
    let line = json!({ "message": "x".repeat(40) }).to_string();
    for _ in 0..4 {
        let timings = program.line(&line, "end")["timings"].clone();
        let of = |name: &str| timings[name].as_u64().unwrap();
        assert_eq!(of("context"), 128);
        assert!(of("evicted") == 0 && of("in_cache") < 128 || of("evicted") > 0 && of("in_cache") == 128, "{timings}");
        assert_eq!(program.evicted.len(), usize::from(of("evicted") > 0));
    }
    assert_eq!(program.evicted.len(), 1);
    // After `/clear` it may be said again.
    program.line(r#"{"command": "/clear"}"#, "reply");
    (0..4).for_each(|_| drop(program.line(&line, "end")));
    assert_eq!(program.evicted.len(), 2);
    assert_eq!(program.ends(), Some(0));
    let chat = Chat::new(&endless());
    let model = chat.0.name("model.gguf");
    let args = ["complete", "-m", &model, "-p", "\n", "-c", "64", "-n", "100", "--json=events"];
    let stdout = armlet().args(args).output().unwrap().stdout;
    let lines: Vec<Value> = stdout.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
    let [.., evicted, end] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&evicted["event"], &evicted["tokens"]), (&json!("evicted"), &end["timings"]["evicted"]));
    assert_eq!(
        (&end["timings"]["in_cache"], lines.iter().filter(|l| l["event"] == "evicted").count()),
        (&json!(64), 1)
    );
}

#[test]
fn sigint_stops_an_answer_of_events() {
    let chat = Chat::new(&endless());
    let mut program = Program::new(&mut chat.command(&["--json=lines", "-n", "1000000"]));
    program.event();
    for _ in 0..2 {
        program.write(r#"{"message": "one"}"#);
        assert_eq!(program.event().unwrap()["event"], "text");
        kill_process(Pid::from_child(&program.child), Signal::INT).unwrap();
        let (end, _) = program.answer();
        assert!(end["event"] == "end" && end["stop"] == "interrupted", "{end}");
    }
    assert_eq!(program.ends(), Some(0));
}

#[test]
fn a_program_that_leaves_keeps_the_answer() {
    let chat = Chat::new(&endless());
    let session = chat.0.name("session");
    let mut command = chat.command(&["--json=lines", "-n", "1000000", "--session", &session]);
    let Program { mut child, stdin, stdout, .. } = {
        let mut program = Program::new(&mut command);
        program.event();
        program.write(r#"{"message": "one"}"#);
        program.event();
        program
    };
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(stdin);
    // At least what was read of it.
    assert!(chat.messages()[1].1.starts_with("w0"), "{:?}", chat.messages());
}

#[test]
fn kinds_of_json_have_their_input() {
    let chat = Chat::new(&answering(&ANSWER));
    fails(&chat.command(&["--json=lines", "-p", "one"]).output().unwrap(), 2, "leave -p out");
    let mut t = crate::common::pty::Terminal::new(&mut chat.command(&["--json"]));
    t.expect("--json=lines is a whole conversation");
    assert_eq!(t.ends(), 2);
}
