//! The Jinja environment in which transformers renders chat templates, and how a conversation is given to a template.

use std::fmt::Write;

use chrono::NaiveDateTime;
use chrono::format::{Fixed, Item, Numeric, Pad, StrftimeItems};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Serde, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::{Value as Json, json};

use super::json::tojson;

/// The most steps of the template engine: enough for every public template and a long conversation.
const FUEL: u64 = 5_000_000;
/// How deeply macros and loops may call themselves.
const RECURSION: usize = 100;
/// A text that no template treats in a way of its own.
const PROBE: &str = "Sphinx of black quartz judge my vow";

/// A conversation to render. It is sent from one process to another as JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Job {
    pub(super) template: String,
    /// Objects with a role and a content.
    pub(super) messages: Vec<Json>,
    /// What the template sees beside the messages.
    pub(super) variables: serde_json::Map<String, Json>,
    /// For `strftime_now`.
    pub(super) now: NaiveDateTime,
    /// Characters that stand for others.
    pub(super) stand_ins: String,
}

impl Job {
    pub(super) fn to_json(&self) -> Json {
        let Job { template, messages, variables, now, stand_ins } = self;
        json!({
            "template": template, "messages": messages, "variables": variables, "now": format!("{now:?}"), "stand_ins": stand_ins,
        })
    }

    pub(super) fn from_json(json: &Json) -> Option<Job> {
        let text = |key: &str| json[key].as_str().map(str::to_string);
        Some(Job {
            template: text("template")?,
            messages: json["messages"].as_array()?.clone(),
            variables: json["variables"].as_object()?.clone(),
            now: text("now")?.parse().ok()?,
            stand_ins: text("stand_ins")?,
        })
    }

    /// Renders the conversation and the start of an answer.
    ///
    /// A template that shows a content only if it is a list of parts gets lists. One that does not show a system message,
    /// or raises an exception for it, gets its text before that of the next message, as in llama.cpp.
    pub(super) fn render(&self) -> Result<String, Error> {
        let source = without_generation(&self.template);
        let environment = self.environment(&source)?;
        let template = environment.get_template("chat")?;
        let render = |messages: &[Json], parts: bool| {
            let mut variables = self.variables.clone();
            let messages = messages.iter().map(|m| if parts { in_parts(m) } else { m.clone() }).collect();
            variables.insert("messages".into(), messages);
            template.render(Serde(variables))
        };
        let user = json!({ "role": "user", "content": PROBE });
        let parts = match render(std::slice::from_ref(&user), false) {
            Ok(text) if text.contains(PROBE) => false,
            Err(e) if e.kind() == ErrorKind::OutOfFuel => return Err(e),
            // A template that prints a list as it is takes texts after all.
            _ => render(&[user], true).is_ok_and(|text| text.contains(PROBE) && !text.contains(&format!("'{PROBE}'"))),
        };
        if let Some(messages) = without_system(&self.messages) {
            let shown = json!([{ "role": "system", "content": PROBE }, { "role": "user", "content": "Hello" }]);
            let shown = render(shown.as_array().map_or(&[], Vec::as_slice), parts);
            if !shown.is_ok_and(|text| text.contains(PROBE))
                && let Ok(text) = render(&messages, parts)
            {
                return Ok(text);
            }
        }
        render(&self.messages, parts)
    }

    fn environment<'s>(&self, source: &'s str) -> Result<Environment<'s>, Error> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        let now = self.now;
        environment.add_function("strftime_now", move |format: String| strftime(now, &format));
        let stand_ins = self.stand_ins.clone();
        let filter = move |state: &State, args: Rest<ValueOrKwargs>| tojson(state, &args.into_values(), &stand_ins);
        environment.add_filter("tojson", filter);
        // Of the engine's own, nothing is iterable as well.
        environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        environment.add_template("chat", source)?;
        Ok(environment)
    }
}

/// A message whose content is a list of parts.
fn in_parts(message: &Json) -> Json {
    let mut message = message.clone();
    if let Some(content @ Json::String(_)) = message.get_mut("content") {
        *content = json!([{ "type": "text", "text": content.take() }]);
    }
    message
}

/// The conversation with the text of its system message before that of the next one.
fn without_system(messages: &[Json]) -> Option<Vec<Json>> {
    let [system, next, rest @ ..] = messages else { return None };
    let (text, next_text) = (system["content"].as_str()?, next["content"].as_str()?);
    if system["role"] != "system" {
        return None;
    }
    let mut next = next.clone();
    next["content"] = format!("{text}\n{next_text}").into();
    Some([&[next], rest].concat())
}

