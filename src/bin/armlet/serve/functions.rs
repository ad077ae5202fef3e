//! The tools of a request, as the APIs have them.

use serde_json::{Map, Value, json};

use super::fields::{Fields, required, wrong_type};
use super::problem::Problem;
use crate::grammar::lenient;
use crate::tools::{Choice, Tool, Tools};

/// The most tools.
const TOOLS: usize = 128;
/// The longest name.
const NAME: usize = 64;

/// Takes `tools`, `tool_choice` and `parallel_tool_calls`. `flat`: a tool is its function, as in `/v1/responses`.
pub(super) fn openai(fields: &mut Fields, flat: bool) -> Result<Option<Tools>, Problem> {
    let list = read(fields, flat)?;
    let parallel = fields.flag("parallel_tool_calls")?;
    let choice = match fields.take("tool_choice") {
        None => Some(Choice::Auto),
        Some(Value::String(text)) => match text.as_str() {
            "none" => None,
            "auto" => Some(Choice::Auto),
            "required" => Some(Choice::Required),
            other => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values are: 'none', 'auto', and 'required', or a function."
                );
                return Err(Problem::invalid(message).of("tool_choice").code("invalid_value"));
            }
        },
        Some(value @ Value::Object(_)) => Some(Choice::Named(named(value, flat)?)),
        Some(other) => return Err(wrong_type("tool_choice", "a string or an object", &other)),
    };
    match &choice {
        Some(Choice::Required | Choice::Named(_)) if list.is_empty() => {
            let message = "'tool_choice' is only allowed when 'tools' are specified.";
            Err(Problem::invalid(message).of("tool_choice"))
        }
        Some(Choice::Named(name)) if !list.iter().any(|tool| tool.name == *name) => {
            let message = format!("Tool choice 'function' not found in 'tools': there is no '{name}'.");
            Err(Problem::invalid(message).of("tool_choice").code("invalid_value"))
        }
        _ => Ok(choice.filter(|_| !list.is_empty()).map(|choice| {
            // A small model that has to call something finds no end: several only where it may end, or they are asked for.
            let parallel = match choice {
                Choice::Auto => parallel.unwrap_or(true),
                Choice::Required => parallel.unwrap_or(false),
                Choice::Named(_) => false,
            };
            Tools { list, choice, parallel }
        })),
    }
}

/// ollama's `tools`, which a model calls as it likes.
pub(super) fn ollama(fields: &mut Fields) -> Result<Option<Tools>, Problem> {
    let list = read(fields, false)?;
    Ok((!list.is_empty()).then_some(Tools { list, choice: Choice::Auto, parallel: true }))
}

/// The name in a `tool_choice`.
fn named(value: Value, flat: bool) -> Result<String, Problem> {
    let mut choice = Fields::of(value, "tool_choice".into())?;
    kind(&mut choice)?;
    let mut function = if flat { choice } else { inner(&mut choice)? };
    let name = required(&function.name("name"), function.text("name")?)?;
    function.finish()?;
    Ok(name)
}

/// What a tool is: a function.
fn kind(fields: &mut Fields) -> Result<(), Problem> {
    let name = fields.name("type");
    match required(&name, fields.text("type")?)?.as_str() {
        "function" => Ok(()),
        other => Err(Problem::unsupported(&name, &format!(" as '{other}': only functions are"))),
    }
}

fn inner(fields: &mut Fields) -> Result<Fields, Problem> {
    let name = fields.name("function");
    required(&name, fields.object("function")?)
}

