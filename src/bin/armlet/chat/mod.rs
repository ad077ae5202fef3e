//! `armlet chat`: a conversation in the terminal, or one answer to `-p` or piped text.

mod answer;
mod commands;
mod conversation;
mod events;
mod input;
pub(crate) mod prefix;
mod repl;
mod settings;
mod transcript;

use std::io::IsTerminal;
use std::path::Path;

use armlet::engine::{Pattern, Plan, Prefix, Saved};
use armlet::sample::Sampler;
use armlet::tokenizer::Role;

use crate::args::{self, Chat, ChatJson, Json, most_sinks};
use crate::error::Failure;
use crate::escape::unescape;
use crate::generate::End;
use crate::interrupt;
use crate::model::{
    Loaded, Runner, argument, map, names_model, one_stdin, plan, read_file, read_stdin, session_memory, with_model,
    without_line_end,
};
use crate::network;
use crate::sampling;
use crate::template::{Message, Template};
use crate::terminal;
use crate::token_rules::TokenRules;
use answer::Answer;
use conversation::{Conversation, Piece};
use events::Events;
use input::{Input, Lines};
use repl::{Next, Repl};
use transcript::Transcript;

/// The most tokens of an answer, where -n does not say: a page or two, and some minutes on a small board.
const LIMIT: usize = 1024;

pub(crate) fn run(args: &Chat) -> Result<(), Failure> {
    let one_shot = one_message(args)?;
    let system = system(args)?;
    let prefix = args.prefix.as_deref().map(map).transpose()?;
    with_model(&args.model, |loaded| {
        let start = match (&args.prefix, &prefix) {
            (Some(path), Some(bytes)) => Some(begun(path, bytes, loaded)?),
            _ => None,
        };
        let (prefix, mut transcript) = start.map_or((None, Transcript::default()), |(p, t)| (Some(p), t));
        let template = Template::new(loaded.file, &loaded.model.tokenizer, &args.template)?;
        let template = template.or_built_in(&loaded.model.tokenizer, &args.template);
        if let Some(text) = &system {
            transcript.messages = vec![Message::new(Role::System, text.clone())];
        }
        // An empty file is a new session. Of several boards the first has the file.
        let has_file = |path: &&Path| network::speaks() && path.metadata().is_ok_and(|found| found.len() > 0);
        let session = args.session.as_deref().filter(has_file);
        // A session goes on with the sinks that it was made with.
        let saved = match args.session {
            Some(_) => loaded.boards.told(session.map(saved_sinks).transpose())?,
            None => None,
        };
        // A text has at most as many tokens as bytes; what is typed may have any.
        let tokens = one_shot.as_ref().map_or(usize::MAX, String::len);
        let cache = args.cache.with_chunk(loaded.chunk(tokens));
        let plan = match saved {
            Some(sinks) => planned_again(&cache, loaded, prefix.as_ref(), sinks)?,
            None => planned(&cache, loaded, prefix.as_ref(), pinned(args, loaded, &template, &transcript)?)?,
        };
        let mut memory = session_memory(&plan)?;
        let runner = Runner::with_prefix(loaded, &plan, prefix.as_ref(), &mut memory)?;
        let runner = runner.with_usual(args.cache.config().chunk);
        let sampling = sampling::config(&args.sampling, loaded.file, true)?;
        let mut chat = Conversation {
            loaded,
            runner,
            sampler: Sampler::new(sampling),
            sampling,
            rules: TokenRules::with_form(&args.sampling, &loaded.model.tokenizer)?,
            template,
            limit: args.sampling.n_predict.unwrap_or(LIMIT),
            transcript,
            file: args.session.as_deref(),
            stay: plan.limit().is_none().then_some(plan.sinks() as u64),
            has_prefix: prefix.is_some(),
            from_file: prefix.is_some(),
            cut: None,
            shortened: false,
            told: false,
        };
        if let Some(path) = session {
            chat.load(path)?;
            tell_system(path, system.as_deref(), chat.transcript.system());
        }
        interrupt::catch()?;
        match one_shot {
            Some(text) => once(&mut chat, &text, args),
            None => converse(&mut Repl::new(chat, lines(args)?, args.hide_thinking, plan.session_bytes())),
        }
    })
}

