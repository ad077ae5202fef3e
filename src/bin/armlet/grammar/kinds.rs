//! Keywords with values of the wrong kind, in places where a schema is: llguidance quotes a hundred bytes of them, and ends the
//! program where that ends within a character.

use std::collections::HashSet;

use serde_json::Value;

use super::schema::target_of;

/// Refuses them. What is short is left to llguidance, for which some say nothing of values of another type (`required: true`).
///
/// # Errors
/// Which keyword it is.
pub(super) fn check(root: &Value) -> Result<(), String> {
    let mut left = vec![root];
    let mut known: HashSet<*const Value> = HashSet::new();
    while let Some(schema) = left.pop() {
        let Value::Object(members) = schema else { continue };
        if !known.insert(schema) {
            continue;
        }
        for (key, value) in members {
            if let Some(what) = wrong(key, value) {
                return Err(format!("{key} is not {what}"));
            }
            match (key.as_str(), value) {
                (
                    "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
                    Value::Object(named),
                ) => left.extend(named.values()),
                ("allOf" | "anyOf" | "oneOf" | "items" | "prefixItems", Value::Array(list)) => left.extend(list),
                ("items" | "additionalItems" | "additionalProperties", schema) => left.push(schema),
                // What it names may be any value.
                ("$ref", Value::String(target)) => left.extend(target_of(root, target)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// What a keyword's value should be, if it is long and not that.
fn wrong(key: &str, value: &Value) -> Option<&'static str> {
    let is_short = matches!(value, Value::Null | Value::Bool(_) | Value::Number(_));
    let (is_right, what) = match key {
        "$ref" | "pattern" | "format" => (value.is_string(), "a text"),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minimum"
        | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => (false, "a number"),
        "prefixItems" => (value.is_array(), "a list"),
        "properties" | "patternProperties" => (value.is_object(), "an object"),
        "required" => {
            let is_long = |item: &Value| item.is_array() || item.is_object();
            (value.as_array().is_some_and(|list| !list.iter().any(is_long)), "a list of names")
        }
        _ => return None,
    };
    (!is_right && !is_short).then_some(what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Form, Grammar, Vocabulary};
    use super::*;
    use crate::model::with_tokenizer;

    /// A keyword with a long value of the wrong kind, wherever a schema may be, and whatever names that place; under a name that
    /// is a keyword's, or among values, it is none.
    #[test]
    fn keywords_of_the_wrong_kind_are_refused_where_they_are_keywords() {
        // A hundred bytes behind the quotation mark end within a character.
        let long = "\u{e9}".repeat(60);
        with_tokenizer(|tokenizer| {
            let vocabulary = Vocabulary::new(tokenizer).unwrap();
            let starts = |schema: &Value| {
                let grammar = Grammar::new(vocabulary.clone(), &Form::Schema(schema.clone()));
                grammar.and_then(|grammar| grammar.start().map(drop).map_err(|e| e.to_string()))
            };
            for (key, value) in [
                ("minLength", json!(long)),
                ("maxLength", json!([long])),
                ("minItems", json!(long)),
                ("maxItems", json!(long)),
                ("minProperties", json!(long)),
                ("maxProperties", json!(long)),
                ("minimum", json!(long)),
                ("maximum", json!(long)),
                ("exclusiveMinimum", json!({ "a": long })),
                ("exclusiveMaximum", json!(long)),
                ("multipleOf", json!(long)),
                ("pattern", json!([long])),
                ("format", json!({ "a": long })),
                ("$ref", json!([long])),
                ("prefixItems", json!(long)),
                ("properties", json!(long)),
                ("patternProperties", json!(long)),
                ("required", json!(long)),
                ("required", json!(["a", [long]])),
            ] {
                let bad = json!({ key: value });
                for bad in [
                    bad.clone(),
                    json!({ "properties": { "a": bad } }),
                    json!({ "anyOf": [{ "type": "null" }, bad] }),
                    json!({ "items": bad }),
                    json!({ "$ref": "#/examples/0", "examples": [bad] }),
                ] {
                    assert!(starts(&bad).unwrap_err().starts_with(&format!("{key} is not a")), "{bad}");
                }
            }
            for good in [
                json!({ "properties": { "minLength": { "type": "string" }, "required": { "enum": [long] } } }),
                json!({ "properties": { "a": { "type": "string", "required": true } } }),
                json!({ "enum": [{ "minLength": long }], "title": { "minLength": long } }),
                json!({ "const": long, "default": [long] }),
                json!({ "properties": { long.clone(): { "pattern": long } }, "required": [long] }),
            ] {
                assert_eq!(starts(&good), Ok(()), "{good}");
            }
        });
    }
}
