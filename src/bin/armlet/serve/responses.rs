//! `/v1/responses` in its plain form: messages or a text in, a message or calls of functions out, nothing kept.

use armlet::tokenizer::Role;
use serde_json::{Map, Value, json};

use super::clients::Ask;
use super::event::{Ended, Reason};
use super::fields::{Fields, required, wrong_type};
use super::format::{CallPart, Delta, Format, Parts, Request as Asked, Wanted, call_id};
use super::openai::Request;
use super::prepare::Source;
use super::problem::{Names, Problem};
use super::{form, functions, messages, settings};
use crate::clock;
use crate::template::Message;

const NAMES: Names = Names { prompt: "input", form: "text.format", parameters: "parameters" };

/// A request to `/v1/responses`.
pub(super) fn parse(mut request: Request<'_>) -> Result<Asked, Problem> {
    let fields = &mut request.fields;
    let mut said = said(fields);
    settings::common(fields, &mut request.sampling, settings::OPENAI)?;
    fields.neutral(&settings::NEUTRAL);
    fields.neutral(&["stream_options"]);
    let stream = fields.flag("stream")?.unwrap_or(false);
    if let Some(tokens) = fields.count("max_output_tokens", 1..=1 << 24)? {
        request.sampling.n_predict = Some(tokens);
    }
    said.insert("max_output_tokens".into(), request.sampling.n_predict.into());
    let instructions = fields.text("instructions")?;
    let mut list = match required("input", fields.take("input"))? {
        Value::String(text) => vec![Message::new(Role::User, text)],
        Value::Array(list) => messages::items("input", list)?,
        other => return Err(wrong_type("input", "a string or an array of messages", &other)),
    };
    list.splice(0..0, instructions.iter().map(|text| Message::new(Role::System, text.clone())));
    let variables = reasoning(fields)?;
    let mut form = None;
    if let Some(mut text) = fields.object("text")? {
        form = text.object("format")?.map(|format| form::response_format(format, true)).transpose()?.flatten();
        text.only("verbosity", &[json!("medium")])?;
        text.finish()?;
    }
    let tools = functions::openai(fields, true)?;
    if let Some(tools) = &tools {
        said.insert("parallel_tool_calls".into(), tools.parallel.into());
    }
    // Thoughts come as they are.
    fields.only("include", &[json!([]), json!(["reasoning.encrypted_content"])])?;
    fields.only("truncation", &[json!("disabled")])?;
    fields.only("background", &[json!(false)])?;
    fields.only("top_logprobs", &[json!(0)])?;
    for field in ["previous_response_id", "conversation", "prompt", "max_tool_calls"] {
        fields.only(field, &[])?;
    }
    request.fields.finish()?;
    let format = Response {
        id: request.id,
        created: clock::since_1970().as_secs(),
        model: request.model.into(),
        instructions,
        said,
        number: 0,
        items: Vec::new(),
    };
    let wanted = Wanted {
        names: NAMES,
        source: Source::Chat(list, variables),
        sampling: request.sampling,
        context: None,
        scores: None,
        stream,
        form,
        split: true,
        tools,
    };
    Ok((wanted, Box::new(format)))
}

/// What of a request comes back as it is; null where it says nothing, and nothing else stands for it.
fn said(fields: &Fields) -> Map<String, Value> {
    let said = |field: &str, default: Value| (field.to_string(), fields.peek(field).cloned().unwrap_or(default));
    let text = fields.peek("text").and_then(|text| text.get("format")).filter(|format| !format.is_null());
    let text = json!({ "format": text.unwrap_or(&json!({ "type": "text" })) });
    [
        said("tools", json!([])),
        said("tool_choice", "auto".into()),
        said("parallel_tool_calls", true.into()),
        said("metadata", json!({})),
        said("reasoning", Value::Null),
        ("text".into(), text),
    ]
    .into_iter()
    .collect()
}

/// Takes `reasoning`: variables of the template.
fn reasoning(fields: &mut Fields) -> Result<Map<String, Value>, Problem> {
    let mut variables = Map::new();
    if let Some(mut reasoning) = fields.object("reasoning")? {
        settings::effort(&mut reasoning, "effort", &mut variables)?;
        for field in ["summary", "generate_summary"] {
            reasoning.only(field, &[])?;
        }
        reasoning.finish()?;
    }
    Ok(variables)
}