/// Lines from a terminal; none where messages are JSON.
fn lines(args: &Chat) -> Result<Option<Lines>, Failure> {
    if args.json.is_some() {
        return Ok(None);
    }
    terminal::remember();
    Lines::new(commands::names(), commands::takes_lines, !args.no_history).map(Some)
}

/// The plan of a session that was saved with so many sinks. Of one that does not fit this context, restoring says what is different.
fn planned_again(
    cache: &args::Cache,
    loaded: &Loaded<'_>,
    prefix: Option<&Prefix<'_>>,
    sinks: usize,
) -> Result<Plan, Failure> {
    planned(cache, loaded, prefix, Some(sinks)).or_else(|_| planned(cache, loaded, prefix, None))
}

/// The options, with the message where -p has it: that of -f, or one without an option. `armlet chat TEXT` is a message, but for
/// what names a model.
pub(crate) fn by_position(mut args: Chat) -> Result<Chat, Failure> {
    let has_model = args.model.model.is_some();
    // One word may be the name of a model that is not known.
    let is_text = |word: &Path| word.to_string_lossy().contains(char::is_whitespace);
    if let Some(word) = &args.model.by_position
        && !has_model
        && args.message.is_none()
        && !names_model(word)
        && !is_text(word)
    {
        let word = word.display();
        return Err(Failure::Usage(format!("{word} is no file, and no known model; -p {word} sends it as a message")));
    }
    if args.message.is_none()
        && args.prompt.is_none()
        && args.file.is_none()
        && let Some(word) = args.model.by_position.take_if(|word| has_model || !names_model(word))
    {
        args.prompt = Some(word.into());
    }
    if let Some(message) = args.message.take() {
        args.prompt = Some(message);
    }
    if let Some(path) = &args.file {
        args.prompt = Some(without_line_end(read_file(path)?).into());
    }
    Ok(args)
}

/// The one message to answer, if it is not a conversation.
fn one_message(args: &Chat) -> Result<Option<String>, Failure> {
    if args.prompt.is_none() {
        one_stdin(&args.template, "the message", "-p")?;
    }
    let one_shot = match &args.prompt {
        Some(text) => Some(argument(text, args.escape)?),
        // Through the launcher of several boards comes what is typed.
        None if args.json != Some(ChatJson::Lines) && !std::io::stdin().is_terminal() && !network::is_job() => {
            Some(without_line_end(read_stdin()?))
        }
        None => None,
    };
    match (args.json, &one_shot) {
        (Some(ChatJson::Lines), Some(_)) => {
            Err(Failure::Usage("--json=lines takes messages from stdin: leave -p out".into()))
        }
        (Some(ChatJson::Object | ChatJson::Events), None) => {
            Err(Failure::Usage("--json needs -p or piped text; --json=lines is a whole conversation".into()))
        }
        _ => Ok(one_shot),
    }
}

