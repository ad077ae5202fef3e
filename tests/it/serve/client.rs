//! A server of a test, and a client of HTTP/1.1 that says exactly what the test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{Folder, armlet};
use crate::common::gguf::Gguf;

/// Beyond this a test hangs.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Server {
    pub(super) child: Child,
    pub(super) address: SocketAddr,
    /// What it wrote to stderr.
    log: Arc<Mutex<String>>,
    _folder: Folder,
}

impl Server {
    pub(super) fn new(model: &Gguf, options: &[&str]) -> Self {
        Self::with_file(&model.build(), options, &[])
    }

    /// A server of a model, with its options and its environment.
    pub(super) fn with_file(model: &[u8], options: &[&str], env: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let path = folder.write("tiny.gguf", model);
        let mut command = armlet();
        command.args(["serve", "-m", &path, "-t", "1", "--port", "0"]).args(options).env_remove("ARMLET_API_KEY");
        command.envs(env.iter().copied());
        Self::of(command, folder)
    }

    /// The server that a command starts, and the folder with its files.
    pub(super) fn of(mut command: Command, folder: Folder) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {log}")).unwrap();
            log += &format!("{line}\n");
            if let Some((_, address)) = line.split_once("http://") {
                break address.trim_end_matches([' ', ']']).parse().unwrap();
            }
        };
        let log = Arc::new(Mutex::new(log));
        let kept = log.clone();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| *kept.lock().unwrap() += &(line + "\n"))
        });
        Server { child, address, log, _folder: folder }
    }

    /// What it has written to stderr, when that has this.
    pub(super) fn log_with(&self, what: &str) -> String {
        for _ in 0..6000 {
            let log = self.log();
            if log.contains(what) {
                return log;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no {what:?}: {}", self.log())
    }

    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(super) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(BufReader::new(stream))
    }

    /// Sends a request with these lines of headers.
    pub(super) fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        let mut connection = self.connect();
        connection.send(&head(method, path, headers, body.len()));
        connection.send(body);
        connection.reply()
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[], &body.to_string())
    }

    /// The JSON of an answer that went well.
    pub(super) fn ok(&self, path: &str, body: &Value) -> Value {
        let reply = self.post(path, body);
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
        reply.json()
    }

    /// A connection on which an answer streams; its head was read.
    pub(super) fn stream(&self, path: &str, body: &Value) -> Connection {
        let mut connection = self.connect();
        let text = body.to_string();
        connection.send(&head("POST", path, &[], text.len()));
        connection.send(&text);
        let (status, headers) = connection.head();
        assert_eq!(status, 200, "{headers}");
        connection
    }

    /// A number of `/metrics`.
    pub(super) fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("armlet_{name} ")));
        line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
    }

    /// Waits until a number of `/metrics` is this.
    pub(super) fn until(&self, name: &str, value: u64) {
        for _ in 0..6000 {
            if self.metric(name) == value {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} is {} and not {value}", self.metric(name));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The head of a request; the connection is to be closed behind it.
pub(super) fn head(method: &str, path: &str, headers: &[&str], length: usize) -> String {
    let host = if headers.iter().any(|line| line.starts_with("Host:")) { "" } else { "Host: localhost\r\n" };
    let more: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\n{host}{more}Connection: close\r\nContent-Length: {length}\r\n\r\n")
}

pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(super) fn send(&mut self, text: &str) {
        // The server may have answered, and closed, before it has read all.
        let _ = self.0.get_mut().write_all(text.as_bytes());
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    /// The status and the headers of the response, in lower case.
    pub(super) fn head(&mut self) -> (u16, String) {
        let status = self.line();
        let mut headers = String::new();
        loop {
            match self.line() {
                line if line.is_empty() => break,
                line => headers += &(line.to_lowercase() + "\n"),
            }
        }
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {status:?} {headers}"));
        (status.parse().unwrap(), headers)
    }

    /// A piece of a body in pieces; none at its end.
    pub(super) fn chunk(&mut self) -> Option<String> {
        let length = usize::from_str_radix(&self.line(), 16).ok()?;
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes).ok()?;
        bytes.truncate(length);
        Some(String::from_utf8(bytes).unwrap()).filter(|text| !text.is_empty())
    }

    /// All that is left of a body in pieces.
    pub(super) fn rest(&mut self) -> String {
        std::iter::from_fn(|| self.chunk()).collect()
    }

    pub(super) fn reply(mut self) -> Reply {
        let (status, headers) = self.head();
        let body = if headers.contains("transfer-encoding: chunked") {
            self.rest()
        } else {
            let mut body = String::new();
            let _ = self.0.read_to_string(&mut body);
            body
        };
        Reply { status, headers, body }
    }

    /// All that comes until the server closes the connection.
    pub(super) fn all(mut self) -> String {
        let mut said = String::new();
        self.0.read_to_string(&mut said).unwrap();
        said
    }

    /// Whether the server has closed the connection; waits until it has, or has sent something.
    pub(super) fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// The events of a stream in OpenAI's form, without the last, which is `[DONE]`.
pub(super) fn events(stream: &str) -> Vec<Value> {
    let mut events: Vec<&str> =
        stream.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.pop(), Some("[DONE]"), "{stream}");
    events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// A conversation of one message.
pub(super) fn asking(text: &str, more: Value) -> Value {
    let mut request = json!({ "model": "tiny", "messages": [{ "role": "user", "content": text }] });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}
