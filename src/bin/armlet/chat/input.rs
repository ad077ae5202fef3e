//! Messages from the terminal: line editing, several lines, and a history that outlives the program.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Behavior, CompletionType, Config, Context, Editor, Helper};

use crate::error::Failure;
use crate::interrupt;
use crate::network;
use crate::terminal;

/// Lines of the history.
const HISTORY: usize = 1000;
/// Longer messages, in bytes, are not kept in it.
const HISTORY_ENTRY: usize = 16 << 10;
/// Bytes of a line that the kernel edits, where the line editor does not.
const LONGEST: usize = 4095;
/// What begins and ends a message of several lines.
const QUOTES: &str = "\"\"\"";

/// What came from the terminal.
#[derive(Debug, PartialEq)]
pub(super) enum Input {
    /// A line with a command.
    Command(String),
    Message(String),
    /// Nothing, or a message that was given up.
    Nothing,
    /// Ctrl-D: a normal end.
    End,
}

/// Whether a command takes several lines, by its name.
type TakesLines = fn(&str) -> bool;

/// The line editor.
pub(super) struct Lines {
    editor: Editor<Commands, FileHistory>,
    /// Where the history is kept.
    file: Option<PathBuf>,
    /// Lines are read without editing.
    plain: bool,
    /// Whether several lines that begin with a word are a command.
    takes_lines: TakesLines,
}

