//! `armlet chat` as a person has it: on a pseudo-terminal.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use armlet::arch::Kernels;
use armlet::engine::Config;
use armlet::storage::Serial;
use rustix::process::Signal;

use crate::cli::{Folder, armlet, fails_with, stderr};
use crate::common::gguf::{Gguf, Val};
use crate::common::pty::{Terminal, code};
use crate::common::run::{with_model, with_session};
use crate::common::scripted::{answering, endless, repeating};

const ANSWER: [&str; 3] = ["Some", " fine", " answer."];

/// A folder with a model, and what a chat in it keeps.
struct Chat(Folder);

impl Chat {
    fn new(model: &Gguf) -> Self {
        let folder = Folder::new();
        folder.write("model.gguf", &model.build());
        Chat(folder)
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = armlet();
        command.args(["chat", "-m", &self.0.name("model.gguf"), "-t", "1"]).args(more);
        command.env("XDG_STATE_HOME", self.0.path("state")).env_remove("NO_COLOR");
        command
    }

    /// A chat that keeps its session, at its first prompt.
    fn start(&self, more: &[&str]) -> Terminal {
        let session = self.0.name("session");
        let mut terminal = Terminal::new(&mut self.command(&[&["--session", session.as_str()], more].concat()));
        terminal.prompt();
        terminal
    }

    /// The roles and texts of the session.
    fn messages(&self) -> Vec<(String, String)> {
        self.messages_of("session")
    }

    fn messages_of(&self, name: &str) -> Vec<(String, String)> {
        let bytes = std::fs::read(self.0.path(name)).unwrap();
        // Behind the header.
        let mut values = serde_json::Deserializer::from_slice(&bytes[256..]).into_iter::<serde_json::Value>();
        let value = values.next().unwrap().unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_string();
        value["messages"].as_array().unwrap().iter().map(|m| (text(&m["role"]), text(&m["text"]))).collect()
    }

    /// The texts of the user.
    fn asked(&self) -> Vec<String> {
        self.messages().into_iter().filter(|(role, _)| role == "user").map(|(_, text)| text).collect()
    }
}

/// Asks, and waits for the whole answer and the next prompt.
fn ask(terminal: &mut Terminal, text: &str) -> String {
    terminal.line(text);
    let answer = terminal.expect("Some fine answer.");
    terminal.expect("K/V: ");
    terminal.prompt();
    answer
}

/// Types a command, and waits for its reply and the next prompt.
fn command(terminal: &mut Terminal, line: &str, reply: &str) -> String {
    terminal.line(line);
    let before = terminal.expect(reply);
    before + &terminal.prompt()
}

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
    // The message stands on the line, to be edited.
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
    command(&mut t, &format!("/save {saved}"), "3 messages are saved");
    command(&mut t, "/clear", "a new conversation begins; the system prompt stays");
    assert_eq!(roles(&chat), ["system"]);
    command(&mut t, "/show system", "Be brief.");
    command(&mut t, "/system", "without a system prompt");
    command(&mut t, "/set system Be long.", "with this system prompt");
    assert_eq!(chat.messages(), [("system".into(), "Be long.".into())]);
    command(&mut t, &format!("/load {saved}"), "a conversation of 3 messages goes on");
    assert_eq!(chat.asked(), ["five"]);
    let text = chat.0.write("text.txt", b"read\n");
    command(&mut t, &format!("/save {text}"), "not a saved conversation");
    command(&mut t, &format!("/read {text}"), "5 bytes go before the next message");
    ask(&mut t, "six");
    assert_eq!(chat.asked(), ["five", "read\nsix"]);
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

#[test]
fn settings_change_and_are_shown() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&[]);
    for (line, reply) in [
        ("/set", "repeat-penalty"),
        ("/set temp 0.5", "temp is 0.5"),
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
    command(&mut t, &format!("/read {long}"), "500000 bytes");
    t.line("?");
    t.expect("reading the prompt: ");
    t.expect(" of 500");
    t.expect(" left");
    t.send("\x03");
    t.expect("stopped after ");
    let read: usize = t.expect(" tokens of the prompt").parse().unwrap();
    assert!(read > 0 && read.is_multiple_of(128) && read < 500_000, "{read}");
    // The message was not answered, and is not there.
    t.prompt();
    command(&mut t, "/tokens", "0 messages and 0 answers");
    ask(&mut t, "one");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
}

#[test]
fn ctrl_c_stops_a_prefix() {
    let chat = Chat::new(&answering(&ANSWER));
    let (model, prefix) = (chat.0.name("model.gguf"), chat.0.name("prefix"));
    let long = chat.0.write("long.txt", "word ".repeat(800).as_bytes());
    let mut t = Terminal::new(armlet().args(["prefix", "-m", &model, "-t", "1", "-f", &long, "-o", &prefix]));
    // Before it catches signals, or after: there is no file.
    t.send("\x03");
    assert!([130, 1002].contains(&t.ends()));
    assert!(!chat.0.path("prefix").exists());
}

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

