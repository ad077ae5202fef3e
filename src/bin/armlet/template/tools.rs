//! Conversations with tools, as far as a template can show them; what it cannot is said in its stead.

use armlet::tokenizer::Role;
use chrono::NaiveDateTime;
use serde_json::{Map, Value as Json, json};

use super::abilities::{Abilities, Place};
use super::stand_ins::Rendered;
use super::{Kind, Message, Part, Template};
use crate::error::Failure;
use crate::tools::{Call, Dialect, Tool, instructions};

/// Names and values that no template has.
const TOOL: &str = "probe_of_tools";
const CALL: &str = "probe_of_calls";
const VALUE: &str = "probe of values";
const RESULT: &str = "probe of results";

impl Template<'_> {
    /// What the template shows: it is tried with a tool, and with a call.
    pub(crate) fn abilities(&self) -> &Abilities {
        self.abilities.get_or_init(|| {
            let Kind::Jinja { job, .. } = &self.kind else { return Abilities::NONE };
            let none = Json::Null;
            let tool = [tool(TOOL, &none)];
            let user = json!({ "role": "user", "content": "Hello" });
            let shows = |messages: &[&Json], tools: &[Tool], text: &str| {
                let messages = messages.iter().copied().cloned().collect();
                let printed =
                    self.print(messages, self.variables(tools), NaiveDateTime::default(), &self.stand_ins(&mut []));
                printed.ok().map(|printed| printed.text).filter(|printed| printed.contains(text))
            };
            let in_system = json!({ "role": "system", "content": "Be brief.", "tools": in_text(&tool) });
            let tools = if shows(&[&user], &tool, TOOL).is_some() {
                Place::Variable
            } else if shows(&[&in_system, &user], &[], TOOL).is_some() {
                Place::System
            } else {
                return Abilities::NONE;
            };
            let Some(dialect) = Dialect::of(&job.template) else { return Abilities::NONE };
            let arguments = [json!({ "of": VALUE }), json!(json!({ "of": VALUE }).to_string())];
            let result = json!({ "role": "tool", "tool_call_id": "abcdefghi", "name": CALL, "content": RESULT });
            let called = arguments.map(|arguments| {
                let function = json!({ "name": CALL, "arguments": arguments });
                let calls = json!([{ "id": "abcdefghi", "type": "function", "function": function }]);
                let assistant = json!({ "role": "assistant", "content": "", "tool_calls": calls });
                let printed = shows(&[&user, &assistant, &result], &tool, CALL);
                // Neither in Python's words, nor quoted once more.
                printed.is_some_and(|text| text.contains(VALUE) && !text.contains("{'") && !text.contains("\\\""))
            });
            log::info!("the model calls tools as {} does", dialect.family);
            let said = json!({ "role": "assistant", "content": "Well" });
            Abilities {
                dialect,
                tools,
                calls: called.into_iter().position(|shown| shown).map(|quoted| quoted == 1),
                results: called.contains(&true) || shows(&[&user, &said, &result], &tool, RESULT).is_some(),
            }
        })
    }

    /// Renders a conversation with tools, and the start of an answer.
    pub(crate) fn render_tools(
        &self,
        messages: &[Message],
        tools: &[Tool],
        began: NaiveDateTime,
    ) -> Result<Rendered, Failure> {
        let (mut messages, mut tools) = (messages.to_vec(), tools.to_vec());
        let mut texts = Vec::new();
        each_text(&mut messages, &mut tools, &mut |text| texts.push(text.clone()));
        let stand_ins = self.stand_ins(&mut texts);
        let mut replaced = texts.into_iter();
        each_text(&mut messages, &mut tools, &mut |text| *text = replaced.next().unwrap_or_default());
        let abilities = self.abilities();
        if !abilities.dialect.is_parallel() {
            messages = one_by_one(messages);
        }
        if !tools.is_empty() && abilities.tools != Place::Variable {
            abilities.tell(&mut messages, &tools);
        }
        let mut printed: Vec<Json> = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            let follows = i > 0 && matches!(messages[i - 1].part, Part::Result { .. });
            match (&message.part, printed.last_mut()) {
                // Results that follow each other are one message of the user.
                (Part::Result { .. }, Some(last)) if follows && !abilities.results => {
                    last["content"] =
                        format!("{}\n{}", last["content"].as_str().unwrap_or_default(), response(message)).into();
                }
                _ => printed.push(abilities.message(message)),
            }
        }
        if abilities.tools == Place::System
            && let Some(system) = printed.iter_mut().find(|m| m["role"] == "system").filter(|_| !tools.is_empty())
        {
            system["tools"] = in_text(&tools).into();
        }
        let variables = if abilities.tools == Place::Variable { self.variables(&tools) } else { Map::new() };
        self.print(printed, variables, began, &stand_ins)
    }

    /// Variables of a template that has tools, by all names that are known for them.
    fn variables(&self, tools: &[Tool]) -> Map<String, Json> {
        let Kind::Jinja { job, .. } = &self.kind else { return Map::new() };
        let names = ["tools", "xml_tools"].into_iter().filter(|name| !tools.is_empty() && job.template.contains(name));
        names.map(|name| (name.into(), tools.iter().map(|tool| tool.given.clone()).collect())).collect()
    }
}