impl Lines {
    /// Names of commands can be completed.
    pub(super) fn new(
        commands: Vec<&'static str>,
        takes_lines: TakesLines,
        keep_history: bool,
    ) -> Result<Self, Failure> {
        // Answers may go to a file. The prompt, and what is typed, are for the terminal in any case.
        let to_terminal = std::io::stdout().is_terminal();
        // Of several boards the launcher has the terminal, and what is typed comes through a pipe.
        let has_terminal = !network::is_job() && (to_terminal || std::fs::File::open("/dev/tty").is_ok());
        let plain = terminal::is_dumb() || !has_terminal;
        let behavior = if to_terminal { Behavior::Stdio } else { Behavior::PreferTerm };
        let config = Config::builder().completion_type(CompletionType::List).max_history_size(HISTORY);
        let config = config.map_err(failed)?.behavior(behavior).build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Commands(commands)));
        let mut lines = Lines { editor, file: keep_history.then(history_file).flatten(), plain, takes_lines };
        lines.load();
        Ok(lines)
    }

    fn load(&mut self) {
        let Some(file) = &self.file else { return };
        let why = match file.metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(e) => e.to_string(),
            Ok(metadata) if !metadata.is_file() => "not a regular file".into(),
            Ok(_) => match self.editor.load_history(file) {
                Ok(()) => return,
                Err(e) => e.to_string(),
            },
        };
        self.give_up_history(&why);
    }

    /// A history that cannot be kept is said once, and no reason to stop.
    fn give_up_history(&mut self, why: &str) {
        if let Some(file) = self.file.take() {
            log::warn!("{}: {why}; lines are not kept for the next time", file.display());
        }
    }

    fn remember(&mut self, entry: &str) {
        let added = entry.len() <= HISTORY_ENTRY && self.editor.add_history_entry(entry).unwrap_or(false);
        let Some(file) = self.file.clone().filter(|_| added) else { return };
        let folder = || match file.parent() {
            Some(folder) => private_folder(folder),
            None => Ok(()),
        };
        let kept = folder().map_err(ReadlineError::from).and_then(|()| self.editor.append_history(&file));
        if let Err(e) = kept {
            self.give_up_history(&e.to_string());
        }
    }

    /// Reads the next message or command.
    pub(super) fn read(&mut self) -> Result<Input, Failure> {
        self.read_text("").map(|text| text.map_or_else(|nothing| nothing, |text| meaning(&text, self.takes_lines)))
    }

    /// Whether a message can be edited.
    pub(super) fn can_edit(&self) -> bool {
        !self.plain
    }

    /// Lets a message be edited; `None` if it was given up.
    pub(super) fn edit(&mut self, message: &str) -> Result<Option<String>, Failure> {
        let text = self.read_text(message)?.ok();
        let text = text.map(|text| unquoted(&text).map(str::to_string).unwrap_or(text));
        Ok(text.filter(|text| !text.trim().is_empty()))
    }

    /// Reads the text of a message or command, beginning with `initial`; or what there is instead.
    fn read_text(&mut self, initial: &str) -> Result<Result<String, Input>, Failure> {
        let text = match interrupt::at_prompt(|| self.read_lines(initial))? {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) if interrupt::pressed_at_prompt() => return Err(Failure::Interrupted),
            Err(ReadlineError::Interrupted) => return Ok(Err(Input::Nothing)),
            Err(ReadlineError::Eof) => return Ok(Err(Input::End)),
            Err(ReadlineError::Io(e)) if e.kind() == std::io::ErrorKind::InvalidData => {
                let _ = Failure::Error("the line is not UTF-8, and was not sent".into()).report();
                return Ok(Err(Input::Nothing));
            }
            Err(e) => return Err(failed(e)),
        };
        interrupt::line_came();
        if self.plain && text.lines().any(|line| line.len() == LONGEST) {
            let why =
                format!("this terminal cuts lines at {LONGEST} bytes: the message is not whole, and was not sent");
            let _ = Failure::Error(why + "; a \\ at the end of a line goes on in the next").report();
            return Ok(Err(Input::Nothing));
        }
        if !text.trim().is_empty() {
            self.remember(&text);
        }
        Ok(Ok(text))
    }

    /// A line, or the lines of a message that goes on, without the `\` that was typed for that.
    fn read_lines(&mut self, initial: &str) -> Result<String, ReadlineError> {
        let mut text = self.read_line("> ", initial)?;
        while goes_on(&text) {
            if !is_quoted(&text) {
                text.pop();
            }
            text.push('\n');
            match self.read_line(". ", "") {
                Ok(line) => text += &line,
                // In the middle of a message Ctrl-D ends it, and not the program.
                Err(ReadlineError::Eof) => {
                    let _ = writeln!(std::io::stderr());
                    return if is_quoted(&text) { Ok(text + QUOTES) } else { Ok(text) };
                }
                Err(e) => return Err(e),
            }
        }
        Ok(text)
    }

    fn read_line(&mut self, prompt: &str, initial: &str) -> Result<String, ReadlineError> {
        if !self.plain {
            return self.editor.readline_with_initial(prompt, (initial, ""));
        }
        let _ = write!(std::io::stderr(), "{prompt}");
        let mut line = String::new();
        match std::io::stdin().read_line(&mut line)? {
            0 => Err(ReadlineError::Eof),
            // The kernel may know another key for it.
            _ => Ok(line.trim_end_matches(['\r', '\n']).chars().fold(String::new(), |mut line, c| {
                match c {
                    '\x08' => _ = line.pop(),
                    c => line.push(c),
                }
                line
            })),
        }
    }
}

fn failed(e: ReadlineError) -> Failure {
    Failure::new("cannot read the terminal", e)
}

/// Whether more lines belong to a message: `"""` has been opened and not closed, or the last line ends with a `\`.
fn goes_on(text: &str) -> bool {
    match text.trim_start().strip_prefix(QUOTES) {
        Some(rest) => !rest.contains(QUOTES),
        None => text.ends_with('\\'),
    }
}

fn is_quoted(text: &str) -> bool {
    text.trim_start().starts_with(QUOTES)
}

