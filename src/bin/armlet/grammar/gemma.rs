//! Values in Gemma's words, of the whole of their schema: what JSON's grammar is made of by llguidance, this makes for a language
//! that it does not have.
//!
//! A schema becomes alternatives in each of which some schemas without alternatives hold together, and these a value of each
//! type. What is the same has one rule, so that what names itself ends.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::rc::Rc;

use llguidance::api::ParserLimits;
use llguidance::{GrammarBuilder, JsonCompileOptions};
use serde_json::{Map, Number, Value, json};

use super::arguments::{check_word, is_lenient};
use super::count::{Count, Together};
use super::expansion::WEIGHT;
use super::patterns::kept;
use super::schema::{EXPANDED, SILENT, target_of, within};
use super::writer::{Made, Writer, quoted, regex};
use super::{SYMBOLS, Trouble, compact};
use crate::tools::GEMMAS_QUOTE as QUOTE;

/// The names of members that no schema lists.
const NAME: &str = "/[a-zA-Z_][a-zA-Z0-9_]*/";
/// The most items of a list that have a schema by their place, and the most of them and of members in a tool: each is within the
/// rule of the one before it, which llguidance follows on the stack.
const PLACED: usize = 1024;
const PLACED_OF_ALL: usize = 2048;

/// Whether llguidance has a grammar for a schema: what it has none for is refused in these words, too.
///
/// # Errors
/// Why not.
pub(super) fn check(schema: &Map<String, Value>) -> Result<(), String> {
    let limits = ParserLimits { max_grammar_size: SYMBOLS, ..ParserLimits::default() };
    let schema = compact(&Value::Object(schema.clone()))?;
    let made = JsonCompileOptions::default().json_to_llg_with_overrides(GrammarBuilder::new(None, limits), schema);
    made.map(drop).map_err(|e| Trouble::at_start(&e.to_string()).to_string())
}

impl Writer<'_, '_> {
    /// The members of an object of a tool's arguments.
    pub(super) fn gemma_arguments(&mut self, root: &Map<String, Value>) -> Result<String, String> {
        self.gemma = Made { is_lenient: is_lenient(root), ..Made::default() };
        let root = Value::Object(root.clone());
        let ways = self.ways(&root, &root)?;
        let mut objects = Vec::new();
        for way in ways.iter().filter(|way| is_of(way, "object")) {
            objects.extend(self.object(&root, way)?);
        }
        if objects.is_empty() { Err("no arguments are of it".into()) } else { Ok(format!("({})", objects.join(" | "))) }
    }

    /// The rule of values of which all these schemas hold.
    fn value(&mut self, root: &Value, all: &[&Value]) -> Result<Option<String>, String> {
        let mut texts: Vec<(String, &Value)> =
            all.iter().filter(|schema| ***schema != true).map(|schema| (schema.to_string(), *schema)).collect();
        texts.sort_by(|a, b| a.0.cmp(&b.0));
        texts.dedup_by(|a, b| a.0 == b.0);
        let key = texts.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join("\n");
        // Whatever is looked up is written out for that, at each level of what it is within.
        self.copies(text(&key))?;
        if let Some(known) = self.gemma.rules.get(&key) {
            return Ok(known.clone());
        }
        let name = self.name();
        self.gemma.rules.insert(key.clone(), Some(name.clone()));
        let mut alternatives = Vec::new();
        match texts[..] {
            [(_, one)] if let Some(options) = options(root, one)? => {
                for option in options {
                    alternatives.extend(self.value(root, &[option])?);
                }
            }
            _ => {
                let mut ways = vec![Together::new()];
                for (_, schema) in texts {
                    ways = both(ways, self.ways(root, schema)?)?;
                }
                for way in ways {
                    alternatives.extend(self.each_type(root, &way)?);
                }
            }
        }
        let is_possible = !alternatives.is_empty();
        // What names itself may be named already: of that there is nothing that ends.
        let body = if is_possible { alternatives.join(" | ") } else { name.clone() };
        self.define(&name, &body)?;
        let made = is_possible.then_some(name);
        self.gemma.rules.insert(key, made.clone());
        Ok(made)
    }

    /// The alternatives of a schema, in each of which some hold together.
    fn ways(&mut self, root: &Value, schema: &Value) -> Result<Vec<Together>, String> {
        // Definitions that name each other have more paths than any machine can follow, and what they come to is copied.
        self.copies(1)?;
        let ways = self.ways_within(root, schema)?;
        self.copies(ways.len() as u64)?;
        Ok(ways)
    }

