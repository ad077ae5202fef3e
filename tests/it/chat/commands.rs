//! Commands and settings of a chat.

use super::{ANSWER, Chat, ask, command};
use crate::common::gguf::Val;
use crate::common::pty::Terminal;
use crate::common::scripted::answering;

#[test]
fn every_command_does_what_it_says() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&["--system", "Be brief."]);
    assert!(t.shown().contains("model: llama"), "{}", t.shown());
    assert!(t.shown().contains("context of 4096 tokens"), "{}", t.shown());
    let help = command(&mut t, "/help", "/exit");
    for name in ["/clear", "/system", "/regen", "/edit", "/undo", "/read", "/save", "/load", "/set", "/show", "/stats"]
    {
        assert!(help.contains(name), "{name}: {help}");
    }
    command(&mut t, "/?", "quits.");
    // What came before is not read again.
    ask(&mut t, "one");
    ask(&mut t, "two");
    command(&mut t, "/tokens", "2 messages and 2 answers");
    command(&mut t, "/tokens XY", "2 tokens: 88 \"X\", 89 \"Y\"");
    command(&mut t, "/stats", "evicted");
    ask(&mut t, "/regen");
    let roles = |chat: &Chat| chat.messages().into_iter().map(|(role, _)| role).collect::<Vec<_>>();
    assert_eq!(roles(&chat), ["system", "user", "assistant", "user", "assistant"]);
    ask(&mut t, "/edit three");
    assert_eq!(chat.asked(), ["one", "three"]);
    // The message stands on the line, to be edited, or to be left as it is.
    for key in ["\x03", "\x15\x04"] {
        t.line("/edit");
        t.expect("three");
        t.send(key);
        t.expect("nothing is changed");
        t.prompt();
    }
    t.line("/edit");
    t.expect("three");
    t.line(" four");
    t.expect("K/V: ");
    t.prompt();
    assert_eq!(chat.asked(), ["one", "three four"]);
    command(&mut t, "/undo", "taken back: three four");
    assert_eq!(chat.asked(), ["one"]);
    command(&mut t, "/undo", "taken back: one");
    command(&mut t, "/undo", "no message to take back");
    command(&mut t, "/regen", "no answer to regenerate");
    command(&mut t, "/edit", "no message to edit");
    ask(&mut t, "five");
    let saved = chat.0.name("saved");
    command(&mut t, &format!("/save {saved}"), "saved: 3 messages");
    command(&mut t, "/clear", "a new conversation begins; the system prompt stays");
    assert_eq!(roles(&chat), ["system"]);
    command(&mut t, "/show system", "Be brief.");
    command(&mut t, "/system", "without a system prompt");
    command(&mut t, "/set system Be long.", "with this system prompt");
    assert_eq!(chat.messages(), [("system".into(), "Be long.".into())]);
    command(&mut t, &format!("/load {saved}"), "a conversation of 3 messages goes on; from its next");
    // What the session has is not lost by a slip.
    assert_eq!(chat.messages(), [("system".into(), "Be long.".into())]);
    let text = chat.0.write("text.txt", b"read\n");
    command(&mut t, &format!("/save {text}"), "not a saved conversation");
    command(&mut t, &format!("/read {text}"), "before the next message: 5 bytes");
    ask(&mut t, "six");
    assert_eq!(chat.asked(), ["five", "read\nsix"]);
    // It belongs to the conversation that it was read for.
    let load = format!("/load {saved}");
    for (line, reply) in [
        ("/clear", "a new conversation begins"),
        ("/system Be kind.", "a new conversation begins"),
        (load.as_str(), "a conversation of 3 messages goes on"),
    ] {
        command(&mut t, &format!("/read {text}"), "before the next message: 5 bytes");
        command(&mut t, line, reply);
    }
    ask(&mut t, "seven");
    assert_eq!(chat.asked(), ["five", "seven"]);
    for (line, reply) in [
        ("/read", "/read needs the name of a file"),
        ("/read /nowhere", "/nowhere"),
        ("/read /dev/null", "not a regular file"),
        ("/load /nowhere", "/nowhere"),
        ("/save /nowhere/x", "/nowhere"),
        ("/nonsense 1", "/nonsense is not a command"),
    ] {
        command(&mut t, line, reply);
    }
    t.line("/exit");
    assert_eq!(t.ends(), 0);
}

