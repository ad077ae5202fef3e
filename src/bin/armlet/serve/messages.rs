//! The messages of a conversation, as the APIs have them.

use armlet::tokenizer::Role;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::fields::{Fields, VALUES, required, values, wrong_type};
use super::functions::check_name;
use super::problem::Problem;
use crate::template::{Message, Part};
use crate::tools::Call;

/// The most messages of a conversation.
const MESSAGES: usize = 4096;

/// Whose messages they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    OpenAi,
    /// Calls have no ids, and their arguments are objects; a result says of which tool it is.
    Ollama,
}

/// Reads the messages.
pub(super) fn read(api: Api, name: &str, list: Vec<Value>) -> Result<Vec<Message>, Problem> {
    check(name, &list)?;
    let mut reader = Reader { api, calls: Vec::new(), values: VALUES };
    let read = |(i, value)| reader.message(Fields::of(value, format!("{name}[{i}]"))?);
    list.into_iter().enumerate().map(read).collect()
}

/// Reads the items of `/v1/responses`: messages, and in items of their own calls, results and thoughts.
pub(super) fn items(name: &str, list: Vec<Value>) -> Result<Vec<Message>, Problem> {
    check(name, &list)?;
    let mut reader = Reader { api: Api::OpenAi, calls: Vec::new(), values: VALUES };
    let mut messages: Vec<Message> = Vec::new();
    for (i, value) in list.into_iter().enumerate() {
        let kind = value["type"].as_str().unwrap_or("message").to_string();
        let mut fields = Fields::of(value, format!("{name}[{i}]"))?;
        let field = fields.name("call_id");
        match kind.as_str() {
            "function_call" => {
                let id = required(&field, fields.text("call_id")?)?;
                let call = reader.call(id, &mut fields)?;
                match messages.last_mut() {
                    // What was said before, and calls that follow each other, are one message.
                    Some(Message { part: Part::Calls(calls), .. }) => calls.push(call),
                    Some(last) if last.role == Role::Assistant => last.part = Part::Calls(vec![call]),
                    _ => {
                        let said = Message::new(Role::Assistant, String::new());
                        messages.push(Message { part: Part::Calls(vec![call]), ..said });
                    }
                }
            }
            "function_call_output" => {
                let id = required(&field, fields.text("call_id")?)?;
                let from = fields.name("output");
                let text = content(&from, required(&from, fields.take("output"))?)?;
                messages.push(reader.result_of(&field, Some(id), None, text)?);
            }
            // What a model thought is no part of what it is told later.
            "reasoning" => continue,
            _ => {
                messages.push(reader.message(fields)?);
                continue;
            }
        }
        fields.neutral(&["type", "id", "status"]);
        fields.finish()?;
    }
    Ok(messages)
}

fn check(name: &str, list: &[Value]) -> Result<(), Problem> {
    if list.is_empty() {
        let message = format!("Invalid '{name}': empty array. Expected at least one message.");
        return Err(Problem::invalid(message).of(name).code("empty_array"));
    }
    if list.len() > MESSAGES {
        let message = format!("Invalid '{name}': array too long. Expected at most {MESSAGES}.");
        return Err(Problem::invalid(message).of(name).code("array_above_max_length"));
    }
    Ok(())
}

/// What a conversation has called so far.
struct Reader {
    api: Api,
    calls: Vec<Called>,
    /// How many values the texts of arguments may have yet, all together: a body that has them as a text has one value there.
    values: usize,
}

struct Called {
    id: String,
    name: String,
    has_result: bool,
}

