//! Ctrl-C, other signals, and a terminal or a reader that is gone.

use std::io::Read;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::{ANSWER, Chat, ask, command};
use crate::cli::{Folder, armlet, stderr};
use crate::common::gguf::Tiny;
use crate::common::pty::{Terminal, code};
use crate::common::scripted::{answering, endless};

#[test]
fn ctrl_c_stops_an_answer_which_is_kept() {
    let chat = Chat::new(&endless());
    let mut t = chat.start(&["-n", "1000000"]);
    for text in ["one", "two"] {
        t.line(text);
        t.expect("w7 ");
        t.send("\x03");
        t.expect("[ stopped ]");
        t.expect("K/V: ");
        t.prompt();
    }
    let messages = chat.messages();
    assert_eq!(messages.len(), 4);
    assert!(messages[1].1.starts_with("w0 w1 ") && messages[3].1.starts_with("w0 w1 "));
    // At the prompt, a hint; a line begins again.
    t.send("half a line\x03");
    t.expect("Ctrl-C again");
    t.prompt();
    command(&mut t, "/tokens", "2 messages and 2 answers");
    t.send("\x03");
    t.expect("Ctrl-C again");
    t.prompt();
    t.send("\x03");
    assert_eq!(t.ends(), 130);
    let mut t = chat.start(&[]);
    assert!(t.shown().contains("the conversation of 4 messages in "), "{}", t.shown());
    t.send("\x04");
    assert_eq!(t.ends(), 0);
}

#[test]
fn ctrl_c_stops_the_reading_of_a_prompt() {
    let chat = Chat::new(&answering(&ANSWER));
    let long = chat.0.write("long.txt", "word ".repeat(100_000).as_bytes());
    let mut t = chat.start(&["-c", "2048"]);
    command(&mut t, &format!("/read {long}"), "before the next message: 500000 bytes");
    t.line("?");
    t.expect("reading the prompt: ");
    t.expect(" of 500");
    t.expect(" left");
    t.send("\x03");
    t.expect("stopped after ");
    let read: usize = t.expect(" tokens of the prompt").parse().unwrap();
    assert!(read > 0 && read.is_multiple_of(128) && read < 500_000, "{read}");
    // The message was not answered, and is not there. What was read for it is, until it is dropped.
    t.expect("/read alone drops it");
    t.prompt();
    command(&mut t, "/tokens", "0 messages and 0 answers; read: 0 tokens");
    t.line("?");
    t.expect("reading the prompt: ");
    t.send("\x03");
    t.expect("stopped after ");
    t.prompt();
    command(&mut t, "/read", "nothing goes before the next message");
    ask(&mut t, "one");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    assert_eq!(chat.asked(), ["one"]);
}

#[test]
fn ctrl_c_stops_a_prefix() {
    let chat = Chat::new(&answering(&ANSWER));
    let (model, prefix) = (chat.0.name("model.gguf"), chat.0.name("prefix"));
    let long = chat.0.write("long.txt", "word ".repeat(800).as_bytes());
    let mut t = Terminal::new(armlet().args(["prefix", "-m", &model, "-t", "1", "-f", &long, "-o", &prefix]));
    t.catches(Signal::INT);
    t.send("\x03");
    assert_eq!(t.ends(), 130);
    assert!(!chat.0.path("prefix").exists());
}

#[test]
fn ctrl_c_stops_what_measures() {
    let chat = Chat::new(&answering(&ANSWER));
    let model = chat.0.name("model.gguf");
    let long = chat.0.write("long.txt", "word ".repeat(100_000).as_bytes());
    let commands: [&[&str]; 4] = [
        &["perplexity", "-f", &long, "-c", "64"],
        &["perplexity", "-f", &long, "-c", "64", "--stream"],
        &["bench", "-p", "64", "-n", "0", "-r", "10000"],
        &["bench", "--compare-mha", "-r", "10000"],
    ];
    for command in commands {
        let mut t = Terminal::new(armlet().args(command).args(["-m", &model, "-t", "1"]));
        t.catches(Signal::INT);
        t.send("\x03");
        assert_eq!(t.ends(), 130, "{command:?}");
    }
}

/// Nothing polls the first one in the middle of a pass, and this pass takes long: the second does not wait for it.
#[test]
fn a_second_ctrl_c_ends_a_long_pass() {
    let f = Folder::new();
    let slow = Tiny { n_layers: 64, context: 4096, ..Tiny::default() };
    let model = f.write("slow.gguf", &slow.gguf().build());
    let long = f.write("long.txt", "AB".repeat(2000).as_bytes());
    let mut command = armlet();
    command.args(["complete", "-m", &model, "-t", "1", "--chunk", "4096", "-f", &long]).env("ARMLET_CPU", "scalar");
    let mut t = Terminal::new(&mut command);
    let line = "reading the prompt: 0 of ";
    t.expect(line);
    t.send("\x03");
    // The line is drawn again: the first one has ended nothing.
    t.expect(line);
    t.expect(line);
    t.send("\x03");
    assert_eq!(t.ends(), 130);
}

