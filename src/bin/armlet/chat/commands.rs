//! The commands of a chat: one table, from which `/help` is made.

use std::path::Path;

use armlet::tokenizer::{EncodeOptions, Role};

use super::repl::{Next, Repl};
use super::settings;
use crate::claim::Claim;
use crate::error::Failure;
use crate::model::{encode, map, read_file};
use crate::numbers;
use crate::visible;

type Run = fn(&mut Repl<'_, '_>, &str) -> Result<Next, Failure>;

struct Command {
    /// The first is the one that `/help` shows; the others are what other programs call it.
    names: &'static [&'static str],
    argument: &'static str,
    help: &'static str,
    run: Run,
}

const fn command(names: &'static [&'static str], argument: &'static str, help: &'static str, run: Run) -> Command {
    Command { names, argument, help, run }
}

const COMMANDS: [Command; 14] = [
    command(&["/help", "/?", "/h"], "", "List the commands.", |repl, _| repl.say(&help())),
    command(&["/clear", "/reset", "/new", "/forget"], "", "Start a new conversation; the system prompt stays.", clear),
    command(&["/system"], "[TEXT]", "Start a new conversation with this system prompt, or without one.", system),
    command(&["/regen", "/regenerate", "/retry"], "", "Replace the last answer by another one.", |repl, _| {
        repl.reply(|chat, show| chat.again(show))
    }),
    command(&["/edit"], "[TEXT]", "Change your last message, and let it be answered again.", edit),
    command(&["/undo"], "", "Take your last message back, and its answer.", undo),
    command(
        &["/read", "/file"],
        "[FILE]",
        "Put the text of a file before your next message; without a name, drop it.",
        read,
    ),
    command(&["/save"], "FILE", "Save the conversation, with its KV cache.", save),
    command(&["/load"], "FILE", "Go on with a saved conversation.", load),
    command(&["/set"], "[NAME VALUE]", "Change a setting of this chat; without a name, list them.", set),
    command(&["/show"], "[NAME]", "Show a setting; without a name, all of them and the model.", settings::show),
    command(&["/stats", "/context"], "", "Show tokens per second, and what is in the KV cache.", stats),
    command(&["/tokens", "/tokenize"], "[TEXT]", "Count the tokens of a text, or of the conversation.", tokens),
    command(&["/exit", "/bye", "/quit", "/q"], "", "Quit; so does Ctrl-D.", |_, _| Ok(Next::Quit)),
];

/// What `/help` says beside the commands.
const MORE: [&str; 3] = [
    "A message that begins with / is sent after a space, or with two: //like this.",
    "Several lines: a \\ at the end of a line, or \"\"\" before the first and after the last.",
    "Ctrl-C stops an answer, which is kept; twice at the prompt, it quits.",
];

/// Executes a line that begins with a slash.
pub(super) fn execute(repl: &mut Repl<'_, '_>, line: &str) -> Result<Next, Failure> {
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let Some(command) = find(name) else {
        let name = visible::line(name);
        return Err(Failure::Error(format!("{name} is not a command; /help lists them, and /{name} sends it")));
    };
    (command.run)(repl, argument.trim())
}

fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|c| c.names.contains(&name))
}

/// Whether several lines that begin with this word are a command: one that takes a text. Others may be the lines of a paste.
pub(super) fn takes_lines(name: &str) -> bool {
    find(name).is_some_and(|c| c.argument == "[TEXT]" || c.names[0] == "/set")
}

/// The names that `/help` shows.
pub(super) fn names() -> Vec<&'static str> {
    COMMANDS.iter().map(|c| c.names[0]).collect()
}

fn help() -> Vec<(String, String)> {
    let of = |c: &Command| {
        let others = if c.names.len() > 1 { format!(" Also {}.", c.names[1..].join(", ")) } else { String::new() };
        (format!("{} {}", c.names[0], c.argument).trim_end().to_string(), format!("{}{others}", c.help))
    };
    let more = MORE.iter().map(|line| (String::new(), (*line).to_string()));
    COMMANDS.iter().map(of).chain(more).collect()
}

fn clear(repl: &mut Repl<'_, '_>, _: &str) -> Result<Next, Failure> {
    repl.detach();
    let has_system = repl.chat.clear();
    repl.chat.save()?;
    let kept = if has_system { "; the system prompt stays" } else { "" };
    repl.note(&format!("a new conversation begins{kept}"))
}

/// `/set system TEXT` is ollama's `/system`.
fn set(repl: &mut Repl<'_, '_>, argument: &str) -> Result<Next, Failure> {
    match argument.strip_prefix("system ") {
        Some(text) => system(repl, text.trim().trim_matches('"')),
        None => settings::set(repl, argument),
    }
}

fn system(repl: &mut Repl<'_, '_>, text: &str) -> Result<Next, Failure> {
    let chat = &mut repl.chat;
    if chat.has_prefix {
        return Err(Failure::Error(
            "the system prompt is that of --prefix, whose KV cache is used as it is; leave --prefix out for another one"
                .into(),
        ));
    }
    chat.set_system(Some(text).filter(|t| !t.is_empty()));
    repl.detach();
    let chat = &mut repl.chat;
    chat.save()?;
    let what = if text.is_empty() { "without a system prompt" } else { "with this system prompt" };
    let mut line = format!("a new conversation begins {what}");
    let needed = chat.start_tokens()?;
    if let Some(stay) = chat.stay.filter(|stay| needed > *stay && !text.is_empty()) {
        line += &format!(
            "; of its {needed} tokens the first {stay} stay when the context is full: --system at the start keeps more"
        );
    }
    repl.note(&line)
}

