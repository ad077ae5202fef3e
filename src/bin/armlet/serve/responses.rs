//! `/v1/responses` in its plain form: messages or a text in, a message out, nothing kept.

use armlet::tokenizer::Role;
use serde_json::{Map, Value, json};

use super::event::{Ended, Reason};
use super::fields::{required, wrong_type};
use super::format::{Delta, Format, Request as Asked, Wanted};
use super::openai::Request;
use super::prepare::Source;
use super::problem::Problem;
use super::{form, messages, settings};
use crate::template::Message;

/// A request to `/v1/responses`.
pub(super) fn parse(mut request: Request<'_>) -> Result<Asked, Problem> {
    let fields = &mut request.fields;
    settings::common(fields, &mut request.sampling, settings::OPENAI)?;
    fields.neutral(&settings::NEUTRAL);
    fields.neutral(&["stream_options"]);
    let stream = fields.flag("stream")?.unwrap_or(false);
    let tokens = fields.count("max_output_tokens", 1..=1 << 24)?;
    let instructions = fields.text("instructions")?;
    let mut list = match required("input", fields.take("input"))? {
        Value::String(text) => vec![Message { role: Role::User, text }],
        Value::Array(list) => messages::read("input", list)?,
        other => return Err(wrong_type("input", "a string or an array of messages", &other)),
    };
    list.splice(0..0, instructions.iter().map(|text| Message { role: Role::System, text: text.clone() }));
    let mut variables = Map::new();
    if let Some(mut reasoning) = fields.object("reasoning")? {
        match reasoning.text("effort")?.as_deref() {
            None => {}
            Some("none") => drop(variables.insert("enable_thinking".into(), false.into())),
            Some(_) => return Err(Problem::unsupported("reasoning.effort", ", but for \"none\"")),
        }
        for field in ["summary", "generate_summary"] {
            reasoning.only(field, &[])?;
        }
        reasoning.finish()?;
    }
    let mut form = None;
    if let Some(mut text) = fields.object("text")? {
        form = text.object("format")?.map(form::response_format).transpose()?.flatten();
        text.only("verbosity", &[json!("medium")])?;
        text.finish()?;
    }
    fields.only("tools", &[json!([])])?;
    fields.only("include", &[json!([])])?;
    fields.only("tool_choice", &[json!("none"), json!("auto")])?;
    fields.only("parallel_tool_calls", &[json!(false), json!(true)])?;
    fields.only("truncation", &[json!("disabled")])?;
    fields.only("background", &[json!(false)])?;
    fields.only("top_logprobs", &[json!(0)])?;
    for field in ["previous_response_id", "conversation", "prompt", "max_tool_calls"] {
        fields.only(field, &[])?;
    }
    request.fields.finish()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let format = Response {
        id: request.id,
        created: now.map_or(0, |t| t.as_secs()),
        model: request.model.into(),
        instructions,
        number: 0,
        items: Vec::new(),
    };
    let wanted = Wanted {
        source: Source::Chat(list, variables),
        sampling: request.sampling,
        tokens,
        context: None,
        scores: None,
        stream,
        form,
        split: true,
    };
    Ok((wanted, Box::new(format)))
}

struct Response {
    id: u64,
    created: u64,
    model: String,
    instructions: Option<String>,
    /// Of the next event.
    number: u64,
    /// What has begun: thoughts, the answer, or both.
    items: Vec<Item>,
}

/// A part of the answer, with its text so far.
struct Item {
    is_thought: bool,
    text: String,
}

impl Item {
    fn id(&self, id: u64) -> String {
        format!("{}_{id:016x}", if self.is_thought { "rs" } else { "msg" })
    }

    fn part(&self) -> Value {
        if self.is_thought {
            json!({ "type": "reasoning_text", "text": self.text })
        } else {
            json!({ "type": "output_text", "text": self.text, "annotations": [], "logprobs": [] })
        }
    }

    fn value(&self, id: u64, status: &str) -> Value {
        let content = if status == "in_progress" { json!([]) } else { json!([self.part()]) };
        if self.is_thought {
            json!({ "type": "reasoning", "id": self.id(id), "status": status, "summary": [], "content": content })
        } else {
            json!({ "type": "message", "id": self.id(id), "status": status, "role": "assistant", "content": content })
        }
    }
}

