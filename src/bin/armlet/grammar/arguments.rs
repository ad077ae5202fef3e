//! Arguments of families that write them one by one, each as a text or a constant in words of its own, or as JSON: LFM2's as in
//! Python, Qwen3-Coder's as elements.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::count::Count;
use super::patterns::kept;
use super::schema::references;
use super::writer::{Writer, as_map, quoted, regex};
use crate::tools::Arguments;

/// What the schema of all arguments cannot have where they are written one by one.
const OF_ALL: [&str; 9] =
    ["$ref", "allOf", "anyOf", "oneOf", "enum", "const", "patternProperties", "minProperties", "maxProperties"];
/// Keywords that hold schemas for the same value.
const OF_SAME: [&str; 4] = ["$ref", "allOf", "anyOf", "oneOf"];
/// What ends the value of an element.
const MARK: &str = "</parameter>";

/// Whether what no grammar can say has no effect.
pub(super) fn is_lenient(root: &Map<String, Value>) -> bool {
    root.get("x-guidance").and_then(|options| options.get("lenient")) == Some(&true.into())
}

/// Refuses names that are not read as they are written where they stand without quotes.
///
/// # Errors
/// It is such a name.
pub(super) fn check_word(name: &str) -> Result<(), String> {
    let is_word = !name.is_empty() && name.trim() == name && !name.contains(|c| "=:,()[]{}\"'".contains(c));
    if is_word { Ok(()) } else { Err(unwritable(name)) }
}

fn unwritable(text: &str) -> String {
    format!("{}, which this family cannot write", quoted(text))
}

impl Writer<'_, '_> {
    /// Arguments in the order of their schema; those that it does not require may be missing.
    pub(super) fn one_by_one(&mut self, root: &Map<String, Value>) -> Result<String, String> {
        let none = Map::new();
        let properties = root.get("properties").and_then(Value::as_object).unwrap_or(&none);
        check_all(root, properties)?;
        let required = root.get("required").and_then(Value::as_array);
        let is_python = self.dialect.kind == Arguments::Python;
        let mut members = Vec::new();
        for (name, schema) in properties {
            let (head, value) = if is_python {
                check_word(name)?;
                (format!("{name}="), self.python(schema, root)?)
            } else if name.contains(['>', '\n']) {
                return Err(unwritable(name));
            } else {
                (format!("<parameter={name}>\n"), self.xml(schema, root)?)
            };
            let is_required = required.is_some_and(|list| list.iter().any(|r| r == name));
            match value {
                Some(value) => members.push((self.rule("", &format!("{} {value}", quoted(&head))), is_required)),
                None if is_required => return Err(format!("no {} is of its schema", quoted(name))),
                None => {}
            }
        }
        let between = if is_python { "\", \"" } else { "" };
        Ok(self.chain(&members, None, Count::ANY, between)?.unwrap_or_default())
    }

    /// A value in Python's words, if there is one: constants of their own, all else as in JSON.
    fn python(&mut self, schema: &Value, root: &Map<String, Value>) -> Result<Option<String>, String> {
        let words: &[(Value, &str)] = match schema["type"].as_str() {
            Some("boolean") => &[(Value::Bool(true), "\"True\""), (Value::Bool(false), "\"False\"")],
            Some("null") => &[(Value::Null, "\"None\"")],
            _ => &[],
        };
        // JSON's constants are read as well.
        if words.is_empty() || of_same(schema).is_some() {
            return self.any_json(schema, root);
        }
        let fits = |value: &Value| {
            schema.get("const").is_none_or(|only| only == value)
                && schema["enum"].as_array().is_none_or(|list| list.contains(value))
        };
        let words: Vec<&str> = words.iter().filter(|(value, _)| fits(value)).map(|(_, word)| *word).collect();
        Ok((!words.is_empty()).then(|| format!("({})", words.join(" | "))))
    }

