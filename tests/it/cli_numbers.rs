//! Numbers on the command line: whatever they are, they are taken, or refused with their range.

use crate::cli::{Folder, armlet, fails_with, ok, stderr, tiny};
use crate::common::gguf::Val;

/// What follows options that take no number, as `--help` shows it.
const NO_NUMBERS: [&str; 19] = [
    "SHARES",
    "RATE,LATENCY",
    "PP,TG",
    "MODEL",
    "FILE",
    "TEXT",
    "TYPE",
    "PATTERN",
    "JSON",
    "KEY=TYPE:VALUE",
    "REGEX=TYPE",
    "NAME|FILE",
    "TOKEN±BIAS",
    "FILE|JSON",
    "FILE|GBNF",
    "ADDRESS",
    "NAME",
    "KEY",
    "ORIGIN",
];

/// The options of a command that take a number, from its help: a new one is found by itself.
fn numeric_options(command: &str) -> Vec<String> {
    let help = ok(&[command, "--help"]);
    let option = |line: &str| {
        let (name, rest) = line.trim_start().split_once("--")?.1.split_once(" <")?;
        let value = rest.split_once('>')?.0;
        let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        let is_option =
            is_name && line.trim_start().starts_with('-') && name != "output" && !NO_NUMBERS.contains(&value);
        is_option.then(|| name.to_string())
    };
    help.lines().filter_map(option).collect()
}

fn commands() -> Vec<String> {
    let help = ok(&["--help"]);
    let list = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let name = |line: &str| line.strip_prefix("  ")?.split(' ').next().filter(|n| !n.is_empty()).map(str::to_string);
    list.lines().filter_map(name).filter(|name| name != "help").collect()
}

/// The ends of u64, i64, i32 and their neighbours, and what is beyond any of them. Nothing panics, overflows, or is taken
/// for an option.
#[test]
fn the_edges_of_every_number_are_taken_or_refused_with_their_range() {
    let f = Folder::new();
    let (model, out) = (tiny(&f), f.name("out"));
    let text = f.write("text.txt", "ABCDEFGH".repeat(40).as_bytes());
    let beyond = "9".repeat(400);
    let edges = [
        "0",
        "1",
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        &beyond,
        "-1",
        "-2147483648",
        "-9223372036854775808",
    ];
    let mut tried = 0;
    for command in commands() {
        for option in numeric_options(&command) {
            // What the command needs beside the option, and what makes it short.
            let given: &[(&str, &str)] = match command.as_str() {
                "chat" | "complete" if option == "n-predict" => &[("prompt", "A"), ("pattern", "full")],
                "chat" | "complete" => &[("prompt", "A"), ("n-predict", "2")],
                "tokenize" => &[("prompt", "A")],
                "perplexity" if option == "sinks" => &[("file", &text), ("context", "64"), ("stream", "")],
                "perplexity" | "imatrix" => &[("file", &text), ("context", "64"), ("chunks", "1"), ("threads", "1")],
                "bench" => &[("n-prompt", "4"), ("n-gen", "0"), ("repetitions", "1")],
                "prefix" => &[("prompt", "AB"), ("output", &out)],
                "plan" => &[("boards", "2")],
                // It would serve for ever; this is looked at first.
                "serve" => &[("api-key-file", "there/is/no/key")],
                _ => &[],
            };
            for edge in edges {
                // The memory's bandwidth would be measured.
                if (option.as_str(), edge) == ("n-gen", "1") {
                    continue;
                }
                let mut run = armlet();
                run.args([&command, "--model", &model, &format!("--{option}"), edge]);
                given.iter().filter(|(name, _)| *name != option).for_each(|(name, value)| {
                    run.arg(format!("--{name}")).args(Some(value).filter(|value| !value.is_empty()));
                });
                let output = run.current_dir(f.0.path()).output().unwrap();
                let (said, what) = (stderr(&output), format!("{command} --{option} {edge}"));
                match output.status.code() {
                    Some(0) => {}
                    Some(1) => assert!(said.starts_with("armlet: ") && said.lines().count() == 1, "{what}: {said}"),
                    Some(2) if edge == "0" && said.contains("nothing to measure") => {}
                    Some(2) => assert!(said.contains("not from ") && said.contains(" to "), "{what}: {said}"),
                    code => panic!("{what}: {code:?}, {said}"),
                }
                // Penalties that OpenAI's API has from -2 to 2.
                let negative = ["presence-penalty", "frequency-penalty"].contains(&option.as_str()) && edge == "-1";
                assert!(output.status.code() == Some(2) || !edge.starts_with('-') || negative, "{what}: {said}");
                tried += 1;
            }
        }
    }
    assert!(tried > 600, "{tried}: the help has changed");
}

