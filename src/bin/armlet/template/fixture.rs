//! A conversation for tests.

use serde_json::{Value as Json, json};

use super::engine::Job;

/// A job with one message of a user, `hi there`.
pub(super) fn job(template: &str) -> Job {
    let mut variables = serde_json::Map::new();
    variables.insert("tools".into(), Json::Null);
    Job {
        template: template.into(),
        messages: vec![json!({ "role": "user", "content": "hi there" })],
        variables,
        now: "2026-07-06T05:04:03.002001".parse().unwrap(),
        stand_ins: "\u{f0000}".into(),
    }
}

pub(super) fn text(template: &str) -> Result<String, String> {
    job(template).render().map_err(|e| e.to_string())
}
