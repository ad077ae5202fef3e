//! llama.cpp's spellings of options, for the hands and scripts that have them: its names of several letters with one hyphen, and
//! what it needs to be told and armlet does not. Its other names are aliases in `args`.

use std::ffi::{OsStr, OsString};

/// What a spelling means here.
enum Meaning {
    /// Another name of an option, whose value follows.
    Is(&'static str),
    /// Nothing, and why. A value follows if it has one.
    Needless { values: Values, why: &'static str },
    /// What armlet does anyway, if it has this value.
    Always(f64),
    /// Something that is done otherwise.
    Otherwise(&'static str),
}

/// Whether an option has a value.
#[derive(Clone, Copy)]
enum Values {
    None,
    One,
    /// One of these, or none.
    Perhaps(&'static [&'static str]),
}

const FUSED: &str = "attention is always fused";
const NO_GPU: &str = "every layer runs on the CPU";
const VALUES_OF_FLASH: Values = Values::Perhaps(&["on", "off", "auto", "0", "1"]);

const ONE_TURN: &str = "a message that is given, or piped, is answered once";
const PASSES: &str = "a prompt is read in passes of --chunk";
const SAME_THREADS: &str = "the same threads read and answer";
const RENDERED: &str = "a model's own template is always rendered";
const NOT_ESCAPED: &str = "texts are taken as they are, unless -e is given";
const NOT_PRINTED: &str = "the prompt is never printed";

const ASKED: &str = "a chat goes on unless a message is given";
const QUIET: &str = "nothing but warnings is logged";
const COMPLETES: &str = "`armlet complete` continues a text";

const SPELLINGS: [(&str, Meaning); 41] = [
    ("-sys", Meaning::Is("--system")),
    ("-sysf", Meaning::Is("--system-file")),
    ("-pg", Meaning::Is("--n-prompt-gen")),
    ("--no-escape", Meaning::Needless { values: Values::None, why: NOT_ESCAPED }),
    ("-ctk", Meaning::Is("--kv-type")),
    ("-ctv", Meaning::Is(VALUES_TYPE)),
    ("--cache-type-v", Meaning::Is(VALUES_TYPE)),
    ("-ub", Meaning::Is("--chunk")),
    ("-np", Meaning::Is("--users")),
    ("-fa", Meaning::Needless { values: VALUES_OF_FLASH, why: FUSED }),
    ("--flash-attn", Meaning::Needless { values: VALUES_OF_FLASH, why: FUSED }),
    ("-ngl", Meaning::Needless { values: Values::One, why: NO_GPU }),
    ("--n-gpu-layers", Meaning::Needless { values: Values::One, why: NO_GPU }),
    ("--no-warmup", Meaning::Needless { values: Values::None, why: "there is no warm-up" }),
    ("--chat-template-file", Meaning::Is("--chat-template")),
    ("-st", Meaning::Needless { values: Values::None, why: ONE_TURN }),
    ("--single-turn", Meaning::Needless { values: Values::None, why: ONE_TURN }),
    ("-b", Meaning::Needless { values: Values::One, why: PASSES }),
    ("--batch-size", Meaning::Needless { values: Values::One, why: PASSES }),
    ("-tb", Meaning::Needless { values: Values::One, why: SAME_THREADS }),
    ("--threads-batch", Meaning::Needless { values: Values::One, why: SAME_THREADS }),
    ("--jinja", Meaning::Needless { values: Values::None, why: RENDERED }),
    ("--no-display-prompt", Meaning::Needless { values: Values::None, why: NOT_PRINTED }),
    ("-hf", Meaning::Is("--model")),
    ("-hfr", Meaning::Is("--model")),
    ("--hf-repo", Meaning::Is("--model")),
    ("--prompt-cache", Meaning::Is("--session")),
    ("-cnv", Meaning::Needless { values: Values::None, why: ASKED }),
    ("--conversation", Meaning::Needless { values: Values::None, why: ASKED }),
    ("-i", Meaning::Needless { values: Values::None, why: ASKED }),
    ("--interactive", Meaning::Needless { values: Values::None, why: ASKED }),
    ("-no-cnv", Meaning::Otherwise(COMPLETES)),
    ("--no-conversation", Meaning::Otherwise(COMPLETES)),
    ("-co", Meaning::Needless { values: Values::None, why: "a terminal gets colours; NO_COLOR takes them away" }),
    ("--color", Meaning::Needless { values: Values::Perhaps(&["on", "off", "auto"]), why: "NO_COLOR decides" }),
    ("--log-disable", Meaning::Needless { values: Values::None, why: QUIET }),
    ("-lv", Meaning::Needless { values: Values::One, why: "-v logs more, -vv all" }),
    ("--repeat-last-n", Meaning::Always(64.0)),
    ("--typical", Meaning::Always(1.0)),
    ("--mirostat", Meaning::Always(0.0)),
    ("--simple-io", Meaning::Needless { values: Values::None, why: "TERM=dumb reads plain lines" }),
];

/// The option and its other name.
const KEYS_TYPE: [&str; 2] = ["--kv-type", "--cache-type-k"];

/// Not an option: the format of values, which is that of keys.
const VALUES_TYPE: &str = "--cache-type-v";

/// Options whose values may begin with a hyphen.
const TEXTS: [&str; 10] = [
    "-p",
    "--prompt",
    "--system",
    "--sys",
    "-sys",
    "--system-prompt",
    "-r",
    "--stop",
    "--reverse-prompt",
    "--dry-sequence-breaker",
];

/// A command line in armlet's words.
#[derive(Debug, PartialEq)]
pub(crate) struct Spelled {
    pub(crate) args: Vec<OsString>,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
}

/// Translates a command line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn translate(args: impl IntoIterator<Item = OsString>) -> Result<Spelled, String> {
    let mut args = args.into_iter().peekable();
    let mut spelled = Spelled { args: Vec::new(), notes: Vec::new() };
    let (mut keys, mut values) = (None, None);
    while let Some(arg) = args.next() {
        if arg == "--" {
            spelled.args.extend([arg].into_iter().chain(args));
            break;
        }
        let is_text = spelled.args.last().is_some_and(|before| TEXTS.iter().any(|text| before == text));
        let found = SPELLINGS.iter().find(|(name, _)| arg == *name && !is_text);
        let name = match found {
            None => arg,
            Some((name, Meaning::Needless { values, why })) => {
                skip(*values, &mut args);
                spelled.notes.push(format!("{name} is not needed: {why}"));
                continue;
            }
            Some((name, Meaning::Always(number))) => {
                let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
                if value.to_str().and_then(|value| value.parse::<f64>().ok()) != Some(*number) {
                    return Err(format!("{name} is always {number}"));
                }
                continue;
            }
            Some((name, Meaning::Otherwise(how))) => return Err(format!("there is no {name}: {how}")),
            Some((_, Meaning::Is(VALUES_TYPE))) => {
                values = Some(args.next().ok_or_else(|| format!("{VALUES_TYPE} needs a value"))?);
                continue;
            }
            Some((_, Meaning::Is(name))) => OsString::from(name),
        };
        let of_type = |name: &str| {
            KEYS_TYPE.iter().find_map(|known| name.strip_prefix(known)?.strip_prefix('=')).map(OsString::from)
        };
        keys = name.to_str().and_then(of_type).or(keys);
        let is_type = KEYS_TYPE.iter().any(|known| name == *known);
        spelled.args.push(name);
        if is_type && let Some(value) = args.next() {
            keys = Some(value.clone());
            spelled.args.push(value);
        }
    }
    let int8 = |name: &OsStr| if name == "q8_0" { OsString::from("int8") } else { name.to_os_string() };
    if let Some(values) = values
        && int8(&values) != int8(keys.as_deref().unwrap_or(OsStr::new("f16")))
    {
        return Err("keys and values are stored in one format: give -ctk and -ctv, or --kv-type, the same".into());
    }
    Ok(spelled)
}

/// Leaves an option's value out.
fn skip(values: Values, args: &mut std::iter::Peekable<impl Iterator<Item = OsString>>) {
    match values {
        Values::None => {}
        Values::One => drop(args.next()),
        Values::Perhaps(known) => drop(args.next_if(|value| known.iter().any(|known| value == known))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(line: &str) -> Result<(String, usize), String> {
        let found = translate(line.split(' ').map(OsString::from))?;
        let words: Vec<_> = found.args.iter().map(|arg| arg.to_str().unwrap()).collect();
        Ok((words.join(" "), found.notes.len()))
    }

    #[test]
    fn llama_cpp_is_understood() {
        let cases = [
            ("a chat -sys Hi -c 512", "a chat --system Hi -c 512", 0),
            ("a chat -ctk q8_0 -ctv q8_0", "a chat --kv-type q8_0", 0),
            ("a chat -ctv q8_0 --kv-type q8_0", "a chat --kv-type q8_0", 0),
            ("a chat -ctv f16", "a chat", 0),
            ("a chat --cache-type-k q8_0 -ctv q8_0", "a chat --cache-type-k q8_0", 0),
            ("a chat --kv-type=int8 -ctv q8_0", "a chat --kv-type=int8", 0),
            ("a chat -fa on -ngl 99 -t 2", "a chat -t 2", 2),
            ("a chat -fa -t 2", "a chat -t 2", 1),
            ("a chat --no-warmup -ub 64", "a chat --chunk 64", 1),
            ("a chat -st --jinja -b 512 -tb 4 -t 2", "a chat -t 2", 4),
            ("a chat -hf a/b:Q4_0 -cnv --color -lv 1", "a chat --model a/b:Q4_0", 3),
            ("a chat --repeat-last-n 64 --typical 1.0 --mirostat 0", "a chat", 0),
            ("a chat --prompt-cache f --temperature 0", "a chat --session f --temperature 0", 0),
            ("a chat --chat-template-file x.jinja", "a chat --chat-template x.jinja", 0),
            // A text is a text.
            ("a complete -p -fa", "a complete -p -fa", 0),
            ("a complete -r -i -p x", "a complete -r -i -p x", 0),
            ("a complete -sys -sys", "a complete --system -sys", 0),
            ("a complete -- -fa", "a complete -- -fa", 0),
        ];
        for (line, want, notes) in cases {
            assert_eq!(spelled(line), Ok((want.to_owned(), notes)), "{line}");
        }
        for bad in ["a chat --repeat-last-n 32", "a chat --typical", "a chat -no-cnv"] {
            assert!(spelled(bad).is_err(), "{bad}");
        }
        for bad in ["a chat -ctv q8_0", "a chat -ctk f16 -ctv q8_0", "a chat --kv-type=int8 -ctv f16", "a chat -ctv"] {
            assert!(spelled(bad).is_err(), "{bad}");
        }
    }
}
