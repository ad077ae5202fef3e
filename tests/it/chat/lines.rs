//! What is typed and pasted, on terminals of several kinds.

use std::io::Write;
use std::process::Stdio;

use rustix::process::Signal;

use super::{ANSWER, Chat, ask, command};
use crate::cli::{fails_with, stderr};
use crate::common::pty::Terminal;
use crate::common::scripted::{answering, endless};

#[test]
fn messages_of_several_lines() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&[]);
    t.line("\"\"\"a");
    t.expect(". ");
    t.line(" /b\\");
    t.line("");
    t.line("c\"\"\"");
    t.expect("K/V: ");
    t.prompt();
    t.line("d\\");
    t.expect(". ");
    t.line("e");
    t.expect("K/V: ");
    t.prompt();
    ask(&mut t, "//path");
    ask(&mut t, " /path");
    // A paste that does not say where it begins and ends is as many messages as it has lines.
    t.send("one\rtwo\rthree\r");
    (0..3).for_each(|_| {
        t.expect("K/V: ");
    });
    t.prompt();
    assert_eq!(chat.asked(), ["a\n /b\\\n\nc", "d\ne", "/path", "/path", "one", "two", "three"]);
    // A message that is not finished is given up.
    t.line("\"\"\"a");
    t.expect(". ");
    t.send("\x03");
    t.expect("Ctrl-C again");
    t.prompt();
    t.line("/exit");
    assert_eq!(t.ends(), 0);
}

/// A paste that says where it begins and ends is one line, which Enter sends. The tokens of a long one are counted: to read
/// it takes long.
#[test]
fn a_long_paste_is_one_message() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&[]);
    let paste = |text: &str| format!("\x1b[200~{text}\x1b[201~");
    let lines: Vec<_> = (0..400).map(|i| format!("{i:04} {}", "x".repeat(44))).collect();
    let long = lines.join("\n");
    assert!(long.len() >= 19_999);
    t.send("/tokens ");
    t.send(&paste(&long));
    t.expect("0399 ");
    command(&mut t, "", &format!("{} tokens: ", long.len()));
    t.send(&paste("a\n/b\n\n c"));
    ask(&mut t, "");
    // Of what stands in it nothing is changed, also where it is edited.
    let pasted = ["cmd a \\\n  b", "// comment\nint y;", "/usr/bin/env\nx", "\"\"\"Doc.\"\"\"\ny", "  two\n    four"];
    for text in pasted {
        t.send(&paste(text));
        ask(&mut t, "");
    }
    t.line("/edit");
    t.expect("four");
    t.line("teen");
    t.expect("K/V: ");
    t.prompt();
    let asked = [&["a\n/b\n\n c"], &pasted[..4], &["  two\n    fourteen"]].concat();
    assert_eq!(chat.asked(), asked);
    // A command that was typed takes what is pasted behind it.
    t.send("/system ");
    t.send(&paste("Be brief.\n// And kind."));
    command(&mut t, "", "with this system prompt");
    ask(&mut t, "one");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    assert_eq!(chat.messages()[0].1, "Be brief.\n// And kind.");
}

/// What is typed while an answer comes is not echoed into it, and is there at the next prompt.
#[test]
fn typing_ahead() {
    let chat = Chat::new(&endless());
    let mut t = chat.start(&["-n", "1000000"]);
    t.line("one");
    t.expect("w7 ");
    t.send("ahead\rlast");
    t.expect("w250 ");
    t.expect("w9 ");
    t.send("\x03");
    let before = t.expect("stopped");
    assert!(!before.contains("ahead"), "{before}");
    t.expect("ahead");
    t.expect("w7 ");
    t.send("\x03");
    t.expect("stopped");
    t.expect("last");
    t.line("");
    t.expect("w7 ");
    t.send("\x03");
    t.prompt();
    t.line("/exit");
    assert_eq!(t.ends(), 0);
    assert_eq!(chat.asked(), ["one", "ahead", "last"]);
}

/// While the program is stopped the terminal has the modes of a shell. When it goes on, typing is not echoed, as before.
#[test]
fn typing_ahead_after_a_stop() {
    let chat = Chat::new(&endless());
    let mut t = chat.start(&["-n", "1000000"]);
    t.line("one");
    t.expect("w7 ");
    for _ in 0..2 {
        t.signal(Signal::STOP);
        t.set_echo();
        t.signal(Signal::CONT);
        t.expect("w250 ");
        t.stops_echo();
    }
    t.send("ahead\rlast");
    t.expect("w250 ");
    t.expect("w9 ");
    t.send("\x03");
    let before = t.expect("stopped");
    assert!(!before.contains("ahead"), "{before}");
    t.expect("ahead");
    t.expect("w7 ");
    t.send("\x03");
    t.expect("last");
    // At the prompt the modes are the line editor's, and at the end those of before.
    t.signal(Signal::CONT);
    t.send("\x15\x04");
    assert_eq!((t.end(), t.echoes()), (0, true));
    assert_eq!(chat.asked(), ["one", "ahead"]);
}

