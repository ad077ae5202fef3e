//! `cargo xtask users`: many people and one server: as the model was trained, as multi-head attention with the same memory, and
//! llama-server.
//!
//! The load is locust's, a package of Python: who asks, and what is made of the times, is in `benches/users`.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::model::{native, shipped};
use crate::process::{Failed, Steps, command, output, record, root, say};
use crate::setup;

/// People at a time.
const USERS: [usize; 5] = [1, 4, 8, 16, 24];
/// Seconds of each number of people.
const SECONDS: usize = 40;
/// Tokens of a slot, and bytes of the KV cache of all: of 24 slots as the model was trained.
const CONTEXT: &str = "512";
const SLOTS: usize = 24;
const BUDGET: &str = "285327360";
const PORT: u16 = 18080;
/// Seconds until a server must answer.
const PATIENCE: usize = 120;

const ABOUT: &str = "\
SmolLM2-135M Q4_1, two threads, slots of 512 tokens in 285,327,360 bytes of KV cache. Each person asks again as soon as the answer is
there: prompts of some 286 tokens, of which a third of the people share 200, answers of 64. The load is made on the same two cores.
Each row runs for {SECONDS} seconds, of which 15 to 95 % count. Answers that ended; of these and of tokens how many a second; milliseconds
to the first token, between tokens, and between tokens while a prompt of another was read (half of them and 95 % of them are below).

| server | slots | users | answers | answers/s | tokens/s | first, 50 % | 95 % | between, 50 % | 95 % | beside a prompt, 50 % | 95 % |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
";

/// # Errors
/// What could not be installed or started.
pub(crate) fn run(steps: &mut Steps, llama_server: Option<&str>) -> Result<(), Failed> {
    setup::program(steps)?;
    let folder = root().join("target/users");
    let (python, multi_head) = (folder.join("python"), folder.join("mha.gguf"));
    let mut model = PathBuf::new();
    steps.step("locust", || install(&python))?;
    steps.step("the model as multi-head attention", || {
        model = shipped()?;
        let script = root().join("benches/users/mha.py");
        output(python3(&python).arg(script).args([&model, &multi_head])).map(drop)
    })?;
    let mut text = ABOUT.replace("{SECONDS}", &SECONDS.to_string());
    let mut serve = |name: &str, slots: usize, start: &mut Command| {
        let server = Server::start(start)?;
        for users in USERS {
            let row = load(&folder, &python, users)?;
            say(format!("    {name}, {users}: {row}"));
            text += &format!("| {name} | {slots} | {users} | {row} |\n");
        }
        drop(server);
        Ok::<_, Failed>(())
    };
    let group = 3;
    for (name, slots, file) in
        [("armlet, as trained", SLOTS, &model), ("armlet, multi-head", SLOTS / group, &multi_head)]
    {
        steps.step(name, || serve(name, slots, &mut armlet(file)))?;
    }
    if let Some(program) = llama_server {
        steps.step("llama-server", || serve("llama-server", SLOTS, &mut llama(program, &model)))?;
    }
    record("users", "Many people and one server", "locust", &text)
}

fn armlet(file: &Path) -> Command {
    let mut command = native();
    command.arg("serve").arg("-m").arg(file).args(["-t", "2", "-c", CONTEXT, "--kv-budget", BUDGET, "--queue", "32"]);
    command.args(["--port", &PORT.to_string()]);
    command
}

fn llama(program: &str, file: &Path) -> Command {
    let mut command = Command::new(program);
    let context = SLOTS * CONTEXT.parse::<usize>().unwrap_or(0);
    command.arg("-m").arg(file).args(["-t", "2", "-np", &SLOTS.to_string(), "-c", &context.to_string()]);
    command.args(["--port", &PORT.to_string()]);
    command
}

fn install(python: &Path) -> Result<(), Failed> {
    setup::packages(&[(&["python3", "-m", "pip", "--version"], "python3-pip")])?;
    if python.join("locust").exists() && python.join("gguf").exists() {
        return Ok(());
    }
    let to = python.display().to_string();
    command("python3", &["-m", "pip", "install", "--quiet", "--target", &to, "locust", "gguf"], &[])
}

fn python3(packages: &Path) -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages);
    command
}

/// A row of the table, of so many people.
fn load(folder: &Path, python: &Path, users: usize) -> Result<String, Failed> {
    let script = |name: &str| root().join("benches/users").join(name);
    let requests = folder.join("requests.json");
    let (users, time) = (users.to_string(), format!("{SECONDS}s"));
    let mut locust = python3(python);
    locust.args(["-m", "locust", "--headless", "--only-summary", "--stop-timeout", "0", "-u", &users, "-r", &users]);
    locust.args(["-t", &time, "-f"]).arg(script("users.py"));
    locust.env("SERVER", format!("http://127.0.0.1:{PORT}")).env("REQUESTS_FILE", &requests);
    output(&mut locust)?;
    Ok(output(Command::new("python3").arg(script("table.py")).arg(requests))?.trim().into())
}

/// A server that answers, and ends with this.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Result<Self, Failed> {
        let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Server(spawned.map_err(|e| Failed(format!("{command:?}: {e}")))?);
        let health = format!("http://127.0.0.1:{PORT}/health");
        for _ in 0..2 * PATIENCE {
            sleep(Duration::from_millis(500));
            let is_open = TcpStream::connect(("127.0.0.1", PORT)).is_ok();
            if is_open && output(Command::new("curl").args(["-sf", &health])).is_ok() {
                return Ok(server);
            }
        }
        Err(Failed(format!("{command:?} does not answer")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If it has ended, that was the aim.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