    /// The value of an element, if there is one: a text as it is, all else as JSON.
    fn xml(&mut self, schema: &Value, root: &Map<String, Value>) -> Result<Option<String>, String> {
        let end = format!("\n{MARK}\n");
        if !is_read_as_text(schema) {
            return Ok(self.any_json(schema, root)?.map(|value| format!("{value} {}", quoted(&end))));
        }
        if let Some(key) = of_same(schema).filter(|_| !is_lenient(root)) {
            return Err(format!("{key} beside what says that it is a text, which this family writes as it is"));
        }
        let fits =
            |kind: &Value| *kind == "string" || kind.as_array().is_some_and(|kinds| kinds.contains(&"string".into()));
        if !schema.get("type").is_none_or(fits) {
            return Ok(None);
        }
        let mut bodies = kept(schema)?.unwrap_or_default();
        if let Some(texts) = listed(schema) {
            if let Some(text) = texts.iter().find(|text| text.contains(MARK)) {
                return Err(unwritable(text));
            }
            if bodies.is_empty() {
                let texts: Vec<String> = texts.into_iter().map(quoted).collect();
                return Ok((!texts.is_empty()).then(|| format!("({}) {}", texts.join(" | "), quoted(&end))));
            }
            bodies.push(texts.into_iter().map(regex).collect::<Vec<_>>().join("|"));
        }
        Ok(Some(if bodies.is_empty() {
            format!("{} \"\\n\"", self.until(MARK, &[], None, &[]))
        } else {
            self.kept(&bodies, &end, MARK, &[])
        }))
    }

    /// A value as JSON.
    fn any_json(&mut self, schema: &Value, root: &Map<String, Value>) -> Result<Option<String>, String> {
        match schema {
            Value::Bool(false) => Ok(None),
            Value::Bool(true) => self.json(&Map::new(), Some(root)).map(Some),
            schema => self.json(&as_map(schema)?, Some(root)).map(Some),
        }
    }
}

/// Refuses what arguments one by one do not keep to, where it must be.
fn check_all(root: &Map<String, Value>, properties: &Map<String, Value>) -> Result<(), String> {
    if is_lenient(root) {
        return Ok(());
    }
    if let Some(key) = OF_ALL.iter().find(|key| root.contains_key(**key)) {
        return Err(format!("{key} of all arguments, which this family writes one by one"));
    }
    let required = root.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    match required.into_iter().find(|name| !properties.contains_key(*name)) {
        Some(name) => Err(format!("it requires {}, which is not among its properties", quoted(name))),
        None => Ok(()),
    }
}

/// What holds for the same value beside the rest of its schema.
fn of_same(schema: &Value) -> Option<&'static str> {
    OF_SAME.into_iter().find(|key| schema.get(key).is_some())
}

/// Whether the reader takes an element's text as it is.
fn is_read_as_text(schema: &Value) -> bool {
    let texts = schema["enum"].as_array().is_some_and(|list| list.iter().all(Value::is_string));
    schema["type"] == "string" || schema["const"].is_string() || texts
}