#[test]
fn sizes_have_units_and_fractions() {
    let f = Folder::new();
    let model = tiny(&f);
    let budget = |size: &str| {
        let plan = ok(&["plan", "-m", &model, "--json", "--kv-budget", size]);
        serde_json::from_str::<serde_json::Value>(&plan).unwrap()["kv_budget"].as_u64().unwrap()
    };
    assert_eq!([budget("8MB"), budget("1.5MiB"), budget("64k")], [8_000_000, 3 << 19, 64 << 10]);
}

/// As many sinks as there is room for, where nobody asked for any.
#[test]
fn a_short_context_has_fewer_sinks() {
    let f = Folder::new();
    let model = tiny(&f);
    let base = ["complete", "-m", &model, "-p", "AB", "-n", "2"];
    for more in [&["-c", "1"][..], &["-c", "4"], &["-c", "65", "--pattern", "strided:2"]] {
        ok(&[&base[..], more].concat());
    }
    fails_with(&[&base[..], &["-c", "1", "--sinks", "4"]].concat(), 1, "sinks must be from 0 to 0, not 4");
    let text = f.write("text.txt", "ABBA".repeat(50).as_bytes());
    ok(&["perplexity", "-m", &model, "-f", &text, "--stream", "-c", "4"]);
}

/// What would have no effect is refused.
#[test]
fn patterns_and_sinks_are_used_or_refused() {
    let f = Folder::new();
    let (model, out) = (tiny(&f), f.name("out"));
    let text = f.write("text.txt", "ABBA".repeat(50).as_bytes());
    for pattern in ["full", "window"] {
        let sinks = ["complete", "-m", &model, "-p", "A", "--pattern", pattern, "--sinks", "2"];
        fails_with(&sinks, 2, "--sinks has no effect");
    }
    for option in ["--pattern=window", "--sinks=2"] {
        let perplexity = ["perplexity", "-m", &model, "-f", &text, "-c", "64", option];
        let output = armlet().args(perplexity).output().unwrap();
        assert!(output.status.code() == Some(2) && stderr(&output).contains("--stream"), "{output:?}");
        ok(&[&perplexity[..], &["--stream"]].concat());
    }
    for option in ["--pattern=window", "--sinks=99"] {
        let prefix = armlet().args(["prefix", "-m", &model, "-p", "AB", "-o", &out, option]).output().unwrap();
        let bench = armlet().args(["bench", "-m", &model, option]).output().unwrap();
        for output in [prefix, bench] {
            assert!(output.status.code() == Some(2) && stderr(&output).contains("unexpected argument"), "{output:?}");
        }
    }
}

