//! Every command in the README and the other documents is run here, or is in the list of those that are run elsewhere
//! or cannot be, with the reason.
//!
//! Commands are the lines of code blocks: indented ones, and fenced ones without a language or with `sh`. Those of
//! armlet run as they stand, by a shell in a folder of their own, with a tiny model as `model.gguf`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::{Folder, ok};
use crate::common::gguf::byte_level_model;

/// How a command begins that is not run here, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    // Of the project.
    ("cargo xtask ", "the gate and what packages: minutes; `xtask` itself is asked for its commands below"),
    ("cargo build --release", "the gate builds the program"),
    ("cargo test ", "the gate runs the tests"),
    ("mpirun ", "needs several boards; `cargo xtask boards` runs such jobs on one machine"),
    ("ssh-keygen ", "needs a board"),
    ("export OMPI_MCA", "goes with those after it"),
    ("export PRTE_MCA", "goes with those after it"),
    ("ssh-copy-id ", "needs a board"),
    ("cargo pi", "an alias, looked up below; `cargo xtask test qemu` builds that target"),
    ("cargo run --release --example chat", "tests/it/example.rs runs the example"),
    ("cargo run --release -- -device", "`cargo xtask test firmware` runs the firmware in Rust"),
    ("rustup target add", "`cargo xtask setup` adds the targets"),
    ("RUSTFLAGS=", "`cargo xtask test firmware` builds the library"),
    ("make ", "`cargo xtask test firmware` builds and runs each image"),
    ("cd targets", "goes with those before and after it"),
    ("MODEL=", "goes with those after it"),
    ("qemu-system-aarch64 ", "`cargo xtask test firmware` runs each image"),
    ("(sleep 2; ", "`cargo xtask test firmware` runs the self-test"),
    ("export PKG_CONFIG_PATH", "`cargo xtask test c` builds the examples in four ways"),
    ("cc ", "`cargo xtask test c`"),
    ("c++ ", "`cargo xtask test c`"),
    ("cmake ", "`cargo xtask test c`"),
    ("./talk ", "`cargo xtask test c`"),
    ("./chat", "`cargo xtask test c`"),
    // Of a board, its card and its owner.
    ("cp ", "writes an SD card"),
    ("sudo ", "changes the system"),
    ("echo performance | sudo tee", "changes the system"),
    ("ssh ", "needs a board"),
    ("scp ", "needs a board"),
    ("uname -m", "says what this machine is, and not what a board is"),
    ("sha256sum ", "needs the packages; `cargo xtask dist` makes the sums"),
    ("tar ", "needs the packages"),
    ("./armlet-0.1.0-aarch64-unknown-linux-musl/armlet", "needs the packages"),
    ("tmux ", "needs a terminal; tests/it/chat has chats on one"),
    ("picocom ", "needs a serial port"),
    ("screen ", "needs a serial port"),
    ("minicom ", "needs a serial port"),
    ("curl ", "needs a server; tests/it/serve and `cargo xtask clients` ask one"),
    // Of the program.
    ("armlet serve ", "does not end; tests/it/serve has servers"),
    ("armlet pull ", "needs the network; the tests of pull.rs do it with a Python of their own"),
];

/// How an indented block begins that has no commands.
const NO_COMMANDS: &[&str] = &[
    "src/",                                       // README.md: folders
    "common/     start-up",                       // targets/README.md: folders
    "-device loader,file=$MODEL,addr=0x48000000", // targets/README.md: options
    "00:00:00.350 DEBUG model",                   // targets/README.md: a log
    "arm_64bit=1",                                // targets/README.md: config.txt
    "find_package(armlet",                        // examples/c/README.md: CMake
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents, with their names.
fn documents() -> Vec<(String, String)> {
    let names = [
        "README.md",
        "SECURITY.md",
        "examples/c/README.md",
        "targets/README.md",
        "targets/profiles.md",
        "targets/raspberry-pi/README.md",
    ];
    let mut paths: Vec<PathBuf> = names.iter().map(|name| root().join(name)).collect();
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    paths.extend(docs.filter(|path| path.extension().is_some_and(|e| e == "md")));
    let named = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().display().to_string(), text)
    };
    paths.into_iter().map(named).collect()
}

/// The code blocks of a document that may have commands; an empty line cuts an indented one into two.
fn blocks(text: &str) -> Vec<Vec<&str>> {
    let mut blocks: Vec<Vec<&str>> = vec![Vec::new()];
    let mut fence: Option<bool> = None;
    let mut may_begin = true;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(["", "sh"].contains(&language)) };
            blocks.push(Vec::new());
        } else if let Some(is_shell) = fence {
            if is_shell && !line.is_empty() {
                blocks.last_mut().unwrap().push(line);
            }
        } else if let Some(code) = line.strip_prefix("    ").filter(|_| may_begin) {
            blocks.last_mut().unwrap().push(code);
        } else {
            // An empty line; or a paragraph or a list, whose later lines may be indented.
            blocks.push(Vec::new());
        }
        may_begin = line.is_empty() || (may_begin && line.starts_with("    "));
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// The commands of a block: of a transcript the lines behind `$ `, else all; lines that a `\` or a `|` ends go on.
fn commands(block: &[&str]) -> Vec<String> {
    let is_transcript = block.iter().any(|line| line.starts_with("$ "));
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in block.iter().filter(|line| !is_transcript || line.starts_with("$ ")) {
        let line = line.strip_prefix("$ ").unwrap_or(line).trim();
        let joined = line.strip_suffix('\\').unwrap_or(line).trim_end();
        match commands.last_mut().filter(|_| goes_on) {
            Some(command) => *command += &format!(" {joined}"),
            None => commands.push(joined.into()),
        }
        goes_on = line.ends_with('\\') || line.ends_with('|');
    }
    commands
}

