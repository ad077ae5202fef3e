//! The filter `tojson` as transformers defines it: Python's `json.dumps`, without escapes for the web.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Python stops at its recursion limit, 1000; this is less, for the stack's sake.
const MAX_DEPTH: usize = 250;

/// What `tojson` was asked for.
struct Style<'a> {
    ensure_ascii: bool,
    /// Text of one level.
    indent: Option<String>,
    between_items: String,
    between_key_and_value: String,
    sort_keys: bool,
    /// Characters that `ensure_ascii` leaves as they are: they stand for others that are ASCII.
    stand_ins: &'a str,
}

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
pub(super) fn tojson(state: &State, args: &[Value], stand_ins: &str) -> Result<String, Error> {
    type Arguments<'a> = (&'a Value, Option<Value>, Option<Value>, Option<Value>, Kwargs);
    // A function has at most five arguments: nobody gives `sort_keys` without its name.
    let (value, ensure_ascii, indent, separators, named): Arguments<'_> = from_args(args)?;
    let argument = |given: Option<Value>, name: &str| -> Result<Value, Error> {
        Ok(given.map_or_else(|| named.get::<Option<Value>>(name), |value| Ok(Some(value)))?.unwrap_or(Value::from(())))
    };
    let (ensure_ascii, sort_keys) = (argument(ensure_ascii, "ensure_ascii")?, argument(None, "sort_keys")?);
    let (indent, separators) = (argument(indent, "indent")?, argument(separators, "separators")?);
    named.assert_all_used()?;
    let indent = match indent.kind() {
        ValueKind::None => None,
        ValueKind::String => Some(indent.to_string()),
        _ => Some(" ".repeat(usize::try_from(i64::try_from(indent)?.clamp(0, 1000)).unwrap_or(0))),
    };
    let (between_items, between_key_and_value) = match separators.kind() {
        ValueKind::None => (if indent.is_none() { ", " } else { "," }.to_string(), ": ".to_string()),
        _ => match &separators.try_iter()?.collect::<Vec<_>>()[..] {
            [item, key] => (item.to_string(), key.to_string()),
            _ => return Err(invalid("separators are two texts")),
        },
    };
    let (ensure_ascii, sort_keys) = (ensure_ascii.is_true(), sort_keys.is_true());
    let style = Style { ensure_ascii, indent, between_items, between_key_and_value, sort_keys, stand_ins };
    let mut text = String::new();
    style.value(value, 0, &mut text)?;
    state.consume_fuel(text.len() as u64 / 64)?;
    Ok(text)
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}

impl Style<'_> {
    fn value(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            _ if depth == MAX_DEPTH => return Err(invalid("tojson: the value is nested too deeply")),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(['[', ']'], &items, depth, out, |item, out| self.value(item, depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.list(['{', '}'], &keys, depth, out, |key, out| {
                    self.key(key, out)?;
                    out.push_str(&self.between_key_and_value);
                    self.value(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            kind => return Err(invalid(format!("tojson: a value of kind {kind} is not JSON"))),
        }
        Ok(())
    }

    /// What `item` writes of each of `items`, between `brackets`.
    fn list(
        &self,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        out: &mut String,
        mut item: impl FnMut(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let new_line = |depth: usize, out: &mut String| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                (0..depth).for_each(|_| out.push_str(indent));
            }
        };
        out.push(open);
        for (i, value) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.between_items);
            }
            new_line(depth + 1, out);
            item(value, out)?;
        }
        if !items.is_empty() {
            new_line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn key(&self, key: &Value, out: &mut String) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default(), out),
            ValueKind::None => out.push_str("\"null\""),
            ValueKind::Bool => out.push_str(if key.is_true() { "\"true\"" } else { "\"false\"" }),
            ValueKind::Number => self.string(&number(key), out),
            kind => return Err(invalid(format!("tojson: a key of kind {kind}"))),
        }
        Ok(())
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || self.ensure_ascii && c > '~' && !self.stand_ins.contains(c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a String cannot fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A number as Python prints it.
fn number(value: &Value) -> String {
    let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    let exponent = format!("{number:e}");
    let (digits, power) = exponent.split_once('e').unwrap_or((&exponent, "0"));
    match power.parse::<i32>() {
        _ if value.is_integer() => value.to_string(),
        _ if number.is_nan() => "NaN".into(),
        _ if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Ok(power) if !(-4..16).contains(&power) => {
            format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.unsigned_abs())
        }
        _ => format!("{number:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::text;

    /// Python's `json.dumps` gave each.
    #[test]
    fn as_python_does() {
        let value = r#"{"b": [1, 2.0, 1e16, 1e-5, 123456.75, true, none, "é\t\"<'&>\u007f😀"], "a": {}, "c": []}"#;
        let long = r#"{"b": [1, 2.0, 1e+16, 1e-05, 123456.75, true, null, "é\t\"<'&>"#;
        for (arguments, expected) in [
            ("", format!("{long}\u{7f}😀\"], \"a\": {{}}, \"c\": []}}")),
            ("(true)", format!("{}\\u007f\\ud83d\\ude00\"], \"a\": {{}}, \"c\": []}}", long.replace('é', "\\u00e9"))),
        ] {
            assert_eq!(text(&format!("{{{{ {value} | tojson{arguments} }}}}")).unwrap(), expected);
        }
        let small = r#"{"b": [1, {}], "a": none, 3: "x"}"#;
        for (arguments, expected) in [
            ("(indent=2)", "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": null,\n  \"3\": \"x\"\n}"),
            ("(false, '-')", "{\n-\"b\": [\n--1,\n--{}\n-],\n-\"a\": null,\n-\"3\": \"x\"\n}"),
            ("(separators=(',', ':'))", r#"{"b":[1,{}],"a":null,"3":"x"}"#),
            ("(indent=none, separators=none)", r#"{"b": [1, {}], "a": null, "3": "x"}"#),
        ] {
            assert_eq!(text(&format!("{{{{ {small} | tojson{arguments} }}}}")).unwrap(), expected, "{arguments}");
        }
        assert_eq!(text(r#"{{ {"b": 1, "a": 2} | tojson(sort_keys=true) }}"#).unwrap(), r#"{"a": 2, "b": 1}"#);
        for bad in [
            "(ascii=true)",
            "(separators=',')",
            "(indent='x', bad=1)",
            "(true, indent=true, sort_keys=1, ensure_ascii=1)",
        ] {
            assert!(text(&format!("{{{{ {small} | tojson{bad} }}}}")).is_err(), "{bad}");
        }
        assert!(text("{{ nothing | tojson }}").is_err());
    }
}
