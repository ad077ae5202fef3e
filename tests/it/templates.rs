//! Chat templates as the program has them rendered: which one is used, and what happens to one that takes too much.

use std::io::{Read, Write};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::cli::{Folder, armlet, fails_with, ok, tiny};
use crate::common::gguf::{Tiny, Val};

/// How many tokens a chat prefills for the message `A`.
fn prompt_tokens(model: &str, more: &[&str]) -> u64 {
    let text = ok(&[&["chat", "-m", model, "--temp", "0", "-n", "1", "--json", "-p", "A"], more].concat());
    serde_json::from_str::<Value>(&text).unwrap()["timings"]["prompt_n"].as_u64().unwrap()
}

#[test]
fn which_template_is_used() {
    let f = Folder::new();
    let with = |name: &str, keys: &[(&str, &str)]| {
        let mut gguf = Tiny::default().gguf();
        keys.iter().for_each(|(key, text)| {
            gguf.set(key, Val::Str(text.to_string()));
        });
        f.write(name, &gguf.build())
    };
    let none = prompt_tokens(&tiny(&f), &[]);
    assert_eq!(prompt_tokens(&with("empty.gguf", &[("tokenizer.chat_template", " \n")]), &[]), none);

    // The tokens of a letter are as many as the letters.
    let keys = [("tokenizer.chat_template", "{{ 'A' * 10 }}"), ("tokenizer.chat_template.tool_use", "{{ 'A' * 20 }}")];
    let model = with("two.gguf", &keys);
    let file = f.write("file.jinja", b"{{ 'A' * (30 if enable_thinking else 40) }}");
    let own = prompt_tokens(&model, &[]);
    let ten = prompt_tokens(&model, &["--chat-template", "tool_use"]) - own;
    assert!(ten > 0);
    assert_eq!(prompt_tokens(&model, &["--chat-template", &file]), own + 3 * ten);
    let thinking = ["--chat-template", &file, "--chat-template-kwargs", r#"{"enable_thinking": true}"#];
    assert_eq!(prompt_tokens(&model, &thinking), own + 2 * ten);
    assert!(prompt_tokens(&model, &["--chat-template", "chatml"]) > own);

    let long = f.write("long.jinja", &[b'a'; (256 << 10) + 1]);
    let latin1 = f.write("latin1.jinja", b"\xe9");
    let refused =
        [("none.jinja", 2, "not one of chatml"), (&long, 1, "longer than 256 KiB"), (&latin1, 1, "not UTF-8")];
    for (template, code, why) in refused {
        fails_with(&["chat", "-m", &model, "-p", "A", "--chat-template", template], code, why);
    }
    let own = ["chat", "-m", &model, "-p", "A", "--chat-template-kwargs", r#"{"messages": []}"#];
    assert_eq!(armlet().args(own).output().unwrap().status.code(), Some(2));
}

/// Each is one line and exit 1; what it was that took too much is said.
#[test]
fn templates_that_take_too_much() {
    let f = Folder::new();
    let model = tiny(&f);
    let deep = "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    let twice = "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}";
    let memory = "48 MiB of memory, or 8 MiB of stack";
    let cases = [
        ("{{ 'a' * 10000000 }}".to_string(), "bytes of text"),
        ("{{ 'A' * 9000 }}".into(), "the chat template adds "),
        ("{{ raise_exception('only\ntext') }}".into(), "only; text"),
        ("{{ 'a' * 100000000 }}".into(), memory),
        ("{{ ([[1]] * 100000) | tojson(indent=10000) | length }}".into(), memory),
        (format!("{deep}{{{{ ns.x }}}}"), memory),
        ("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".into(), memory),
        (format!("{{{{ {} 1 }}}}", "-".repeat(100_000)), memory),
        (format!("{twice}{{{{ ns.s == [ns.s] }}}}{{{{ ns.s }}}}"), "too long: more than 900 ms of CPU time"),
    ];
    for (template, why) in cases {
        let file = f.write("hostile.jinja", template.as_bytes());
        fails_with(&["chat", "-m", &model, "-p", "A", "--chat-template", &file], 1, why);
    }
}

/// Steps are counted, and time and memory are limited; in a program whose template engine is not optimised, any may come first.
#[test]
fn a_template_of_too_many_steps() {
    let f = Folder::new();
    let model = tiny(&f);
    let endless = "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}";
    let file = f.write("hostile.jinja", endless.as_bytes());
    let output = armlet().args(["chat", "-m", &model, "-p", "A", "--chat-template", &file]).output().unwrap();
    let (said, code) = (String::from_utf8_lossy(&output.stderr), output.status.code());
    let is_limit = ["fuel", "too long", "48 MiB"].iter().any(|limit| said.contains(limit));
    assert!(code == Some(1) && is_limit, "{output:?}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// Only one of them would be read, and the other would be empty.
#[test]
fn a_template_and_a_message_do_not_both_come_from_stdin() {
    let f = Folder::new();
    let (model, out) = (tiny(&f), f.name("out"));
    let chat = ["chat", "-m", &model, "-n", "1", "--chat-template", "-"];
    let prefix = ["prefix", "-m", &model, "-o", &out, "--chat-template", "-"];
    fails_with(&chat, 2, "--chat-template - and the message cannot both come from stdin; give -p");
    for more in [&[][..], &["-f", "-"]] {
        fails_with(&[&prefix[..], more].concat(), 2, "--chat-template - and the system prompt cannot both");
    }
    let mut command = armlet();
    command.args(chat).args(["-p", "A"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{{ messages[0].content }}").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_conversation_is_kept_where_its_template_fails() {
    let f = Folder::new();
    let model = tiny(&f);
    let session = f.name("chat.session");
    let chat = ["chat", "-m", &model, "--temp", "0", "-n", "3", "--session", &session, "-c", "64", "-p"];
    ok(&[&chat[..], &["A"]].concat());
    let before = std::fs::read(&session).unwrap();
    let hostile = f.write("hostile.jinja", b"{{ messages[0].content * 100000000 }}");
    fails_with(&[&chat[..], &["B", "--chat-template", &hostile]].concat(), 1, "hostile.jinja");
    assert!(std::fs::read(&session).unwrap() == before);
    ok(&[&chat[..], &["B"]].concat());
}

pub(crate) fn ask(renderer: &mut Child, template: &str) -> std::io::Result<Value> {
    let job = json!({
        "template": template, "messages": [{ "role": "user", "content": "hi" }], "variables": {},
        "now": "2026-07-06T05:04:03", "stand_ins": "",
    });
    let job = job.to_string();
    let input = renderer.stdin.as_mut().unwrap();
    input.write_all(&[&(job.len() as u32).to_le_bytes(), job.as_bytes()].concat())?;
    let mut len = [0; 4];
    let output = renderer.stdout.as_mut().unwrap();
    output.read_exact(&mut len)?;
    let mut answer = vec![0; u32::from_le_bytes(len) as usize];
    output.read_exact(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

/// A process that renders.
pub(crate) fn start() -> Child {
    let mut command = armlet();
    command.arg("--render-templates").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// A process renders one message after another, and has as much time for each; it ends when nobody is there to ask.
#[test]
fn one_process_renders_many_messages() {
    let mut renderer = start();
    // Together these take more time than one may.
    for _ in 0..24 {
        let long = "{% for i in range(100) %}{% for j in range(1000) %}{% endfor %}{% endfor %}";
        let answer = ask(&mut renderer, &format!("{long}{{{{ messages[0].content }}}}")).unwrap();
        assert_eq!(answer, json!({ "text": "hi" }));
    }
    assert!(ask(&mut renderer, "{{ x.y.z }}").unwrap()["error"].as_str().unwrap().contains("undefined"));
    drop(renderer.stdin.take());
    assert!(renderer.wait().unwrap().success());
    // A job that is none.
    let mut renderer = start();
    renderer.stdin.as_mut().unwrap().write_all(&[2, 0, 0, 0, b'{', b'x']).unwrap();
    assert_eq!(renderer.wait().unwrap().code(), Some(1));
}
