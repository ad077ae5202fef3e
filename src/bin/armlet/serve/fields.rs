//! The fields of a JSON object in a request: each is used, or refused by its name.

use std::ops::RangeInclusive;

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::problem::Problem;

/// The most JSON values and names of a request, beside the tokens of a prompt: each takes many times the bytes that it needs in a body.
pub(super) const VALUES: usize = 1 << 15;

/// Fields that nobody has taken yet. A null is as good as nothing.
#[derive(Debug)]
pub(super) struct Fields {
    left: Map<String, Value>,
    /// Where in the request the object is, with a dot behind it.
    path: String,
}

type Taken<T> = Result<Option<T>, Problem>;

impl Fields {
    /// The fields of a request, in which there are at most so many values and names.
    pub(super) fn parse(body: &[u8], most: usize) -> Result<Self, Problem> {
        // As some of Windows's tools write a file.
        let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
        if values(body) > most {
            let message = format!("The body of the request has more than {most} JSON values and names.");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("request_too_large"));
        }
        let value = serde_json::from_slice(body).map_err(|e| {
            Problem::invalid(format!("We could not parse the JSON body of your request: {e}.")).code("invalid_json")
        })?;
        Self::of(value, String::new())
    }

    /// The fields of an object within it.
    pub(super) fn of(value: Value, path: String) -> Result<Self, Problem> {
        match value {
            Value::Object(left) if path.is_empty() => Ok(Fields { left, path }),
            Value::Object(left) => Ok(Fields { left, path: path + "." }),
            other => Err(wrong_type(if path.is_empty() { "body" } else { &path }, "an object", &other)),
        }
    }

    /// The whole name of a field.
    pub(super) fn name(&self, field: &str) -> String {
        format!("{}{field}", self.path)
    }

    /// A field of any type.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.left.shift_remove(field).filter(|value| !value.is_null())
    }

    fn typed<T>(&mut self, field: &str, kind: &str, get: impl FnOnce(&Value) -> Option<T>) -> Taken<T> {
        let Some(value) = self.take(field) else { return Ok(None) };
        get(&value).map(Some).ok_or_else(|| wrong_type(&self.name(field), kind, &value))
    }

    pub(super) fn text(&mut self, field: &str) -> Taken<String> {
        self.typed(field, "a string", |value| value.as_str().map(String::from))
    }

    pub(super) fn flag(&mut self, field: &str) -> Taken<bool> {
        self.typed(field, "a boolean", Value::as_bool)
    }

    pub(super) fn list(&mut self, field: &str) -> Taken<Vec<Value>> {
        self.typed(field, "an array", |value| value.as_array().cloned())
    }

    pub(super) fn object(&mut self, field: &str) -> Taken<Fields> {
        let name = self.name(field);
        self.take(field).map(|value| Fields::of(value, name)).transpose()
    }

    /// An object whose keys are not known.
    pub(super) fn map(&mut self, field: &str) -> Taken<Map<String, Value>> {
        self.typed(field, "an object", |value| value.as_object().cloned())
    }

    pub(super) fn number(&mut self, field: &str, range: RangeInclusive<f64>) -> Taken<f32> {
        let Some(number) = self.typed(field, "a number", Value::as_f64)? else { return Ok(None) };
        self.within(field, number, range, ["decimal_below_min_value", "decimal_above_max_value"])?;
        Ok(Some(number as f32))
    }

    pub(super) fn whole(&mut self, field: &str, range: RangeInclusive<i64>) -> Taken<i64> {
        // What is larger than any range is told as such, and not as no integer. 8.0 is one, as Home Assistant sends it.
        let get = |value: &Value| match value.as_f64() {
            Some(number) if value.is_f64() => (number.fract() == 0.0).then_some(number as i64),
            _ => value.as_i64().or_else(|| value.as_u64().map(|_| i64::MAX)),
        };
        let Some(number) = self.typed(field, "an integer", get)? else { return Ok(None) };
        let bounds = *range.start() as f64..=*range.end() as f64;
        self.within(field, number as f64, bounds, ["integer_below_min_value", "integer_above_max_value"])?;
        Ok(Some(number))
    }

    /// A number of 64 bits, whatever its sign.
    pub(super) fn seed(&mut self, field: &str) -> Taken<u64> {
        let bits = |number: f64| {
            let (n, range) = (number as i128, i64::MIN.into()..=u64::MAX.into());
            (number.fract() == 0.0 && range.contains(&n)).then_some(n as u64)
        };
        self.typed(field, "an integer", |value| match value.as_f64() {
            Some(number) if value.is_f64() => bits(number),
            _ => value.as_u64().or_else(|| value.as_i64().map(|n| n as u64)),
        })
    }

    pub(super) fn count(&mut self, field: &str, range: RangeInclusive<usize>) -> Taken<usize> {
        let bound = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let number = self.whole(field, bound(*range.start())..=bound(*range.end()))?;
        Ok(number.and_then(|n| usize::try_from(n).ok()))
    }

    fn within(
        &self,
        field: &str,
        number: f64,
        range: RangeInclusive<f64>,
        codes: [&'static str; 2],
    ) -> Result<(), Problem> {
        let name = self.name(field);
        let refuse = |what: &str, sign: &str, bound: f64, code| {
            let message =
                format!("Invalid '{name}': {what} value. Expected a value {sign} {bound}, but got {number} instead.");
            Err(Problem::invalid(message).of(&name).code(code))
        };
        if number < *range.start() {
            refuse("below the minimum", ">=", *range.start(), codes[0])
        } else if number > *range.end() {
            refuse("above the maximum", "<=", *range.end(), codes[1])
        } else {
            Ok(())
        }
    }

    /// What a field has, which may be taken yet.
    pub(super) fn peek(&self, field: &str) -> Option<&Value> {
        self.left.get(field).filter(|value| !value.is_null())
    }

    /// Takes a field if it has this value, and says whether it had.
    pub(super) fn is(&mut self, field: &str, value: &Value) -> bool {
        self.peek(field).is_some_and(|found| is_same(found, value)) && self.take(field).is_some()
    }

    /// Fields that change no answer, whatever they are.
    pub(super) fn neutral(&mut self, fields: &[&str]) {
        fields.iter().for_each(|field| drop(self.take(field)));
    }

    /// A field that is implemented only as far as it is one of these.
    pub(super) fn only(&mut self, field: &str, allowed: &[Value]) -> Result<(), Problem> {
        match self.take(field) {
            Some(value) if !allowed.iter().any(|one| is_same(one, &value)) => {
                let but = allowed.iter().map(Value::to_string).collect::<Vec<_>>().join(" or ");
                let but = if but.is_empty() { String::new() } else { format!(", but for {but}") };
                Err(Problem::unsupported(&self.name(field), &but))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what is left, but for marks of where a cache may end, which frameworks put on messages, their parts and tools.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let is_wrong = |(field, value): &(&String, &Value)| !value.is_null() && *field != "cache_control";
        match self.left.iter().find(is_wrong) {
            None => Ok(()),
            Some((field, _)) => {
                let name = format!("{}{field}", self.path);
                Err(Problem::invalid(format!("Unknown parameter: '{name}'.")).of(&name).code("unknown_parameter"))
            }
        }
    }
}

/// How many values and names a JSON text has at most, before there are any: each is behind one of these, or the first.
pub(super) fn values(text: &[u8]) -> usize {
    let (mut count, mut bytes, mut is_text) = (1, text.iter(), false);
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_text = !is_text,
            b'\\' => drop(bytes.next()),
            b'[' | b',' | b':' if !is_text => count += 1,
            _ => {}
        }
    }
    count
}

