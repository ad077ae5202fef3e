//! Schemas whose clients do not ask for all of them (`strict`), which tools and libraries write with more in them than a grammar
//! can say.

use serde_json::Value;

use super::compact;

/// What begins a look-around in a regular expression: no automaton has it.
const BEYOND: [&str; 4] = ["(?=", "(?!", "(?<=", "(?<!"];

/// The same schema for which what no grammar can say is left out: keywords and formats that are not known, patterns with
/// look-around, that `oneOf` means no more than one.
///
/// # Errors
/// It is no schema.
pub(crate) fn lenient(schema: &Value) -> Result<Value, String> {
    let mut schema = compact(schema)?;
    if let Some(options) = schema.get_mut("x-guidance").and_then(Value::as_object_mut) {
        for option in ["lenient", "coerce_one_of"] {
            options.entry(option).or_insert(true.into());
        }
    }
    drop_patterns(&mut schema);
    Ok(schema)
}

/// Drops patterns that no automaton has, of a schema and those within.
fn drop_patterns(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("pattern").and_then(Value::as_str).is_some_and(is_beyond) {
                object.remove("pattern");
            }
            let mut dropped = false;
            if let Some(Value::Object(patterns)) = object.get_mut("patternProperties") {
                let before = patterns.len();
                patterns.retain(|pattern, _| !is_beyond(pattern));
                dropped = patterns.len() < before;
            }
            if dropped {
                // It would forbid the names that are not known now.
                object.remove("additionalProperties");
            }
            for (key, value) in object.iter_mut() {
                match (key.as_str(), value) {
                    // Values, and examples of them.
                    ("enum" | "const" | "default" | "examples", _) => {}
                    (
                        "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
                        Value::Object(named),
                    ) => named.values_mut().for_each(drop_patterns),
                    (_, value) => drop_patterns(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(drop_patterns),
        _ => (),
    }
}

/// Whether it looks around itself, at the edge of a word among others, or refers back.
fn is_beyond(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some(at) = rest.find(['\\', '(']) {
        rest = &rest[at..];
        let escaped = rest.strip_prefix('\\').and_then(|rest| rest.chars().next());
        match escaped {
            Some('1'..='9' | 'b' | 'B') => return true,
            None if BEYOND.iter().any(|group| rest.starts_with(group)) => return true,
            _ => rest = &rest[1 + escaped.map_or(0, char::len_utf8)..],
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Form, Grammar, Vocabulary};
    use super::*;
    use crate::model::with_tokenizer;

    #[test]
    fn what_no_grammar_can_say_is_left_out_and_nothing_else() {
        let of = |property: Value| json!({ "type": "object", "required": ["x"], "properties": { "x": property } });
        with_tokenizer(|tokenizer| {
            let vocabulary = Vocabulary::new(tokenizer).unwrap();
            let starts = |schema: &Value| {
                let grammar = Grammar::new(vocabulary.clone(), &Form::Schema(schema.clone()));
                grammar.and_then(|grammar| grammar.start().map(drop).map_err(|e| e.to_string()))
            };
            for property in [
                json!({ "type": "string", "format": "RFC 5646" }),
                json!({ "type": "string", "pattern": "^(?!x).*$" }),
                json!({ "type": "string", "pattern": "(a|b)\\1" }),
                json!({ "type": "object", "properties": { "default": { "type": "string", "pattern": "a(?=b)" } } }),
                json!({ "type": "array", "items": { "type": "string", "pattern": "(?<=a)b" }, "uniqueItems": true }),
                json!({ "type": "object", "propertyNames": { "pattern": "^a" } }),
                json!({ "not": { "type": "string" } }),
                json!({ "oneOf": [{ "type": "string" }, { "type": "string", "maxLength": 3 }] }),
            ] {
                let schema = of(property);
                assert!(starts(&schema).is_err(), "{schema}");
                assert_eq!(starts(&lenient(&schema).unwrap()), Ok(()), "{schema}");
            }
            // What is wrong stays wrong.
            for property in [json!({ "type": "nothing" }), json!({ "type": "string", "minLength": 3, "maxLength": 2 })]
            {
                assert!(starts(&lenient(&of(property.clone())).unwrap()).is_err(), "{property}");
            }
        });
        assert!(lenient(&json!([])).is_err());
        assert!(["\\(?=x", "a\\\\(?:b)", "[(]?"].iter().all(|pattern| !is_beyond(pattern)));
        let open = lenient(&json!({ "patternProperties": { "^(?!x)": {} }, "additionalProperties": false })).unwrap();
        assert_eq!((&open["patternProperties"], open.get("additionalProperties")), (&json!({}), None));
        // Of values, nothing is left out; whatever a client says of our own options.
        let kept = json!({ "x-guidance": 1, "enum": [{ "pattern": "(?=a)" }] });
        assert_eq!(lenient(&kept), Ok(kept));
    }
}
