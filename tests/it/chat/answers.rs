//! What an answer looks like.

use std::process::Command;

use super::{Chat, ask, command};
use crate::cli::{armlet, stderr};
use crate::common::gguf::{Gguf, Val};
use crate::common::pty::Terminal;
use crate::common::scripted::{answering, endless, repeating};

#[test]
fn what_would_act_on_a_terminal_is_shown_there_and_exact_in_a_pipe() {
    let evil = ["\x1b]52;c;eA==\x07", "a\x08b", "\u{202e}c", "\u{9b}31m", "\td\n"];
    let chat = Chat::new(&answering(&evil));
    let shown = "^[]52;c;eA==^Ga^Hb<U+202E>c<U+009B>31m\td\r\n";
    let mut t = chat.start(&[]);
    t.line("one");
    t.expect(shown);
    t.prompt();
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    let mut t = Terminal::new(&mut chat.command(&["-p", "one"]));
    t.expect(shown);
    assert_eq!(t.ends(), 0);
    let output = chat.command(&["-p", "one"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), evil.concat() + "\n");
    let model = chat.0.name("model.gguf");
    let complete = ["complete", "-m", &model, "-p", "\n"];
    let mut t = Terminal::new(armlet().args(complete));
    t.expect(shown);
    assert_eq!(t.ends(), 0);
    let output = armlet().args(complete).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), evil.concat() + "\n");
}

