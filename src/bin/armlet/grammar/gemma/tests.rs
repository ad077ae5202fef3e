//! Gemma's words against JSON's, schema by schema.

use super::super::calls::lark;
use super::super::calls::tests::{allowed, call, frame, tool};
use super::super::{Form, Grammar, Vocabulary, lenient};
use super::*;
use crate::model::with_tokenizer;
use crate::tools::{Choice, DIALECTS, Dialect, GENERIC, Tools};
use armlet::tokenizer::Tokenizer;

/// The grammar of a call with one argument `a`, which must be there.
fn grammar(
    dialect: &'static Dialect,
    schema: &Value,
    tokenizer: &Tokenizer<'_>,
    vocabulary: &Vocabulary,
) -> Result<Grammar, Trouble> {
    let definitions = json!({
        "small": { "type": "integer", "minimum": 0, "maximum": 9 },
        "tree": { "type": "object", "required": ["v"], "additionalProperties": false, "properties": {
            "v": { "$ref": "#/$defs/small" }, "next": { "anyOf": [{ "$ref": "#/$defs/tree" }, { "type": "null" }] },
            "all": { "type": "array", "items": { "$ref": "#/$defs/tree" }, "maxItems": 2 },
        } },
        "circle": { "anyOf": [{ "$ref": "#/$defs/circle" }, { "type": "boolean" }] },
    });
    let parameters = json!({ "type": "object", "required": ["a"], "additionalProperties": false,
                             "properties": { "a": schema }, "$defs": definitions });
    let tools = Tools { list: vec![tool("f", parameters)], choice: Choice::Required, parallel: false };
    let form = Form::Lark(lark(&tools, &frame(dialect), tokenizer)?);
    let grammar = Grammar::new(vocabulary.clone(), &form).map_err(Trouble::Form)?;
    grammar.start().map(|_| grammar)
}

/// A schema, values of it, and others.
type Case = (Value, Vec<Value>, Vec<Value>);

fn alternatives_and_references() -> Vec<Case> {
    let deep = |n: usize, last: Value| (0..n).fold(last, |inner, _| json!({ "v": 1, "next": inner }));
    vec![
        (json!({ "$ref": "#/$defs/small" }), vec![json!(7)], vec![json!(17), json!("7"), json!(null)]),
        (
            json!({ "$ref": "#/$defs/tree" }),
            vec![deep(9, json!({ "v": 2 })), json!({ "v": 1, "all": [{ "v": 2 }, { "v": 3 }] })],
            vec![deep(9, json!({ "v": 22 })), deep(1, json!(3)), json!({ "all": [] }), json!({ "v": 1, "all": [1] })],
        ),
        (json!({ "$ref": "#/$defs/circle" }), vec![json!(true)], vec![json!(1)]),
        (
            json!({ "anyOf": [{ "type": "string", "maxLength": 2 }, { "$ref": "#/$defs/small" }] }),
            vec![json!("ab"), json!(5)],
            vec![json!("abc"), json!(true), json!(55)],
        ),
        (
            json!({ "oneOf": [{ "type": "integer" }, { "type": "null" }], "description": "x" }),
            vec![json!(5), json!(null)],
            vec![json!("a")],
        ),
    ]
}

fn lists() -> Vec<Case> {
    vec![
        (
            json!({ "type": "array", "items": { "type": "integer" }, "minItems": 2, "maxItems": 3 }),
            vec![json!([1, 2]), json!([1, 2, 3])],
            vec![json!([]), json!([1]), json!([1, 2, 3, 4]), json!([1, "x"])],
        ),
        (json!({ "type": "array", "maxItems": 0 }), vec![json!([])], vec![json!([1])]),
        (json!({ "type": "array", "minItems": 1 }), vec![json!(["a", 1]), json!([[]])], vec![json!([])]),
        (
            json!({ "type": "array", "prefixItems": [{ "type": "string" }, { "type": "boolean" }], "items": { "type": "integer" },
                        "minItems": 1, "maxItems": 3 }),
            vec![json!(["a"]), json!(["a", true]), json!(["a", true, 3])],
            vec![json!([]), json!([1]), json!(["a", 1]), json!(["a", true, 3, 4])],
        ),
        (
            json!({ "type": "array", "items": [{ "const": 1 }, { "const": 2 }], "additionalItems": false }),
            vec![json!([]), json!([1]), json!([1, 2])],
            vec![json!([2]), json!([1, 2, 3])],
        ),
    ]
}

