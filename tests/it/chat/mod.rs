//! `armlet chat` as a person has it: on a pseudo-terminal.

mod answers;
mod commands;
mod context;
mod events;
mod lines;
mod signals;

use std::process::Command;

use crate::cli::{Folder, armlet};
use crate::common::gguf::Gguf;
use crate::common::pty::Terminal;

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
