//! What bounds and grammars of schemas look up.

use std::collections::HashSet;

use serde_json::Value;

/// The most values, when what holds together is multiplied out, each with what it takes.
pub(super) const EXPANDED: u64 = 1 << 16;

/// Keywords that say nothing of a value.
pub(super) const SILENT: [&str; 17] = [
    "$schema",
    "$id",
    "id",
    "$anchor",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
    "contentEncoding",
    "x-guidance",
];

/// Refuses more than `most` of something.
pub(super) fn within<T: PartialOrd + std::fmt::Display>(what: &str, found: T, most: T) -> Result<(), String> {
    if found <= most { Ok(()) } else { Err(format!("it has more than {most} {what}")) }
}

/// What a reference names, as llguidance finds it.
pub(super) fn target_of<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    if reference == "#" || reference == "#/" {
        return Some(root);
    }
    reference.strip_prefix("#/")?.split('/').try_fold(root, |value, name| match value {
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

/// What a schema names.
pub(super) fn references<'s>(value: &'s Value, found: &mut HashSet<&'s str>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| match value {
            Value::String(target) if key == "$ref" => drop(found.insert(target)),
            value => references(value, found),
        }),
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}
