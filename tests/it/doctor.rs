//! `armlet doctor` on this machine, and the number of threads that it leaves for other commands.

use crate::cli::{Folder, armlet, fails, fails_with, ok, stderr, tiny};

fn json(command: &mut std::process::Command) -> serde_json::Value {
    let output = command.arg("--json").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn doctor_measures_once_and_others_use_it() {
    let f = Folder::new();
    let (model, cache) = (tiny(&f), f.name("cache"));
    let doctor = |options: &[&str]| {
        let mut command = armlet();
        command.env("ARMLET_CACHE", &cache).args(["doctor", "-m", &model]).args(options);
        json(&mut command)
    };
    let before = doctor(&["--no-measure"]);
    assert!(!f.path("cache").exists() && before["bandwidth"].is_null());
    assert!(before["threads_because"].as_str().unwrap().starts_with("by the cores"), "{before}");

    let found = doctor(&["--keep"]);
    assert_eq!(found["threads_because"], "as measured, and kept for this machine");
    let threads = found["threads"].as_u64().unwrap();
    let decode = found["model"]["decode"].as_array().unwrap();
    assert!((1..=decode.len() as u64).contains(&threads), "{found}");
    assert!(decode.iter().all(|rate| rate["tokens_per_second"].as_f64().unwrap() > 0.0), "{found}");
    let bytes = found["known_models"][0]["bytes_per_token"].as_f64().unwrap();
    assert_eq!(found["known_models"][0]["name"], "tiny");
    // Memory too small for the measurement is said as such.
    if let Some(bandwidth) = found["bandwidth"].as_array() {
        let best = bandwidth.iter().map(|rate| rate["bytes_per_second"].as_f64().unwrap()).fold(0.0, f64::max);
        let most = found["known_models"][0]["most_tokens_per_second"].as_f64().unwrap();
        assert!((most * bytes / best - 1.0).abs() < 1e-9, "{found}");
    }
    let after = doctor(&["--no-measure"]);
    assert_eq!((after["threads"].as_u64(), &after["threads_because"]), (Some(threads), &"as measured earlier".into()));

    // What was measured is what the others take.
    let file = std::fs::read_dir(f.path("cache")).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    let cpus = std::thread::available_parallelism().unwrap().get();
    for wanted in [1, cpus] {
        let (_, machine) = text.split_once('\n').unwrap();
        std::fs::write(&file, format!("{wanted}\n{machine}")).unwrap();
        let mut bench = armlet();
        bench.env("ARMLET_CACHE", &cache).args(["bench", "-m", &model, "-p", "4", "-n", "0", "-r", "1", "-o", "json"]);
        let rows: serde_json::Value = serde_json::from_slice(&bench.output().unwrap().stdout).unwrap();
        assert_eq!(rows[0]["n_threads"], wanted);
    }
}

#[test]
fn doctor_says_in_words_what_the_system_says() {
    let f = Folder::new();
    let doctor = |cpu: &str| {
        let mut command = armlet();
        command.env("ARMLET_CACHE", f.path("none")).args(["doctor", "--no-measure"]);
        command.env("ARMLET_CPU", cpu).output().unwrap()
    };
    let output = doctor("scalar");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("backend      scalar: ARMLET_CPU asks for it\n"), "{text}");
    assert!(
        text.contains("bandwidth    not measured\n") && text.contains("could reach  smollm2: 98 MB a token\n"),
        "{text}"
    );
    assert!(!text.contains("\nmodel ") && text.contains("advice       this CPU runs portable code only"), "{text}");
    assert!(doctor("").status.success());
    fails(&doctor("z80"), 2, "ARMLET_CPU=z80 is not a backend");
    fails_with(&["doctor", "-m", "/nowhere.gguf"], 1, "no such file");
    fails_with(&["doctor", "-m", &f.write("x.gguf", b"GGUF")], 1, "truncated");
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let f = Folder::new();
    ok(&["manual", f.0.path().to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(f.path(name)).unwrap();
    assert!(page("armlet.1").contains(".TH armlet 1") && page("armlet.1").contains("armlet\\-chat(1)"));
    assert!(page("armlet-chat.1").contains("\\-\\-session") && page("armlet-doctor.1").contains("\\-\\-no\\-measure"));
    assert!(!f.path("armlet-manual.1").exists(), "a command for packagers");
    fails_with(&["manual", "/nowhere/folder"], 1, "/nowhere/folder");
}