/// The commands of a text.
fn of_text(text: &str) -> Vec<String> {
    let is_shell = |block: &Vec<&str>| !NO_COMMANDS.iter().any(|first| block[0].starts_with(first));
    blocks(text).into_iter().filter(is_shell).flat_map(|block| commands(&block)).collect()
}

/// All commands, with their documents.
fn all() -> Vec<(String, String)> {
    let documents = documents();
    let of = |(name, text): &(String, String)| -> Vec<(String, String)> {
        of_text(text).into_iter().map(|command| (name.clone(), command)).collect()
    };
    documents.iter().flat_map(of).collect()
}

/// What a shell runs for a command of armlet; `None` if it is none.
fn of_armlet(command: &str) -> Option<String> {
    let words = ["cargo run --release -- ", "./armlet ", "TERM=dumb armlet ", "armlet "];
    let rest = words.iter().find_map(|before| command.strip_prefix(before)).filter(|rest| !rest.starts_with('-'))?;
    // What would take long is made short, where the command does not say how long it is.
    let short = match rest.split(' ').next()? {
        "doctor" => " --no-measure",
        "bench" => " -p 4 -n 0 -r 1",
        "chat" => " -n 8",
        _ => "",
    };
    Some(format!("armlet {rest}{short}"))
}

#[test]
fn every_command_is_run_or_listed() {
    let f = Folder::new();
    symlink(env!("CARGO_BIN_EXE_armlet"), f.path("armlet")).unwrap();
    // What a chat is asked that reads its message from stdin.
    let asked = f.write("asked", b"Hello.\n");
    let model = f.write("model.gguf", &byte_level_model(1));
    let path = format!("{}:{}", f.0.path().display(), std::env::var("PATH").unwrap_or_default());
    let (mut run, mut wrong) = (0, Vec::new());
    for (document, command) in all() {
        if ELSEWHERE.iter().any(|(begins, _)| command.starts_with(begins)) {
            continue;
        }
        let shell = of_armlet(&command).or(Some(command.clone()).filter(|c| c.starts_with("armlet --")));
        let Some(shell) = shell else {
            wrong.push(format!("{document}: `{command}`: neither of armlet nor in ELSEWHERE nor in NO_COMMANDS"));
            continue;
        };
        let output = Command::new("sh")
            .args(["-c", &shell])
            .current_dir(f.0.path())
            .env("PATH", &path)
            .env("HOME", f.0.path())
            .env("ARMLET_CACHE", f.path("cache"))
            .env("ARMLET_MODEL", &model)
            .env_remove("XDG_STATE_HOME")
            .stdin(fs::File::open(&asked).unwrap())
            .output()
            .unwrap();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            wrong.push(format!("{document}: `{command}` as `{shell}`: {}: {said}", output.status));
        }
        run += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(run >= 8, "{run}: the documents are not read as they are written");
}

#[test]
fn the_lists_have_nothing_that_is_gone() {
    let commands = all();
    for (begins, why) in ELSEWHERE {
        assert!(!why.is_empty() && commands.iter().any(|(_, c)| c.starts_with(begins)), "no document has `{begins}`");
    }
    for first in NO_COMMANDS {
        let has = |(_, text): &(String, String)| blocks(text).iter().any(|block| block[0].starts_with(first));
        assert!(documents().iter().any(has), "no block begins with {first:?}");
    }
}

/// Commands in the text, as `armlet plan --svg`: what is not there cannot be called.
#[test]
fn commands_in_the_text_exist() {
    let help = ok(&["--help"]);
    let is_command = |name: &str| help.lines().any(|line| line.trim_start().split(' ').next() == Some(name));
    let source = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let xtask = source("xtask/src/main.rs") + &source("xtask/src/gate.rs");
    let config = source(".cargo/config.toml");
    let mut found = 0;
    for (document, text) in documents() {
        for span in text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let words: Vec<&str> = span.split_whitespace().collect();
            match words[..] {
                ["armlet", name, ..] if !name.starts_with('-') => {
                    assert!(is_command(name), "{document}: `{span}`: no such command");
                    let options = ok(&[name, "--help"]);
                    for option in words.iter().filter_map(|w| w.split('=').next()).filter(|w| w.starts_with("--")) {
                        assert!(options.contains(option), "{document}: `{span}`: no {option}");
                    }
                    found += 1;
                }
                ["cargo", "xtask", name, ..] => {
                    assert!(xtask.contains(&format!("\"{name}\"")), "{document}: `{span}`: no such command");
                    if let ["test", part] = words[2..]
                        && !part.starts_with("--")
                        && part != "PART"
                    {
                        let name = format!("Part {{ name: \"{part}\"");
                        assert!(xtask.contains(&name), "{document}: `{span}`: no such part");
                    }
                    found += 1;
                }
                ["cargo", alias @ ("pi" | "core")] => {
                    assert!(config.contains(&format!("\n{alias} = ")), "{document}: `{span}`: no such alias");
                }
                _ => {}
            }
        }
    }
    assert!(found > 30, "{found}: the documents are not read as they are written");
}

