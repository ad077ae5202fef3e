//! What the program does with metadata that is missing, wrong or overridden: warnings on stderr, and `--override-kv`.

use crate::cli::{Folder, armlet, fails, fails_with, ok, stderr, tiny};
use crate::common::gguf::{Tiny, Val, byte_level_model};

/// Ids of a text, and what is said.
fn tokenize(model: &str, text: &str, more: &[&str]) -> (String, String) {
    let output = armlet().args(["tokenize", "-m", model, "-p", text, "--ids"]).args(more).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output).to_string())
}

#[test]
fn what_is_mended_is_said() {
    let f = Folder::new();
    let mut g = Tiny::default().gguf();
    g.unset("tokenizer.ggml.pre").set("tokenizer.ggml.bos_token_id", Val::U32(1 << 20));
    let model = f.write("model.gguf", &g.build());
    let output = armlet().args(["complete", "-m", &model, "-p", "A", "-n", "1"]).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    for part in ["tokenizer.ggml.pre", "tokenizer.ggml.bos_token_id", "token 11 is used instead"] {
        assert_eq!(said.matches(part).count(), if part.ends_with("pre") { 2 } else { 1 }, "{said}");
    }
    assert!(tokenize(&model, "AB", &[]).1.contains("tokenizer.ggml.pre"));
    let whole = f.write("whole.gguf", &Tiny::default().gguf().build());
    assert_eq!(tokenize(&whole, "AB", &[]).1, "");
}