fn numbers_and_texts() -> Vec<Case> {
    vec![
        (
            json!({ "type": "number", "minimum": 2, "exclusiveMaximum": 5 }),
            vec![json!(2), json!(4.5)],
            vec![json!(5), json!(1.5), json!(-3)],
        ),
        (
            json!({ "type": "integer", "allOf": [{ "minimum": 2 }, { "maximum": 50, "multipleOf": 3 }] }),
            vec![json!(3), json!(48)],
            vec![json!(1), json!(51), json!(4)],
        ),
        (
            json!({ "enum": [1, "x", null, { "k": [true] }] }),
            vec![json!(1), json!("x"), json!(null), json!({ "k": [true] })],
            vec![json!(2), json!("y"), json!({ "k": [false] }), json!({ "k": [] })],
        ),
        (
            json!({ "enum": ["a", "bb", "c", 3], "type": "string", "anyOf": [{ "enum": ["bb", "c"] }, { "const": 3 }], "minLength": 2 }),
            vec![json!("bb")],
            vec![json!("a"), json!("c"), json!(3)],
        ),
        (
            json!({ "type": "integer", "minimum": 5, "maximum": 5, "exclusiveMinimum": 4 }),
            vec![json!(5)],
            vec![json!(4), json!(6)],
        ),
        (
            json!({ "anyOf": [{ "minimum": 5, "maximum": 5, "exclusiveMaximum": 5, "type": "number" }, { "type": "null" }] }),
            vec![json!(null)],
            vec![json!(5)],
        ),
        (json!({ "type": "integer", "enum": [1, 1.5] }), vec![json!(1)], vec![json!(1.5)]),
        (
            json!({ "enum": [1, 2.5, 7, 12], "type": "number", "minimum": 2, "exclusiveMaximum": 12 }),
            vec![json!(2.5), json!(7)],
            vec![json!(1), json!(12)],
        ),
        (json!({ "enum": [3, 4, 6], "multipleOf": 3 }), vec![json!(3), json!(6)], vec![json!(4)]),
        (json!({ "type": ["integer", "null"] }), vec![json!(1), json!(null)], vec![json!(1.5), json!("1")]),
        (
            json!({ "type": "string", "pattern": "^a", "allOf": [{ "maxLength": 2 }] }),
            vec![json!("ab")],
            vec![json!("abc"), json!("b")],
        ),
    ]
}