#[test]
fn a_block_ends_where_a_paragraph_begins() {
    let text = "Text\n\n    a \\\n      b |\n      c\n    d\n\n- a list\n    that goes on\n\n```sh\ne\n```\n\n\
                ```ini\nf\n```\n\n    $ g\n    said\n";
    let found: Vec<_> = blocks(text).iter().flat_map(|block| commands(block)).collect();
    assert_eq!(found, ["a b | c", "d", "e", "g"]);
}

/// What is wrong with the models that a document's commands name: `$MODEL` is set before it in the same section; a file is in
/// the cache folder, or has a name that says that it is the reader's own.
fn astray(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for section in text.split("\n## ") {
        let mut is_set = false;
        for command in of_text(section) {
            is_set |= command.starts_with("MODEL=");
            let is_known = |word: &str| {
                let name = word.rsplit('/').next().unwrap();
                word.starts_with("~/.cache/armlet/") || ["model.gguf", "tiny.gguf"].contains(&name)
            };
            let words = command.split([' ', '=', ',', '"']).filter(|word| word.ends_with(".gguf"));
            wrong.extend(words.filter(|word| !is_known(word)).map(|word| format!("`{command}`: where is {word}?")));
            if command.contains("$MODEL") && !is_set {
                wrong.push(format!("`{command}`: MODEL is not set before it"));
            }
        }
    }
    wrong
}

#[test]
fn models_are_where_commands_look_for_them() {
    for (document, text) in documents() {
        assert_eq!(astray(&text), Vec::<String>::new(), "{document}");
    }
    let here = |command: &str| astray(&format!("# A\n\n    MODEL=$(armlet pull)\n\n## B\n\n    {command}\n")).len();
    assert_eq!(here("./talk SmolLM2.gguf -p A"), 1);
    assert_eq!(here("qemu -device loader,file=b/SmolLM2.gguf,addr=1"), 1);
    assert_eq!(here("./talk $MODEL"), 1);
    assert_eq!(here("./talk ~/.cache/armlet/SmolLM2.gguf"), 0);
    assert_eq!(here("cp a/model.gguf CARD/model.gguf"), 0);
}

/// Words that begin a command or one of its arguments, what they need beside Rust and a C linker, and how their document has it
/// installed.
const NEEDS: &[(&str, &str)] = &[
    ("--target aarch64-unknown-none", "rustup target add aarch64-unknown-none"),
    ("cargo pi", "rustup target add aarch64-unknown-linux-musl"),
    ("make ", "gcc-aarch64-linux-gnu make"),
    ("qemu-system-aarch64 ", "qemu-system-arm"),
    ("$(pkg-config ", "pkg-config`"),
    ("c++ ", "g++"),
    ("cmake ", "g++ cmake"),
    ("tmux ", "apt install tmux"),
    ("armlet pull", "python3"),
    ("MODEL=$(cargo run --release -- pull)", "with pip"),
];

#[test]
fn what_commands_need_is_installed() {
    let uses = |command: &str, used: &str| command.starts_with(used) || command.contains(&format!(" {used}"));
    let mut users = vec![0; NEEDS.len()];
    for (document, text) in documents() {
        for command in of_text(&text) {
            for ((used, installed), users) in NEEDS.iter().zip(&mut users) {
                let is_user = uses(&command, used);
                *users += usize::from(is_user);
                assert!(!is_user || text.contains(installed), "{document}: `{command}` needs {installed:?}");
            }
        }
    }
    assert!(!users.contains(&0), "{users:?}: the documents are not read as they are written");
}

/// The package has no model: who is told to start its service is told before to put one where it looks.
#[test]
fn the_model_of_the_service_is_put_there() {
    let settings = fs::read_to_string(root().join("targets/systemd/armlet.default")).unwrap();
    let options = settings.lines().find_map(|line| line.strip_prefix("ARMLET_OPTIONS=\"-m ")).unwrap();
    let model = options.split(' ').next().unwrap();
    let starts =
        |text: &str| of_text(text).iter().position(|command| command.ends_with("systemctl enable --now armlet"));
    let mut found = 0;
    for (document, text) in documents() {
        let Some(start) = starts(&text) else { continue };
        let copied = |command: &String| command.contains("install ") && command.ends_with(model);
        assert!(of_text(&text)[..start].iter().any(copied), "{document}: nothing puts {model} there");
        found += 1;
    }
    assert!(found >= 2, "{found}: the documents are not read as they are written");
}