#[test]
fn a_terminal_that_moves_no_cursor() {
    let chat = Chat::new(&endless());
    let mut t = Terminal::dumb(&mut chat.command(&["-n", "1000000"]));
    t.expect("lines are read without editing");
    t.prompt();
    t.line("one");
    t.expect("w7 ");
    t.send("\x03");
    t.expect("[ stopped ]");
    t.prompt();
    t.send("\x03");
    t.expect("Ctrl-C again");
    t.prompt();
    t.line("/edit");
    t.expect("/edit TEXT gives the whole message");
    t.prompt();
    // The kernel takes no more of a line.
    t.line(&"x".repeat(5000));
    t.expect("cuts lines at 4095 bytes");
    t.prompt();
    assert!(!t.shown().contains('\x1b'), "{}", t.shown());
    t.send("\x03");
    t.expect("Ctrl-C again");
    t.prompt();
    t.send("\x03");
    assert_eq!(t.ends(), 130);
}

/// Answers go to the file, and nothing else: the prompt, and what is typed, are shown on the terminal.
#[test]
fn answers_go_to_a_file() {
    let chat = Chat::new(&answering(&ANSWER));
    for is_dumb in [false, true] {
        let out = std::fs::File::create(chat.0.path("out.txt")).unwrap();
        let mut t = Terminal::into_file(&mut chat.command(&[]), is_dumb, out);
        for text in ["one", "two"] {
            t.prompt();
            t.line(text);
            t.expect(text);
            t.expect("K/V: ");
        }
        t.prompt();
        t.send("\x04");
        assert_eq!(t.ends(), 0);
        let answers = std::fs::read_to_string(chat.0.path("out.txt")).unwrap();
        assert_eq!(answers, "Some fine answer.\nSome fine answer.\n", "{is_dumb}");
    }
}

#[test]
fn a_terminal_that_changes_its_width() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&[]);
    let long = "a message of several words that is longer than a narrow window is wide";
    t.send(&long[..40]);
    t.expect("words");
    t.resize(30);
    t.send(&long[40..]);
    ask(&mut t, "");
    let help = command(&mut t, "/help", "quits.");
    assert!(help.lines().filter(|line| !line.contains('\x1b')).all(|line| line.trim_end().len() <= 36), "{help}");
    t.resize(200);
    command(&mut t, "/?", "/tokens [TEXT]     Count the tokens of a text, or of the conversation. Also /tokenize.");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    assert_eq!(chat.asked(), [long]);
    // In the middle of an answer.
    let chat = Chat::new(&endless());
    let mut t = chat.start(&["-n", "1000000"]);
    t.line("one");
    t.expect("w7 ");
    t.resize(20);
    t.expect("w250 ");
    t.send("\x03");
    t.expect("[ stopped ]");
    t.prompt();
    t.line("/exit");
    assert_eq!(t.ends(), 0);
}

#[test]
fn lines_are_kept_for_the_next_time() {
    use std::os::unix::fs::PermissionsExt;
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&[]);
    ask(&mut t, "an earlier line");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    let file = chat.0.path("state").join("armlet/history");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut t = chat.start(&[]);
    t.send("\x1b[A");
    t.expect("an earlier line");
    t.line(" again");
    t.expect("K/V: ");
    t.prompt();
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    assert_eq!(chat.asked(), ["an earlier line", "an earlier line again"]);
    let before = std::fs::read(&file).unwrap();
    let mut t = chat.start(&["--no-history"]);
    ask(&mut t, "a secret");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    assert!(std::fs::read(&file).unwrap() == before);
    // A history that cannot be kept is said, and the chat goes on.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let mut t = Terminal::new(&mut chat.command(&[]));
    let shown = t.expect("not a regular file; lines are not kept");
    assert!(shown.contains("armlet: warning: /") && !shown.contains("::"), "{shown}");
    t.prompt();
    ask(&mut t, "one");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
}

#[test]
fn piped_text_is_a_message() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut command = chat.command(&[]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command is one at the terminal only.
    child.stdin.take().unwrap().write_all(b"/help\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.stdout.as_slice(), stderr(&output)), (&b"Some fine answer.\n"[..], ""));
    fails_with(&["chat", "-m", &chat.0.name("model.gguf"), "--json"], 1, "the message is empty");
}
