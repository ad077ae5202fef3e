//! Responses that come at once.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// A JSON value.
pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// The same, of a request that went well.
pub(super) fn ok(value: &Value) -> Response {
    json(StatusCode::OK, value)
}
