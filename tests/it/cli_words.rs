//! The command line: what may come without an option, from where, and how its help reads.

use crate::cli::{Folder, armlet, fails_with, ok, stderr, tiny};
use crate::resident::ends_by;
use rustix::process::Signal;

#[test]
fn models_and_messages_come_without_an_option() {
    let f = Folder::new();
    let (model, text) = (tiny(&f), f.write("text", b"AB\n"));
    let greedy = |args: &[&str]| ok(&[args, &["--temp", "0", "-n", "4", "-t", "1"]].concat());
    let want = greedy(&["chat", "-m", &model, "-p", "AB"]);
    let same: [&[&str]; 6] = [
        &["chat", &model, "AB"],
        &["run", &model, "AB"],
        &["chat", &model, "-p", "AB"],
        &["chat", "-m", &model, "AB"],
        &["chat", "-m", &model, "-f", &text],
        &["chat", &model, "--file", &text],
    ];
    same.into_iter().for_each(|args| assert_eq!(greedy(args), want, "{args:?}"));
    let output = armlet().args(["chat", "A B", "-n", "1"]).env("ARMLET_MODEL", &model).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let of_text = |words: &[&str]| ok(&[&["tokenize"], words, &["-p", "AB"]].concat());
    assert_eq!(of_text(&[&model]), of_text(&["-m", &model]));
    for command in [&["plan"][..], &["bench", "-p", "4", "-n", "0", "-r", "1"], &["doctor", "--no-measure"]] {
        ok(&[command, &[&model]].concat());
    }
    // What looks like a model is none of the messages, and one word may.
    fails_with(&["run", "llama3.2:1b"], 2, "no known model; -p llama3.2:1b sends it as a message");
    fails_with(&["chat", "nowhere.gguf"], 1, "nowhere.gguf: no such file");
    fails_with(&["chat", "-m", &model, &model, "A"], 2, "cannot be used with");
    let both = armlet().args(["chat", "-f", &text, "AB", "-m", &model]).output().unwrap();
    assert!(both.status.code() == Some(2), "{both:?}");
    for more in [&["A"][..], &["-f", &text]] {
        let output = armlet().args(["chat", &model, "-p", "B"]).args(more).output().unwrap();
        assert!(output.status.code() == Some(2) && stderr(&output).contains("cannot be used with"), "{output:?}");
    }
}

/// A schema and a text do not both come from stdin, and either may.
#[cfg(feature = "grammar")]
#[test]
fn a_schema_may_come_from_stdin() {
    let f = Folder::new();
    let model = f.write("model.gguf", &crate::common::gguf::byte_level_model(1));
    let schema = f.write("schema", br#"{"type": "boolean"}"#);
    let grammar = f.write("grammar", br#"root ::= "yes" | "no""#);
    let given =
        |args: &[&str], input: &str| armlet().args(args).stdin(std::fs::File::open(input).unwrap()).output().unwrap();
    let options = ["-m", &model, "-n", "16", "-t", "1"];
    for (option, input, words) in
        [("--json-schema", &schema, ["true", "false"]), ("--grammar", &grammar, ["yes", "no"])]
    {
        for command in ["chat", "complete"] {
            let args = [&[command, option, "-"], &options[..]].concat();
            let output = given(&[&args[..], &["-p", "A"]].concat(), input);
            let answer = String::from_utf8_lossy(&output.stdout);
            assert!(words.contains(&answer.trim()), "{output:?}");
            crate::cli::fails(&given(&args, input), 2, "stdin can be one of the texts only");
        }
    }
}

/// At 80 columns no line is broken by the terminal.
#[test]
fn help_fits_a_terminal() {
    for command in ["", "chat", "complete", "serve", "plan", "bench", "quantize", "doctor", "inspect", "pull"] {
        if command == "serve" && !cfg!(feature = "serve") {
            continue;
        }
        let mut armlet = armlet();
        let output =
            armlet.args([command, "--help"].iter().filter(|arg| !arg.is_empty())).env("COLUMNS", "80").output();
        let help = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(help.contains("Usage: "), "{command}");
        let long: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{command}: {long:#?}");
    }
    let chat = ok(&["chat", "--help"]);
    let headings = ["Options:", "Model:", "KV cache:", "Sampling:", "Examples:", "Environment variables:"];
    let at =
        headings.map(|heading| chat.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{heading}\n{chat}")));
    assert!(at.is_sorted());
}

/// Signals end what waits, also where the model was looked up by its name, which may have it read.
#[test]
fn signals_end_what_waits_behind_a_name() {
    let f = Folder::new();
    for (option, signal, code) in [("--grammar", Signal::TERM, 143), ("--chat-template", Signal::INT, 130)] {
        ends_by(&f, &["chat", "-m", "smollm2", "-p", "A", option], signal, code);
    }
}

/// A lock's place may have been taken by something that is no lock.
#[test]
fn a_lock_is_a_file_or_nothing() {
    let f = Folder::new();
    let (model, session) = (tiny(&f), f.name("tea"));
    let lock = f.path(".tea.lock");
    let chat = ["chat", "-m", &model, "-p", "A", "-n", "1", "--session", &session];
    rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    fails_with(&chat, 1, ".tea.lock: not a regular file");
    std::fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(f.path("elsewhere"), &lock).unwrap();
    fails_with(&chat, 1, ".tea.lock: not a regular file");
    assert!(!f.path("elsewhere").exists());
    std::fs::remove_file(&lock).unwrap();
    // An empty file becomes a session, which is for its owner alone.
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(&session, "").unwrap();
    std::fs::set_permissions(&session, PermissionsExt::from_mode(0o644)).unwrap();
    ok(&chat);
    assert_eq!(std::fs::metadata(&session).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Where no process can be made, the file's own template is not rendered, and that is said. One that was chosen is not replaced.
#[test]
fn a_chat_without_processes_has_the_built_in_format() {
    let f = Folder::new();
    let model = f.write("model.gguf", &crate::common::gguf::byte_level_model(1));
    let template = f.write("template.jinja", b"{{ messages[0].content }}");
    let program = crate::common::program().display();
    let chat = |limit: usize, more: &str| {
        let options = format!("-p A -n 2 -t 1 --temp 0 {more}");
        let script = format!("ulimit -n {limit}; exec {program} chat -m {model} {options}");
        std::process::Command::new("bash").args(["-c", &script]).output().unwrap()
    };
    let own = "--override-kv 'tokenizer.chat_template=str:{{ messages[0].content }}'";
    // A process needs pipes. How many files are open then is the system's matter.
    let limit = (5..40).find(|limit| chat(*limit, own).status.success()).unwrap();
    let said = chat(limit, own);
    assert_eq!(stderr(&said).matches("the built-in format is used instead").count(), 1, "{said:?}");
    assert_eq!(said.stdout, chat(100, "--chat-template chatml").stdout);
    assert!(!stderr(&chat(100, own)).contains("built-in"));
    for chosen in [format!("--chat-template {template}"), format!("{own} --chat-template-kwargs '{{\"a\": 1}}'")] {
        let refused = chat(limit, &chosen);
        assert!(stderr(&refused).contains("cannot start the process that renders it"), "{refused:?}");
        assert_eq!(refused.status.code(), Some(1));
    }
}