impl Abilities {
    /// Sees to it that there is a system message, which tells of the tools where the template does not.
    fn tell(&self, messages: &mut Vec<Message>, tools: &[Tool]) {
        let text = match self.tools {
            Place::Nowhere => instructions(tools),
            _ => "You are a helpful assistant with some tools.".into(),
        };
        match messages.first_mut() {
            Some(system) if system.role == Role::System => {
                if self.tools == Place::Nowhere {
                    system.text = format!("{}\n\n{text}", system.text);
                }
            }
            _ => messages.insert(0, Message::new(Role::System, text)),
        }
    }

    fn message(&self, message: &Message) -> Json {
        let (role, text) = (message.role.name(), &message.text);
        match (&message.part, self.calls) {
            (Part::Calls(calls), Some(quoted)) => {
                let calls: Vec<Json> = calls.iter().map(|call| as_templates_have(call, quoted)).collect();
                json!({ "role": role, "content": text, "tool_calls": calls })
            }
            (Part::Calls(calls), None) => {
                let calls: Vec<Call> = calls.iter().map(|call| Call { id: short(&call.id), ..call.clone() }).collect();
                let between = if text.is_empty() { "" } else { "\n" };
                json!({ "role": role, "content": format!("{text}{between}{}", self.dialect.write(&calls)) })
            }
            (Part::Result { id, name }, _) if self.results => {
                json!({ "role": "tool", "tool_call_id": short(id), "name": name, "content": text })
            }
            (Part::Result { .. }, _) => json!({ "role": "user", "content": response(message) }),
            (Part::Text, _) => json!({ "role": role, "content": text }),
        }
    }
}

/// Calls that were made together, one behind the other, each with its result: for a template that refuses several.
fn one_by_one(messages: Vec<Message>) -> Vec<Message> {
    let (mut out, mut messages) = (Vec::new(), messages.into_iter().peekable());
    while let Some(message) = messages.next() {
        let calls = match &message.part {
            Part::Calls(calls) if calls.len() > 1 => calls.clone(),
            _ => {
                out.push(message);
                continue;
            }
        };
        let is_result = |message: &Message| matches!(message.part, Part::Result { .. });
        let mut results: Vec<Message> = std::iter::from_fn(|| messages.next_if(is_result)).collect();
        let mut text = message.text.clone();
        for call in calls {
            let is_of = |result: &mut Message| matches!(&result.part, Part::Result { id, .. } if *id == call.id);
            let own: Vec<Message> = results.extract_if(.., is_of).collect();
            let part = Part::Calls(vec![call]);
            out.push(Message { text: std::mem::take(&mut text), part, ..message.clone() });
            out.extend(own);
        }
        out.extend(results);
    }
    out
}

/// A result, for a template that knows none.
fn response(message: &Message) -> String {
    format!("<tool_response>\n{}\n</tool_response>", message.text)
}

fn as_templates_have(call: &Call, quoted: bool) -> Json {
    let arguments = Json::Object(call.arguments.clone());
    let arguments = if quoted { arguments.to_string().into() } else { arguments };
    json!({ "id": short(&call.id), "type": "function", "function": { "name": call.name, "arguments": arguments } })
}

/// Tools as one text.
fn in_text(tools: &[Tool]) -> String {
    tools.iter().map(|tool| tool.given.clone()).collect::<Json>().to_string()
}

fn tool(name: &str, parameters: &Json) -> Tool {
    let function =
        json!({ "name": name, "description": "It probes.", "parameters": { "type": "object", "properties": {} } });
    let parameters = parameters.as_object().cloned().unwrap_or_default();
    Tool { name: name.into(), parameters, given: json!({ "type": "function", "function": function }) }
}

/// The id of a call as some templates want it: nine letters and digits, the same ones each time.
fn short(id: &str) -> String {
    if id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return id.into();
    }
    // FNV-1a.
    let mut hash =
        id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut digit = || {
        let digit = char::from_digit((hash % 36) as u32, 36).unwrap_or('0');
        hash /= 36;
        digit
    };
    (0..9).map(|_| digit()).collect()
}