/// The template with `{% generation %}`, which marks an answer for training, as a scope without names of its own: the
/// engine cannot be given a tag.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        let Some(end) = tag.find("%}") else { break };
        let (tag, after) = tag.split_at(end);
        let dash = |c: char| c == '-' || c == '+';
        let name = tag.strip_prefix(dash).unwrap_or(tag);
        let name = name.strip_suffix(dash).unwrap_or(name).trim();
        out.push_str(before);
        match name {
            "generation" => out.push_str(&tag.replace(name, "with")),
            "endgeneration" => out.push_str(&tag.replace(name, "endwith")),
            _ => {
                // The end of this tag may be that of another, within a text of it.
                rest = &rest[before.len()..];
                continue;
            }
        }
        rest = after;
    }
    out + rest
}

/// Python's `datetime.strftime`; the time has no zone.
fn strftime(now: NaiveDateTime, format: &str) -> Result<String, Error> {
    let unknown =
        || Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {format:?} is not a format of time"));
    let microseconds = StrftimeItems::new("%6f").next();
    let items = StrftimeItems::new(format).filter_map(|item| match item {
        Item::Numeric(Numeric::Nanosecond, Pad::Zero) => microseconds.clone(),
        Item::Fixed(Fixed::TimezoneName | Fixed::TimezoneOffset) => None,
        item => Some(item),
    });
    let items: Vec<Item<'_>> = items.collect();
    if items.contains(&Item::Error) {
        return Err(unknown());
    }
    let mut text = String::new();
    write!(text, "{}", now.format_with_items(items.iter())).map_err(|_| unknown())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{job, text};
    use super::*;

    #[test]
    fn a_job_arrives_as_it_was() {
        let sent = job("{{ x }}");
        assert_eq!(Job::from_json(&sent.to_json()), Some(sent));
        assert_eq!(Job::from_json(&json!({ "template": "" })), None);
    }

    #[test]
    fn what_transformers_has() {
        let loud =
            "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content.upper() }}{% endfor %}";
        for (template, expected) in [
            (
                "{{ tools is none }}{{ documents is defined }}{{ tools is iterable and tools | length > 0 }}",
                "TrueFalseFalse",
            ),
            ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
            ("a {%- generation -%} {{ 1 }}\n{%  endgeneration %}\nb", "a1\nb"),
            ("{% if '%}' == '%}' %}{% generation %}x{% endgeneration %}{% endif %}", "x"),
            ("{{ strftime_now('%d %b %Y %H:%M:%S.%f %p %j%z%Z %-d %%') }}", "06 Jul 2026 05:04:03.002001 AM 187 6 %"),
            ("{{ strftime_now('%Y-%m-%d, %A %B %e') }}", "2026-07-06, Monday July  6"),
            ("{{ 'it\\'s <b> & é' | tojson }}", "\"it's <b> & é\""),
            ("{{ '\u{f0000}é' | tojson(ensure_ascii=true) }}", "\"\u{f0000}\\u00e9\""),
            (loud, "HI THERE"),
            ("{{ messages[0].content == 'hi there' }}{{ messages[0]['content'][:5] }}", "Truehi th"),
        ] {
            assert_eq!(text(template).as_deref(), Ok(expected), "{template}");
        }
        assert!(text("{{ raise_exception('only text') }}").unwrap_err().contains("only text"));
        assert!(text("{{ strftime_now('%Q') }}").unwrap_err().contains("%Q"));
    }

    #[test]
    fn content_in_parts_only_where_a_text_is_not_shown() {
        let parts = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}";
        let either = "{% for m in messages %}{{ m.content if m.content is string else 'parts' }}{% endfor %}";
        assert_eq!((text(parts).as_deref(), text(either).as_deref()), (Ok("hi there"), Ok("hi there")));
    }

    #[test]
    fn a_system_message_that_is_refused_or_not_shown() {
        for instead in ["{{ raise_exception('no') }}", "{% continue %}"] {
            let template = "{% for m in messages %}{% if m.role == 'system' %}INSTEAD{% endif %}[{{ m.role }}] {{ m.content }}{% endfor %}";
            let mut job = job(&template.replace("INSTEAD", instead));
            job.messages.insert(0, json!({ "role": "system", "content": "Be brief." }));
            assert_eq!(job.render().unwrap(), "[user] Be brief.\nhi there");
        }
        let mut job =
            job("{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{% endfor %}");
        job.messages = vec![json!({ "role": "system", "content": "Be brief." }); 2];
        assert!(job.render().unwrap_err().to_string().contains("no"));
    }

    #[test]
    fn hostile_templates_end_in_an_error() {
        for template in [
            "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{{ messages[0].content.nothing.more }}",
            "{% for %}",
        ] {
            assert!(text(template).is_err(), "{template}");
        }
    }
}
