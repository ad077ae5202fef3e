//! ollama's `/api/chat` and `/api/generate`, which stream a JSON object in each line.

use axum::http::StatusCode;
use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Map, Value, json};

use super::about::About;
use super::event::{Ended, Reason};
use super::fields::{Fields, required};
use super::format::{CallPart, Delta, Format, Request, Wanted};
use super::messages::Api;
use super::prepare::Source;
use super::problem::{Names, Problem};
use super::{form, functions, messages, settings};
use crate::args::Sampling;
use crate::clock;
use crate::grammar::Form;
use crate::template::Message;
use crate::tools::Tools;
use armlet::tokenizer::Role;

/// Options that change no answer here: threads and memory are the server's.
const NEUTRAL: [&str; 11] = [
    "num_thread",
    "num_gpu",
    "main_gpu",
    "low_vram",
    "use_mmap",
    "use_mlock",
    "num_batch",
    "numa",
    "f16_kv",
    "vocab_only",
    "num_keep",
];

/// Its errors have no field for them.
const NAMES: Names = Names { prompt: "prompt", form: "format", parameters: "function.parameters" };
/// The most tokens that an option may say.
const MOST: i64 = 1 << 24;

/// What is wanted, or nothing: then a model was only to be loaded, which it is.
pub(super) enum Asked {
    Answer(Box<Request>),
    Nothing(Value),
}

/// What both have.
struct Common {
    sampling: Sampling,
    context: Option<usize>,
    stream: bool,
    form: Option<Form>,
    variables: Map<String, Value>,
}

fn common(fields: &mut Fields, mut sampling: Sampling, about: &About) -> Result<Common, Problem> {
    let stream = fields.flag("stream")?.unwrap_or(true);
    let form = form::ollama(fields)?;
    // The model stays as long as the server.
    fields.neutral(&["keep_alive"]);
    // A prompt that is too long is refused in any case, and `num_predict` says whether an answer goes on.
    fields.flag("truncate")?;
    fields.flag("shift")?;
    fields.only("logprobs", &[json!(false)])?;
    fields.only("top_logprobs", &[json!(0)])?;
    let mut variables = Map::new();
    if let Some(think) = think(fields)? {
        if think && !about.thinks {
            return Err(Problem::invalid(format!("{:?} does not support thinking", about.name())).of("think"));
        }
        variables.insert("enable_thinking".into(), think.into());
    }
    let mut context = None;
    if let Some(mut options) = fields.object("options")? {
        // Tokens that penalties look at: -1 is a context, of which the last ones count. Of none there is no penalty.
        options.is("repeat_last_n", &json!(-1));
        let none = options.is("repeat_last_n", &json!(0));
        settings::common(&mut options, &mut sampling, settings::OLLAMA)?;
        if none {
            sampling.repeat_penalty = Some(1.0);
            (sampling.presence_penalty, sampling.frequency_penalty) = (Some(0.0), Some(0.0));
        }
        // Negative: as many as there is room for.
        if let Some(n) = options.whole("num_predict", -2..=MOST)? {
            sampling.n_predict = usize::try_from(n).ok();
        }
        context = options.whole("num_ctx", 1..=MOST)?.and_then(|n| usize::try_from(n).ok());
        // OpenAI's, which Open WebUI puts here.
        settings::effort(&mut options, "reasoning_effort", &mut variables)?;
        options.neutral(&NEUTRAL);
        for (field, neutral) in [("tfs_z", json!(1)), ("typical_p", json!(1)), ("mirostat", json!(0))] {
            options.only(field, &[neutral])?;
        }
        // Of mirostat, which there is not.
        options.neutral(&["mirostat_tau", "mirostat_eta"]);
        options.only("penalize_newline", &[json!(true)])?;
        options.finish()?;
    }
    Ok(Common { sampling, context, stream, form, variables })
}

/// Takes `think`: whether, or how much, which makes no difference here.
fn think(fields: &mut Fields) -> Result<Option<bool>, Problem> {
    match fields.peek("think").and_then(Value::as_str) {
        Some("low" | "medium" | "high") => Ok(fields.take("think").map(|_| true)),
        Some(other) => {
            let message =
                format!("invalid think value: {other:?} (must be \"high\", \"medium\", \"low\", true, or false)");
            Err(Problem::invalid(message).of("think"))
        }
        None => fields.flag("think"),
    }
}