/// A paste that says where it begins and ends is one message, which Enter sends.
#[test]
fn a_long_paste_is_one_message() {
    let chat = Chat::new(&answering(&ANSWER));
    let mut t = chat.start(&["-c", "64"]);
    let lines: Vec<_> = (0..400).map(|i| format!("{i:04} {}", "x".repeat(44))).collect();
    let paste = lines.join("\n");
    assert!(paste.len() >= 19_999);
    t.send(&format!("\x1b[200~{paste}\x1b[201~"));
    t.expect("0399 ");
    ask(&mut t, "");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
    assert_eq!(chat.asked(), [paste]);
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
    assert!(!t.shown().contains('\x1b'), "{}", t.shown());
    t.send("\x03");
    t.expect("Ctrl-C again");
    t.prompt();
    t.send("\x03");
    assert_eq!(t.ends(), 130);
}

#[test]
fn signals_keep_the_answer() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::HUP, 1), (Signal::QUIT, 3)] {
        let chat = Chat::new(&endless());
        let mut t = chat.start(&["-n", "1000000"]);
        t.line("one");
        t.expect("w7 ");
        t.signal(signal);
        assert_eq!(t.ends(), 128 + number);
        let messages = chat.messages();
        assert!(messages.len() == 2 && messages[1].1.starts_with("w0 w1 w2 "), "{messages:?}");
        // And at the prompt, where there is nothing to keep.
        let mut t = chat.start(&[]);
        t.signal(signal);
        assert_eq!(t.ends(), 128 + number);
    }
}

/// As with `nohup`.
#[test]
fn ignored_signals_stay_ignored() {
    let chat = Chat::new(&endless());
    let inner = chat.command(&["-n", "1000000"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    command.env("XDG_STATE_HOME", chat.0.path("state"));
    let mut t = Terminal::new(&mut command);
    t.prompt();
    t.line("one");
    t.expect("w7 ");
    t.signal(Signal::HUP);
    (0..3).for_each(|_| {
        t.expect("w299 ");
    });
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
    assert!(on(&["--system", "Be long."]).contains("--system is not used"));
    let output = chat.command(&["-c", "64", "--system", &"s".repeat(50), "-p", "one"]).output().unwrap();
    assert!(stderr(&output).contains("only the first 32 stay"), "{}", stderr(&output));
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
    refused("/nowhere/session", "/nowhere/session: No such file");
    // An empty file is a new session.
    let empty = chat.0.write("session", b"");
    let output = chat.command(&["-p", "one", "--session", &empty]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(chat.asked(), ["one"]);
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

#[test]
fn a_system_prompt_of_a_prefix_is_not_replaced() {
    let chat = Chat::new(&answering(&ANSWER));
    let (model, prefix) = (chat.0.name("model.gguf"), chat.0.name("prefix"));
    let made = armlet().args(["prefix", "-m", &model, "-p", "Be brief.", "-o", &prefix]).output().unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
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
    t.expect("not a regular file; lines are not kept");
    t.prompt();
    ask(&mut t, "one");
    t.send("\x04");
    assert_eq!(t.ends(), 0);
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
    let chat = Chat::new(&answering(&["<think>", "hm", "</think>", " a", "\u{202e}", "b"]));
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
    let events = lines(&mut chat.command(&["-p", "one", "--json=events"]));
    assert_eq!(of(&events, "thinking"), "<think>hm</think>");
    assert_eq!(of(&events, "text"), " a\u{202e}b");
    let end = events.last().unwrap();
    assert_eq!((end["event"].as_str(), end["stop"].as_str()), (Some("end"), Some("stop")));
    assert_eq!(end["text"], "<think>hm</think> a\u{202e}b");
    assert_eq!(events.iter().filter(|e| e["event"] == "end").count(), 1);
    let events = lines(&mut chat.command(&["-p", "one", "--json=events", "--hide-thinking"]));
    assert_eq!((of(&events, "thinking").as_str(), &events.last().unwrap()["text"]), ("", &"a\u{202e}b".into()));
    let events = lines(armlet().args(["complete", "-m", &chat.0.name("model.gguf"), "-p", "\n", "--json=events"]));
    assert_eq!(of(&events, "text"), "<think>hm</think> a\u{202e}b");
    assert_eq!(events.last().unwrap()["event"], "end");
    let whole = lines(&mut chat.command(&["-p", "one", "--json"]));
    assert!(whole.len() == 1 && whole[0]["event"].is_null() && whole[0]["stop"] == "stop");
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
