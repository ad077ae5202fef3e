//! How the program ends when it does not end well.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// A reason to stop.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something failed: one line says what, and what to do. Exit 1.
    Error(String),
    /// The command line makes no sense. Exit 2.
    Usage(String),
    /// Ctrl-C. Exit 130.
    Interrupted,
    /// Whoever read stdout has gone, which is a normal end. Exit 0.
    BrokenPipe,
}

impl Failure {
    /// A failure that says what failed and why.
    pub(crate) fn new(what: impl Display, why: impl Display) -> Self {
        Failure::Error(format!("{what}: {why}"))
    }

    /// A failure about a file.
    pub(crate) fn file(path: &Path, why: impl Display) -> Self {
        Failure::new(path.display(), why)
    }

    /// Prints the reason and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (text, code) = match self {
            Failure::Error(text) => (text, 1),
            Failure::Usage(text) => (format!("{text} (see --help)"), 2),
            Failure::Interrupted => return ExitCode::from(130),
            Failure::BrokenPipe => return ExitCode::SUCCESS,
        };
        // A reason may quote a library's message or a file's bytes: it stays one line.
        let line = text.split(['\n', '\r']).map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
        let line = line.replace(char::is_control, "\u{fffd}");
        // If stderr is gone too, the exit code has to do.
        let _ = writeln!(io::stderr(), "armlet: {line}");
        ExitCode::from(code)
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
failure_from!(armlet::engine::EngineError, armlet::sample::SampleError, armlet::tokenizer::TokenizerError);

/// Writes to stdout at once.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}