    /// Counts what is copied.
    fn copies(&mut self, n: u64) -> Result<(), String> {
        self.gemma.copied += n;
        within("values, multiplied out", self.gemma.copied, EXPANDED)
    }

    /// Counts items or members of which each is within the one before.
    fn places(&mut self, n: usize) -> Result<(), String> {
        self.gemma.placed += n;
        within("items and members by their place", self.gemma.placed, PLACED_OF_ALL)
    }

    fn ways_within(&mut self, root: &Value, schema: &Value) -> Result<Vec<Together>, String> {
        let members = match schema {
            Value::Bool(true) => return Ok(vec![Vec::new()]),
            Value::Bool(false) => return Ok(Vec::new()),
            schema => schema.as_object().ok_or("a JSON schema is an object")?,
        };
        let mut own = Map::new();
        let mut ways = vec![Together::new()];
        for (key, value) in members {
            match (key.as_str(), value) {
                ("$ref", Value::String(target)) => {
                    // What is nothing but itself has no end.
                    if self.gemma.followed.contains(target) {
                        return Ok(Vec::new());
                    }
                    let found = target_of(root, target).ok_or_else(|| format!("there is no {target}"))?;
                    self.gemma.followed.push(target.clone());
                    let more = self.ways(root, found);
                    self.gemma.followed.pop();
                    ways = both(ways, more?)?;
                }
                ("allOf", Value::Array(list)) => {
                    for schema in list {
                        ways = both(ways, self.ways(root, schema)?)?;
                    }
                }
                ("anyOf" | "oneOf", Value::Array(list)) => {
                    let mut either = Vec::new();
                    for schema in list {
                        either.extend(self.ways(root, schema)?);
                    }
                    ways = both(ways, either)?;
                }
                ("enum", Value::Array(list)) => ways = both(ways, listed(list))?,
                ("const", value) => ways = both(ways, listed(std::slice::from_ref(value)))?,
                (key, _) if SILENT.contains(&key) => {}
                (key, value) => {
                    self.copies(weight(value))?;
                    own.insert(key.into(), value.clone());
                }
            }
        }
        if own.is_empty() { Ok(ways) } else { both(ways, vec![vec![Rc::new(own)]]) }
    }

    /// A value of each type that schemas have together.
    fn each_type(&mut self, root: &Value, all: &Together) -> Result<Vec<String>, String> {
        self.fits()?;
        if all.is_empty() {
            return Ok(vec![self.any_of_gemma()]);
        }
        let mut made = Vec::new();
        if is_of(all, "null") {
            made.push("\"null\"".into());
        }
        if is_of(all, "boolean") {
            let fits = |value: bool| all.iter().all(|schema| schema.get("const").is_none_or(|only| *only == value));
            made.extend([true, false].into_iter().filter(|value| fits(*value)).map(|value| format!("\"{value}\"")));
        }
        if is_of(all, "integer") {
            made.extend(self.number(all)?);
        }
        if is_of(all, "string") {
            made.extend(self.text(all)?);
        }
        if is_of(all, "array") {
            made.extend(self.list(root, all)?);
        }
        if is_of(all, "object") {
            made.extend(self.object(root, all)?.map(|members| format!("\"{{\" {members} \"}}\"")));
        }
        Ok(made)
    }

    /// A number, which Gemma writes as JSON does.
    fn number(&mut self, all: &Together) -> Result<Option<String>, String> {
        let kind = if is_of(all, "number") { "number" } else { "integer" };
        let listed: Vec<&Number> = all.iter().filter_map(|schema| schema.get("const")?.as_number()).collect();
        if let Some(n) = listed.first() {
            let is_whole = n.as_f64().is_none_or(|n| n.fract() == 0.0);
            let is_one =
                listed.iter().all(|other| other == n || (n.is_f64() || other.is_f64()) && other.as_f64() == n.as_f64());
            if !is_one || kind == "integer" && !is_whole || !all.iter().all(|schema| is_within(n, schema)) {
                return Ok(None);
            }
            if !all.iter().any(|schema| schema.contains_key("multipleOf")) {
                return Ok(Some(quoted(&n.to_string())));
            }
        }
        let mut bounds: Vec<Value> = all.iter().filter_map(|schema| of_numbers(schema)).collect();
        bounds.extend(listed.first().map(|n| json!({ "minimum": n, "maximum": n })));
        let mut schema = Map::new();
        schema.insert("type".into(), kind.into());
        match bounds.len() {
            0 => {}
            1 => schema.extend(bounds[0].as_object().cloned().unwrap_or_default()),
            _ => drop(schema.insert("allOf".into(), bounds.into())),
        }
        // One of several alternatives may have no number.
        if check(&schema).is_err() { Ok(None) } else { self.json(&schema, None).map(Some) }
    }

