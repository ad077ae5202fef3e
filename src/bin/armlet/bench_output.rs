//! What `armlet bench` measured, for programs: one object for each test, in the forms of llama-bench.

use serde_json::Value;

use crate::args::Output;
use crate::error::{Failure, print, print_json};

/// Prints the objects of all tests, which have the same keys.
pub(crate) fn print_all(output: Output, tests: Vec<Value>) -> Result<(), Failure> {
    match output {
        Output::Csv => print(csv(&tests).as_bytes()),
        Output::Sql => print(sql(&tests).as_bytes()),
        Output::Jsonl => tests.iter().try_for_each(|test| print_json(test, false)),
        Output::Json | Output::Md => print_json(&Value::Array(tests), true),
    }
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