struct Response {
    id: u64,
    created: u64,
    model: String,
    instructions: Option<String>,
    /// What the request said, and what stood for what it did not say.
    said: Map<String, Value>,
    /// Of the next event.
    number: u64,
    /// What has begun: thoughts, texts, calls.
    items: Vec<Item>,
}

/// What a part of the answer is.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Thought,
    Text,
    /// A call, by its number, of a function.
    Call(usize, String),
}

/// A part of the answer, with its text so far: of a call, its arguments.
struct Item {
    kind: Kind,
    text: String,
}

impl Item {
    fn id(&self, id: u64, at: usize) -> String {
        let prefix = match self.kind {
            Kind::Thought => "rs",
            Kind::Text => "msg",
            Kind::Call(..) => "fc",
        };
        format!("{prefix}_{id:016x}{at:04x}")
    }

    /// What it is made of; a call has no parts.
    fn part(&self) -> Value {
        match self.kind {
            Kind::Thought => json!({ "type": "reasoning_text", "text": self.text }),
            Kind::Text => json!({ "type": "output_text", "text": self.text, "annotations": [], "logprobs": [] }),
            Kind::Call(..) => Value::Null,
        }
    }

    fn value(&self, id: u64, at: usize, status: &str) -> Value {
        let content = if status == "in_progress" { json!([]) } else { json!([self.part()]) };
        let item = self.id(id, at);
        match &self.kind {
            Kind::Thought => {
                json!({ "type": "reasoning", "id": item, "status": status, "summary": [], "content": content })
            }
            Kind::Text => {
                json!({ "type": "message", "id": item, "status": status, "role": "assistant", "content": content })
            }
            Kind::Call(index, name) => {
                let arguments = if status == "in_progress" { "" } else { &self.text };
                json!({ "type": "function_call", "id": item, "call_id": call_id(id, *index), "name": name,
                        "arguments": arguments, "status": status })
            }
        }
    }

    /// The name of the events of its text.
    fn event(&self) -> &'static str {
        match self.kind {
            Kind::Thought => "response.reasoning_text",
            Kind::Text => "response.output_text",
            Kind::Call(..) => "response.function_call_arguments",
        }
    }
}

impl Response {
    fn object(&self, status: &str) -> Value {
        let mut object = json!({
            "id": format!("resp_{:016x}", self.id), "object": "response", "created_at": self.created, "status": status,
            "error": null, "incomplete_details": null, "instructions": self.instructions, "model": self.model,
            "output": [], "store": false, "truncation": "disabled", "usage": null,
        });
        for (field, value) in &self.said {
            object[field] = value.clone();
        }
        object
    }

    fn finished(&self, ended: &Ended) -> Value {
        let status = status(ended);
        let mut object = self.object(status);
        object["output"] = self.items.iter().enumerate().map(|(at, item)| item.value(self.id, at, status)).collect();
        if ended.reason == Reason::Length {
            object["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        object["usage"] = json!({
            "input_tokens": ended.prompt, "input_tokens_details": { "cached_tokens": ended.cached },
            "output_tokens": ended.generated, "output_tokens_details": { "reasoning_tokens": ended.thoughts },
            "total_tokens": ended.prompt + ended.generated,
        });
        object["timings"] = ended.timings();
        object
    }

    fn event(&mut self, kind: &str, mut value: Value) -> String {
        value["type"] = kind.into();
        value["sequence_number"] = self.number.into();
        self.number += 1;
        format!("event: {kind}\ndata: {value}\n\n")
    }

    /// Text of one kind, with what begins before it.
    fn text(&mut self, kind: Kind, text: &str) -> String {
        let mut out = String::new();
        if text.is_empty() && !matches!(kind, Kind::Call(..)) {
            return out;
        }
        if self.items.last().is_none_or(|item| item.kind != kind) {
            out += &self.close("completed");
            self.items.push(Item { kind, text: String::new() });
            let (at, item, part) = self.last("in_progress");
            let id = item["id"].clone();
            out += &self.event("response.output_item.added", json!({ "output_index": at, "item": item }));
            if !part.is_null() {
                let part = json!({ "item_id": id, "output_index": at, "content_index": 0, "part": part });
                out += &self.event("response.content_part.added", part);
            }
        }
        if !text.is_empty() {
            out += &self.text_event("delta", "delta", text);
        }
        if let Some(item) = self.items.last_mut() {
            item.text += text;
        }
        out
    }