/// A request to `/api/chat`.
pub(super) fn chat(mut fields: Fields, sampling: Sampling, about: &About) -> Result<Asked, Problem> {
    let common = common(&mut fields, sampling, about)?;
    let list = fields.list("messages")?.unwrap_or_default();
    let tools = functions::ollama(&mut fields)?;
    fields.finish()?;
    let head = Head::new(about, true);
    if list.is_empty() {
        return Ok(Asked::Nothing(head.loaded()));
    }
    let messages = messages::read(Api::Ollama, "messages", list)?;
    Ok(common.wanted(|variables| Source::Chat(messages, variables), tools, head))
}

/// A request to `/api/generate`: one message, unless it is `raw`.
pub(super) fn generate(mut fields: Fields, sampling: Sampling, about: &About) -> Result<Asked, Problem> {
    let common = common(&mut fields, sampling, about)?;
    let prompt = fields.text("prompt")?.unwrap_or_default();
    let system = fields.text("system")?.filter(|text| !text.is_empty());
    let raw = fields.flag("raw")?.unwrap_or(false);
    for field in ["suffix", "template"] {
        fields.only(field, &[json!("")])?;
    }
    for field in ["images", "context"] {
        fields.only(field, &[json!([])])?;
    }
    fields.finish()?;
    let head = Head::new(about, false);
    if prompt.is_empty() {
        return Ok(Asked::Nothing(head.loaded()));
    }
    if raw {
        if system.is_some() {
            return Err(Problem::unsupported("system", " with 'raw'"));
        }
        if !common.variables.is_empty() {
            return Err(Problem::unsupported("think", " with 'raw'"));
        }
        return Ok(common.wanted(|_| Source::Text(prompt), None, head));
    }
    let system = system.map(|text| Message::new(Role::System, text));
    let messages = system.into_iter().chain([Message::new(Role::User, prompt)]).collect();
    Ok(common.wanted(|variables| Source::Chat(messages, variables), None, head))
}

impl Common {
    fn wanted(self, source: impl FnOnce(Map<String, Value>) -> Source, tools: Option<Tools>, head: Head) -> Asked {
        let wanted = Wanted {
            names: NAMES,
            source: source(self.variables),
            sampling: self.sampling,
            context: self.context,
            scores: None,
            stream: self.stream,
            form: self.form,
            split: true,
            tools,
        };
        Asked::Answer(Box::new((wanted, Box::new(head))))
    }
}

/// Takes the name of the model that a request wants; `name` is what older clients send.
///
/// # Errors
/// It is not this one.
pub(super) fn model(fields: &mut Fields, about: &About) -> Result<Option<String>, Problem> {
    let (model, name) = (fields.text("model")?, fields.text("name")?);
    let name = model.or(name);
    match &name {
        Some(name) if about.check(Some(name)).is_err() => {
            Err(Problem::new(StatusCode::NOT_FOUND, format!("model '{name}' not found")))
        }
        _ => Ok(name),
    }
}

/// What each line begins with.
struct Head {
    model: String,
    is_chat: bool,
    /// A call of which not all has come: clients get whole ones.
    open: Delta,
}

impl Head {
    fn new(about: &About, is_chat: bool) -> Self {
        Head { model: about.name().into(), is_chat, open: Delta::default() }
    }

    /// Calls that have become whole.
    fn whole_calls(&mut self, parts: Vec<CallPart>) -> Vec<CallPart> {
        self.open.add(Delta { calls: parts, ..Delta::default() });
        let (whole, open) = std::mem::take(&mut self.open.calls).into_iter().partition(|call| call.ended);
        self.open.calls = open;
        whole
    }

    fn line(&self, delta: Delta) -> Value {
        let mut line = json!({ "model": self.model, "created_at": now() });
        if self.is_chat {
            let mut message = json!({ "role": "assistant", "content": delta.text });
            if !delta.thought.is_empty() {
                message["thinking"] = delta.thought.into();
            }
            let calls: Vec<Value> = delta.calls.iter().filter(|call| call.ended).filter_map(call).collect();
            if !calls.is_empty() {
                message["tool_calls"] = calls.into();
            }
            line["message"] = message;
        } else {
            line["response"] = delta.text.into();
            if !delta.thought.is_empty() {
                line["thinking"] = delta.thought.into();
            }
        }
        line["done"] = false.into();
        line
    }

