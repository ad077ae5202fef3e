//! What is wrong with a request, and how the API says so.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// What an API calls what a request is refused for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// What the prompt is made of.
    pub(super) prompt: &'static str,
    /// What an answer may be.
    pub(super) form: &'static str,
    /// The schema of arguments, in a tool.
    pub(super) parameters: &'static str,
}

/// Why a request is not answered: a status, and what OpenAI's API says beside it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The field that is wrong.
    param: Option<String>,
    code: Option<&'static str>,
    /// Seconds after which to try again.
    pub(super) retry_after: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Problem { status, message: cut(message.into()), param: None, code: None, retry_after: None }
    }

    /// The request is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field that changes the answer, and is not implemented, or not with this value.
    pub(super) fn unsupported(param: &str, what: &str) -> Self {
        Self::invalid(format!("'{param}' is not supported{what}")).of(param).code("unsupported_parameter")
    }

    /// Another model than the one that is served.
    pub(super) fn no_model(name: &str) -> Self {
        let message = format!("The model '{name}' does not exist or you do not have access to it.");
        Self::new(StatusCode::NOT_FOUND, message).of("model").code("model_not_found")
    }

    /// As many requests wait as may.
    pub(super) fn full(retry_after: u32) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "The queue of requests is full; try again later.");
        Problem { retry_after: Some(retry_after), ..problem.code("rate_limit_exceeded") }
    }

    /// The server cannot take the request now.
    pub(super) fn unavailable(message: &str) -> Self {
        Problem { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// Something here failed, and not the request.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// With the field that is wrong.
    pub(super) fn of(self, param: &str) -> Self {
        Problem { param: Some(cut(param.into())), ..self }
    }

    pub(super) fn code(self, code: &'static str) -> Self {
        Problem { code: Some(code), ..self }
    }

    /// As OpenAI's API says it.
    pub(super) fn openai(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }

    /// As ollama's API says it.
    pub(super) fn ollama(&self) -> Value {
        json!({ "error": self.message })
    }
}

/// What a request says comes back, but not all of it.
fn cut(mut text: String) -> String {
    const MOST: usize = 400;
    if let Some((end, _)) = text.char_indices().nth(MOST) {
        text.truncate(end);
        text.push('…');
    }
    text
}
