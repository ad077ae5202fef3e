//! `cargo xtask answers`: what it costs to keep an answer to a schema, and what drafts gain: ratios of tokens per second, by
//! `benches/answers`.

use std::process::Command;

use crate::model::{native_program, shipped};
use crate::process::{Failed, Steps, output, record, root, say};
use crate::setup;

const ABOUT: &str = "\
SmolLM2-135M Q4_1, `--temp 0`, two threads. Ratios of tokens per second of an answer, of two commands that ran in turn nine times:
the median, the least and the most. Both answers have as many tokens, and those that drafts are measured by are the same with and
without them.

| answer | asked | median | least | most | tokens |
|---|---|---:|---:|---:|---:|
";

/// # Errors
/// What could not be run, or two answers that had to be the same.
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    setup::program(steps)?;
    steps.step("pairs of answers", || {
        let script = root().join("benches/answers/measure.py");
        let rows = output(Command::new("python3").arg(script).arg(native_program()).arg(shipped()?))?;
        say(&rows);
        record("answers", "Schemas and drafts", "`release`", &format!("{ABOUT}{rows}"))
    })
}
