//! The commands that read each kind of file.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mutate;
use crate::rng::Rng;
use crate::seeds::{Seeds, TEXT};

/// The program: that of the tests, or another build of it.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("ARMLET_ATTACK_PROGRAM").map_or_else(|| crate::common::program().to_path_buf(), PathBuf::from)
}

/// What a damaged file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    Part,
    Session,
    Prefix,
    Template,
    Importance,
    Text,
    Schema,
    Grammar,
    Wheel,
}

impl Kind {
    /// Of a hundred files, how many are of each kind.
    const SHARES: [(Kind, usize); 10] = [
        (Kind::Model, 62),
        (Kind::Part, 4),
        (Kind::Session, 8),
        (Kind::Prefix, 6),
        (Kind::Template, 7),
        (Kind::Importance, 5),
        (Kind::Text, 2),
        (Kind::Schema, 2),
        (Kind::Grammar, 2),
        (Kind::Wheel, 2),
    ];

    pub(crate) fn all() -> impl Iterator<Item = Kind> {
        Self::SHARES.into_iter().map(|(kind, _)| kind)
    }

    pub(crate) fn choose(rng: &mut Rng) -> Kind {
        let mut at = rng.below(100);
        for (kind, share) in Self::SHARES {
            match at.checked_sub(share) {
                Some(rest) => at = rest,
                None => return kind,
            }
        }
        Kind::Model
    }

    /// The commands that read it. `IT` is the damaged file, `MODEL` and `TEXT` are files in order, `OUT` is written.
    pub(crate) fn commands(self) -> &'static [&'static str] {
        match self {
            Kind::Model => &[
                "inspect IT --tensors",
                "inspect IT --json",
                "plan -m IT --svg OUT",
                "tokenize -m IT -f TEXT",
                "chat -m IT -p Hi -n 2 -t 1",
                "complete -m IT -p Hello -n 2 -t 1",
                "perplexity -m IT -f TEXT -c 16 --chunks 1 -t 1",
                "quantize IT OUT --type TYPE --allow-requantize",
                "pack IT OUT",
                "prefix -m IT -p Hello -o OUT -t 1",
                "bench -m IT -p 4 -n 0 -r 1 -t 1",
                "imatrix -m IT -f TEXT -c 16 --chunks 1 -o OUT -t 1",
                "doctor -m IT --no-measure",
            ],
            Kind::Part => &[
                "inspect PART --tensors",
                "complete -m PART -p Hello -n 2 -t 1",
                "quantize PART OUT --type q4_0 --allow-requantize",
                "tokenize -m IT -p Hello",
            ],
            Kind::Session => &["chat -m MODEL -p Hi -n 2 -c 64 -t 1 --session IT"],
            Kind::Prefix => &["chat -m MODEL -p Hi -n 2 -t 1 --prefix IT"],
            Kind::Template => &["chat -m MODEL -p Hi -n 2 -t 1 --system S --chat-template IT"],
            Kind::Importance => &["quantize MODEL OUT --type q4_0 --allow-requantize --imatrix IT", "inspect IT"],
            Kind::Text => &[
                "tokenize -m MODEL -f IT",
                "complete -m MODEL -n 2 -t 1 -f IT",
                "perplexity -m MODEL -f IT -c 16 --chunks 1 -t 1",
                "imatrix -m MODEL -f IT -c 16 --chunks 1 -o OUT -t 1",
                "prefix -m MODEL -f IT -o OUT -t 1",
            ],
            Kind::Schema => &["complete -m MODEL -p A -n 2 -t 1 --json-schema IT"],
            Kind::Grammar => &["complete -m MODEL -p A -n 2 -t 1 --grammar IT"],
            Kind::Wheel => &["pull"],
        }
    }

    /// A file in order.
    pub(crate) fn whole(self, seeds: &Seeds, rng: &mut Rng) -> Vec<u8> {
        match self {
            Kind::Model => seeds.model(rng),
            Kind::Part => seeds.one_of_two("part", rng),
            Kind::Session => seeds.read("session"),
            Kind::Prefix => seeds.read("prefix"),
            Kind::Template => seeds.read("template"),
            Kind::Importance => seeds.one_of_two("importance", rng),
            Kind::Text => TEXT.repeat(16).into_bytes(),
            Kind::Schema => SCHEMA.into(),
            Kind::Grammar => GRAMMAR.into(),
            Kind::Wheel => seeds.read("wheel"),
        }
    }

    /// A damaged file.
    pub(crate) fn file(self, seeds: &Seeds, rng: &mut Rng) -> Vec<u8> {
        let blind = |mut bytes: Vec<u8>, rng: &mut Rng| {
            (0..1 + rng.below(3)).for_each(|_| mutate::blind(&mut bytes, usize::MAX, rng));
            bytes
        };
        match self {
            Kind::Model => mutate::gguf(&seeds.model(rng), rng),
            Kind::Part => mutate::gguf(&seeds.one_of_two("part", rng), rng),
            Kind::Session => mutate::saved(&seeds.read("session"), rng),
            Kind::Prefix => mutate::saved(&seeds.read("prefix"), rng),
            Kind::Template => {
                let template = String::from_utf8(seeds.read("template")).unwrap();
                if rng.one_in(2) {
                    let odd: String = (0..1 + rng.below(3)).map(|_| mutate::odd_template(rng)).collect();
                    return (odd + &template).into_bytes();
                }
                mutate::text(&template, &['{', '}', '%', ' ', '\'', '.', '('], rng)
            }
            Kind::Importance if rng.one_in(2) => mutate::gguf(&seeds.read("importance-0"), rng),
            Kind::Importance => blind(seeds.read("importance-1"), rng),
            Kind::Text => {
                let mut text = mutate::text(&TEXT.repeat(1 << rng.below(5)), &[' ', '\n'], rng);
                // A long one is in order, and reading it takes its time.
                text.truncate(24 << 10);
                text
            }
            Kind::Schema => mutate::text(SCHEMA, &['{', '}', '[', ']', '"', ':', ',', '9'], rng),
            Kind::Grammar => mutate::text(GRAMMAR, &['(', ')', '[', ']', '"', '*', '+', '|', '9'], rng),
            Kind::Wheel => blind(seeds.read("wheel"), rng),
        }
    }
}