    /// A text: one of those that are listed, or what has all patterns and lengths.
    fn text(&mut self, all: &Together) -> Result<Option<String>, String> {
        let length = Count::of(all, "minLength", "maxLength")?;
        let (mut listed, mut bodies): (Option<Vec<&str>>, Vec<String>) = (None, Vec::new());
        for schema in all {
            if let Some(Value::Array(list)) = schema.get("enum") {
                let texts = list.iter().filter_map(Value::as_str);
                listed = Some(match listed {
                    None => texts.collect(),
                    Some(before) => texts.filter(|text| before.contains(text)).collect(),
                });
            }
            bodies.extend(kept(&Value::Object((**schema).clone()))?.into_iter().flatten());
        }
        let is_long_enough = |text: &&str| {
            let n = text.chars().count();
            n >= length.least && length.most.is_none_or(|most| n <= most)
        };
        let listed = listed.map(|texts| texts.into_iter().filter(is_long_enough).collect::<Vec<_>>());
        if !length.is_possible() || listed.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        if listed.iter().flatten().any(|text| text.contains(QUOTE)) {
            return Err(format!("{} in a text, which this family cannot write", quoted(QUOTE)));
        }
        let quote = self.literal(QUOTE);
        let has_pattern = all.iter().any(|schema| schema.contains_key("pattern"));
        Ok(Some(match listed {
            Some(texts) if !has_pattern => {
                let texts: Vec<String> = texts.into_iter().map(quoted).collect();
                format!("{quote} ({}) {quote}", texts.join(" | "))
            }
            listed => {
                bodies.extend(listed.map(|texts| texts.into_iter().map(regex).collect::<Vec<_>>().join("|")));
                let tokens = self.dialect.tokens;
                let text = if bodies.is_empty() {
                    self.until(QUOTE, tokens, None, &[])
                } else {
                    self.kept(&bodies, QUOTE, QUOTE, tokens)
                };
                format!("{quote} {text}")
            }
        }))
    }

    /// A list, with items that have a schema by their place.
    fn list(&mut self, root: &Value, all: &Together) -> Result<Option<String>, String> {
        let mut count = Count::of(all, "minItems", "maxItems")?;
        let lists: Vec<_> = all.iter().map(|schema| items(schema)).collect();
        let mut placed = Vec::new();
        let places = lists.iter().map(|(prefix, _)| prefix.len()).max().unwrap_or(0);
        let places = places.min(count.most.unwrap_or(places));
        within("items by their place", places, PLACED)?;
        self.places(places)?;
        for i in 0..places {
            let schemas: Vec<&Value> = lists.iter().filter_map(|(prefix, rest)| prefix.get(i).or(*rest)).collect();
            match self.value(root, &schemas)? {
                Some(item) => placed.push(item),
                // Here the list ends at the latest.
                None => count.most = Some(i),
            }
            if count.most.is_some_and(|most| most <= i) {
                break;
            }
        }
        let rest: Vec<&Value> = lists.iter().filter_map(|(_, rest)| *rest).collect();
        let is_full = count.most.is_some_and(|most| most <= placed.len());
        let rest = if is_full { None } else { self.value(root, &rest)? };
        if rest.is_none() {
            count.most = Some(count.most.map_or(placed.len(), |most| most.min(placed.len())));
        }
        if !count.is_possible() {
            return Ok(None);
        }
        let behind = count.behind(placed.len());
        let mut inner = rest.map_or_else(|| "\"\"".into(), |rest| behind.repeated(&rest, "\",\"", placed.is_empty()));
        for (i, item) in placed.iter().enumerate().rev() {
            let between = if i > 0 { "\",\"" } else { "" };
            let optional = if i >= count.least { "?" } else { "" };
            inner = self.rule("", &format!("({between} {item} {inner}){optional}"));
        }
        Ok(Some(format!("\"[\" {inner} \"]\"")))
    }

