//! What the server counts.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that others read while it changes.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Relaxed);
    }

    pub(super) fn subtract(&self, n: usize) {
        self.0.fetch_sub(n as u64, Relaxed);
    }

    pub(super) fn set(&self, n: usize) {
        self.0.store(n as u64, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counters, which only grow, and gauges.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) requests: Count,
    pub(super) refused: Count,
    pub(super) answers: Count,
    pub(super) cancelled: Count,
    pub(super) failed: Count,
    /// Tokens of prompts that were read.
    pub(super) prefilled: Count,
    /// Tokens of prompts that a slot had already.
    pub(super) cached: Count,
    /// Tokens of answers.
    pub(super) predicted: Count,
    /// Tokens that were read in advance, and those of them that answers then had.
    pub(super) drafted: Count,
    pub(super) accepted: Count,
    /// Microseconds from requests to the ends of their answers.
    busy: Count,
    pub(super) running: Count,
    pub(super) waiting: Count,
    pub(super) connections: Count,
}

impl Metrics {
    /// An answer has ended after so long.
    pub(super) fn answered(&self, time: Duration) {
        self.answers.add(1);
        self.busy.add(usize::try_from(time.as_micros()).unwrap_or(usize::MAX));
    }

    /// Seconds after which one of `slots` should be free, by the answers so far.
    pub(super) fn retry_after(&self, slots: usize) -> u32 {
        let each = self.busy.get() / self.answers.get().max(1) / 1_000_000;
        (each / slots.max(1) as u64).clamp(1, 60) as u32
    }

    /// In Prometheus' text format 0.0.4.
    pub(super) fn text(&self, slots: usize) -> String {
        let mut out = String::new();
        let mut line = |name: &str, kind: &str, help: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP armlet_{name} {help}\n# TYPE armlet_{name} {kind}\narmlet_{name} {value}");
        };
        let seconds = self.busy.get() as f64 / 1e6;
        for (name, help, count) in [
            ("requests_total", "HTTP requests.", &self.requests),
            ("requests_refused_total", "Requests answered with a status of 400 or more.", &self.refused),
            ("answers_total", "Answers that came to their ends.", &self.answers),
            ("answers_cancelled_total", "Answers whose clients were gone, or took nothing.", &self.cancelled),
            ("answers_failed_total", "Answers that failed.", &self.failed),
            ("prompt_tokens_total", "Tokens of prompts that were read.", &self.prefilled),
            ("prompt_tokens_cached_total", "Tokens of prompts that a slot had already.", &self.cached),
            ("predicted_tokens_total", "Tokens of answers that came to their ends.", &self.predicted),
            ("draft_tokens_total", "Tokens that were read in advance of these answers.", &self.drafted),
            ("draft_tokens_accepted_total", "Those of them that the answers then had.", &self.accepted),
        ] {
            line(name, "counter", help, count.get().to_string());
        }
        line(
            "answer_seconds_total",
            "counter",
            "Seconds from requests to the ends of their answers.",
            seconds.to_string(),
        );
        for (name, help, value) in [
            ("requests_running", "Requests in slots.", self.running.get()),
            ("requests_waiting", "Requests in the queue.", self.waiting.get()),
            ("slots", "Slots.", slots as u64),
            ("connections", "Open connections.", self.connections.get()),
        ] {
            line(name, "gauge", help, value.to_string());
        }
        out
    }
}
