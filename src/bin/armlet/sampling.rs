//! The sampler: the options of the command line; where one is not given, what the file recommends; else llama.cpp's
//! default.

use armlet::gguf::{File, Value};
use armlet::sample::{Sampler, SamplerConfig};

use crate::args;
use crate::clock;
use crate::error::Failure;
use crate::numbers;

/// What a file may recommend and does not change anything here, and the value with which that makes no difference.
const NOT_USED: [(&str, Option<f64>); 4] = [
    ("general.sampling.sequence", None),
    ("general.sampling.xtc_probability", Some(0.0)),
    ("general.sampling.penalty_last_n", Some(armlet::sample::PENALTY_WINDOW as f64)),
    ("general.sampling.mirostat", Some(0.0)),
];

/// A model whose sampling is known: it runs into loops with llama.cpp's, and its file recommends none.
struct Known {
    /// `general.basename`, in letters of any case.
    name: &'static str,
    repeat_penalty: f32,
}

/// SmolLM2-135M: of 28 seeded answers to six prompts 10 ran into a loop with the defaults, and none with this.
const KNOWN: [Known; 1] = [Known { name: "smollm2", repeat_penalty: 1.1 }];

/// The sampler that the options and the file describe.
pub(crate) fn sampler(args: &args::Sampling, file: &File<'_>) -> Result<Sampler, Failure> {
    config(args, file, false).map(Sampler::new)
}

/// The settings that the options and the file describe; in a chat, those of a known model too.
pub(crate) fn config(args: &args::Sampling, file: &File<'_>, is_chat: bool) -> Result<SamplerConfig, Failure> {
    warn(file);
    settings(args, file, is_chat)
}

/// Says what the file recommends in vain.
pub(crate) fn warn(file: &File<'_>) {
    for (key, neutral) in NOT_USED {
        if file.get(key).is_some_and(|value| neutral.is_none() || number(&value) != neutral) {
            log::warn!("the file recommends {key}, which is not supported: it is not used");
        }
    }
}

/// The same settings, for one request of many.
pub(crate) fn settings(args: &args::Sampling, file: &File<'_>, is_chat: bool) -> Result<SamplerConfig, Failure> {
    let fresh = || clock::since_1970().as_nanos() as u64;
    let name = match file.get("general.basename") {
        Some(Value::String(name)) => name,
        _ => &[],
    };
    let known = KNOWN.iter().find(|known| known.name.as_bytes().eq_ignore_ascii_case(name));
    // At --temp 0 it is the likeliest token that is asked for.
    let known = known.filter(|_| is_chat && args.temp != Some(0.0));
    let default = SamplerConfig::default();
    let default =
        SamplerConfig { repeat_penalty: known.map_or(default.repeat_penalty, |known| known.repeat_penalty), ..default };
    Ok(SamplerConfig {
        temperature: choose(args.temp, file, "temp", numbers::range::<0, 100>)?.unwrap_or(default.temperature),
        top_k: choose(args.top_k, file, "top_k", parse_top_k)?.unwrap_or(default.top_k),
        top_p: choose(args.top_p, file, "top_p", numbers::range::<0, 1>)?.unwrap_or(default.top_p),
        min_p: choose(args.min_p, file, "min_p", numbers::range::<0, 1>)?.unwrap_or(default.min_p),
        repeat_penalty: choose(args.repeat_penalty, file, "penalty_repeat", numbers::penalty)?
            .unwrap_or(default.repeat_penalty),
        presence_penalty: args.presence_penalty.unwrap_or(default.presence_penalty),
        frequency_penalty: args.frequency_penalty.unwrap_or(default.frequency_penalty),
        seed: args.seed.unwrap_or_else(fresh),
    })
}

/// The option, or else what the file recommends, if that is what the option could be too.
fn choose<T>(
    option: Option<T>,
    file: &File<'_>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    let key = format!("general.sampling.{name}");
    let Some(value) = file.get(&key).filter(|_| option.is_none()) else { return Ok(option) };
    let value = number(&value).ok_or_else(|| Failure::new(&key, "not a number"))?;
    parse(&value.to_string()).map(Some).map_err(|why| Failure::new(format!("{key} is {value}"), why))
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Unsigned(n) => Some(*n as f64),
        Value::Signed(n) => Some(*n as f64),
        Value::Float(x) => Some(*x),
        Value::Bool(_) | Value::String(_) | Value::Array(_) => None,
    }
}

/// Parses how many of the likeliest tokens to keep; none and fewer stand for all, as in llama.cpp.
fn parse_top_k(text: &str) -> Result<usize, String> {
    let number: i64 = text.parse().map_err(|_| "not a whole number".to_string())?;
    Ok(usize::try_from(number).unwrap_or(0))
}
