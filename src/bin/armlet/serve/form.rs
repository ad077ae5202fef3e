//! What an answer may be: OpenAI's `response_format`, and how llama-server and ollama say it.

use serde_json::{Value, json};

use super::fields::{Fields, required, wrong_type};
use super::problem::Problem;
use crate::grammar::{Form, lenient};

type Formed = Result<Option<Form>, Problem>;

/// `response_format` of chats; `flat`: `text.format` of `/v1/responses`, whose schema stands beside the type.
pub(super) fn response_format(mut format: Fields, flat: bool) -> Formed {
    let name = format.name("type");
    let kind = required(&name, format.text("type")?)?;
    let form = match kind.as_str() {
        "text" => None,
        // llama-server's has a schema, too.
        "json_object" => {
            let given = format.take("schema").unwrap_or(json!({ "type": "object" }));
            Some(schema(&format.name("schema"), given, false))
        }
        "json_schema" => {
            let mut inner = if flat {
                std::mem::replace(&mut format, Fields::of(json!({}), String::new())?)
            } else {
                required(&format.name("json_schema"), format.object("json_schema")?)?
            };
            inner.neutral(&["name", "description"]);
            let is_strict = inner.flag("strict")?.unwrap_or(false);
            let field = inner.name("schema");
            let given = required(&field, inner.take("schema"))?;
            inner.finish()?;
            Some(schema(&field, given, is_strict))
        }
        other => {
            let message =
                format!("Invalid value: '{other}'. Supported values are: 'text', 'json_object', and 'json_schema'.");
            return Err(Problem::invalid(message).of(&name).code("invalid_value"));
        }
    };
    format.finish()?;
    form.transpose()
}

/// llama-server's fields beside it.
pub(super) fn llama_server(fields: &mut Fields) -> Formed {
    let given = fields.take("json_schema").map(|given| schema("json_schema", given, false)).transpose()?;
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
        Some(Value::String(text)) if text == "json" => schema("format", json!({ "type": "object" }), false).map(Some),
        Some(object @ Value::Object(_)) => schema("format", object, false).map(Some),
        Some(other) => Err(wrong_type("format", "\"json\" or a schema", &other)),
    }
}

/// A schema of which all is kept to, or what a grammar can say.
fn schema(field: &str, value: Value, is_strict: bool) -> Result<Form, Problem> {
    match lenient(&value) {
        Ok(lenient) if value.is_object() => Ok(Form::Schema(if is_strict { value } else { lenient })),
        _ => Err(wrong_type(field, "an object", &value)),
    }
}
