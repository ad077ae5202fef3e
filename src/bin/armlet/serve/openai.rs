//! `/v1/chat/completions` and `/v1/completions`.

use serde_json::{Value, json};

use super::event::{Candidate, Ended, Scored};
use super::fields::{Fields, required, wrong_type};
use super::format::{CallPart, Delta, Format, Request as Asked, Wanted, call_id, sse};
use super::messages::Api;
use super::prepare::Source;
use super::problem::{Names, Problem};
use super::{form, functions, messages, settings};
use crate::args::Sampling;
use crate::clock;

const CHAT: Names = Names { prompt: "messages", form: "response_format", parameters: "function.parameters" };
/// It has no tools.
const COMPLETION: Names = Names { prompt: "prompt", form: "json_schema", parameters: "" };
/// The most tokens that a request may ask for.
const MOST_TOKENS: usize = 1 << 24;

/// What a request is made of beside its body.
pub(super) struct Request<'a> {
    pub(super) fields: Fields,
    /// The settings of the command line.
    pub(super) sampling: Sampling,
    pub(super) vocab: usize,
    /// The name that the answer has for the model.
    pub(super) model: &'a str,
    /// A number that no other answer has.
    pub(super) id: u64,
}

/// Takes what both have.
fn common(request: &mut Request<'_>) -> Result<(bool, bool), Problem> {
    let fields = &mut request.fields;
    settings::openai(fields, &mut request.sampling, request.vocab)?;
    fields.neutral(&settings::NEUTRAL);
    fields.neutral(&["cache_prompt"]);
    fields.only("n", &[json!(1)])?;
    fields.only("timings_per_token", &[json!(false)])?;
    let stream = fields.flag("stream")?.unwrap_or(false);
    let mut include_usage = false;
    if let Some(mut options) = fields.object("stream_options")? {
        if !stream {
            let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
            return Err(Problem::invalid(message).of("stream_options"));
        }
        include_usage = options.flag("include_usage")?.unwrap_or(false);
        // Padding against who counts bytes on the way: there is none.
        options.only("include_obfuscation", &[json!(false), json!(true)])?;
        options.finish()?;
    }
    Ok((stream, include_usage))
}

/// A request to `/v1/chat/completions`.
pub(super) fn chat(mut request: Request<'_>) -> Result<Asked, Problem> {
    let (stream, include_usage) = common(&mut request)?;
    let fields = &mut request.fields;
    let list = required("messages", fields.list("messages")?)?;
    let messages = messages::read(Api::OpenAi, "messages", list)?;
    limit(fields, &["max_completion_tokens", "max_tokens", "n_predict"], &mut request.sampling)?;
    let scores = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.count("top_logprobs", 0..=20)?;
    if top.is_some() && !scores {
        let message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.";
        return Err(Problem::invalid(message).of("top_logprobs"));
    }
    let mut variables = fields.map("chat_template_kwargs")?.unwrap_or_default();
    if let Some(name) = ["messages", "add_generation_prompt"].into_iter().find(|name| variables.contains_key(*name)) {
        return Err(Problem::unsupported(&format!("chat_template_kwargs.{name}"), ""));
    }
    settings::effort(fields, "reasoning_effort", &mut variables)?;
    let split = match fields.text("reasoning_format")?.as_deref() {
        None | Some("auto" | "deepseek") => true,
        Some("none") => false,
        Some(_) => return Err(Problem::unsupported("reasoning_format", ", but for \"deepseek\" or \"none\"")),
    };
    let tools = functions::openai(fields, false)?;
    fields.only("functions", &[json!([])])?;
    fields.only("function_call", &[json!("none"), json!("auto")])?;
    let formed =
        fields.object("response_format")?.map(|format| form::response_format(format, false)).transpose()?.flatten();
    let (form, names) = match (formed, form::llama_server(fields)?) {
        (Some(_), Some(_)) => {
            let message = "A request has a 'response_format' or what llama-server has in its place, and not both.";
            return Err(Problem::invalid(message).of("response_format").code("invalid_value"));
        }
        (None, Some(form)) => (Some(form), Names { form: COMPLETION.form, ..CHAT }),
        (formed, None) => (formed, CHAT),
    };
    fields.only("modalities", &[json!(["text"])])?;
    fields.only("verbosity", &[json!("medium")])?;
    for field in ["audio", "prediction", "web_search_options"] {
        fields.only(field, &[])?;
    }
    let head = Head::new("chatcmpl", "chat.completion", &request, include_usage);
    request.fields.finish()?;
    let wanted = Wanted {
        names,
        source: Source::Chat(messages, variables),
        sampling: request.sampling,
        context: None,
        scores: scores.then_some(top.unwrap_or(0)),
        stream,
        form,
        split,
        tools,
    };
    Ok((wanted, Box::new(Chat { id: request.id, head, scores })))
}

