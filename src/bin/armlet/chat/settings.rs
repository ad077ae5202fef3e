//! `/set` and `/show`: the settings of a chat that can change while it goes on.

use armlet::generation::Limits;
use armlet::gguf::Value;
use armlet::sample::SamplerConfig;

use super::repl::{Next, Repl};
use crate::error::Failure;
use crate::numbers;
use crate::visible;

type Set = fn(&mut Repl<'_, '_>, &str) -> Result<(), String>;

struct Setting {
    /// llama.cpp's name; ollama's has underscores, which are taken for hyphens.
    names: &'static [&'static str],
    help: &'static str,
    set: Set,
    show: fn(&Repl<'_, '_>) -> String,
}

const fn setting(
    names: &'static [&'static str],
    help: &'static str,
    set: Set,
    show: fn(&Repl<'_, '_>) -> String,
) -> Setting {
    Setting { names, help, set, show }
}

const SETTINGS: [Setting; 10] = [
    setting(
        &["temp", "temperature"],
        "temperature, from 0 (always the likeliest token) to 100",
        |repl, text| numbers::range::<0, 100>(text).map(|x| repl.sample(|s| s.temperature = x)),
        |repl| repl.chat.sampling.temperature.to_string(),
    ),
    setting(
        &["top-k"],
        "keep this many of the likeliest tokens; 0 keeps 1024",
        |repl, text| numbers::count(text).map(|n| repl.sample(|s| s.top_k = n)),
        |repl| repl.chat.sampling.top_k.to_string(),
    ),
    setting(
        &["top-p"],
        "keep the likeliest tokens whose probabilities sum to this, from 0 to 1",
        |repl, text| numbers::range::<0, 1>(text).map(|x| repl.sample(|s| s.top_p = x)),
        |repl| repl.chat.sampling.top_p.to_string(),
    ),
    setting(
        &["min-p"],
        "keep tokens at least this probable relative to the likeliest, from 0 to 1",
        |repl, text| numbers::range::<0, 1>(text).map(|x| repl.sample(|s| s.min_p = x)),
        |repl| repl.chat.sampling.min_p.to_string(),
    ),
    setting(
        &["repeat-penalty"],
        "penalty on tokens among the last 64; 1 changes nothing",
        |repl, text| numbers::penalty(text).map(|x| repl.sample(|s| s.repeat_penalty = x)),
        |repl| repl.chat.sampling.repeat_penalty.to_string(),
    ),
    setting(
        &["seed"],
        "seed of the sampler",
        |repl, text| numbers::whole::<0, { u64::MAX }, _>(text).map(|n| repl.sample(|s| s.seed = n)),
        |repl| repl.chat.sampling.seed.to_string(),
    ),
    setting(
        &["n", "n-predict", "num-predict"],
        "the most tokens of an answer",
        |repl, text| numbers::count(text).map(|n| repl.chat.limit = n),
        |repl| repl.chat.limit.to_string(),
    ),
    setting(&["stop"], "the text before which an answer ends, or nothing", stop, |repl| {
        let stops = repl.chat.rules.stops.iter().map(|stop| visible::line(stop).into_owned());
        if repl.chat.rules.stops.is_empty() { "none".into() } else { stops.collect::<Vec<_>>().join(", ") }
    }),
    setting(
        &["think"],
        "on, off, or hide: whether the model thinks before it answers, and whether that is shown",
        think,
        |repl| if repl.hide_thinking { "hide" } else { repl.think }.to_string(),
    ),
    setting(
        &["stats"],
        "on or off: a line with tokens per second after each answer",
        |repl, text| on_or_off(text).map(|on| repl.stats = on),
        |repl| if repl.stats { "on" } else { "off" }.to_string(),
    ),
];

/// What ollama has as words of their own.
const WORDS: [(&str, &str, &str); 4] =
    [("verbose", "stats", "on"), ("quiet", "stats", "off"), ("nothink", "think", "off"), ("think", "think", "on")];

/// Words of ollama's for what is so anyway, and why.
const NEEDLESS: [(&str, &str); 6] = [
    ("history", "lines are kept, unless the program starts with --no-history"),
    ("nohistory", "--no-history keeps no lines"),
    ("wordwrap", "the terminal wraps lines"),
    ("nowordwrap", "the terminal wraps lines"),
    ("format", "--json-schema has answers be JSON"),
    ("noformat", "answers are text, unless --json-schema was given"),
];

/// What is fixed when the program starts, and the option for it.
const FIXED: [(&str, &str); 3] = [("num-ctx", "-c"), ("context", "-c"), ("threads", "-t")];