/// The texts that a schema lists, if it lists values.
fn listed(schema: &Value) -> Option<Vec<&str>> {
    let list = schema["enum"].as_array().map(|list| list.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    match (schema.get("const"), list) {
        (None, list) => list,
        (Some(only), list) => Some(
            only.as_str().into_iter().filter(|only| list.as_ref().is_none_or(|list| list.contains(only))).collect(),
        ),
    }
}

/// Definitions of `root` that an argument's schema names, and those that they name.
///
/// # Errors
/// It names something else, which is not where it says once the schema stands alone.
pub(super) fn named(root: &Map<String, Value>, schema: &Value) -> Result<Map<String, Value>, String> {
    if let Some(key) = ["$defs", "definitions"].into_iter().find(|key| schema.get(key).is_some()) {
        return Err(format!("{key} of an argument's own"));
    }
    let mut targets = HashSet::new();
    references(schema, &mut targets);
    let mut found: Map<String, Value> = Map::new();
    let mut left: Vec<&str> = targets.into_iter().collect();
    while let Some(target) = left.pop() {
        let mut path = target.strip_prefix("#/").unwrap_or_default().split('/');
        let (Some(key @ ("$defs" | "definitions")), Some(name)) = (path.next(), path.next()) else {
            return Err(format!("{} is no definition of the arguments' schema", quoted(target)));
        };
        let Some(definition) = root.get(key).and_then(|definitions| definitions.get(name)) else { continue };
        let of = found.entry(key).or_insert(json!({}));
        if of.get(name).is_none() {
            of[name] = definition.clone();
            let mut targets = HashSet::new();
            references(definition, &mut targets);
            left.extend(targets);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::calls::lark;
    use super::super::calls::tests::{allowed, call, frame, tool};
    use super::super::{Form, Grammar, Vocabulary, lenient};
    use super::*;
    use crate::model::with_tokenizer;
    use crate::tools::{Choice, DIALECTS, Dialect, Tools};
    use armlet::tokenizer::Tokenizer;

    fn of(kind: Arguments) -> &'static Dialect {
        DIALECTS.iter().find(|dialect| dialect.kind == kind).unwrap()
    }

    fn made(dialect: &'static Dialect, parameters: &Value, tokenizer: &Tokenizer<'_>) -> Result<String, String> {
        let list = vec![tool("f", parameters.clone())];
        lark(&Tools { list, choice: Choice::Required, parallel: false }, &frame(dialect), tokenizer)
            .map_err(|e| e.to_string())
    }

    /// Schemas of an argument, values of it, and others.
    fn cases() -> Vec<(Value, Vec<Value>, Vec<Value>)> {
        vec![
            (json!({ "type": "boolean", "enum": [true] }), vec![json!(true)], vec![json!(false)]),
            (json!({ "type": "boolean", "const": false }), vec![json!(false)], vec![json!(true)]),
            (json!({ "type": "string", "enum": ["a", "bb", 1], "minLength": 2 }), vec![json!("bb")], vec![json!("a")]),
            (json!({ "enum": ["ab", "b"], "pattern": "^a" }), vec![json!("ab")], vec![json!("b")]),
            (json!({ "enum": ["a", "b"], "const": "b" }), vec![json!("b")], vec![json!("a")]),
            (json!({ "type": "string", "enum": ["a", null] }), vec![json!("a")], vec![json!("b")]),
            (json!({ "type": ["string", "null"], "enum": ["a", "b"] }), vec![json!("b")], vec![json!("c")]),
        ]
    }

    /// An argument keeps to all that its schema says beside its type.
    #[test]
    fn texts_and_constants_are_of_the_whole_of_their_schema() {
        with_tokenizer(|tokenizer| {
            let vocabulary = Vocabulary::new(tokenizer).unwrap();
            for (schema, fits, fits_not) in cases() {
                let parameters = json!({ "type": "object", "required": ["a"], "properties": { "a": schema } });
                for dialect in [of(Arguments::Xml), of(Arguments::Python)] {
                    let lark = made(dialect, &parameters, tokenizer).unwrap();
                    let grammar = Grammar::new(vocabulary.clone(), &Form::Lark(lark)).unwrap();
                    for (value, may) in fits.iter().map(|v| (v, true)).chain(fits_not.iter().map(|v| (v, false))) {
                        // Python's words are those that the family writes, not JSON's.
                        let text = dialect.write(&[call("f", json!({ "a": value }))]);
                        assert_eq!(allowed(&grammar, tokenizer, &text).1, may, "{}, {schema}: {text}", dialect.family);
                    }
                }
            }
            let of_xml = |schema: Value| {
                let parameters = json!({ "type": "object", "required": ["a"], "properties": { "a": schema } });
                made(of(Arguments::Xml), &parameters, tokenizer)
            };
            assert!(of_xml(json!({ "type": "integer", "enum": ["x"] })).is_err());
            // What ends an element ends the text in it, wherever it stands.
            let lark = of_xml(json!({ "type": "string", "minLength": 2 })).unwrap();
            let grammar = Grammar::new(vocabulary.clone(), &Form::Lark(lark)).unwrap();
            for (text, may) in [("x\n</parameter", true), ("x</parameter>y", false)] {
                let text = of(Arguments::Xml).write(&[call("f", json!({ "a": text }))]);
                assert_eq!(allowed(&grammar, tokenizer, &text).1, may, "{text}");
            }
        });
    }

    /// What arguments one by one cannot keep to is refused, and has no effect where it may have none.
    #[test]
    fn what_arguments_one_by_one_cannot_have_is_not_dropped_in_silence() {
        let properties = json!({ "a": { "type": "integer" }, "b": { "type": "string" } });
        let also = |key: &str, value: Value| json!({ "type": "object", "properties": properties, key: value });
        let argument = |schema: Value| json!({ "type": "object", "properties": { "a": schema } });
        with_tokenizer(|tokenizer| {
            for dialect in [of(Arguments::Xml), of(Arguments::Python)] {
                assert!(made(dialect, &also("additionalProperties", json!(false)), tokenizer).is_ok());
                for bad in [
                    also("allOf", json!([{ "required": ["a"] }])),
                    also("anyOf", json!([{ "required": ["a"] }, { "required": ["b"] }])),
                    also("minProperties", json!(1)),
                    also("patternProperties", json!({ "^x": {} })),
                    also("required", json!(["z"])),
                    also("not", json!({ "required": ["a"] })),
                ] {
                    assert!(made(dialect, &bad, tokenizer).is_err(), "{}: {bad}", dialect.family);
                    assert!(made(dialect, &lenient(&bad).unwrap(), tokenizer).is_ok(), "{}: {bad}", dialect.family);
                }
                for bad in [
                    argument(json!({ "$ref": "#" })),
                    argument(json!({ "items": { "$ref": "#/properties/a" } })),
                    argument(json!({ "$defs": { "x": {} }, "anyOf": [{ "type": "null" }] })),
                ] {
                    assert!(made(dialect, &bad, tokenizer).is_err(), "{}: {bad}", dialect.family);
                    assert!(made(dialect, &lenient(&bad).unwrap(), tokenizer).is_err(), "{}: {bad}", dialect.family);
                }
            }
            let beside = argument(json!({ "type": "string", "anyOf": [{ "minLength": 2 }, { "maxLength": 0 }] }));
            assert!(made(of(Arguments::Xml), &beside, tokenizer).is_err());
            assert!(made(of(Arguments::Xml), &lenient(&beside).unwrap(), tokenizer).is_ok());
            assert!(made(of(Arguments::Python), &beside, tokenizer).is_ok());
        });
    }

    /// Names and texts that are not read as they would be written are refused.
    #[test]
    fn names_and_texts_that_would_be_read_as_others_are_refused() {
        with_tokenizer(|tokenizer| {
            let named = |name: &str| json!({ "type": "object", "properties": { name: { "type": "integer" } } });
            let text = |text: &str| json!({ "type": "object", "properties": { "a": { "enum": [text] } } });
            let within = |name: &str| json!({ "type": "object", "properties": { "a": { "const": { name: 1 } } } });
            let why = |kind, schema: &Value| made(of(kind), schema, tokenizer).err();
            for name in ["a:b", "a=b", "a,b", "f(x)", "a[0]", "{a}", "a\"b", "it's", " a", "a ", ""] {
                for (kind, bad) in [
                    (Arguments::Gemma, named(name)),
                    (Arguments::Gemma, within(name)),
                    (Arguments::Python, named(name)),
                ] {
                    assert!(why(kind, &bad).unwrap().ends_with("which this family cannot write"), "{kind:?}: {bad}");
                }
                assert_eq!(why(Arguments::Xml, &named(name)), None);
                assert_eq!(why(Arguments::Python, &within(name)), None);
            }
            for name in ["a-b", "a.b", "@a", "a b", "$a/b"] {
                assert!([Arguments::Gemma, Arguments::Python].iter().all(|kind| why(*kind, &named(name)).is_none()));
            }
            for (kind, bad) in [
                (Arguments::Xml, named("a>b")),
                (Arguments::Xml, named("a\nb")),
                (Arguments::Xml, text("x</parameter>")),
                (Arguments::Gemma, text("x<|\"|>")),
            ] {
                assert!(why(kind, &bad).unwrap().ends_with("which this family cannot write"), "{kind:?}: {bad}");
            }
        });
    }
}