    /// An event of the text of what was begun last.
    fn text_event(&mut self, event: &str, field: &str, text: &str) -> String {
        let (at, item, _) = self.last("in_progress");
        let Some(last) = self.items.last() else { return String::new() };
        let mut value = json!({ "item_id": item["id"], "output_index": at, field: text });
        if !matches!(last.kind, Kind::Call(..)) {
            value["content_index"] = 0.into();
        }
        if last.kind == Kind::Text {
            value["logprobs"] = json!([]);
        }
        let name = format!("{}.{event}", last.event());
        self.event(&name, value)
    }

    /// More of a call.
    fn call(&mut self, part: CallPart) -> String {
        let kind = match (part.name, self.items.last()) {
            (Some(name), _) => Kind::Call(part.index, name),
            (None, Some(last)) => last.kind.clone(),
            (None, None) => return String::new(),
        };
        self.text(kind, &part.arguments)
    }

    /// Number, item and part of what was begun last.
    fn last(&self, status: &str) -> (usize, Value, Value) {
        let at = self.items.len().saturating_sub(1);
        let value = |item: &Item| (at, item.value(self.id, at, status), item.part());
        self.items.last().map_or((at, Value::Null, Value::Null), value)
    }

    /// The end of what was begun last, if anything was.
    fn close(&mut self, status: &str) -> String {
        let Some(last) = self.items.last() else { return String::new() };
        let text = last.text.clone();
        let (at, item, part) = self.last(status);
        let mut out = match part {
            Value::Null => self.text_event("done", "arguments", &text),
            part => {
                let part = json!({ "item_id": item["id"], "output_index": at, "content_index": 0, "part": part });
                self.text_event("done", "text", &text) + &self.event("response.content_part.done", part)
            }
        };
        out += &self.event("response.output_item.done", json!({ "output_index": at, "item": item }));
        out
    }
}

fn status(ended: &Ended) -> &'static str {
    if ended.reason == Reason::Length { "incomplete" } else { "completed" }
}

/// A number of 32 bits as it was written.
fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

impl Format for Response {
    fn settled(&mut self, ask: &Ask, parts: &Parts) {
        if parts.calls.as_ref().is_some_and(|calls| !calls.is_parallel()) {
            self.said.insert("parallel_tool_calls".into(), false.into());
        }
        for (field, value) in [("temperature", ask.sampling.temperature), ("top_p", ask.sampling.top_p)] {
            self.said.insert(field.into(), decimal(value));
        }
    }

    fn begin(&mut self) -> String {
        let object = self.object("in_progress");
        let created = self.event("response.created", json!({ "response": object }));
        created + &self.event("response.in_progress", json!({ "response": object }))
    }

    fn piece(&mut self, delta: Delta) -> String {
        let out = self.text(Kind::Thought, &delta.thought) + &self.text(Kind::Text, &delta.text);
        delta.calls.into_iter().fold(out, |out, part| out + &self.call(part))
    }

    fn end(&mut self, ended: &Ended) -> String {
        let out = self.close(status(ended));
        let object = self.finished(ended);
        out + &self.event(&format!("response.{}", status(ended)), json!({ "response": object }))
    }

    fn failed(&mut self, problem: &Problem) -> String {
        let mut object = self.object("failed");
        object["error"] = json!({ "code": "server_error", "message": problem.message });
        self.event("response.failed", json!({ "response": object }))
    }

    fn whole(&mut self, whole: Delta, ended: &Ended) -> Value {
        let has_calls = !whole.calls.is_empty();
        for (kind, text) in [(Kind::Thought, whole.thought), (Kind::Text, whole.text)] {
            if !text.is_empty() || kind == Kind::Text && !has_calls {
                self.items.push(Item { kind, text });
            }
        }
        self.items.extend(
            whole
                .calls
                .into_iter()
                .map(|call| Item { kind: Kind::Call(call.index, call.name.unwrap_or_default()), text: call.arguments }),
        );
        self.finished(ended)
    }
}