impl Response {
    fn object(&self, status: &str) -> Value {
        json!({
            "id": format!("resp_{:016x}", self.id), "object": "response", "created_at": self.created, "status": status,
            "error": null, "incomplete_details": null, "instructions": self.instructions, "model": self.model,
            "output": [], "parallel_tool_calls": false, "tool_choice": "auto", "tools": [], "metadata": {}, "store": false,
            "text": { "format": { "type": "text" } }, "truncation": "disabled", "usage": null,
        })
    }

    fn finished(&self, ended: &Ended) -> Value {
        let status = status(ended);
        let mut object = self.object(status);
        object["output"] = self.items.iter().map(|item| item.value(self.id, status)).collect();
        if ended.reason == Reason::Length {
            object["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        object["usage"] = json!({
            "input_tokens": ended.prompt, "input_tokens_details": { "cached_tokens": ended.cached },
            "output_tokens": ended.generated, "output_tokens_details": { "reasoning_tokens": 0 },
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
    fn text(&mut self, is_thought: bool, text: &str) -> String {
        let mut out = String::new();
        if text.is_empty() {
            return out;
        }
        if self.items.last().is_none_or(|item| item.is_thought != is_thought) {
            out += &self.close("completed");
            self.items.push(Item { is_thought, text: String::new() });
            let (at, item, part) = self.last("in_progress");
            let id = item["id"].clone();
            out += &self.event("response.output_item.added", json!({ "output_index": at, "item": item }));
            let part = json!({ "item_id": id, "output_index": at, "content_index": 0, "part": part });
            out += &self.event("response.content_part.added", part);
        }
        let (at, item, _) = self.last("in_progress");
        let kind = if is_thought { "response.reasoning_text.delta" } else { "response.output_text.delta" };
        let mut delta = json!({ "item_id": item["id"], "output_index": at, "content_index": 0, "delta": text });
        if !is_thought {
            delta["logprobs"] = json!([]);
        }
        out += &self.event(kind, delta);
        if let Some(item) = self.items.last_mut() {
            item.text += text;
        }
        out
    }

    /// Number, item and part of what was begun last.
    fn last(&self, status: &str) -> (usize, Value, Value) {
        let at = self.items.len().saturating_sub(1);
        self.items.last().map_or((at, Value::Null, Value::Null), |item| (at, item.value(self.id, status), item.part()))
    }

    /// The end of what was begun last, if anything was.
    fn close(&mut self, status: &str) -> String {
        let Some(last) = self.items.last() else { return String::new() };
        let (is_thought, text) = (last.is_thought, last.text.clone());
        let (at, item, part) = self.last(status);
        let id = item["id"].clone();
        let kind = if is_thought { "response.reasoning_text.done" } else { "response.output_text.done" };
        let mut done = json!({ "item_id": id, "output_index": at, "content_index": 0, "text": text });
        if !is_thought {
            done["logprobs"] = json!([]);
        }
        let part = json!({ "item_id": id, "output_index": at, "content_index": 0, "part": part });
        let ends = [
            ("response.content_part.done", part),
            ("response.output_item.done", json!({ "output_index": at, "item": item })),
        ];
        let out = self.event(kind, done);
        ends.into_iter().fold(out, |out, (kind, value)| out + &self.event(kind, value))
    }
}

fn status(ended: &Ended) -> &'static str {
    if ended.reason == Reason::Stop { "completed" } else { "incomplete" }
}

impl Format for Response {
    fn begin(&mut self) -> String {
        let object = self.object("in_progress");
        let created = self.event("response.created", json!({ "response": object }));
        created + &self.event("response.in_progress", json!({ "response": object }))
    }

    fn piece(&mut self, delta: Delta) -> String {
        self.text(true, &delta.thought) + &self.text(false, &delta.text)
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
        for (is_thought, text) in [(true, whole.thought), (false, whole.text)] {
            if !(is_thought && text.is_empty()) {
                self.items.push(Item { is_thought, text });
            }
        }
        self.finished(ended)
    }
}
