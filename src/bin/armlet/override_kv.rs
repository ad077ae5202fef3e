//! `--override-kv KEY=TYPE:VALUE`: metadata entries that count instead of those in the file.

use armlet::gguf::{File, Value};

/// One entry, as the command line has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OverrideKv {
    key: String,
    value: Typed,
}

#[derive(Clone, Debug, PartialEq)]
enum Typed {
    Int(i64),
    Float(f64),
    Bool(bool),
    Str(String),
}

/// Parses `KEY=TYPE:VALUE`, where TYPE is int, float, bool or str, as in llama.cpp.
pub(crate) fn parse(text: &str) -> Result<OverrideKv, String> {
    let parts = text.split_once('=').and_then(|(key, value)| Some((key, value.split_once(':')?)));
    let (key, (kind, value)) = parts
        .filter(|(key, _)| !key.is_empty())
        .ok_or("not KEY=TYPE:VALUE with a TYPE of int, float, bool or str, such as tokenizer.ggml.pre=str:qwen2")?;
    if key == "general.alignment" {
        return Err("general.alignment says where the tensors are, and cannot be overridden".into());
    }
    let wrong = |what: &str| format!("{value:?} is not {what}");
    let value = match kind {
        "int" => Typed::Int(value.parse().map_err(|_| wrong("a whole number of 64 bits"))?),
        "float" => Typed::Float(value.parse().map_err(|_| wrong("a number"))?),
        "bool" => Typed::Bool(value.parse().map_err(|_| wrong("true or false"))?),
        "str" => Typed::Str(value.into()),
        _ => return Err(format!("{kind:?} is not a type; the types are int, float, bool and str")),
    };
    Ok(OverrideKv { key: key.into(), value })
}

impl Typed {
    fn value(&self) -> Value<'_> {
        match self {
            Typed::Int(n) => u64::try_from(*n).map_or(Value::Signed(*n), Value::Unsigned),
            Typed::Float(x) => Value::Float(*x),
            Typed::Bool(b) => Value::Bool(*b),
            Typed::Str(s) => Value::String(s.as_bytes()),
        }
    }
}

/// The entries as the library takes them.
pub(crate) fn entries(list: &[OverrideKv]) -> Vec<(&str, Value<'_>)> {
    list.iter().map(|entry| (entry.key.as_str(), entry.value.value())).collect()
}

/// The file with these entries. A key that the file does not have may be meant, or misspelt: that is said.
pub(crate) fn apply<'a>(file: File<'a>, entries: &'a [(&'a str, Value<'a>)]) -> File<'a> {
    for (key, _) in entries {
        if file.get(key).is_none() {
            log::warn!("--override-kv {key}: the file has no such key; it counts all the same");
        }
    }
    file.with_overrides(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_read_as_the_file_would_have_it() {
        let list =
            ["a.b=int:7", "c=int:-7", "d=float:1e6", "e=bool:true", "f=str:x=y:z", "g=str:"].map(|s| parse(s).unwrap());
        let expected = [
            ("a.b", Value::Unsigned(7)),
            ("c", Value::Signed(-7)),
            ("d", Value::Float(1e6)),
            ("e", Value::Bool(true)),
            ("f", Value::String(b"x=y:z")),
            ("g", Value::String(b"")),
        ];
        assert_eq!(entries(&list), expected);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "a", "a=", "a=7", "=int:7", "a=int:", "a=int:1.5", "a=int:9223372036854775808", "a=bool:1"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["a=u32:7", "a=arr:1", "a=float:x", "general.alignment=int:64"] {
            let error = parse(text).unwrap_err();
            assert!(["u32", "arr", "x", "alignment"].iter().any(|word| error.contains(word)), "{error}");
        }
    }
}