    /// The members of an object, with names in the order of the alphabet.
    fn object(&mut self, root: &Value, all: &Together) -> Result<Option<String>, String> {
        let of = |key: &'static str| all.iter().filter_map(move |schema| schema.get(key)?.as_object());
        let required: BTreeSet<&str> =
            all.iter().filter_map(|s| s.get("required")?.as_array()).flatten().filter_map(Value::as_str).collect();
        let names: BTreeSet<&str> =
            of("properties").flat_map(Map::keys).map(String::as_str).chain(required.clone()).collect();
        if !self.gemma.is_lenient && !names.is_empty() && of("patternProperties").next().is_some() {
            return Err("it has patternProperties beside names that they may be of".into());
        }
        self.places(names.len())?;
        let mut members = Vec::new();
        for name in &names {
            self.fits()?;
            check_word(name)?;
            let schemas: Vec<&Value> = all.iter().filter_map(|schema| property(schema, name)).collect();
            let value = self.value(root, &schemas)?;
            match value {
                Some(value) => {
                    let member = self.rule("", &format!("{} {value}", quoted(&format!("{name}:"))));
                    members.push((member, required.contains(name)));
                }
                None if required.contains(name) => return Ok(None),
                None => {}
            }
        }
        let others = self.others(root, all, &names)?;
        let count = Count::of(all, "minProperties", "maxProperties")?;
        if !count.is_possible() {
            return Ok(None);
        }
        self.chain(&members, others.as_deref(), count, "\",\"")
    }

    /// Members that have no name in a schema: those of `patternProperties`, and more where it says so, or names none.
    fn others(&mut self, root: &Value, all: &Together, names: &BTreeSet<&str>) -> Result<Option<String>, String> {
        let taken: Vec<String> = names.iter().map(|name| regex(name)).collect();
        let not_taken = if taken.is_empty() { String::new() } else { format!(" & ~/({})/", taken.join("|")) };
        let mut pairs = Vec::new();
        let patterns = all.iter().filter_map(|schema| schema.get("patternProperties")?.as_object()).flatten();
        let mut no_pattern = String::new();
        for (pattern, schema) in patterns {
            let pattern = kept(&json!({ "pattern": pattern }))?.unwrap_or_default().concat();
            let key = self.terminal(&format!("{NAME} & /{pattern}/{not_taken}"));
            let _ = write!(no_pattern, " & ~/{pattern}/");
            pairs.extend(self.value(root, &[schema])?.map(|value| format!("{key} \":\" {value}")));
        }
        let names_some =
            |s: &Rc<Map<String, Value>>| s.contains_key("properties") || s.contains_key("patternProperties");
        let more: Vec<&Value> = all.iter().filter_map(|schema| schema.get("additionalProperties")).collect();
        if more.len() == all.len() || !all.iter().any(names_some) {
            let key = self.terminal(&format!("{NAME}{not_taken}{no_pattern}"));
            pairs.extend(self.value(root, &more)?.map(|value| format!("{key} \":\" {value}")));
        }
        Ok((!pairs.is_empty()).then(|| self.rule("", &pairs.join(" | "))))
    }

    /// Any value in Gemma's words.
    fn any_of_gemma(&mut self) -> String {
        if !std::mem::replace(&mut self.any, true) {
            let quote = self.literal(QUOTE);
            let text = self.until(QUOTE, self.dialect.tokens, None, &[]);
            let _ = write!(
                self.rules,
                "\nany: {quote} {text} | /-?[0-9]{{1,15}}(\\.[0-9]{{1,15}})?/ | \"true\" | \"false\" | \"null\" | \
                 \"[\" (any (\",\" any)*)? \"]\" | \"{{\" (pair (\",\" pair)*)? \"}}\"\npair: {NAME} \":\" any\n",
            );
        }
        "any".into()
    }
}

/// The alternatives of a schema that is nothing else.
fn options<'s>(root: &'s Value, schema: &'s Value) -> Result<Option<Vec<&'s Value>>, String> {
    let Some(members) = schema.as_object() else { return Ok(None) };
    let mut said = members.iter().filter(|(key, _)| !SILENT.contains(&key.as_str()));
    let (Some((key, value)), None) = (said.next(), said.next()) else { return Ok(None) };
    Ok(match (key.as_str(), value) {
        ("$ref", Value::String(target)) => {
            Some(vec![target_of(root, target).ok_or_else(|| format!("there is no {target}"))?])
        }
        ("anyOf" | "oneOf", Value::Array(list)) => Some(list.iter().collect()),
        ("allOf", Value::Array(list)) if list.len() == 1 => Some(list.iter().collect()),
        _ => None,
    })
}

