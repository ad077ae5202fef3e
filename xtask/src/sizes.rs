//! `cargo xtask sizes`: what each weight format adds to a firmware image, to `benches/record/sizes.md`.

use crate::firmware::{ARMV8, Build, DOTPROD};
use crate::formats;
use crate::process::{Failed, Steps, in_parallel, record, say};
use crate::setup;

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    setup::tools(steps)?;
    let names: Vec<String> = formats::all()?.into_iter().filter(|f| !f.is_float).map(|f| f.name).collect();
    // Floats are in every build; the smallest one has one more format.
    let features: Vec<String> = names.iter().map(|name| format!(",{name}")).collect();
    let everything = format!("{},panels", features.concat());
    let mut rows = Vec::new();
    steps.step("the library with each format", || {
        let chosen: Vec<(&str, &str)> =
            names.iter().map(String::as_str).zip(features.iter().map(String::as_str)).collect();
        let all = [("Q8_0, Q4_0, Q4_1: the default", ""), ("every format, packed too", &everything)];
        // Each is one thread for most of its time, and each list has a folder of its own.
        let sizes = in_parallel(&[ARMV8, DOTPROD], |flags| {
            let name = format!("sizes-{}", flags.name);
            let build = |(_, formats): &(&str, &str)| {
                let build = Build { name: &name, formats, ..*flags };
                build.build()?;
                Ok(build.whole()?.code_bytes())
            };
            chosen.iter().chain(&all).map(build).collect::<Result<Vec<_>, _>>()
        })?;
        for (i, (name, _)) in chosen.iter().chain(&all).enumerate() {
            let name = if i < chosen.len() { name.to_uppercase() } else { name.to_string() };
            rows.push(format!("| {name} | {} | {} |\n", sizes[0][i], sizes[1][i]));
        }
        Ok(())
    })?;
    let head = "Bytes of code and read-only data of the library for firmware with these weight formats alone, beside floats.\n\n\
        | formats | Armv8.0 | with the dot product |\n|---|---:|---:|\n";
    let text = format!("{head}{}", rows.concat());
    say(format!("\n{text}"));
    record(
        "sizes",
        "Size of the library for firmware by weight format",
        "`aarch64-unknown-none`, profile `firmware`",
        &text,
    )
}