/// The session still has the tokens of messages that were taken back; they are not the conversation's.
#[test]
fn what_was_taken_back_is_not_counted() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&["--system", "Be brief."]);
    let read = |t: &mut Terminal| {
        t.line("/tokens");
        t.expect("read: ");
        let read: usize = t.expect(" token").parse().unwrap();
        t.prompt();
        t.line("/stats");
        let in_cache = t.expect(" of 4096 tokens");
        assert_eq!(in_cache.rsplit(' ').next().unwrap().parse(), Ok(read));
        t.prompt();
        read
    };
    ask(&mut t, "one");
    let one = read(&mut t);
    ask(&mut t, "two");
    let two = read(&mut t);
    command(&mut t, "/undo", "taken back");
    let undone = read(&mut t);
    assert!(one <= undone && undone < two, "{one} {two} {undone}");
    command(&mut t, "/clear", "the system prompt stays");
    let system = read(&mut t);
    assert!("Be brief.".len() < system && system < one, "{system}");
    command(&mut t, "/system", "without a system prompt");
    assert_eq!(read(&mut t), 0);
    ask(&mut t, "three");
    command(&mut t, "/tokens", "1 message and 1 answer");
    let three = read(&mut t);
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    let mut t = chat.start(&[]);
    assert_eq!(read(&mut t), three);
    command(&mut t, "/clear", "a new conversation begins");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    assert_eq!(read(&mut chat.start(&[])), 0);
}

#[test]
fn commands_have_the_names_of_other_programs() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&[]);
    for (line, reply) in [
        ("/h", "quits."),
        ("/reset", "a new conversation begins"),
        ("/new", "a new conversation begins"),
        ("/forget", "a new conversation begins"),
        ("/regenerate", "no answer to regenerate"),
        ("/retry", "no answer to regenerate"),
        ("/file", "/read needs the name of a file"),
        ("/context", "evicted"),
        ("/tokenize", "0 messages and 0 answers"),
    ] {
        command(&mut t, line, reply);
    }
    t.line("/q");
    assert_eq!(t.ends(), 0);
    let mut t = chat.start(&[]);
    t.line("/quit");
    assert_eq!(t.ends(), 0);
}

#[test]
fn settings_change_and_are_shown() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&[]);
    for (line, reply) in [
        ("/set", "repeat-penalty"),
        ("/set temp 0.5", "temp is 0.5"),
        ("/set n 18446744073709551615", "not from 0 to 2147483647"),
        ("/set parameter stop \"x y\"", "stop is x y"),
        ("/set stop", "stop is none"),
        ("/set wordwrap", "wordwrap is not a setting here"),
        ("/show template", "template"),
        ("/show license", "the file names none"),
        ("/set parameter top_k 7", "top-k is 7"),
        ("/set top-p=0.5", "top-p is 0.5"),
        ("/set min-p 2", "not from 0 to 1"),
        ("/set min-p 0.2", "min-p is 0.2"),
        ("/set repeat_penalty 1.2", "repeat-penalty is 1.2"),
        ("/set seed 5", "seed is 5"),
        ("/set num_predict 2", "n is 2"),
        ("/set temp", "not a number"),
        ("/set num_ctx 5", "fixed when the program starts: see -c"),
        ("/set colour red", "colour is not a setting"),
        ("/show temp", "0.5"),
        ("/show", "7"),
        ("/set think off", "think is hide"),
        ("/set think on", "think is on"),
        ("/set quiet", "stats is off"),
    ] {
        command(&mut t, line, reply);
    }
    t.line("one");
    t.expect("stopped after 2 tokens");
    let shown = t.prompt();
    assert!(!shown.contains("K/V"), "{shown}");
    assert_eq!(chat.messages()[1].1, "Some fine");
    t.line("/bye");
    assert_eq!(t.ends(), 0);
}

#[test]
fn a_known_model_has_its_own_sampling() {
    let mut model = answering(&ANSWER);
    let chat = Chat::new(model.set("general.basename", Val::Str("SmolLM2".into())));
    for (options, penalty) in [(&[][..], "1.1"), (&["--temp", "0"], "1"), (&["--repeat-penalty", "1.3"], "1.3")] {
        let mut t = chat.start(options);
        command(&mut t, "/show repeat-penalty", &format!("repeat-penalty  {penalty}\r\n"));
        t.send("\x04");
        assert_eq!(t.ends(), 0);
    }
}
