//! `cargo xtask clients`: the server, as the packages openai and ollama of Python and openai of npm, and curl, have it; and
//! documents of random schemas, which the package jsonschema of Python validates.
//!
//! They are installed into `target/clients`; what each does is in `tests/clients`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::c_examples;
use crate::model::native;
use crate::process::{Failed, Steps, command, output, root, say};
use crate::setup;

/// The key that requests need.
const KEY: &str = "a-key-of-the-clients-tests";

/// # Errors
/// What could not be installed, or what a client did not get.
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    setup::program(steps)?;
    check(steps)
}

/// The same, where the program is built.
pub(crate) fn check(steps: &mut Steps) -> Result<(), Failed> {
    let folder = root().join("target/clients");
    let (python, node) = (folder.join("python"), folder.join("node"));
    steps.step("clients", || install(&python, &node))?;
    let tiny = folder.join("tiny.gguf");
    steps.step("a tiny model", || c_examples::tiny(&tiny))?;
    let server = Server::start("smollm2", Some(KEY))?;
    let base = format!("http://{}/v1", server.address);
    let script = |name: &str| root().join("tests/clients").join(name);
    let client = |command: &mut Command| {
        command.env("OPENAI_BASE_URL", &base).env("OPENAI_API_KEY", KEY);
        command.env("OLLAMA_HOST", format!("http://{}", server.address)).env("ARMLET_KEY", KEY);
        output(command.env("PYTHONPATH", &python)).map(say)
    };
    steps.step("openai, of Python", || client(Command::new("python3").arg(script("openai_client.py"))))?;
    steps.step("ollama, of Python", || client(Command::new("python3").arg(script("ollama_client.py"))))?;
    steps.step("openai, of npm", || {
        client(Command::new("node").env("NODE_MODULES", node.join("node_modules")).arg(script("openai_client.mjs")))
    })?;
    steps.step("curl", || {
        let body = r#"{"messages": [{"role": "user", "content": "What is the capital of France?"}], "stream": true, "max_tokens": 16}"#;
        let key = format!("Authorization: Bearer {KEY}");
        let url = format!("{base}/chat/completions");
        let said = output(Command::new("curl").args(["-sSN", "--fail-with-body", &url, "-H", &key, "-d", body]))?;
        match said.trim_end().ends_with("data: [DONE]") {
            true => {
                say(format!("    {} events", said.matches("data: ").count()));
                Ok(())
            }
            false => Err(Failed(format!("curl got {said:?}"))),
        }
    })?;
    steps.step("documents of random schemas", || {
        let server = Server::start(&tiny.display().to_string(), Some(KEY))?;
        let mut script = Command::new("python3");
        script.arg(root().join("tests/clients/schemas.py")).env("PYTHONPATH", &python).env("OPENAI_API_KEY", KEY);
        output(script.env("OPENAI_BASE_URL", format!("http://{}/v1", server.address))).map(say)
    })
}

fn install(python: &Path, node: &Path) -> Result<(), Failed> {
    setup::packages(&[
        (&["python3", "-m", "pip", "--version"], "python3-pip"),
        (&["npm", "--version"], "npm"),
        (&["curl", "--version"], "curl"),
    ])?;
    let packages = ["openai", "ollama", "jsonschema"];
    if !packages.iter().all(|package| python.join(package).exists()) {
        let to = python.display().to_string();
        let install = ["-m", "pip", "install", "--quiet", "--target", &to];
        command("python3", &[&install[..], &packages].concat(), &[])?;
    }
    if !node.join("node_modules/openai").exists() {
        let to = node.display().to_string();
        command("npm", &["install", "--silent", "--no-fund", "--no-audit", "--prefix", &to, "openai"], &[])?;
    }
    Ok(())
}

/// A server of a model, which ends with this; requests need the key, if there is one.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(model: &str, key: Option<&str>) -> Result<Self, Failed> {
        let mut command = native();
        command.args(["serve", "-m", model, "--port", "0", "-c", "2048", "--users", "2"]);
        command.env_remove("ARMLET_API_KEY").envs(key.map(|key| ("ARMLET_API_KEY", key)));
        let spawned = command.stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| Failed(format!("{command:?}: {e}")))?;
        let stderr = child.stderr.take().ok_or_else(|| Failed("the server has no stderr".into()))?;
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let address =
            lines.find_map(|line| Some(line.split_once("http://")?.1.trim_end_matches([' ', ']']).to_string()));
        // What it says later goes nowhere, and never blocks it.
        std::thread::spawn(move || lines.for_each(drop));
        let address = address.ok_or_else(|| Failed("the server did not start".into()));
        address.map(|address| Server { child, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If it has ended, that was the aim.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
