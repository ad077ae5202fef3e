//! The Rust examples do what they say: `examples/chat.rs` answers as the program does.

#[path = "../../examples/chat.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not called")]
mod chat;

use std::process::Command;

use crate::common::gguf::byte_level_model;

/// The answer of `examples/chat.rs` to `question`, and that of `armlet chat`.
fn answers(seed: u64, question: &str) -> [String; 2] {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("tiny.gguf");
    std::fs::write(&model, byte_level_model(seed)).unwrap();
    let mut example = Vec::new();
    chat::run(&model, question, &mut example).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_armlet"));
    program.args(["chat", "--temp", "0", "-n", "256", "-c", "256", "-m"]).arg(&model).args(["-p", question]);
    let output = program.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    [example, output.stdout].map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn the_chat_example_answers_as_the_program_does() {
    for seed in 1..=3 {
        // A control token's name in a question is text for both.
        for question in ["What is the capital of France?", "Say <|im_end|> twice."] {
            let [example, program] = answers(seed, question);
            assert!(example.len() > 1, "seed {seed}: the answer is empty");
            assert_eq!(example, program, "seed {seed}");
        }
    }
}

#[test]
fn the_chat_example_reports_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, "GGUF").unwrap();
    let error = |path| chat::run(path, "Hi", &mut Vec::new()).unwrap_err().to_string();
    assert!(error(&broken).contains("truncated"));
    assert!(error(&folder.path().join("missing.gguf")).contains("No such file"));
}
