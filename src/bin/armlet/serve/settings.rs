//! The settings of sampling in a request, in place of the command line's.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::fields::{Fields, wrong_type};
use super::problem::Problem;
use crate::args::{Bias, Sampling};

/// OpenAI's fields that change no answer: of whom the request is, where it is kept, what may be cached.
pub(super) const NEUTRAL: [&str; 7] =
    ["user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"];
/// The most stop strings.
const STOPS: usize = 16;
/// The most biases.
const BIASES: usize = 1024;

/// What the API allows.
pub(super) struct Ranges {
    pub(super) temperature: RangeInclusive<f64>,
    pub(super) penalty: RangeInclusive<f64>,
}

/// OpenAI's.
pub(super) const OPENAI: Ranges = Ranges { temperature: 0.0..=2.0, penalty: -2.0..=2.0 };
/// ollama's, which has none, in the ranges of the command line.
pub(super) const OLLAMA: Ranges = Ranges { temperature: 0.0..=100.0, penalty: -2.0..=2.0 };

/// Takes those that both APIs have; a field that is not there leaves its setting as it is.
pub(super) fn common(fields: &mut Fields, sampling: &mut Sampling, ranges: Ranges) -> Result<(), Problem> {
    fn set<T>(to: &mut Option<T>, value: Option<T>) {
        if value.is_some() {
            *to = value;
        }
    }
    set(&mut sampling.temp, fields.number("temperature", ranges.temperature)?);
    set(&mut sampling.top_p, fields.number("top_p", 0.0..=1.0)?);
    set(&mut sampling.min_p, fields.number("min_p", 0.0..=1.0)?);
    set(&mut sampling.top_k, fields.count("top_k", 0..=1024)?);
    set(&mut sampling.presence_penalty, fields.number("presence_penalty", ranges.penalty.clone())?);
    set(&mut sampling.frequency_penalty, fields.number("frequency_penalty", ranges.penalty)?);
    set(&mut sampling.repeat_penalty, fields.number("repeat_penalty", 0.01..=100.0)?);
    // Negative ones as their bits; -1 is a new one each time, as in llama-server.
    match fields.seed("seed")? {
        Some(u64::MAX) => sampling.seed = None,
        Some(seed) => sampling.seed = Some(seed),
        None => {}
    }
    if let Some(stops) = stops(fields)? {
        sampling.stops = stops;
    }
    // How many tokens penalties look at is fixed.
    fields.only("repeat_last_n", &[json!(armlet::sample::PENALTY_WINDOW)])
}

/// A stop string, or several.
fn stops(fields: &mut Fields) -> Result<Option<Vec<String>>, Problem> {
    let name = fields.name("stop");
    let Some(value) = fields.take("stop") else { return Ok(None) };
    let texts: Option<Vec<String>> = match &value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|item| item.as_str().map(String::from)).collect(),
        _ => None,
    };
    let texts = texts.ok_or_else(|| wrong_type(&name, "a string or an array of strings", &value))?;
    let fits = |text: &String| (1..=armlet::generation::MAX_STOP).contains(&text.len());
    if texts.len() > STOPS {
        let message = format!("Invalid '{name}': array too long. Expected at most {STOPS}, but got {}.", texts.len());
        return Err(Problem::invalid(message).of(&name).code("array_above_max_length"));
    }
    match texts.iter().find(|text| !fits(text)) {
        Some(text) => {
            let most = armlet::generation::MAX_STOP;
            let message = format!("Invalid '{name}': a stop string of {} bytes; 1 to {most} are possible.", text.len());
            Err(Problem::invalid(message).of(&name).code("invalid_value"))
        }
        None => Ok(Some(texts)),
    }
}

/// Those that OpenAI's API has, with llama-server's beside them.
pub(super) fn openai(fields: &mut Fields, sampling: &mut Sampling, vocab: usize) -> Result<(), Problem> {
    common(fields, sampling, OPENAI)?;
    if let Some(biases) = fields.map("logit_bias")? {
        sampling.logit_bias = self::biases(&fields.name("logit_bias"), &biases, vocab)?;
    }
    if let Some(x) = fields.number("dry_multiplier", 0.0..=100.0)? {
        sampling.dry_multiplier = Some(x);
    }
    if let Some(x) = fields.number("dry_base", 1.0..=100.0)? {
        sampling.dry_base = Some(x);
    }
    if let Some(n) = fields.count("dry_allowed_length", 1..=1 << 20)? {
        sampling.dry_allowed_length = Some(n);
    }
    // -1: all, as in llama-server.
    if let Some(n) = fields.whole("dry_penalty_last_n", -1..=1 << 20)? {
        sampling.dry_penalty_last_n = usize::try_from(n).ok();
    }
    Ok(())
}

