//! `armlet plan`: what a model needs, on one board and on several.

use crate::cli::{Folder, armlet, fails_with, ok, stderr, tiny};
use crate::common::gguf::Tiny;

#[test]
fn plan_says_what_is_needed() {
    let f = Folder::new();
    let model = tiny(&f);
    let svg = f.name("plan.svg");
    let text = ok(&["plan", "-m", &model, "--kv-budget", "64KiB", "--sessions", "2", "--json", "--svg", &svg]);
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    let attention = plan["attention"].as_array().unwrap();
    let sessions: Vec<u64> = attention.iter().map(|a| a["sessions"].as_u64().unwrap()).collect();
    assert!(sessions[1] >= 2 && sessions.is_sorted(), "{plan}");
    assert!(2 * plan["session"].as_u64().unwrap() <= 64 << 10);
    let heads =
        |i: usize| attention[i]["kv_heads"].as_u64().unwrap() * attention[2]["bytes_per_token"].as_u64().unwrap();
    assert!((0..3).all(|i| attention[i]["bytes_per_token"].as_u64() == Some(heads(i))));
    let drawing = std::fs::read_to_string(&svg).unwrap();
    assert!(drawing.starts_with("<svg") && drawing.matches("<polyline").count() == 3);
    for text in
        ["tiny: llama F32, KV cache of f16", "memory of a session", "context, tokens", ">budget 64 KiB<", ">32 KiB<"]
    {
        assert!(drawing.contains(text), "{text}");
    }
    // Nobody set one.
    ok(&["plan", "-m", &model, "--svg", &svg]);
    assert!(!std::fs::read_to_string(&svg).unwrap().contains("budget"));
    assert!(ok(&["plan", "-m", &model]).contains("| GQA, as trained | 2 |"));
    fails_with(&["plan", "-m", &model, "--kv-budget", "10"], 1, "too small: the smallest context, 5 tokens, needs");
    fails_with(&["plan", "-m", &model, "-c", "64", "--sinks", "64"], 1, "sinks must be from 0 to 63");
    let striped = armlet().args(["plan", "-m", &model, "--pattern", "striped"]).output().unwrap();
    assert!(striped.status.code() == Some(2) && stderr(&striped).contains("strided:N"));
}

/// A small model is not worth several boards; what travels is counted; and some splits cannot have so many boards.
#[test]
fn plan_says_what_boards_would_make_of_a_model() {
    let f = Folder::new();
    let model = tiny(&f);
    let text = ok(&["plan", "-m", &model, "--boards", "2", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    let splits = plan["boards"]["splits"].as_array().unwrap();
    let of = |key: &str| splits.iter().map(|s| s[key].as_u64()).collect::<Vec<_>>();
    assert_eq!(
        splits.iter().map(|s| s["split"].as_str().unwrap()).collect::<Vec<_>>(),
        ["none", "layers", "rows", "tokens"]
    );
    // Two layers, four gathers each; a context of 256 is one leaf.
    assert_eq!(of("exchanges_per_token"), [Some(0), Some(3), Some(10), None]);
    assert_eq!(splits[3]["error"], "2 boards: a split by tokens has no use for more than 1");
    // Floats of the second board, which has more: 32 of attention, twice 32 of the residual stream, and 64; and 35 logits.
    assert_eq!(of("bytes_per_token"), [Some(0), Some(2 * 4 * 64), Some(2 * 4 * (32 + 64 + 64) + 4 * 35), None]);
    // Of 5 leaves the first board has 3, a block each; a sum has 64 numbers, and two more for each of 4 heads.
    let long = f.write("long.gguf", &Tiny { context: 9000, ..Tiny::default() }.gguf().build());
    let text = ok(&["plan", "-m", &long, "--boards", "2", "-c", "9000", "--json"]);
    let plan_of_long: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plan_of_long["boards"]["splits"][3]["bytes_per_token"].as_u64(), Some(2 * 3 * 4 * (64 + 2 * 4)));
    let (weights, session) = (of("weights"), of("session"));
    assert!(2 * session[2].unwrap() == session[0].unwrap() && 2 * session[1].unwrap() == session[0].unwrap());
    assert!(weights[2] < weights[0] && weights[1] < weights[0]);
    assert!(plan["boards"]["advice"].as_str().unwrap().starts_with("Take one board"));
    // Where the network costs nothing and memory is slow, rows are twice as fast, or nearly.
    let fast = ["plan", "-m", &model, "--boards", "2", "--net", "1000gbit,0.001us", "--memory-speed", "1MB"];
    assert!(ok(&fast).contains("By rows an answer comes 2.0 times as fast"));
    assert!(ok(&["plan", "-m", &model, "--boards", "3"]).contains("a split by rows has no use for more than 2 |"));
    for wrong in
        [&["--boards", "1"][..], &["--boards", "2", "--net", "fast"], &["--net", "1gbit,1ms"], &["--shares", "1,2"]]
    {
        let output = armlet().args([&["plan", "-m", &model][..], wrong].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

/// Boards that are not alike: the faster has more, and an answer waits for none longer than for another.
#[test]
fn plan_says_what_uneven_boards_would_make_of_a_model() {
    let f = Folder::new();
    let sizes = Tiny { n_embd: 256, n_ff: 512, n_kv_heads: 4, ..Tiny::default() };
    let model = f.write("uneven.gguf", &sizes.gguf().build());
    let plan = |more: &[&str]| {
        let memory = ["--net", "1000gbit,0.001us", "--memory-speed", "3MB,1MB"];
        let text = ok(&[&["plan", "-m", &model, "--boards", "2", "--json"][..], &memory, more].concat());
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["boards"].take()
    };
    let (even, auto) = (plan(&[]), plan(&["--shares", "auto"]));
    assert_eq!((&even["shares"], &auto["shares"]), (&"1,1".into(), &"16,5".into()));
    let rows = |plan: &serde_json::Value, key: &str| plan["splits"][2][key].as_f64().unwrap();
    assert!(rows(&auto, "ms_per_token") < 0.8 * rows(&even, "ms_per_token"), "{even} {auto}");
    assert!(rows(&auto, "weights") > rows(&even, "weights"));
    assert_eq!(plan(&["--shares", "16,5"]), auto);
    let given = ["plan", "-m", &model, "--boards", "2", "--shares"];
    assert!(ok(&[&given[..], &["2,1"]].concat()).contains("2 boards in shares of 2,1 that read 11.0 GB/s"));
    let wrong = [
        (&["1,2,3"][..], "--shares 1,2,3: 3 shares, and 2 boards"),
        (&["2,1", "--memory-speed", "1GB,2GB,3GB"], "--memory-speed: 3 speeds, and 2 boards"),
        (&["0,1"], "\"0\" is not from 1 to 255, as each share is"),
        (&["0,0"], "\"0\" is not from 1 to 255, as each share is"),
        (&["200,100"], "they come to 300, and may come to 255"),
    ];
    for (wrong, why) in wrong {
        let output = armlet().args([&given[..], wrong].concat()).output().unwrap();
        assert!(output.status.code() == Some(2) && stderr(&output).contains(why), "{wrong:?}: {}", stderr(&output));
    }
}
