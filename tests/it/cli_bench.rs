//! `armlet bench` as a user sees it.

use crate::cli::{Folder, armlet, fails_with, ok, stderr, tiny};
use crate::common::gguf::byte_level_model;

#[test]
fn bench_has_llama_benchs_keys_and_rows() {
    let f = Folder::new();
    let model = tiny(&f);
    let json = ok(&["bench", "-m", &model, "-p", "16", "-n", "4", "-r", "2", "-t", "2", "-o", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    for (row, test) in rows.as_array().unwrap().iter().zip(["pp16", "tg4"]) {
        assert_eq!(row["test"], test);
        for key in ["model_filename", "model_type", "n_threads", "n_prompt", "n_gen", "avg_ns", "avg_ts", "stddev_ts"] {
            assert!(!row[key].is_null(), "{key}");
        }
        assert_eq!(row["samples_ts"].as_array().unwrap().len(), 2);
        assert!(row["read_bandwidth"].as_f64().unwrap() > 1e8 && row["bytes_per_token"].as_u64().unwrap() > 0);
        assert_eq!(row["bandwidth_fraction"].is_null(), test == "pp16");
    }
    assert!(ok(&["bench", "-m", &model, "-p", "16", "-n", "0", "-r", "1"]).contains("| pp16 |"));
    let several =
        ["bench", "-m", &model, "-p", "4,8", "-n", "0", "-pg", "6,2", "-d", "0,16", "-r", "1", "-t", "1", "-o"];
    let lines = |output| ok(&[&several[..], &[output]].concat()).lines().map(String::from).collect::<Vec<_>>();
    let names = ["pp4", "pp8", "pp6+tg2", "pp4 @ d16", "pp8 @ d16", "pp6+tg2 @ d16"];
    let jsonl =
        lines("jsonl").iter().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>();
    assert_eq!(jsonl.iter().map(|row| row["test"].as_str().unwrap()).collect::<Vec<_>>(), names);
    assert_eq!((&jsonl[5]["n_prompt"], &jsonl[5]["n_gen"], &jsonl[5]["n_depth"]), (&6.into(), &2.into(), &16.into()));
    let csv = lines("csv");
    let keys = jsonl[0].as_object().unwrap();
    assert_eq!(csv[0], keys.keys().cloned().collect::<Vec<_>>().join(","));
    assert!(
        csv.len() == 7 && csv.iter().zip(names.iter()).skip(1).all(|(row, _)| row.matches("\"").count() >= 10),
        "{csv:?}"
    );
    let sql = lines("sql");
    assert!(sql.len() == 7 && sql[0].starts_with("CREATE TABLE IF NOT EXISTS llama_bench (build_commit, "), "{sql:?}");
    assert!(sql[6].contains("'pp6+tg2 @ d16'") && sql[6].contains(",NULL,"), "{}", sql[6]);
    fails_with(&["bench", "-m", &model, "-p", "0", "-n", "0"], 2, "nothing to measure");
}

#[test]
fn a_report_is_for_an_issue_and_names_nobody() {
    let f = Folder::new();
    let models = [tiny(&f), f.write("other.gguf", &byte_level_model(2))];
    let bench = ["bench", "-m", &models[0], "-m", &models[1], "-p", "8", "-n", "2", "-r", "1", "-t", "1"];
    let rows: serde_json::Value = serde_json::from_str(&ok(&[&bench[..], &["-o", "json"]].concat())).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 4, "two tests of each model");
    let report = ok(&[&bench[..], &["--report"]].concat());
    let has = |line: &str| assert!(report.contains(line), "{line:?} is not in\n{report}");
    for row in ["armlet", "board", "CPU", "features", "backend", "kernel", "memory", "temperature", "other load"] {
        has(&format!("\n| {row} | "));
    }
    has(&format!("| armlet | {} (commit ", env!("CARGO_PKG_VERSION")));
    assert_eq!((report.matches("| pp8 |").count(), report.matches("| tg2 |").count()), (2, 2), "{report}");
    // Lines of one table have as many cells.
    let cells: std::collections::BTreeSet<_> =
        report.lines().filter(|l| l.starts_with("| ")).map(|l| l.matches('|').count()).collect();
    assert_eq!(cells.into_iter().collect::<Vec<_>>(), [3, 8]);
    assert!(!report.contains(f.0.path().to_str().unwrap()) && !report.contains(".gguf"), "{report}");
    let both = armlet().args(bench).args(["--report", "-o", "json"]).output().unwrap();
    assert!(both.status.code() == Some(2) && stderr(&both).contains("cannot be used with '--output"));
    fails_with(&[&bench[..], &["--compare-mha"]].concat(), 2, "--compare-mha takes one model");
    fails_with(&["bench", "-m", &models[0], "--compare-mha", "-o", "csv"], 2, "writes md and json");
}

#[test]
fn bench_compares_with_multi_head_attention() {
    let f = Folder::new();
    let model = tiny(&f);
    let text = ok(&["bench", "-m", &model, "--compare-mha", "-r", "1", "-o", "json"]);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let sessions = |i: usize| found["sides"][i]["sessions"].as_u64().unwrap();
    assert_eq!((found["identical_logits"].as_bool(), sessions(0), sessions(1)), (Some(true), 8, 16));
}