/// Takes how much a model shall think, as variables of its template: not at all, or as it does.
pub(super) fn effort(fields: &mut Fields, field: &str, variables: &mut Map<String, Value>) -> Result<(), Problem> {
    match fields.text(field)?.as_deref() {
        None | Some("low" | "medium" | "high" | "xhigh") => Ok(()),
        Some("none" | "minimal") => {
            variables.insert("enable_thinking".into(), false.into());
            Ok(())
        }
        Some(other) => {
            let name = fields.name(field);
            let message = format!(
                "Invalid value: '{other}'. Supported values are: 'none', 'minimal', 'low', 'medium', 'high', and 'xhigh'."
            );
            Err(Problem::invalid(message).of(&name).code("invalid_value"))
        }
    }
}

/// Tokens with what is added to their logits.
fn biases(name: &str, biases: &Map<String, Value>, vocab: usize) -> Result<Vec<Bias>, Problem> {
    if biases.len() > BIASES {
        return Err(Problem::invalid(format!("Invalid '{name}': more than {BIASES} tokens.")).of(name));
    }
    let bias = |(token, bias): (&String, &Value)| {
        let refuse = |why: String| Problem::invalid(format!("Invalid '{name}': {why}.")).of(name).code("invalid_value");
        let known = token.parse::<u32>().ok().filter(|token| (*token as usize) < vocab);
        let known = known.ok_or_else(|| refuse(format!("{token} is not a token of the vocabulary of {vocab}")))?;
        let bias = bias.as_f64().ok_or_else(|| wrong_type(name, "numbers", bias))?;
        if !(-100.0..=100.0).contains(&bias) {
            return Err(refuse(format!("the bias {bias} is not from -100 to 100")));
        }
        Ok(Bias { token: known, bias: bias as f32 })
    };
    biases.iter().map(bias).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sampling: Sampling,
    }

    fn read(value: Value) -> Result<Sampling, Problem> {
        let mut fields = Fields::of(value, String::new())?;
        let mut sampling = Line::parse_from(["test", "--temp", "0.5", "--stop", "END"]).sampling;
        openai(&mut fields, &mut sampling, 10)?;
        fields.finish().map(|()| sampling)
    }

    #[test]
    fn a_request_changes_only_what_it_says() {
        let read = |value| read(value).unwrap();
        let sampling = read(json!({ "top_p": 0.5, "logit_bias": { "7": -100 }, "seed": -2 }));
        assert_eq!((sampling.temp, sampling.top_p, sampling.seed), (Some(0.5), Some(0.5), Some(u64::MAX - 1)));
        assert_eq!((sampling.stops, sampling.logit_bias), (vec!["END".into()], vec![Bias { token: 7, bias: -100.0 }]));
        assert_eq!(read(json!({ "stop": "a", "temperature": null })).stops, ["a"]);
        assert_eq!(read(json!({ "stop": [] })).stops, [""; 0]);
        assert_eq!(read(json!({ "seed": -1 })).seed, None);
    }

    #[test]
    fn no_effort_is_no_thoughts() {
        for (effort, expected) in
            [("none", Some(&json!(false))), ("minimal", Some(&json!(false))), ("low", None), ("high", None)]
        {
            let mut fields = Fields::of(json!({ "effort": effort }), "reasoning".into()).unwrap();
            let mut variables = Map::new();
            super::effort(&mut fields, "effort", &mut variables).unwrap();
            assert_eq!(variables.get("enable_thinking"), expected, "{effort}");
            fields.finish().unwrap();
        }
        let mut fields = Fields::of(json!({ "effort": "frantic" }), "reasoning".into()).unwrap();
        let problem = super::effort(&mut fields, "effort", &mut Map::new()).unwrap_err();
        assert_eq!(problem.openai()["error"]["param"], "reasoning.effort");
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (bad, name) in [
            (json!({ "temperature": 2.1 }), "temperature"),
            (json!({ "top_p": "1" }), "top_p"),
            (json!({ "stop": [1] }), "stop"),
            (json!({ "stop": "" }), "stop"),
            (json!({ "logit_bias": { "10": 1 } }), "logit_bias"),
            (json!({ "logit_bias": { "1": 101 } }), "logit_bias"),
            (json!({ "logit_bias": [1] }), "logit_bias"),
            (json!({ "repeat_last_n": 32 }), "repeat_last_n"),
            (json!({ "typical_p": 0.5 }), "typical_p"),
        ] {
            let problem = read(bad.clone()).unwrap_err();
            assert_eq!((problem.status.as_u16(), &problem.openai()["error"]["param"]), (400, &json!(name)), "{bad}");
        }
    }
}