fn objects() -> Vec<Case> {
    let named = json!({ "type": "object", "properties": { "x": { "type": "integer" }, "y": { "type": "string" } },
                        "additionalProperties": false });
    let also = |more: Value| {
        let mut all = named.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    vec![
        (
            json!({ "type": "object", "additionalProperties": { "type": "integer" }, "minProperties": 1, "maxProperties": 2 }),
            vec![json!({ "x": 1 }), json!({ "x": 1, "y": 2 })],
            vec![json!({}), json!({ "x": "y" }), json!({ "x": 1, "y": 2, "z": 3 })],
        ),
        (
            also(json!({ "additionalProperties": { "type": "boolean" } })),
            vec![json!({ "x": 1, "z": true }), json!({ "z": true })],
            vec![json!({ "x": true }), json!({ "z": 1 })],
        ),
        (
            json!({ "type": "object", "patternProperties": { "^n_": { "type": "integer" } }, "additionalProperties": false }),
            vec![json!({ "n_a": 1 }), json!({})],
            vec![json!({ "n_a": "x" }), json!({ "m": 1 })],
        ),
        (also(json!({ "minProperties": 1 })), vec![json!({ "x": 1 }), json!({ "x": 1, "y": "" })], vec![json!({})]),
        (also(json!({ "maxProperties": 1 })), vec![json!({}), json!({ "y": "" })], vec![json!({ "x": 1, "y": "" })]),
        (
            json!({ "allOf": [
                    { "type": "object", "required": ["x"], "properties": { "x": { "minimum": 3 } } },
                    { "type": "object", "properties": { "x": { "type": "integer" }, "y": { "type": "null" } }, "additionalProperties": false },
                ] }),
            vec![json!({ "x": 3 }), json!({ "x": 4, "y": null })],
            vec![json!({ "x": 2 }), json!({ "y": null }), json!({ "x": 3, "z": 1 })],
        ),
        (
            json!({ "type": "object", "properties": { "q": false, "x": { "type": "integer" } }, "additionalProperties": false }),
            vec![json!({ "x": 1 }), json!({})],
            vec![json!({ "q": 1 })],
        ),
        (json!(true), vec![json!({ "z": [1, "a", null] }), json!("x")], vec![]),
    ]
}

/// Arguments in Gemma's words are just those that JSON may be, of all that a schema says.
#[test]
fn arguments_are_of_the_whole_of_their_schema() {
    let gemma = &DIALECTS[0];
    assert_eq!(gemma.family, "Gemma 4");
    with_tokenizer(|tokenizer| {
        let vocabulary = Vocabulary::new(tokenizer).unwrap();
        let all = [alternatives_and_references(), lists(), numbers_and_texts(), objects()];
        for (schema, fits, fits_not) in all.into_iter().flatten() {
            for dialect in [&GENERIC, gemma] {
                let grammar =
                    grammar(dialect, &schema, tokenizer, &vocabulary).unwrap_or_else(|why| panic!("{schema}: {why}"));
                for (value, may) in fits.iter().map(|v| (v, true)).chain(fits_not.iter().map(|v| (v, false))) {
                    let text = dialect.write(&[call("f", json!({ "a": value }))]);
                    let found = allowed(&grammar, tokenizer, &text);
                    assert_eq!(found.1, may, "{}, {schema}: {text}: {found:?}", dialect.family);
                }
            }
        }
    });
}

/// What no grammar can say is refused, or has no effect, as where arguments are JSON.
#[test]
fn what_no_grammar_can_say_is_as_for_others() {
    with_tokenizer(|tokenizer| {
        let vocabulary = Vocabulary::new(tokenizer).unwrap();
        let starts = |dialect, schema: &Value| {
            grammar(dialect, schema, tokenizer, &vocabulary).map(drop).map_err(|e| e.to_string())
        };
        for schema in [
            json!({ "not": { "type": "string" } }),
            json!({ "type": "array", "uniqueItems": true }),
            json!({ "oneOf": [{ "type": "string" }, { "type": "string", "maxLength": 3 }] }),
            json!({ "type": "string", "format": "of nothing" }),
            json!({ "type": "nothing" }),
            json!({ "type": "string", "minLength": 3, "maxLength": 2 }),
            json!({ "$ref": "#/$defs/none" }),
        ] {
            for dialect in [&GENERIC, &DIALECTS[0]] {
                assert!(starts(dialect, &schema).is_err(), "{}: {schema}", dialect.family);
            }
        }
        for schema in [
            json!({ "not": { "type": "string" } }),
            json!({ "type": "array", "uniqueItems": true }),
            json!({ "oneOf": [{ "type": "string" }, { "type": "string", "maxLength": 3 }] }),
        ] {
            let mut parameters = json!({ "type": "object", "properties": { "a": schema } });
            parameters = lenient(&parameters).unwrap();
            let tools = Tools { list: vec![tool("f", parameters)], choice: Choice::Required, parallel: false };
            let lark = lark(&tools, &frame(&DIALECTS[0]), tokenizer);
            let grammar = Grammar::new(vocabulary.clone(), &Form::Lark(lark.unwrap())).unwrap();
            assert!(grammar.start().is_ok(), "{schema}");
        }
    });
}

/// Of names and patterns side by side it is not known which are of which: that is refused where a schema is kept to.
#[test]
fn patterns_beside_names_are_refused() {
    with_tokenizer(|tokenizer| {
        let schema = json!({ "type": "object", "properties": { "a": { "type": "object",
            "properties": { "n_a": {} }, "patternProperties": { "^n_": { "type": "integer" } } } } });
        let made = |parameters: Value| {
            let tools = Tools { list: vec![tool("f", parameters)], choice: Choice::Required, parallel: false };
            lark(&tools, &frame(&DIALECTS[0]), tokenizer).map(drop).map_err(|e| e.to_string())
        };
        assert!(made(schema.clone()).unwrap_err().contains("patternProperties beside names"));
        assert_eq!(made(lenient(&schema).unwrap()), Ok(()));
    });
}

/// What is copied for each level above it is bounded, as is what is listed.
#[test]
fn what_is_made_of_a_schema_is_bounded() {
    with_tokenizer(|tokenizer| {
        let vocabulary = Vocabulary::new(tokenizer).unwrap();
        let starts =
            |schema: &Value| grammar(&DIALECTS[0], schema, tokenizer, &vocabulary).map(drop).map_err(|e| e.to_string());
        let numbers: Vec<usize> = (0..500).collect();
        let deep = |n: usize| {
            (0..n)
                .fold(json!({ "enum": numbers }), |inner, _| json!({ "type": "object", "properties": { "x": inner } }))
        };
        assert_eq!(starts(&deep(3)), Ok(()));
        assert!(starts(&deep(150)).unwrap_err().ends_with("values, multiplied out"));
    });
}

/// Definitions that are nothing but each other have more paths than could ever be followed, and an annotation is no reason to.
#[test]
fn definitions_that_name_each_other_end() {
    with_tokenizer(|tokenizer| {
        let named = |i: usize| json!({ "$ref": format!("#/$defs/n{i}") });
        let others = |i: usize| {
            let next = if i < 60 { named(i + 1) } else { json!({ "type": "object" }) };
            json!({ "anyOf": std::iter::once(next).chain((0..i).map(named)).collect::<Vec<_>>() })
        };
        let definitions: Map<String, Value> = (0..=60).map(|i| (format!("n{i}"), others(i))).collect();
        let either = json!({ "anyOf": [named(0), named(60), { "type": "null" }], "readOnly": true });
        let made = |schema: Value| {
            let mut schema = schema;
            schema["$defs"] = definitions.clone().into();
            let tools = Tools { list: vec![tool("f", schema)], choice: Choice::Required, parallel: false };
            lark(&tools, &frame(&DIALECTS[0]), tokenizer).map(drop).map_err(|e| e.to_string())
        };
        assert_eq!(made(json!({ "type": "object", "properties": { "a": either } })), Ok(()));
        // Of all arguments there are no alternatives by name.
        assert!(made(either).unwrap_err().ends_with("values, multiplied out"));
    });
}

/// What is made of items and of members, one within the other, is bounded where llguidance would follow it on the stack.
#[test]
fn items_and_members_by_their_place_are_bounded() {
    with_tokenizer(|tokenizer| {
        let vocabulary = Vocabulary::new(tokenizer).unwrap();
        let starts =
            |schema: &Value| grammar(&DIALECTS[0], schema, tokenizer, &vocabulary).map(drop).map_err(|e| e.to_string());
        let items = |n: usize| vec![json!(true); n];
        let same = |of: u64, n: usize| json!({ "const": vec![of; n] });
        let ones = |n: usize| same(1, n);
        // As deep as can be.
        let mut within = items(1024);
        within[1023] = ones(1000);
        assert_eq!(starts(&json!({ "prefixItems": within })), Ok(()));
        for more in [json!({ "prefixItems": items(8000) }), json!({ "items": items(8000) }), ones(8000)] {
            assert!(starts(&more).unwrap_err().ends_with(" items by their place"));
        }
        let names = |n: usize| (0..n).map(|i| (format!("n{i}"), json!(1))).collect::<Map<_, _>>();
        for more in
            [json!({ "const": names(4000) }), json!({ "prefixItems": [same(1, 700), same(2, 700), same(3, 700)] })]
        {
            assert!(starts(&more).unwrap_err().ends_with(" items and members by their place"));
        }
        // Long names, once for each way.
        let way = json!({ "type": "object", "additionalProperties": true });
        let members: Map<String, Value> = (0..60).map(|i| (format!("{}{i}", "n".repeat(3900)), json!({}))).collect();
        let members = json!({ "properties": members, "additionalProperties": true });
        let large = json!({ "allOf": [{ "anyOf": vec![way; 15] }, members] });
        assert_eq!(starts(&large), Err("it is too large for a grammar".into()));
    });
}
