//! Errors of the program, their messages and exit codes.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use armlet::arch::KvType;
use serde_json::Value;

use crate::visible;

/// Why the program stops early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something failed: one line says what, and what to do. Exit 1.
    Error(String),
    /// The command line is wrong. Exit 2.
    Usage(String),
    /// Ctrl-C, or another signal that ends the program. Exit 130, or 128 and its number.
    Interrupted,
    /// The reader of stdout has closed it, which is a normal end. Exit 0.
    BrokenPipe,
    /// The first of several boards had nothing more to do. Exit 0.
    Followed,
}

impl Failure {
    /// What failed, and why.
    pub(crate) fn new(what: impl Display, why: impl Display) -> Self {
        Failure::Error(format!("{what}: {why}"))
    }

    /// What is wrong with a file.
    pub(crate) fn file(path: &Path, why: impl Display) -> Self {
        Failure::new(path.display(), why)
    }

    /// The exit code.
    #[cfg(feature = "mpi")]
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Error(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Interrupted => 130,
            Failure::BrokenPipe | Failure::Followed => 0,
        }
    }

    /// Prints the error and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (text, code) = match self {
            Failure::Error(text) => (text, 1),
            Failure::Usage(text) => (format!("{text} (see --help)"), 2),
            Failure::Interrupted => return ExitCode::from(130),
            Failure::BrokenPipe | Failure::Followed => return ExitCode::SUCCESS,
        };
        // The text may quote a library's message or a file's bytes: it is made one line without control characters.
        let line = text.split(['\n', '\r']).map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
        let line = visible::line(&line);
        // If stderr is closed too, the exit code has to do.
        let _ = writeln!(io::stderr(), "armlet: {line}");
        ExitCode::from(code)
    }
}

/// What may help against logits that are not numbers, with a KV cache of this format.
pub(crate) fn instead_of_nan(kv: KvType) -> &'static str {
    match kv {
        KvType::F16 => {
            "; or its keys or values are above 65504, the largest number in a KV cache of f16: --kv-type f32 holds them"
        }
        KvType::Int8 => "; or its keys or values are too large for a KV cache of int8: --kv-type f32 holds them",
        KvType::F32 => "",
    }
}

/// Writing to stdout failed.
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Failure::BrokenPipe
        } else {
            Failure::new("cannot write the output", e)
        }
    }
}

macro_rules! failure_from {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(e: $error) -> Self {
                Failure::Error(e.to_string())
            }
        })+
    };
}
failure_from!(armlet::engine::EngineError, armlet::tokenizer::TokenizerError);

/// Writes a JSON value as a line, or as several that are easier to read.
pub(crate) fn print_json(value: &Value, lines: bool) -> Result<(), Failure> {
    let json = if lines { format!("{value:#}\n") } else { format!("{value}\n") };
    print(visible::json(&json).as_bytes())
}

/// Writes to stdout and flushes it.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}