fn read(fields: &mut Fields, flat: bool) -> Result<Vec<Tool>, Problem> {
    let list = fields.list("tools")?.unwrap_or_default();
    if list.len() > TOOLS {
        let message = format!("Invalid 'tools': array too long. Expected at most {TOOLS}, but got {}.", list.len());
        return Err(Problem::invalid(message).of("tools").code("array_above_max_length"));
    }
    let mut tools: Vec<Tool> = Vec::new();
    for (i, value) in list.into_iter().enumerate() {
        let tool = tool(Fields::of(value, format!("tools[{i}]"))?, flat)?;
        if tools.iter().any(|other| other.name == tool.name) {
            let message = format!("Invalid 'tools': there are two functions of the name '{}'.", tool.name);
            return Err(Problem::invalid(message).of(&format!("tools[{i}]")).code("invalid_value"));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn tool(mut fields: Fields, flat: bool) -> Result<Tool, Problem> {
    kind(&mut fields)?;
    let mut function = if flat {
        fields
    } else {
        let function = inner(&mut fields)?;
        fields.finish()?;
        function
    };
    let field = function.name("name");
    let name = required(&field, function.text("name")?)?;
    check_name(&field, &name)?;
    let description = function.text("description")?;
    let is_strict = function.flag("strict")?.unwrap_or(false);
    let field = function.name("parameters");
    let parameters = function.map("parameters")?.unwrap_or_default();
    function.finish()?;
    let mut given = json!({ "name": name, "description": description.unwrap_or_default() });
    let parameters = object(&field, parameters)?;
    given["parameters"] = parameters.clone().into();
    let given = json!({ "type": "function", "function": given });
    let parameters = closed(parameters);
    let parameters = if is_strict { parameters } else { as_far_as_can_be(parameters) };
    Ok(Tool { name, parameters, given })
}

pub(super) fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if (1..=NAME).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    let message =
        format!("Invalid '{field}': string does not match pattern. Expected one of ^[a-zA-Z0-9_-]{{1,{NAME}}}$.");
    Err(Problem::invalid(message).of(field).code("invalid_value"))
}

/// A schema of arguments, which are an object.
fn object(field: &str, mut parameters: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    let kind = parameters.entry("type").or_insert("object".into());
    if kind != "object" {
        let message = format!("Invalid schema: '{field}' must have the type 'object', and not {kind}.");
        return Err(Problem::invalid(message).of(field).code("invalid_function_parameters"));
    }
    parameters.entry("properties").or_insert(json!({}));
    Ok(parameters)
}

/// The same without arguments that it does not name, unless it says that there may be others.
fn closed(mut parameters: Map<String, Value>) -> Map<String, Value> {
    let is_whole =
        ["$ref", "anyOf", "oneOf", "allOf", "patternProperties"].iter().all(|key| !parameters.contains_key(*key));
    if is_whole {
        parameters.entry("additionalProperties").or_insert(false.into());
    }
    parameters
}

/// The same as far as a grammar can say it.
fn as_far_as_can_be(parameters: Map<String, Value>) -> Map<String, Value> {
    match lenient(&Value::Object(parameters.clone())) {
        Ok(Value::Object(lenient)) => lenient,
        _ => parameters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Option<Tools>, Problem> {
        let mut fields = Fields::of(value, String::new())?;
        let tools = openai(&mut fields, false)?;
        fields.finish().map(|()| tools)
    }

    fn weather() -> Value {
        json!({ "type": "function", "function": { "name": "weather", "parameters": { "properties": { "at": {} } } } })
    }

    #[test]
    fn tools_and_what_is_to_be_called() {
        let tools = |choice: Value| read(json!({ "tools": [weather()], "tool_choice": choice })).unwrap();
        let named = json!({ "type": "function", "function": { "name": "weather" } });
        assert_eq!(tools(json!("none")), None);
        assert_eq!(tools(Value::Null).unwrap().choice, Choice::Auto);
        assert_eq!(tools(json!("required")).unwrap().choice, Choice::Required);
        let tools = tools(named).unwrap();
        assert_eq!((tools.choice, tools.parallel), (Choice::Named("weather".into()), false));
        let closed = json!({ "properties": { "at": {} }, "type": "object", "additionalProperties": false });
        assert_eq!(Value::from(tools.list[0].parameters.clone()), lenient(&closed).unwrap());
        // The model is told what the client said.
        assert_eq!(tools.list[0].given["function"]["parameters"].get("additionalProperties"), None);
        assert_eq!(read(json!({ "tools": [], "parallel_tool_calls": false, "tool_choice": "auto" })).unwrap(), None);
    }

    #[test]
    fn what_is_no_tool_is_refused_with_its_place() {
        let with = |name: &str, parameters: Value| json!({ "tools": [{ "type": "function", "function": { "name": name, "parameters": parameters } }] });
        for (bad, param) in [
            (json!({ "tools": {} }), "tools"),
            (json!({ "tools": [1] }), "tools[0]"),
            (json!({ "tools": [{ "type": "function" }] }), "tools[0].function"),
            (json!({ "tools": [{ "type": "web_search" }] }), "tools[0].type"),
            (json!({ "tools": [{ "type": "function", "function": {} }] }), "tools[0].function.name"),
            (with("a b", json!({})), "tools[0].function.name"),
            (with("", json!({})), "tools[0].function.name"),
            (with(&"x".repeat(65), json!({})), "tools[0].function.name"),
            (with("f", json!([])), "tools[0].function.parameters"),
            (with("f", json!({ "type": "string" })), "tools[0].function.parameters"),
            (json!({ "tools": [weather(), weather()] }), "tools[1]"),
            (json!({ "tools": [weather()], "tool_choice": "some" }), "tool_choice"),
            (json!({ "tools": [weather()], "tool_choice": 1 }), "tool_choice"),
            (
                json!({ "tools": [weather()], "tool_choice": { "type": "function", "function": { "name": "x" } } }),
                "tool_choice",
            ),
            (json!({ "tool_choice": "required" }), "tool_choice"),
            (json!({ "parallel_tool_calls": 1 }), "parallel_tool_calls"),
        ] {
            assert_eq!(read(bad.clone()).unwrap_err().openai()["error"]["param"], param, "{bad}");
        }
        let many: Vec<Value> = (0..129).map(|_| weather()).collect();
        assert!(read(json!({ "tools": many })).is_err());
    }
}