impl Reader {
    fn message(&mut self, mut fields: Fields) -> Result<Message, Problem> {
        let name = fields.name("role");
        let role = required(&name, fields.text("role")?)?;
        let role = match role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => return self.result(fields),
            "function" => return Err(Problem::unsupported(&name, &format!(" as '{role}'"))),
            _ => {
                let message = format!(
                    "Invalid value: '{role}'. Supported values are: 'system', 'developer', 'user', 'assistant', and 'tool'."
                );
                return Err(Problem::invalid(message).of(&name).code("invalid_value"));
            }
        };
        let part = if role == Role::Assistant { self.calls(&mut fields)? } else { Part::Text };
        let name = fields.name("content");
        let given = fields.take("content");
        // Who calls need not say anything.
        let given = if part == Part::Text { Some(required(&name, given)?) } else { given };
        let text = given.map_or(Ok(String::new()), |given| content(&name, given))?;
        // Templates have roles, and no names.
        fields.text("name")?;
        // What a model thought is no part of what it is told later.
        fields.neutral(&["reasoning_content", "reasoning", "thinking", "id", "status", "type"]);
        for (field, empty) in [("tool_calls", json!([])), ("annotations", json!([])), ("images", json!([]))] {
            fields.only(field, &[empty])?;
        }
        fields.only("refusal", &[])?;
        fields.finish()?;
        Ok(Message { part, ..Message::new(role, text) })
    }

    /// The calls of an assistant's message.
    fn calls(&mut self, fields: &mut Fields) -> Result<Part, Problem> {
        let name = fields.name("tool_calls");
        let list = fields.list("tool_calls")?.unwrap_or_default();
        let mut calls = Vec::new();
        for (i, value) in list.into_iter().enumerate() {
            let mut call = Fields::of(value, format!("{name}[{i}]"))?;
            call.only("type", &[json!("function")])?;
            call.neutral(&["index"]);
            let id = match (call.text("id")?, self.api) {
                (Some(id), _) => id,
                (None, Api::Ollama) => format!("call_{}", self.calls.len()),
                (None, Api::OpenAi) => required(&call.name("id"), None)?,
            };
            let inner = call.name("function");
            let mut function = required(&inner, call.object("function")?)?;
            call.finish()?;
            function.neutral(&["index"]);
            calls.push(self.call(id, &mut function)?);
            function.finish()?;
        }
        Ok(if calls.is_empty() { Part::Text } else { Part::Calls(calls) })
    }

    /// A call by its id, with the name and the arguments that these fields have.
    fn call(&mut self, id: String, fields: &mut Fields) -> Result<Call, Problem> {
        let field = fields.name("name");
        let name = required(&field, fields.text("name")?)?;
        // Templates print it as it is.
        check_name(&field, &name)?;
        let field = fields.name("arguments");
        let arguments = match required(&field, fields.take("arguments"))? {
            Value::String(text) if text.trim().is_empty() => Some(Map::new()),
            Value::String(text) if self.api == Api::OpenAi => {
                self.count(&field, &text)?;
                serde_json::from_str(&text).ok()
            }
            Value::Object(object) if self.api == Api::Ollama => Some(object),
            other => {
                let expected = if self.api == Api::OpenAi { "a string" } else { "an object" };
                return Err(wrong_type(&field, expected, &other));
            }
        };
        let Some(arguments) = arguments else {
            let message = format!("Invalid '{field}': expected the JSON of an object.");
            return Err(Problem::invalid(message).of(&field).code("invalid_value"));
        };
        self.calls.push(Called { id: id.clone(), name: name.clone(), has_result: false });
        Ok(Call { id, name, arguments })
    }

    /// Counts the values of a text before there are any.
    fn count(&mut self, field: &str, text: &str) -> Result<(), Problem> {
        let left = self.values.checked_sub(values(text.as_bytes()));
        self.values = left.ok_or_else(|| {
            let message = format!("The arguments of all calls have more than {VALUES} JSON values and names.");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message).of(field).code("request_too_large")
        })?;
        Ok(())
    }

    /// A message of a tool.
    fn result(&mut self, mut fields: Fields) -> Result<Message, Problem> {
        let field = fields.name("tool_call_id");
        let id = fields.text("tool_call_id")?;
        let name = fields.text("tool_name")?;
        let name = name.or(fields.text("name")?);
        if let Some(name) = &name {
            check_name(&fields.name("name"), name)?;
        }
        let id = if self.api == Api::OpenAi { Some(required(&field, id)?) } else { id };
        let from = fields.name("content");
        let text = content(&from, required(&from, fields.take("content"))?)?;
        fields.finish()?;
        self.result_of(&field, id, name, text)
    }

    /// The result of a call that came before.
    fn result_of(
        &mut self,
        field: &str,
        id: Option<String>,
        name: Option<String>,
        text: String,
    ) -> Result<Message, Problem> {
        let called = match &id {
            Some(id) => self.calls.iter_mut().rfind(|call| call.id == *id),
            None => {
                let open = |call: &&mut Called| !call.has_result && name.as_ref().is_none_or(|name| *name == call.name);
                self.calls.iter_mut().find(open)
            }
        };
        let (id, name) = match (called, self.api) {
            (Some(called), _) => {
                called.has_result = true;
                (called.id.clone(), called.name.clone())
            }
            (None, Api::Ollama) => (id.unwrap_or_default(), name.unwrap_or_default()),
            (None, Api::OpenAi) => {
                let message = "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'.";
                return Err(Problem::invalid(message).of(field).code("invalid_value"));
            }
        };
        Ok(Message { part: Part::Result { id, name }, ..Message::new(Role::User, text) })
    }
}