fn edit(repl: &mut Repl<'_, '_>, text: &str) -> Result<Next, Failure> {
    let last = repl.chat.last_message().map(str::to_string);
    let last = last.ok_or_else(|| Failure::Error("there is no message to edit".into()))?;
    let text = if text.is_empty() { repl.edit(&last)? } else { Some(text.to_string()) };
    match text {
        Some(text) => repl.reply(|chat, show| chat.edit(&text, show)),
        None => repl.note("nothing is changed"),
    }
}

fn undo(repl: &mut Repl<'_, '_>, _: &str) -> Result<Next, Failure> {
    let message = repl.chat.undo()?;
    repl.chat.save()?;
    let start: String = message.chars().take(40).collect();
    let dots = if start.len() < message.len() { " …" } else { "" };
    repl.note(&format!("taken back: {}{dots}", visible::line(&start)))
}

fn read(repl: &mut Repl<'_, '_>, name: &str) -> Result<Next, Failure> {
    if name.is_empty() && repl.detach() {
        return repl.note("nothing goes before the next message");
    }
    let path = path(name, "/read")?;
    if !path.metadata().map_err(|e| Failure::file(path, e))?.is_file() {
        return Err(Failure::file(path, "not a regular file"));
    }
    let text = read_file(path)?;
    let bytes = text.len();
    repl.attach(text);
    repl.note(&format!("before the next message: {}", numbers::of(bytes, "byte")))
}

fn save(repl: &mut Repl<'_, '_>, name: &str) -> Result<Next, Failure> {
    let path = path(name, "/save")?;
    // A slip must not cost another file, nor what another program has. What is empty is no loss.
    let is_own = |own: &Path| own.canonicalize().ok().is_some_and(|own| path.canonicalize().is_ok_and(|p| p == own));
    let _claim = if repl.chat.file.is_some_and(is_own) { None } else { Some(Claim::new(path)?) };
    if path.metadata().is_ok_and(|found| found.len() > 0) && armlet::engine::Saved::new_checked(&map(path)?).is_err() {
        return Err(Failure::file(path, "there is a file that is not a saved conversation; give another name"));
    }
    repl.chat.save_to(path)?;
    let messages = numbers::of(repl.chat.transcript.messages.len(), "message");
    repl.note(&format!("saved: {messages}; /load or chat --session goes on with them"))
}

fn load(repl: &mut Repl<'_, '_>, name: &str) -> Result<Next, Failure> {
    repl.chat.load(path(name, "/load")?)?;
    repl.detach();
    let messages = numbers::of(repl.chat.transcript.messages.len(), "message");
    // A slip must not cost the session's own conversation.
    let own = repl.chat.file.map(|path| {
        let path = path.display().to_string();
        format!("; from its next answer on it is saved to {} instead of what is there", visible::line(&path))
    });
    repl.note(&format!("a conversation of {messages} goes on{}", own.unwrap_or_default()))
}

fn path<'n>(name: &'n str, command: &str) -> Result<&'n Path, Failure> {
    if name.is_empty() {
        Err(Failure::Error(format!("{command} needs the name of a file")))
    } else {
        Ok(Path::new(name))
    }
}

fn stats(repl: &mut Repl<'_, '_>, _: &str) -> Result<Next, Failure> {
    let ((used, evicted), context) = (repl.chat.in_cache(), repl.chat.runner.context);
    let bytes = repl.cache_bytes as f64 / f64::from(1 << 20);
    let mut rows = vec![
        ("K/V".to_string(), format!("{used} of {context} tokens, {bytes:.1} MiB")),
        ("evicted".to_string(), numbers::of(evicted, "token")),
    ];
    if let Some(last) = &repl.last {
        rows.insert(0, ("last answer".into(), last.line()));
    }
    repl.say(&rows)
}

fn tokens(repl: &mut Repl<'_, '_>, text: &str) -> Result<Next, Failure> {
    let tokenizer = &repl.chat.loaded.model.tokenizer;
    if text.is_empty() {
        let (messages, read) = (&repl.chat.transcript.messages, numbers::of(repl.chat.tokens_in_use(), "token"));
        let count = |role: Role, what: &str| numbers::of(messages.iter().filter(|m| m.role == role).count(), what);
        let (asked, answered) = (count(Role::User, "message"), count(Role::Assistant, "answer"));
        let line = format!("{asked} and {answered}; read: {read}");
        return repl.say(&[("conversation".into(), line)]);
    }
    let ids = encode(tokenizer, text, EncodeOptions { add_special: false, parse_special: false, literal: &[] })?;
    let piece = |id: &u32| {
        let bytes: Vec<u8> = tokenizer.piece(*id, true).collect();
        format!("{id} {:?}", String::from_utf8_lossy(&bytes))
    };
    let pieces: Vec<_> = ids.iter().map(piece).collect();
    repl.print(&format!("{}: {}", numbers::of(ids.len(), "token"), pieces.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_complete() {
        let mut names: Vec<_> = COMMANDS.iter().flat_map(|c| c.names).collect();
        let n = names.len();
        names.sort();
        names.dedup();
        assert_eq!((names.len(), names.iter().all(|name| name.starts_with('/'))), (n, true));
        assert!(help().iter().map(|(name, _)| name).any(|name| name == "/set [NAME VALUE]"));
        for (name, takes) in
            [("/system", true), ("/tokenize", true), ("/set", true), ("/read", false), ("/home", false)]
        {
            assert_eq!(takes_lines(name), takes, "{name}");
        }
    }
}
