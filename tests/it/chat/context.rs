//! Eviction, sessions and prefixes in a chat.

use armlet::arch::Kernels;
use armlet::engine::Config;
use armlet::storage::Serial;

use super::{ANSWER, Chat, ask, command};
use crate::cli::{armlet, fails, fails_with, stderr};
use crate::common::run::{with_model, with_session};
use crate::common::scripted::answering;

/// When the ring evicts, that is said once; a system prompt stays, and what was evicted is read again where it is needed.
#[test]
fn eviction_is_said_and_the_system_prompt_stays() {
    let chat = Chat::new(&answering(&ANSWER));
    let system = "Be brief, and always kind.";
    let mut t = chat.start(&["-c", "128", "--system", system]);
    let text = "x".repeat(40);
    let mut said = String::new();
    for _ in 0..4 {
        t.line(&text);
        t.expect("K/V: ");
        said += &t.prompt();
    }
    // The model's answers are not what the tokenizer makes of their text, and are not read again for that.
    assert_eq!(said.matches("the context of 128 tokens is full").count(), 1, "{said}");
    assert!(!t.shown().contains("read again"), "{}", t.shown());
    let stay: usize = said.split("; the first ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(stay >= system.len() && stay <= 64, "{stay}");
    command(&mut t, "/undo", "taken back");
    t.line("one");
    t.expect("tokens of the conversation were evicted: it is read again from its start");
    t.expect("K/V: ");
    t.prompt();
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    // It goes on with as many sinks, whether the system prompt is given again or not.
    let session = chat.0.name("session");
    let on = |more: &[&str]| {
        let base = ["-c", "128", "--session", &session, "-p", "on"];
        let output = chat.command(&[&base[..], more].concat()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output).to_string()
    };
    assert_eq!(on(&[]), "");
    assert_eq!(on(&["--system", system]), "");
    assert!(on(&["--system", "Be long."]).contains("the one given is not used"));
    // One that was begun without.
    let without = chat.0.name("without");
    for (more, said) in [(&[][..], ""), (&["--system", system], "it was begun without a system prompt")] {
        let args = [&["--session", &without, "-p", "on"][..], more].concat();
        let output = chat.command(&args).output().unwrap();
        assert!(stderr(&output).contains(said) && !stderr(&output).contains("has its own"), "{}", stderr(&output));
    }
    fails_with(
        &["chat", "-m", &chat.0.name("model.gguf"), "-c", "32", "--session", &session, "-p", "on"],
        1,
        "use the options that it was saved with: -c 128\n",
    );
    fails_with(&["inspect", &session], 1, "saved with -c 128, and no model; chat --session goes on with it");
    let strided = chat.0.name("strided");
    let args = ["--session", &strided, "-p", "one", "-c", "128", "--pattern", "strided:2"];
    assert!(chat.command(&args).output().unwrap().status.success());
    let output = chat.command(&args[..4]).output().unwrap();
    fails(&output, 1, "and --pattern strided:2\n");
    for more in [&["-c", "4"][..], &["-c", "66", "--pattern", "strided:2"], &["-c", "100", "--pattern", "strided:2"]] {
        let output = chat.command(&[&["--system", system, "-p", "one"], more].concat()).output().unwrap();
        assert!(output.status.success(), "{more:?}: {}", stderr(&output));
    }
    let output = chat.command(&["-c", "64", "--system", &"s".repeat(50), "-p", "one"]).output().unwrap();
    assert!(stderr(&output).contains("only the first 32 stay"), "{}", stderr(&output));
}

/// A file that is a session, but with another program's text in it: the conversation that was there goes on.
#[test]
fn a_session_without_a_transcript_is_refused() {
    let model = answering(&ANSWER);
    let chat = Chat::new(&model);
    let other = chat.0.name("other");
    with_model(&model, |model| {
        with_session(model, Kernels::detect(), Config::default(), |reader| {
            reader.eval(&Serial, &[1, 2, 3]).unwrap();
            let mut out = Vec::new();
            let sink = |part: &[u8]| -> Result<(), ()> {
                out.extend_from_slice(part);
                Ok(())
            };
            reader.session.save(b"{\"messages\":[],\"read\":[1,2]}", sink).unwrap();
            std::fs::write(&other, out).unwrap();
        });
    });
    let mut t = chat.start(&[]);
    ask(&mut t, "one");
    command(&mut t, &format!("/load {other}"), "other: it is damaged");
    ask(&mut t, "two");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    assert_eq!(chat.asked(), ["one", "two"]);
    fails_with(&["chat", "-m", &chat.0.name("model.gguf"), "--session", &other, "-p", "one"], 1, "it is damaged");
}

/// What a file makes the model read is bounded: a transcript that the session has not read has at most as many tokens as fit the
/// context.
#[test]
fn a_transcript_that_was_never_read_is_refused() {
    let model = answering(&ANSWER);
    let chat = Chat::new(&model);
    let file = |name: &str, messages: usize| {
        let path = chat.0.name(name);
        let message = r#"{"role":"user","text":"a message of some words"}"#;
        let extra = format!("{{\"messages\":[{}],\"read\":[1,2,3]}}", vec![message; messages].join(","));
        with_model(&model, |model| {
            with_session(model, Kernels::detect(), Config::default(), |reader| {
                reader.eval(&Serial, &[1, 2, 3]).unwrap();
                let mut out = Vec::new();
                let sink = |part: &[u8]| -> Result<(), ()> {
                    out.extend_from_slice(part);
                    Ok(())
                };
                reader.session.save(extra.as_bytes(), sink).unwrap();
                std::fs::write(&path, out).unwrap();
            });
        });
        path
    };
    let (few, many) = (file("few", 20), file("many", 2000));
    let args = |file| ["-p", "one", "--session", file];
    let output = chat.command(&args(&many)).output().unwrap();
    fails(&output, 1, "but its KV cache 3: armlet did not save it so");
    let output = chat.command(&args(&few)).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let mut t = chat.start(&[]);
    command(&mut t, &format!("/load {many}"), "a conversation of 2000 messages goes on");
    t.line("one");
    t.expect("armlet did not save it so");
    t.prompt();
    command(&mut t, "/clear", "a new conversation begins");
    ask(&mut t, "two");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
}

#[test]
fn a_session_that_cannot_be_written_is_refused_before_the_answer() {
    let chat = Chat::new(&answering(&ANSWER));
    let model = chat.0.name("model.gguf");
    let refused = |session: &str, what: &str| {
        fails_with(&["chat", "-m", &model, "-p", "one", "--session", session], 1, what);
    };
    refused(&chat.0.name(""), "not a regular file");
    refused("/dev/null", "not a regular file");
    refused("/nowhere/session", "/nowhere/session: there is no folder /nowhere");
    // An empty file is a new session.
    let empty = chat.0.write("session", b"");
    let output = chat.command(&["-p", "one", "--session", &empty]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(chat.asked(), ["one"]);
}

#[test]
fn a_system_prompt_of_a_prefix_is_not_replaced() {
    let chat = Chat::new(&answering(&ANSWER));
    let (model, prefix) = (chat.0.name("model.gguf"), chat.0.name("prefix"));
    let made = armlet().args(["prefix", "-m", &model, "-p", "Be brief.", "-o", &prefix]).output().unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    fails_with(&["inspect", &prefix], 1, "a saved system prompt, and no model; chat --prefix begins with it");
    let mut t = chat.start(&["--prefix", &prefix]);
    ask(&mut t, "one");
    command(&mut t, "/system Be long.", "the system prompt is that of --prefix");
    ask(&mut t, "two");
    command(&mut t, "/clear", "the system prompt stays");
    ask(&mut t, "three");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    assert_eq!((chat.asked(), chat.messages()[0].1.as_str()), (vec!["three".into()], "Be brief."));
}