/// Whether two values are the same; numbers are, however they are written.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// A field that has to be there.
pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, Problem> {
    value.ok_or_else(|| {
        let message = format!("Missing required parameter: '{field}'.");
        Problem::invalid(message).of(field).code("missing_required_parameter")
    })
}

/// A value of another type than its field has.
pub(super) fn wrong_type(name: &str, expected: &str, value: &Value) -> Problem {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a decimal",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    let message = format!("Invalid type for '{name}': expected {expected}, but got {kind} instead.");
    Problem::invalid(message).of(name).code("invalid_type")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::of(value, String::new()).unwrap()
    }

    #[test]
    fn a_field_that_nobody_takes_is_refused_by_its_whole_name() {
        let mut outer = fields(json!({ "a": 1, "options": { "x": 0.5, "tpyo": 1 }, "none": null }));
        assert_eq!(outer.count("a", 0..=2).unwrap(), Some(1));
        let mut inner = outer.object("options").unwrap().unwrap();
        assert_eq!(inner.number("x", 0.0..=1.0).unwrap(), Some(0.5));
        assert_eq!(inner.finish().unwrap_err().message, "Unknown parameter: 'options.tpyo'.");
        outer.finish().unwrap();
        fields(json!({ "cache_control": { "type": "ephemeral" } })).finish().unwrap();
    }

    #[test]
    fn types_and_ranges() {
        let all = json!({ "n": 3, "s": "x", "f": 1.5, "big": 18446744073709551615u64, "l": [1] });
        let error = |f: &dyn Fn(&mut Fields) -> Option<Problem>| f(&mut fields(all.clone())).unwrap().openai();
        for (found, code) in [
            (error(&|f| f.number("s", 0.0..=1.0).err()), "invalid_type"),
            (error(&|f| f.count("f", 0..=9).err()), "invalid_type"),
            (error(&|f| f.count("n", 4..=9).err()), "integer_below_min_value"),
            (error(&|f| f.count("big", 0..=9).err()), "integer_above_max_value"),
            (error(&|f| f.number("f", 0.0..=1.0).err()), "decimal_above_max_value"),
            (error(&|f| f.object("l").err()), "invalid_type"),
            (error(&|f| f.only("n", &[json!(1)]).err()), "unsupported_parameter"),
        ] {
            assert_eq!(found["error"]["code"], code, "{found}");
        }
        assert!(Fields::parse(b"{\"a\": }", 9).is_err() && Fields::parse(b"[]", 9).is_err());
        let whole = |text: &str| fields(json!({ "n": serde_json::from_str::<Value>(text).unwrap() })).count("n", 0..=9);
        assert!(
            whole("8.0").unwrap() == Some(8)
                && whole("8.5").is_err()
                && whole("1e300").is_err()
                && whole("-0.5").is_err()
        );
        let seed = |text: &str| fields(json!({ "n": serde_json::from_str::<Value>(text).unwrap() })).seed("n").ok()?;
        for text in ["8", "-2", "9223372036854775808", "18446744073709549568"] {
            assert_eq!(seed(text), text.parse::<i128>().ok().map(|n| n as u64), "{text}");
            assert_eq!(seed(&format!("{text}.0")), seed(text), "{text}");
        }
        for bad in ["8.5", "-0.5", "1e300", "-1e300", "18446744073709551616", "\"8\""] {
            assert_eq!(seed(bad), None, "{bad}");
        }
        let mut one = fields(json!({ "is": -1.0, "only": 1.0, "other": 1.5 }));
        assert!(one.is("is", &json!(-1)) && one.only("only", &[json!(1)]).is_ok());
        assert!(one.only("other", &[json!(1)]).is_err());
    }

    #[test]
    fn values_are_bounded_before_there_are_any() {
        for (text, count) in [
            (r#"{"a": 1}"#, 2),
            ("[0,0,0]", 4),
            // Texts are no values, whatever is in them.
            (r#"{"a,[:": "[,,\"}"#, 2),
            (r#"{"a": "\",[", "b": []}"#, 5),
        ] {
            assert_eq!(values(text.as_bytes()), count, "{text}");
        }
        // No text of JSON has more than are counted.
        let body = json!({ "prompt": vec![0; 97], "stop": [["x"], { "y": {} }] }).to_string();
        assert!(Fields::parse(body.as_bytes(), 110).is_ok());
        let refused = Fields::parse(body.as_bytes(), 100).unwrap_err();
        assert_eq!((refused.status.as_u16(), &refused.openai()["error"]["code"]), (413, &json!("request_too_large")));
        assert!(Fields::parse("\u{feff}{}".as_bytes(), 1).is_ok());
    }
}
