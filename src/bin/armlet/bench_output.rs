//! What `armlet bench` measured, for programs: one object for each test, in the forms of llama-bench.

use std::io::IsTerminal;

use serde_json::{Value, json};

use crate::args::Output;
use crate::error::{Failure, print, print_json};
use crate::visible;

/// Prints the objects of all tests, which have the same keys.
pub(crate) fn print_all(output: Output, tests: Vec<Value>) -> Result<(), Failure> {
    match output {
        Output::Csv => lines(&csv(&tests)),
        Output::Sql => lines(&sql(&tests)),
        Output::Jsonl => tests.iter().try_for_each(|test| print_json(test, false)),
        Output::Json | Output::Md => print_json(&Value::Array(tests), true),
    }
}

/// Prints lines: as they are, but what would act on a terminal, as the name of a stranger's file may, is made visible on one.
fn lines(text: &str) -> Result<(), Failure> {
    if std::io::stdout().is_terminal() { print(visible::text(text).as_bytes()) } else { print(text.as_bytes()) }
}

/// What llama-bench says of its settings beyond what was measured: what scripts that read its objects ask for, as it is here. The
/// model's file is there by `load_mode`.
pub(crate) fn of_llama_bench(load_mode: &str) -> Value {
    json!({
        "cpu_mask": "0x0",
        "cpu_strict": false,
        "poll": 50,
        "n_gpu_layers": 0,
        "n_cpu_moe": 0,
        "split_mode": "none",
        "main_gpu": 0,
        "no_kv_offload": false,
        "flash_attn": 1,
        "devices": "none",
        "tensor_split": "0.00",
        "tensor_buft_overrides": "none",
        "use_mmap": load_mode == "mmap",
        "load_mode": load_mode,
        "embeddings": false,
        "no_op_offload": 0,
        "fit_target": 0,
        "fit_min_ctx": 0,
    })
}

/// The cells of a row: numbers as they are, texts and lists as `text` writes them, `nothing` where there is no value.
fn cells(test: &Value, nothing: &str, text: impl Fn(&str) -> String) -> String {
    let cell = |value: &Value| match value {
        Value::Null => nothing.into(),
        Value::Number(number) => number.to_string(),
        Value::String(string) => text(string),
        other => text(&other.to_string()),
    };
    let cells: Vec<_> = test.as_object().into_iter().flatten().map(|(_, value)| cell(value)).collect();
    cells.join(",")
}

fn names(tests: &[Value]) -> Vec<&str> {
    tests.first().and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

/// RFC 4180, with a line for the names.
fn csv(tests: &[Value]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let rows = tests.iter().map(|test| cells(test, "", quoted));
    std::iter::once(names(tests).join(",")).chain(rows).map(|line| line + "\n").collect()
}

/// Statements for SQLite.
fn sql(tests: &[Value]) -> String {
    let columns = names(tests).join(", ");
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let row = |test: &Value| format!("INSERT INTO llama_bench ({columns}) VALUES ({});\n", cells(test, "NULL", quoted));
    let table = format!("CREATE TABLE IF NOT EXISTS llama_bench ({columns});\n");
    std::iter::once(table).chain(tests.iter().map(row)).collect()
}
