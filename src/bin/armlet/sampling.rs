//! The sampler: the options of the command line; where one is not given, what the file recommends; else llama.cpp's
//! default.

use armlet::gguf::{File, Value};
use armlet::sample::{Sampler, SamplerConfig};

use crate::args::{self, parse_penalty, parse_range};
use crate::error::Failure;

/// What a file may recommend and does not change anything here, and the value with which that makes no difference.
const NOT_USED: [(&str, Option<f64>); 4] = [
    ("general.sampling.sequence", None),
    ("general.sampling.xtc_probability", Some(0.0)),
    ("general.sampling.penalty_last_n", Some(armlet::sample::PENALTY_WINDOW as f64)),
    ("general.sampling.mirostat", Some(0.0)),
];

/// The sampler that the options and the file describe.
pub(crate) fn sampler(args: &args::Sampling, file: &File<'_>) -> Result<Sampler, Failure> {
    for (key, neutral) in NOT_USED {
        if file.get(key).is_some_and(|value| neutral.is_none() || number(&value) != neutral) {
            log::warn!("the file recommends {key}, which is not supported: it is not used");
        }
    }
    let fresh = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |t| t.as_nanos() as u64)
    };
    let default = SamplerConfig::default();
    Ok(Sampler::new(SamplerConfig {
        temperature: choose(args.temp, file, "temp", parse_range::<0, 100>)?.unwrap_or(default.temperature),
        top_k: choose(args.top_k, file, "top_k", parse_top_k)?.unwrap_or(default.top_k),
        top_p: choose(args.top_p, file, "top_p", parse_range::<0, 1>)?.unwrap_or(default.top_p),
        min_p: choose(args.min_p, file, "min_p", parse_range::<0, 1>)?.unwrap_or(default.min_p),
        repeat_penalty: choose(args.repeat_penalty, file, "penalty_repeat", parse_penalty)?
            .unwrap_or(default.repeat_penalty),
        seed: args.seed.unwrap_or_else(fresh),
    }))
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
