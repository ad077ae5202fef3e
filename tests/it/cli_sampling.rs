//! Options of sampling, as a user sees them.

use crate::cli::{Folder, armlet, fails_with, ok, stderr};
use crate::common::gguf::byte_level_model;

/// A greedy answer of 24 tokens with these options, and why it ended.
fn answer(model: &str, options: &[&str]) -> (String, String) {
    let args = ["complete", "-m", model, "-p", "ABC", "-n", "24", "--temp", "0", "-t", "1", "--json"];
    let json: serde_json::Value = serde_json::from_str(&ok(&[&args, options].concat())).unwrap();
    let text = |key: &str| json[key].as_str().unwrap().to_string();
    (text("text"), text("stop"))
}

fn model(folder: &Folder) -> String {
    folder.write("model.gguf", &byte_level_model(3))
}

#[test]
fn a_stop_text_ends_an_answer() {
    let f = Folder::new();
    let model = model(&f);
    let (whole, end) = answer(&model, &[]);
    assert_eq!(end, "length");
    let characters: Vec<char> = whole.chars().collect();
    let stop: String = characters[3..5].iter().collect();
    let before = &whole[..whole.find(&stop).unwrap()];
    for options in [["--stop", &stop], ["-r", &stop], ["--reverse-prompt", &stop]] {
        assert_eq!(answer(&model, &options), (before.into(), "stop".into()));
    }
    assert_eq!(answer(&model, &["--stop", "not there", "--stop", &stop]).0, before);
    fails_with(&["complete", "-m", &model, "-p", "A", "--stop", ""], 1, "--stop");
    fails_with(&["complete", "-m", &model, "-p", "A", "--stop", &"x".repeat(257)], 1, "256 bytes");
}

#[test]
fn a_bias_forbids_or_forces_a_token() {
    let f = Folder::new();
    let model = model(&f);
    // Byte tokens: `z` is 122.
    assert_eq!(answer(&model, &["--logit-bias", "122+1000"]).0, "z".repeat(24));
    let (whole, _) = answer(&model, &[]);
    let forbidden = whole.bytes().find(u8::is_ascii).unwrap();
    let (text, _) = answer(&model, &["--logit-bias", &format!("{forbidden}-inf")]);
    assert!(!text.contains(char::from(forbidden)) && text != whole);
    fails_with(&["complete", "-m", &model, "-p", "A", "--logit-bias", "999+1"], 1, "not in the vocabulary of 259");
    let usage = armlet().args(["complete", "-m", &model, "-p", "A", "--logit-bias", "12"]).output().unwrap();
    assert!(usage.status.code() == Some(2) && stderr(&usage).contains("such as 15043+1"), "{}", stderr(&usage));
}

/// The tiny model's end of text is token 258; forced, it ends an answer at once, unless it is ignored.
#[test]
fn an_answer_goes_on_where_its_end_is_ignored() {
    let f = Folder::new();
    let model = model(&f);
    let forced = ["--logit-bias", "257+1000", "--logit-bias", "258+1000"];
    let (text, end) = answer(&model, &forced);
    assert_eq!((text.as_str(), end.as_str()), ("", "stop"));
    let (_, end) = answer(&model, &[&forced[..], &["--ignore-eos"]].concat());
    assert_eq!(end, "length");
    assert_eq!(answer(&model, &["--ignore-eos"]).1, "length");
}

#[test]
fn escapes_are_read_where_that_is_asked() {
    let f = Folder::new();
    let model = model(&f);
    let ids = |options: &[&str]| ok(&[&["tokenize", "--ids", "-m", &model][..], options].concat());
    assert_eq!(ids(&["-e", "-p", r"A\n\x42"]), ids(&["-p", "A\nB"]));
    assert_ne!(ids(&["-p", r"A\n"]), ids(&["-e", "-p", r"A\n"]));
    fails_with(&["complete", "-m", &model, "-e", "-p", r"\xff"], 1, "not UTF-8");
    let chat =
        |options: &[&str]| ok(&[&["chat", "-m", &model, "-p", "Hi", "-n", "8", "--temp", "0"][..], options].concat());
    let file = f.write("system.txt", b"Be\nbrief.\n");
    assert_eq!(chat(&["-sysf", &file]), chat(&["-sys", "Be\nbrief."]));
    assert_eq!(chat(&["-e", "--system", r"Be\nbrief."]), chat(&["-sys", "Be\nbrief."]));
    assert_ne!(chat(&["-sysf", &file]), chat(&[]));
    fails_with(&["chat", "-m", &model, "--system-file", "-"], 2, "cannot both come from stdin");
}

#[test]
fn penalties_weaken_what_came() {
    let f = Folder::new();
    let model = model(&f);
    let forced = ["--logit-bias", "122+50", "--logit-bias", "121+49.5"];
    // z is ahead of y by half a logit more than the model says, until it has come often enough.
    let with = |options: &[&str]| answer(&model, &[&forced[..], options].concat()).0;
    let distinct = |text: &str| text.chars().collect::<std::collections::BTreeSet<_>>().len();
    let plain = with(&[]);
    assert!(distinct(&plain) <= 2, "{plain}");
    // 50 is not enough to bring z back after 2 × 2 × 24.
    for options in [["--frequency-penalty", "2"], ["--repeat-penalty", "100"]] {
        assert!(with(&options) != plain, "{options:?}");
    }
    assert_ne!(with(&["--presence-penalty", "2"]), with(&["--presence-penalty", "-2"]));
    // A run of one token is a repetition.
    let dry = with(&["--dry-multiplier", "10", "--dry-base", "4"]);
    assert!(distinct(&dry) > distinct(&plain) || !dry.contains("zzzzz"), "{dry}");
    assert_eq!(with(&["--dry-multiplier", "10", "--dry-penalty-last-n", "0"]), plain);
    assert_eq!(with(&["--dry-multiplier", "10", "--dry-sequence-breaker", "z", "--dry-sequence-breaker", "y"]), plain);
}

#[test]
fn speculation_shows_in_nothing_but_its_count() {
    let f = Folder::new();
    let model = model(&f);
    // z, whatever the model says: it repeats itself.
    let always = ["--temp", "0", "--logit-bias", "122+1000"];
    let seeded = ["--temp", "0.5", "--seed", "3", "--repeat-penalty", "1"];
    for options in [&always[..], &seeded] {
        let [off, auto, two] = ["off", "auto", "2"].map(|speculate| {
            let args = ["complete", "-m", &model, "-p", "abcabcabc", "-n", "40", "--json", "--speculate", speculate];
            serde_json::from_str::<serde_json::Value>(&ok(&[&args, options].concat())).unwrap()
        });
        assert_eq!([&auto["text"], &two["text"]], [&off["text"]; 2]);
        assert_eq!(off["timings"]["draft_n"], 0);
        let count = |key: &str| auto["timings"][key].as_u64().unwrap();
        let (drafted, accepted) = (count("draft_n"), count("draft_n_accepted"));
        assert!(accepted <= drafted && (options != always || accepted > 20), "{auto}");
    }
    let usage = armlet().args(["complete", "-m", &model, "-p", "A", "--speculate", "8"]).output().unwrap();
    assert!(usage.status.code() == Some(2) && stderr(&usage).contains("from 0 to 7"), "{}", stderr(&usage));
}