/// Scaling of positions that says not how far, or by nothing: no scaling, and one line that says so.
#[test]
fn scaling_without_a_factor_is_none_and_said() {
    let f = Folder::new();
    let run = |kind: &str, factor: Option<f32>| {
        let mut gguf = Tiny::default().gguf();
        gguf.set("llama.rope.scaling.type", Val::Str(kind.into()));
        if let Some(factor) = factor {
            gguf.set("llama.rope.scaling.factor", Val::F32(factor));
        }
        let model = f.write("model.gguf", &gguf.build());
        let output =
            armlet().args(["complete", "-m", &model, "-p", "ABCABC", "-n", "8", "--temp", "0"]).output().unwrap();
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let said = |text: &str| text.lines().filter(|line| line.contains("positions are not scaled")).count();
    let (plain, warned) = run("none", Some(0.5));
    assert_eq!(said(&warned), 0);
    for (kind, factor, what) in [
        ("linear", None, "no rope.scaling.factor"),
        ("yarn", None, "no rope.scaling.factor"),
        ("linear", Some(0.0), "rope.scaling.factor is 0"),
    ] {
        let (text, warned) = run(kind, factor);
        assert!(text == plain && said(&warned) == 1 && warned.contains(what), "{kind}: {warned}");
    }
    let mut yarn = Tiny::default().gguf();
    yarn.set("llama.rope.scaling.type", Val::Str("yarn".into())).set("llama.rope.scaling.factor", Val::F32(2.0));
    for (fast, times) in [(32.0, 0), (8.0, 1)] {
        yarn.set("llama.rope.scaling.yarn_beta_fast", Val::F32(fast));
        let model = f.write("yarn.gguf", &yarn.build());
        let output = armlet().args(["complete", "-m", &model, "-p", "A", "-n", "1"]).output().unwrap();
        assert_eq!(stderr(&output).matches("are not read for this architecture").count(), times);
    }
    let (text, warned) = run("linear", Some(0.01));
    assert!(text != plain && said(&warned) == 0, "{warned}");
}

#[test]
fn overridden_metadata_count_before_anything_reads_them() {
    let f = Folder::new();
    let model = tiny(&f);
    // The model's own pre-tokeniser leaves numbers whole; "A B" is its only merge.
    let ids = |more: &[&str]| tokenize(&model, "AB", more);
    let plain = ids(&[]).0;
    assert_eq!(
        ids(&[
            "--override-kv",
            "tokenizer.ggml.add_bos_token=bool:true",
            "--override-kv",
            "tokenizer.ggml.bos_token_id=int:7"
        ])
        .0,
        plain.replace('[', "[7, ")
    );
    let (same, said) = ids(&["--override-kv", "tokenizer.ggml.pree=str:qwen2"]);
    assert!(same == plain && said.contains("tokenizer.ggml.pree"), "{said}");
    // A value that the file could not have either is refused in the same words.
    fails_with(
        &["tokenize", "-m", &model, "-p", "a", "--override-kv", "tokenizer.ggml.pre=str:nonsense"],
        1,
        "nonsense",
    );
    fails_with(
        &["tokenize", "-m", &model, "-p", "a", "--override-kv", "tokenizer.ggml.pre=int:1"],
        1,
        "metadata key tokenizer.ggml.pre",
    );
    fails_with(&["complete", "-m", &model, "-p", "a", "--override-kv", "llama.block_count=int:3"], 1, "blk.2");
    for wrong in ["a", "a=b", "a=u32:1", "general.alignment=int:64"] {
        let output = armlet().args(["plan", "-m", &model, "--override-kv", wrong]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(stderr(&output).contains("KEY=TYPE:VALUE"), "{}", stderr(&output));
    }
    let context = |more: &[&str]| ok(&[&["plan", "-m", &model, "--json"][..], more].concat());
    assert_ne!(context(&[]), context(&["--override-kv", "llama.context_length=int:32"]));
    let shown =
        |more: &[&str]| ok(&[&["inspect", &model, "--override-kv", "llama.context_length=int:33"][..], more].concat());
    assert!(
        shown(&[]).contains("  llama.context_length = 33\n") && shown(&["--json"]).contains(": 33,"),
        "{}",
        shown(&[])
    );
    assert!(shown(&["--override-kv", "llama.block_count=int:3"]).contains("blk.2"));
    assert!(shown(&["--override-kv", "a.b=str:c"]).contains("  a.b = \"c\"\n"));
}

/// One line end at the end of a file or of piped text is no part of a prompt.
#[test]
fn one_final_line_end_is_left_out() {
    let f = Folder::new();
    let model = f.write("model.gguf", &byte_level_model(7));
    let read = |text: &str, piped: bool| {
        let file = f.write("prompt.txt", text.as_bytes());
        let mut command = armlet();
        command.args(["complete", "-m", &model, "-n", "1", "--json"]);
        if piped {
            command.stdin(std::fs::File::open(&file).unwrap());
        } else {
            command.args(["-f", &file]);
        }
        let output = command.output().unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["timings"]["prompt_n"].as_u64().unwrap()
    };
    for piped in [false, true] {
        let n = ["AA", "AA\n", "AA\n\n", "AA\n "].map(|text| read(text, piped));
        assert_eq!(n, [2, 2, 3, 4], "{piped}");
    }
    let argument = ok(&["complete", "-m", &model, "-n", "1", "--json", "-p", "AA\n"]);
    assert!(argument.contains("\"prompt_n\":3"), "{argument}");
}

#[test]
fn the_file_recommends_a_sampler_and_options_decide() {
    let f = Folder::new();
    let g = Tiny::default().gguf();
    let complete = |key: &str, value: Val, more: &[&str]| {
        let model = f.write("model.gguf", &g.clone().set(&format!("general.sampling.{key}"), value).build());
        let args = ["complete", "-m", &model, "-p", "A", "-n", "24", "--seed", "1"];
        armlet().args([&args[..], more].concat()).output().unwrap()
    };
    let text = |key: &str, value: Val, more: &[&str]| {
        let output = complete(key, value, more);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let random = text("none", Val::U32(0), &[]);
    let greedy = text("none", Val::U32(0), &["--temp", "0"]);
    assert_ne!(random, greedy);
    let settings = [
        ("temp", Val::F32(0.0), "--temp", "0.8"),
        ("top_k", Val::Raw(5, 1i32.to_le_bytes().into()), "--top-k", "40"),
        ("top_p", Val::F32(0.0), "--top-p", "0.95"),
        ("min_p", Val::F32(1.0), "--min-p", "0.05"),
    ];
    for (key, value, option, default) in settings {
        assert_eq!(text(key, value.clone(), &[]), greedy, "{key}");
        assert_eq!(text(key, value, &[option, default]), random, "{key}");
    }
    let penalty = text("penalty_repeat", Val::F32(10.0), &["--temp", "0"]);
    assert_eq!(penalty, text("none", Val::U32(0), &["--temp", "0", "--repeat-penalty", "10"]));
    assert_ne!(penalty, greedy);
    fails(&complete("temp", Val::F32(-1.0), &[]), 1, "general.sampling.temp is -1: not from 0 to 100");
    fails(&complete("top_p", Val::Str("x".into()), &[]), 1, "general.sampling.top_p");
    let not_used =
        [("mirostat", Val::U32(2), true), ("mirostat", Val::U32(0), false), ("sequence", Val::Str("k".into()), true)];
    for (key, value, said) in not_used {
        let output = complete(key, value, &[]);
        assert_eq!(stderr(&output).contains(&format!("general.sampling.{key}")), said, "{}", stderr(&output));
    }
}

/// An answer follows a prompt, which therefore does not end with EOS.
#[test]
fn a_prompt_gets_no_end() {
    let f = Folder::new();
    let answer = |adds: bool| {
        let mut g = Tiny::default().gguf();
        g.set("tokenizer.ggml.add_eos_token", Val::Raw(7, vec![u8::from(adds)]));
        let model = f.write("model.gguf", &g.build());
        ok(&["complete", "-m", &model, "-p", "AB", "-n", "8", "--temp", "0"])
    };
    assert_eq!(answer(true), answer(false));
}

#[test]
fn suppressed_tokens_are_never_generated() {
    let f = Folder::new();
    let g = Tiny::default().gguf();
    let generate = |suppressed: Vec<i32>, temperature: &str| {
        let model =
            f.write("model.gguf", &g.clone().set("tokenizer.ggml.suppress_tokens", Val::I32s(suppressed)).build());
        ok(&["complete", "-m", &model, "-p", "A", "-n", "24", "--temp", temperature, "--seed", "1"])
    };
    // Token 11 ends an answer. Then whatever was generated is suppressed, too.
    for temperature in ["0", "1"] {
        let text = generate(vec![11], temperature);
        let id = |byte: u8| i32::from(byte) - 33;
        let first: Vec<i32> = text.trim_end().bytes().map(id).collect();
        assert!(first.iter().all(|id| (0..67).contains(id) && *id != 11), "{text}");
        let text = generate([&first[..], &[11]].concat(), temperature);
        let second: Vec<i32> = text.trim_end().bytes().map(id).filter(|own| *own != id(b'A')).collect();
        assert!(second.len() >= 20 && !second.iter().any(|id| first.contains(id)), "{first:?} {second:?}");
    }
}