/// How much a value is, in terms of [`EXPANDED`].
fn weight(value: &Value) -> u64 {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| text(name) + weight(value)).sum::<u64>() + 1,
        Value::Array(items) => items.iter().map(weight).sum::<u64>() + 1,
        Value::String(words) => text(words) + 1,
        _ => 1,
    }
}

fn text(words: &str) -> u64 {
    (words.len() / WEIGHT) as u64
}

/// Each alternative of one with each of the other.
fn both(one: Vec<Together>, other: Vec<Together>) -> Result<Vec<Together>, String> {
    within("values, multiplied out", (one.len() * other.len()) as u64, EXPANDED)?;
    let with = |a: &Together| other.iter().map(|b| a.iter().chain(b).cloned().collect()).collect::<Vec<Together>>();
    Ok(one.iter().flat_map(with).collect())
}

/// Whether values may have a type, of all schemas; integers are numbers.
fn is_of(all: &Together, kind: &str) -> bool {
    let fits = |given: &Value| *given == kind || *given == "number" && kind == "integer";
    all.iter().all(|schema| match schema.get("type") {
        None => true,
        Some(Value::Array(list)) => list.iter().any(fits),
        Some(one) => fits(one),
    })
}

/// What a schema says of numbers.
fn of_numbers(schema: &Map<String, Value>) -> Option<Value> {
    let keys = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
    let kept = schema.iter().filter(|(key, _)| keys.contains(&key.as_str()));
    let kept: Map<String, Value> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}

/// Whether a number is within the bounds of a schema.
fn is_within(n: &Number, schema: &Map<String, Value>) -> bool {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    // By an older draft, a bound may be said to be one that is not reached itself.
    let exclusive =
        |key: &str, other: &str| if schema.get(key) == Some(&true.into()) { bound(other) } else { bound(key) };
    n.as_f64().is_some_and(|n| {
        bound("minimum").is_none_or(|least| n >= least)
            && bound("maximum").is_none_or(|most| n <= most)
            && exclusive("exclusiveMinimum", "minimum").is_none_or(|below| n > below)
            && exclusive("exclusiveMaximum", "maximum").is_none_or(|above| n < above)
    })
}

/// Values that are listed, as schemas: texts are one.
fn listed(values: &[Value]) -> Vec<Together> {
    let (texts, others): (Vec<&Value>, Vec<&Value>) = values.iter().partition(|value| value.is_string());
    let texts = (!texts.is_empty()).then(|| json!({ "type": "string", "enum": texts }));
    let all = texts.into_iter().chain(others.into_iter().map(constant));
    all.filter_map(|schema| Some(vec![Rc::new(schema.as_object()?.clone())])).collect()
}

/// The schema of a value.
fn constant(value: &Value) -> Value {
    match value {
        Value::Null => json!({ "type": "null" }),
        Value::Bool(_) => json!({ "type": "boolean", "const": value }),
        Value::Number(n) => {
            let kind = if n.is_f64() { "number" } else { "integer" };
            json!({ "type": kind, "const": value })
        }
        Value::String(_) => json!({ "type": "string", "enum": [value] }),
        Value::Array(items) => {
            let prefix: Vec<Value> = items.iter().map(constant).collect();
            json!({ "type": "array", "prefixItems": prefix, "minItems": items.len(), "maxItems": items.len() })
        }
        Value::Object(members) => {
            let properties: Map<String, Value> = members.iter().map(|(name, v)| (name.clone(), constant(v))).collect();
            let names: Vec<&String> = members.keys().collect();
            json!({ "type": "object", "properties": properties, "required": names, "additionalProperties": false })
        }
    }
}

/// Schemas of a list's first items, and of those behind them: by the draft's names, or by older ones.
fn items(schema: &Map<String, Value>) -> (&[Value], Option<&Value>) {
    match (schema.get("items"), schema.get("prefixItems")) {
        (Some(Value::Array(prefix)), _) => (prefix, schema.get("additionalItems")),
        (rest, Some(Value::Array(prefix))) => (prefix, rest),
        (rest, _) => (&[], rest),
    }
}

/// What a schema says of a member.
fn property<'s>(schema: &'s Map<String, Value>, name: &str) -> Option<&'s Value> {
    match schema.get("properties").and_then(|properties| properties.get(name)) {
        // Whether a pattern is of the name is not known.
        None if schema.contains_key("patternProperties") => None,
        None => schema.get("additionalProperties"),
        found => found,
    }
}

#[cfg(test)]
mod tests;
