//! Patterns and lengths of texts that a family writes as they are, and not as JSON, for which llguidance has its own.

use serde_json::Value;

/// Regular expressions of a text whose schema has a pattern, or bounds of its length.
pub(super) fn kept(schema: &Value) -> Result<Option<Vec<String>>, String> {
    let length = |key: &str| match &schema[key] {
        Value::Null => Ok(None),
        n => n.as_u64().map(Some).ok_or_else(|| format!("{key} is no length: {n}")),
    };
    let mut parts = Vec::new();
    if let Some(pattern) = schema["pattern"].as_str() {
        let all: Vec<String> = alternatives(pattern).into_iter().map(anywhere).collect();
        parts.push(format!("({})", all.join("|")));
    }
    match (length("minLength")?, length("maxLength")?) {
        (None, None) => {}
        (least, most) => {
            let most = most.map_or(String::new(), |n| n.to_string());
            parts.push(format!("(.|\\n){{{},{most}}}", least.unwrap_or(0)));
        }
    }
    Ok((!parts.is_empty()).then_some(parts))
}

/// A regular expression of a whole text, for one that may stand anywhere in it, unless it says where.
fn anywhere(pattern: &str) -> String {
    let (start, rest) = pattern.strip_prefix('^').map_or(("(.|\\n)*", pattern), |rest| ("", rest));
    let is_escaped = |rest: &&str| !(rest.len() - rest.trim_end_matches('\\').len()).is_multiple_of(2);
    let end = rest.strip_suffix('$').filter(|rest| !is_escaped(rest));
    let (rest, end) = end.map_or((rest, "(.|\\n)*"), |rest| (rest, ""));
    format!("{start}({}){end}", llguidance::regex_to_lark(rest, "dw"))
}

/// The alternatives of a regular expression: each may say for itself where it stands.
fn alternatives(pattern: &str) -> Vec<&str> {
    let (mut found, mut from, mut depth, mut in_class, mut is_escaped) = (Vec::new(), 0, 0usize, false, false);
    for (at, c) in pattern.char_indices() {
        match c {
            _ if is_escaped => {}
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => depth += 1,
            ')' if !in_class => depth = depth.saturating_sub(1),
            '|' if !in_class && depth == 0 => {
                found.push(&pattern[from..at]);
                from = at + 1;
            }
            _ => {}
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    found.push(&pattern[from..]);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alternative_says_where_it_stands() {
        let of = |pattern: &str| alternatives(pattern).into_iter().map(anywhere).collect::<Vec<_>>();
        let any = "(.|\\n)*";
        assert_eq!(of("^a|b$"), [format!("(a){any}"), format!("{any}(b)")]);
        assert_eq!(of("^[|a](x|y)\\|$"), ["([|a](x|y)\\|)"]);
        assert_eq!(of("^a\\\\$"), ["(a\\\\)"]);
        assert_eq!(of("a\\$"), [format!("{any}(a\\$){any}")]);
    }
}
