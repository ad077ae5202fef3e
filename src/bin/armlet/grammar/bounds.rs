//! How large a schema may be, before anything is made of it: llguidance bounds what it makes, but not what it takes to make it.
//! It follows `$ref` and properties on the stack, multiplies alternatives, and compares patterns with each other.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::expansion::Expansion;
use super::kinds;
use super::schema::{EXPANDED, references, target_of, within};

/// The most values of a schema: objects, their members, items of lists.
const VALUES: usize = 8192;
/// The most bytes of its names and texts.
const TEXT: usize = 256 << 10;
/// The most bytes of its patterns.
const PATTERNS: usize = 16 << 10;
/// The most names of `properties` and `required`, which follow each other in the grammar: of one object, and of all.
const NAMES_OF_ONE: usize = 1024;
const NAMES: usize = 4096;
/// The most `multipleOf`, each of which is an automaton with a state for every remainder.
const MULTIPLES: usize = 16;
/// The most names in `patternProperties`, of which each is compared with each.
const PATTERN_PROPERTIES: usize = 32;
/// The most comparisons of names of properties with those patterns.
const COMPARED: usize = 4096;
/// How deeply a document is nested, and all that its references lead to, one within the other.
const DEPTH: usize = 1024;
/// The most patterns, formats and lengths that one text must have together.
const TOGETHER: u64 = 8;
/// Types that there are.
const TYPES: usize = 7;

/// What schemas have taken so far, of all that one answer has.
#[derive(Default)]
pub(super) struct Bounds {
    values: usize,
    text: usize,
    patterns: usize,
    names: usize,
    multiples: usize,
    pattern_properties: usize,
}

impl Bounds {
    /// Takes a schema.
    ///
    /// # Errors
    /// Which limit it exceeds, or which keyword is of the wrong kind.
    pub(super) fn add(&mut self, schema: &Value) -> Result<(), String> {
        kinds::check(schema)?;
        let mut targets = HashSet::new();
        let (names, pattern_properties, multiples) = (self.names, self.pattern_properties, self.multiples);
        let depth = self.count(schema, &mut targets)?;
        let (names, pattern_properties) = (self.names - names, self.pattern_properties - pattern_properties);
        within("levels, with those that its references lead to", depth + reach(schema, &targets), DEPTH)?;
        within("names with patterns to compare", names * pattern_properties, COMPARED)?;
        if pattern_properties > 0 {
            within("multipleOf beside patternProperties", self.multiples - multiples, 1)?;
        }
        // References are leaves, but for what is joined with others.
        let mut expansion = Expansion::new(schema, false);
        expansion.of(schema);
        if expansion.joined {
            let found = Expansion::new(schema, true).of(schema);
            within("values, multiplied out", found.values, EXPANDED)?;
            within("patterns, formats and lengths of one text", found.most[0], TOGETHER)?;
            // llguidance's common multiple of two wraps around.
            within("multipleOf of one number", found.most[1], 1)?;
            if pattern_properties > 0 {
                return Err("it has patternProperties, and allOf or others beside which there are more keywords".into());
            }
        }
        Ok(())
    }

    fn name(&mut self, n: usize) -> Result<(), String> {
        self.names += n;
        within("names of properties in one object", n, NAMES_OF_ONE)?;
        within("names of properties", self.names, NAMES)
    }

    /// Counts what is in a document; its depth.
    fn count<'s>(&mut self, value: &'s Value, targets: &mut HashSet<&'s str>) -> Result<usize, String> {
        self.values += 1;
        let mut depth = 0;
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    self.text += key.len();
                    match (key.as_str(), value) {
                        ("$ref", Value::String(target)) => drop(targets.insert(target)),
                        (
                            "pattern" | "whitespace_pattern" | "item_separator" | "key_separator",
                            Value::String(text),
                        ) => {
                            self.patterns += text.len();
                        }
                        ("patternProperties", Value::Object(patterns)) => {
                            self.pattern_properties += patterns.len();
                            self.patterns += patterns.keys().map(String::len).sum::<usize>();
                        }
                        ("properties", Value::Object(properties)) => self.name(properties.len())?,
                        ("required", Value::Array(list)) => self.name(list.len())?,
                        ("multipleOf", _) => self.multiples += 1,
                        ("type", Value::Array(list)) => within("types in a list", list.len(), TYPES)?,
                        _ => {}
                    }
                    depth = depth.max(self.count(value, targets)?);
                }
            }
            Value::Array(list) => {
                for value in list {
                    depth = depth.max(self.count(value, targets)?);
                }
            }
            Value::String(text) => self.text += text.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        within("values", self.values, VALUES)?;
        within("bytes of names and texts", self.text, TEXT)?;
        within("multipleOf", self.multiples, MULTIPLES)?;
        within("bytes of patterns", self.patterns, PATTERNS)?;
        within("patternProperties", self.pattern_properties, PATTERN_PROPERTIES)?;
        Ok(depth + 1)
    }
}