/// In the middle of an answer nothing that is typed is shown; afterwards it is again.
#[test]
fn a_model_that_is_cut_short_leaves_the_terminal_as_it_was() {
    let chat = Chat::new(&endless());
    let mut t = chat.start(&["-n", "1000000"]);
    t.line("one");
    t.expect("w7 ");
    assert!(!t.echoes());
    std::fs::File::options().write(true).open(chat.0.path("model.gguf")).unwrap().set_len(4096).unwrap();
    t.expect("was cut short");
    assert_eq!((t.end(), t.echoes()), (1, true));
    assert!(!chat.0.path(".session.lock").exists());
}

#[test]
fn signals_keep_the_answer() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::HUP, 1), (Signal::QUIT, 3)] {
        let chat = Chat::new(&endless());
        // At the prompt there is nothing to keep, and nothing is left.
        let left = || std::fs::read_dir(chat.0.path("")).unwrap().map(|file| file.unwrap().file_name());
        let before: Vec<_> = left().collect();
        let mut t = chat.start(&[]);
        assert!(chat.0.path(".session.lock").exists());
        t.signal(signal);
        assert_eq!(t.ends(), 128 + number);
        assert!(left().eq(before));
        let mut t = chat.start(&["-n", "1000000"]);
        t.line("one");
        t.expect("w7 ");
        t.signal(signal);
        assert_eq!(t.ends(), 128 + number);
        let messages = chat.messages();
        assert!(messages.len() == 2 && messages[1].1.starts_with("w0 w1 w2 "), "{messages:?}");
        assert!(!chat.0.path(".session.lock").exists());
    }
}

/// A message whose prompt was not read to its end is not there; the conversation before it is.
#[test]
fn a_signal_while_a_prompt_is_read_keeps_the_conversation() {
    let chat = Chat::new(&answering(&ANSWER));
    let long = chat.0.write("long.txt", "word ".repeat(100_000).as_bytes());
    type End = fn(&mut Terminal);
    let ends: [(End, &[i32]); 2] = [(|t| t.signal(Signal::TERM), &[143]), (Terminal::hang_up, &[0, 1, 129])];
    for (end, codes) in ends {
        let mut t = chat.start(&["-c", "2048"]);
        command(&mut t, "/clear", "a new conversation begins");
        ask(&mut t, "one");
        command(&mut t, &format!("/read {long}"), "before the next message: 500000 bytes");
        t.line("?");
        t.expect("reading the prompt: ");
        end(&mut t);
        let code = t.ends();
        assert!(codes.contains(&code), "{code}");
        assert_eq!(chat.asked(), ["one"]);
    }
}

#[test]
fn a_terminal_that_is_gone_ends_the_prompt() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&[]);
    ask(&mut t, "one");
    t.hang_up();
    let code = t.ends();
    assert!([0, 1, 129].contains(&code), "{code}");
    assert_eq!(chat.asked(), ["one"]);
}

/// As with `nohup`.
#[test]
fn ignored_signals_stay_ignored() {
    let chat = Chat::new(&endless());
    let inner = chat.command(&[]);
    let mut outer = Command::new("sh");
    outer.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    let mut t = Terminal::new(outer.env("XDG_STATE_HOME", chat.0.path("state")));
    t.prompt();
    t.signal(Signal::HUP);
    command(&mut t, "/tokens", "0 messages");
    t.signal(Signal::TERM);
    assert_eq!(t.ends(), 143);
}

#[test]
fn a_terminal_that_is_gone_keeps_the_answer() {
    let chat = Chat::new(&endless());
    let mut t = chat.start(&["-n", "1000000"]);
    t.line("one");
    t.expect("w7 ");
    t.hang_up();
    let code = t.ends();
    // The signal comes before the error of a write, or after it.
    assert!([0, 1, 129].contains(&code), "{code}");
    let messages = chat.messages();
    assert!(messages.len() == 2 && messages[1].1.starts_with("w0 w1 w2 "), "{messages:?}");
}

#[test]
fn a_reader_that_leaves_keeps_the_answer() {
    let chat = Chat::new(&endless());
    let session = chat.0.name("session");
    let mut command = chat.command(&["-n", "1000000", "--session", &session, "-p", "one"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(output.status), stderr(&output)), (0, ""));
    assert!(chat.messages()[1].1.starts_with("w0 w1 w2 "));
}