/// What a line, or several, mean. Several may be a paste, of which nothing is changed: quotes and slashes that stand in it are
/// its own, unless the quotes are around all of it.
fn meaning(text: &str, takes_lines: TakesLines) -> Input {
    if let Some(quoted) = unquoted(text) {
        return message(quoted);
    }
    let first = text.split(char::is_whitespace).next().unwrap_or("");
    let text = text.trim_end_matches('\n');
    let is_line = !text.contains('\n');
    match text.strip_prefix('/') {
        // Two slashes stand for one.
        Some(rest) if is_line && rest.starts_with('/') => message(rest.trim()),
        Some(_) if is_line || takes_lines(first) => Input::Command(text.trim_end().into()),
        _ if is_line => message(text.trim()),
        _ => message(text),
    }
}

/// What is between quotes, and in lines of its own there.
fn unquoted(text: &str) -> Option<&str> {
    let quoted = text.trim().strip_prefix(QUOTES)?.strip_suffix(QUOTES).filter(|quoted| !quoted.contains(QUOTES))?;
    let quoted = quoted.strip_prefix('\n').unwrap_or(quoted);
    Some(quoted.strip_suffix('\n').unwrap_or(quoted))
}

fn message(text: &str) -> Input {
    if text.trim().is_empty() { Input::Nothing } else { Input::Message(text.into()) }
}

/// `$XDG_STATE_HOME/armlet/history`, or `~/.local/state/armlet/history`.
fn history_file() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // The specification ignores relative paths.
    let state = var("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| var("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("armlet/history"))
}

/// Makes a folder that only its owner can read, if it is not there.
fn private_folder(folder: &std::path::Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Completes the names of commands.
struct Commands(Vec<&'static str>);

impl Completer for Commands {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> Result<(usize, Vec<String>), ReadlineError> {
        let typed = &line[..at];
        let names = self.0.iter().filter(|name| typed.starts_with('/') && name.starts_with(typed));
        Ok((0, names.map(|name| format!("{name} ")).collect()))
    }
}

impl Hinter for Commands {
    type Hint = String;
}
impl Highlighter for Commands {}
impl Validator for Commands {}
impl Helper for Commands {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on() {
        for text in ["a\\", "\\", "\"\"\"", "\"\"\"a\nb", " \"\"\"a\"\" \"", "a\\\nb\\"] {
            assert!(goes_on(text), "{text:?}");
        }
        // The last is a paste.
        for text in
            ["", "a", "a\\ ", "\"\"\"a\"\"\"", "\"\"\"\n\"\"\" ", "a \"\"\"", "\"\"\"\"\"\"", "\"\"\"A.\n\"\"\"\nx"]
        {
            assert!(!goes_on(text), "{text:?}");
        }
    }

    #[test]
    fn lines_have_a_meaning() {
        let message = |text: &str| Input::Message(text.into());
        for (text, means) in [
            ("", Input::Nothing),
            (" \t", Input::Nothing),
            ("\"\"\"\n\n\"\"\"", Input::Nothing),
            (" a ", message("a")),
            // What stands in a paste is its own.
            ("a\\\n  b\n", message("a\\\n  b")),
            ("  a\n    b", message("  a\n    b")),
            ("// a\nb", message("// a\nb")),
            ("/home/x\nb", message("/home/x\nb")),
            ("/clear\nb", message("/clear\nb")),
            ("/system a\n b\n", Input::Command("/system a\n b".into())),
            ("\"\"\"A.\"\"\"\nb", message("\"\"\"A.\"\"\"\nb")),
            ("\"\"\"A.\"\"\"\n\"\"\"B.\"\"\"", message("\"\"\"A.\"\"\"\n\"\"\"B.\"\"\"")),
            ("\"\"\"\na\\\n /b\n\"\"\"", message("a\\\n /b")),
            ("\"\"\"a\"\"\"", message("a")),
            ("/x y ", Input::Command("/x y".into())),
            ("//x", message("/x")),
            (" /x", message("/x")),
            ("//", message("/")),
        ] {
            assert_eq!(meaning(text, |name| name == "/system"), means, "{text:?}");
        }
    }
}
