//! The routes, and what every request goes through: who asks and whence, its length and time, and a line in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::{Body as _, Bytes};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::time::timeout;

use super::about::About;
use super::answer::answer;
use super::app::App;
use super::fields::{Fields, VALUES};
use super::ollama::{self, Asked};
use super::phase::Phase;
use super::problem::Problem;
use super::tokens::{self, Tokenize};
use super::{format, openai, page, reply, responses};
use crate::args::Sampling;

type Answered = Result<Response, Problem>;

/// Whether all of a request's body was read. Else the connection ends behind the answer, and its client is told so.
#[derive(Clone)]
struct IsRead(Arc<AtomicBool>);

/// All routes.
pub(super) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/", get(|| async { page::page() }))
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/completions", post(completion))
        .route("/v1/responses", post(response))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/api/version", get(version))
        .route("/api/tags", get(tags))
        .route("/api/ps", get(running))
        .route("/api/show", post(show))
        .route("/api/chat", post(ollama_chat))
        .route("/api/generate", post(ollama_generate))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(app.clone(), guarded))
        .with_state(app.clone())
}

/// What every request goes through.
async fn guarded(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let (start, method, path) = (Instant::now(), request.method().clone(), request.uri().path().to_string());
    let is_read = IsRead(Arc::new(request.body().is_end_stream().into()));
    request.extensions_mut().insert(is_read.clone());
    let origin = request.headers().get(ORIGIN).filter(|o| o.to_str().is_ok_and(|o| app.guard.allows(o))).cloned();
    app.metrics.requests.add(1);
    let mut response = match admit(&app, &request) {
        Err(problem) => refused(&path, &problem),
        Ok(()) if method == Method::OPTIONS && origin.is_some() => preflight(request.headers()),
        Ok(()) => next.run(request).await,
    };
    if let Some(origin) = origin {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
        response.headers_mut().insert(VARY, HeaderValue::from_static("Origin"));
    }
    let status = response.status();
    if status.as_u16() >= 400 {
        app.metrics.refused.add(1);
    }
    if !is_read.0.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    log::info!("{method} {path} {} {:.1} ms", status.as_u16(), start.elapsed().as_secs_f64() * 1e3);
    response
}

/// Whether a request may be answered at all. Whether the server lives is no secret, and its page says nothing.
fn admit(app: &App, request: &Request) -> Result<(), Problem> {
    app.guard.whence(request.headers(), request.uri(), request.version())?;
    let is_open = matches!(request.uri().path(), "/" | "/health" | "/v1/health") || request.method() == Method::OPTIONS;
    if is_open { Ok(()) } else { app.guard.who(request.headers()) }
}