/// A text, or parts that are texts.
pub(super) fn content(name: &str, value: Value) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text),
        Value::Array(parts) => parts.into_iter().enumerate().map(|(i, value)| part(name, i, value)).collect(),
        other => Err(wrong_type(name, "a string or an array of parts", &other)),
    }
}

fn part(name: &str, i: usize, value: Value) -> Result<String, Problem> {
    let mut fields = Fields::of(value, format!("{name}[{i}]"))?;
    let kind = required(&fields.name("type"), fields.text("type")?)?;
    if !["text", "input_text", "output_text"].contains(&kind.as_str()) {
        return Err(Problem::unsupported(&fields.name("type"), &format!(" as '{kind}': the model reads text")));
    }
    let text = required(&fields.name("text"), fields.text("text")?)?;
    for field in ["annotations", "logprobs"] {
        fields.only(field, &[json!([])])?;
    }
    fields.finish()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: Value) -> Result<Message, Problem> {
        Ok(read(Api::OpenAi, "messages", vec![value])?.remove(0))
    }

    #[test]
    fn texts_and_parts() {
        let parts = json!({ "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b", "cache_control": {} }] });
        assert_eq!(one(parts).unwrap().text, "ab");
        let system =
            json!({ "role": "developer", "content": "x", "tool_calls": null, "name": "Bob", "cache_control": {} });
        let system = one(system).unwrap();
        assert_eq!((system.role, system.text.as_str()), (Role::System, "x"));
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        let image = json!({ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] });
        for (bad, param) in [
            (image, "messages[0].content[0].type"),
            (json!({ "role": "tool", "content": "x" }), "messages[0].tool_call_id"),
            (json!({ "role": "tool", "content": "x", "tool_call_id": "1" }), "messages[0].tool_call_id"),
            (json!({ "role": "function", "content": "x" }), "messages[0].role"),
            (json!({ "role": "assistant", "content": null }), "messages[0].content"),
            (json!({ "role": "user", "content": "x", "tool_calls": [{}] }), "messages[0].tool_calls"),
            (json!({ "role": "judge", "content": "x" }), "messages[0].role"),
            (json!({ "role": "user" }), "messages[0].content"),
            (json!({ "role": "user", "content": 1 }), "messages[0].content"),
            (json!({ "role": "user", "content": "x", "name": 1 }), "messages[0].name"),
            (json!({ "role": "user", "content": "x", "nmae": "Bob" }), "messages[0].nmae"),
            (json!({ "role": "assistant", "content": "x", "tool_calls": [1] }), "messages[0].tool_calls[0]"),
            (json!("x"), "messages[0]"),
        ] {
            assert_eq!(one(bad.clone()).unwrap_err().openai()["error"]["param"], param, "{bad}");
        }
        assert!(read(Api::OpenAi, "messages", vec![]).is_err());
    }

    #[test]
    fn calls_and_their_results() {
        let call = |id: &str, name: &str, arguments: Value| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
        let calls = json!([call("a", "f", json!("{\"x\": 1}")), call("b", "g", json!(""))]);
        let list = vec![
            json!({ "role": "assistant", "content": null, "tool_calls": calls }),
            json!({ "role": "tool", "content": [{ "type": "text", "text": "two" }], "tool_call_id": "b" }),
        ];
        let messages = read(Api::OpenAi, "messages", list).unwrap();
        let Part::Calls(calls) = &messages[0].part else { panic!("{messages:?}") };
        assert_eq!((calls.len(), Value::from(calls[0].arguments.clone())), (2, json!({ "x": 1 })));
        assert_eq!(messages[1].part, Part::Result { id: "b".into(), name: "g".into() });
        assert_eq!((messages[0].text.as_str(), messages[1].text.as_str()), ("", "two"));
        // ollama's have no ids: what is next of this name.
        let called = json!({ "function": { "name": "f", "arguments": {} } });
        let result = |name: &str| json!({ "role": "tool", "content": "x", "tool_name": name });
        let list = vec![
            json!({ "role": "assistant", "content": "", "tool_calls": [called, called] }),
            result("f"),
            result("f"),
        ];
        let messages = read(Api::Ollama, "messages", list).unwrap();
        let Part::Calls(calls) = &messages[0].part else { panic!("{messages:?}") };
        let ids: Vec<Part> = calls.iter().map(|call| Part::Result { id: call.id.clone(), name: "f".into() }).collect();
        assert!(messages[1..].iter().map(|m| &m.part).eq(&ids) && ids[0] != ids[1]);
        for (bad, param) in [
            (json!([{ "type": "function", "function": { "name": "f", "arguments": "{}" } }]), "[0].id"),
            (json!([call("a", "f", json!({}))]), "[0].function.arguments"),
            (json!([call("a", "f", json!("[1]"))]), "[0].function.arguments"),
            (json!([{ "id": "a", "function": { "arguments": "{}" } }]), "[0].function.name"),
            (json!([{ "id": "a", "type": "custom", "custom": {} }]), "[0].type"),
        ] {
            let error = one(json!({ "role": "assistant", "tool_calls": bad })).unwrap_err();
            assert_eq!(error.openai()["error"]["param"], format!("messages[0].tool_calls{param}"), "{bad}");
        }
    }

    #[test]
    fn values_within_texts_are_counted_over_all_calls() {
        let call = |n: usize| {
            let arguments = json!({ "x": vec![0; n] }).to_string();
            json!({ "id": "a", "type": "function", "function": { "name": "f", "arguments": arguments } })
        };
        let said = |n: usize| json!({ "role": "assistant", "tool_calls": [call(n)] });
        // An object and a list have two more than there are numbers.
        let half = VALUES / 2 - 2;
        for (list, fits) in [
            (vec![said(half), said(half)], true),
            (vec![said(half), said(half + 1)], false),
            (vec![json!({ "role": "assistant", "tool_calls": [call(half), call(half + 1)] })], false),
        ] {
            let refused = read(Api::OpenAi, "messages", list).err().map(|problem| problem.status.as_u16());
            assert_eq!(refused, (!fits).then_some(413));
        }
        let item = |n: usize| json!({ "type": "function_call", "call_id": "a", "name": "f", "arguments": call(n)["function"]["arguments"] });
        assert!(items("input", vec![item(half), item(half)]).is_ok());
        assert_eq!(items("input", vec![item(half), item(half + 1)]).unwrap_err().status.as_u16(), 413);
    }
}