/// Calls `f` with each text that a client wrote, always in the same order.
fn each_text(messages: &mut [Message], tools: &mut [Tool], f: &mut dyn FnMut(&mut String)) {
    for message in messages {
        f(&mut message.text);
        if let Part::Calls(calls) = &mut message.part {
            calls.iter_mut().for_each(|call| each_of_object(&mut call.arguments, f));
        }
    }
    tools.iter_mut().for_each(|tool| each_of_value(&mut tool.given, f));
}

fn each_of_value(value: &mut Json, f: &mut dyn FnMut(&mut String)) {
    match value {
        Json::String(text) => f(text),
        Json::Array(items) => items.iter_mut().for_each(|item| each_of_value(item, f)),
        Json::Object(object) => each_of_object(object, f),
        _ => {}
    }
}

fn each_of_object(object: &mut Map<String, Json>, f: &mut dyn FnMut(&mut String)) {
    let all = std::mem::take(object);
    for (mut name, mut value) in all {
        f(&mut name);
        each_of_value(&mut value, f);
        object.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use armlet::gguf::File;
    use armlet::host::memory;
    use armlet::storage::Arena;
    use armlet::tokenizer::Tokenizer;

    use super::super::{Spellings, golden, jinja};
    use super::*;
    use crate::args;
    use crate::tools::{Calls, Piece};

    /// What SmolLM3's own template shows of tools, shortened: that of the archive has none.
    const SMOLLM3: &str = "{{ '<|im_start|>system\n' }}{%- if xml_tools -%}{%- set ns = namespace(text='<tools>\n') -%}\
        {%- for tool in xml_tools[:] -%}{%- set ns.text = ns.text ~ (tool | string) ~ '\n' -%}{%- endfor -%}{{- ns.text + '</tools>\n\n\
        For each function call, return a json object within <tool_call></tool_call> XML tags:\n<tool_call>\n\
        {\\\"name\\\": <function-name>, \\\"arguments\\\": <args-json-object>}\n</tool_call>' -}}{%- endif -%}{{ '<|im_end|>\n' }}\
        {%- for m in messages -%}{{ '<|im_start|>' + ('user' if m.role == 'tool' else m.role) + '\n' + m.content + '<|im_end|>\n' }}\
        {%- endfor -%}{{ '<|im_start|>assistant\n' }}";

    fn with_templates(mut f: impl FnMut(&str, Template<'_>)) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let bytes = std::fs::read(golden.join("bpe.gguf")).unwrap();
        let file = File::new_checked(&bytes).unwrap();
        let mut dry = Arena::dry_run();
        Tokenizer::new(&file, &mut dry).unwrap();
        let mut tables = memory(dry.used()).unwrap();
        let tokenizer = Tokenizer::new(&file, &mut Arena::new(&mut tables).unwrap()).unwrap();
        let none = args::Template { chat_template: None, chat_template_kwargs: None };
        let more = [("SmolLM3".to_string(), SMOLLM3.to_string())];
        for (name, source) in golden::templates(&golden).into_iter().chain(more) {
            let kind = jinja(&name, source.as_bytes(), &tokenizer, &none).unwrap();
            f(
                &name,
                Template {
                    kind,
                    spellings: Spellings::new(&tokenizer),
                    instead: None,
                    is_instead: std::cell::Cell::new(false),
                    abilities: std::cell::OnceCell::new(),
                },
            );
        }
    }

    /// The arguments of all calls behind the user's text.
    fn calls_of(dialect: &'static Dialect, tool: &Tool, text: &str) -> Vec<Map<String, Json>> {
        let mut rest = &text[text.rfind("How is it?").unwrap()..];
        let mut read = Vec::new();
        while let Some(at) = rest.find(dialect.marks[0]) {
            let mut whole = String::new();
            for piece in Calls::new(dialect, [tool.clone()].into()).push(&rest[at..]) {
                match piece {
                    Piece::Begin(name) => assert_eq!(name, tool.name),
                    Piece::Arguments(more) => whole += &more,
                    Piece::End => read.push(serde_json::from_str(&std::mem::take(&mut whole)).unwrap()),
                    Piece::Text(_) => {}
                }
            }
            // Where a call is all of an answer, another one may follow.
            rest = if dialect.alone { &rest[at + dialect.marks[0].len()..] } else { "" };
        }
        read
    }

    /// Of a conversation as it is rendered, its calls can be read.
    #[test]
    fn what_is_rendered_can_be_read() {
        let arguments = json!({ "place": "Zürich </s> \"x\"", "days": 2 });
        let arguments = arguments.as_object().unwrap();
        let parameters =
            json!({ "type": "object", "properties": { "place": { "type": "string" }, "days": { "type": "integer" } } });
        let function = json!({ "name": "get_weather", "description": "Weather", "parameters": parameters });
        let weather = Tool {
            name: "get_weather".into(),
            parameters: parameters.as_object().cloned().unwrap(),
            given: json!({ "type": "function", "function": function }),
        };
        let second = json!({ "place": "Bern", "days": 1 });
        let all = [("call_0123", arguments), ("call_4567", second.as_object().unwrap())];
        let mut messages =
            vec![Message::new(Role::User, "How is it?".into()), Message::new(Role::Assistant, String::new())];
        let call = |(id, arguments): (&str, &Map<String, Json>)| Call {
            id: id.into(),
            name: "get_weather".into(),
            arguments: arguments.clone(),
        };
        messages[1].part = Part::Calls(all.map(call).to_vec());
        for (id, said) in [("call_0123", "It is <s> clear"), ("call_4567", "It is grey")] {
            let part = Part::Result { id: id.into(), name: "get_weather".into() };
            messages.push(Message { part, ..Message::new(Role::User, said.into()) });
        }
        // The same with the first call alone.
        let mut alone = messages[..3].to_vec();
        alone[1].part = Part::Calls(vec![call(all[0])]);
        let mut families = Vec::new();
        with_templates(|name, template| {
            // It wants variables of its own.
            if name == "fireworks-ai-llama-3-firefunction-v2" {
                return;
            }
            for (messages, n) in [(&alone, 1), (&messages, 2)] {
                let rendered =
                    template.render_tools(messages, std::slice::from_ref(&weather), NaiveDateTime::default());
                let Rendered { text, literal } = rendered.unwrap_or_else(|e| panic!("{name}: {e:?}"));
                // Among the tools, and in the calls.
                assert!(text.matches("get_weather").count() > n, "{name}: {text}");
                assert!(text.contains("It is <s> clear") && text.contains("It is grey") == (n == 2), "{name}: {text}");
                // What a client wrote makes no control tokens.
                for spelled in ["<s> clear", "</s> "] {
                    let at = text.find(spelled).unwrap();
                    assert!(literal.iter().any(|range| range.start == at), "{name}: {text}");
                }
                let read = calls_of(template.abilities().dialect, &weather, &text);
                let expected: Vec<Map<String, Json>> =
                    all[..n].iter().map(|(_, arguments)| (*arguments).clone()).collect();
                assert_eq!(read, expected, "{name}: {text}");
            }
            let abilities = template.abilities();
            families.push(format!(
                "{name}: {}, {:?}, {:?}, {}",
                abilities.dialect.family, abilities.tools, abilities.calls, abilities.results
            ));
        });
        for known in [
            "Qwen-Qwen3-0.6B: Hermes, Variable, Some(false), true",
            "Qwen3.5-4B: Qwen3-Coder, Qwen3.5, Variable, Some(false), true",
            "google-gemma-4-31B-it: Gemma 4, Variable, Some(false), true",
            "mistralai-Mistral-Nemo-Instruct-2407: Mistral, Variable, Some(false), true",
            "mistralai-Ministral-3-14B-Reasoning-2512: Mistral, since 2025, Variable, Some(false), true",
            "ibm-granite-granite-3.3-2B-Instruct: Granite 3, Variable, None, true",
            "ibm-granite-granite-4.0: Hermes, Variable, Some(false), true",
            "HuggingFaceTB-SmolLM3-3B: generic, Nowhere, None, false",
            "microsoft-Phi-3.5-mini-instruct: generic, Nowhere, None, false",
            "SmolLM3: Hermes, Variable, None, true",
            "microsoft-Phi-4-mini-instruct: Phi-4-mini, System, None, true",
            // Only where they are given.
            "google-gemma-3-4b-it: generic, Nowhere, None, false",
            "LFM2-8B-A1B: LFM2, Variable, None, true",
            "meta-llama-Llama-3.1-8B-Instruct: Llama 3, Variable, Some(false), true",
            "meta-llama-Llama-3.2-3B-Instruct: Llama 3, Variable, Some(false), true",
        ] {
            let (name, _) = known.split_once(": ").unwrap();
            let elsewhere = ["google-gemma-3-4b-it", "LFM2-8B-A1B"].contains(&name) || name.starts_with("meta-llama");
            let is_given = families.iter().any(|found| found.starts_with(&format!("{name}: ")));
            assert!(is_given || elsewhere, "{name} is missing");
            assert!(!is_given || families.iter().any(|found| found == known), "{known}: {families:#?}");
        }
    }
}
