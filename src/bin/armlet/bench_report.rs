//! `armlet bench --report`: what a board's owner can paste into an issue, in Markdown.
//!
//! It says what a speed depends on and nothing of whose machine it is: no host name, no path of a file.

use armlet::arch::Backend;

use crate::doctor::advice::advice;
use crate::doctor::report::{kernel, memory, of_kind};
use crate::doctor::system::System;
use crate::visible;

/// The commit that this was built of; those who package it say so.
pub(crate) const COMMIT: Option<&str> = option_env!("ARMLET_COMMIT");

/// The machine as it was before and after the measurement, and what was measured.
pub(crate) fn text(before: &System, after: &System, backend: Backend, measured: &str) -> String {
    let unknown = || "unknown".to_string();
    let commit = COMMIT.map_or_else(|| "commit unknown".into(), |commit| format!("commit {commit}"));
    let mut rows = vec![
        ("armlet", format!("{} ({commit}, {})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)),
        ("board", before.board.clone().unwrap_or_else(unknown)),
    ];
    rows.extend(before.kinds().iter().map(|kind| ("CPU", of_kind(kind))));
    rows.extend([
        ("features", before.features.join(", ")),
        ("backend", backend.name().into()),
        ("kernel", kernel(before)),
        ("memory", memory(before, rustix::param::page_size())),
        ("temperature", both(before.temperature, after.temperature, |t| format!("{t:.0} °C"))),
        ("throttling", both(before.throttled, after.throttled, throttling)),
    ]);
    if let Some((_, settings)) = &before.config {
        let settings: Vec<_> = settings.iter().map(|s| format!("{}={}", s.key, s.value)).collect();
        let settings = if settings.is_empty() { "nothing that changes speed".into() } else { settings.join(", ") };
        rows.push(("config.txt", settings));
    }
    rows.push(("other load", before.load.map_or_else(unknown, |load| format!("{load:.2}"))));

    let mut out = String::from("| | |\n| --- | --- |\n");
    rows.iter().for_each(|(name, text)| out += &format!("| {name} | {} |\n", cell(text)));
    out += &format!("\n{measured}");
    // As it was after the measurement: what slowed it down may only have come by then.
    let advice = advice(after, backend);
    if !advice.is_empty() {
        out.push('\n');
        advice.iter().for_each(|advice| out += &format!("- {}\n", visible::line(advice)));
    }
    out
}

fn throttling(flags: u32) -> String {
    if flags == 0 { "none since the start".into() } else { format!("flags {flags:#x}") }
}

/// What a sensor said before and after.
fn both<T: Copy>(before: Option<T>, after: Option<T>, shown: impl Fn(T) -> String) -> String {
    let shown = |value: Option<T>| value.map_or("unknown".into(), &shown);
    if before.is_none() && after.is_none() {
        return "not given by this system".into();
    }
    format!("{} before, {} after", shown(before), shown(after))
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    visible::line(text).replace('|', "\\|")
}