/// A request to `/v1/completions`.
pub(super) fn completion(mut request: Request<'_>) -> Result<Asked, Problem> {
    let (stream, include_usage) = common(&mut request)?;
    let fields = &mut request.fields;
    let source = prompt(required("prompt", fields.take("prompt"))?)?;
    if !limit(fields, &["max_tokens", "n_predict"], &mut request.sampling)? {
        // As OpenAI's, where the command line says nothing.
        request.sampling.n_predict.get_or_insert(16);
    }
    let scores = fields.count("logprobs", 0..=20)?;
    fields.only("echo", &[json!(false)])?;
    fields.only("best_of", &[json!(1)])?;
    fields.only("suffix", &[json!("")])?;
    let form = form::llama_server(fields)?;
    let head = Head::new("cmpl", "text_completion", &request, include_usage);
    request.fields.finish()?;
    let wanted = Wanted {
        names: COMPLETION,
        source,
        sampling: request.sampling,
        context: None,
        scores,
        stream,
        form,
        split: false,
        tools: None,
    };
    Ok((wanted, Box::new(Completion { head, offset: 0 })))
}

/// Takes the most tokens of an answer, by the first of these fields, and says whether there is one. -1 is no limit, as
/// llama-server has it.
fn limit(fields: &mut Fields, names: &[&str], sampling: &mut Sampling) -> Result<bool, Problem> {
    let mut limit = None;
    for name in names {
        let found = match fields.is(name, &json!(-1)) {
            true => Some(None),
            false => fields.count(name, 1..=MOST_TOKENS)?.map(Some),
        };
        limit = limit.or(found);
    }
    if let Some(limit) = limit {
        sampling.n_predict = limit;
    }
    Ok(limit.is_some())
}

/// A text, or tokens; a list of one of these is as good.
fn prompt(value: Value) -> Result<Source, Problem> {
    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    match value {
        Value::String(text) => Ok(Source::Text(text)),
        Value::Array(mut list) if list.len() == 1 && !list[0].is_number() => prompt(list.remove(0)),
        Value::Array(list) if list.iter().all(|item| token(item).is_some()) && !list.is_empty() => {
            Ok(Source::Tokens(list.iter().filter_map(token).collect()))
        }
        Value::Array(list) if list.len() > 1 && !list[0].is_number() => {
            Err(Problem::unsupported("prompt", " as a list of several: send a request for each"))
        }
        other => Err(wrong_type("prompt", "a string or an array of tokens", &other)),
    }
}

/// What all pieces of an answer begin with.
struct Head {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    /// A stream has the tokens of the answer in its last piece, and a null in all others.
    usage: bool,
}

impl Head {
    fn new(prefix: &str, object: &'static str, request: &Request<'_>, usage: bool) -> Self {
        let created = clock::since_1970().as_secs();
        Head { id: format!("{prefix}-{:016x}", request.id), object, created, model: request.model.into(), usage }
    }

    /// A piece of a stream.
    fn piece(&self, suffix: &str, choices: Value) -> Value {
        let mut piece = self.object(suffix, choices);
        if self.usage {
            piece["usage"] = Value::Null;
        }
        piece
    }

    fn object(&self, suffix: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": format!("{}{suffix}", self.object), "created": self.created, "model": self.model,
            "system_fingerprint": concat!("armlet-", env!("CARGO_PKG_VERSION")), "choices": choices,
        })
    }

    /// The pieces that end a stream.
    fn end(&self, suffix: &str, choices: Value, ended: &Ended) -> String {
        let mut last = self.piece(suffix, choices);
        last["timings"] = ended.timings();
        let mut out = sse(&last);
        if self.usage {
            let mut usage = self.object(suffix, json!([]));
            usage["usage"] = ended.usage();
            out += &sse(&usage);
        }
        out + "data: [DONE]\n\n"
    }

    fn whole(&self, choices: Value, ended: &Ended) -> Value {
        let mut whole = self.object("", choices);
        whole["usage"] = ended.usage();
        whole["timings"] = ended.timings();
        whole
    }
}

struct Chat {
    id: u64,
    head: Head,
    scores: bool,
}

const CHUNK: &str = ".chunk";

impl Chat {
    /// More of a call, in a stream.
    fn part(&self, part: &CallPart) -> Value {
        let mut function = json!({ "arguments": part.arguments });
        let Some(name) = &part.name else { return json!({ "index": part.index, "function": function }) };
        function["name"] = name.as_str().into();
        json!({ "index": part.index, "id": call_id(self.id, part.index), "type": "function", "function": function })
    }

    /// A call as a part of a message.
    fn call(&self, call: &CallPart) -> Value {
        let function = json!({ "name": call.name, "arguments": call.arguments });
        json!({ "id": call_id(self.id, call.index), "type": "function", "function": function })
    }