#[test]
fn thoughts_are_dim_or_hidden() {
    let chat = Chat::new(&answering(&["<th", "ink>", "hm", "</think>", "\n\n", "Some fine answer."]));
    let mut t = chat.start(&[]);
    let answer = ask(&mut t, "one");
    assert!(answer.contains("\x1b[2m<think>hm</think>\x1b[0m"), "{answer}");
    command(&mut t, "/set think hide", "think is hide");
    let answer = ask(&mut t, "two");
    assert!(answer.contains("thinking") && !answer.contains("hm"), "{answer}");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    assert_eq!(chat.messages()[3].1, "<think>hm</think>\n\nSome fine answer.");
    let once = |more: &[&str]| {
        let output = chat.command(&[&["-p", "one"], more].concat()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(once(&[]), "<think>hm</think>\n\nSome fine answer.\n");
    assert_eq!(once(&["--hide-thinking"]), "Some fine answer.\n");
    let json: serde_json::Value = serde_json::from_str(&once(&["--hide-thinking", "--json"])).unwrap();
    assert_eq!(json["text"], "Some fine answer.");
    let mut t = Terminal::new(chat.command(&["-p", "one"]).env("NO_COLOR", "1"));
    let answer = t.expect("Some fine answer.");
    assert!(!answer.contains('\x1b'), "{answer}");
    assert_eq!(t.ends(), 0);
}

/// Mistral's and Gemma's are between other tags, which may be control tokens.
#[test]
fn thoughts_of_other_families_are_dim_or_hidden() {
    let families = [(["[THINK]", ""], "[/THINK]"), (["<|channel>", "thought"], "<channel|>")];
    let cases = families.into_iter().flat_map(|family| [1, 3].map(|kind| (family, kind)));
    for (([mark, word], close), kind) in cases {
        let word = format!("{word}\nhm");
        let mut model = answering(&[mark, &word, close, "\n\n", "Some fine answer."]);
        let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{# CLOSE #}";
        let kinds = (0..259 + 5).map(|token| match token {
            256..259 => 3,
            259 | 261 => kind,
            _ => 1,
        });
        model
            .set("tokenizer.chat_template", Val::Str(template.replace("CLOSE", close)))
            .set("tokenizer.ggml.token_type", Val::I32s(kinds.collect()));
        let chat = Chat::new(&model);
        let mut t = chat.start(&[]);
        let (thought, shown) = (format!("{mark}{word}{close}"), format!("{mark}{word}{close}").replace('\n', "\r\n"));
        let answer = ask(&mut t, "one");
        assert!(answer.contains(&format!("\x1b[2m{shown}\x1b[0m")), "{answer}");
        command(&mut t, "/set think hide", "think is hide");
        let answer = ask(&mut t, "two");
        assert!(answer.contains("thinking") && !answer.contains("hm"), "{answer}");
        t.send("\x04");
        assert_eq!(t.ends(), 0);
        assert_eq!(chat.messages()[3].1, format!("{thought}\n\nSome fine answer."));
        let output = chat.command(&["-p", "one", "--hide-thinking", "--json"]).output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["text"], "Some fine answer.");
        let output = chat.command(&["-p", "one", "--json=events"]).output().unwrap();
        let events = output.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let thoughts = events.filter(|e: &serde_json::Value| e["event"] == "thinking");
        assert_eq!(thoughts.map(|e| e["text"].as_str().unwrap().to_string()).collect::<String>(), thought);
    }
}

#[test]
fn answers_have_a_limit_and_loops_are_stopped() {
    let once = |model: &Gguf, more: &[&str]| {
        let output = Chat::new(model).command(&[&["-p", "one", "--json"], more].concat()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let found = once(&endless(), &[]);
    assert_eq!((found["stop"].as_str(), found["timings"]["predicted_n"].as_u64()), (Some("length"), Some(1024)));
    let found = once(&repeating(&["a princess", "'s", " daughter,"]), &["-n", "1000000"]);
    assert_eq!((found["stop"].as_str(), found["timings"]["predicted_n"].as_u64()), (Some("loop"), Some(192)));
    let model = Chat::new(&endless()).0;
    let mut t = Terminal::new(armlet().args(["complete", "-m", &model.name("model.gguf"), "-p", "\n", "-n", "2"]));
    t.expect("[ stopped after 2 tokens, the most that -n allows ]");
    assert_eq!(t.ends(), 0);
    let chat = Chat::new(&repeating(&["ab", "cd"]));
    let mut t = chat.start(&[]);
    t.line("one");
    t.expect("stopped, because the answer repeats itself");
    t.prompt();
    t.send("\x04");
    assert_eq!(t.ends(), 0);
}

#[test]
fn an_answer_as_events() {
    let tokens = ["<think>", "hm", "</think>", " a", "\u{202e}", "b"];
    let chat = Chat::new(&answering(&tokens));
    let lines = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.is_ascii());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let of = |events: &[serde_json::Value], kind: &str| {
        let texts = events.iter().filter(|e| e["event"] == kind).map(|e| e["text"].as_str().unwrap());
        texts.collect::<String>()
    };
    // A token is an event, of however many characters it is.
    let pieces = |events: &[serde_json::Value]| {
        let texts = events.iter().filter(|e| e["event"] == "text" || e["event"] == "thinking");
        texts.map(|e| e["text"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let events = lines(&mut chat.command(&["-p", "one", "--json=events"]));
    assert_eq!(pieces(&events), tokens);
    assert_eq!(of(&events, "thinking"), "<think>hm</think>");
    assert_eq!(of(&events, "text"), " a\u{202e}b");
    let end = events.last().unwrap();
    assert_eq!((end["event"].as_str(), end["stop"].as_str()), (Some("end"), Some("stop")));
    assert_eq!(end["text"], "<think>hm</think> a\u{202e}b");
    assert_eq!(events.iter().filter(|e| e["event"] == "end").count(), 1);
    let events = lines(&mut chat.command(&["-p", "one", "--json=events", "--hide-thinking"]));
    assert_eq!((of(&events, "thinking").as_str(), &events.last().unwrap()["text"]), ("", &"a\u{202e}b".into()));
    let events = lines(armlet().args(["complete", "-m", &chat.0.name("model.gguf"), "-p", "\n", "--json=events"]));
    assert_eq!(pieces(&events), tokens);
    assert_eq!(events.last().unwrap()["event"], "end");
    let whole = lines(&mut chat.command(&["-p", "one", "--json"]));
    assert!(whole.len() == 1 && whole[0]["event"].is_null() && whole[0]["stop"] == "stop");
}