/// A variable stands for an option that is not given, and never against one that is.
#[test]
fn variables_give_way_to_options() {
    let f = Folder::new();
    let model = tiny(&f);
    let named = |name: &str| {
        let mut gguf = crate::common::gguf::Tiny::default().gguf();
        f.write(name, &gguf.set("general.name", Val::Str(name.into())).build())
    };
    let (a, b) = (named("a"), named("b"));
    let inspect = |variable: &str, args: &[&str]| {
        let output = armlet().arg("inspect").args(args).env("ARMLET_MODEL", variable).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(inspect(&a, &[]).contains("general.name = \"a\""));
    for args in [&[b.as_str()][..], &["-m", &b]] {
        assert!(inspect(&a, args).contains("general.name = \"b\""));
        assert!(inspect("/nowhere", args).contains("general.name = \"b\""));
        assert!(inspect("", args).contains("general.name = \"b\""));
    }
    let both = armlet().args(["inspect", &a, "-m", &b]).output().unwrap();
    assert!(both.status.code() == Some(2) && stderr(&both).contains("cannot be used with"));
    for args in [&["--help"][..], &["complete", "--help"], &["pull", "-h"]] {
        let help = ok(args);
        assert!(["ARMLET_MODEL", "ARMLET_CPU", "ARMLET_CACHE"].iter().all(|name| help.contains(name)), "{help}");
        assert!(armlet::arch::Backend::ALL.iter().all(|backend| help.contains(backend.name())), "{help}");
    }
    ok(&["inspect", &model]);
}

/// Names stand for models in every command that takes one, and `-` for stdin where a file with text is taken.
#[test]
fn names_of_models_and_stdin_are_taken_everywhere() {
    let f = Folder::new();
    let (model, out) = (tiny(&f), f.name("out"));
    for command in [&["quantize", "nobody/Nothing-GGUF", &out, "--type", "q8_0"][..], &["pack", "nobody/Nothing", &out]]
    {
        let run = armlet().args(command).env("HF_HUB_CACHE", f.path("hub")).env_remove("LLAMA_CACHE").output().unwrap();
        crate::cli::fails(&run, 1, "nor a model of the Hugging Face cache");
    }
    let text = f.write("text.txt", "ABCDEFGH".repeat(40).as_bytes());
    let template = f.write("template.jinja", b"{{ messages[0].content }}");
    let cases: [(&[&str], &str); 5] = [
        (&["perplexity", "-m", &model, "-c", "64", "-f", "-"], &text),
        (&["imatrix", "-m", &model, "-c", "64", "-o", &out, "-f", "-"], &text),
        (&["complete", "-m", &model, "-n", "1", "-f", "-"], &text),
        (&["tokenize", "-m", &model, "-f", "-"], &text),
        (&["chat", "-m", &model, "-n", "1", "-p", "A", "--chat-template", "-"], &template),
    ];
    for (args, input) in cases {
        let output = armlet().args(args).stdin(std::fs::File::open(input).unwrap()).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}: {}", stderr(&output));
    }
}

/// What was not written is a failure, whoever writes it.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_printed_is_a_failure() {
    let f = Folder::new();
    let model = tiny(&f);
    let commands: [&[&str]; 6] = [
        &["--help"],
        &["chat", "--help"],
        &["--version"],
        &["completions", "bash"],
        &["inspect", &model],
        &["help", "chat"],
    ];
    for args in commands {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        crate::cli::fails(&armlet().args(args).stdout(full).output().unwrap(), 1, "cannot write the output");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = armlet().args(args).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{args:?}");
    }
}

/// Rust opens /dev/null in its place, where what is printed would be lost without a word.
#[cfg(target_os = "linux")]
#[test]
fn a_stdout_that_was_closed_is_a_failure() {
    let f = Folder::new();
    let (model, out) = (tiny(&f), f.name("out"));
    let program = crate::common::program().display();
    for args in ["--help", "--version", &format!("inspect {model}"), &format!("quantize {model} {out} --type q8_0")] {
        let shell = |redirected: &str| {
            let script = format!("{program} {args} {redirected}");
            std::process::Command::new("sh").args(["-c", &script]).output().unwrap()
        };
        crate::cli::fails(&shell(">&-"), 1, "stdout is closed");
        assert!(shell(">/dev/null").status.success() && shell("<&-").status.success(), "{args}");
    }
}