/// With what schemas have: sizes, references, choices, patterns.
const SCHEMA: &str = r##"{"type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 40},
"age": {"type": "integer", "minimum": 0, "maximum": 150}, "kind": {"enum": ["a", "b"]}, "mail": {"pattern": "^[a-z]+@[a-z]+$"},
"tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 4}, "more": {"anyOf": [{"type": "null"},
{"type": "number"}]}}, "required": ["name", "age"], "additionalProperties": false, "$defs": {"tag": {"type": "string"}}}"##;

const GRAMMAR: &str = r#"root ::= item ("," ws item)* # a list
item ::= name "=" value
name ::= [a-zA-Z_] [a-zA-Z0-9_]{0,15}
value ::= [0-9]+ ("." [0-9]+)? | "\"" [^"\n]* "\"" | "(" root ")"
ws ::= [ \t\n]*
"#;

/// Formats to convert to.
const TYPES: [&str; 10] = ["q4_0", "q8_0", "q4_k_m", "q6_k", "q3_k_m", "iq4_nl", "f16", "bf16", "mxfp4", "tq1_0"];

/// Where one thread of the attack has its files.
pub(crate) struct Place {
    folder: PathBuf,
}

impl Place {
    /// Makes the folder, with the files that are in order.
    pub(crate) fn new(folder: PathBuf, seeds: &Seeds) -> Self {
        let place = Place { folder };
        for name in ["work", "cache", "bin"] {
            std::fs::create_dir_all(place.at(name)).unwrap();
        }
        std::fs::write(place.at("model"), seeds.read("model")).unwrap();
        std::fs::write(place.at("text"), TEXT.repeat(8)).unwrap();
        // In the place of pip.
        let script = format!(
            "#!/bin/sh\nfor last; do folder=$dest; dest=$last; done\nexec /bin/cp {} \"$folder/a.whl\"\n",
            place.at("work/it").display()
        );
        std::fs::write(place.at("bin/python3"), script).unwrap();
        std::fs::set_permissions(place.at("bin/python3"), PermissionsExt::from_mode(0o755)).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn part(&self, i: usize) -> PathBuf {
        self.at(&format!("part-{:05}-of-00002.gguf", i + 1))
    }

    /// Writes the damaged file; gives its path.
    pub(crate) fn write(&self, kind: Kind, bytes: &[u8], seeds: &Seeds) -> PathBuf {
        let path = self.at("work/it");
        std::fs::write(&path, bytes).unwrap();
        if kind == Kind::Part {
            // It takes the place of the part that it says that it is, else of the second.
            let first = bytes.windows(21).any(|w| w == b"general.architecture\x08");
            (0..2).for_each(|i| std::fs::write(self.part(i), seeds.read(&format!("part-{i}"))).unwrap());
            std::fs::write(self.part(usize::from(!first)), bytes).unwrap();
        }
        path
    }

    /// One of the commands.
    pub(crate) fn command(&self, words: &str, rng: &mut Rng) -> Command {
        let path = |name: &str| self.at(name).to_str().unwrap().to_string();
        let mut command = Command::new(program());
        for word in words.split(' ') {
            command.arg(match word {
                "IT" => path("work/it"),
                "OUT" => path("work/out"),
                "MODEL" => path("model"),
                "TEXT" => path("text"),
                "PART" => self.part(0).to_str().unwrap().to_string(),
                "TYPE" => rng.of(&TYPES).to_string(),
                other => other.to_string(),
            });
        }
        command.env_clear().env("PATH", self.at("bin")).env("ARMLET_CACHE", self.at("cache"));
        command.env("XDG_STATE_HOME", self.at("cache"));
        command
    }

    /// What a command has left that it should not have; it is removed.
    pub(crate) fn left(&self) -> Option<String> {
        let entries = ["work", "cache"].map(|name| std::fs::read_dir(self.at(name)).unwrap());
        let names = entries.into_iter().flatten().map(|e| e.unwrap().path());
        let left = names.filter(|path| !path.ends_with("it") && !path.ends_with("out")).collect::<Vec<_>>();
        left.iter().for_each(|path| {
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
        });
        left.first().map(|path| path.display().to_string())
    }

    /// Removes what was written.
    pub(crate) fn clear(&self) {
        let _ = std::fs::remove_file(self.at("work/out"));
    }

    /// Keeps a file that did harm.
    pub(crate) fn keep(&self, bytes: &[u8], to: &Path) {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bytes).unwrap();
    }
}