fn depth_of(value: &Value) -> usize {
    1 + match value {
        Value::Object(members) => members.values().map(depth_of).max().unwrap_or(0),
        Value::Array(list) => list.iter().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

/// Levels of the longest chain of references that begins with one of these; of all of them, where there is a circle.
fn reach(root: &Value, targets: &HashSet<&str>) -> usize {
    let mut known = HashMap::new();
    let chains = targets.iter().map(|target| chain(root, target, 0, &mut known));
    let longest = chains.collect::<Option<Vec<_>>>().map(|chains| chains.into_iter().max().unwrap_or(0));
    longest.unwrap_or_else(|| targets.iter().filter_map(|target| target_of(root, target)).map(depth_of).sum())
}

/// Levels of what a reference leads to; none for a circle.
fn chain(root: &Value, target: &str, level: usize, known: &mut HashMap<String, Option<usize>>) -> Option<usize> {
    if level > DEPTH {
        return Some(DEPTH + 1);
    }
    if let Some(found) = known.get(target) {
        return *found;
    }
    known.insert(target.into(), None);
    let mut depth = 0;
    if let Some(value) = target_of(root, target) {
        let mut next = HashSet::new();
        references(value, &mut next);
        for target in next {
            depth = depth.max(chain(root, target, level + 1, known)?);
        }
        depth += depth_of(value);
    }
    known.insert(target.into(), Some(depth));
    Some(depth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn check(schema: &Value) -> Result<(), String> {
        Bounds::default().add(schema)
    }

    fn many<T: Into<Value>>(n: usize, item: impl Fn(usize) -> T) -> Value {
        (0..n).map(item).map(Into::into).collect::<Vec<Value>>().into()
    }

    fn named(n: usize, item: impl Fn(usize) -> Value) -> Value {
        (0..n).map(|i| (format!("n{i}"), item(i))).collect::<Map<_, _>>().into()
    }

    /// Definitions of which each is within the one before.
    fn chain(n: usize) -> Value {
        let next = |i| json!({ "items": { "$ref": format!("#/$defs/n{}", (i + 1) % n) } });
        json!({ "$ref": "#/$defs/n0", "$defs": named(n, next) })
    }

    /// At each limit a schema is taken, and refused with its name behind it.
    #[test]
    fn each_limit_is_one() {
        type Make = fn(usize) -> Value;
        let limits: [(&str, usize, Make); 9] = [
            ("values", VALUES - 2, |n| json!({ "enum": many(n, |i| i) })),
            ("bytes of names and texts", TEXT - 5, |n| json!({ "const": "x".repeat(n) })),
            ("bytes of patterns", PATTERNS, |n| json!({ "pattern": "a".repeat(n) })),
            ("names of properties in one object", NAMES_OF_ONE, |n| json!({ "properties": named(n, |_| json!({})) })),
            ("names of properties", NAMES, |n| {
                let list = |n: usize| json!({ "required": many(n, |i| format!("{i}")) });
                json!({ "anyOf": [list(1024), list(1024), list(1024), list(1000), list(n - 4072)] })
            }),
            ("multipleOf", MULTIPLES, |n| json!({ "anyOf": many(n, |i| json!({ "multipleOf": i + 1 })) })),
            ("patternProperties", PATTERN_PROPERTIES, |n| json!({ "patternProperties": named(n, |_| json!({})) })),
            ("types in a list", TYPES, |n| json!({ "type": many(n, |_| "string") })),
            (
                "patterns, formats and lengths of one text",
                TOGETHER as usize,
                |n| json!({ "allOf": many(n, |_| json!({ "properties": { "a": { "pattern": "a" } } })) }),
            ),
        ];
        for (what, most, make) in limits {
            assert_eq!(check(&make(most)), Ok(()), "{what}");
            let why = check(&make(most + 1)).unwrap_err();
            assert!(why.starts_with("it has more than ") && why.ends_with(what), "{what}: {why}");
        }
    }

    /// What references lead to counts, however flat it is written, and whether or not it ends.
    #[test]
    fn references_are_followed_one_within_the_other() {
        assert_eq!(check(&chain(200)), Ok(()));
        let why = check(&chain(600)).unwrap_err();
        assert!(why.ends_with("levels, with those that its references lead to"), "{why}");
        assert_eq!(check(&json!({ "anyOf": [{ "$ref": "#" }, { "type": "null" }] })), Ok(()));
    }

    fn words(letter: char, n: usize) -> Value {
        json!({ "enum": many(n, |i| format!("{letter}{i}")) })
    }

    fn both(a: Value, b: Value) -> Value {
        json!({ "allOf": [a, b] })
    }

    fn within(value: Value) -> Value {
        json!({ "properties": { "a": value } })
    }

    /// Alternatives that hold together multiply, wherever they stand; those that do not, do not.
    #[test]
    fn what_holds_together_is_multiplied_out() {
        assert_eq!(check(&json!({ "anyOf": [words('a', 900), words('b', 900)] })), Ok(()));
        assert_eq!(check(&both(words('a', 9), words('b', 900))), Ok(()));
        let by_name =
            json!({ "$defs": { "b": words('b', 900) }, "$ref": "#/$defs/b", "anyOf": words('a', 900)["enum"] });
        for bad in [
            both(words('a', 900), words('b', 900)),
            both(within(words('a', 900)), within(words('b', 900))),
            by_name,
            json!({ "anyOf": many(900, |_| true), "properties": named_many() }),
            json!({ "allOf": many(20, |_| json!({ "anyOf": [{ "minimum": 1 }, { "maximum": 1 }] })) }),
        ] {
            // Also in a definition, or in a property that is called as a keyword is.
            let named = json!({ "$ref": "#/$defs/x", "$defs": { "x": bad, "b": words('b', 900) } });
            let title = json!({ "properties": { "title": bad }, "$defs": { "b": words('b', 900) } });
            for bad in [bad, named, title] {
                let why = check(&bad).unwrap_err();
                assert!(why.ends_with("values, multiplied out"), "{why}");
            }
        }
        let beside =
            json!({ "patternProperties": { "a": {} }, "allOf": [{ "minProperties": 1 }, { "maxProperties": 3 }] });
        assert!(check(&beside).unwrap_err().contains("patternProperties"));
        // As programs write them that make schemas of types.
        let usual = json!({ "properties": { "a": { "allOf": [{ "$ref": "#/$defs/a" }], "description": "It is." },
                                            "b": { "$ref": "#/$defs/a", "default": "x" } },
                            "$defs": { "a": { "patternProperties": { "^a": { "$ref": "#" } } } } });
        assert_eq!(check(&usual), Ok(()));
        let listed = json!({ "properties": { "a": { "type": "string", "enum": ["a"] }, "const": { "minLength": 1 } },
                             "patternProperties": { "^x": {} } });
        let mut two = Bounds::default();
        assert_eq!((two.add(&listed), two.add(&json!({ "anyOf": [true], "type": "string" }))), (Ok(()), Ok(())));
    }

    /// What is said of different members is independent, and of the same one is not, under its name or another's.
    #[test]
    fn what_is_said_of_different_members_is_independent() {
        let text = |i: usize| json!({ "type": "string", "pattern": format!("a{i}"), "enum": words('a', 90)["enum"] });
        let of = |place: &dyn Fn(usize) -> Value| json!({ "allOf": many(12, place) });
        let member = |i: usize| json!({ "properties": { format!("n{i}"): text(i) } });
        assert_eq!(check(&of(&member)), Ok(()));
        assert_eq!(check(&both(within(words('a', 900)), json!({ "properties": { "b": words('b', 900) } }))), Ok(()));
        let others = |i: usize| json!({ "additionalProperties": text(i) });
        for (same, what) in [
            (of(&|i| within(json!({ "pattern": format!("a{i}") }))), "patterns, formats and lengths of one text"),
            (of(&|i| if i == 0 { member(0) } else { others(i) }), "values, multiplied out"),
            (
                both(within(words('a', 900)), json!({ "additionalProperties": words('b', 900) })),
                "values, multiplied out",
            ),
            (
                both(json!({ "items": words('a', 900) }), json!({ "prefixItems": [words('b', 900)] })),
                "values, multiplied out",
            ),
        ] {
            let why = check(&same).unwrap_err();
            assert!(why.ends_with(what), "{what}: {why}");
        }
        let multiple = |n: usize| within(json!({ "multipleOf": n }));
        assert_eq!(check(&json!({ "anyOf": [multiple(3), multiple(4)], "minProperties": 1 })), Ok(()));
        let mut patterns = multiple(3);
        patterns["patternProperties"] = json!({ "^a": { "multipleOf": 4 } });
        assert!(check(&patterns).unwrap_err().ends_with("multipleOf beside patternProperties"));
        assert!(check(&both(multiple(65537), multiple(65539))).unwrap_err().ends_with("multipleOf of one number"));
        // Names that lead to each other twice are followed once, and joined no more than may be.
        let next = |i: usize| json!({ "$ref": format!("#/$defs/n{}", i + 1) });
        let twice = |i: usize| json!({ "properties": { "a": next(i), "b": next(i) } });
        let ladder =
            json!({ "allOf": [{ "$ref": "#/$defs/n0" }, { "$ref": "#/$defs/n1" }], "$defs": named(60, twice) });
        assert!(check(&ladder).unwrap_err().ends_with("values, multiplied out"));
        // Many flat definitions are not deep.
        let flat = json!({ "anyOf": many(300, |i| json!({ "$ref": format!("#/$defs/n{i}") })),
                           "$defs": named(300, |_| json!({ "items": { "items": { "items": {} } } })) });
        assert_eq!(check(&flat), Ok(()));
    }

    fn named_many() -> Value {
        named(900, |_| json!({}))
    }
}