/// The system prompt that the options give.
fn system(args: &Chat) -> Result<Option<String>, Failure> {
    match (&args.system, &args.system_file) {
        (Some(text), _) if args.escape => unescape(text).map(Some).map_err(|e| Failure::new("--system", e)),
        (Some(text), _) => Ok(Some(text.clone())),
        (None, Some(path)) => {
            if args.prompt.is_none() && path.as_os_str() == "-" {
                return Err(Failure::Usage("--system-file - and messages cannot both come from stdin; give -p".into()));
            }
            read_file(path).map(without_line_end).map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// Says that a session goes on without the system prompt that was given.
fn tell_system(path: &Path, given: Option<&str>, own: Option<&str>) {
    let why = match own {
        _ if given.is_none() || given == own => return,
        Some(_) => "it has its own system prompt, and goes on with it; the one given is not used",
        None => "it was begun without a system prompt; the one given is not used; /system begins anew with it",
    };
    log::warn!("{}: {why}", path.display());
}

/// A prefix, and the system prompt that it holds.
fn begun<'p>(path: &Path, bytes: &'p [u8], loaded: &Loaded<'_>) -> Result<(Prefix<'p>, Transcript), Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::file(path, e);
    let prefix = Prefix::new_checked(bytes, &loaded.model).map_err(|e| fail(&e))?;
    let transcript = Transcript::decode(prefix.extra()).filter(|transcript| transcript.read.len() == prefix.len());
    Ok((prefix, transcript.ok_or_else(|| fail(&"its system prompt is damaged"))?))
}

/// The sinks of a saved session.
fn saved_sinks(path: &Path) -> Result<usize, Failure> {
    let bytes = map(path)?;
    let saved = Saved::new_checked(&bytes).map_err(|e| Failure::file(path, e))?;
    Ok(usize::try_from(saved.sinks).unwrap_or(usize::MAX))
}

/// Attention sinks for a system prompt: all of its tokens, so that it stays when older tokens are evicted.
fn pinned(
    args: &Chat,
    loaded: &Loaded<'_>,
    template: &Template<'_>,
    transcript: &Transcript,
) -> Result<Option<usize>, Failure> {
    let evicts = matches!(args.cache.kv.pattern, Pattern::Sinks | Pattern::Strided { .. });
    let system =
        transcript.messages.first().filter(|_| evicts && args.prefix.is_none() && args.cache.kv.sinks.is_none());
    let Some(system) = system else { return Ok(None) };
    // What a template says against it is said when there is a message.
    let Ok(start) = transcript::start(loaded, template, system, transcript.began) else { return Ok(None) };
    // The conversation needs at least half of the context.
    let context = planned(&args.cache, loaded, None, None)?.context();
    let most = (context / 2).min(most_sinks(context, args.cache.kv.pattern));
    if start.len() > most {
        let n = start.len();
        log::warn!(
            "the system prompt has {n} tokens, and the context is {context}: \
             only the first {most} stay when the context is full; a larger -c keeps it"
        );
    }
    // A few are sinks in any case, if there is room for them.
    Ok(Some(start.len().min(most)).filter(|sinks| *sinks > args.cache.kv.config().sinks))
}

fn planned(
    cache: &args::Cache,
    loaded: &Loaded<'_>,
    prefix: Option<&Prefix<'_>>,
    sinks: Option<usize>,
) -> Result<Plan, Failure> {
    let mut cache = cache.clone();
    cache.kv.sinks = cache.kv.sinks.or(sinks);
    plan(loaded, &cache, prefix)
}

/// One question, one answer, on stdout.
fn once(chat: &mut Conversation<'_, '_>, text: &str, args: &Chat) -> Result<(), Failure> {
    let (hide, tags) = (args.hide_thinking, chat.template.tags());
    let mut answer = Answer::new(hide, tags);
    let mut pieces = Events::new(hide, tags);
    let json = args.json.map(|json| if json == ChatJson::Object { Json::Object } else { Json::Events });
    let mut show = |piece: Piece<'_>| match json {
        None => answer.show(piece),
        Some(Json::Object) => Ok(()),
        Some(Json::Events) => pieces.show(piece),
    };
    let (end, stats) = chat.ask(text, &mut show)?;
    if let Some(kind) = json {
        if kind == Json::Events {
            pieces.show(Piece::End)?;
        }
        events::end(kind, chat, hide, end, &stats)?;
    } else {
        answer.finish()?;
    }
    match end.note(&stats, false) {
        // Who gave no limit should know of it.
        Some(note) if end == End::Length && args.sampling.n_predict.is_none() && args.json.is_none() => {
            terminal::note(&note)
        }
        Some(note) if !stats.unfinished => terminal::tell(&note),
        _ => {}
    }
    stats.report(log::log_enabled!(log::Level::Info));
    chat.tell_eviction();
    if end == End::Interrupted { Err(Failure::Interrupted) } else { stats.check_finished(end) }
}

/// Answers messages from the terminal until the user quits.
fn converse(repl: &mut Repl<'_, '_>) -> Result<(), Failure> {
    repl.greet()?;
    loop {
        let done = match repl.read()? {
            Input::Nothing => continue,
            Input::End => return Ok(()),
            Input::Command(line) => commands::execute(repl, &line),
            Input::Message(text) => repl.ask(&text),
        };
        match done {
            Ok(Next::GoOn) => {}
            Ok(Next::Quit) => return Ok(()),
            Err(_) if interrupt::ending() => return Err(Failure::Interrupted),
            // These errors are about one message; the conversation goes on.
            Err(Failure::Error(text)) => repl.failed(text)?,
            Err(failure) => return Err(failure),
        }
    }
}