/// `/set NAME VALUE`; ollama's `/set parameter NAME VALUE` too.
pub(super) fn set(repl: &mut Repl<'_, '_>, argument: &str) -> Result<Next, Failure> {
    let argument = argument.strip_prefix("parameter ").unwrap_or(argument).trim();
    if argument.is_empty() {
        let rows: Vec<_> = SETTINGS.iter().map(|s| (s.names[0].to_string(), s.help.to_string())).collect();
        return repl.say(&rows);
    }
    let (name, value) = argument.split_once([' ', '=']).unwrap_or((argument, ""));
    let value = value.trim();
    if let Some((name, why)) = NEEDLESS.iter().find(|(word, _)| *word == name) {
        return repl.note(&format!("{name} is not a setting here: {why}"));
    }
    let word = WORDS.iter().find(|(word, ..)| *word == name && value.is_empty());
    let (name, value) = word.map_or((name, value), |(_, name, value)| (*name, *value));
    let setting = find(name)?;
    let shown = visible::line(value).into_owned();
    (setting.set)(repl, value).map_err(|why| Failure::new(format!("{} {shown:?}", setting.names[0]), why))?;
    let line = format!("{} is {}", setting.names[0], (setting.show)(repl));
    repl.note(&line)
}

/// `/show`, `/show NAME`; ollama's `/show system` and so on too.
pub(super) fn show(repl: &mut Repl<'_, '_>, name: &str) -> Result<Next, Failure> {
    let row = |s: &Setting| (s.names[0].to_string(), (s.show)(repl));
    let of_model = || {
        let system = repl.chat.transcript.system().unwrap_or("none");
        [("model".to_string(), repl.title()), ("system".to_string(), visible::text(system).into_owned())]
    };
    let rows: Vec<_> = match name {
        "" => of_model().into_iter().chain(SETTINGS.iter().map(row)).collect(),
        "parameters" => SETTINGS.iter().map(row).collect(),
        "model" | "info" => of_model().into_iter().take(1).collect(),
        "template" => vec![("template".into(), shortened(repl.chat.template.source().unwrap_or("a built-in format")))],
        "license" => vec![("license".into(), shortened(&license(repl)))],
        "system" => of_model().into_iter().skip(1).collect(),
        name => vec![row(find(name)?)],
    };
    repl.say(&rows)
}

/// A text of the model's file that is safe to show, up to so many characters.
fn shortened(text: &str) -> String {
    const MOST: usize = 4000;
    let shown: String = text.chars().take(MOST).collect();
    let more = if shown.len() < text.len() { " …" } else { "" };
    visible::text(&shown).into_owned() + more
}

/// What the model's file says of its license.
fn license(repl: &Repl<'_, '_>) -> String {
    let text = |key| match repl.chat.loaded.file.get(key) {
        Some(Value::String(text)) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    let said: Vec<_> =
        ["general.license", "general.license.name", "general.license.link"].into_iter().filter_map(text).collect();
    if said.is_empty() { "the file names none".into() } else { said.join(", ") }
}

/// Quotes around it are not a part of it, as in ollama.
fn stop(repl: &mut Repl<'_, '_>, text: &str) -> Result<(), String> {
    let plain = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let stops = if plain.is_empty() { Vec::new() } else { vec![plain.to_string()] };
    let words: Vec<&str> = stops.iter().map(String::as_str).collect();
    Limits { tokens: 1, stops: &words }.check().map_err(|e| e.to_string())?;
    repl.chat.rules.stops = stops;
    Ok(())
}

fn find(name: &str) -> Result<&'static Setting, Failure> {
    let plain = name.replace('_', "-");
    if let Some((_, option)) = FIXED.iter().find(|(fixed, _)| *fixed == plain) {
        return Err(Failure::Error(format!("{plain} is fixed when the program starts: see {option}")));
    }
    let found = SETTINGS.iter().find(|s| s.names.contains(&plain.as_str()));
    found.ok_or_else(|| {
        let names: Vec<_> = SETTINGS.iter().map(|s| s.names[0]).collect();
        Failure::Error(format!("{} is not a setting; they are {} and system", visible::line(name), names.join(", ")))
    })
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" | "1" => Ok(true),
        "off" | "false" | "0" => Ok(false),
        _ => Err("say on or off".into()),
    }
}

fn think(repl: &mut Repl<'_, '_>, text: &str) -> Result<(), String> {
    let on = match text {
        "hide" => {
            repl.hide_thinking = true;
            return Ok(());
        }
        "show" => true,
        text => on_or_off(text).map_err(|_| "say on, off or hide")?,
    };
    if !repl.chat.think(on)? && !on {
        // It cannot be told so.
        repl.hide_thinking = true;
        return Ok(());
    }
    (repl.hide_thinking, repl.think) = (false, if on { "on" } else { "off" });
    Ok(())
}

impl Repl<'_, '_> {
    fn sample(&mut self, change: impl FnOnce(&mut SamplerConfig)) {
        change(&mut self.chat.sampling);
        self.chat.sampler.configure(self.chat.sampling);
    }
}
