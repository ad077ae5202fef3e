//! What an answer may be: OpenAI's `response_format`, and how llama-server and ollama say it.

use serde_json::{Value, json};

use super::fields::{Fields, required, wrong_type};
use super::problem::Problem;
use crate::grammar::Form;

type Formed = Result<Option<Form>, Problem>;

/// `response_format` of chats, and `format` of `/v1/responses`, whose schema is not a level deeper.
pub(super) fn response_format(mut format: Fields) -> Formed {
    let kind = required(&format.name("type"), format.text("type")?)?;
    let form = match kind.as_str() {
        "text" => None,
        // llama-server's has a schema, too.
        "json_object" => Some(schema(format.take("schema").unwrap_or(json!({ "type": "object" })))),
        "json_schema" => {
            let mut inner = match format.object("json_schema")? {
                Some(inner) => inner,
                // In `/v1/responses` they stand beside the type.
                None => std::mem::replace(&mut format, Fields::of(json!({}), String::new())?),
            };
            inner.neutral(&["name", "description"]);
            // An answer is always of its schema.
            inner.flag("strict")?;
            let given = required(&inner.name("schema"), inner.take("schema"))?;
            inner.finish()?;
            Some(schema(given))
        }
        other => {
            let message =
                format!("Invalid value: '{other}'. Supported values are: 'text', 'json_object', and 'json_schema'.");
            return Err(Problem::invalid(message).of("response_format.type").code("invalid_value"));
        }
    };
    format.finish()?;
    form.transpose()
}

/// llama-server's fields beside it.
pub(super) fn llama_server(fields: &mut Fields) -> Formed {
    let given = fields.take("json_schema").map(schema).transpose()?;
    let gbnf = fields.text("grammar")?.filter(|text| !text.is_empty()).map(Form::Gbnf);
    match (given, gbnf) {
        (Some(_), Some(_)) => {
            Err(Problem::invalid("A request has a 'json_schema' or a 'grammar', and not both.").of("grammar"))
        }
        (given, gbnf) => Ok(given.or(gbnf)),
    }
}

/// ollama's `format`: `json`, or a schema.
pub(super) fn ollama(fields: &mut Fields) -> Formed {
    match fields.take("format") {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text == "json" => schema(json!({ "type": "object" })).map(Some),
        Some(object @ Value::Object(_)) => schema(object).map(Some),
        Some(other) => Err(wrong_type("format", "\"json\" or a schema", &other)),
    }
}

fn schema(value: Value) -> Result<Form, Problem> {
    if value.is_object() { Ok(Form::Schema(value)) } else { Err(wrong_type("schema", "an object", &value)) }
}
