//! `/set` and `/show`: the settings of a chat that can change while it goes on.

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

const SETTINGS: [Setting; 9] = [
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
        "system" => of_model().into_iter().skip(1).collect(),
        name => vec![row(find(name)?)],
    };
    repl.say(&rows)
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
