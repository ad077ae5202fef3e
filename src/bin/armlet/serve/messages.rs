//! The messages of a conversation, as the APIs have them.

use armlet::tokenizer::Role;
use serde_json::{Value, json};

use super::fields::{Fields, required, wrong_type};
use super::problem::Problem;
use crate::template::Message;

/// The most messages of a conversation.
const MESSAGES: usize = 4096;

/// Reads the messages.
pub(super) fn read(name: &str, list: Vec<Value>) -> Result<Vec<Message>, Problem> {
    if list.is_empty() {
        let message = format!("Invalid '{name}': empty array. Expected at least one message.");
        return Err(Problem::invalid(message).of(name).code("empty_array"));
    }
    if list.len() > MESSAGES {
        let message = format!("Invalid '{name}': array too long. Expected at most {MESSAGES}.");
        return Err(Problem::invalid(message).of(name).code("array_above_max_length"));
    }
    list.into_iter().enumerate().map(|(i, value)| message(Fields::of(value, format!("{name}[{i}]"))?)).collect()
}

fn message(mut fields: Fields) -> Result<Message, Problem> {
    let name = fields.name("role");
    let role = required(&name, fields.text("role")?)?;
    let role = match role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => return Err(Problem::unsupported(&name, &format!(" as '{role}'"))),
        _ => {
            let message = format!(
                "Invalid value: '{role}'. Supported values are: 'system', 'developer', 'user' and 'assistant'."
            );
            return Err(Problem::invalid(message).of(&name).code("invalid_value"));
        }
    };
    let name = fields.name("content");
    let text = content(&name, required(&name, fields.take("content"))?)?;
    // What a model thought is no part of what it is told later.
    fields.neutral(&["reasoning_content", "reasoning", "thinking", "id", "status", "type"]);
    for (field, empty) in [("tool_calls", json!([])), ("annotations", json!([])), ("images", json!([]))] {
        fields.only(field, &[empty])?;
    }
    fields.finish()?;
    Ok(Message { role, text })
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
        Ok(read("messages", vec![value])?.remove(0))
    }

    #[test]
    fn texts_and_parts() {
        let parts =
            json!({ "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] });
        assert_eq!(one(parts).unwrap().text, "ab");
        let system = one(json!({ "role": "developer", "content": "x", "tool_calls": null })).unwrap();
        assert_eq!((system.role, system.text.as_str()), (Role::System, "x"));
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        let image = json!({ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] });
        for (bad, param) in [
            (image, "messages[0].content[0].type"),
            (json!({ "role": "tool", "content": "x" }), "messages[0].role"),
            (json!({ "role": "judge", "content": "x" }), "messages[0].role"),
            (json!({ "role": "user" }), "messages[0].content"),
            (json!({ "role": "user", "content": 1 }), "messages[0].content"),
            (json!({ "role": "user", "content": "x", "name": "Bob" }), "messages[0].name"),
            (json!({ "role": "assistant", "content": "x", "tool_calls": [1] }), "messages[0].tool_calls"),
            (json!("x"), "messages[0]"),
        ] {
            assert_eq!(one(bad.clone()).unwrap_err().openai()["error"]["param"], param, "{bad}");
        }
        assert!(read("messages", vec![]).is_err());
    }
}