    /// The answer to who asks for nothing.
    fn loaded(&self) -> Value {
        let mut line = self.line(Delta::default());
        (line["done"], line["done_reason"]) = (true.into(), "load".into());
        line
    }

    fn last(&self, delta: Delta, ended: &Ended) -> Value {
        let mut line = self.line(delta);
        let [queued, prompt, answer] = ended.times.map(|time| time.as_nanos() as u64);
        line["done"] = true.into();
        // It has no reason of its own for calls.
        line["done_reason"] = if ended.reason == Reason::Calls { Reason::Stop } else { ended.reason }.name().into();
        for (key, value) in [
            ("total_duration", queued + prompt + answer),
            ("load_duration", queued),
            ("prompt_eval_count", ended.prompt as u64),
            ("prompt_eval_duration", prompt),
            ("eval_count", ended.generated as u64),
            ("eval_duration", answer),
        ] {
            line[key] = value.into();
        }
        line
    }
}

impl Format for Head {
    fn stream_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn piece(&mut self, mut delta: Delta) -> String {
        delta.calls = self.whole_calls(delta.calls);
        if delta.is_empty() { String::new() } else { format!("{}\n", self.line(delta)) }
    }

    fn end(&mut self, ended: &Ended) -> String {
        format!("{}\n", self.last(Delta::default(), ended))
    }

    fn failed(&mut self, problem: &Problem) -> String {
        format!("{}\n", problem.ollama())
    }

    fn whole(&mut self, whole: Delta, ended: &Ended) -> Value {
        self.last(whole, ended)
    }
}

/// A call, whose arguments are an object.
fn call(call: &CallPart) -> Option<Value> {
    let arguments: Map<String, Value> = serde_json::from_str(&call.arguments).ok()?;
    Some(json!({ "function": { "index": call.index, "name": call.name, "arguments": arguments } }))
}

fn now() -> String {
    clock::utc().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The model, as lists have it.
fn listed(about: &About) -> Value {
    json!({ "name": about.name(), "model": about.name(), "size": about.bytes, "digest": "", "details": details(about) })
}

/// `/api/tags`.
pub(super) fn tags(about: &About) -> Value {
    let modified = chrono::DateTime::from_timestamp(i64::try_from(about.created).unwrap_or(0), 0).unwrap_or_default();
    let mut model = listed(about);
    model["modified_at"] = modified.to_rfc3339_opts(SecondsFormat::Secs, true).into();
    json!({ "models": [model] })
}

/// `/api/ps`: what runs is the one model, which stays; no memory of it is a graphics card's.
pub(super) fn running(about: &About) -> Value {
    let mut model = listed(about);
    // ollama says this in centuries.
    let never = clock::utc() + TimeDelta::days(36_525);
    model["expires_at"] = never.to_rfc3339_opts(SecondsFormat::Secs, true).into();
    (model["size_vram"], model["context_length"]) = (0.into(), about.context.into());
    json!({ "models": [model] })
}

/// `/api/show`.
pub(super) fn show(mut fields: Fields, about: &About) -> Result<Value, Problem> {
    required("model", model(&mut fields, about)?)?;
    fields.neutral(&["verbose"]);
    fields.finish()?;
    let family = &about.family;
    // Where a template has no tools, its system message does.
    let thinking = about.thinks.then_some("thinking");
    let capabilities: Vec<&str> = ["completion", "tools"].into_iter().chain(thinking).collect();
    Ok(json!({
        "modelfile": "", "parameters": format!("num_ctx {}", about.context), "template": "", "details": details(about),
        "model_info": {
            "general.architecture": family, "general.parameter_count": about.parameters,
            format!("{family}.context_length"): about.trained,
        },
        "capabilities": capabilities,
    }))
}

fn details(about: &About) -> Value {
    let millions = about.parameters as f64 / 1e6;
    let size = if millions < 1e3 { format!("{millions:.2}M") } else { format!("{:.1}B", millions / 1e3) };
    json!({
        "parent_model": "", "format": "gguf", "family": about.family, "families": [about.family], "parameter_size": size,
        "quantization_level": about.level,
    })
}