/// What a browser asks before it lets a page ask: with headers of its client's own, which change nothing.
fn preflight(asked: &HeaderMap) -> Response {
    let wanted = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS")),
        (ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(HeaderValue::from_static("authorization, content-type"))),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// A problem in the form of the API whose route it is.
pub(super) fn refused(path: &str, problem: &Problem) -> Response {
    let body = if path.starts_with("/api/") { problem.ollama() } else { problem.openai() };
    let mut response = reply::json(problem.status, &body);
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if problem.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The response of a handler, which knows its path.
fn respond(path: &str, answered: Answered) -> Response {
    answered.unwrap_or_else(|problem| refused(path, &problem))
}

async fn no_route(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let problem = Problem::new(StatusCode::NOT_FOUND, format!("Invalid URL ({method} {path})")).code("unknown_url");
    refused(path, &problem)
}

async fn no_method(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let message = format!("Not allowed to {method} on {path} (HINT: perhaps you meant to use another method)");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, message).code("method_not_supported");
    refused(path, &problem)
}

async fn health(State(app): State<Arc<App>>) -> Response {
    if *app.phase.borrow() == Phase::Running {
        reply::ok(&json!({ "status": "ok" }))
    } else {
        refused("", &Problem::unavailable("The server is about to end."))
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.text(app.sizes.slots)).into_response()
}

async fn models(State(app): State<Arc<App>>) -> Response {
    reply::ok(&json!({ "object": "list", "data": [app.about.openai()] }))
}

async fn model(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path();
    // Clients escape what a name has beside letters, such as the slash of owner/model.
    let name = percent_decode_str(path.strip_prefix("/v1/models/").unwrap_or(path)).decode_utf8_lossy();
    let found = app.about.check(Some(&name)).map(|()| reply::ok(&app.about.openai()));
    respond(path, found)
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path().to_string();
    respond(&path, generate(&app, request, openai::chat).await)
}

async fn completion(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path().to_string();
    respond(&path, generate(&app, request, openai::completion).await)
}

async fn response(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path().to_string();
    respond(&path, generate(&app, request, responses::parse).await)
}

async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Response {
    let run = async {
        let wanted = Tokenize::parse(body(&app, request).await?)?;
        app.prepare.run(move |preparation| wanted.run(preparation)).await
    };
    respond("", run.await.map(|value| reply::ok(&value)))
}

async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Response {
    let run = async {
        let tokens = tokens::detokenize(body_of(&app, request, tokens::MOST).await?, app.about.vocab)?;
        app.prepare.run(move |preparation| Ok(tokens::text(&tokens, preparation))).await
    };
    respond("", run.await.map(|value| reply::ok(&value)))
}

async fn version() -> Response {
    reply::ok(&json!({ "version": env!("CARGO_PKG_VERSION") }))
}

async fn tags(State(app): State<Arc<App>>) -> Response {
    reply::ok(&ollama::tags(&app.about))
}

async fn running(State(app): State<Arc<App>>) -> Response {
    reply::ok(&ollama::running(&app.about))
}

async fn show(State(app): State<Arc<App>>, request: Request) -> Response {
    let shown = body(&app, request).await.and_then(|fields| ollama::show(fields, &app.about));
    respond("/api/show", shown.map(|value| reply::ok(&value)))
}

async fn ollama_chat(State(app): State<Arc<App>>, request: Request) -> Response {
    respond("/api/chat", of_ollama(&app, request, ollama::chat).await)
}

async fn ollama_generate(State(app): State<Arc<App>>, request: Request) -> Response {
    respond("/api/generate", of_ollama(&app, request, ollama::generate).await)
}

/// Reads a request in ollama's form, and answers it.
async fn of_ollama(
    app: &Arc<App>,
    request: Request,
    parse: fn(Fields, Sampling, &About) -> Result<Asked, Problem>,
) -> Answered {
    let mut fields = body(app, request).await?;
    ollama::model(&mut fields, &app.about)?;
    match parse(fields, app.sampling.clone(), &app.about)? {
        Asked::Answer(request) => {
            let (wanted, format) = *request;
            answer(app, wanted, format).await
        }
        Asked::Nothing(value) => Ok(reply::ok(&value)),
    }
}

/// Reads a request, and answers it.
async fn generate(
    app: &Arc<App>,
    request: Request,
    parse: fn(openai::Request<'_>) -> Result<format::Request, Problem>,
) -> Answered {
    let mut fields = body(app, request).await?;
    app.about.check(fields.text("model")?.as_deref())?;
    let (wanted, format) = parse(openai::Request {
        fields,
        sampling: app.sampling.clone(),
        vocab: app.about.vocab,
        model: app.about.name(),
        id: app.ids.next(),
    })?;
    answer(app, wanted, format).await
}

/// The fields of a request's body; a prompt may be as many tokens as there is room for.
async fn body(app: &App, request: Request) -> Result<Fields, Problem> {
    body_of(app, request, app.sizes.context).await
}

/// The fields of a body in which there may be so many tokens; it is of bounded length and comes in bounded time.
async fn body_of(app: &App, request: Request, tokens: usize) -> Result<Fields, Problem> {
    let most = app.limits.body;
    let (parts, body) = request.into_parts();
    if length(&parts.headers).is_some_and(|length| length > most as u64) {
        return Err(too_large(most));
    }
    if let Some(encoding) = parts.headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let message = format!("The body of the request is encoded as {encoding:?}: send it as it is.");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).code("unsupported_content_encoding"));
    }
    let bytes = bytes(body, most, app).await?;
    if let Some(IsRead(is_read)) = parts.extensions.get() {
        is_read.store(true, Ordering::Relaxed);
    }
    Fields::parse(&bytes, VALUES.saturating_add(tokens))
}

async fn bytes(body: Body, most: usize, app: &App) -> Result<Bytes, Problem> {
    match timeout(app.limits.time, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(e)) if std::error::Error::source(&e).is_some_and(|e| e.is::<http_body_util::LengthLimitError>()) => {
            Err(too_large(most))
        }
        Ok(Err(e)) => Err(Problem::invalid(format!("The body cannot be read: {e}."))),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "The body of the request did not come in time.")),
    }
}

fn too_large(most: usize) -> Problem {
    let message = format!("The body of the request is larger than {most} bytes.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("request_too_large")
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