    fn chunk(&self, delta: Value, scores: Option<Value>, reason: Option<&str>) -> Value {
        self.head.piece(CHUNK, json!([{ "index": 0, "delta": delta, "logprobs": scores, "finish_reason": reason }]))
    }
}

impl Format for Chat {
    fn begin(&mut self) -> String {
        sse(&self.chunk(json!({ "role": "assistant", "content": "" }), None, None))
    }

    fn piece(&mut self, delta: Delta) -> String {
        let scores = (!delta.scores.is_empty()).then(|| chat_scores(&delta.scores));
        let mut piece = json!({});
        if !delta.thought.is_empty() {
            piece["reasoning_content"] = delta.thought.into();
        }
        if !delta.text.is_empty() || scores.is_some() {
            piece["content"] = delta.text.into();
        }
        let more = delta.calls.iter().filter(|part| part.name.is_some() || !part.arguments.is_empty());
        let calls: Vec<Value> = more.map(|part| self.part(part)).collect();
        if !calls.is_empty() {
            piece["tool_calls"] = calls.into();
        }
        if piece == json!({}) {
            return String::new();
        }
        sse(&self.chunk(piece, scores, None))
    }

    fn end(&mut self, ended: &Ended) -> String {
        let choices = json!([{ "index": 0, "delta": {}, "logprobs": null, "finish_reason": ended.reason.name() }]);
        self.head.end(CHUNK, choices, ended)
    }

    fn failed(&mut self, problem: &Problem) -> String {
        sse(&problem.openai())
    }

    fn whole(&mut self, whole: Delta, ended: &Ended) -> Value {
        let scores = self.scores.then(|| chat_scores(&whole.scores));
        let mut message = json!({ "role": "assistant", "content": whole.text, "refusal": null });
        if !whole.calls.is_empty() {
            message["tool_calls"] = whole.calls.iter().map(|call| self.call(call)).collect();
            if whole.text.is_empty() {
                message["content"] = Value::Null;
            }
        }
        if !whole.thought.is_empty() {
            message["reasoning_content"] = whole.thought.into();
        }
        let choices =
            json!([{ "index": 0, "message": message, "logprobs": scores, "finish_reason": ended.reason.name() }]);
        self.head.whole(choices, ended)
    }
}

fn chat_scores(scores: &[Scored]) -> Value {
    let candidate = |c: &Candidate| json!({ "token": String::from_utf8_lossy(&c.bytes), "logprob": c.log_probability, "bytes": c.bytes });
    let scored = |scored: &Scored| {
        let mut value = candidate(&scored.token);
        value["top_logprobs"] = scored.likeliest.iter().map(candidate).collect();
        value
    };
    json!({ "content": scores.iter().map(scored).collect::<Vec<_>>(), "refusal": null })
}

struct Completion {
    head: Head,
    /// Characters of the answer so far.
    offset: usize,
}

impl Completion {
    fn choices(&mut self, delta: &Delta, reason: Option<&str>) -> Value {
        let scores = (!delta.scores.is_empty()).then(|| self.scores(&delta.scores));
        json!([{ "index": 0, "text": delta.text, "logprobs": scores, "finish_reason": reason }])
    }

    fn scores(&mut self, scores: &[Scored]) -> Value {
        let text = |c: &Candidate| String::from_utf8_lossy(&c.bytes).into_owned();
        let tokens: Vec<String> = scores.iter().map(|s| text(&s.token)).collect();
        let offset = |token: &String| {
            let at = self.offset;
            self.offset += token.chars().count();
            at
        };
        let offsets: Vec<usize> = tokens.iter().map(offset).collect();
        let top = |s: &Scored| -> Value { s.likeliest.iter().map(|c| (text(c), c.log_probability)).collect() };
        json!({
            "tokens": tokens, "token_logprobs": scores.iter().map(|s| s.token.log_probability).collect::<Vec<_>>(),
            "top_logprobs": scores.iter().map(top).collect::<Vec<_>>(), "text_offset": offsets,
        })
    }
}

impl Format for Completion {
    fn piece(&mut self, delta: Delta) -> String {
        let choices = self.choices(&delta, None);
        sse(&self.head.piece("", choices))
    }

    fn end(&mut self, ended: &Ended) -> String {
        let choices = self.choices(&Delta::default(), Some(ended.reason.name()));
        self.head.end("", choices, ended)
    }

    fn failed(&mut self, problem: &Problem) -> String {
        sse(&problem.openai())
    }

    fn whole(&mut self, whole: Delta, ended: &Ended) -> Value {
        let choices = self.choices(&whole, Some(ended.reason.name()));
        self.head.whole(choices, ended)
    }
}
